//! The config file: read once, checked once, then used everywhere as it is.
//!
//! One TOML file serves every machine. Unknown keys are refused with the nearest match, values
//! that cannot work are refused with the key and the reason. Every key stands with its default
//! in `config.example.toml`, which a test holds against this file. Knows the model alone.

mod audit;
mod credentials;
mod error;
mod keystone;
mod period;
mod redis;
mod rpc;
mod tls;
mod vnc;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use url::Url;

pub use audit::Audit;
pub use error::ConfigError;
pub use keystone::{Interface, Keystone};
pub use period::Period;
pub use redis::Redis;
pub use rpc::{BadDoor, Rpc, RpcDoor, Tunnel};
pub use tls::{Pair, Tls, TlsListener};

use crate::model::{
    AccessPath, Address, ConsoleKind, ConsoleType, Host, InstanceId, KeyHash, Role, SecondViewer,
    Security, Terms,
};

/// The complete example, every key at its default.
pub const EXAMPLE: &str = include_str!("../../config.example.toml");

/// Where the file is looked for when nobody says.
pub const DEFAULT_PATH: &str = "/etc/vncgate/vncgate.toml";

/// Everything that can be set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The proxy role and its listener.
    pub proxy: Proxy,
    /// TLS on our own listeners.
    pub tls: Tls,
    /// The api role.
    pub api: Api,
    /// The auth role.
    pub auth: Auth,
    /// The compute role.
    pub compute: Compute,
    /// OpenStack's identity service.
    pub keystone: Keystone,
    /// What sessions may use.
    pub limits: Limits,
    /// Health and metrics.
    pub monitor: Monitor,
    /// The socket of `vncgate token` and its like.
    pub admin: Admin,
    /// The pages.
    pub web: Web,
    /// Who did what, for later.
    pub audit: Audit,
    /// The log.
    pub log: Log,
    /// Roles in different processes.
    pub rpc: Rpc,
}

/// `[proxy]`: what viewers meet.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Proxy {
    /// Where pages and WebSockets are served.
    pub listen: Vec<SocketAddr>,
    /// What this proxy is called in lists of sessions; unset: the machine's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How viewers reach this gateway: scheme, host and any path prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<Url>,
    /// The page of `novnc` consoles, if not `PUBLIC_URL/vnc.html`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub novnc_url: Option<Url>,
    /// The page of `spice-html5` consoles; none is built in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spice_url: Option<Url>,
    /// Where `xvpvnc` URLs lead; such viewers are not built in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xvpvnc_url: Option<Url>,
    /// Where `spice-direct` URLs lead: a proxy that speaks SPICE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spice_direct_url: Option<Url>,
    /// The page of `webmks` consoles; none is built in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mks_url: Option<Url>,
    /// The WebSocket of `serial` consoles, if not `PUBLIC_URL` as ws or wss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial_url: Option<Url>,
    /// Host names, beside the request's own and the public URL's, that a page may come from.
    pub allowed_origins: Vec<String>,
    /// Networks whose forwarded headers and PROXY headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether balancers there announce each connection by the PROXY protocol.
    pub proxy_protocol: bool,
    /// How long a hypervisor may take to accept, to greet, and to shake hands.
    pub connect_timeout: Period,
    /// Networks that consoles may be dialled in; empty: where their hosts are.
    pub allowed_networks: Vec<IpNet>,
    /// How VNC servers are met, unless their own entry says otherwise.
    pub vnc: Security,
    /// How often a quiet viewer is pinged; 0s is never.
    pub ping_interval: Period,
    /// How long sessions live on after the first signal to end.
    pub drain_timeout: Period,
    /// How long a client may take to send a request's head.
    pub header_timeout: Period,
    /// The largest head of a request, in bytes.
    pub max_header: usize,
    /// Sessions at one time.
    pub max_sessions: usize,
    /// Connections at one time that are no session yet.
    pub max_connections: usize,
    /// The largest WebSocket frame a viewer may send, in bytes.
    pub max_frame: usize,
}

/// `[api]`: who may ask for consoles over HTTP.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// A listener of its own; empty: the proxy's.
    pub listen: Vec<SocketAddr>,
    /// Whether balancers in `proxy.trusted_proxies` announce each connection there.
    pub proxy_protocol: bool,
    /// How clients reach it, where a reverse proxy hides that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<Url>,
    /// The keys that may call it.
    pub key: Vec<Key>,
}

/// `[[api.key]]`: one caller.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Who it is, for logs and token lists.
    pub name: String,
    /// The hash `vncgate key new` prints.
    pub sha256: KeyHash,
    /// The project whose instances it may see; unset: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// What it may do; unset: `member` with a project, `admin` without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

/// `[auth]`: tokens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Whose tokens open consoles here.
    pub source: TokenSource,
    /// websockify's token file, or a directory of such.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Files that hold the URL of a Nova cell's database each.
    pub databases: Vec<PathBuf>,
    /// How long a URL opens a console.
    pub url_ttl: Period,
    /// Where tokens are kept if `source` is `file`; unset: `tokens.redb` in the state directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Tokens at one time.
    pub max_tokens: usize,
    /// What tokens open whose maker does not tell.
    pub console_type: ConsoleType,
    /// Nova's API; unset: as Keystone's catalog has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nova_url: Option<Url>,
    /// A session without input from its viewer ends after this time; 0s is never.
    pub idle_timeout: Period,
    /// The longest a session may last; 0s is no end.
    pub max_session: Period,
    /// Whether a token opens for one browser alone.
    pub single_use: bool,
    /// How long that browser may come back after its session ended.
    pub reconnect_window: Period,
    /// What becomes of viewers that share a console.
    pub second_viewer: SecondViewer,
    /// Sessions at one time on all proxies; 0 is any number.
    pub max_sessions: usize,
    /// Of these, sessions of one instance; 0 is any number.
    pub max_sessions_per_instance: usize,
    /// Sessions with tokens that one caller asked for; 0 is any number.
    pub max_sessions_per_caller: usize,
    /// Sessions from one address; 0 is any number.
    pub max_sessions_per_address: usize,
    /// A Redis to keep all that in.
    pub redis: Redis,
}

/// Whose tokens open consoles.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenSource {
    /// Those that this program makes, kept in memory.
    #[default]
    Memory,
    /// The same, kept in `auth.file`.
    File,
    /// The same, kept in `auth.redis`, sessions too: for several gateways at once.
    Redis,
    /// Those in websockify's token files.
    WebsockifyFile,
    /// Those that Nova made, in the databases of its cells.
    NovaDb,
    /// Those that Nova makes, asked for at its API.
    NovaApi,
}

impl TokenSource {
    /// Whether somebody else makes the tokens.
    pub fn is_foreign(self) -> bool {
        matches!(self, Self::WebsockifyFile | Self::NovaDb | Self::NovaApi)
    }
}

/// `[compute]`: where instances are found.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Compute {
    /// What `0.0.0.0` and `::` in a domain's XML mean.
    #[serde(with = "host_text")]
    pub address: Host,
    /// Directories of libvirt XML.
    pub xml: Vec<PathBuf>,
    /// QEMU's monitors: sockets, or directories of such.
    pub qmp: Vec<PathBuf>,
    /// Whether to look at what this machine runs; unset: only when nothing else is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discover: Option<bool>,
    /// Hypervisors that libvirt drives.
    pub host: Vec<Hypervisor>,
    /// Instances listed by hand.
    pub instance: Vec<FixedInstance>,
}

/// `[[compute.host]]`: one hypervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hypervisor {
    /// What people call it.
    pub name: String,
    /// The way to its libvirt, as libvirt writes it. Checked when the program starts.
    #[serde(default = "local_libvirt")]
    pub uri: String,
    /// What `0.0.0.0` and `::` in its XML mean; unset: the URI's host, else `compute.address`.
    #[serde(
        default,
        with = "maybe_host_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub address: Option<Host>,
    /// Whether to ask for no more than to look: consoles are then dialled, never handed over.
    #[serde(default)]
    pub readonly: bool,
    /// Who to log in as where the daemon asks by SASL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The file with this user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Whether to ask it for the passwords of displays, where it lets us.
    #[serde(default = "yes")]
    pub passwords: bool,
    /// How the VNC servers of its guests are met.
    #[serde(default)]
    pub vnc: Security,
}

fn yes() -> bool {
    true
}

fn local_libvirt() -> String {
    "qemu:///system".to_owned()
}

/// `[[compute.instance]]`: one instance listed by hand.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixedInstance {
    /// Its UUID; unset: made from the name, always the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<InstanceId>,
    /// Its name.
    pub name: String,
    /// `host:port` or `unix:/path`.
    pub address: Address,
    /// What to ask for there by HTTP CONNECT before the console's own bytes come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_access_path: Option<AccessPath>,
    /// Whose it is: a project's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// What it speaks.
    #[serde(default = "vnc")]
    pub kind: ConsoleKind,
    /// How its VNC server is met.
    #[serde(default)]
    pub vnc: Security,
}

fn vnc() -> ConsoleKind {
    ConsoleKind::Vnc
}

/// `[limits]`: what sessions and addresses may use.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes per second of one session in each direction; 0: any number.
    pub session_bandwidth: u64,
    /// The same of all sessions of one project or, without one, one caller, on this proxy.
    pub tenant_bandwidth: u64,
    /// Connections of one address at one time that are no session; 0: any number.
    pub connections_per_address: u32,
    /// New connections of one address in a second; 0: any number.
    pub new_connections_per_address: u32,
    /// Failed tokens and keys of one address in a second; 0: any number.
    pub failed_tokens_per_address: u32,
    /// Bytes of memory beyond which nothing new begins; 0: any number; unset: four fifths of what
    /// there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
}

/// `[monitor]`: `/healthz`, `/readyz` and `/metrics`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Monitor {
    /// Where; empty: nowhere.
    pub listen: Vec<SocketAddr>,
}

/// `[admin]`: the socket commands talk to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Its path; unset: see [`crate::cmd`]'s default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}

/// `[web]`: the pages.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Web {
    /// A directory to serve in place of the built-in pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// Who may show the pages in a frame, beside this gateway itself.
    pub frame_ancestors: Vec<String>,
}

/// `[log]`: what is said on stderr.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A level, or a filter such as `info,vncgate::proxy=debug`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For eyes.
    Human,
    /// One JSON object a line.
    Json,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            session_bandwidth: 0,
            tenant_bandwidth: 0,
            connections_per_address: 500,
            new_connections_per_address: 200,
            failed_tokens_per_address: 10,
            memory: None,
        }
    }
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            name: None,
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 6080))],
            public_url: None,
            novnc_url: None,
            spice_url: None,
            xvpvnc_url: None,
            spice_direct_url: None,
            mks_url: None,
            serial_url: None,
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            connect_timeout: Period::from_secs(5),
            allowed_networks: Vec::new(),
            vnc: Security::default(),
            ping_interval: Period::from_secs(30),
            drain_timeout: Period::from_secs(30),
            header_timeout: Period::from_secs(10),
            max_header: 32 * 1024,
            max_sessions: 10_000,
            max_connections: 2_000,
            max_frame: 1 << 20,
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            source: TokenSource::Memory,
            token_file: None,
            databases: Vec::new(),
            url_ttl: Period::from_secs(600),
            file: None,
            max_tokens: 100_000,
            console_type: ConsoleType::Novnc,
            nova_url: None,
            idle_timeout: Period::from_secs(0),
            max_session: Period::from_secs(0),
            single_use: false,
            reconnect_window: Period::from_secs(30),
            second_viewer: SecondViewer::Allow,
            max_sessions: 0,
            max_sessions_per_instance: 0,
            max_sessions_per_caller: 0,
            max_sessions_per_address: 0,
            redis: Redis::default(),
        }
    }
}

impl Auth {
    /// The terms of a token when its caller asks for nothing else.
    pub fn terms(&self) -> Terms {
        Terms {
            idle_timeout: self.idle_timeout.unless_zero(),
            max_session: self.max_session.unless_zero(),
            single_use: self.single_use,
            second_viewer: self.second_viewer,
        }
    }
}

impl Default for Compute {
    fn default() -> Self {
        let address = Host::Ip([127, 0, 0, 1].into());
        Self {
            address,
            host: Vec::new(),
            xml: Vec::new(),
            qmp: Vec::new(),
            discover: None,
            instance: Vec::new(),
        }
    }
}

impl Default for Monitor {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 9180))],
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Auto,
        }
    }
}

impl Config {
    /// Reads and checks the file at `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable(path.to_owned(), error))?;
        Self::parse(&text).map_err(|error| error.in_file(path))
    }

    /// Reads and checks a config from its text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let text = &*credentials::placed(text);
        let config: Self =
            toml::from_str(text).map_err(|error| ConfigError::syntax(&error, text))?;
        config.check()?;
        Ok(config)
    }

    /// Whether the machine itself is to be looked at for instances. Not where somebody else says
    /// what there is.
    pub fn discovers(&self) -> bool {
        let Compute {
            host,
            instance,
            xml,
            qmp,
            ..
        } = &self.compute;
        let unlisted = host.is_empty() && instance.is_empty();
        let listed = !(unlisted && xml.is_empty() && qmp.is_empty());
        let foreign = self.auth.source.is_foreign();
        self.compute.discover.unwrap_or(!listed && !foreign)
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.proxy.check()?;
        self.tls.check()?;
        self.check_proxy_protocol()?;
        let api_url = &self.api.public_url;
        api_url
            .as_ref()
            .map_or(Ok(()), |url| check_url("api.public_url", url))?;
        self.compute.check()?;
        self.check_vnc()?;
        self.keystone.check()?;
        self.auth.check_source()?;
        self.check_auth()?;
        self.rpc.check()?;
        self.audit.check()?;
        check_log_level(&self.log.level)?;
        self.web
            .frame_ancestors
            .iter()
            .try_for_each(|source| check_frame_ancestor(source))?;
        let mut names = HashSet::new();
        let twice = self.api.key.iter().find(|key| !names.insert(&key.name));
        refuse_if(
            twice.map(|key| format!("the name `{}` is used twice", key.name)),
            "api.key.name",
        )
    }
}

impl Config {
    fn check_proxy_protocol(&self) -> Result<(), ConfigError> {
        let nobody = self.proxy.trusted_proxies.is_empty();
        let why = "needs the balancer's address in proxy.trusted_proxies";
        for (on, key) in [
            (self.proxy.proxy_protocol, "proxy.proxy_protocol"),
            (self.api.proxy_protocol, "api.proxy_protocol"),
        ] {
            refuse_if((on && nobody).then(|| why.to_owned()), key)?;
        }
        Ok(())
    }

    fn check_auth(&self) -> Result<(), ConfigError> {
        let auth = &self.auth;
        longer_than_zero("auth.url_ttl", auth.url_ttl)?;
        whole_seconds("auth.idle_timeout", auth.idle_timeout)?;
        whole_seconds("auth.max_session", auth.max_session)?;
        at_least_one("auth.max_tokens", auth.max_tokens)?;
        all_absolute("auth.file", auth.file.as_slice())?;
        if auth.source == TokenSource::Redis {
            auth.redis.check()?;
        }
        let url = auth.nova_url.as_ref();
        url.map_or(Ok(()), |url| check_url("auth.nova_url", url))?;
        let nobody = auth.source == TokenSource::NovaApi && self.keystone.url.is_none();
        let why = "nova-api needs a user of Keystone; set keystone.url".to_owned();
        refuse_if(nobody.then_some(why), "auth.source")
    }
}

impl Proxy {
    fn check(&self) -> Result<(), ConfigError> {
        let none = self
            .listen
            .is_empty()
            .then(|| "at least one address is needed".to_owned());
        refuse_if(none, "proxy.listen")?;
        for (key, url) in [
            ("proxy.public_url", &self.public_url),
            ("proxy.novnc_url", &self.novnc_url),
            ("proxy.spice_url", &self.spice_url),
            ("proxy.xvpvnc_url", &self.xvpvnc_url),
            ("proxy.spice_direct_url", &self.spice_direct_url),
            ("proxy.mks_url", &self.mks_url),
            ("proxy.serial_url", &self.serial_url),
        ] {
            url.as_ref().map_or(Ok(()), |url| check_url(key, url))?;
        }
        longer_than_zero("proxy.connect_timeout", self.connect_timeout)?;
        longer_than_zero("proxy.header_timeout", self.header_timeout)?;
        at_least_one("proxy.max_sessions", self.max_sessions)?;
        at_least_one("proxy.max_connections", self.max_connections)?;
        let small = (self.max_frame < 4096).then(|| "must be at least 4096 bytes".to_owned());
        refuse_if(small, "proxy.max_frame")?;
        let small = (self.max_header < 8192).then(|| "must be at least 8192 bytes".to_owned());
        refuse_if(small, "proxy.max_header")?;
        self.allowed_origins
            .iter()
            .try_for_each(|origin| check_origin(origin))
    }
}

impl Compute {
    fn check(&self) -> Result<(), ConfigError> {
        let mut names = HashSet::new();
        for instance in &self.instance {
            let name = &instance.name;
            let empty = name.is_empty().then(|| "a name is needed".to_owned());
            refuse_if(empty, "compute.instance.name")?;
            let twice = !names.insert((name, instance.kind));
            let why = format!("`{name}` has two {} consoles", instance.kind);
            refuse_if(twice.then_some(why), "compute.instance.name")?;
        }
        self.check_hosts()?;
        all_absolute("compute.xml", &self.xml)?;
        all_absolute("compute.qmp", &self.qmp)
    }
}

impl Compute {
    fn check_hosts(&self) -> Result<(), ConfigError> {
        let mut names = HashSet::new();
        for host in &self.host {
            let name = &host.name;
            let empty = name.is_empty().then(|| "a name is needed".to_owned());
            refuse_if(empty, "compute.host.name")?;
            let twice = (!names.insert(name)).then(|| format!("`{name}` is used twice"));
            refuse_if(twice, "compute.host.name")?;
            let half = host.user.is_some() != host.password_file.is_some();
            let why = "user and password_file go together".to_owned();
            refuse_if(half.then_some(why), "compute.host.user")?;
            let file = host.password_file.as_ref();
            let relative = file.filter(|path| !path.is_absolute());
            let why = relative.map(|path| format!("`{}` is not an absolute path", path.display()));
            refuse_if(why, "compute.host.password_file")?;
        }
        Ok(())
    }
}

impl Auth {
    /// Where the tokens are kept, if in a file.
    pub fn own_file(&self) -> PathBuf {
        let state = std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
        let state = state.unwrap_or_else(|| PathBuf::from("/var/lib/vncgate"));
        self.file
            .clone()
            .unwrap_or_else(|| state.join("tokens.redb"))
    }

    /// Each source has the keys it needs, and no other's: a file that nobody reads is a mistake.
    fn check_source(&self) -> Result<(), ConfigError> {
        let file = self.token_file.as_slice();
        wanted_by(
            self.source,
            TokenSource::WebsockifyFile,
            "auth.token_file",
            file,
        )?;
        wanted_by(
            self.source,
            TokenSource::NovaDb,
            "auth.databases",
            &self.databases,
        )
    }
}

fn wanted_by(
    source: TokenSource,
    owner: TokenSource,
    key: &'static str,
    paths: &[PathBuf],
) -> Result<(), ConfigError> {
    let why = match (source == owner, paths.is_empty()) {
        (true, true) => Some("auth.source needs it; give an absolute path"),
        (false, false) => Some("is of no use with this auth.source"),
        _ => None,
    };
    refuse_if(why.map(str::to_owned), key)?;
    all_absolute(key, paths)
}

fn all_absolute(key: &'static str, paths: &[PathBuf]) -> Result<(), ConfigError> {
    let relative = paths.iter().find(|path| !path.is_absolute());
    let why = relative.map(|path| format!("`{}` is not an absolute path", path.display()));
    refuse_if(why, key)
}

fn check_url(key: &'static str, url: &Url) -> Result<(), ConfigError> {
    let schemes: &[&str] = if key == "proxy.serial_url" {
        &["ws", "wss"]
    } else {
        &["http", "https"]
    };
    let why = if !schemes.contains(&url.scheme()) {
        Some(format!(
            "`{url}` must begin with {}",
            schemes.join(":// or ") + "://"
        ))
    } else if url.host_str().is_none_or(str::is_empty) {
        Some(format!("`{url}` has no host"))
    } else if !url.username().is_empty() || url.password().is_some() {
        Some("a URL that is handed out must not hold a user or password".to_owned())
    } else if key.ends_with(".public_url") && (url.query().is_some() || url.fragment().is_some()) {
        Some("takes no query or fragment".to_owned())
    } else {
        None
    };
    refuse_if(why, key)
}

fn check_origin(origin: &str) -> Result<(), ConfigError> {
    let plain = origin
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte));
    let bad = origin.is_empty() || !plain || origin.contains("://");
    let why = format!("`{origin}` is no host name; give it without scheme and port");
    refuse_if(bad.then_some(why), "proxy.allowed_origins")
}

fn check_frame_ancestor(source: &str) -> Result<(), ConfigError> {
    let plain = source
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b";,".contains(&byte));
    let why = format!("`{source}` is no source such as https://portal.example.org");
    refuse_if(
        (source.is_empty() || !plain).then_some(why),
        "web.frame_ancestors",
    )
}

/// A bare word in a filter would be taken for a module's name, which is rarely what it was.
fn check_log_level(level: &str) -> Result<(), ConfigError> {
    let known = |word: &str| {
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        word.contains('=') || levels.contains(&word.to_ascii_lowercase().as_str())
    };
    let unknown = level.split(',').map(str::trim).find(|word| !known(word));
    let why = |word| format!("`{word}` is none of off, error, warn, info, debug, trace");
    refuse_if(unknown.map(why), "log.level")
}

fn longer_than_zero(key: &'static str, period: Period) -> Result<(), ConfigError> {
    let short = period.get() < Duration::from_secs(1);
    refuse_if(short.then(|| "must be at least 1s".to_owned()), key)
}

fn whole_seconds(key: &'static str, period: Period) -> Result<(), ConfigError> {
    let fraction = period.get().subsec_nanos() != 0;
    refuse_if(fraction.then(|| "must be whole seconds".to_owned()), key)
}

fn at_least_one(key: &'static str, number: usize) -> Result<(), ConfigError> {
    refuse_if((number == 0).then(|| "must be at least 1".to_owned()), key)
}

fn refuse_if(why: Option<String>, key: &'static str) -> Result<(), ConfigError> {
    why.map_or(Ok(()), |why| Err(ConfigError::Value { key, why }))
}

mod host_text {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Host;

    pub(super) fn serialize<S: Serializer>(host: &Host, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(host)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Host, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

mod maybe_host_text {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Host;

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(
        host: &Option<Host>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match host {
            Some(host) => serializer.collect_str(host),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Host>, D::Error> {
        use serde::de::Error as _;

        let text = String::deserialize(from)?;
        text.parse().map(Some).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
