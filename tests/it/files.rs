//! The pages as files over HTTP: a table of assets, and never more of the machine than that.

use std::fs;
use std::os::unix::fs::symlink;

use crate::rig::gateway::{Gateway, Setup};
use crate::rig::http::{Request, Response};

#[test]
fn the_pages_that_people_know_are_there() {
    let gateway = Setup::new().start();
    for page in ["/vnc.html", "/vnc_lite.html", "/vnc_auto.html"] {
        let response = get(&gateway, page);

        assert_eq!(response.status, 200, "{page}");
        let kind = response.header("content-type").unwrap();
        assert!(kind.starts_with("text/html"), "{page}: {kind}");
    }
}

#[test]
fn pages_carry_the_headers_that_keep_them_and_their_tokens_safe() {
    let gateway = Setup::new().start();

    let page = get(&gateway, "/vnc.html?path=%3Ftoken%3Dsecret");

    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("frame-ancestors"), "{policy}");
    assert!(!policy.contains("unsafe-eval"), "{policy}");
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert!(!page.text().contains("secret"));
}

#[test]
fn an_unchanged_page_is_not_sent_again() {
    let gateway = Setup::new().start();
    let first = get(&gateway, "/vnc.html");
    let tag = first.header("etag").unwrap();

    let again = gateway.http(&Request::new("GET", "/vnc.html").header("If-None-Match", tag));

    assert_eq!(again.status, 304);
    assert_eq!(again.body, b"");
}

#[test]
fn head_tells_what_get_would_send() {
    let gateway = Setup::new().start();

    let head = gateway.http(&Request::new("HEAD", "/vnc.html"));
    let get = get(&gateway, "/vnc.html");

    assert_eq!(head.status, 200);
    assert_eq!(
        head.header("content-length"),
        Some(&*get.body.len().to_string())
    );
}

#[test]
fn what_is_not_there_is_404_and_other_methods_are_405() {
    let gateway = Setup::new().start();

    assert_eq!(get(&gateway, "/nothing.html").status, 404);
    assert_eq!(get(&gateway, "/etc/passwd").status, 404);
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let response = gateway.http(&Request::new(method, "/vnc.html"));

        assert_eq!(response.status, 405, "{method}");
    }
}

#[test]
fn no_path_leads_a_browser_to_another_host() {
    let gateway = rooted(|_| ()).0;
    for path in [
        "//example.com/%2F..",
        "///example.com/%2F..",
        "//example.com",
        "/\\example.com",
        "//core",
    ] {
        let response = get(&gateway, path);

        assert!(
            [400, 404].contains(&response.status),
            "{path}: {response:?}"
        );
        assert_eq!(response.header("location"), None, "{path}");
    }
}

#[test]
fn a_web_root_of_ones_own_is_served_instead() {
    let (gateway, _root) = rooted(|_| ());

    let page = get(&gateway, "/vnc.html?path=%3Ftoken%3DT");
    let script = get(&gateway, "/core/rfb.js");

    assert_eq!(page.text(), "own page");
    assert!(
        script
            .header("content-type")
            .unwrap()
            .contains("javascript"),
        "{script:?}"
    );
}

#[test]
fn nothing_outside_the_web_root_is_served() {
    let (gateway, root) = rooted(|root| {
        fs::write(root.join("../secret.txt"), "secret").unwrap();
        symlink("/etc/hostname", root.join("hostname.txt")).unwrap();
        symlink("..", root.join("up")).unwrap();
        fs::write(root.join(".hidden"), "secret").unwrap();
    });
    assert!(root.join("up/secret.txt").exists());
    for path in [
        "/../secret.txt",
        "/core/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/core/%2E%2E/%2E%2E/secret.txt",
        "/%252e%252e/secret.txt",
        "/up/secret.txt",
        "/hostname.txt",
        "/.hidden",
        "/vnc.html%00.txt",
        "/core",
        "/core/",
    ] {
        let response = get(&gateway, path);

        assert!(
            [400, 403, 404].contains(&response.status),
            "{path}: {response:?}"
        );
        assert!(!response.text().contains("secret"), "{path}");
    }
}

/// A gateway with a web root of the test's own, prepared by `prepare`.
fn rooted(prepare: impl Fn(&std::path::Path)) -> (Gateway, std::path::PathBuf) {
    let setup = Setup::new();
    let root = setup.directory.path().join("root");
    fs::create_dir_all(root.join("core")).unwrap();
    fs::write(root.join("vnc.html"), "own page").unwrap();
    fs::write(root.join("core/rfb.js"), "export {};").unwrap();
    prepare(&root);
    let gateway = setup.set("web", "root", root.to_str().unwrap()).start();
    (gateway, root)
}

fn get(gateway: &Gateway, path: &str) -> Response {
    gateway.http(&Request::new("GET", path))
}
