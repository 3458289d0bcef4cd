//! Certificates for tests: an authority, and what it signs.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};

/// A CA of its own.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// The years in which a certificate is valid.
#[derive(Clone, Copy)]
pub(super) enum Years {
    Now,
    Past,
    Future,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        // as two CAs are told apart in life: by their names
        let name = uuid::Uuid::new_v4().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(super) fn server(&self, names: &[&str], years: Years) -> Identity {
        self.sign(names, years, ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub(super) fn client(&self, years: Years) -> Identity {
        self.sign(&["vncgate"], years, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, names: &[&str], years: Years, usage: ExtendedKeyUsagePurpose) -> Identity {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let (from, until) = match years {
            Years::Now => (2020, 2099),
            Years::Past => (2020, 2021),
            Years::Future => (2098, 2099),
        };
        params.not_before = date_time_ymd(from, 1, 2);
        params.not_after = date_time_ymd(until, 1, 2);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// A directory such as `pkipath` names.
pub(super) fn write_pki(directory: &Path, ca: &Authority, client: Option<&Identity>) {
    fs::write(directory.join("cacert.pem"), ca.pem()).unwrap();
    if let Some(client) = client {
        fs::write(directory.join("clientcert.pem"), &client.certificate).unwrap();
        fs::write(directory.join("clientkey.pem"), &client.key).unwrap();
    }
}
