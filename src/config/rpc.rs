use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, Period, all_absolute, at_least_one, longer_than_zero, refuse_if};
use crate::model::Address;

/// `[rpc]`: how roles in different processes call each other.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rpc {
    /// Where auth and compute are called.
    pub listen: Vec<RpcDoor>,
    /// Where auth runs, for processes in which it does not; several are tried in turn.
    pub auth: Vec<Address>,
    /// Where compute runs; several know different instances.
    pub compute: Vec<Address>,
    /// A directory of files that say where compute runs, one for each host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_dir: Option<PathBuf>,
    /// Whether consoles come through the compute role of their own host.
    pub tunnel: Tunnel,
    /// Consoles that the compute role here carries for proxies elsewhere at one time.
    pub max_tunnels: usize,
    /// The CA of all our roles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// This process's own certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// A file with a secret that all roles know, in place of the three.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// How long it may take to connect.
    pub connect_timeout: Period,
    /// How long a call may take.
    pub timeout: Period,
}

/// How a proxy reaches consoles whose compute role is elsewhere.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tunnel {
    /// It dials them.
    #[default]
    Off,
    /// Through that role, or else it dials them.
    Prefer,
    /// Through that role alone.
    Only,
}

/// Where calls come in: `127.0.0.1:6090` or `unix:/path`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RpcDoor {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket of this process's own.
    Unix(PathBuf),
}

/// The text is no door.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{0}` is neither a numeric address with a port, such as \"10.0.0.1:6090\", nor unix:/path"
)]
pub struct BadDoor(String);

impl FromStr for RpcDoor {
    type Err = BadDoor;

    fn from_str(text: &str) -> Result<Self, BadDoor> {
        if let Some(path) = text
            .strip_prefix("unix:")
            .filter(|path| path.starts_with('/'))
        {
            return Ok(Self::Unix(path.into()));
        }
        let address = text.parse().map_err(|_| BadDoor(text.to_owned()));
        address.map(Self::Tcp)
    }
}

impl TryFrom<String> for RpcDoor {
    type Error = BadDoor;

    fn try_from(text: String) -> Result<Self, BadDoor> {
        text.parse()
    }
}

impl From<RpcDoor> for String {
    fn from(door: RpcDoor) -> Self {
        door.to_string()
    }
}

impl fmt::Display for RpcDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Default for Rpc {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            auth: Vec::new(),
            compute: Vec::new(),
            compute_dir: None,
            tunnel: Tunnel::Off,
            max_tunnels: 512,
            ca: None,
            certificate: None,
            key: None,
            secret_file: None,
            connect_timeout: Period::from_secs(2),
            timeout: Period::from_secs(15),
        }
    }
}

/// Calls that wait for news are held this long, and others may take as long as a hypervisor.
const SHORTEST: Duration = Duration::from_secs(10);

impl Rpc {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let files = [&self.ca, &self.certificate, &self.key];
        let set = files.iter().filter(|file| file.is_some()).count();
        let half = set != 0 && set != files.len();
        let why = || "ca, certificate and key go together".to_owned();
        refuse_if(half.then(why), "rpc.certificate")?;
        let both = set != 0 && self.secret_file.is_some();
        let why = || "is of no use beside certificates; set one or the other".to_owned();
        refuse_if(both.then(why), "rpc.secret_file")?;
        all_absolute("rpc.compute_dir", self.compute_dir.as_slice())?;
        all_absolute("rpc.ca", self.ca.as_slice())?;
        all_absolute("rpc.certificate", self.certificate.as_slice())?;
        all_absolute("rpc.key", self.key.as_slice())?;
        all_absolute("rpc.secret_file", self.secret_file.as_slice())?;
        let open = set == 0 && self.secret_file.is_none() && self.is_over_tcp();
        let why = || {
            "roles that call each other over TCP must know each other: set ca, certificate and key \
             (`vncgate pki init` makes them), or secret_file"
                .to_owned()
        };
        refuse_if(open.then(why), "rpc.ca")?;
        at_least_one("rpc.max_tunnels", self.max_tunnels)?;
        longer_than_zero("rpc.connect_timeout", self.connect_timeout)?;
        let short = self.timeout.get() < SHORTEST;
        let why = || "must be at least 10s; calls that wait for news are held for 8s".to_owned();
        refuse_if(short.then(why), "rpc.timeout")
    }

    /// Whether anything says where compute runs.
    pub fn names_compute(&self) -> bool {
        !self.compute.is_empty() || self.compute_dir.is_some()
    }

    fn is_over_tcp(&self) -> bool {
        let tcp = |door: &RpcDoor| matches!(door, RpcDoor::Tcp(_));
        let mut peers = self.auth.iter().chain(&self.compute);
        self.compute_dir.is_some()
            || self.listen.iter().any(tcp)
            || peers.any(|peer| matches!(peer, Address::Tcp(..)))
    }

    /// The files with certificates.
    pub fn certificate_files(&self) -> impl Iterator<Item = PathBuf> {
        [self.ca.clone(), self.certificate.clone()]
            .into_iter()
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    fn refusal(section: &str) -> String {
        Config::parse(&format!("[rpc]\n{section}"))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn calls_over_tcp_need_keys_and_unix_sockets_do_not() {
        assert!(refusal("auth = ['ctl-1:6090']").starts_with("rpc.ca: "));
        assert!(refusal("listen = ['127.0.0.1:0']").starts_with("rpc.ca: "));
        let unix = "[rpc]\nlisten = ['unix:/run/a']\nauth = ['unix:/run/b']";
        assert!(Config::parse(unix).is_ok());
        let secret = "[rpc]\nlisten = ['127.0.0.1:0']\nsecret_file = '/etc/secret'";
        assert!(Config::parse(secret).is_ok());
    }

    #[test]
    fn half_a_set_of_keys_and_two_sets_are_refused() {
        assert!(refusal("ca = '/ca'").starts_with("rpc.certificate: "));
        let both = "ca = '/a'\ncertificate = '/b'\nkey = '/c'\nsecret_file = '/d'";
        assert!(refusal(both).starts_with("rpc.secret_file: "));
        assert!(refusal("timeout = '5s'").starts_with("rpc.timeout: "));
        assert!(refusal("max_tunnels = 0").starts_with("rpc.max_tunnels: "));
        assert!(refusal("listen = ['localhost:1']").contains("neither a numeric address"));
    }
}
