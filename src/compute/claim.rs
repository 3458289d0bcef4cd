//! Whether two targets are the same door, however they are written.
//!
//! Pure. A recycled port can stand in two instances' XML at once; who opens the one must not
//! reach the other (CVE-2013-0335).

use std::net::{IpAddr, Ipv4Addr};

use crate::model::{Address, Host, Instance, Target};

/// Whether any console of `instance` is at a door of `target`.
pub(super) fn claims(instance: &Instance, target: &Target) -> bool {
    let mut targets = instance.consoles.iter().filter_map(|it| it.target.as_ref());
    targets.any(|its| overlap(its, target))
}

/// Whether the two have a door in common: a plain one, a TLS one, or one's plain the other's TLS.
pub(super) fn overlap(one: &Target, other: &Target) -> bool {
    match (&one.address, &other.address) {
        (Address::Unix(one), Address::Unix(other)) => one == other,
        (Address::Tcp(host, port), Address::Tcp(other_host, other_port)) => {
            let ports = [Some(*other_port), other.tls_port];
            let shared = ports.contains(&Some(*port))
                || one.tls_port.is_some() && ports.contains(&one.tls_port);
            shared && same_host(host, other_host)
        }
        _ => false,
    }
}

fn same_host(one: &Host, other: &Host) -> bool {
    match (number(one), number(other)) {
        (Some(one), Some(other)) => one == other,
        (None, None) => name(one).eq_ignore_ascii_case(name(other)),
        _ => false,
    }
}

/// All ways to say "this machine" are one: a wildcard listener answers on every one of them.
fn number(host: &Host) -> Option<IpAddr> {
    let this_machine = IpAddr::V4(Ipv4Addr::LOCALHOST);
    match host {
        Host::Ip(ip) => {
            let ip = ip.to_canonical();
            let local = ip.is_unspecified() || ip.is_ipv6() && ip.is_loopback();
            Some(if local { this_machine } else { ip })
        }
        Host::Name(_) if name(host).eq_ignore_ascii_case("localhost") => Some(this_machine),
        Host::Name(_) => None,
    }
}

/// Without the dot that ends a fully qualified name.
fn name(host: &Host) -> &str {
    match host {
        Host::Name(name) => name.trim_end_matches('.'),
        Host::Ip(_) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse::<Address>().unwrap().into()
    }

    #[test]
    fn one_door_is_recognised_however_it_is_written() {
        for (one, other) in [
            ("127.0.0.1:5900", "localhost:5900"),
            ("127.0.0.1:5900", "[::1]:5900"),
            ("0.0.0.0:5900", "[::]:5900"),
            ("[::ffff:10.0.0.1]:5900", "10.0.0.1:5900"),
            ("vnc.example:5900", "VNC.Example.:5900"),
            ("unix:/run/a.sock", "unix:/run//./a.sock"),
        ] {
            assert!(overlap(&target(one), &target(other)), "{one} {other}");
        }
    }

    #[test]
    fn different_doors_stay_different() {
        for (one, other) in [
            ("127.0.0.1:5900", "127.0.0.1:5901"),
            ("127.0.0.1:5900", "127.0.0.2:5900"),
            ("10.0.0.1:5900", "vnc.example:5900"),
            ("unix:/run/a.sock", "unix:/run/b.sock"),
            ("unix:/run/a.sock", "127.0.0.1:5900"),
        ] {
            assert!(!overlap(&target(one), &target(other)), "{one} {other}");
        }
    }

    #[test]
    fn a_tls_port_is_a_door_too() {
        let plain = target("127.0.0.1:5901");
        let mut spice = target("127.0.0.1:5900");
        assert!(!overlap(&spice, &plain));

        spice.tls_port = Some(5901);

        assert!(overlap(&spice, &plain));
        assert!(overlap(&plain, &spice));
    }
}
