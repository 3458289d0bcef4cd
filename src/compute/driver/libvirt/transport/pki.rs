//! The certificates a TLS connection needs, where libvirt's own tools look for them.
//!
//! Read anew for every connection, so that a renewed certificate counts at the next one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::uri::Places;

/// The system's certificates, and those of a user below the home directory.
const SYSTEM: &str = "/etc/pki";
const USER: &str = ".pki/libvirt";

/// Why the certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadPki {
    /// No CA at all.
    #[error("a CA certificate is needed to know the server by: there is no {}", .0.display())]
    NoCa(PathBuf),
    /// A file without a certificate, a key or a list of revoked certificates in PEM.
    #[error("{} cannot be read: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: pem::Error,
    },
    /// A certificate that cannot be a CA's.
    #[error("{} holds no usable CA certificate: {why}", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: rustls::Error,
    },
    /// Only one of the two.
    #[error("{} is there but {} is missing", there.display(), missing.display())]
    Half {
        /// The file that is there.
        there: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
}

/// Where the files are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Files {
    pub(super) ca: PathBuf,
    pub(super) revoked: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// What is in them.
pub(super) struct Pki {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) revoked: Vec<CertificateRevocationListDer<'static>>,
    pub(super) client: Option<Client>,
}

/// What this side can show of itself.
pub(super) struct Client {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Files {
    /// Those of `pki` alone, if it is given; else a user's own CA and a user's own certificate,
    /// each in place of the system's where it exists.
    pub(super) fn locate(pki: Option<&Path>, places: &Places) -> Self {
        if let Some(directory) = pki {
            return Self::all_in(directory);
        }
        let mut files = Self::of_the_system();
        let Some(home) = &places.home else {
            return files;
        };
        let own = Self::all_in(&home.join(USER));
        if own.ca.exists() {
            (files.ca, files.revoked) = (own.ca, own.revoked);
        }
        if own.certificate.exists() || own.key.exists() {
            (files.certificate, files.key) = (own.certificate, own.key);
        }
        files
    }

    fn all_in(directory: &Path) -> Self {
        Self {
            ca: directory.join("cacert.pem"),
            revoked: directory.join("cacrl.pem"),
            certificate: directory.join("clientcert.pem"),
            key: directory.join("clientkey.pem"),
        }
    }

    fn of_the_system() -> Self {
        let system = Path::new(SYSTEM);
        Self {
            ca: system.join("CA/cacert.pem"),
            revoked: system.join("CA/cacrl.pem"),
            certificate: system.join("libvirt/clientcert.pem"),
            key: system.join("libvirt/private/clientkey.pem"),
        }
    }

    /// Those that are there and hold certificates.
    pub(super) fn certificates(self) -> Vec<PathBuf> {
        let both = [self.ca, self.certificate];
        both.into_iter().filter(|path| path.exists()).collect()
    }

    /// Reads them; the CA may be missing where nothing is verified. Blocks.
    pub(super) fn read(&self, verify: bool) -> Result<Pki, BadPki> {
        let roots = match self.roots() {
            Err(BadPki::NoCa(_)) if !verify => RootCertStore::empty(),
            roots => roots?,
        };
        Ok(Pki {
            roots: Arc::new(roots),
            revoked: all(&self.revoked)?.unwrap_or_default(),
            client: self.client()?,
        })
    }

    fn roots(&self) -> Result<RootCertStore, BadPki> {
        let unusable = |why| BadPki::Ca {
            path: self.ca.clone(),
            why,
        };
        let certificates = all::<CertificateDer<'_>>(&self.ca)?;
        let certificates = certificates.ok_or_else(|| BadPki::NoCa(self.ca.clone()))?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate).map_err(unusable)?;
        }
        Ok(roots)
    }

    fn client(&self) -> Result<Option<Client>, BadPki> {
        let half = |there: &Path, missing: &Path| BadPki::Half {
            there: there.to_owned(),
            missing: missing.to_owned(),
        };
        let key = present(&self.key, PrivateKeyDer::from_pem_file(&self.key))?;
        match (all(&self.certificate)?, key) {
            (Some(chain), Some(key)) => Ok(Some(Client { chain, key })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(half(&self.certificate, &self.key)),
            (None, Some(_)) => Err(half(&self.key, &self.certificate)),
        }
    }
}

/// All of one kind in a file, at least one; nothing if there is no file.
fn all<T: PemObject>(path: &Path) -> Result<Option<Vec<T>>, BadPki> {
    let items = T::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<T>, _>>);
    let items = present(path, items)?;
    if items.as_ref().is_some_and(Vec::is_empty) {
        return Err(file(path, pem::Error::NoItemsFound));
    }
    Ok(items)
}

fn present<T>(path: &Path, read: Result<T, pem::Error>) -> Result<Option<T>, BadPki> {
    match read {
        Ok(item) => Ok(Some(item)),
        Err(pem::Error::Io(why)) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(file(path, why)),
    }
}

fn file(path: &Path, why: pem::Error) -> BadPki {
    let path = path.to_owned();
    BadPki::File { path, why }
}
