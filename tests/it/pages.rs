//! The pages in Chromium: what a person sees who opens the URL.

use std::fs;

use crate::rig::browser::{artifact, browse};
use crate::rig::gateway::{ConsoleUrl, Gateway, Setup};
use crate::rig::xvnc::{self, Xvnc};

#[test]
fn the_demo_console_shows_its_picture_and_answers_a_key() {
    let gateway = Setup::new().argument("--demo").start();
    let url = gateway.printed_url();
    let token = url.token();
    let picture = artifact("console.png");
    let _old = fs::remove_file(&picture).is_ok();

    let seen = browse(
        &url,
        &[
            ["--wait-state", "connected"],
            ["--expect-pixel", "8,8,#2060c0"],
            ["--press", "a"],
            ["--then-pixel", "8,8,#20c060"],
            ["--address-bar-lacks", &token],
            ["--screenshot", picture.to_str().unwrap()],
        ]
        .concat(),
    );

    assert_eq!(seen.code, 0, "{seen:?}");
    let png = fs::read(&picture).unwrap();
    assert!(png.starts_with(b"\x89PNG") && png.len() > 2_000);
}

#[test]
fn a_url_of_token_issue_opens_a_real_console_that_takes_keys() {
    let xvnc = Xvnc::tcp(xvnc::BLUE);
    let gateway = Gateway::of("desk", xvnc.address());
    let url = gateway.issue("desk");

    let seen = browse(
        &url,
        &[
            ["--wait-state", "connected"],
            ["--expect-pixel", "5,5,#2060c0"],
            ["--click", "320,240"],
            ["--type", "hello"],
            ["--address-bar-lacks", &url.token()],
        ]
        .concat(),
    );

    assert_eq!(seen.code, 0, "{seen:?}");
    xvnc.wait_for_keys("hello");
}

#[test]
fn every_page_that_people_know_opens_the_console() {
    let xvnc = Xvnc::tcp(xvnc::RUST);
    let gateway = Gateway::of("desk", xvnc.address());
    let token = gateway.issue("desk").token();
    for page in ["vnc.html", "vnc_lite.html", "vnc_auto.html"] {
        for query in [format!("path=%3Ftoken%3D{token}"), format!("token={token}")] {
            let url = format!("http://{}/{page}?{query}", gateway.listen);

            let seen = browse(
                &ConsoleUrl::parse(&url),
                &[
                    ["--wait-state", "connected"],
                    ["--expect-pixel", "5,5,#b7410e"],
                ]
                .concat(),
            );

            assert_eq!(seen.code, 0, "{page}?{query}: {seen:?}");
        }
    }
}

#[test]
fn a_refused_token_is_told_to_the_person_in_words() {
    let gateway = Setup::new().start();
    let url = format!("http://{}/vnc.html?path=%3Ftoken%3Dunknown", gateway.listen);

    let seen = browse(
        &ConsoleUrl::parse(&url),
        &[
            ["--expect-code", "4001"],
            ["--expect-message", "token"],
            ["--expect-text", "#detail=id "],
        ]
        .concat(),
    );

    assert_eq!(seen.code, 0, "{seen:?}");
}

#[test]
fn the_end_of_the_gateway_is_told_to_the_person_in_words() {
    let xvnc = Xvnc::tcp(xvnc::BLUE);
    let setup = Setup::new().instance("desk", xvnc.address());
    let gateway = setup.set("proxy", "drain_timeout", "1s").start();
    let url = gateway.issue("desk");

    let watched = std::thread::scope(|scope| {
        let page = scope.spawn(|| browse(&url, &["--expect-code", "1001"]));
        gateway.wait_for_sessions(1);
        gateway.signal(rustix::process::Signal::TERM);
        page.join().unwrap()
    });

    assert_eq!(watched.code, 0, "{watched:?}");
}

#[test]
fn a_distributions_own_novnc_opens_the_console_too() {
    let root = artifact("novnc/usr/share/novnc");
    assert!(
        root.join("vnc_lite.html").exists(),
        "the distribution's noVNC is missing; `./scripts/install test` unpacks it"
    );
    let xvnc = Xvnc::tcp(xvnc::RUST);
    let setup = Setup::new().instance("desk", xvnc.address());
    let gateway = setup.set("web", "root", root.to_str().unwrap()).start();
    let token = gateway.issue("desk").token();
    for page in [
        "vnc_lite.html?",
        "vnc.html?autoconnect=1&",
        "vnc_auto.html?autoconnect=1&",
    ] {
        let url = format!("http://{}/{page}path=%3Ftoken%3D{token}", gateway.listen);

        let seen = browse(
            &ConsoleUrl::parse(&url),
            &["--wait-canvas", "--expect-pixel", "5,5,#b7410e"],
        );

        assert_eq!(seen.code, 0, "{page}: {seen:?}");
    }
}
