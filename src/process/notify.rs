use std::env;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long a manager may leave its socket full. It is told again what matters at the next change.
const PATIENCE: Duration = Duration::from_millis(500);

/// Tells the service manager how it goes, in the words of `sd_notify(3)`. Where there is none, it says
/// nothing. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Notifier(Option<Arc<Manager>>);

#[derive(Debug)]
struct Manager {
    /// Set once the manager looks at another process.
    silent: AtomicBool,
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Notifier {
    /// The manager that `$NOTIFY_SOCKET` names: a path, or an abstract name after an `@`. Errors:
    /// it is neither.
    pub fn from_env() -> io::Result<Self> {
        match env::var_os("NOTIFY_SOCKET") {
            Some(name) if !name.is_empty() => Self::to(&name),
            _ => Ok(Self::default()),
        }
    }

    fn to(name: &OsString) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::Error::other("neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(Some(Arc::new(Manager {
            silent: AtomicBool::new(false),
            socket,
            address,
        }))))
    }

    /// Ready to serve, at the start and after a reload.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", line(status)));
    }

    /// About to read the config again. [`Notifier::ready`] tells the end.
    pub fn reloading(&self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_us()));
    }

    /// About to end.
    pub fn stopping(&self, status: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={}", line(status)));
    }

    /// How it goes, in words.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", line(status)));
    }

    /// Another process has taken this one's place. From here on this one says nothing.
    pub fn successor(&self, pid: u32, status: &str) {
        self.send(&format!("MAINPID={pid}\nSTATUS={}", line(status)));
        if let Some(manager) = &self.0 {
            manager.silent.store(true, Ordering::Relaxed);
        }
    }

    /// Still alive.
    pub(super) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        let Some(manager) = &self.0 else {
            return;
        };
        let Manager {
            silent,
            socket,
            address,
        } = &**manager;
        if silent.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }
}

/// The manager reads one assignment a line.
fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn monotonic_us() -> u128 {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::try_from(now).unwrap_or_default().as_micros()
}

/// Half the time after which the manager takes this process for dead, if it watches it at all:
/// `$WATCHDOG_USEC`, unless `$WATCHDOG_PID` is another's.
pub(super) fn watchdog_interval() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let other = number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(process::id()));
    let limit = number("WATCHDOG_USEC").filter(|limit| *limit > 0 && !other)?;
    Some(Duration::from_micros(limit) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut bytes = [0; 512];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_manager_is_told_under_a_path_and_under_an_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("vncgate-test-{}", process::id());
        let hidden = SocketAddr::from_abstract_name(&name).unwrap();
        let listeners = [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (
                UnixDatagram::bind_addr(&hidden).unwrap(),
                format!("@{name}").into(),
            ),
        ];

        for (listener, name) in listeners {
            Notifier::to(&name).unwrap().ready("two\nlines");
            assert_eq!(heard(&listener), "READY=1\nSTATUS=two lines");
        }
    }

    #[test]
    fn what_is_no_address_is_an_error_and_no_manager_is_none() {
        assert!(Notifier::to(&"vsock:2:1".into()).is_err());
        Notifier::default().ready("nobody hears it");
    }
}
