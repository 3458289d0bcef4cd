use std::net::{IpAddr, Ipv6Addr};

/// What counts as one address: an IPv4 address, or the first half of an IPv6 one, which is what one
/// customer has.
pub fn block_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}
