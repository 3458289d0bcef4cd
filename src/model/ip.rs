use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// Where somebody is, as the log has it: the address as it is always written, but at once. The
/// standard library hands an IPv4 address over in seven pieces, and each session's lines have two.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ip(pub IpAddr);

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write_v4(address, f),
            IpAddr::V6(address) => address.fmt(f),
        }
    }
}

fn write_v4(address: Ipv4Addr, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [0; 15];
    let mut length = 0;
    let mut put = |byte| {
        if let Some(place) = text.get_mut(length) {
            *place = byte;
            length += 1;
        }
    };
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            put(b'.');
        }
        if octet >= 100 {
            put(b'0' + octet / 100);
        }
        if octet >= 10 {
            put(b'0' + octet / 10 % 10);
        }
        put(b'0' + octet % 10);
    }
    let text = text.get(..length).unwrap_or_default();
    f.write_str(str::from_utf8(text).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_address_is_written_as_always(v4: [u8; 4], small in 0..=130_u8, v6: u128) {
            let [a, b, c, d] = v4;
            let v4s = [Ipv4Addr::from(v4), Ipv4Addr::new(small, b, small, d), Ipv4Addr::new(a, small, c, small)];
            let v6s = [Ipv6Addr::from(v6), v4s[0].to_ipv6_mapped(), Ipv6Addr::LOCALHOST];
            for address in v4s.map(IpAddr::V4).into_iter().chain(v6s.map(IpAddr::V6)) {
                prop_assert_eq!(Ip(address).to_string(), address.to_string());
            }
        }
    }
}
