use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a console's bytes come from.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// The plain door.
    pub address: Address,
    /// A second port on the same host that speaks TLS from the first byte (SPICE's `tlsPort`).
    pub tls_port: Option<u16>,
    /// What to ask for behind that door before the console's own bytes come.
    pub internal_access_path: Option<AccessPath>,
}

/// The console's name at a door that serves several: the target of an HTTP CONNECT, as Nova's
/// `internal_access_path` has it.
///
/// 1 to 255 visible ASCII characters and spaces (`VMware`'s is a JSON text). Part of the secret way
/// to a console, so `Debug` hides it.
#[derive(Clone, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccessPath(String);

/// The text can be no access path: empty, over 255 characters, or with others than visible ones.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an internal access path is 1 to 255 visible ASCII characters")]
pub struct BadAccessPath;

impl AccessPath {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AccessPath {
    type Error = BadAccessPath;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        let fits = (1..=255).contains(&text.len()) && text.bytes().all(visible);
        fits.then_some(Self(text)).ok_or(BadAccessPath)
    }
}

impl From<AccessPath> for String {
    fn from(path: AccessPath) -> Self {
        path.0
    }
}

impl fmt::Debug for AccessPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessPath(***)")
    }
}

impl From<Address> for Target {
    fn from(address: Address) -> Self {
        Self {
            address,
            tls_port: None,
            internal_access_path: None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// A TCP address or a Unix socket.
///
/// Written `host:port`, `[v6]:port`, or `unix:/absolute/path`; read and shown in that form. People
/// cannot write [`Address::Hypervisor`]; between roles and in lists it is the word `hypervisor`.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// A name or number, and a port other than 0.
    Tcp(Host, u16),
    /// An absolute path.
    Unix(PathBuf),
    /// It listens nowhere: only its hypervisor can hand it over, on its own machine.
    Hypervisor,
}

/// What [`Address::Hypervisor`] is called.
const HYPERVISOR: &str = "hypervisor";

/// A host by number or by name.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Host {
    /// An IPv4 or IPv6 address.
    Ip(IpAddr),
    /// A DNS name, to be resolved when dialled.
    Name(String),
}

/// Why a text is no address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadAddress {
    /// Neither `host:port` nor `unix:/path`.
    #[error("`{0}` is neither `host:port` nor `unix:/path`")]
    Form(String),
    /// The port is no number from 1 to 65535.
    #[error("`{0}` has no port from 1 to 65535")]
    Port(String),
    /// The host holds something no host name may hold.
    #[error("`{0}` is no host name or address")]
    Host(String),
    /// A Unix socket's path is relative.
    #[error("the path of `{0}` is not absolute")]
    Relative(String),
}

impl FromStr for Host {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        if let Ok(ip) = bare.parse() {
            return Ok(Self::Ip(ip));
        }
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if text.is_empty() || text.len() > 253 || !text.chars().all(named) {
            return Err(BadAddress::Host(text.to_owned()));
        }
        Ok(Self::Name(text.to_owned()))
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            let absolute = path.is_absolute();
            return if absolute {
                Ok(Self::Unix(path))
            } else {
                Err(BadAddress::Relative(text.into()))
            };
        }
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| BadAddress::Form(text.into()))?;
        if host.contains(':') && !host.starts_with('[') {
            return Err(BadAddress::Form(text.into()));
        }
        let port = port.parse().ok().filter(|port| *port != 0);
        Ok(Self::Tcp(
            host.parse()?,
            port.ok_or_else(|| BadAddress::Port(text.into()))?,
        ))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl TryFrom<String> for Host {
    type Error = BadAddress;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.to_string()
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(Host::Ip(address.ip()), address.port())
    }
}

impl TryFrom<String> for Address {
    type Error = BadAddress;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text == HYPERVISOR {
            return Ok(Self::Hypervisor);
        }
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(Host::Ip(ip), port) => SocketAddr::new(*ip, *port).fmt(f),
            Self::Tcp(Host::Name(name), port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Hypervisor => f.write_str(HYPERVISOR),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_from_what_they_show() {
        for text in [
            "127.0.0.1:5900",
            "[::1]:5901",
            "vnc-1.lab.example:5902",
            "unix:/run/x.sock",
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn what_listens_nowhere_can_be_told_but_not_be_written_by_people() {
        let told = String::from(Address::Hypervisor);
        assert_eq!(Address::try_from(told.clone()), Ok(Address::Hypervisor));
        assert!(told.parse::<Address>().is_err());
    }

    #[test]
    fn an_access_path_cannot_smuggle_a_line_into_the_request_it_goes_into() {
        let parse = |text: &str| AccessPath::try_from(text.to_owned());
        assert!(parse("a\r\nX-Evil: 1").is_err());
        assert!(parse("").is_err());
        assert!(parse(&"x".repeat(256)).is_err());
        assert!(parse("{\"ticket\": \"52\"}").is_ok());
    }

    #[test]
    fn what_is_no_address_is_refused_by_its_fault() {
        let parse = |text: &str| text.parse::<Address>().unwrap_err();
        assert!(matches!(parse("host"), BadAddress::Form(_)));
        assert!(matches!(parse("::1:5900"), BadAddress::Form(_)));
        assert!(matches!(parse("host:0"), BadAddress::Port(_)));
        assert!(matches!(parse("host:70000"), BadAddress::Port(_)));
        assert!(matches!(parse("host:-1"), BadAddress::Port(_)));
        assert!(matches!(parse("ho st:1"), BadAddress::Host(_)));
        assert!(matches!(parse(":5900"), BadAddress::Host(_)));
        assert!(matches!(parse("unix:x.sock"), BadAddress::Relative(_)));
    }
}
