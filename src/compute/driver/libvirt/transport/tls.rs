//! TLS to a libvirt daemon: its own CAs, names checked, certificates on both sides.
//!
//! No CA of the system is trusted, only libvirt's own. After the handshake the daemon judges our
//! certificate and says so with one byte; a daemon that does not like it just hangs up. Which
//! side's certificate is at fault, and in what, is in the error.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, IpAddr, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, ClientConfig, Error as RustlsError, RootCertStore};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::pki::{BadPki, Files, Pki};
use super::uri::{Places, TlsRoute};
use crate::model::Host;
use crate::tls::{Anybody, Careful, date, describe, is_about_certificates, rustls_error};

/// What a daemon sends once it has accepted the client's certificate.
const ACCEPTED: u8 = 1;

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// This side's files.
    #[error(transparent)]
    Pki(#[from] BadPki),
    /// This side's certificate and key cannot be used.
    #[error("our certificate {} cannot be used: {why}", path.display())]
    Own {
        /// The certificate.
        path: PathBuf,
        /// Why.
        why: RustlsError,
    },
    /// The list of revoked certificates cannot be used.
    #[error("the list of revoked certificates {} cannot be used: {why}", path.display())]
    Revoked {
        /// The list.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The server has not proved who it is.
    #[error("the certificate of {host} {fault}")]
    Server {
        /// The server.
        host: Host,
        /// What is wrong with its certificate.
        fault: String,
    },
    /// The server wants a certificate, and there is none.
    #[error("{host} wants a client certificate, and there is no {}", path.display())]
    CertificateWanted {
        /// The server.
        host: Host,
        /// Where it would have to be.
        path: PathBuf,
    },
    /// The server does not accept ours.
    #[error("{host} does not accept our certificate {}{hint}", path.display())]
    CertificateRefused {
        /// The server.
        host: Host,
        /// The certificate.
        path: PathBuf,
        /// What is wrong with it, if that can be seen from here.
        hint: String,
    },
    /// Anything else.
    #[error("no TLS connection with {host}: {why}")]
    Handshake {
        /// The server.
        host: Host,
        /// What went wrong.
        why: io::Error,
    },
}

/// Shakes hands over `stream` and waits for the daemon's word on our certificate. Cancel-safe:
/// the connection is closed.
pub(super) async fn connect(
    route: &TlsRoute,
    places: &Places,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Box<TlsError>> {
    let attempt = Attempt::prepare(route, places).await?;
    let connector = TlsConnector::from(Arc::new(attempt.config));
    let connected = connector.connect(server_name(&route.host)?, stream).await;
    let mut stream = connected.map_err(|why| attempt.judge.handshake(why))?;
    match stream.read_u8().await {
        Ok(ACCEPTED) => Ok(stream),
        Ok(other) => {
            let why = format!("it began with {other} where a libvirt daemon sends 1");
            Err(attempt.judge.other(io::Error::other(why)).into())
        }
        Err(why) => Err(attempt.judge.silence(why).into()),
    }
}

fn server_name(host: &Host) -> Result<ServerName<'static>, Box<TlsError>> {
    match host {
        Host::Ip(ip) => Ok(ServerName::IpAddress(IpAddr::from(*ip))),
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(|why| {
            let (host, why) = (host.clone(), io::Error::other(why));
            Box::new(TlsError::Handshake { host, why })
        }),
    }
}

struct Attempt {
    config: ClientConfig,
    judge: Judge,
}

impl Attempt {
    /// The files are read on a blocking thread: they may lie on a mount that hangs.
    async fn prepare(route: &TlsRoute, places: &Places) -> Result<Self, Box<TlsError>> {
        let (route, places) = (route.clone(), places.clone());
        let host = route.host.clone();
        let read = tokio::task::spawn_blocking(move || Self::read(&route, &places));
        let panicked = |why| {
            let why = io::Error::other(why);
            Box::new(TlsError::Handshake { host, why })
        };
        Ok(read.await.map_err(panicked)??)
    }

    fn read(route: &TlsRoute, places: &Places) -> Result<Self, TlsError> {
        let files = Files::locate(route.pki.as_deref(), places);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        if !route.verify {
            tracing::warn!(host = %route.host, "no_verify=1: anybody can pose as this server");
        }
        let pki = files.read(route.verify)?;
        let verifier = verifier(route.verify, &files, &pki, &provider)?;
        let judge = Judge {
            host: route.host.clone(),
            roots: Arc::clone(&pki.roots),
            chain: pki.client.as_ref().map(|client| client.chain.clone()),
            provider: Arc::clone(&provider),
            files,
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]);
        let config = config.map_err(|why| judge.own(why))?;
        let config = config
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match pki.client {
            None => config.with_no_client_auth(),
            Some(client) => config
                .with_client_auth_cert(client.chain, client.key)
                .map_err(|why| judge.own(why))?,
        };
        Ok(Self { config, judge })
    }
}

fn verifier(
    verify: bool,
    files: &Files,
    pki: &Pki,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    if !verify {
        return Ok(Arc::new(Anybody(Arc::clone(provider))));
    }
    let (roots, provider) = (Arc::clone(&pki.roots), Arc::clone(provider));
    let builder = WebPkiServerVerifier::builder_with_provider(roots, provider)
        .with_crls(pki.revoked.iter().cloned())
        .allow_unknown_revocation_status()
        .enforce_revocation_expiration();
    let unusable = |why: rustls::client::VerifierBuilderError| TlsError::Revoked {
        path: files.revoked.clone(),
        why: why.to_string(),
    };
    let verifier = builder.build().map_err(unusable)?;
    Ok(Arc::new(Careful::new(verifier, Arc::clone(&pki.roots))))
}

/// Finds the words for what went wrong.
struct Judge {
    host: Host,
    files: Files,
    roots: Arc<RootCertStore>,
    /// What we showed of ourselves.
    chain: Option<Vec<CertificateDer<'static>>>,
    provider: Arc<CryptoProvider>,
}

impl Judge {
    fn own(&self, why: RustlsError) -> TlsError {
        let path = self.files.certificate.clone();
        TlsError::Own { path, why }
    }

    fn other(&self, why: io::Error) -> TlsError {
        let host = self.host.clone();
        TlsError::Handshake { host, why }
    }

    /// An error before the handshake's end. An alert is the server's word on our certificate.
    fn handshake(&self, why: io::Error) -> TlsError {
        match rustls_error(&why) {
            Some(RustlsError::InvalidCertificate(fault)) => {
                let fault = self.describe(fault);
                let host = self.host.clone();
                TlsError::Server { host, fault }
            }
            Some(RustlsError::AlertReceived(alert)) if is_about_certificates(*alert) => {
                self.refused()
            }
            _ => self.other(why),
        }
    }

    /// An error in place of the byte that says yes.
    fn silence(&self, why: io::Error) -> TlsError {
        let hung_up = matches!(
            why.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
        );
        if hung_up {
            return self.refused();
        }
        self.handshake(why)
    }

    fn refused(&self) -> TlsError {
        let (host, path) = (self.host.clone(), self.files.certificate.clone());
        match &self.chain {
            None => TlsError::CertificateWanted { host, path },
            Some(chain) => {
                let hint = self.hint(chain).unwrap_or_default();
                TlsError::CertificateRefused { host, path, hint }
            }
        }
    }

    /// What a server with the same CA would find wrong with our certificate.
    fn hint(&self, chain: &[CertificateDer<'static>]) -> Option<String> {
        let (end, intermediates) = chain.split_first()?;
        let (roots, provider) = (Arc::clone(&self.roots), Arc::clone(&self.provider));
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
        let verifier = verifier.build().ok()?;
        let judged = verifier.verify_client_cert(end, intermediates, UnixTime::now());
        match judged {
            Err(RustlsError::InvalidCertificate(fault)) => {
                Some(format!(": it {}", self.describe(&fault)))
            }
            _ => None,
        }
    }

    /// Continues a sentence about a certificate.
    fn describe(&self, fault: &CertificateError) -> String {
        match fault {
            CertificateError::Revoked => {
                format!("is revoked by {}", self.files.revoked.display())
            }
            CertificateError::ExpiredRevocationListContext { next_update, .. } => {
                let list = self.files.revoked.display();
                let since = date(*next_update);
                format!("cannot be judged: the list {list} is out of date since {since}")
            }
            other => describe(other, &self.files.ca.display()),
        }
    }
}
