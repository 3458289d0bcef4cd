use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\nX-Mark: m\r\nContent-Length: 2\r\n\r\nhi";

/// A server that plays one script a connection: what it answers to the first request, the second,
/// and so on; then it closes. The last script is played for all further connections.
struct Server {
    url: Url,
    accepted: Arc<AtomicUsize>,
    heads: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Server {
    async fn new(scripts: &[&[&str]]) -> Self {
        Self::with_tls(scripts, None).await
    }

    async fn with_tls(scripts: &[&[&str]], tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}/base/", listener.local_addr().unwrap());
        let scripts: Vec<Vec<String>> = scripts
            .iter()
            .map(|script| script.iter().map(ToString::to_string).collect())
            .collect();
        let server = Self {
            url: url.parse().unwrap(),
            accepted: Arc::default(),
            heads: Arc::default(),
        };
        let (accepted, heads) = (Arc::clone(&server.accepted), Arc::clone(&server.heads));
        let _serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let turn = accepted.fetch_add(1, Ordering::SeqCst);
                let script = scripts[turn.min(scripts.len() - 1)].clone();
                let (tls, heads) = (tls.clone(), Arc::clone(&heads));
                let _playing = tokio::spawn(async move {
                    match tls {
                        None => play(stream, script, &heads).await,
                        Some(tls) => play(tls.accept(stream).await?, script, &heads).await,
                    }
                });
            }
        });
        server
    }

    fn call<'a>(&'a self, path: &'a [&'a str]) -> Call<'a> {
        Call {
            path,
            ..get(&self.url)
        }
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

fn get(base: &Url) -> Call<'_> {
    Call {
        method: Method::GET,
        base,
        path: &[],
        query: None,
        headers: HeaderMap::new(),
        body: Bytes::new(),
    }
}

async fn play(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    script: Vec<String>,
    heads: &std::sync::Mutex<Vec<String>>,
) -> io::Result<()> {
    for answer in script {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        heads.lock().unwrap().push(String::from_utf8(head).unwrap());
        stream.write_all(answer.as_bytes()).await?;
    }
    stream.shutdown().await
}

fn outbound(ca_file: Option<PathBuf>) -> Outbound {
    Outbound::new(OutboundSettings {
        ca_file,
        timeout: Duration::from_secs(20),
        parallel: 4,
        largest: 1000,
    })
}

/// An authority of one's own in `ca.pem`, and a server that it vouches for under `name`.
fn authority(directory: &Path, name: &str) -> TlsAcceptor {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(directory.join("ca.pem"), issuer.pem()).unwrap();
    let pair = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    let certificate = params.signed_by(&pair, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key);
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

#[tokio::test]
async fn a_call_asks_below_its_base_and_brings_status_headers_and_body() {
    let server =
        Server::new(&[&["HTTP/1.1 418 T\r\nX-Mark: m\r\nContent-Length: 2\r\n\r\nhi"]]).await;
    let call = Call {
        query: Some("nocatalog"),
        ..server.call(&["auth", "a/b c"])
    };

    let answer = outbound(None).call(&call).await.unwrap();

    assert_eq!(answer.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(answer.headers()["x-mark"], "m");
    assert_eq!(answer.body(), "hi");
    let head = server.heads.lock().unwrap()[0].clone();
    assert!(
        head.starts_with("GET /base/auth/a%2Fb%20c?nocatalog HTTP/1.1\r\n"),
        "{head}"
    );
    let host = format!("host: {}\r\n", server.url.authority());
    assert!(head.contains(&host), "{head}");
}

#[tokio::test]
async fn one_connection_serves_call_after_call() {
    let server = Server::new(&[&[OK; 3]]).await;
    let outbound = outbound(None);

    for _ in 0..3 {
        outbound.call(&server.call(&["x"])).await.unwrap();
    }

    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_connection_that_died_while_it_was_kept_is_replaced_once() {
    let server = Server::new(&[&[OK, ""], &[""]]).await;
    let outbound = outbound(None);
    outbound.call(&server.call(&["x"])).await.unwrap();

    let failed = outbound.call(&server.call(&["x"])).await.unwrap_err();

    assert!(matches!(failed.fault, Fault::Exchange(_)), "{failed}");
    assert_eq!(
        server.accepted(),
        2,
        "a new connection is not given a second try"
    );
}

#[tokio::test]
async fn a_replaced_connection_brings_the_answer() {
    let server = Server::new(&[&[OK, ""], &[OK]]).await;
    let outbound = outbound(None);
    outbound.call(&server.call(&["x"])).await.unwrap();

    let answer = outbound.call(&server.call(&["x"])).await.unwrap();

    assert_eq!(answer.body(), "hi");
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn a_connection_that_its_server_ends_is_not_kept() {
    let closing = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
    let server = Server::new(&[&[closing, ""]]).await;
    let outbound = outbound(None);

    outbound.call(&server.call(&["x"])).await.unwrap();
    outbound.call(&server.call(&["x"])).await.unwrap();

    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn an_answer_over_the_limit_is_given_up() {
    let large = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n{}",
        "x".repeat(1001)
    );
    let server = Server::new(&[&[large.as_str()]]).await;

    let failed = outbound(None).call(&server.call(&["x"])).await.unwrap_err();

    assert!(matches!(failed.fault, Fault::TooLarge(1000)), "{failed}");
}

#[tokio::test]
async fn silence_ends_at_the_deadline_and_the_error_tells_no_secret() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://u:pass@{}/v3?key=1", listener.local_addr().unwrap());
    let base = base.parse().unwrap();
    let outbound = Outbound::new(OutboundSettings {
        timeout: Duration::from_millis(300),
        ..outbound(None).settings
    });
    let call = Call {
        method: Method::POST,
        path: &["secret"],
        query: Some("q=secret"),
        body: Bytes::from_static(b"secret"),
        ..get(&base)
    };

    let failed = outbound.call(&call).await.unwrap_err().to_string();

    let shown = format!("{call:?}");
    assert!(
        !shown.contains("secret") && !shown.contains("pass"),
        "{shown}"
    );
    let expected = format!(
        "http://{}/v3: no answer within 300ms",
        listener.local_addr().unwrap()
    );
    assert_eq!(failed, expected);
}

#[tokio::test]
async fn calls_beyond_the_limit_wait_for_a_place() {
    let server = Server::new(&[&[OK; 9]]).await;
    let outbound = Arc::new(Outbound::new(OutboundSettings {
        parallel: 1,
        ..outbound(None).settings
    }));

    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (outbound, url) = (Arc::clone(&outbound), server.url.clone());
        let _call = calls.spawn(async move { outbound.call(&get(&url)).await.unwrap() });
    }
    let _answers = calls.join_all().await;

    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn what_cannot_be_called_says_what_is_wrong() {
    let refused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = refused.local_addr().unwrap();
    drop(refused);
    for (base, why) in [
        (format!("http://{address}"), "no connection"),
        ("ftp://h/".to_owned(), "only http:// and https://"),
        (
            "http://nobody.invalid/".to_owned(),
            "cannot resolve nobody.invalid",
        ),
    ] {
        let base = base.parse().unwrap();
        let failed = outbound(None)
            .call(&get(&base))
            .await
            .unwrap_err()
            .to_string();
        assert!(failed.contains(why), "{failed}");
    }
}

#[tokio::test]
async fn a_server_is_believed_when_the_ca_file_vouches_for_its_name() {
    let directory = TempDir::new().unwrap();
    let tls = authority(directory.path(), "127.0.0.1");
    let server = Server::with_tls(&[&[OK, OK]], Some(tls)).await;
    let outbound = outbound(Some(directory.path().join("ca.pem")));

    let first = outbound.call(&server.call(&["x"])).await.unwrap();
    let _second = outbound.call(&server.call(&["x"])).await.unwrap();

    assert_eq!(first.body(), "hi");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_server_is_not_believed_without_proof() {
    let (ours, theirs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let _ours = authority(ours.path(), "127.0.0.1");
    let foreign = authority(theirs.path(), "127.0.0.1");
    let elsewhere = TempDir::new().unwrap();
    let misnamed = authority(elsewhere.path(), "keystone.example.org");
    for (tls, directory, why) in [
        (foreign, &ours, "is signed by no CA in"),
        (misnamed, &elsewhere, "is not for this name"),
    ] {
        let server = Server::with_tls(&[&[OK]], Some(tls)).await;
        let outbound = outbound(Some(directory.path().join("ca.pem")));

        let failed = outbound
            .call(&server.call(&["x"]))
            .await
            .unwrap_err()
            .to_string();

        assert!(failed.contains("the certificate of 127.0.0.1"), "{failed}");
        assert!(failed.contains(why), "{failed}");
        assert!(server.heads.lock().unwrap().is_empty(), "nothing was asked");
    }
}

#[tokio::test]
async fn a_server_in_clear_is_no_tls_server() {
    let directory = TempDir::new().unwrap();
    let _tls = authority(directory.path(), "127.0.0.1");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://{}", listener.local_addr().unwrap());
    let _serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await?;
        stream.read_to_end(&mut Vec::new()).await
    });
    let outbound = outbound(Some(directory.path().join("ca.pem")));

    let failed = outbound.call(&get(&base.parse().unwrap())).await;

    let failed = failed.unwrap_err().to_string();
    assert!(failed.contains("speaks no TLS"), "{failed}");
}

#[test]
fn a_ca_file_is_checked_before_anything_is_called() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("ca.pem");
    let check = || {
        Trust::new(Some(path.clone()))
            .check()
            .unwrap_err()
            .to_string()
    };

    let missing = check();
    fs::write(&path, "nothing").unwrap();
    let empty = check();

    assert!(
        missing.contains("cannot be used: No such file"),
        "{missing}"
    );
    assert!(empty.contains("it holds no certificate"), "{empty}");
    assert!(Trust::new(None).check().is_ok(), "the system has CAs");
}
