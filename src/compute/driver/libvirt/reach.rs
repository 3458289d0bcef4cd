//! Where the consoles of a hypervisor can be: what its domains' XML names is no reason to dial
//! just anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use crate::model::{Address, Console, Host};

/// The hosts that a console of a domain may be dialled on. `far` is the host in the way to the
/// daemon; without one it is this machine, which has its loopback and addresses of its own, and
/// whose Unix sockets may be opened.
pub(super) fn hosts(
    far: Option<&Host>,
    address: &Host,
    console: Option<&Console>,
) -> Option<Vec<Host>> {
    let mut hosts = vec![address.clone()];
    if let Some(far) = far {
        hosts.push(far.clone());
        return Some(hosts);
    }
    let target = console.and_then(|console| console.target.as_ref());
    match target.map(|target| &target.address) {
        Some(Address::Unix(_)) => return None,
        Some(Address::Tcp(Host::Ip(ip), _)) if is_own(*ip) => hosts.push(Host::Ip(*ip)),
        _ => {}
    }
    let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    hosts.extend(loopback.map(Host::Ip));
    Some(hosts)
}

/// Only what is this machine's own can be bound.
fn is_own(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::domain;
    use crate::model::ConsoleKind;

    fn hosts_of(far: Option<&str>, listen: &str) -> Option<Vec<String>> {
        let xml = format!(
            "<domain id='1'><name>a</name><uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid>\
             <devices><graphics type='vnc' port='5901' {listen}/></devices></domain>"
        );
        let address: Host = "10.0.0.7".parse().unwrap();
        let instance = domain::parse(&xml, &address, "test").unwrap();
        let far = far.map(|far| far.parse().unwrap());
        let hosts = hosts(far.as_ref(), &address, instance.console(ConsoleKind::Vnc));
        hosts.map(|hosts| hosts.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_far_hypervisor_is_bound_to_its_own_addresses() {
        let hosts = hosts_of(Some("kvm-1"), "listen='127.0.0.1'").unwrap();
        assert_eq!(hosts, ["10.0.0.7", "kvm-1"]);
        let hosts = hosts_of(Some("kvm-1"), "socket='/run/x'").unwrap();
        assert_eq!(hosts, ["10.0.0.7", "kvm-1"]);
    }

    #[test]
    fn this_machine_has_its_loopback_and_addresses_of_its_own_and_no_others() {
        let hosts = hosts_of(None, "listen='127.4.4.4'").unwrap();
        assert_eq!(hosts, ["10.0.0.7", "127.4.4.4", "127.0.0.1", "::1"]);
        let hosts = hosts_of(None, "listen='192.0.2.1'").unwrap();
        assert_eq!(hosts, ["10.0.0.7", "127.0.0.1", "::1"]);
        assert_eq!(hosts_of(None, "socket='/run/x'"), None);
    }
}
