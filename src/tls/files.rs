//! Certificates and keys in PEM files.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum BadFile {
    /// It cannot be read, or holds nothing of the kind in PEM.
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
}

/// The certificates in a file, at least one. Blocks.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BadFile> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if certificates.is_empty() => Err(bad(path, pem::Error::NoItemsFound)),
        read => read.map_err(|why| bad(path, why)),
    }
}

/// The key in a file. Blocks.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, BadFile> {
    PrivateKeyDer::from_pem_file(path).map_err(|why| bad(path, why))
}

/// The CAs in a file. Blocks.
pub(super) fn roots(path: &Path) -> Result<RootCertStore, BadFile> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|why| BadFile::Ca {
            path: path.to_owned(),
            why,
        })?;
    }
    Ok(roots)
}

fn bad(path: &Path, why: pem::Error) -> BadFile {
    let path = path.to_owned();
    BadFile::File { path, why }
}
