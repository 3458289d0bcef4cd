//! TLS towards viewers: which certificate is shown to whom, and how it is renewed while we run.
//!
//! Called by the doors. Certificates are chosen by the name a client asks for, by the rules of
//! RFC 6125 as browsers have them; the first one is shown to whoever asks for none of ours. Asks
//! nobody for a certificate. What is open keeps what it was opened with.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::client::{Identity, TlsError};

/// HTTP/2, as ALPN calls it.
const H2: &[u8] = b"h2";

/// One side of TLS that viewers meet.
#[derive(Clone)]
pub struct Server {
    config: Arc<ServerConfig>,
    shelf: Arc<Shelf>,
}

/// The certificates that there are. The first is for everybody else.
struct Shelf {
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    identities: Arc<[Identity]>,
    keys: Vec<Arc<CertifiedKey>>,
    /// What was last found wrong with the files.
    complaint: Option<String>,
}

/// Certificates and keys that were read and are not shown yet.
pub struct Prepared {
    identities: Vec<Identity>,
    keys: Vec<Arc<CertifiedKey>>,
}

/// What a look at the files has brought.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Renewal {
    /// Nothing new.
    Same,
    /// Other certificates, for the next connection.
    Changed,
    /// They are of no use, in words that were not said before; what was good goes on.
    Bad(String),
}

impl Server {
    /// Reads certificates and keys, one pair at least. Blocks. Errors: `File`, `Own`.
    pub fn read(identities: Vec<Identity>) -> Result<Self, TlsError> {
        Self::of(Prepared::read(identities)?, provider())
    }

    /// Shows this certificate to everybody, for as long as the process runs.
    pub fn from_der(
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, TlsError> {
        let provider = provider();
        let unusable = |why| TlsError::Handshake(io::Error::other(why));
        let key = CertifiedKey::from_der(vec![certificate], key, &provider).map_err(unusable)?;
        let prepared = Prepared {
            identities: Vec::new(),
            keys: vec![Arc::new(key)],
        };
        Self::of(prepared, provider)
    }

    fn of(prepared: Prepared, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let unusable = |why| TlsError::Handshake(io::Error::other(why));
        let shelf = Arc::new(Shelf {
            shown: Mutex::new(prepared.into()),
        });
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Shelf>::clone(&shelf);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(unusable)?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
        // Nothing is remembered here of clients that may come back.
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(unusable)?;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Self {
            config: Arc::new(config),
            shelf,
        })
    }

    /// Shakes hands with a viewer. Cancel-safe: the stream is closed. The caller sets a deadline.
    pub async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        TlsAcceptor::from(Arc::clone(&self.config))
            .accept(stream)
            .await
    }

    /// Shows these in place of those before, from the next connection on.
    pub fn show(&self, prepared: Prepared) {
        *self.shelf.shown() = prepared.into();
    }

    /// Reads the files again; the next connection sees what has changed. Blocks.
    pub fn renew(&self) -> Renewal {
        let identities = Arc::clone(&self.shelf.shown().identities);
        if identities.is_empty() {
            return Renewal::Same;
        }
        let read = read_all(&identities, &provider());
        let mut shown = self.shelf.shown();
        if !Arc::ptr_eq(&identities, &shown.identities) {
            // others are shown by now
            return Renewal::Same;
        }
        match read {
            Err(error) => {
                let words = error.to_string();
                let known = shown.complaint.as_ref() == Some(&words);
                shown.complaint = Some(words.clone());
                if known {
                    Renewal::Same
                } else {
                    Renewal::Bad(words)
                }
            }
            Ok(keys) => {
                shown.complaint = None;
                if is_same(&keys, &shown.keys) {
                    return Renewal::Same;
                }
                shown.keys = keys;
                Renewal::Changed
            }
        }
    }
}

impl Prepared {
    /// Reads certificates and keys, one pair at least. Blocks. Errors: `File`, `Own`.
    pub fn read(identities: Vec<Identity>) -> Result<Self, TlsError> {
        let keys = read_all(&identities, &provider())?;
        Ok(Self { identities, keys })
    }
}

impl From<Prepared> for Shown {
    fn from(Prepared { identities, keys }: Prepared) -> Self {
        Self {
            identities: identities.into(),
            keys,
            complaint: None,
        }
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Prepared").field(&self.identities).finish()
    }
}

/// Whether HTTP/2 was agreed on.
pub fn speaks_h2<S>(stream: &TlsStream<S>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(H2)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn read_all(
    identities: &[Identity],
    provider: &CryptoProvider,
) -> Result<Vec<Arc<CertifiedKey>>, TlsError> {
    let read = identities
        .iter()
        .map(|identity| identity.read(provider).map(Arc::new));
    read.collect()
}

/// A key that goes with the same certificate is the same.
fn is_same(one: &[Arc<CertifiedKey>], other: &[Arc<CertifiedKey>]) -> bool {
    let chains = one.iter().zip(other);
    one.len() == other.len() && chains.fold(true, |same, (a, b)| same && a.cert == b.cert)
}

impl Shelf {
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let shown = self.shown();
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let named = name.and_then(|name| {
            let mut fitting = shown.keys.iter().filter(|key| is_for(key, &name));
            fitting.find(usable)
        });
        let all = || {
            shown
                .keys
                .iter()
                .find(usable)
                .or_else(|| shown.keys.first())
        };
        named.or_else(all).cloned()
    }
}

impl ResolvesServerCert for Shelf {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}

fn is_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = key.cert.first().map(ParsedCertificate::try_from);
    parsed.is_some_and(|parsed| parsed.is_ok_and(|it| verify_server_name(&it, name).is_ok()))
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.shelf).finish()
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shelf")
            .field(&self.shown().identities)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn write(directory: &Path, file: &str, names: &[&str]) -> Identity {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let identity = Identity {
            certificate: directory.join(format!("{file}.pem")),
            key: directory.join(format!("{file}.key")),
        };
        fs::write(&identity.certificate, made.cert.pem()).unwrap();
        fs::write(&identity.key, made.signing_key.serialize_pem()).unwrap();
        identity
    }

    fn chosen(server: &Server, name: Option<&str>) -> usize {
        let key = server
            .shelf
            .choose(name, &[SignatureScheme::ECDSA_NISTP256_SHA256])
            .unwrap();
        let shown = server.shelf.shown();
        let mut keys = shown.keys.iter();
        keys.position(|it| Arc::ptr_eq(it, &key)).unwrap()
    }

    #[test]
    fn the_name_that_is_asked_for_chooses_and_the_first_is_for_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let server = Server::read(vec![
            write(at, "a", &["a.example"]),
            write(at, "b", &["b.example", "*.b.example"]),
        ]);
        let server = server.unwrap();
        let of = |name| chosen(&server, name);

        assert_eq!([of(Some("a.example")), of(Some("b.example"))], [0, 1]);
        assert_eq!([of(Some("c.B.example")), of(Some("d.c.b.example"))], [1, 0]);
        assert_eq!([of(Some("other")), of(Some("127.0.0.1")), of(None)], [0; 3]);
    }

    #[test]
    fn a_new_pair_counts_and_a_bad_one_is_said_once() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let identity = write(at, "a", &["a.example"]);
        let server = Server::read(vec![identity.clone()]).unwrap();
        assert_eq!(server.renew(), Renewal::Same);

        let key = fs::read(&identity.key).unwrap();
        write(at, "a", &["a.example"]);
        fs::write(&identity.key, key).unwrap();
        let unpaired = server.renew();
        let again = server.renew();
        write(at, "a", &["b.example"]);

        assert!(matches!(unpaired, Renewal::Bad(words) if words.contains("a.pem")));
        assert_eq!(again, Renewal::Same);
        assert_eq!(server.renew(), Renewal::Changed);
        assert_eq!(server.renew(), Renewal::Same);
    }
}
