//! Who is calling.

use std::fmt;

use http::header::{AUTHORIZATION, FORWARDED, HOST, ORIGIN, VIA, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::config::Key;
use crate::http::{Peer, Reject};
use crate::model::ApiKey;

/// Somebody who may use the API.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Caller {
    /// Over the admin socket.
    Admin,
    /// With the key of this name.
    Key(String),
    /// On this machine, where no key is configured.
    Local,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin => f.write_str("admin"),
            Self::Key(name) => write!(f, "key:{name}"),
            Self::Local => f.write_str("local"),
        }
    }
}

/// Decides who may.
#[derive(Debug)]
pub struct Gatekeeper {
    /// The keys that open.
    pub keys: Vec<Key>,
    /// Whether viewers reach this gateway from elsewhere (a URL of ours on another host, trusted
    /// proxies): then a request from loopback may be anybody's, and no key means no API.
    pub fronted: bool,
}

/// What a browser says of a request that no page of ours, and nobody at the address bar, made.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

impl Gatekeeper {
    /// Finds the caller of a request. Errors: 401, with what to do about it.
    pub fn admit(&self, headers: &HeaderMap, peer: Peer) -> Result<Caller, Reject> {
        if peer == Peer::Owner {
            return Ok(Caller::Admin);
        }
        if self.keys.is_empty() {
            return self.admit_local(headers, peer);
        }
        let presented = bearer(headers).ok_or_else(|| {
            unauthorized("an API key is needed: send `Authorization: Bearer KEY`")
        })?;
        let hash = ApiKey::presented(presented).hash();
        let matching = self.keys.iter().find(|key| key.sha256.matches(&hash));
        let key = matching.ok_or_else(|| unauthorized("no key in the config is this key"))?;
        Ok(Caller::Key(key.name.clone()))
    }

    /// Without any key: this machine alone, and nothing that could come from elsewhere through a
    /// proxy or a browser (DNS rebinding: a foreign page has a foreign `Host` and an `Origin`).
    fn admit_local(&self, headers: &HeaderMap, peer: Peer) -> Result<Caller, Reject> {
        let direct = !self.fronted && !headers.keys().any(is_a_proxys);
        let here = peer.ip().is_some_and(|ip| ip.is_loopback());
        if here && direct && host_is_local(headers) && !a_page_asks(headers) {
            return Ok(Caller::Local);
        }
        Err(unauthorized(
            "without a key in its config this API answers on loopback only; \
             `vncgate key new NAME` makes one",
        ))
    }
}

/// Headers that only a proxy adds.
fn is_a_proxys(name: &HeaderName) -> bool {
    [FORWARDED, VIA].contains(name)
        || name.as_str().starts_with("x-forwarded-")
        || name.as_str() == "x-real-ip"
}

/// `Origin` is missing where a page merely embeds us; `Sec-Fetch-Site` is there too.
fn a_page_asks(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(FETCH_SITE).iter();
    headers.contains_key(ORIGIN) || sites.any(|site| site != "none" && site != "same-origin")
}

/// Of two `Host` headers, which no client sends, neither counts.
fn host_is_local(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(Ok(host)), None) = (hosts.next().map(HeaderValue::to_str), hosts.next()) else {
        return false;
    };
    let Ok(authority) = host.parse::<http::uri::Authority>() else {
        return false;
    };
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let loopback = |ip: std::net::IpAddr| ip.is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(loopback)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| key.trim())
        .filter(|key| !key.is_empty())
}

fn unauthorized(detail: &'static str) -> Reject {
    let challenge = HeaderValue::from_static("Bearer realm=\"vncgate\"");
    Reject::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
        .with_header(WWW_AUTHENTICATE, challenge)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        };
        let mut headers = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            let _second = headers.append(name, value);
        }
        headers
    }

    fn tcp(address: &str) -> Peer {
        Peer::Tcp(address.parse().unwrap())
    }

    fn keyed(key: &ApiKey) -> Gatekeeper {
        let entry = |name: &str, key: &ApiKey| Key {
            name: name.to_owned(),
            sha256: key.hash(),
        };
        let keys = vec![entry("other", &ApiKey::generate()), entry("ops", key)];
        Gatekeeper {
            keys,
            fronted: false,
        }
    }

    fn keyless(fronted: bool) -> Gatekeeper {
        Gatekeeper {
            keys: Vec::new(),
            fronted,
        }
    }

    #[test]
    fn a_key_admits_its_owner_from_anywhere() {
        let key = ApiKey::generate();
        let headers = headers(&[("authorization", &format!("bearer  {}", key.reveal()))]);

        let caller = keyed(&key).admit(&headers, tcp("192.0.2.1:1")).unwrap();

        assert_eq!(caller, Caller::Key("ops".to_owned()));
    }

    #[test]
    fn once_there_are_keys_loopback_needs_one_too() {
        let keyed = keyed(&ApiKey::generate());
        let wrong = format!("Bearer {}", ApiKey::generate().reveal());
        for pairs in [&[("host", "localhost")][..], &[("authorization", &wrong)]] {
            let reject = keyed
                .admit(&headers(pairs), tcp("127.0.0.1:1"))
                .unwrap_err();
            assert_eq!(reject.status, StatusCode::UNAUTHORIZED);
        }
    }

    #[test]
    fn the_admin_socket_needs_no_key() {
        let keyed = keyed(&ApiKey::generate());
        assert_eq!(
            keyed.admit(&HeaderMap::new(), Peer::Owner).unwrap(),
            Caller::Admin
        );
    }

    #[test]
    fn without_keys_this_machine_is_admitted_under_its_own_names() {
        for (host, peer) in [
            ("localhost:6080", "127.0.0.1:1"),
            ("127.0.0.1", "127.0.0.1:1"),
            ("[::1]:6080", "[::1]:1"),
        ] {
            let caller = keyless(false).admit(&headers(&[("host", host)]), tcp(peer));
            assert_eq!(caller.unwrap(), Caller::Local, "{host}");
        }
    }

    #[test]
    fn without_keys_nobody_else_is() {
        let refused = |fronted, pairs: &[(&'static str, &str)], peer| {
            keyless(fronted).admit(&headers(pairs), tcp(peer)).is_err()
        };
        let local = ("host", "localhost");

        assert!(refused(false, &[local], "192.0.2.1:1"), "another machine");
        assert!(refused(true, &[local], "127.0.0.1:1"), "a proxy in front");
        assert!(refused(
            false,
            &[local, ("x-forwarded-for", "192.0.2.1")],
            "127.0.0.1:1"
        ));
        assert!(refused(
            false,
            &[local, ("via", "1.1 proxy")],
            "127.0.0.1:1"
        ));
        assert!(refused(
            false,
            &[("host", "rebound.example")],
            "127.0.0.1:1"
        ));
        assert!(refused(
            false,
            &[local, ("origin", "http://localhost")],
            "127.0.0.1:1"
        ));
        assert!(refused(false, &[], "127.0.0.1:1"), "no host at all");
        let evil = ("host", "evil.example");
        assert!(refused(false, &[local, evil], "127.0.0.1:1"), "two hosts");
        for header in [
            ("x-forwarded-proto", "https"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert!(
                refused(false, &[local, header], "127.0.0.1:1"),
                "{header:?}"
            );
        }
    }

    #[test]
    fn without_keys_a_person_at_the_address_bar_is_admitted() {
        let headers = headers(&[("host", "localhost"), ("sec-fetch-site", "none")]);
        assert!(keyless(false).admit(&headers, tcp("127.0.0.1:1")).is_ok());
    }
}
