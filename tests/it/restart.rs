//! What a service manager sees of the program, and how it is replaced while people use it.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};

use crate::rig::gateway::{Setup, bare};
use crate::rig::wait::{PATIENCE, until};

/// A service manager's end of `sd_notify`, under an abstract name.
struct Manager {
    socket: UnixDatagram,
    name: String,
}

impl Manager {
    fn listen(name: &str) -> Self {
        let name = format!("vncgate-{name}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            name: format!("@{name}"),
        }
    }

    /// The next message, whatever it is.
    fn hear(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("a message");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    /// Waits for a message with that line.
    #[track_caller]
    fn wait_for(&self, line: &str) -> String {
        until(line, || {
            let message = self.hear();
            message.lines().any(|it| it == line).then_some(message)
        })
    }
}

#[test]
fn the_service_manager_hears_of_readiness_and_of_the_end() {
    let manager = Manager::listen("life");
    let mut gateway = Setup::new().start_with(|binary| {
        let mut command = bare(binary);
        command.env("NOTIFY_SOCKET", &manager.name);
        command
    });

    let ready = manager.hear();
    gateway.signal(Signal::TERM);
    let stopping = manager.wait_for("STOPPING=1");

    assert!(ready.starts_with("READY=1\nSTATUS="), "{ready}");
    assert!(stopping.contains("STATUS=draining"), "{stopping}");
    assert_eq!(gateway.wait(), 0);
}

#[test]
fn the_service_manager_hears_when_a_reload_began_and_what_became_of_it() {
    let manager = Manager::listen("reload");
    let gateway = Setup::new().start_with(|binary| {
        let mut command = bare(binary);
        command.env("NOTIFY_SOCKET", &manager.name);
        command
    });
    assert!(manager.hear().starts_with("READY=1"));
    let before = monotonic_us();

    gateway.signal(Signal::HUP);
    let (reloading, ready) = (manager.hear(), manager.hear());
    fs::write(&gateway.config, "[proxy]\nmax_frame = 1").unwrap();
    gateway.signal(Signal::HUP);
    let (again, refused) = (manager.hear(), manager.hear());

    let began = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    let began: u128 = began.expect(&reloading).trim().parse().unwrap();
    assert!((before..=monotonic_us()).contains(&began), "{reloading}");
    assert_eq!(ready.trim(), "READY=1\nSTATUS=serving");
    assert!(again.starts_with("RELOADING=1\n"), "{again}");
    assert!(refused.starts_with("READY=1\nSTATUS="), "{refused}");
    assert!(refused.contains("proxy.max_frame"), "{refused}");
}

/// The clock that a service manager compares with.
fn monotonic_us() -> u128 {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::try_from(now).unwrap().as_micros()
}

#[test]
fn a_watchdog_hears_a_beat_at_half_its_limit() {
    let manager = Manager::listen("watchdog");
    let _gateway = Setup::new().start_with(|binary| {
        let mut command = bare(binary);
        command.env("NOTIFY_SOCKET", &manager.name);
        command.env("WATCHDOG_USEC", "400000");
        command
    });
    let _first = manager.wait_for("WATCHDOG=1");
    let started = Instant::now();

    for _beat in 0..5 {
        let _beat = manager.wait_for("WATCHDOG=1");
    }

    // Five times 200 ms; late beats do not make later ones come earlier.
    assert!(started.elapsed() >= Duration::from_millis(800));
}

#[test]
fn a_watchdog_of_another_process_hears_nothing() {
    let manager = Manager::listen("other-watchdog");
    let mut gateway = Setup::new().start_with(|binary| {
        let mut command = bare(binary);
        command.env("NOTIFY_SOCKET", &manager.name);
        command
            .env("WATCHDOG_USEC", "2000")
            .env("WATCHDOG_PID", "1");
        command
    });

    let ready = manager.hear();
    gateway.cli(&["instance", "list"]).ok();
    gateway.signal(Signal::TERM);
    let next = manager.hear();

    assert!(ready.starts_with("READY=1"), "{ready}");
    assert!(next.starts_with("STOPPING=1"), "{next}");
    assert_eq!(gateway.wait(), 0);
}

#[test]
fn the_process_leaves_no_core_and_gains_no_privileges() {
    let gateway = Setup::new().start();
    let read = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", gateway.pid()));

    let status = read("status").unwrap();
    let limits = read("limits").unwrap();

    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let cores = limits.lines().find(|line| line.starts_with("Max core"));
    let words: Vec<_> = cores.unwrap().split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{cores:?}");
}

#[test]
fn the_service_manager_is_told_which_process_took_over() {
    let manager = Manager::listen("successor");
    let mut gateway = Setup::new().start_with(|binary| {
        let mut command = bare(binary);
        command.env("NOTIFY_SOCKET", &manager.name);
        command
    });
    assert!(manager.hear().starts_with("READY=1"));

    gateway.signal(Signal::USR2);
    let moved = manager.hear();
    let next = manager.hear();

    let pid = moved.lines().find_map(|line| line.strip_prefix("MAINPID="));
    let pid: i32 = pid.expect(&moved).parse().unwrap();
    assert!(next.starts_with("READY=1"), "{next}");
    until("the end of the first process", || {
        (!gateway.is_running()).then_some(())
    });
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    let last = manager.hear();
    assert!(last.starts_with("STOPPING=1"), "{last}");
    assert_eq!(gateway.wait(), 0);
}
