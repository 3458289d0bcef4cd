use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, IpAddr, ServerName};
use rustls::{CertificateError, ClientConfig, Error as RustlsError, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::model::Host;

/// Where systems keep the CAs that they trust: Debian, Alpine and Arch; Fedora; SUSE; others.
const SYSTEM: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whom to believe: the CAs of a file, read anew for every connection, so that a renewed CA counts
/// at the next one.
#[derive(Debug)]
pub struct Trust {
    ca_file: Option<PathBuf>,
}

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub enum BadTrust {
    /// The system has no list of CAs.
    #[error(
        "there is no CA to know the server by: none of {} exists; install the package \
         ca-certificates, or set ca_file",
        SYSTEM.join(", ")
    )]
    NoCas,
    /// The list of CAs cannot be used.
    #[error("the CA file {} cannot be used: {why}", path.display())]
    CaFile {
        /// The file.
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
    /// Anything else.
    #[error("no TLS connection with {host}: {why}")]
    Handshake {
        /// The server.
        host: Host,
        /// What went wrong.
        why: String,
    },
}

impl Trust {
    /// The CAs of `ca_file`, or the system's.
    pub fn new(ca_file: Option<PathBuf>) -> Self {
        Self { ca_file }
    }

    /// Whether the CAs can be read now. Blocks.
    pub fn check(&self) -> Result<(), BadTrust> {
        roots(&self.path()?, self.ca_file.is_some()).map(drop)
    }

    fn path(&self) -> Result<PathBuf, BadTrust> {
        let system = || SYSTEM.iter().map(PathBuf::from).find(|path| path.exists());
        self.ca_file.clone().or_else(system).ok_or(BadTrust::NoCas)
    }

    /// Makes `stream` a TLS stream whose other end is `host`. Cancel-safe: it is closed.
    pub async fn shake_hands(
        &self,
        host: &Host,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, BadTrust> {
        let (path, own) = (self.path()?, self.ca_file.is_some());
        let handshake = |why: String| {
            let host = host.clone();
            BadTrust::Handshake { host, why }
        };
        let name = server_name(host).map_err(handshake)?;
        let read = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || config(&path, own))
        };
        let config = read.await.map_err(|why| handshake(why.to_string()))??;
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream);
        connected.await.map_err(|why| match fault(&why, &path) {
            Some(fault) => BadTrust::Server {
                host: host.clone(),
                fault,
            },
            None => handshake(in_words(&why)),
        })
    }
}

fn config(path: &Path, own: bool) -> Result<ClientConfig, BadTrust> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]);
    let builder = builder.map_err(|why| unusable(path, &why))?;
    let mut config = builder
        .with_root_certificates(roots(path, own)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Every certificate of a file of one's own must be a CA's; a system's list may hold odd ones.
fn roots(path: &Path, own: bool) -> Result<RootCertStore, BadTrust> {
    let certificates =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.map_err(|why| match why {
        pem::Error::Io(why) => unusable(path, &why),
        why => unusable(path, &why),
    })?;
    let mut roots = RootCertStore::empty();
    if own {
        for certificate in certificates {
            roots.add(certificate).map_err(|why| unusable(path, &why))?;
        }
    } else {
        let _counts = roots.add_parsable_certificates(certificates);
    }
    if roots.is_empty() {
        return Err(unusable(path, &"it holds no certificate"));
    }
    Ok(roots)
}

fn unusable(path: &Path, why: &impl ToString) -> BadTrust {
    BadTrust::CaFile {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

fn server_name(host: &Host) -> Result<ServerName<'static>, String> {
    match host {
        Host::Ip(ip) => Ok(ServerName::IpAddress(IpAddr::from(*ip))),
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(|why| why.to_string()),
    }
}

/// Continues a sentence about the server's certificate, if that is what is wrong.
fn fault(error: &io::Error, ca_file: &Path) -> Option<String> {
    let Some(RustlsError::InvalidCertificate(fault)) = rustls_error(error) else {
        return None;
    };
    Some(match fault {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            format!("is signed by no CA in {}; set ca_file", ca_file.display())
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "has expired".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is not for this name".to_owned()
        }
        other => format!("is not valid: {other}"),
    })
}

/// A server that speaks no TLS answers with bytes that are no record.
fn in_words(error: &io::Error) -> String {
    match rustls_error(error) {
        Some(RustlsError::InvalidMessage(_)) => {
            "what answers there speaks no TLS; is it http:// after all?".to_owned()
        }
        _ => error.to_string(),
    }
}

fn rustls_error(error: &io::Error) -> Option<&RustlsError> {
    error.get_ref()?.downcast_ref()
}
