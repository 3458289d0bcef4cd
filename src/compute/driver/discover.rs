//! Instances found by looking at this machine, for a start without any config.
//!
//! libvirt tells most, by itself where its daemon runs and else by the status files it left. What
//! else listens where VNC servers do, on loopback or on every address, is listed as `vnc-PORT`,
//! unless a domain claims it already.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::libvirt::transport::Uri;
use super::libvirt::{Libvirt, Settings};
use super::{
    BoxFuture, Changes, Directory, Driver, Handed, Logged, Met, Pictured, Survey, ask_all, fault,
};
use crate::compute::claim::claims;
use crate::drain::Watch;
use crate::model::{
    Address, Console, ConsoleKind, Host, Instance, InstanceId, InstanceRef, PowerState, Security,
    Target,
};

/// Displays 0 to 99, which VNC servers put at 5900 plus the display's number.
const PORTS: std::ops::RangeInclusive<u16> = 5900..=5999;

/// What a server's port follows in its name.
const NAME_PREFIX: &str = "vnc-";

/// The kernel's word for a socket that listens (`TCP_LISTEN`).
const LISTEN: &str = "0A";

/// What this machine has.
#[derive(Debug)]
pub struct Discover {
    hypervisors: Vec<Arc<dyn Driver>>,
    sockets: PathBuf,
    machine: String,
}

impl Default for Discover {
    fn default() -> Self {
        Self::new()
    }
}

impl Discover {
    /// Looks where libvirt has its sockets and keeps its status files, for the system and for
    /// this user.
    pub fn new() -> Self {
        let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let session = session.map(|runtime| runtime.join("libvirt/qemu/run"));
        let system = PathBuf::from("/run/libvirt/qemu");
        let system = Local::new("qemu:///system", system);
        let session = session.and_then(|files| Local::new("qemu:///session", files));
        let hypervisors = [system, session].into_iter().flatten();
        let hypervisors = hypervisors.map(|it| -> Arc<dyn Driver> { Arc::new(it) });
        Self::asking(hypervisors.collect(), PathBuf::from("/proc/net"))
    }

    fn asking(hypervisors: Vec<Arc<dyn Driver>>, sockets: PathBuf) -> Self {
        Self {
            hypervisors,
            sockets,
            machine: machine(),
        }
    }

    async fn look(&self) -> Survey {
        let (mut known, servers) = tokio::join!(
            ask_all(&self.hypervisors, |it| async move { it.survey().await }),
            self.servers(),
        );
        let unclaimed = servers.only(|server| !known.instances.iter().any(|it| same(it, server)));
        known.extend(unclaimed);
        known
    }

    /// Only what no hypervisor has can be a server, and only such a name or an id can name one.
    async fn look_for(&self, wanted: &InstanceRef) -> Survey {
        let asked = Arc::new(wanted.clone());
        let known = ask_all(&self.hypervisors, |it| {
            let asked = Arc::clone(&asked);
            async move { it.find(&asked).await }
        });
        let known = known.await;
        let other_name =
            matches!(wanted, InstanceRef::Name(name) if !name.starts_with(NAME_PREFIX));
        if other_name || !known.instances.is_empty() {
            return known;
        }
        self.look().await.only(|it| super::is_meant(it, wanted))
    }

    async fn servers(&self) -> Survey {
        let sockets = self.sockets.clone();
        let listening = tokio::task::spawn_blocking(move || listening(&sockets));
        let listening = match listening.await.map_err(io::Error::other).flatten() {
            Ok(listening) => listening,
            Err(error) => return fault(self.source(), &error).into(),
        };
        Survey {
            instances: listening.into_iter().map(|it| self.server(it)).collect(),
            faults: Vec::new(),
        }
    }

    /// The id holds the machine's name, so that two machines' servers stay two.
    fn server(&self, address: SocketAddr) -> Instance {
        Instance {
            id: InstanceId::derived("server", &format!("{} {address}", self.machine)),
            name: format!("{NAME_PREFIX}{}", address.port()),
            display_name: None,
            state: PowerState::Unknown,
            flavor: None,
            owner: None,
            consoles: vec![Console {
                kind: ConsoleKind::Vnc,
                target: Some(Address::from(address).into()),
            }],
            source: self.source().to_owned(),
            host: None,
        }
    }
}

impl Driver for Discover {
    fn source(&self) -> &'static str {
        "local"
    }

    fn start(&self, watch: &Watch, changes: &Changes) {
        self.hypervisors
            .iter()
            .for_each(|it| it.start(watch, changes));
    }

    fn survey(&self) -> BoxFuture<'_, Survey> {
        Box::pin(self.look())
    }

    fn find<'a>(&'a self, wanted: &'a InstanceRef) -> BoxFuture<'a, Survey> {
        Box::pin(self.look_for(wanted))
    }

    fn claimants<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Survey> {
        let target = Arc::new(target.clone());
        Box::pin(async move {
            let ask = |it: Arc<dyn Driver>| {
                let target = Arc::clone(&target);
                async move { it.claimants(&target).await }
            };
            ask_all(&self.hypervisors, ask).await
        })
    }

    fn open_display(&self, instance: InstanceId, kind: ConsoleKind) -> BoxFuture<'_, Handed> {
        Box::pin(async move {
            for hypervisor in &self.hypervisors {
                let handed = hypervisor.open_display(instance, kind).await?;
                if handed.is_some() {
                    return Ok(handed);
                }
            }
            Ok(None)
        })
    }

    fn meeting<'a>(&'a self, instance: &'a Instance, kind: ConsoleKind) -> BoxFuture<'a, Met> {
        Box::pin(async move {
            for hypervisor in &self.hypervisors {
                let met = hypervisor.meeting(instance, kind).await?;
                if met.is_some() {
                    return Ok(met);
                }
            }
            Ok(None)
        })
    }

    fn screenshot(&self, instance: InstanceId) -> BoxFuture<'_, Pictured> {
        Box::pin(async move {
            for hypervisor in &self.hypervisors {
                let taken = hypervisor.screenshot(instance).await?;
                if taken.is_some() {
                    return Ok(taken);
                }
            }
            Ok(None)
        })
    }

    fn console_log(&self, instance: InstanceId) -> BoxFuture<'_, Logged> {
        Box::pin(async move {
            for hypervisor in &self.hypervisors {
                let kept = hypervisor.console_log(instance).await?;
                if kept.is_some() {
                    return Ok(kept);
                }
            }
            Ok(None)
        })
    }
}

/// A libvirt of this machine, and the status files that tell of its guests while no daemon does.
#[derive(Debug)]
struct Local {
    libvirt: Libvirt,
    files: Directory,
}

impl Local {
    fn new(uri: &str, files: PathBuf) -> Option<Self> {
        let here = Host::Ip(Ipv4Addr::LOCALHOST.into());
        let settings = Settings {
            name: uri.to_owned(),
            uri: uri.parse::<Uri>().ok()?,
            address: here.clone(),
            readonly: false,
            credentials: None,
            optional: true,
            security: Security::default(),
            passwords: true,
        };
        Some(Self {
            libvirt: Libvirt::new(settings),
            files: Directory::if_present(files, here),
        })
    }

    async fn driver(&self) -> &dyn Driver {
        if self.libvirt.is_absent().await {
            &self.files
        } else {
            &self.libvirt
        }
    }
}

impl Driver for Local {
    fn source(&self) -> &str {
        self.libvirt.source()
    }

    fn start(&self, watch: &Watch, changes: &Changes) {
        self.libvirt.start(watch, changes);
    }

    fn survey(&self) -> BoxFuture<'_, Survey> {
        Box::pin(async { self.driver().await.survey().await })
    }

    fn find<'a>(&'a self, wanted: &'a InstanceRef) -> BoxFuture<'a, Survey> {
        Box::pin(async { self.driver().await.find(wanted).await })
    }

    fn claimants<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Survey> {
        Box::pin(async { self.driver().await.claimants(target).await })
    }

    fn open_display(&self, instance: InstanceId, kind: ConsoleKind) -> BoxFuture<'_, Handed> {
        self.libvirt.open_display(instance, kind)
    }

    fn meeting<'a>(&'a self, instance: &'a Instance, kind: ConsoleKind) -> BoxFuture<'a, Met> {
        self.libvirt.meeting(instance, kind)
    }

    fn screenshot(&self, instance: InstanceId) -> BoxFuture<'_, Pictured> {
        self.libvirt.screenshot(instance)
    }

    fn console_log(&self, instance: InstanceId) -> BoxFuture<'_, Logged> {
        Box::pin(async move { self.driver().await.console_log(instance).await })
    }
}

fn machine() -> String {
    let system = rustix::system::uname();
    system.nodename().to_string_lossy().into_owned()
}

fn same(known: &Instance, server: &Instance) -> bool {
    let mut targets = server.consoles.iter().filter_map(|it| it.target.as_ref());
    targets.any(|target| claims(known, target))
}

/// One address per port, so that a name means one server: IPv4 before IPv6.
fn listening(sockets: &Path) -> io::Result<Vec<SocketAddr>> {
    let mut by_port = BTreeMap::new();
    for table in ["tcp", "tcp6"] {
        let text = match std::fs::read_to_string(sockets.join(table)) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            text => text?,
        };
        for address in text.lines().filter_map(server) {
            by_port.entry(address.port()).or_insert(address);
        }
    }
    Ok(by_port.into_values().collect())
}

/// Where to dial what a line of `/proc/net/tcp` or `tcp6` says, if it could be a VNC server.
fn server(line: &str) -> Option<SocketAddr> {
    let mut fields = line.split_ascii_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    let port = u16::from_str_radix(port, 16).ok();
    let port = port.filter(|port| PORTS.contains(port))?;
    Some(SocketAddr::new(local(ip(address)?)?, port))
}

fn local(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Some(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => Some(Ipv6Addr::LOCALHOST.into()),
        ip => ip.to_canonical().is_loopback().then_some(ip.to_canonical()),
    }
}

/// The kernel prints an address as 32-bit words of this machine's own byte order.
fn ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = hex.get(at..at.checked_add(8)?)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    if hex.len() == 8 {
        return word(0).map(IpAddr::from);
    }
    let words = [word(0)?, word(8)?, word(16)?, word(24)?];
    let bytes: [u8; 16] = words.concat().try_into().ok()?;
    Some(bytes.into())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    const VNC: &str = include_str!("../../../tests/data/libvirt/vnc.xml");
    const HEADER: &str = "  sl  local_address rem_address   st tx_queue rx_queue\n";

    fn machine_with(status: &[&str], tcp: &str, tcp6: &str) -> (TempDir, Discover) {
        let place = tempfile::tempdir().unwrap();
        let qemu = place.path().join("qemu");
        fs::create_dir(&qemu).unwrap();
        for (number, xml) in status.iter().enumerate() {
            fs::write(qemu.join(format!("{number}.xml")), xml).unwrap();
        }
        fs::write(place.path().join("tcp"), format!("{HEADER}{tcp}")).unwrap();
        fs::write(place.path().join("tcp6"), format!("{HEADER}{tcp6}")).unwrap();
        let missing = place.path().join("missing");
        let here = || Host::Ip(Ipv4Addr::LOCALHOST.into());
        let directory = |path| -> Arc<dyn Driver> { Arc::new(Directory::if_present(path, here())) };
        let directories = vec![directory(qemu), directory(missing)];
        let discover = Discover::asking(directories, place.path().to_owned());
        (place, discover)
    }

    fn shown(survey: &Survey) -> Vec<String> {
        let shown = |it: &Instance| {
            let target = it.consoles[0].target.as_ref();
            format!("{} {}", it.name, target.unwrap())
        };
        survey.instances.iter().map(shown).collect()
    }

    /// Sockets of a little-endian machine.
    #[cfg(target_endian = "little")]
    const TCP: &str = "\
   0: 0100007F:170C 00000000:0000 0A 00000000:00000000\n\
   1: 00000000:170D 00000000:0000 0A 00000000:00000000\n\
   2: 0100007F:170E 0100007F:D431 01 00000000:00000000\n\
   3: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n\
   4: 0A00000A:170F 00000000:0000 0A 00000000:00000000\n";
    #[cfg(target_endian = "little")]
    const TCP6: &str = "\
   0: 00000000000000000000000001000000:170C 0:0 0A 00000000:00000000\n\
   1: 00000000000000000000000001000000:1710 0:0 0A 00000000:00000000\n\
   2: 00000000000000000000000000000000:1711 0:0 0A 00000000:00000000\n\
   3: 0000000000000000FFFF00000100007F:1712 0:0 0A 00000000:00000000\n";

    #[cfg(target_endian = "little")]
    #[tokio::test]
    async fn servers_on_loopback_or_every_address_are_listed_once() {
        let (_place, discover) = machine_with(&[], TCP, TCP6);

        let survey = discover.survey().await;

        let expected = [
            "vnc-5900 127.0.0.1:5900",
            "vnc-5901 127.0.0.1:5901",
            "vnc-5904 [::1]:5904",
            "vnc-5905 [::1]:5905",
            "vnc-5906 127.0.0.1:5906",
        ];
        assert_eq!(shown(&survey), expected);
    }

    #[cfg(target_endian = "little")]
    #[tokio::test]
    async fn a_server_that_a_status_file_claims_is_not_listed_again() {
        let (_place, discover) = machine_with(&[VNC], TCP, "");

        let survey = discover.survey().await;

        let expected = ["web-1 127.0.0.1:5901", "vnc-5900 127.0.0.1:5900"];
        assert_eq!(shown(&survey), expected);
    }

    #[cfg(target_endian = "little")]
    #[tokio::test]
    async fn a_server_is_found_by_its_name_and_its_id_and_an_instance_by_its_own() {
        let (_place, discover) = machine_with(&[VNC], TCP, "");
        let find = async |wanted: &str| discover.find(&wanted.into()).await;

        let server = find("vnc-5900").await;

        assert_eq!(shown(&server), ["vnc-5900 127.0.0.1:5900"]);
        let id = server.instances[0].id.to_string();
        assert_eq!(find(&id).await, server);
        assert_eq!(shown(&find("web-1").await), ["web-1 127.0.0.1:5901"]);
        assert_eq!(find("web-2").await, Survey::default());
        assert_eq!(find("vnc-5901").await, Survey::default());
    }

    #[test]
    fn lines_that_make_no_sense_are_passed_over() {
        for line in [
            "",
            "0:",
            "0: x:y z 0A",
            "0: 0100007F:FFFFF 0:0 0A",
            "0: é:170C 0:0 0A",
        ] {
            assert_eq!(server(line), None, "{line}");
        }
    }
}
