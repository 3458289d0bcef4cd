use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::sync::Arc;

use url::Url;

use super::{Addresses, StartError};
use crate::api::{Gatekeeper, Identities, NovaSettings, Urls};
use crate::config::{Config, TlsListener};
use crate::http::Limits;
use crate::keystone::{self, Keystone};
use crate::proxy::{Bandwidth, Settings, relay};

pub(super) fn limits(config: &Config) -> Limits {
    Limits {
        connections: config.proxy.max_connections,
        header_timeout: config.proxy.header_timeout.get(),
        header_size: config.proxy.max_header,
    }
}

pub(super) fn proxy_settings(config: &Config) -> Settings {
    let proxy = &config.proxy;
    Settings {
        name: proxy.name.clone().unwrap_or_else(machine_name).into(),
        allowed_origins: proxy.allowed_origins.clone(),
        trusted_proxies: proxy.trusted_proxies.clone(),
        connect_timeout: proxy.connect_timeout.get(),
        allowed_networks: proxy.allowed_networks.clone(),
        vnc: proxy.vnc.clone(),
        max_sessions: proxy.max_sessions,
        relay: Arc::new(relay::Settings {
            frame_limit: proxy.max_frame,
            ping_interval: proxy.ping_interval.unless_zero(),
            ..relay::Settings::default()
        }),
        bandwidth: Bandwidth {
            session: NonZero::new(config.limits.session_bandwidth),
            tenant: NonZero::new(config.limits.tenant_bandwidth),
        },
    }
}

/// Reads the files that it needs, once, to see that they can be read.
pub(super) fn keystone_settings(config: &Config) -> Result<Option<keystone::Settings>, StartError> {
    let settings = keystone::Settings::of(&config.keystone);
    if let Some(settings) = &settings {
        settings.check()?;
    }
    Ok(settings)
}

pub(super) fn machine_name() -> String {
    let uname = rustix::system::uname();
    uname.nodename().to_string_lossy().into_owned()
}

pub(super) fn gatekeeper(config: &Config, keystone: Option<Keystone>) -> Gatekeeper {
    let elsewhere = |url: &Url| {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let loopback = host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        !loopback && host != "localhost"
    };
    let proxy = &config.proxy;
    let urls = [&proxy.public_url, &proxy.novnc_url, &proxy.serial_url];
    let public = urls.into_iter().flatten().any(elsewhere);
    let fronted = public || !proxy.trusted_proxies.is_empty();
    let shown = identity_url(config);
    let identities = keystone
        .zip(shown)
        .map(|(keystone, url)| Identities::new(keystone, &url));
    Gatekeeper {
        keys: config.api.key.clone(),
        identities,
        fronted,
    }
}

pub(super) fn nova_settings(config: &Config) -> NovaSettings {
    NovaSettings {
        public_url: config.api.public_url.clone(),
        trusted_proxies: config.proxy.trusted_proxies.clone(),
    }
}

/// Where callers get their tokens.
fn identity_url(config: &Config) -> Option<Url> {
    let keystone = &config.keystone;
    keystone.public_url.clone().or_else(|| keystone.url.clone())
}

pub(super) fn urls(config: &Config, addresses: &Addresses) -> Urls {
    // A distribution's vnc.html waits for a press on Connect; ours connects by itself.
    let page = config
        .web
        .root
        .as_ref()
        .map_or("vnc.html", |_| "vnc.html?autoconnect=true");
    let secure = config.tls.is_on(TlsListener::Proxy);
    Urls::new(&config.proxy, &own_url(addresses, secure), page)
}

/// How this machine reaches the first listener.
fn own_url(addresses: &Addresses, secure: bool) -> Url {
    let first = addresses.listen.first().copied();
    let mut address = first.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 6080)));
    if address.ip().is_unspecified() {
        let loopback: IpAddr = if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])
        };
        address.set_ip(loopback);
    }
    let scheme = if secure { "https" } else { "http" };
    let text = format!("{scheme}://{address}");
    #[expect(
        clippy::expect_used,
        reason = "a socket address after a scheme is always a URL"
    )]
    Url::parse(&text).expect("a URL")
}
