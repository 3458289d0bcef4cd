//! Who is calling.

use std::fmt;
use std::net::IpAddr;

use http::header::{AUTHORIZATION, FORWARDED, HOST, ORIGIN, VIA, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use super::keystone::Identities;
use crate::config::Key;
use crate::http::{Peer, Reject};
use crate::model::{ApiKey, Role};

/// Somebody who may use the API, and what for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    /// Who it is.
    pub who: Who,
    /// What it may do.
    pub role: Role,
    /// The project whose instances it may see, by id; `None` is every one.
    pub project: Option<String>,
    /// Where it is; nothing over the admin socket.
    pub address: Option<IpAddr>,
}

/// How a caller is known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Who {
    /// Over the admin socket.
    Admin,
    /// With the key of this name.
    Key(String),
    /// A user of Keystone's.
    User {
        /// The user's name within the domain.
        name: String,
        /// The domain's name.
        domain: String,
    },
    /// On this machine, where no key is configured.
    Local,
}

impl Caller {
    /// One who may do everything.
    pub fn admin(who: Who) -> Self {
        Self {
            who,
            role: Role::Admin,
            project: None,
            address: None,
        }
    }

    /// Whether what belongs to `project` is there for this caller.
    pub fn sees(&self, project: Option<&str>) -> bool {
        self.role == Role::Admin || self.project.is_none() || self.project.as_deref() == project
    }

    /// Errors: 403, if the caller may do less than `role`.
    pub fn must_be(&self, role: Role) -> Result<(), Reject> {
        if self.role >= role {
            return Ok(());
        }
        let why = format!("this needs the role {role}, and you have {}", self.role);
        Err(Reject::new(StatusCode::FORBIDDEN, "forbidden", why))
    }
}

impl From<&Key> for Caller {
    fn from(key: &Key) -> Self {
        let usual = if key.project.is_some() {
            Role::Member
        } else {
            Role::Admin
        };
        Self {
            who: Who::Key(key.name.clone()),
            role: key.role.unwrap_or(usual),
            project: key.project.clone(),
            address: None,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.who.fmt(f)
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin => f.write_str("admin"),
            Self::Key(name) => write!(f, "key:{name}"),
            Self::User { name, domain } => write!(f, "user:{name}@{domain}"),
            Self::Local => f.write_str("local"),
        }
    }
}

/// Decides who may.
#[derive(Debug)]
pub struct Gatekeeper {
    /// The keys that open.
    pub keys: Vec<Key>,
    /// Who knows tokens that are no keys.
    pub identities: Option<Identities>,
    /// Whether viewers reach this gateway from elsewhere (a URL of ours on another host, trusted
    /// proxies): then a request from loopback may be anybody's, and no key means no API.
    pub fronted: bool,
}

/// What a browser says of a request that no page of ours, and nobody at the address bar, made.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

impl Gatekeeper {
    /// Finds the caller of a request. Errors: 401, with what to do about it; for Keystone's tokens
    /// 403 and 503 too. Cancel-safe.
    pub async fn admit(&self, headers: &HeaderMap, peer: Peer) -> Result<Caller, Reject> {
        if peer == Peer::Owner {
            return Ok(Caller::admin(Who::Admin));
        }
        if self.keys.is_empty() && self.identities.is_none() {
            return self.admit_local(headers, peer);
        }
        let presented = presented(headers).ok_or_else(|| {
            self.unauthorized(
                "an API key or a token is needed: send `Authorization: Bearer KEY`, or \
                 `X-Auth-Token: KEY`",
            )
        })?;
        let hash = presented.secret().hash();
        if let Some(key) = self.keys.iter().find(|key| key.sha256.matches(&hash)) {
            return Ok(key.into());
        }
        match (&self.identities, presented) {
            // A key that has gone from the config is nobody else's business.
            (Some(identities), Presented::Token(token)) if !token.is_ours() => {
                identities.caller(token.reveal()).await
            }
            _ => Err(self.unauthorized("no key in the config is this key")),
        }
    }

    fn unauthorized(&self, detail: &'static str) -> Reject {
        let identities = self.identities.as_ref();
        identities.map_or_else(|| unauthorized(detail), |them| them.unauthorized(detail))
    }

    /// Without any key: this machine alone, and nothing that could come from elsewhere through a
    /// proxy or a browser (DNS rebinding: a foreign page has a foreign `Host` and an `Origin`).
    fn admit_local(&self, headers: &HeaderMap, peer: Peer) -> Result<Caller, Reject> {
        let direct = !self.fronted && !headers.keys().any(is_a_proxys);
        let here = peer.ip().is_some_and(|ip| ip.is_loopback());
        if here && direct && host_is_local(headers) && !a_page_asks(headers) {
            return Ok(Caller::admin(Who::Local));
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
    let loopback = |ip: IpAddr| ip.is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(loopback)
}

/// What `OpenStack` clients send: an identity's token, or with `admin_token` as the type of their
/// authentication whatever they were given.
const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// What a caller presents.
enum Presented {
    /// A key, and nothing but a key.
    Key(ApiKey),
    /// A key, or a token of Keystone's.
    Token(ApiKey),
}

impl Presented {
    fn secret(&self) -> &ApiKey {
        match self {
            Self::Key(secret) | Self::Token(secret) => secret,
        }
    }
}

/// The key presented: of a bearer, as the token of an `OpenStack` client, or as the password of
/// HTTP's basic authentication, whose user name does not count.
fn presented(headers: &HeaderMap) -> Option<Presented> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let authorization = text(AUTHORIZATION).and_then(|value| value.split_once(' '));
    let presented = match authorization {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => {
            Presented::Key(ApiKey::presented(key.trim()))
        }
        Some((scheme, pair)) if scheme.eq_ignore_ascii_case("basic") => {
            Presented::Key(password(pair)?)
        }
        _ => Presented::Token(ApiKey::presented(text(AUTH_TOKEN)?)),
    };
    Some(presented).filter(|presented| !presented.secret().reveal().is_empty())
}

/// Whether a request has a key or a token at all.
pub(super) fn is_presented(headers: &HeaderMap) -> bool {
    presented(headers).is_some()
}

/// The password of `base64(user:password)` (RFC 7617).
fn password(pair: &str) -> Option<ApiKey> {
    let pair = Zeroizing::new(BASE64_STANDARD.decode(pair.trim()).ok()?);
    let (_user, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    Some(ApiKey::presented(password))
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
            project: None,
            role: None,
        };
        let keys = vec![entry("other", &ApiKey::generate()), entry("ops", key)];
        Gatekeeper {
            keys,
            identities: None,
            fronted: false,
        }
    }

    fn keyless(fronted: bool) -> Gatekeeper {
        Gatekeeper {
            keys: Vec::new(),
            identities: None,
            fronted,
        }
    }

    #[tokio::test]
    async fn a_key_admits_its_owner_from_anywhere() {
        let key = ApiKey::generate();
        let headers = headers(&[("authorization", &format!("bearer  {}", key.reveal()))]);

        let caller = keyed(&key)
            .admit(&headers, tcp("192.0.2.1:1"))
            .await
            .unwrap();

        assert_eq!(caller.who, Who::Key("ops".to_owned()));
        assert_eq!((caller.role, caller.project), (Role::Admin, None));
    }

    #[tokio::test]
    async fn openstack_clients_present_it_in_their_own_ways() {
        let key = ApiKey::generate();
        let basic = BASE64_STANDARD.encode(format!("anybody:{}", key.reveal()));
        for pair in [
            ("x-auth-token", key.reveal()),
            ("authorization", &format!("Basic {basic}")),
        ] {
            let (keyed, headers) = (keyed(&key), headers(&[pair]));
            let admitted = keyed.admit(&headers, tcp("192.0.2.1:1")).await;
            assert_eq!(admitted.unwrap().who, Who::Key("ops".to_owned()));
        }
    }

    #[test]
    fn a_key_with_a_project_sees_its_own_instances_and_is_a_member_unless_said() {
        let mut key = Key {
            name: "tenant".to_owned(),
            sha256: ApiKey::generate().hash(),
            project: Some("a".to_owned()),
            role: None,
        };

        let member = Caller::from(&key);
        key.role = Some(Role::Reader);
        let reader = Caller::from(&key);

        assert!(member.sees(Some("a")) && !member.sees(Some("b")) && !member.sees(None));
        assert!(member.must_be(Role::Member).is_ok() && member.must_be(Role::Admin).is_err());
        assert!(reader.must_be(Role::Reader).is_ok() && reader.must_be(Role::Member).is_err());
    }

    #[tokio::test]
    async fn once_there_are_keys_loopback_needs_one_too() {
        let keyed = keyed(&ApiKey::generate());
        let wrong = format!("Bearer {}", ApiKey::generate().reveal());
        for pairs in [&[("host", "localhost")][..], &[("authorization", &wrong)]] {
            let reject = keyed
                .admit(&headers(pairs), tcp("127.0.0.1:1"))
                .await
                .unwrap_err();
            assert_eq!(reject.status, StatusCode::UNAUTHORIZED);
        }
    }

    #[tokio::test]
    async fn the_admin_socket_needs_no_key() {
        let keyed = keyed(&ApiKey::generate());
        assert_eq!(
            keyed.admit(&HeaderMap::new(), Peer::Owner).await.unwrap(),
            Caller::admin(Who::Admin)
        );
    }

    #[tokio::test]
    async fn without_keys_this_machine_is_admitted_under_its_own_names() {
        for (host, peer) in [
            ("localhost:6080", "127.0.0.1:1"),
            ("127.0.0.1", "127.0.0.1:1"),
            ("[::1]:6080", "[::1]:1"),
        ] {
            let headers = headers(&[("host", host)]);
            let caller = keyless(false).admit(&headers, tcp(peer)).await;
            let caller = caller.unwrap();
            assert_eq!(
                (caller.who, caller.role),
                (Who::Local, Role::Admin),
                "{host}"
            );
        }
    }

    #[tokio::test]
    async fn without_keys_nobody_else_is() {
        type Pairs = &'static [(&'static str, &'static str)];
        const LOCAL: (&str, &str) = ("host", "localhost");
        let cases: &[(&str, bool, Pairs, &str)] = &[
            ("another machine", false, &[LOCAL], "192.0.2.1:1"),
            ("a proxy in front", true, &[LOCAL], "127.0.0.1:1"),
            (
                "forwarded",
                false,
                &[LOCAL, ("x-forwarded-for", "192.0.2.1")],
                "127.0.0.1:1",
            ),
            ("via", false, &[LOCAL, ("via", "1.1 proxy")], "127.0.0.1:1"),
            (
                "rebound",
                false,
                &[("host", "rebound.example")],
                "127.0.0.1:1",
            ),
            (
                "a page",
                false,
                &[LOCAL, ("origin", "http://localhost")],
                "127.0.0.1:1",
            ),
            ("no host at all", false, &[], "127.0.0.1:1"),
            (
                "two hosts",
                false,
                &[LOCAL, ("host", "evil.example")],
                "127.0.0.1:1",
            ),
            (
                "scheme",
                false,
                &[LOCAL, ("x-forwarded-proto", "https")],
                "127.0.0.1:1",
            ),
            (
                "cross-site",
                false,
                &[LOCAL, ("sec-fetch-site", "cross-site")],
                "127.0.0.1:1",
            ),
            (
                "same-site",
                false,
                &[LOCAL, ("sec-fetch-site", "same-site")],
                "127.0.0.1:1",
            ),
        ];
        for (what, fronted, pairs, peer) in cases {
            let admitted = keyless(*fronted).admit(&headers(pairs), tcp(peer)).await;
            assert!(admitted.is_err(), "{what}");
        }
    }

    #[tokio::test]
    async fn without_keys_a_person_at_the_address_bar_is_admitted() {
        let headers = headers(&[("host", "localhost"), ("sec-fetch-site", "none")]);
        let admitted = keyless(false).admit(&headers, tcp("127.0.0.1:1")).await;
        assert!(admitted.is_ok());
    }
}
