use std::fs;
use std::os::unix::fs::symlink;

use http_body_util::BodyExt;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const SECRET: &str = "outside the root";

fn embedded() -> Pages {
    Pages::embedded(&[]).unwrap()
}

fn request(method: Method, uri: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

async fn get(pages: &Pages, uri: &str, fields: &[(&str, &str)]) -> Page {
    pages.respond(&request(Method::GET, uri, fields)).await
}

async fn body(page: Page) -> Bytes {
    page.into_body().collect().await.unwrap().to_bytes()
}

fn field<'a>(page: &'a Page, name: &str) -> &'a str {
    page.headers()
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

/// A folder like Debian's noVNC, with traps, inside a folder that holds a secret.
fn site() -> (TempDir, Pages) {
    let above = tempfile::tempdir().unwrap();
    let root = above.path().join("root");
    fs::create_dir_all(root.join("core/.git")).unwrap();
    fs::write(above.path().join("secret.txt"), SECRET).unwrap();
    fs::write(root.join("vnc.html"), "<p>noVNC").unwrap();
    fs::write(root.join("core/rfb.js"), "export {}").unwrap();
    fs::write(root.join(".htpasswd"), SECRET).unwrap();
    fs::write(root.join("core/.git/config"), SECRET).unwrap();
    symlink("vnc.html", root.join("vnc_auto.html")).unwrap();
    symlink("../secret.txt", root.join("leak.txt")).unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink(".htpasswd", root.join("seen.txt")).unwrap();
    let pages = Pages::on_disk(root, &[]).unwrap();
    (above, pages)
}

#[tokio::test]
async fn every_name_of_the_console_page_is_served() {
    let page = body(get(&embedded(), "/vnc.html?token=secret", &[]).await).await;

    for name in ["/vnc_lite.html", "/vnc_auto.html?path=%3Ftoken%3DT"] {
        let response = get(&embedded(), name, &[]).await;
        assert_eq!(response.status(), StatusCode::OK, "{name}");
        assert_eq!(field(&response, "content-type"), "text/html; charset=utf-8");
        assert_eq!(field(&response, "cache-control"), "no-cache");
        assert_eq!(body(response).await, page);
    }
}

#[tokio::test]
async fn the_root_is_another_page() {
    let response = get(&embedded(), "/", &[]).await;

    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(field(&response, "content-type"), "text/html; charset=utf-8");
}

#[tokio::test]
async fn every_asset_is_served_and_those_with_a_hash_in_their_name_for_ever() {
    for asset in embedded::ASSETS {
        let response = get(&embedded(), asset.path, &[]).await;
        let forever = field(&response, "cache-control").ends_with("immutable");
        assert_eq!(response.status(), StatusCode::OK, "{}", asset.path);
        assert_eq!(
            forever,
            asset.path.starts_with("/assets/"),
            "{}",
            asset.path
        );
        assert_ne!(
            field(&response, "content-type"),
            "application/octet-stream",
            "{}",
            asset.path
        );
    }
}

#[tokio::test]
async fn no_page_names_a_place_outside_or_holds_inline_code() {
    for path in ["/", "/vnc.html", "/spice_auto.html", "/serial.html"] {
        let html = body(get(&embedded(), path, &[]).await).await;
        let html = std::str::from_utf8(&html).unwrap();
        for refused in [
            "http://",
            "https://",
            "<style",
            " style=",
            " onclick=",
            "<script>",
        ] {
            assert!(!html.contains(refused), "{path} holds {refused}");
        }
    }
}

#[tokio::test]
async fn gzip_is_sent_to_those_who_take_it_and_has_its_own_tag() {
    let plain = get(&embedded(), "/vnc.html", &[]).await;
    let zipped = get(
        &embedded(),
        "/vnc.html",
        &[("accept-encoding", "br, gzip;q=0.5")],
    )
    .await;

    assert_eq!(field(&zipped, "content-encoding"), "gzip");
    assert_eq!(field(&plain, "content-encoding"), "");
    assert_eq!(field(&plain, "vary"), "accept-encoding");
    assert_ne!(field(&zipped, "etag"), field(&plain, "etag"));
    let length: usize = field(&zipped, "content-length").parse().unwrap();
    let (zipped, plain) = (body(zipped).await, body(plain).await);
    assert_eq!(zipped.len(), length);
    assert!(zipped.starts_with(&[0x1f, 0x8b]) && zipped.len() < plain.len());
}

#[test]
fn a_coding_that_weighs_nothing_is_not_welcome() {
    let accepts = |value: &'static str| {
        let field = (header::ACCEPT_ENCODING, HeaderValue::from_static(value));
        headers::accepts_gzip(&HeaderMap::from_iter([field]))
    };

    assert!(accepts("gzip") && accepts("GZIP;q=1.0") && accepts("*") && accepts("br,*;q=0.1"));
    assert!(!accepts("gzip;q=0") && !accepts("gzip; q=0.000, *") && !accepts("*;q=0"));
    assert!(!accepts("") && !accepts("br") && !accepts("xgzip"));
}

#[tokio::test]
async fn what_the_browser_has_is_not_sent_again() {
    let first = get(&embedded(), "/vnc.html", &[]).await;
    let tag = field(&first, "etag").to_owned();

    for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
        let again = get(&embedded(), "/vnc.html", &[("if-none-match", &known)]).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{known}");
        assert_eq!(field(&again, "etag"), tag);
        assert!(field(&again, "content-security-policy").starts_with("default-src 'none'"));
        assert!(body(again).await.is_empty());
    }
    let other = get(&embedded(), "/vnc.html", &[("if-none-match", "\"x\"")]).await;
    assert_eq!(other.status(), StatusCode::OK);
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let got = get(&embedded(), "/vnc.html", &[]).await;
    let head = embedded()
        .respond(&request(Method::HEAD, "/vnc.html", &[]))
        .await;

    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(head.headers(), got.headers());
    assert!(body(head).await.is_empty());
}

#[tokio::test]
async fn other_methods_are_told_which_ones_there_are() {
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let response = embedded().respond(&request(method, "/vnc.html", &[])).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(field(&response, "allow"), "GET, HEAD");
    }
}

#[tokio::test]
async fn every_answer_carries_the_policy() {
    for path in ["/vnc.html", "/none", "/"] {
        let response = get(&embedded(), path, &[]).await;
        let policy = field(&response, "content-security-policy");
        assert!(policy.contains("script-src 'self';") && !policy.contains("unsafe"));
        assert!(policy.ends_with("frame-ancestors 'self'"));
        assert_eq!(field(&response, "referrer-policy"), "no-referrer");
        assert_eq!(field(&response, "x-content-type-options"), "nosniff");
        assert!(field(&response, "permissions-policy").contains("camera=()"));
    }
}

#[tokio::test]
async fn the_operator_says_who_may_frame_the_page() {
    let named = [
        "'self'".to_owned(),
        "https://*.dash.example:8443".to_owned(),
    ];
    let pages = Pages::embedded(&named).unwrap();

    let response = get(&pages, "/vnc.html", &[]).await;

    let policy = field(&response, "content-security-policy");
    assert!(policy.ends_with("frame-ancestors 'self' https://*.dash.example:8443"));
}

#[test]
fn a_frame_ancestor_cannot_smuggle_in_another_directive() {
    for bad in [
        "",
        "a; script-src *",
        "a,b",
        "a b",
        "a\r\nset-cookie: x",
        "'unsafe-inline'",
        "ü",
    ] {
        let refused = Pages::embedded(&[bad.to_owned()]);
        assert!(
            matches!(refused, Err(BadPages::FrameAncestor(_))),
            "{bad:?}"
        );
    }
}

#[tokio::test]
async fn a_path_that_names_another_host_is_not_found_and_never_redirected() {
    let (_above, disk) = site();
    let paths = [
        "//example.com/%2F..",
        "///example.com/%2F..",
        "//example.com/%2e%2e",
        "/%5cexample.com",
        "//vnc.html",
        "/core",
        "/core/",
        "/vnc.html/",
    ];
    for pages in [embedded(), disk] {
        for path in paths {
            let response = get(&pages, path, &[]).await;
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
            assert!(!response.headers().contains_key(header::LOCATION), "{path}");
        }
    }
}

#[tokio::test]
async fn a_distributions_novnc_is_served_from_its_folder() {
    let (_above, pages) = site();

    let script = get(&pages, "/core/rfb.js", &[]).await;
    assert_eq!(
        field(&script, "content-type"),
        "text/javascript; charset=utf-8"
    );
    assert_eq!(field(&script, "cache-control"), "no-cache");
    assert!(field(&script, "content-security-policy").contains("style-src 'self' 'unsafe-inline'"));
    for path in ["/", "/vnc.html", "/vnc_auto.html?token=T", "/%76nc.html"] {
        let response = get(&pages, path, &[]).await;
        assert_eq!(body(response).await, "<p>noVNC", "{path}");
    }
    let tag = field(&script, "etag").to_owned();
    let again = get(&pages, "/core/rfb.js", &[("if-none-match", &tag)]).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn what_a_distributions_novnc_lacks_is_ours_under_our_own_policy() {
    let (_above, pages) = site();

    for path in [
        "/spice_auto.html",
        "/spice.html",
        "/serial.html",
        "/licenses.txt",
    ] {
        let response = get(&pages, path, &[]).await;

        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let policy = field(&response, "content-security-policy").to_owned();
        assert!(!policy.contains("unsafe-inline"), "{path}: {policy}");
        let built_in = body(get(&embedded(), path, &[]).await).await;
        assert_eq!(body(response).await, built_in, "{path}");
    }
}

#[tokio::test]
async fn nothing_hidden_or_outside_the_folder_is_served() {
    let (above, pages) = site();
    let absolute = format!("/{}", above.path().join("secret.txt").display());
    let paths = [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/core/..%2f..%2fsecret.txt",
        "/..%5csecret.txt",
        "/leak.txt",
        "/up/secret.txt",
        "/seen.txt",
        "/.htpasswd",
        "/%2ehtpasswd",
        "/core/.git/config",
        "/./vnc.html",
        "/vnc.html%00",
        "/vnc.html%0a",
        "/%ff",
        absolute.as_str(),
    ];
    for path in paths {
        assert_eq!(
            get(&pages, path, &[]).await.status(),
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
}

#[tokio::test]
async fn what_is_too_big_or_no_file_is_not_served() {
    let (above, pages) = site();
    let root = above.path().join("root");
    fs::File::create(root.join("big.bin"))
        .unwrap()
        .set_len(1024 * 1024 + 1)
        .unwrap();
    fs::File::create(root.join("full.bin"))
        .unwrap()
        .set_len(1024 * 1024)
        .unwrap();
    let pipe = std::process::Command::new("mkfifo")
        .arg(root.join("pipe.txt"))
        .status();
    assert!(pipe.unwrap().success());

    assert_eq!(
        get(&pages, "/big.bin", &[]).await.status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        get(&pages, "/pipe.txt", &[]).await.status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(get(&pages, "/full.bin", &[]).await.status(), StatusCode::OK);
}

#[test]
fn a_root_that_is_no_folder_is_refused_at_the_start() {
    let (above, _pages) = site();
    for bad in ["none", "secret.txt"] {
        let refused = Pages::on_disk(above.path().join(bad), &[]);
        assert!(matches!(refused, Err(BadPages::Root { .. })), "{bad}");
    }
}

#[test]
fn a_response_can_be_awaited_on_any_thread() {
    fn send<T: Send>(_: T) {}
    let pages = embedded();
    let body: Request<std::cell::Cell<u8>> = Request::default();
    send(pages.respond(&body));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_mix_of_dots_slashes_and_escapes_leaves_the_folder(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "/", "..", ".", "%2e", "%2E%2E", "%2f", "%5c", "\\", "%00", "%25", "up", "core",
                "leak.txt", "secret.txt", "vnc.html", ".htpasswd", ".git", "config", "root", "%",
            ]),
            0..9,
        ),
    ) {
        let path = format!("/{}", parts.concat());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let Ok(uri) = path.parse::<http::Uri>() else { return Ok(()) };
        let (_above, pages) = site();
        let mut request = Request::new(());
        *request.uri_mut() = uri;

        let response = runtime.block_on(pages.respond(&request));

        prop_assert!(!response.headers().contains_key(header::LOCATION));
        let text = runtime.block_on(body(response));
        prop_assert_ne!(text, SECRET.as_bytes());
    }

    #[test]
    fn a_relative_path_has_only_plain_parts(path in ".{0,60}") {
        if let Some(relative) = path::relative(&path) {
            for part in relative.split('/') {
                prop_assert!(!part.is_empty() && !part.starts_with('.'));
                prop_assert!(!part.contains(['\\', '\0', ':']));
            }
        }
    }
}
