//! `[proxy]` and `[web]`: where viewers come in, and how VNC servers are met.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use toml::Value;
use url::Url;

use super::draft::{Key, Place};
use super::options::{
    ALLOWED_ORIGINS, AUTH_SCHEMES, CERT, KEY, MKS_BASE_URL, SPICE_DIRECT_BASE_URL, SSL_CIPHERS,
    SSL_ONLY, SSL_VERSION, VENCRYPT_CA, VENCRYPT_CERT, VENCRYPT_KEY, WEB, XVPVNC_BASE_URL,
};
use super::settings::{Opt, Origin, Setting, SettingsError};
use super::{Console, Plan, Role, Source};

/// The pages that are built in, by the paths that access URLs have.
const PAGES: [&str; 6] = [
    "/",
    "/vnc.html",
    "/vnc_lite.html",
    "/vnc_auto.html",
    "/spice.html",
    "/spice_auto.html",
];

impl Plan<'_> {
    pub(super) fn proxy(&mut self) -> Result<(), SettingsError> {
        self.listener()?;
        self.own_urls();
        if self.role == Role::All {
            self.other_urls();
        }
        self.origins();
        if self.role == Role::Proxy {
            let remark = "The networks of the compute hosts. Without this key consoles are dialled \
                          wherever Nova's tokens say, as Nova does.";
            let key = Key::new(remark, "allowed_networks", list(["192.0.2.0/24"]));
            self.draft.suggest(Place::Proxy, key);
        }
        if self.console == Console::Novnc || self.role == Role::All {
            self.vnc_security();
        }
        self.pages();
        self.enabled()
    }

    fn listener(&mut self) -> Result<(), SettingsError> {
        let options = self.console.options();
        let (Some(host), Some(port)) = (
            self.settings.get(&options.host),
            self.settings.get(&options.port),
        ) else {
            return Ok(());
        };
        let number: u16 = port.number()?;
        let from = format!("From {} and {}.", host.origin, port.origin);
        let address: Result<IpAddr, _> = host.value.trim_matches(['[', ']']).parse();
        let Ok(address) = address else {
            let name = &host.value;
            self.draft.warn(format!(
                "{}: `{name}` is no address; proxy.listen is left at its default",
                host.origin
            ));
            let remark = format!("{from} `{name}` is no address; put the one it stands for here.");
            let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, number));
            let key = Key::new(remark, "listen", list([loopback.to_string()]));
            let _taken = self.draft.key(Place::Proxy, key);
            return Ok(());
        };
        let public = SocketAddr::from((address, number));
        let key = Key::new(from, "listen", list([public.to_string()]));
        let _taken = self.draft.key(Place::Proxy, key);
        if self.ends_tls()? {
            self.tls()?;
        }
        self.loss_of_tls_settings();
        Ok(())
    }

    /// Nova offers TLS wherever the certificate's file exists, which only a name of its own tells.
    fn ends_tls(&self) -> Result<bool, SettingsError> {
        let has_cert = self.settings.set(&CERT).is_some();
        Ok(has_cert || self.settings.is_on(&SSL_ONLY)?)
    }

    /// A file without a key of its own holds the key too.
    fn tls(&mut self) -> Result<(), SettingsError> {
        let Some(cert) = self.settings.get(&CERT) else {
            return Ok(());
        };
        let key = self.settings.set(&KEY).unwrap_or_else(|| cert.clone());
        let of = |setting: &Setting, name| {
            let from = format!("From {}.", setting.origin);
            Key::new(from, name, setting.value.as_str())
        };
        let keys = vec![of(&cert, "certificate"), of(&key, "key")];
        if !self.draft.keys(Place::Tls, keys) {
            let files = format!("{} and {}", shown(&cert), shown(&key));
            let what = "Nova spoke TLS; vncgate will not until [tls] names its files";
            self.draft.warn(format!("{what}: {files}"));
        }
        if !self.settings.is_on(&SSL_ONLY)? {
            let what = "Nova spoke TLS and plain HTTP on one port; vncgate speaks TLS alone there. \
                        tls.redirect_listen sends clear text on to https.";
            self.draft.change(what);
        }
        Ok(())
    }

    fn loss_of_tls_settings(&mut self) {
        for option in [&SSL_CIPHERS, &SSL_VERSION] {
            if let Some(setting) = self.settings.set(option) {
                let why = "TLS is 1.2 or 1.3 here, with the ciphers that rustls holds to be safe";
                self.draft.loss(shown(&setting), why);
            }
        }
    }

    /// The base of the access URLs of the chosen consoles, and the gateway's own from it.
    fn own_urls(&mut self) {
        let option = &self.console.options().base_url;
        let Some((url, from)) = self.url(option) else {
            let usual = self.settings.get(option);
            let usual = usual.map_or_else(String::new, |it| it.origin.to_string());
            let remark = format!(
                "How viewers reach this gateway: scheme, host and port of {usual} in the config \
                 of nova-compute. It does not stand in these files. The origin of pages is held \
                 against it."
            );
            let key = Key::new(remark, "public_url", "https://console.example.org");
            return self.draft.suggest(Place::Proxy, key);
        };
        if let Some(public) = page_origin(&url) {
            let key = Key::new(format!("From {from}."), "public_url", public);
            let _taken = self.draft.key(Place::Proxy, key);
        }
        self.take_url(self.console.url_key(), &url, &from);
        self.note_page(&url);
        if matches!(url.scheme(), "https" | "wss") && matches!(self.ends_tls(), Ok(false)) {
            let remark = "Access URLs are TLS, and Nova ended none: something in front of it does. \
                          Its address belongs here, so that it may say who the viewer is. Nova \
                          believed everybody.";
            let key = Key::new(remark, "trusted_proxies", list(["192.0.2.7/32"]));
            self.draft.suggest(Place::Proxy, key);
        }
    }

    /// The bases of the other types, which are handed out here too.
    fn other_urls(&mut self) {
        let chosen = self.console;
        for console in Console::ALL.into_iter().filter(|it| *it != chosen) {
            if let Some((url, from)) = self.url(&console.options().base_url) {
                self.take_url(console.url_key(), &url, &from);
            }
        }
        for (option, key) in [
            (&XVPVNC_BASE_URL, "xvpvnc_url"),
            (&SPICE_DIRECT_BASE_URL, "spice_direct_url"),
            (&MKS_BASE_URL, "mks_url"),
        ] {
            if let Some((url, from)) = self.url(option) {
                self.take_url(key, &url, &from);
            }
        }
    }

    fn take_url(&mut self, key: &'static str, url: &Url, from: &Origin) {
        let key = Key::new(format!("From {from}."), key, url.as_str());
        let _taken = self.draft.key(Place::Proxy, key);
    }

    /// A URL that the files set. One that cannot be used is told, and not shown: it may hold a
    /// password.
    fn url(&mut self, option: &Opt) -> Option<(Url, Origin)> {
        let setting = self.settings.set(option)?;
        let url = Url::parse(&setting.value).ok();
        let url = url.filter(|url| url.username().is_empty() && url.password().is_none());
        if url.is_none() || setting.unknown.is_some() {
            let why = "it is no URL that can be handed out";
            self.draft.warn(format!("{}: {why}", setting.origin));
            self.draft.loss(setting.origin.to_string(), why);
            return None;
        }
        url.map(|url| (url, setting.origin))
    }

    fn note_page(&mut self, url: &Url) {
        let is_page = url.scheme().starts_with("http");
        if is_page && !PAGES.contains(&url.path()) && self.settings.set(&WEB).is_none() {
            let remark = format!(
                "No page of this gateway is called {}. If nothing in front of it strips a prefix, \
                 set web.root to the noVNC that has it, or take the path /vnc.html here and in \
                 nova-compute's config.",
                url.path()
            );
            self.draft
                .warn(format!("no built-in page is called {}", url.path()));
            self.draft.remark(Place::Proxy, remark);
        }
    }

    fn origins(&mut self) {
        let Some(setting) = self.settings.set(&ALLOWED_ORIGINS) else {
            return;
        };
        let key = |names: &[&str]| {
            let from = format!("From {}.", setting.origin);
            Key::new(from, "allowed_origins", list(names.iter().copied()))
        };
        let (good, bad): (Vec<&str>, Vec<&str>) = setting
            .items()
            .into_iter()
            .partition(|name| self.draft.would_take(Place::Proxy, key(&[*name])));
        if !good.is_empty() {
            let _taken = self.draft.key(Place::Proxy, key(&good));
        }
        if !bad.is_empty() {
            let why = "names of hosts are compared, without scheme and port; as it is, it matches \
                       no page with Nova either";
            let which = format!("{} in {}", bad.join(", "), setting.origin);
            self.draft.loss(which, why);
        }
    }

    /// How VNC servers are met.
    fn vnc_security(&mut self) {
        let files = [
            (&VENCRYPT_CA, "ca_file"),
            (&VENCRYPT_CERT, "cert_file"),
            (&VENCRYPT_KEY, "key_file"),
        ];
        let mut keys = Vec::new();
        if let Some(setting) = self.settings.set(&AUTH_SCHEMES) {
            let items = setting.items();
            let schemes = items
                .iter()
                .map(|it| if *it == "vencrypt" { "x509none" } else { it });
            let remark = format!(
                "From {}. In order of preference; Nova took the server's. Its vencrypt is x509none.",
                setting.origin
            );
            keys.push(Key::new(remark, "security", list(schemes)));
        }
        for (option, key) in files {
            if let Some(setting) = self.settings.set(option) {
                let from = format!("From {}.", setting.origin);
                keys.push(Key::new(from, key, setting.value.as_str()));
            }
        }
        let encrypts = keys.len() > 1;
        if encrypts {
            let remark = "As Nova: any certificate that the CA signed. \"name\" also wants it to be \
                          for the host that is dialled, and is safer.";
            keys.push(Key::new(remark, "verify", "ca"));
        }
        if !keys.is_empty() {
            let _taken = self.draft.keys(Place::ProxyVnc, keys);
        }
    }

    fn pages(&mut self) {
        let Some(setting) = self.settings.set(&WEB) else {
            return;
        };
        if self.console == Console::Serial && self.role == Role::Proxy {
            let why = "nova-serialproxy serves no pages";
            return self.draft.loss(shown(&setting), why);
        }
        let remark = format!(
            "From {}. Without this key the built-in pages are served, which say in words why a \
             console does not open.",
            setting.origin
        );
        let key = Key::new(remark, "root", setting.value.as_str());
        let _taken = self.draft.key(Place::Web, key);
    }

    /// Tells of kinds of consoles that are on or off, where that surprises.
    fn enabled(&mut self) -> Result<(), SettingsError> {
        for console in Console::ALL {
            let option = &console.options().enabled;
            let on = self.settings.is_on(option)?;
            let Some(setting) = self.settings.set(option) else {
                continue;
            };
            if console == self.console && !on {
                self.draft.warn(format!(
                    "{} is off: Nova hands out no such consoles",
                    setting.origin
                ));
            } else if console != self.console && on && self.role == Role::Proxy {
                let program = console.options().program;
                let one = match self.source {
                    Source::NovaDb => "; or add its address to proxy.listen here",
                    Source::NovaApi => "",
                };
                self.draft.change(format!(
                    "{} is on. {program} is another process: `--console {}` makes the config of its \
                     stand-in{one}.",
                    setting.origin,
                    console.as_str()
                ));
            }
        }
        Ok(())
    }
}

/// Scheme, host and port of the pages below a base URL.
fn page_origin(url: &Url) -> Option<String> {
    let scheme = match url.scheme() {
        "ws" => "http",
        "wss" => "https",
        other => other,
    };
    let host = url.host_str()?;
    let port = url
        .port()
        .map_or_else(String::new, |port| format!(":{port}"));
    Some(format!("{scheme}://{host}{port}"))
}

pub(super) fn list<S: Into<String>>(items: impl IntoIterator<Item = S>) -> Value {
    let items = items.into_iter();
    Value::Array(items.map(|item| Value::String(item.into())).collect())
}

/// An option with its value, for those that hold no secret.
pub(super) fn shown(setting: &Setting) -> String {
    format!("{} of {}", setting.value, setting.origin)
}
