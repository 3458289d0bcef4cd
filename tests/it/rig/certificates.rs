//! X.509 certificates for one test: an authority that nobody else knows, and whom it vouches for.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};

/// An authority, and where its files go.
pub(crate) struct Authority<'a> {
    directory: &'a Path,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl<'a> Authority<'a> {
    /// One with its own certificate in a file of a new directory.
    pub(crate) fn new(directory: &'a Path, file: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::create_dir(directory).unwrap();
        fs::write(directory.join(file), issuer.pem()).unwrap();
        Self { directory, issuer }
    }

    /// Vouches for a name or an address, in a file for the certificate and one for its key.
    pub(crate) fn vouch_for(&self, name: &str, certificate: &str, key: &str) {
        self.vouch(&[name], (2020, 2099), certificate, key);
    }

    /// Vouches for these names from the first day of one year to that of another.
    pub(crate) fn vouch(&self, names: &[&str], years: (i32, i32), certificate: &str, key: &str) {
        let mut params = named(names);
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        self.sign(&params, certificate, key);
    }

    /// Vouches for 127.0.0.1 for so long from now on.
    pub(crate) fn vouch_until(&self, left: Duration, certificate: &str, key: &str) {
        let mut params = named(&["127.0.0.1"]);
        params.not_after = (SystemTime::now() + left).into();
        self.sign(&params, certificate, key);
    }

    fn sign(&self, params: &CertificateParams, certificate: &str, key: &str) {
        let pair = KeyPair::generate().unwrap();
        let signed = params.signed_by(&pair, &self.issuer).unwrap();
        fs::write(self.directory.join(certificate), signed.pem()).unwrap();
        fs::write(self.directory.join(key), pair.serialize_pem()).unwrap();
    }
}

fn named(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    let name = &mut params.distinguished_name;
    name.push(DnType::CommonName, "127.0.0.1");
    params
}
