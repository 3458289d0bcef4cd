//! Who sent a request, after what trusted reverse proxies say of it. Pure over headers.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Who the client is and how it came, after what trusted proxies say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Client {
    /// The client's address; `None` behind a socket that has none.
    pub ip: Option<IpAddr>,
    /// What the nearest trusted proxy said the client's scheme was, in lower case.
    pub forwarded_scheme: Option<String>,
}

/// Reads `X-Forwarded-For` and `X-Forwarded-Proto`, if `peer` is within `trusted`.
///
/// The address is the last one in `X-Forwarded-For` that no trusted proxy has. A list of unlike
/// schemes means nothing and counts as a scheme that matches none.
pub fn client(peer: Option<IpAddr>, headers: &HeaderMap, trusted: &[IpNet]) -> Client {
    let Some(peer) = peer.filter(|peer| is_within(trusted, *peer)) else {
        return Client {
            ip: peer,
            forwarded_scheme: None,
        };
    };
    let hops: Vec<&str> = words(headers, &FORWARDED_FOR).collect();
    let mut ip = peer;
    for hop in hops.iter().rev() {
        let Some(address) = forwarded_address(hop) else {
            break;
        };
        ip = address;
        if !is_within(trusted, address) {
            break;
        }
    }
    let mut schemes: Vec<String> = words(headers, &FORWARDED_PROTO)
        .map(str::to_ascii_lowercase)
        .collect();
    schemes.dedup();
    let forwarded_scheme = (!schemes.is_empty()).then(|| schemes.join(", "));
    Client {
        ip: Some(ip),
        forwarded_scheme,
    }
}

/// Whether an address, however written, is in one of these networks.
pub(super) fn is_within(networks: &[IpNet], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    networks.iter().any(|net| net.contains(&ip))
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]:80`.
fn forwarded_address(hop: &str) -> Option<IpAddr> {
    let address = hop.parse().ok().or_else(|| {
        hop.parse::<std::net::SocketAddr>()
            .ok()
            .map(|address| address.ip())
            .or_else(|| {
                hop.strip_prefix('[')
                    .and_then(|hop| hop.strip_suffix(']'))
                    .and_then(|v6| v6.parse().ok())
            })
    })?;
    Some(IpAddr::to_canonical(&address))
}

/// The comma-separated words of all headers of a name.
pub fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|word| !word.is_empty())
}
