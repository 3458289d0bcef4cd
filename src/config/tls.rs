//! TLS on our own listeners.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Config, ConfigError, Period, all_absolute, longer_than_zero, refuse_if};

/// `[tls]`: what viewers and callers meet.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// The certificate and those between it and its CA, in PEM; unset: no TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its key, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Certificates for other names.
    pub extra: Vec<Pair>,
    /// Whether to make a certificate that nobody vouches for, in place of all these.
    pub self_signed: bool,
    /// The listeners that speak it.
    pub listeners: Vec<TlsListener>,
    /// Where clear text is sent on to https.
    pub redirect_listen: Vec<SocketAddr>,
    /// How long browsers are told to come by https alone; 0s says nothing.
    pub hsts: Period,
    /// How long a client may take to shake hands.
    pub handshake_timeout: Period,
}

/// `[[tls.extra]]`: a certificate and its key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The certificate and those between it and its CA, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
}

/// Which listeners speak TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsListener {
    /// Those of `proxy.listen`.
    Proxy,
    /// Those of `api.listen`.
    Api,
    /// Those of `monitor.listen`.
    Monitor,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificate: None,
            key: None,
            extra: Vec::new(),
            self_signed: false,
            listeners: vec![TlsListener::Proxy, TlsListener::Api],
            redirect_listen: Vec::new(),
            hsts: Period::from_secs(30 * 24 * 60 * 60),
            handshake_timeout: Period::from_secs(10),
        }
    }
}

impl Tls {
    /// Certificates with their keys, the first one for whoever asks for no name of ours.
    pub fn pairs(&self) -> Vec<Pair> {
        let first = self.certificate.clone().zip(self.key.clone());
        let first = first.map(|(certificate, key)| Pair { certificate, key });
        first.into_iter().chain(self.extra.clone()).collect()
    }

    /// Whether a listener speaks TLS.
    pub fn is_on(&self, listener: TlsListener) -> bool {
        let some = self.self_signed || self.certificate.is_some();
        some && self.listeners.contains(&listener)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let pairs = self.pairs();
        let files = pairs.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
        all_absolute("tls.certificate", &files.cloned().collect::<Vec<_>>())?;
        longer_than_zero("tls.handshake_timeout", self.handshake_timeout)?;
        let named = self.certificate.is_some();
        for (wrong, key, why) in [
            (
                named != self.key.is_some(),
                "tls.key",
                "certificate and key go together",
            ),
            (
                !named && !self.extra.is_empty(),
                "tls.extra",
                "needs a certificate and key for all other names",
            ),
            (
                named && self.self_signed,
                "tls.self_signed",
                "takes the place of a certificate; leave one of them out",
            ),
            (
                !self.redirect_listen.is_empty() && !self.is_on(TlsListener::Proxy),
                "tls.redirect_listen",
                "there is no https on proxy.listen to send anybody to",
            ),
        ] {
            refuse_if(wrong.then(|| why.to_owned()), key)?;
        }
        Ok(())
    }
}

impl Config {
    /// Every file with a certificate that viewers are shown.
    pub fn viewer_certificate_files(&self) -> Vec<PathBuf> {
        let pairs = self.tls.pairs().into_iter();
        pairs.map(|pair| pair.certificate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_setting_is_refused_by_its_key() {
        for (text, key, why) in [
            ("certificate = '/c'", "tls.key", "go together"),
            ("key = '/c'", "tls.key", "go together"),
            (
                "certificate = 'c'\nkey = '/k'",
                "tls.certificate",
                "absolute",
            ),
            (
                "[[tls.extra]]\ncertificate = '/c'\nkey = '/k'",
                "tls.extra",
                "all other names",
            ),
            (
                "certificate = '/c'\nkey = '/k'\nself_signed = true",
                "tls.self_signed",
                "leave one",
            ),
            (
                "redirect_listen = ['0.0.0.0:80']",
                "tls.redirect_listen",
                "no https",
            ),
        ] {
            let refusal = Config::parse(&format!("[tls]\n{text}")).unwrap_err();
            let refusal = refusal.to_string();
            assert!(
                refusal.starts_with(key) && refusal.contains(why),
                "{text}: {refusal}"
            );
        }
    }

    #[test]
    fn tls_is_on_where_there_is_a_certificate_and_the_listener_is_named() {
        let on = |text: &str| {
            let tls = Config::parse(&format!("[tls]\n{text}")).unwrap().tls;
            [TlsListener::Proxy, TlsListener::Api, TlsListener::Monitor].map(|it| tls.is_on(it))
        };
        assert_eq!(on(""), [false; 3]);
        assert_eq!(on("self_signed = true"), [true, true, false]);
        assert_eq!(
            on("self_signed = true\nlisteners = ['monitor']"),
            [false, false, true]
        );
    }
}
