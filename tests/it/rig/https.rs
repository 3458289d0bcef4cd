//! A client that speaks TLS: what the other side shows, what comes back, and WebSockets inside.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::http::connect;

/// A stream inside TLS.
pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Whom to believe and what to offer.
#[derive(Clone)]
pub(crate) struct TlsClient {
    config: ClientConfig,
}

impl TlsClient {
    /// One that believes the CA in a file.
    pub(crate) fn new(ca: &Path) -> Self {
        Self::with_versions(ca, rustls::ALL_VERSIONS)
    }

    /// The same with these versions of TLS alone.
    pub(crate) fn with_versions(ca: &Path, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(ca).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { config }
    }

    /// The same, offering these protocols.
    pub(crate) fn offering(mut self, protocols: &[&str]) -> Self {
        let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
        self.config.alpn_protocols = protocols.collect();
        self
    }

    /// Shakes hands under this name.
    pub(crate) fn connect(&self, address: SocketAddr, name: &str) -> io::Result<TlsStream> {
        self.over(connect(address), name)
    }

    /// The same on a connection of the test's own.
    pub(crate) fn over(&self, mut stream: TcpStream, name: &str) -> io::Result<TlsStream> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let config = Arc::new(self.config.clone());
        let mut connection = ClientConnection::new(config, name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(connection, stream))
    }
}

/// The certificate that the other side showed.
pub(crate) fn shown(stream: &TlsStream) -> Vec<u8> {
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

/// Sends a GET of HTTP/1.1 and returns all that comes back.
pub(crate) fn get(stream: &mut (impl Read + Write), host: &str, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _abrupt = stream.read_to_end(&mut answer).is_err();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A listener in clear text whose connections go on inside TLS, so that every client of the rig's
/// can speak it. Ends when dropped.
#[derive(Debug)]
pub(crate) struct TlsPipe {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl TlsPipe {
    /// One to `target`, which has to show a certificate for `name`.
    pub(crate) fn to(target: SocketAddr, client: &TlsClient, name: &str) -> Self {
        Self::from("127.0.0.1", target, client, name)
    }

    /// The same, going on from this address.
    pub(crate) fn from(own: &str, target: SocketAddr, client: &TlsClient, name: &str) -> Self {
        let own = SocketAddr::new(own.parse().unwrap(), 0);
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let connector = TlsConnector::from(Arc::new(client.config.clone()));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        runtime.spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (connector, name) = (connector.clone(), name.clone());
                tokio::spawn(async move {
                    // how a connection ended is for the test to judge, on its own side
                    let far = TcpSocket::new_v4().unwrap();
                    far.bind(own).unwrap();
                    far.set_nodelay(true).unwrap();
                    near.set_nodelay(true).unwrap();
                    if let Ok(far) = far.connect(target).await
                        && let Ok(mut far) = connector.connect(name, far).await
                    {
                        let _ended = copy_bidirectional(&mut near, &mut far).await.is_ok();
                    }
                });
            }
        });
        Self {
            address,
            runtime: Some(runtime),
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for TlsPipe {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}
