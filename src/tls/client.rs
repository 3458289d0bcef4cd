//! One connection: set up from files, shaken hands on, explained when it fails.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, Error as RustlsError, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::files::{self, BadFile};
use super::verify::{AnyName, Careful};
use super::words::{describe, is_about_certificates, rustls_error};

/// What a connection is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The CAs a server is known by.
    pub ca: PathBuf,
    /// What we show of ourselves.
    pub identity: Option<Identity>,
    /// Whether the server's name has to stand in its certificate.
    pub check_name: bool,
}

/// The files of our own certificate.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why there is no TLS. Each follows the name of the server.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// This side's files.
    #[error("our own file {0}")]
    File(#[from] BadFile),
    /// This side's certificate and key cannot be used.
    #[error("our own certificate {} cannot be used: {why}", path.display())]
    Own {
        /// The certificate.
        path: PathBuf,
        /// Why.
        why: RustlsError,
    },
    /// The server has not proved who it is.
    #[error("its certificate {words}")]
    Server {
        /// What is wrong with it, for the log.
        words: String,
        /// The same as a value.
        fault: rustls::CertificateError,
    },
    /// The server wants a certificate, and there is none.
    #[error("it wants a client certificate, and neither `cert_file` nor `key_file` is set")]
    CertificateWanted,
    /// The server does not accept ours.
    #[error("it does not accept our client certificate {}{hint}", path.display())]
    CertificateRefused {
        /// The certificate.
        path: PathBuf,
        /// What is wrong with it, if that can be seen from here.
        hint: String,
    },
    /// Anything else.
    #[error("{0}")]
    Handshake(#[source] io::Error),
}

/// Makes one connection, and knows what to say when it fails, then or right after.
#[derive(Debug)]
pub struct Connector {
    config: Arc<ClientConfig>,
    ca: PathBuf,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    shown: Arc<Shown>,
    certificate: Option<PathBuf>,
}

/// What we show when asked, and whether we were.
#[derive(Debug)]
struct Shown {
    key: Option<Arc<CertifiedKey>>,
    asked: AtomicBool,
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Connector {
    /// Reads the files, on a blocking thread: they may lie on a mount that hangs.
    pub async fn prepare(settings: Settings) -> Result<Self, TlsError> {
        let read = tokio::task::spawn_blocking(move || Self::read(&settings));
        read.await
            .map_err(|panic| TlsError::Handshake(io::Error::other(panic)))?
    }

    /// The same at once. Blocks.
    pub fn read(settings: &Settings) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(files::roots(&settings.ca)?);
        let key = settings.identity.as_ref().map(|own| own.read(&provider));
        let shown = Arc::new(Shown {
            key: key.transpose()?.map(Arc::new),
            asked: AtomicBool::new(false),
        });
        let verifier = verifier(Arc::clone(&roots), &provider, settings)?;
        let resolver: Arc<dyn ResolvesClientCert> = Arc::<Shown>::clone(&shown);
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|why| TlsError::Handshake(io::Error::other(why)))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(resolver);
        Ok(Self {
            config: Arc::new(config),
            ca: settings.ca.clone(),
            roots,
            provider,
            shown,
            certificate: settings
                .identity
                .as_ref()
                .map(|own| own.certificate.clone()),
        })
    }

    /// Shakes hands with the server of this name. Cancel-safe: the stream is closed.
    pub async fn connect<S>(
        &self,
        name: ServerName<'static>,
        stream: S,
    ) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let connected = connector.connect(name, stream).await;
        connected.map_err(|why| self.explain(why))
    }

    /// What it means that the stream fails, or ends, in the handshake or before the server's first
    /// word: with TLS 1.3 that is when a server has looked at our certificate.
    pub fn explain(&self, why: io::Error) -> TlsError {
        let hung_up = matches!(
            why.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
        );
        match rustls_error(&why) {
            Some(RustlsError::InvalidCertificate(fault)) => TlsError::Server {
                words: describe(fault, &self.ca.display()),
                fault: fault.clone(),
            },
            Some(RustlsError::AlertReceived(alert)) if is_about_certificates(*alert) => {
                self.refused()
            }
            _ if hung_up && self.shown.asked.load(Ordering::Relaxed) => self.refused(),
            _ => TlsError::Handshake(why),
        }
    }

    fn refused(&self) -> TlsError {
        match (&self.certificate, &self.shown.key) {
            (Some(path), Some(key)) => TlsError::CertificateRefused {
                path: path.clone(),
                hint: self.hint(&key.cert).unwrap_or_default(),
            },
            _ => TlsError::CertificateWanted,
        }
    }

    /// What a server with the same CA would find wrong with our certificate.
    fn hint(&self, chain: &[CertificateDer<'static>]) -> Option<String> {
        let (end, intermediates) = chain.split_first()?;
        let (roots, provider) = (Arc::clone(&self.roots), Arc::clone(&self.provider));
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
        let verifier = verifier.build().ok()?;
        match verifier.verify_client_cert(end, intermediates, UnixTime::now()) {
            Err(RustlsError::InvalidCertificate(fault)) => {
                let words = describe(&fault, &self.ca.display());
                Some(format!(": it {words}"))
            }
            _ => None,
        }
    }
}

impl Identity {
    pub(super) fn read(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let chain = files::certificates(&self.certificate)?;
        let key = files::key(&self.key)?;
        CertifiedKey::from_der(chain, key, provider).map_err(|why| TlsError::Own {
            path: self.certificate.clone(),
            why,
        })
    }
}

fn verifier(
    roots: Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
    settings: &Settings,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let provider = Arc::clone(provider);
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider);
    let verifier = builder.build();
    let verifier = verifier.map_err(|why| TlsError::Handshake(io::Error::other(why)))?;
    let verifier: Arc<dyn ServerCertVerifier> = if settings.check_name {
        verifier
    } else {
        Arc::new(AnyName(verifier))
    };
    Ok(Arc::new(Careful::new(verifier, roots)))
}
