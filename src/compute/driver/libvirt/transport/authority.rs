//! Certificates for tests: an authority, and what it signs.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use uuid::Uuid;

/// A CA of its own.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: String,
    serial: SerialNumber,
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
        let name = Uuid::new_v4().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A list of the revoked: `identity`, if given, and its years.
    pub(super) fn revoke(&self, identity: Option<&Identity>, years: Years) -> String {
        let revoked = |identity: &Identity| RevokedCertParams {
            serial_number: identity.serial.clone(),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let (from, until) = years.ends();
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(from, 1, 2),
            next_update: date_time_ymd(until, 1, 2),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: identity.map(revoked).into_iter().collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
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
        let serial = SerialNumber::from(Uuid::new_v4().as_u64_pair().0 >> 1);
        params.serial_number = Some(serial.clone());
        let (from, until) = years.ends();
        params.not_before = date_time_ymd(from, 1, 2);
        params.not_after = date_time_ymd(until, 1, 2);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            serial,
        }
    }
}

impl Years {
    fn ends(self) -> (i32, i32) {
        match self {
            Self::Now => (2020, 2099),
            Self::Past => (2020, 2021),
            Self::Future => (2098, 2099),
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
