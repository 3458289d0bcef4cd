//! TLS between our own roles: both ends show a certificate of the same CA.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::files::{self, BadFile};
use super::fresh::Fresh;
use super::words::{describe, is_about_certificates, rustls_error};

/// What calls are spoken in: HTTP/2.
const CALLS: &[u8] = b"h2";

/// What a connection begins with that becomes a stream: HTTP/1.1.
const STREAMS: &[u8] = b"http/1.1";

/// What follows a role's name in a certificate that is that role's: `proxy.vncgate`.
const SUFFIX: &str = "vncgate";

/// The files that say who we are and whom we believe.
#[derive(Clone, Debug)]
pub struct MutualFiles {
    /// Who vouches for the others.
    pub ca: PathBuf,
    /// Our own certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Both ends of TLS between roles. Files that change count for the next connection.
pub struct Mutual {
    files: MutualFiles,
    both: Fresh<Both>,
}

#[derive(Clone)]
struct Both {
    calls: Arc<ClientConfig>,
    streams: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// What is spoken inside TLS between roles.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Speech {
    /// Calls, over HTTP/2.
    Calls,
    /// A request over HTTP/1.1, and then a stream of bytes.
    Stream,
}

/// Why there is no mutual TLS at all.
#[derive(Debug, thiserror::Error)]
pub enum BadMutual {
    /// A file is of no use.
    #[error(transparent)]
    File(#[from] BadFile),
    /// The certificate and its key do not go together.
    #[error("the certificate {} cannot be used: {why}", path.display())]
    Own {
        /// The certificate.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl fmt::Debug for Mutual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mutual").field(&self.files).finish()
    }
}

impl Mutual {
    /// Reads the files. Blocks.
    pub fn new(files: MutualFiles) -> Result<Self, BadMutual> {
        let paths = vec![
            files.ca.clone(),
            files.certificate.clone(),
            files.key.clone(),
        ];
        let both = Fresh::new(paths, || Both::read(&files))?;
        Ok(Self { files, both })
    }

    /// Shakes hands with the server of this name, to speak so inside. Errors: in words.
    /// Cancel-safe: the stream is closed.
    pub async fn connect<S>(
        &self,
        name: ServerName<'static>,
        stream: S,
        speech: Speech,
    ) -> Result<client::TlsStream<S>, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let both = self.both();
        let connector = TlsConnector::from(match speech {
            Speech::Calls => both.calls,
            Speech::Stream => both.streams,
        });
        let connected = connector.connect(name, stream).await;
        connected.map_err(|why| self.explain(&why))
    }

    /// Shakes hands with a client. Errors: in words. Cancel-safe: the stream is closed.
    pub async fn accept<S>(&self, stream: S) -> Result<server::TlsStream<S>, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.both().server);
        let accepted = acceptor.accept(stream).await;
        accepted.map_err(|why| self.explain(&why))
    }

    fn both(&self) -> Both {
        self.both.get(|| Both::read(&self.files))
    }

    fn explain(&self, why: &io::Error) -> String {
        use rustls::Error as Tls;
        match rustls_error(why) {
            Some(Tls::InvalidCertificate(fault)) => {
                format!(
                    "its certificate {}",
                    describe(fault, &self.files.ca.display())
                )
            }
            Some(Tls::AlertReceived(alert)) if is_about_certificates(*alert) => {
                let ours = self.files.certificate.display();
                format!("it does not accept our certificate {ours}")
            }
            _ => why.to_string(),
        }
    }
}

impl Both {
    fn read(files: &MutualFiles) -> Result<Self, BadMutual> {
        let own = |why: &dyn fmt::Display| BadMutual::Own {
            path: files.certificate.clone(),
            why: why.to_string(),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(files::roots(&files.ca)?);
        let chain = files::certificates(&files.certificate)?;
        let key = files::key(&files.key)?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let verifier = verifier.build().map_err(|why| own(&why))?;
        let mut calls = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|why| own(&why))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(|why| own(&why))?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|why| own(&why))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|why| own(&why))?;
        let mut streams = calls.clone();
        calls.alpn_protocols = vec![CALLS.to_vec()];
        streams.alpn_protocols = vec![STREAMS.to_vec()];
        server.alpn_protocols = vec![CALLS.to_vec(), STREAMS.to_vec()];
        Ok(Self {
            calls: Arc::new(calls),
            streams: Arc::new(streams),
            server: Arc::new(server),
        })
    }
}

/// Which of `roles` a peer's certificate is for: those whose name it holds, as `proxy.vncgate`.
/// One that names none is for all.
pub fn roles_of(chain: Option<&[CertificateDer<'_>]>, roles: &[&'static str]) -> Vec<&'static str> {
    let certificate = chain.and_then(<[_]>::first);
    let Some(Ok(certificate)) = certificate.map(ParsedCertificate::try_from) else {
        return Vec::new();
    };
    let named = |role: &&str| {
        let name = ServerName::try_from(role_name(role));
        name.is_ok_and(|name| verify_server_name(&certificate, &name).is_ok())
    };
    let named: Vec<_> = roles.iter().copied().filter(named).collect();
    if named.is_empty() {
        return roles.to_vec();
    }
    named
}

/// The name that a certificate of this role holds beside its host's.
pub fn role_name(role: &str) -> String {
    format!("{role}.{SUFFIX}")
}
