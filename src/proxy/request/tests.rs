use http::HeaderValue;
use proptest::prelude::*;

use super::*;

const GOOD_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn upgrade(more: &[(&'static str, &str)]) -> HeaderMap {
    let mut all = vec![
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
    ];
    all.push(("sec-websocket-key", GOOD_KEY));
    all.extend(more);
    headers(&all)
}

fn shake(headers: &HeaderMap) -> Result<Handshake, BadHandshake> {
    handshake(Version::HTTP_11, headers)
}

fn found(uri: &str, cookies: &[&str]) -> Option<String> {
    let pairs: Vec<_> = cookies.iter().map(|cookie| ("cookie", *cookie)).collect();
    let token = token(&uri.parse().unwrap(), &headers(&pairs));
    token.map(|token| token.reveal().to_owned())
}

#[test]
fn the_accept_key_is_that_of_rfc_6455() {
    let accepted = shake(&upgrade(&[])).unwrap();
    assert_eq!(accepted.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert!(!accepted.binary);
}

#[test]
fn binary_is_chosen_wherever_it_stands_and_nothing_else_is() {
    for (offer, outcome) in [
        ("binary", Ok(true)),
        ("binary, base64", Ok(true)),
        ("base64, binary", Ok(true)),
        ("base64,binary", Ok(true)),
        ("", Ok(false)),
        ("base64", Err(BadHandshake::Subprotocol)),
        ("chat", Err(BadHandshake::Subprotocol)),
        ("BINARY", Err(BadHandshake::Subprotocol)),
    ] {
        let headers = upgrade(&[("sec-websocket-protocol", offer)]);
        assert_eq!(shake(&headers).map(|ok| ok.binary), outcome, "{offer}");
    }
}

#[test]
fn a_broken_handshake_is_refused_by_its_fault() {
    let without = |name: &str| {
        let mut headers = upgrade(&[]);
        headers.remove(name);
        shake(&headers).unwrap_err()
    };
    assert_eq!(without("connection"), BadHandshake::Connection);
    assert_eq!(without("sec-websocket-version"), BadHandshake::Version);
    assert_eq!(without("sec-websocket-key"), BadHandshake::Key);
    for key in [
        "short",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25j!!==",
    ] {
        let mut headers = upgrade(&[]);
        headers.insert("sec-websocket-key", HeaderValue::from_str(key).unwrap());
        assert_eq!(shake(&headers), Err(BadHandshake::Key), "{key}");
    }
    assert_eq!(
        shake(&upgrade(&[("sec-websocket-version", "8")])),
        Err(BadHandshake::Version)
    );
}

#[test]
fn an_upgrade_over_http_1_0_or_with_a_body_is_refused() {
    let old = handshake(Version::HTTP_10, &upgrade(&[]));
    let empty = shake(&upgrade(&[("content-length", "0")]));
    let long = shake(&upgrade(&[("content-length", "5")]));
    let chunked = shake(&upgrade(&[("transfer-encoding", "chunked")]));

    assert_eq!(old, Err(BadHandshake::Http));
    assert!(empty.is_ok());
    assert_eq!(long, Err(BadHandshake::Body));
    assert_eq!(chunked, Err(BadHandshake::Body));
}

#[test]
fn the_token_is_the_querys_last_and_then_the_cookies_last() {
    for (uri, cookies, token) in [
        ("/?token=T", &[][..], Some("T")),
        ("/?token=X&token=T", &[], Some("T")),
        ("/?token=T&token=", &[], Some("T")),
        ("/vnc.html?a=b&token=T%20x+y", &[], Some("T x y")),
        ("/?to%6ben=T", &[], Some("T")),
        ("/websockify", &["token=T"], Some("T")),
        ("/?token=", &["a=b; token=T"], Some("T")),
        ("/?token=X", &["token=T"], Some("X")),
        ("/", &["?=!; token=\"T\""], Some("T")),
        ("/", &["token=X; token=T"], Some("T")),
        ("/", &["token=X", "token=T"], Some("T")),
        ("/", &["a=ü; token=T"], Some("T")),
        ("/", &["Token=T"], None),
        ("/?path=%3Ftoken%3DT", &[], None),
        ("/", &[], None),
        ("/?token", &[], None),
    ] {
        assert_eq!(found(uri, cookies).as_deref(), token, "{uri} {cookies:?}");
    }
}

#[test]
fn forwarded_headers_count_from_trusted_proxies_only() {
    let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
    let forwarded = headers(&[
        ("x-forwarded-for", "6.6.6.6, 192.0.2.7, 10.0.0.9"),
        ("x-forwarded-proto", "HTTPS"),
    ]);
    let ip = |text: &str| Some(text.parse().unwrap());

    let believed = client(ip("10.1.2.3"), &forwarded, &trusted);
    let ignored = client(ip("192.0.2.1"), &forwarded, &trusted);

    assert_eq!(
        believed.ip,
        ip("192.0.2.7"),
        "the last hop that is no trusted proxy"
    );
    assert_eq!(believed.forwarded_scheme.as_deref(), Some("https"));
    assert_eq!(
        ignored,
        Client {
            ip: ip("192.0.2.1"),
            forwarded_scheme: None
        }
    );
}

#[test]
fn forwarded_addresses_may_carry_ports_and_garbage_ends_the_walk() {
    let trusted = ["10.0.0.0/8".parse().unwrap()];
    let seen = |chain: &str| {
        let headers = headers(&[("x-forwarded-for", chain)]);
        client(Some("10.0.0.1".parse().unwrap()), &headers, &trusted)
            .ip
            .unwrap()
            .to_string()
    };

    assert_eq!(seen("192.0.2.7:4711"), "192.0.2.7");
    assert_eq!(seen("[2001:db8::7]:4711"), "2001:db8::7");
    assert_eq!(seen("192.0.2.7, unknown, 10.0.0.2"), "10.0.0.2");
}

#[test]
fn a_host_with_a_port_that_is_none_is_no_host() {
    for (host, known) in [
        ("console.example", true),
        ("console.example:6080", true),
        ("[::1]:80", true),
        ("console.example:", false),
        ("console.example:abc", false),
        ("console.example:70000", false),
        ("user@console.example", false),
    ] {
        assert_eq!(
            own_host(&headers(&[("host", host)])).is_some(),
            known,
            "{host}"
        );
    }
}

struct Asked<'a> {
    host: Option<&'a str>,
    origin: Option<&'a str>,
    base: &'a str,
    proto: Option<&'a str>,
}

fn verdict(case: &Asked<'_>) -> Result<(), BadOrigin> {
    let mut pairs = Vec::new();
    pairs.extend(case.host.map(|host| ("host", host)));
    pairs.extend(case.origin.map(|origin| ("origin", origin)));
    let forwarded_scheme = case.proto.map(str::to_owned);
    let client = Client {
        ip: None,
        forwarded_scheme,
    };
    let allowed = ["allowed.example".to_owned(), "2001:db8::9".to_owned()];
    check_origin(
        &headers(&pairs),
        &client,
        &case.base.parse().unwrap(),
        &allowed,
    )
}

#[test]
fn origins_of_ours_are_admitted() {
    for (host, origin, base) in [
        (
            "h.example:6080",
            Some("http://h.example:6080"),
            "http://h.example:6080/vnc.html",
        ),
        ("h.example", None, "http://h.example/"),
        ("H.EXAMPLE", Some("https://h.example"), "https://h.example/"),
        (
            "127.0.0.1:6080",
            Some("https://public.example"),
            "https://public.example/vnc.html",
        ),
        (
            "h.example",
            Some("https://allowed.example:8443"),
            "https://h.example/",
        ),
        (
            "[2001:db8::1]:6080",
            Some("http://[2001:db8::1]:6080"),
            "http://other.example/",
        ),
        (
            "h.example",
            Some("http://[2001:db8:0::9]"),
            "http://h.example/",
        ),
        ("h.example", Some("http://h.example"), "ws://h.example/"),
        ("h.example", Some("https://h.example"), "wss://h.example/"),
        ("h.example", Some("wss://h.example"), "wss://h.example/"),
    ] {
        let case = Asked {
            host: Some(host),
            origin,
            base,
            proto: None,
        };
        assert_eq!(verdict(&case), Ok(()), "{host} {origin:?} {base}");
    }
}

#[test]
fn foreign_origins_are_refused_with_both_values() {
    let refused = |host, origin, base, proto| {
        verdict(&Asked {
            host,
            origin: Some(origin),
            base,
            proto,
        })
        .unwrap_err()
    };
    let (host, base) = (Some("h.example:6080"), "https://h.example/vnc.html");

    let foreign = refused(host, "https://evil.example", base, None);
    assert_eq!(
        foreign.to_string(),
        "origin `evil.example` is not `h.example`"
    );
    let plain = refused(host, "http://h.example", base, None);
    assert_eq!(plain.to_string(), "origin scheme `http` is not `https`");
    for origin in ["", "null", "h.example", "https://", "data:text/html,x"] {
        let invalid = refused(host, origin, base, None);
        assert!(matches!(invalid, BadOrigin::Invalid(_)), "{origin}");
    }
    assert!(matches!(
        refused(None, "null", base, Some("http")),
        BadOrigin::Invalid(_)
    ));
    assert!(matches!(
        refused(Some(""), "https://x.example", base, None),
        BadOrigin::Host { .. }
    ));
    let https_to_ws = refused(host, "https://h.example", "ws://h.example/", None);
    assert!(matches!(https_to_ws, BadOrigin::Scheme { .. }));
}

#[test]
fn a_trusted_proxys_scheme_takes_the_place_of_the_origins() {
    let case = |proto| Asked {
        host: Some("h.example"),
        origin: Some("http://h.example"),
        base: "wss://h.example/",
        proto: Some(proto),
    };
    assert_eq!(verdict(&case("https")), Ok(()));
    assert!(matches!(
        verdict(&case("http, https")),
        Err(BadOrigin::Scheme { .. })
    ));
}

proptest! {
    #[test]
    fn nothing_a_client_sends_panics(query in "[ -~]{0,80}", cookie in "[ -~]{0,80}", origin in "[ -~]{0,80}", host in "[ -~]{0,40}") {
        let headers = headers(&[("cookie", &cookie), ("origin", &origin), ("host", &host), ("x-forwarded-for", &cookie)]);
        if let Ok(uri) = format!("/?{query}").parse::<Uri>() {
            drop(token(&uri, &headers));
        }
        let client = client(Some([10, 0, 0, 1].into()), &headers, &["10.0.0.0/8".parse().unwrap()]);
        drop(check_origin(&headers, &client, &"http://h/".parse().unwrap(), &[]));
    }
}
