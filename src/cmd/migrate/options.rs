//! The options of Nova's that consoles depend on, with their older names and defaults.
//!
//! Those that become keys have names here. Those that become nothing stand in [`FATES`] with the
//! reason, which is said where somebody sets them.

use super::settings::Opt;

/// The options of a proxy of Nova's, and the key of ours for its access URLs.
#[derive(Debug)]
pub(super) struct ProxyOptions {
    pub(super) host: Opt,
    pub(super) port: Opt,
    pub(super) base_url: Opt,
    pub(super) enabled: Opt,
    /// The program.
    pub(super) program: &'static str,
}

pub(super) const NOVNC: ProxyOptions = ProxyOptions {
    host: Opt::new("vnc", "novncproxy_host")
        .once(&[("DEFAULT", "novncproxy_host")])
        .or("0.0.0.0"),
    port: Opt::new("vnc", "novncproxy_port")
        .once(&[("DEFAULT", "novncproxy_port")])
        .or("6080"),
    base_url: Opt::new("vnc", "novncproxy_base_url")
        .once(&[("DEFAULT", "novncproxy_base_url")])
        .or("http://127.0.0.1:6080/vnc_auto.html"),
    enabled: Opt::new("vnc", "enabled")
        .once(&[("DEFAULT", "vnc_enabled")])
        .or("true"),
    program: "nova-novncproxy",
};

pub(super) const SPICE: ProxyOptions = ProxyOptions {
    host: Opt::new("spice", "html5proxy_host")
        .once(&[("DEFAULT", "spicehtml5proxy_host")])
        .or("0.0.0.0"),
    port: Opt::new("spice", "html5proxy_port")
        .once(&[("DEFAULT", "spicehtml5proxy_port")])
        .or("6082"),
    base_url: Opt::new("spice", "html5proxy_base_url").or("http://127.0.0.1:6082/spice_auto.html"),
    enabled: Opt::new("spice", "enabled").or("false"),
    program: "nova-spicehtml5proxy",
};

pub(super) const SERIAL: ProxyOptions = ProxyOptions {
    host: Opt::new("serial_console", "serialproxy_host").or("0.0.0.0"),
    port: Opt::new("serial_console", "serialproxy_port").or("6083"),
    base_url: Opt::new("serial_console", "base_url").or("ws://127.0.0.1:6083/"),
    enabled: Opt::new("serial_console", "enabled").or("false"),
    program: "nova-serialproxy",
};

pub(super) const XVPVNC_BASE_URL: Opt =
    Opt::new("vnc", "xvpvncproxy_base_url").once(&[("DEFAULT", "xvpvncproxy_base_url")]);
pub(super) const SPICE_DIRECT_BASE_URL: Opt = Opt::new("spice", "spice_direct_proxy_base_url");
pub(super) const MKS_BASE_URL: Opt = Opt::new("mks", "mksproxy_base_url");

pub(super) const ALLOWED_ORIGINS: Opt =
    Opt::new("console", "allowed_origins").once(&[("DEFAULT", "console_allowed_origins")]);
pub(super) const TOKEN_TTL: Opt = Opt::new("consoleauth", "token_ttl")
    .once(&[("DEFAULT", "console_token_ttl")])
    .or("600");
pub(super) const SESSION_TIMEOUT: Opt =
    Opt::new("consoleauth", "enforce_session_timeout").or("false");

pub(super) const WEB: Opt = Opt::new("DEFAULT", "web");
pub(super) const CERT: Opt = Opt::new("DEFAULT", "cert").or("self.pem");
pub(super) const KEY: Opt = Opt::new("DEFAULT", "key");
pub(super) const SSL_ONLY: Opt = Opt::new("DEFAULT", "ssl_only").or("false");
pub(super) const SSL_CIPHERS: Opt =
    Opt::new("console", "ssl_ciphers").once(&[("DEFAULT", "ssl_ciphers")]);
pub(super) const SSL_VERSION: Opt = Opt::new("console", "ssl_minimum_version");
pub(super) const DEBUG: Opt = Opt::new("DEFAULT", "debug").or("false");
pub(super) const HOST: Opt = Opt::new("DEFAULT", "host");
const MY_IP: Opt = Opt::new("DEFAULT", "my_ip");

pub(super) const AUTH_SCHEMES: Opt = Opt::new("vnc", "auth_schemes");
pub(super) const VENCRYPT_KEY: Opt = Opt::new("vnc", "vencrypt_client_key");
pub(super) const VENCRYPT_CERT: Opt = Opt::new("vnc", "vencrypt_client_cert");
pub(super) const VENCRYPT_CA: Opt = Opt::new("vnc", "vencrypt_ca_certs");

pub(super) const PROXYCLIENT_ADDRESS: Opt = Opt::new("vnc", "server_proxyclient_address").once(&[
    ("DEFAULT", "vncserver_proxyclient_address"),
    ("vnc", "vncserver_proxyclient_address"),
]);
pub(super) const SPICE_PROXYCLIENT_ADDRESS: Opt = Opt::new("spice", "server_proxyclient_address");
pub(super) const CONNECTION_URI: Opt =
    Opt::new("libvirt", "connection_uri").once(&[("DEFAULT", "libvirt_uri")]);
pub(super) const COMPUTE_DRIVER: Opt = Opt::new("DEFAULT", "compute_driver");
pub(super) const API_LINK_PREFIX: Opt =
    Opt::new("api", "compute_link_prefix").once(&[("DEFAULT", "osapi_compute_link_prefix")]);

pub(super) const DATABASE: Opt = Opt::new("database", "connection").once(&[
    ("DEFAULT", "sql_connection"),
    ("database", "sql_connection"),
    ("sql", "connection"),
]);

const AUTHTOKEN: &str = "keystone_authtoken";

/// The section in which the login stands, if it is another one.
pub(super) const AUTH_SECTION: Opt = Opt::new(AUTHTOKEN, "auth_section");
pub(super) const PUBLIC_AUTH_URL: Opt =
    Opt::new(AUTHTOKEN, "www_authenticate_uri").once(&[(AUTHTOKEN, "auth_uri")]);
pub(super) const AUTH_URL: Opt =
    Opt::new(AUTHTOKEN, "auth_url").once(&[(AUTHTOKEN, "identity_uri")]);
/// Before there were URLs.
pub(super) const AUTH_HOST: Opt = Opt::new(AUTHTOKEN, "auth_host");
pub(super) const AUTH_PORT: Opt = Opt::new(AUTHTOKEN, "auth_port").or("35357");
pub(super) const AUTH_PROTOCOL: Opt = Opt::new(AUTHTOKEN, "auth_protocol").or("https");
pub(super) const AUTH_TYPE: Opt =
    Opt::new(AUTHTOKEN, "auth_type").once(&[(AUTHTOKEN, "auth_plugin")]);
pub(super) const USERNAME: Opt =
    Opt::new(AUTHTOKEN, "username").once(&[(AUTHTOKEN, "user_name"), (AUTHTOKEN, "admin_user")]);
pub(super) const PASSWORD: Opt =
    Opt::new(AUTHTOKEN, "password").once(&[(AUTHTOKEN, "admin_password")]);
pub(super) const USER_DOMAIN_NAME: Opt = Opt::new(AUTHTOKEN, "user_domain_name");
pub(super) const USER_DOMAIN_ID: Opt = Opt::new(AUTHTOKEN, "user_domain_id");
pub(super) const PROJECT_NAME: Opt = Opt::new(AUTHTOKEN, "project_name")
    .once(&[(AUTHTOKEN, "tenant_name"), (AUTHTOKEN, "admin_tenant_name")]);
pub(super) const PROJECT_DOMAIN_NAME: Opt = Opt::new(AUTHTOKEN, "project_domain_name");
pub(super) const PROJECT_DOMAIN_ID: Opt = Opt::new(AUTHTOKEN, "project_domain_id");
pub(super) const CREDENTIAL_ID: Opt = Opt::new(AUTHTOKEN, "application_credential_id");
pub(super) const CREDENTIAL_SECRET: Opt = Opt::new(AUTHTOKEN, "application_credential_secret");
pub(super) const REGION: Opt = Opt::new(AUTHTOKEN, "region_name");
pub(super) const CA_FILE: Opt = Opt::new(AUTHTOKEN, "cafile");

/// Those that become keys, in one role or the other, or decide about some.
const USED: &[Opt] = &[
    NOVNC.host,
    NOVNC.port,
    NOVNC.base_url,
    NOVNC.enabled,
    SPICE.host,
    SPICE.port,
    SPICE.base_url,
    SPICE.enabled,
    SERIAL.host,
    SERIAL.port,
    SERIAL.base_url,
    SERIAL.enabled,
    XVPVNC_BASE_URL,
    SPICE_DIRECT_BASE_URL,
    MKS_BASE_URL,
    ALLOWED_ORIGINS,
    TOKEN_TTL,
    SESSION_TIMEOUT,
    WEB,
    CERT,
    KEY,
    SSL_ONLY,
    SSL_CIPHERS,
    SSL_VERSION,
    DEBUG,
    HOST,
    MY_IP,
    AUTH_SCHEMES,
    VENCRYPT_KEY,
    VENCRYPT_CERT,
    VENCRYPT_CA,
    PROXYCLIENT_ADDRESS,
    SPICE_PROXYCLIENT_ADDRESS,
    CONNECTION_URI,
    COMPUTE_DRIVER,
    API_LINK_PREFIX,
    DATABASE,
    AUTH_SECTION,
    PUBLIC_AUTH_URL,
    AUTH_URL,
    AUTH_HOST,
    AUTH_PORT,
    AUTH_PROTOCOL,
    AUTH_TYPE,
    USERNAME,
    PASSWORD,
    USER_DOMAIN_NAME,
    USER_DOMAIN_ID,
    PROJECT_NAME,
    PROJECT_DOMAIN_NAME,
    PROJECT_DOMAIN_ID,
    CREDENTIAL_ID,
    CREDENTIAL_SECRET,
    REGION,
    CA_FILE,
];

/// Those that become nothing, and why.
const FATES: &[(&str, &[Opt])] = &[
    (
        "sessions are not recorded",
        &[Opt::new("DEFAULT", "record")],
    ),
    (
        "vncgate stays in the foreground; systemd or the like keeps it",
        &[Opt::new("DEFAULT", "daemon")],
    ),
    (
        "proxy.listen takes addresses, not names: [::] is every IPv6 address",
        &[Opt::new("DEFAULT", "source_is_ipv6")],
    ),
    (
        "the log goes to stderr, JSON unless that is a terminal, for journald or whoever collects \
         it; `[log] format` chooses",
        &[
            Opt::new("DEFAULT", "log_file").once(&[("DEFAULT", "logfile")]),
            Opt::new("DEFAULT", "log_dir").once(&[("DEFAULT", "logdir")]),
            Opt::new("DEFAULT", "log_config_append").once(&[("DEFAULT", "log_config")]),
            Opt::new("DEFAULT", "use_syslog"),
            Opt::new("DEFAULT", "use_journal"),
            Opt::new("DEFAULT", "use_json"),
            Opt::new("DEFAULT", "use_stderr"),
            Opt::new("DEFAULT", "watch_log_file"),
            Opt::new("DEFAULT", "syslog_log_facility"),
            Opt::new("DEFAULT", "default_log_levels"),
            Opt::new("DEFAULT", "verbose"),
        ],
    ),
    (
        "the message bus is not used",
        &[Opt::new("DEFAULT", "transport_url")],
    ),
    (
        "it holds no tokens and is not read",
        &[Opt::new("api_database", "connection")],
    ),
    (
        "not used; where it is a replica, its URL may stand in the file of the cell's database",
        &[Opt::new("database", "slave_connection")],
    ),
    (
        "it is nova-compute's, which keeps it",
        &[
            Opt::new("vnc", "server_listen")
                .once(&[("DEFAULT", "vncserver_listen"), ("vnc", "vncserver_listen")]),
            Opt::new("vnc", "keymap").once(&[("DEFAULT", "vnc_keymap")]),
            Opt::new("spice", "server_listen"),
            Opt::new("spice", "agent_enabled"),
            Opt::new("spice", "keymap"),
            Opt::new("spice", "image_compression"),
            Opt::new("spice", "jpeg_compression"),
            Opt::new("spice", "zlib_compression"),
            Opt::new("spice", "playback_compression"),
            Opt::new("spice", "streaming_mode"),
            Opt::new("spice", "require_secure"),
            Opt::new("serial_console", "port_range"),
            Opt::new("serial_console", "listen"),
            Opt::new("serial_console", "proxyclient_address"),
            Opt::new("mks", "enabled"),
            Opt::new("vmware", "vnc_port"),
            Opt::new("vmware", "vnc_port_total"),
            Opt::new("vmware", "vnc_keymap"),
            Opt::new("vmware", "console_delay_seconds"),
            Opt::new("ironic", "vnc_console_state_timeout"),
            Opt::new("ironic", "serial_console_state_timeout"),
        ],
    ),
    (
        "nova-xvpvncproxy is gone since Nova 21.0, and there is none here",
        &[
            Opt::new("vnc", "xvpvncproxy_host").once(&[("DEFAULT", "xvpvncproxy_host")]),
            Opt::new("vnc", "xvpvncproxy_port").once(&[("DEFAULT", "xvpvncproxy_port")]),
        ],
    ),
    (
        "RDP consoles are gone since Nova 29.0, and there are none here",
        &[
            Opt::new("rdp", "enabled"),
            Opt::new("rdp", "html5_proxy_base_url"),
        ],
    ),
    (
        "nova-consoleauth is gone since Nova 20.0 and is not asked",
        &[
            Opt::new("workarounds", "enable_consoleauth"),
            Opt::new("DEFAULT", "consoleauth_topic"),
            Opt::new("DEFAULT", "consoleauth_manager"),
            Opt::new("upgrade_levels", "consoleauth"),
        ],
    ),
    (
        "nova-console, the proxy of Xen, is gone since Nova 19.0",
        &[
            Opt::new("DEFAULT", "console_topic"),
            Opt::new("DEFAULT", "console_driver"),
            Opt::new("DEFAULT", "console_manager"),
            Opt::new("DEFAULT", "console_public_hostname"),
            Opt::new("DEFAULT", "stub_compute"),
            Opt::new("upgrade_levels", "console"),
        ],
    ),
    (
        "certificates are always checked; keystone.ca_file names a CA of your own",
        &[Opt::new(AUTHTOKEN, "insecure")],
    ),
    (
        "vncgate shows Keystone no certificate of its own",
        &[
            Opt::new(AUTHTOKEN, "certfile"),
            Opt::new(AUTHTOKEN, "keyfile"),
        ],
    ),
    (
        "project and user are found by their names and those of their domains",
        &[
            Opt::new(AUTHTOKEN, "user_id"),
            Opt::new(AUTHTOKEN, "project_id").once(&[(AUTHTOKEN, "tenant_id")]),
            Opt::new(AUTHTOKEN, "default_domain_id"),
            Opt::new(AUTHTOKEN, "default_domain_name"),
            Opt::new(AUTHTOKEN, "domain_id"),
            Opt::new(AUTHTOKEN, "domain_name"),
            Opt::new(AUTHTOKEN, "system_scope"),
            Opt::new(AUTHTOKEN, "trust_id"),
        ],
    ),
    (
        "a token without a login; give vncgate a user",
        &[Opt::new(AUTHTOKEN, "admin_token")],
    ),
];

/// The option of this name, if it is one that is known here.
pub(super) fn find(group: &str, name: &str) -> Option<&'static Opt> {
    all().find(|option| option.is_called(group, name))
}

/// Every option that is known here.
pub(super) fn all() -> impl Iterator<Item = &'static Opt> {
    let fates = FATES.iter().flat_map(|(_, options)| *options);
    USED.iter().chain(fates)
}

/// What becomes of an option.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// It became a key, or decided about one, where that was wanted.
    Used,
    /// Nothing, and why.
    Nothing(&'static str),
    /// It sounds like one of consoles, and nobody here knows it.
    Unknown,
    /// It has nothing to do with consoles.
    Foreign,
}

/// What becomes of the option of this name.
pub(super) fn fate(group: &str, name: &str) -> Fate {
    let is_it = |option: &Opt| option.is_called(group, name);
    if USED.iter().any(is_it) {
        return Fate::Used;
    }
    let nothing = FATES.iter().find(|(_, options)| options.iter().any(is_it));
    match nothing {
        Some((why, _)) => Fate::Nothing(why),
        None if is_about_consoles(group, name) => Fate::Unknown,
        None => Fate::Foreign,
    }
}

fn is_about_consoles(group: &str, name: &str) -> bool {
    let sections = [
        "vnc",
        "spice",
        "serial_console",
        "mks",
        "rdp",
        "console",
        "consoleauth",
    ];
    let words = [
        "console",
        "vnc",
        "novnc",
        "spice",
        "html5proxy",
        "rdp",
        "xvp",
    ];
    let name = name.to_lowercase();
    let parts = || name.split(['_', '-']);
    sections.contains(&group) || parts().any(|part| words.iter().any(|word| part.starts_with(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_option_stands_in_the_tables_twice() {
        for (number, option) in all().enumerate() {
            let mut again = all().skip(number + 1);
            let twice = again.find(|it| it.is_called(option.group, option.name));
            assert_eq!(twice, None, "{option:?}");
        }
    }

    #[test]
    fn older_names_are_the_same_option() {
        for (group, name) in [
            ("DEFAULT", "novncproxy_port"),
            ("vnc", "novncproxy_port"),
            ("vnc", "novncproxy-port"),
        ] {
            assert_eq!(find(group, name).unwrap().name, "novncproxy_port");
        }
        assert_eq!(fate("DEFAULT", "vnc_enabled"), Fate::Used);
    }

    #[test]
    fn what_sounds_like_consoles_is_told_from_what_does_not() {
        assert_eq!(fate("vnc", "whatever"), Fate::Unknown);
        assert_eq!(fate("DEFAULT", "console_colour"), Fate::Unknown);
        assert_eq!(fate("workarounds", "novnc_thing"), Fate::Unknown);
        assert_eq!(fate("neutron", "region_name"), Fate::Foreign);
        assert!(matches!(fate("DEFAULT", "record"), Fate::Nothing(_)));
    }
}
