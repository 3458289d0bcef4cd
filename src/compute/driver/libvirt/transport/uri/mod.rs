//! Connection URIs as libvirt writes them: `driver[+transport]://[user@][host][:port]/path?...`.
//!
//! One scheme names two things: the hypervisor's driver, which the daemon has to find, and the
//! way to the daemon, which is ours. The daemon is told the URI without our part
//! ([`Uri::remote`]). As with libvirt, a host without a transport means TLS. What is not
//! supported is refused with what is, so that nothing in a URI is ever passed over in silence.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use url::Url;

use super::pki::Files;
use crate::compute::driver::libvirt::client::Rights;
use crate::model::Host;

/// libvirt's registered port for `qemu+tcp`.
const TCP_PORT: u16 = 16509;

/// libvirt's registered port for `qemu+tls`.
const TLS_PORT: u16 = 16514;

/// Where the sockets of a system daemon are.
const SYSTEM_SOCKETS: &str = "/run/libvirt";

/// A URI that vncgate can connect to. Holds no secret: passwords are refused.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Uri {
    text: String,
    remote: String,
    daemon: Daemon,
    user: Option<String>,
    route: Route,
}

/// Which of a machine's daemons is meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Daemon {
    /// The machine's own for QEMU.
    System,
    /// A user's own for QEMU.
    Session,
    /// The machine's libvirtd, for the mock that every libvirtd has.
    Mock,
}

/// The way to the daemon.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Route {
    Unix { socket: Option<PathBuf> },
    Tcp { host: Host, port: u16 },
    Tls(TlsRoute),
    Ssh(SshRoute),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct TlsRoute {
    pub(super) host: Host,
    pub(super) port: u16,
    /// A directory with all certificates, in place of the usual ones.
    pub(super) pki: Option<PathBuf>,
    pub(super) verify: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct SshRoute {
    pub(super) host: Host,
    pub(super) port: Option<u16>,
    pub(super) program: PathBuf,
    pub(super) key_file: Option<PathBuf>,
    pub(super) known_hosts: Option<PathBuf>,
    pub(super) verify: bool,
    pub(super) helper: Helper,
    pub(super) netcat: String,
    /// The daemon's socket on the far side, for netcat.
    pub(super) socket: Option<PathBuf>,
}

/// What runs on the far side of ssh.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Helper {
    /// libvirt's own `virt-ssh-helper`, or netcat where it is missing.
    Auto,
    Native,
    Netcat,
}

/// Where a user's own files and sockets are.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// `$XDG_RUNTIME_DIR`, or the user's cache directory in its stead, as libvirt does it.
    pub runtime: Option<PathBuf>,
    /// The home directory, if the user's own certificates are to be looked for.
    pub home: Option<PathBuf>,
}

impl Places {
    /// Those of this process. Root has no certificates of its own, as with libvirt.
    pub fn of_this_process() -> Self {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        let variable = |name| variable(name).filter(|path| path.is_absolute());
        let home = variable("HOME");
        let cache = || variable("XDG_CACHE_HOME").or_else(|| Some(home.as_ref()?.join(".cache")));
        Self {
            runtime: variable("XDG_RUNTIME_DIR").or_else(cache),
            home: home.filter(|_| !rustix::process::geteuid().is_root()),
        }
    }
}

/// Why a URI cannot be used. Never repeats a password.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadUri {
    /// No URI at all.
    #[error("not a URI such as qemu:///system ({0})")]
    Form(url::ParseError),
    /// Another hypervisor.
    #[error("the driver `{0}` is not supported; qemu and test are")]
    Driver(String),
    /// Another way there.
    #[error("the transport `{0}` is not supported; unix, tcp, tls and ssh are")]
    Transport(String),
    /// It holds a password.
    #[error("a password must not stand in a URI; put it into a file of its own")]
    Password,
    /// The host is missing.
    #[error("the transport `{0}` needs a host")]
    NoHost(&'static str),
    /// A host that no Unix socket can have.
    #[error("a Unix socket is on this machine; take out the host `{0}`, or name a transport")]
    HostOfUnix(String),
    /// The host holds something no host name may hold.
    #[error("`{0}` is no host name or address")]
    Host(String),
    /// The user holds something no user name may hold, or there is no use for one.
    #[error("the user `{user}` cannot be used with the transport `{transport}`")]
    User {
        /// The user.
        user: String,
        /// The transport.
        transport: &'static str,
    },
    /// Port 0, or a port where there is none.
    #[error("the port {0} cannot be used here")]
    Port(u16),
    /// The path names no daemon.
    #[error("the path `{path}` is not supported with `{driver}`; {supported}")]
    Path {
        /// The driver.
        driver: &'static str,
        /// The path.
        path: String,
        /// What can stand there.
        supported: &'static str,
    },
    /// A parameter of libvirt's that we do not have, or a mistyped one.
    #[error("the parameter `{name}` is not supported with `{transport}`; {supported}")]
    Parameter {
        /// The parameter.
        name: String,
        /// The transport.
        transport: &'static str,
        /// The names that can stand there.
        supported: String,
    },
    /// The same parameter again.
    #[error("the parameter `{0}` stands there twice")]
    Twice(String),
    /// A parameter with a value it cannot have.
    #[error("the parameter `{name}` cannot be `{value}`: {why}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        why: &'static str,
    },
    /// Something after `#`.
    #[error("what follows `#` has no meaning in a libvirt URI")]
    Fragment,
}

impl Uri {
    /// What the daemon at the other end is asked to open: `qemu:///system`.
    pub fn remote(&self) -> &str {
        &self.remote
    }

    /// The user that stands in a `tcp` or `tls` URI, to log in as where the daemon asks.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The files with certificates that a connection is made with; none but over TLS. Blocks.
    pub fn certificate_files(&self, places: &Places) -> Vec<PathBuf> {
        match &self.route {
            Route::Tls(route) => Files::locate(route.pki.as_deref(), places).certificates(),
            Route::Unix { .. } | Route::Tcp { .. } | Route::Ssh(_) => Vec::new(),
        }
    }

    /// The host that runs the daemon; none for a Unix socket of this machine.
    pub fn host(&self) -> Option<&Host> {
        match &self.route {
            Route::Unix { .. } => None,
            Route::Tcp { host, .. }
            | Route::Tls(TlsRoute { host, .. })
            | Route::Ssh(SshRoute { host, .. }) => Some(host),
        }
    }

    /// Whether the daemon is on this machine and reached by its socket.
    pub fn is_local(&self) -> bool {
        matches!(self.route, Route::Unix { .. })
    }

    /// The sockets of this machine where the daemon may listen, best first: its own, then the one
    /// that all drivers shared before they were split. Empty for other transports, and for a
    /// session of a user without a home.
    pub fn sockets(&self, rights: Rights, places: &Places) -> Vec<PathBuf> {
        match &self.route {
            Route::Unix { socket: Some(path) } => vec![path.clone()],
            Route::Unix { socket: None } => self.default_sockets(rights, places),
            Route::Tcp { .. } | Route::Tls(_) | Route::Ssh(_) => Vec::new(),
        }
    }

    pub(super) fn route(&self) -> &Route {
        &self.route
    }

    /// The sockets of the far side, for netcat: a session's place there cannot be known.
    pub(super) fn far_sockets(&self, rights: Rights) -> Vec<PathBuf> {
        match &self.route {
            Route::Ssh(SshRoute {
                socket: Some(path), ..
            }) => vec![path.clone()],
            Route::Ssh(_) => self.default_sockets(rights, &Places::default()),
            Route::Unix { .. } | Route::Tcp { .. } | Route::Tls(_) => Vec::new(),
        }
    }

    /// A session has no read-only sockets: its files are its user's alone.
    fn default_sockets(&self, rights: Rights, places: &Places) -> Vec<PathBuf> {
        let suffix = match rights {
            Rights::ReadWrite => "",
            Rights::ReadOnly => "-ro",
        };
        let system = |name: &str| Path::new(SYSTEM_SOCKETS).join(format!("{name}{suffix}"));
        let runtime = || places.runtime.iter().map(|path| path.join("libvirt"));
        match self.daemon {
            Daemon::System => vec![system("virtqemud-sock"), system("libvirt-sock")],
            Daemon::Mock => vec![system("libvirt-sock")],
            Daemon::Session => runtime()
                .flat_map(|place| [place.join("virtqemud-sock"), place.join("libvirt-sock")])
                .collect(),
        }
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Uri> for String {
    fn from(uri: Uri) -> Self {
        uri.text
    }
}

impl TryFrom<String> for Uri {
    type Error = BadUri;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for Uri {
    type Err = BadUri;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(BadUri::Form)?;
        if url.password().is_some() {
            return Err(BadUri::Password);
        }
        if url.fragment().is_some() {
            return Err(BadUri::Fragment);
        }
        let (driver, transport) = match url.scheme().split_once('+') {
            Some((driver, transport)) => (driver, Some(transport)),
            None => (url.scheme(), None),
        };
        let (daemon, remote) = remote(driver, url.path())?;
        let route = route(&url, transport)?;
        let transport = route.transport();
        let user = Some(url.username()).filter(|user| !user.is_empty());
        let user = user.map(|user| check_user(user, transport)).transpose()?;
        let (remote, text) = (remote, url.to_string());
        Ok(Self {
            text,
            remote,
            daemon,
            user,
            route,
        })
    }
}

impl Route {
    fn transport(&self) -> &'static str {
        match self {
            Self::Unix { .. } => "unix",
            Self::Tcp { .. } => "tcp",
            Self::Tls(_) => "tls",
            Self::Ssh(_) => "ssh",
        }
    }
}

fn remote(driver: &str, path: &str) -> Result<(Daemon, String), BadUri> {
    let bad = |driver, supported| BadUri::Path {
        driver,
        path: path.to_owned(),
        supported,
    };
    let daemon = match (driver, path) {
        ("qemu", "/system") => Daemon::System,
        ("qemu", "/session") => Daemon::Session,
        ("qemu", _) => return Err(bad("qemu", "/system and /session are")),
        ("test", _) if path.len() > 1 && path.starts_with('/') => Daemon::Mock,
        ("test", _) => return Err(bad("test", "/default and the path of a file are")),
        _ => return Err(BadUri::Driver(driver.to_owned())),
    };
    Ok((daemon, format!("{driver}://{path}")))
}

fn route(url: &Url, transport: Option<&str>) -> Result<Route, BadUri> {
    let host = url.host_str().filter(|host| !host.is_empty());
    match (transport, host) {
        (None | Some("unix"), None) => unix(url),
        (Some("unix"), Some(host)) => Err(BadUri::HostOfUnix(host.to_owned())),
        (Some("tcp"), _) => {
            let (host, port) = (need(host, "tcp")?, port(url)?.unwrap_or(TCP_PORT));
            Parameters::parse(url, "tcp", &[])?;
            Ok(Route::Tcp { host, port })
        }
        (None | Some("tls"), _) => tls(url, need(host, "tls")?),
        (Some("ssh"), _) => ssh(url, need(host, "ssh")?),
        (Some(other), _) => Err(BadUri::Transport(other.to_owned())),
    }
}

fn unix(url: &Url) -> Result<Route, BadUri> {
    let mut parameters = Parameters::parse(url, "unix", &["socket"])?;
    if let Some(port) = url.port() {
        return Err(BadUri::Port(port));
    }
    let socket = parameters.path("socket")?;
    Ok(Route::Unix { socket })
}

fn tls(url: &Url, host: Host) -> Result<Route, BadUri> {
    let mut parameters = Parameters::parse(url, "tls", &["pkipath", "no_verify"])?;
    Ok(Route::Tls(TlsRoute {
        host,
        port: port(url)?.unwrap_or(TLS_PORT),
        pki: parameters.path("pkipath")?,
        verify: parameters.verify()?,
    }))
}

fn ssh(url: &Url, host: Host) -> Result<Route, BadUri> {
    let supported = [
        "command",
        "keyfile",
        "known_hosts",
        "netcat",
        "no_verify",
        "proxy",
        "socket",
    ];
    let mut parameters = Parameters::parse(url, "ssh", &supported)?;
    if host.to_string().starts_with('-') {
        return Err(BadUri::Host(host.to_string()));
    }
    let socket = parameters.path("socket")?;
    let netcat = parameters.program("netcat")?;
    let by_netcat = socket.is_some() || netcat.is_some();
    let helper = parameters.helper(by_netcat)?;
    if helper == Helper::Netcat && socket.is_none() && url.path() == "/session" {
        let why = "where the socket of a session is must be said with socket=";
        return Err(bad_value("proxy", "netcat".to_owned(), why));
    }
    Ok(Route::Ssh(SshRoute {
        host,
        port: port(url)?,
        program: parameters.path("command")?.unwrap_or_else(|| "ssh".into()),
        key_file: parameters.path("keyfile")?,
        known_hosts: parameters.path("known_hosts")?,
        verify: parameters.verify()?,
        helper,
        netcat: netcat.unwrap_or_else(|| "nc".to_owned()),
        socket,
    }))
}

fn need(host: Option<&str>, transport: &'static str) -> Result<Host, BadUri> {
    let host = host.ok_or(BadUri::NoHost(transport))?;
    host.parse().map_err(|_| BadUri::Host(host.to_owned()))
}

fn port(url: &Url) -> Result<Option<u16>, BadUri> {
    match url.port() {
        Some(0) => Err(BadUri::Port(0)),
        port => Ok(port),
    }
}

/// A name as login programs take it; `ssh` reads one that begins with `-` as an option.
fn check_user(user: &str, transport: &'static str) -> Result<String, BadUri> {
    let user = percent_decode_str(user).decode_utf8_lossy().into_owned();
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-@+$\\".contains(c);
    if transport == "unix" || user.starts_with('-') || !user.chars().all(plain) {
        return Err(BadUri::User { user, transport });
    }
    Ok(user)
}

/// What stands after `?`, each to be taken once.
struct Parameters {
    pairs: Vec<(String, String)>,
}

impl Parameters {
    /// As libvirt reads it: a plus sign is a plus sign, and `;` parts as `&` does.
    fn parse(
        url: &Url,
        transport: &'static str,
        supported: &[&'static str],
    ) -> Result<Self, BadUri> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        let texts = url.query().unwrap_or_default().split(['&', ';']);
        for text in texts.filter(|text| !text.is_empty()) {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            let name = percent_decode_str(name).decode_utf8_lossy().into_owned();
            let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
            if !supported.contains(&name.as_str()) {
                let supported = list(supported);
                return Err(BadUri::Parameter {
                    name,
                    transport,
                    supported,
                });
            }
            if pairs.iter().any(|(earlier, _)| *earlier == name) {
                return Err(BadUri::Twice(name));
            }
            pairs.push((name, value));
        }
        Ok(Self { pairs })
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(key, _)| key == name)?;
        Some(self.pairs.swap_remove(at).1)
    }

    fn path(&mut self, name: &'static str) -> Result<Option<PathBuf>, BadUri> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        if !value.starts_with('/') || value.chars().any(char::is_control) {
            return Err(bad_value(name, value, "it must be an absolute path"));
        }
        Ok(Some(PathBuf::from(value)))
    }

    fn program(&mut self, name: &'static str) -> Result<Option<String>, BadUri> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
        if value.is_empty() || value.starts_with('-') || !value.chars().all(plain) {
            return Err(bad_value(name, value, "it must be the name of a program"));
        }
        Ok(Some(value))
    }

    fn verify(&mut self) -> Result<bool, BadUri> {
        match self.take("no_verify").as_deref() {
            None | Some("0") => Ok(true),
            Some("1") => Ok(false),
            Some(other) => {
                let why = "it must be 0 or 1";
                Err(bad_value("no_verify", other.to_owned(), why))
            }
        }
    }

    /// libvirt's helper finds the socket itself: whoever names one wants netcat.
    fn helper(&mut self, by_netcat: bool) -> Result<Helper, BadUri> {
        let value = self.take("proxy");
        let why = match (value.as_deref(), by_netcat) {
            (None | Some("auto"), false) => return Ok(Helper::Auto),
            (None | Some("auto" | "netcat"), true) | (Some("netcat"), false) => {
                return Ok(Helper::Netcat);
            }
            (Some("native"), false) => return Ok(Helper::Native),
            (Some("native"), true) => "socket and netcat are for proxy=netcat",
            (Some(_), _) => "it must be auto, native or netcat",
        };
        Err(bad_value("proxy", value.unwrap_or_default(), why))
    }
}

fn list(supported: &[&str]) -> String {
    match supported {
        [] => "it takes none".to_owned(),
        [one] => format!("{one} is"),
        [most @ .., last] => format!("{} and {last} are", most.join(", ")),
    }
}

fn bad_value(name: &'static str, value: String, why: &'static str) -> BadUri {
    BadUri::Value { name, value, why }
}

#[cfg(test)]
mod tests;
