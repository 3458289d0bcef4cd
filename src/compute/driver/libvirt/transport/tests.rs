use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

use super::authority::{Authority, Identity, Years, write_pki};
use super::*;

async fn dial(uri: &str) -> Result<Transport, String> {
    let options = Options {
        rights: Rights::ReadWrite,
        places: Places::default(),
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    let connected = connect(&uri.parse().unwrap(), &options, deadline).await;
    connected.map_err(|error| error.to_string())
}

async fn read(transport: &mut Transport) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let from: &mut (dyn AsyncRead + Send + Unpin) = match &mut transport.io {
        Io::Unix(stream) => stream,
        Io::Other(stream) => stream,
    };
    let _length = from.read_to_end(&mut bytes).await?;
    Ok(bytes)
}

// Unix

#[tokio::test]
async fn a_socket_is_dialled_and_counts_as_this_machine() {
    let place = TempDir::new().unwrap();
    let socket = place.path().join("sock");
    let _listener = UnixListener::bind(&socket).unwrap();

    let uri = format!("qemu:///system?socket={}", socket.display());
    let transport = dial(&uri).await.unwrap();

    assert!(matches!(transport.io, Io::Unix(_)));
    assert_eq!(transport.channel, Channel::Local);
}

#[tokio::test]
async fn a_session_without_a_daemon_names_the_sockets_it_would_have() {
    let place = TempDir::new().unwrap();
    let places = Places {
        runtime: Some(place.path().to_owned()),
        home: None,
    };
    let options = Options {
        rights: Rights::ReadWrite,
        places,
    };
    let uri = "qemu:///session".parse().unwrap();

    let error = connect(&uri, &options, Instant::now() + Duration::from_secs(9)).await;

    let shown = error.unwrap_err().to_string();
    let shown = shown.replace(place.path().to_str().unwrap(), "RUN");
    assert_eq!(
        shown,
        "no libvirt daemon listens here: there is no RUN/libvirt/virtqemud-sock \
         and no RUN/libvirt/libvirt-sock"
    );
}

#[tokio::test]
async fn a_socket_nobody_listens_on_says_more_than_one_that_is_missing() {
    let place = TempDir::new().unwrap();
    fs::create_dir(place.path().join("libvirt")).unwrap();
    drop(UnixListener::bind(place.path().join("libvirt/virtqemud-sock")).unwrap());
    let places = Places {
        runtime: Some(place.path().to_owned()),
        home: None,
    };
    let options = Options {
        rights: Rights::ReadWrite,
        places,
    };
    let uri = "qemu:///session".parse().unwrap();

    let error = connect(&uri, &options, Instant::now() + Duration::from_secs(9)).await;

    let error = error.unwrap_err();
    assert!(matches!(error, TransportError::Socket { .. }), "{error}");
}

// TCP

#[tokio::test]
async fn tcp_is_clear_and_a_name_is_resolved() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();

    let transport = dial(&format!("qemu+tcp://localhost:{port}/system")).await;

    assert_eq!(transport.unwrap().channel, Channel::Clear);
}

#[tokio::test]
async fn a_port_nobody_listens_on_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);

    let error = dial(&format!("qemu+tcp://127.0.0.1:{port}/system")).await;

    let begin = format!("cannot connect to 127.0.0.1 port {port}: ");
    assert!(
        error.as_ref().is_err_and(|it| it.starts_with(&begin)),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_given_up_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let place = TempDir::new().unwrap();
    write_pki(place.path(), &Authority::new(), None);

    let pki = place.path().display();
    let error = dial(&format!("qemu+tls://127.0.0.1:{port}/system?pkipath={pki}")).await;

    assert_eq!(error.unwrap_err(), "127.0.0.1 did not answer in time");
}

// TLS

/// Whom a server lets in.
enum Door {
    /// Everybody.
    Open,
    /// The clients of a CA.
    Only(Box<Authority>),
    /// Nobody, as libvirt does it: it looks at the certificate after the handshake and hangs up.
    Shut,
}

/// A server that says what a libvirt daemon says after a handshake, and `hello`.
async fn server(identity: Identity, door: Door) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let shut = matches!(door, Door::Shut);
    let config = match door {
        Door::Open | Door::Shut => config.with_no_client_auth(),
        Door::Only(ca) => {
            let mut roots = rustls::RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap())
                .unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = acceptor.accept(stream).await else {
            return;
        };
        if !shut {
            stream.write_all(b"\x01hello").await.unwrap();
        }
        let _gone = stream.shutdown().await;
        let _gone = stream.read(&mut [0]).await;
    });
    port
}

struct Tls {
    place: TempDir,
    ca: Authority,
}

impl Tls {
    fn new() -> Self {
        let (place, ca) = (TempDir::new().unwrap(), Authority::new());
        write_pki(place.path(), &ca, None);
        Self { place, ca }
    }

    fn with_client(self, client: &Identity) -> Self {
        write_pki(self.place.path(), &self.ca, Some(client));
        self
    }

    async fn dial(&self, host: &str, port: u16) -> Result<Transport, String> {
        self.dial_with(host, port, "").await
    }

    /// Dials, and shows the directory of certificates as `PKI`.
    async fn dial_with(&self, host: &str, port: u16, more: &str) -> Result<Transport, String> {
        let pki = self.place.path().to_str().unwrap();
        let uri = format!("qemu+tls://{host}:{port}/system?pkipath={pki}{more}");
        dial(&uri).await.map_err(|error| error.replace(pki, "PKI"))
    }
}

#[tokio::test]
async fn the_right_server_is_let_in_by_name_and_by_address_and_nothing_it_says_is_lost() {
    for host in ["localhost", "127.0.0.1"] {
        let tls = Tls::new();
        let identity = tls.ca.server(&["localhost", "127.0.0.1"], Years::Now);
        let port = server(identity, Door::Open).await;

        let mut transport = tls.dial(host, port).await.unwrap();

        assert_eq!(transport.channel, Channel::Verified);
        assert_eq!(read(&mut transport).await.unwrap(), b"hello");
    }
}

#[tokio::test]
async fn a_server_with_a_bad_certificate_is_refused_with_what_is_bad() {
    let stranger = Authority::new();
    for (names, years, own, why) in [
        (
            &["kvm-2", "10.1.2.3"][..],
            Years::Now,
            true,
            "is not for the name localhost: its subject alternative names are kvm-2, 10.1.2.3",
        ),
        (
            &[],
            Years::Now,
            true,
            "is not for the name localhost: it has no subject alternative name at all",
        ),
        (
            &["localhost"],
            Years::Past,
            true,
            "expired on 2021-01-02T00:00:00Z",
        ),
        (
            &["localhost"],
            Years::Future,
            true,
            "is not valid before 2098-01-02T00:00:00Z",
        ),
        (
            &["localhost"],
            Years::Now,
            false,
            "is signed by no CA in PKI/cacert.pem",
        ),
    ] {
        let tls = Tls::new();
        let signer = if own { &tls.ca } else { &stranger };
        let port = server(signer.server(names, years), Door::Open).await;

        let error = tls.dial("localhost", port).await.unwrap_err();

        assert_eq!(error, format!("the certificate of localhost {why}"));
    }
}

#[tokio::test]
async fn a_server_that_shows_a_clients_certificate_is_refused() {
    let tls = Tls::new();
    let port = server(tls.ca.client(Years::Now), Door::Open).await;

    let error = tls.dial("127.0.0.1", port).await.unwrap_err();

    let begin = "the certificate of 127.0.0.1 is not ";
    assert!(error.starts_with(begin), "{error}");
}

#[tokio::test]
async fn without_verifying_anybody_may_answer_but_is_not_trusted() {
    let tls = Tls::new();
    let identity = Authority::new().server(&["elsewhere"], Years::Past);
    let port = server(identity, Door::Open).await;

    let transport = tls.dial_with("localhost", port, "&no_verify=1").await;

    let channel = transport.unwrap().channel;
    assert_eq!(channel, Channel::Unverified);
    assert!(!channel.keeps_secrets());
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_it_exists() {
    let tls = Tls::new();
    let client = tls.ca.client(Years::Now);
    let tls = tls.with_client(&client);
    let clients = Authority::new();
    let foreign = clients.client(Years::Now);
    let identity = || tls.ca.server(&["localhost"], Years::Now);

    let port = server(identity(), Door::Only(Box::new(clients))).await;
    let refused = tls.dial("localhost", port).await.unwrap_err();
    write_pki(tls.place.path(), &tls.ca, Some(&foreign));
    let port = server(identity(), Door::Open).await;
    let unasked = tls.dial("localhost", port).await;

    let why = "localhost does not accept our certificate PKI/clientcert.pem";
    assert_eq!(refused, why);
    assert!(unasked.is_ok(), "{unasked:?}");
}

#[tokio::test]
async fn a_client_whose_certificate_the_server_knows_is_let_in() {
    let tls = Tls::new();
    let clients = Authority::new();
    let client = clients.client(Years::Now);
    write_pki(tls.place.path(), &tls.ca, Some(&client));
    let identity = tls.ca.server(&["localhost"], Years::Now);
    let port = server(identity, Door::Only(Box::new(clients))).await;

    let transport = tls.dial("localhost", port).await;

    assert_eq!(transport.unwrap().channel, Channel::Verified);
}

#[tokio::test]
async fn a_client_certificate_that_is_wanted_and_missing_is_asked_for_by_its_path() {
    let why = "localhost wants a client certificate, and there is no PKI/clientcert.pem";
    for door in [Door::Only(Box::new(Authority::new())), Door::Shut] {
        let tls = Tls::new();
        let port = server(tls.ca.server(&["localhost"], Years::Now), door).await;

        assert_eq!(tls.dial("localhost", port).await.unwrap_err(), why);
    }
}

#[tokio::test]
async fn a_client_certificate_that_is_refused_is_looked_at() {
    let tls = Tls::new();
    let client = tls.ca.client(Years::Past);
    let tls = tls.with_client(&client);
    let port = server(tls.ca.server(&["localhost"], Years::Now), Door::Shut).await;

    let error = tls.dial("localhost", port).await.unwrap_err();

    assert_eq!(
        error,
        "localhost does not accept our certificate PKI/clientcert.pem: \
         it expired on 2021-01-02T00:00:00Z"
    );
}

#[tokio::test]
async fn a_revoked_server_is_refused_and_so_is_a_list_out_of_date() {
    for (revoked, years, why) in [
        (true, Years::Now, "is revoked by PKI/cacrl.pem"),
        (
            false,
            Years::Past,
            "cannot be judged: the list PKI/cacrl.pem is out of date since 2021-01-02T00:00:00Z",
        ),
    ] {
        let tls = Tls::new();
        let identity = tls.ca.server(&["localhost"], Years::Now);
        let list = tls.ca.revoke(revoked.then_some(&identity), years);
        fs::write(tls.place.path().join("cacrl.pem"), list).unwrap();
        let port = server(identity, Door::Open).await;

        let error = tls.dial("localhost", port).await.unwrap_err();

        assert_eq!(error, format!("the certificate of localhost {why}"));
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let tls = Tls::new();
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = port.local_addr().unwrap().port();
    let path = |name: &str| tls.place.path().join(name);
    let why = async || tls.dial("127.0.0.1", address).await.unwrap_err();

    fs::write(path("clientcert.pem"), tls.ca.pem()).unwrap();
    assert_eq!(
        why().await,
        "PKI/clientcert.pem is there but PKI/clientkey.pem is missing"
    );
    fs::write(path("cacert.pem"), "no PEM").unwrap();
    assert!(why().await.starts_with("PKI/cacert.pem cannot be read: "));
    fs::remove_file(path("cacert.pem")).unwrap();
    assert_eq!(
        why().await,
        "a CA certificate is needed to know the server by: there is no PKI/cacert.pem"
    );
}

// ssh, played by a script

fn ssh(place: &TempDir, script: &str) -> String {
    let program = place.path().join("ssh");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    format!("qemu+ssh://kvm-1/system?command={}", program.display())
}

#[tokio::test]
async fn bytes_go_through_ssh_both_ways() {
    let place = TempDir::new().unwrap();
    let mut transport = dial(&ssh(&place, "exec cat")).await.unwrap();
    let Io::Other(stream) = &mut transport.io else {
        panic!("a stream")
    };

    stream.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();

    assert_eq!(&heard, b"hello");
    assert_eq!(transport.channel, Channel::Verified);
}

#[tokio::test]
async fn what_ssh_said_last_is_the_error_of_the_stream() {
    let place = TempDir::new().unwrap();
    let script = "echo 'Warning: \x1b[31mbanner' >&2; echo >&2
        echo 'ops@kvm-1: Permission denied (publickey).' >&2; exit 255";
    let mut transport = dial(&ssh(&place, script)).await.unwrap();

    let error = read(&mut transport).await.unwrap_err();

    assert_eq!(
        error.to_string(),
        "ssh ended (it could not connect or lost the connection): \
         Warning: [31mbanner / ops@kvm-1: Permission denied (publickey)."
    );
}

#[tokio::test]
async fn what_came_before_ssh_ended_is_not_lost() {
    let place = TempDir::new().unwrap();
    let transport = dial(&ssh(&place, "printf abc; exit 3")).await.unwrap();
    let Io::Other(mut stream) = transport.io else {
        panic!("a stream")
    };
    let mut bytes = [0; 3];

    stream.read_exact(&mut bytes).await.unwrap();
    let error = stream.read(&mut [0]).await.unwrap_err();

    assert_eq!(&bytes, b"abc");
    assert_eq!(error.to_string(), "ssh ended (exit status: 3)");
}

#[tokio::test]
async fn a_talkative_ssh_neither_blocks_nor_fills_memory() {
    let place = TempDir::new().unwrap();
    let script = "yes 0123456789 | head -c 1000000 >&2; echo the end >&2; exit 1";
    let mut transport = dial(&ssh(&place, script)).await.unwrap();

    let error = read(&mut transport).await.unwrap_err().to_string();

    assert!(error.ends_with("the end"), "{error}");
    assert!(error.len() < 500, "{}", error.len());
}

#[tokio::test]
async fn ssh_is_gone_once_its_stream_is_dropped() {
    let place = TempDir::new().unwrap();
    let mut transport = dial(&ssh(&place, "echo $$; exec cat")).await.unwrap();
    let Io::Other(stream) = &mut transport.io else {
        panic!("a stream")
    };
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.push(stream.read_u8().await.unwrap());
    }
    let pid = String::from_utf8(line).unwrap();
    let process = Path::new("/proc").join(pid.trim());
    assert!(process.exists());

    drop(transport);

    let gone = async {
        while process.exists() {
            tokio::task::yield_now().await;
        }
    };
    let reaped = timeout_at(Instant::now() + Duration::from_secs(9), gone).await;
    assert!(reaped.is_ok(), "{} is still there", process.display());
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let error = dial("qemu+ssh://kvm-1/system?command=/nowhere/ssh").await;
    let begin = "cannot start /nowhere/ssh: ";
    assert!(
        error.as_ref().is_err_and(|it| it.starts_with(begin)),
        "{error:?}"
    );
}
