//! Tokens from issue to end, as `vncgate token` and a browser see them.

use std::io::Write;
use std::process::Stdio;

use crate::rig::gateway::{ConsoleUrl, Gateway};
use crate::rig::peers::Peer;
use crate::rig::rfb::shake_hands;
use crate::rig::wait::until;
use crate::rig::ws::{Closed, Upgrade, Ws};

const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";

#[test]
fn issue_prints_the_url_and_nothing_else_on_stdout() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());

    let issued = gateway.cli(&["token", "issue", "web-1"]).ok();

    let url = ConsoleUrl::parse(&issued.stdout);
    let origin = format!("http://{}", gateway.listen);
    assert_eq!(url.0.origin().ascii_serialization(), origin);
    let token: uuid::Uuid = url.token().parse().unwrap();
    assert_eq!(token.get_version_num(), 4);
    assert_eq!(issued.stdout.lines().count(), 1);
}

#[test]
fn issue_as_json_tells_all_that_a_script_needs() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());

    let issued = gateway
        .cli(&["token", "issue", "web-1", "-o", "json"])
        .ok()
        .json();

    let url = ConsoleUrl::parse(issued["url"].as_str().unwrap());
    assert_eq!(issued["token"], url.token());
    assert_eq!(issued["type"], "novnc");
    assert_eq!(issued["instance"]["name"], "web-1");
    assert!(
        issued["instance"]["id"]
            .as_str()
            .unwrap()
            .parse::<uuid::Uuid>()
            .is_ok()
    );
    assert_eq!(issued["id"].as_str().unwrap().len(), 16);
    let expires = humantime::parse_rfc3339(issued["expires_at"].as_str().unwrap()).unwrap();
    let left = expires
        .duration_since(std::time::SystemTime::now())
        .unwrap()
        .as_secs();
    assert!(
        (590..=600).contains(&left),
        "{left} s left of the default of 10 minutes"
    );
}

#[test]
fn two_tokens_of_one_instance_differ() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());

    let (first, second) = (
        gateway.issue("web-1").token(),
        gateway.issue("web-1").token(),
    );

    assert_ne!(first, second);
}

#[test]
fn a_page_url_with_a_query_keeps_it_beside_the_token() {
    let peer = Peer::echo();
    let setup = crate::rig::gateway::Setup::new().instance("web-1", &peer.address());
    let public = "https://console.example.org/vnc.html?autoconnect=true&path=websockify";
    let gateway = setup.set("proxy", "novnc_url", public).start();

    let url = gateway.issue("web-1");

    let token = url.token();
    let expected = format!(
        "https://console.example.org/vnc.html?autoconnect=true&path=websockify%3Ftoken%3D{token}"
    );
    assert_eq!(url.0.as_str(), expected);
}

#[test]
fn show_and_list_tell_about_a_token_and_never_the_token() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let issued = gateway
        .cli(&["token", "issue", "web-1", "-o", "json"])
        .ok()
        .json();
    let (token, id) = (
        issued["token"].as_str().unwrap(),
        issued["id"].as_str().unwrap(),
    );

    let shown = gateway.cli(&["token", "show", id, "-o", "json"]).ok();
    let by_token = gateway.cli(&["token", "show", token]).ok();
    let listed = gateway.cli(&["token", "list", "-o", "json"]).ok();
    let table = gateway.cli(&["token", "list"]).ok();

    assert_eq!(shown.json()["id"], id);
    assert_eq!(shown.json()["instance"]["name"], "web-1");
    assert_eq!(listed.json()["tokens"][0]["id"], id);
    for output in [&shown, &by_token, &listed, &table] {
        assert!(output.stdout.contains(id), "{output:?}");
        assert!(!format!("{output:?}").contains(token), "{output:?}");
    }
}

#[test]
fn a_token_is_shown_when_it_comes_by_stdin() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let token = gateway.issue("web-1").token();

    let shown = gateway
        .cli_with_input(&["token", "show", "-"], text(&token))
        .ok();

    assert!(shown.stdout.contains("web-1"), "{shown:?}");
}

#[test]
fn an_unknown_token_cannot_be_shown_or_revoked() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());

    for verb in ["show", "revoke"] {
        for name in [UNKNOWN, "0123456789abcdef"] {
            let refused = gateway.cli(&["token", verb, name]);

            assert_eq!(refused.code, 4, "{refused:?}");
            assert_eq!(refused.stdout, "");
        }
    }
}

#[test]
fn a_revoked_token_opens_nothing() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    for name_of in [
        |url: &ConsoleUrl, _: &str| url.token(),
        |_: &ConsoleUrl, id: &str| id.to_owned(),
    ] {
        let issued = gateway
            .cli(&["token", "issue", "web-1", "-o", "json"])
            .ok()
            .json();
        let url = ConsoleUrl::parse(issued["url"].as_str().unwrap());
        let name = name_of(&url, issued["id"].as_str().unwrap());

        let revoked = gateway.cli(&["token", "revoke", &name]).ok();
        assert!(revoked.stderr.starts_with("revoked"), "{revoked:?}");

        let closed = refusal(&gateway, &url.token());
        assert_eq!(closed.code, Some(4001));
        assert_eq!(gateway.cli(&["token", "show", &name]).code, 4);
    }
    assert_eq!(peer.connections(), 0);
}

#[test]
fn an_expired_token_is_refused_before_the_target_is_dialled() {
    let peer = Peer::raw(|_| Ok(()));
    let gateway = Gateway::of("web-1", &peer.address());

    let url = gateway.issue_with(&["token", "issue", "web-1", "--ttl", "1s"]);
    until("the token to expire", || {
        (gateway.cli(&["token", "show", &url.token()]).code == 4).then_some(())
    });
    let closed = refusal(&gateway, &url.token());

    assert_eq!(closed.code, Some(4001));
    assert_eq!(peer.connections(), 0);
}

#[test]
fn unknown_and_expired_tokens_get_the_same_sentence() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let url = gateway.issue_with(&["token", "issue", "web-1", "--ttl", "1s"]);
    until("the token to expire", || {
        (gateway.cli(&["token", "show", &url.token()]).code == 4).then_some(())
    });

    let (expired, unknown) = (refusal(&gateway, &url.token()), refusal(&gateway, UNKNOWN));

    assert_eq!(expired.code, unknown.code);
    assert_eq!(expired.sentence().0, unknown.sentence().0);
}

#[test]
fn url_ttl_of_the_config_is_what_expires_at_shows() {
    let peer = Peer::echo();
    let setup = crate::rig::gateway::Setup::new().instance("web-1", &peer.address());
    let gateway = setup.set("auth", "url_ttl", "1h").start();

    let issued = gateway
        .cli(&["token", "issue", "web-1", "-o", "json"])
        .ok()
        .json();

    let expires = humantime::parse_rfc3339(issued["expires_at"].as_str().unwrap()).unwrap();
    let left = expires
        .duration_since(std::time::SystemTime::now())
        .unwrap()
        .as_secs();
    assert!((3590..=3600).contains(&left), "{left}");
}

#[test]
fn the_token_is_found_wherever_a_page_may_put_it() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let token = gateway.issue("web-1").token();
    let encoded = token.replace('-', "%2D");
    for upgrade in [
        Upgrade::new(&format!("/?token={token}")),
        Upgrade::new(&format!("/websockify?token={token}")),
        Upgrade::new(&format!("/vnc.html?token={token}")),
        Upgrade::new(&format!("//?token={token}")),
        Upgrade::new(&format!("/any/path/at/all?a=1&token={token}&b=2")),
        Upgrade::new(&format!("/?token={encoded}")),
        Upgrade::new(&format!("/?token=x&token={token}")),
        Upgrade::new(&format!("/?token={token}&token=")),
        Upgrade::new("/websockify").and("Cookie", &format!("token={token}")),
        Upgrade::new("/?token=").and("Cookie", &format!("token={token}")),
        Upgrade::new("/").and("Cookie", &format!("a=b; token=\"{token}\"; c=d")),
        Upgrade::new("/").and("Cookie", &format!("?=!; token=\"{token}\"")),
        Upgrade::new("/").and("Cookie", &format!("token=x; token={token}")),
    ] {
        let mut ws = upgrade.clone().open(gateway.listen).unwrap();

        assert_eq!(ws.answer().payload, b"RFB 003.008\n", "{upgrade:?}");
    }
}

#[test]
fn a_wrong_token_in_the_query_is_not_made_good_by_another() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let token = gateway.issue("web-1").token();
    for upgrade in [
        Upgrade::new(&format!("/?token={token}&token=x")),
        Upgrade::new("/?token=x").and("Cookie", &format!("token={token}")),
        Upgrade::new("/").and("Cookie", &format!("token={token}; token=x")),
        Upgrade::new("/").and("Cookie", &format!("Token={token}")),
        Upgrade::new(&format!("/?Token={token}")),
        Upgrade::new(&format!("/?path=%3Ftoken%3D{token}")),
        Upgrade::new(&format!("/{token}")),
        Upgrade::new("/"),
    ] {
        let closed = upgrade.clone().open(gateway.listen).unwrap().expect_close();

        assert_eq!(closed.code, Some(4001), "{upgrade:?}");
    }
    assert_eq!(peer.connections(), 0);
}

#[test]
fn a_live_session_outlives_its_token() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let url = gateway.issue_with(&["token", "issue", "web-1", "--ttl", "2s"]);
    let mut ws = Upgrade::new(&url.upgrade_path())
        .open(gateway.listen)
        .unwrap();
    shake_hands(&mut ws);

    until("the token to expire", || {
        (gateway.cli(&["token", "show", &url.token()]).code == 4).then_some(())
    });
    ws.send(b"still here");

    assert_eq!(ws.read(10), b"still here");
}

#[test]
fn a_console_type_that_the_instance_lacks_is_refused_in_words() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());

    let unknown = gateway.cli(&["token", "issue", "web-1", "--type", "hologram"]);

    assert_eq!(unknown.code, 2, "{unknown:?}");
    assert!(unknown.stderr.contains("hologram"), "{unknown:?}");
    assert!(unknown.stderr.contains("novnc"), "{unknown:?}");
}

fn refusal(gateway: &Gateway, token: &str) -> Closed {
    let upgrade = Upgrade::new(&format!("/websockify?token={token}"));
    let mut ws: Ws = upgrade.open(gateway.listen).unwrap();
    ws.expect_close()
}

/// A stdin that holds this text and then ends.
fn text(text: &str) -> Stdio {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writeln!(writer, "{text}").unwrap();
    reader.into()
}
