use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::app::RoleName;
use crate::model::Host;
use crate::tls::role_name;

const DAY: Duration = Duration::from_hours(24);

/// How long the CA is valid: to change it, every machine has to be visited.
const CA_DAYS: u32 = 3650;

/// A host, and which roles its certificate is for; none named are all.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Holder {
    host: Host,
    roles: Vec<RoleName>,
}

/// Why a text is no holder.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum BadHolder {
    #[error("{0}; write NAME or NAME=ROLES, such as edge-1=proxy")]
    Host(#[from] crate::model::BadAddress),
    #[error("`{0}`: {1}")]
    Role(String, crate::app::NoSuchRole),
}

impl FromStr for Holder {
    type Err = BadHolder;

    fn from_str(text: &str) -> Result<Self, BadHolder> {
        let (host, roles) = text.split_once('=').unwrap_or((text, ""));
        let roles = roles.split(',').filter(|role| !role.is_empty());
        let role = |role: &str| {
            let parsed: Result<RoleName, _> = role.parse();
            parsed.map_err(|bad| BadHolder::Role(role.to_owned(), bad))
        };
        let mut roles = roles.map(role).collect::<Result<Vec<_>, _>>()?;
        roles.sort_unstable();
        roles.dedup();
        let host = host.parse()?;
        Ok(Self { host, roles })
    }
}

impl TryFrom<String> for Holder {
    type Error = BadHolder;

    fn try_from(text: String) -> Result<Self, BadHolder> {
        text.parse()
    }
}

impl From<Holder> for String {
    fn from(holder: Holder) -> Self {
        holder.to_string()
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host_text();
        match &*self.roles {
            [] => f.write_str(&host),
            _ => write!(f, "{host}={}", self.roles_with(",")),
        }
    }
}

impl Holder {
    /// What its files are called, up to the dot.
    pub(super) fn stem(&self) -> String {
        let host = self.host_text().replace(':', "_");
        match &*self.roles {
            [] => host,
            _ => format!("{host}-{}", self.roles_with("-")),
        }
    }

    fn host_text(&self) -> String {
        match &self.host {
            Host::Ip(ip) => ip.to_string(),
            Host::Name(name) => name.clone(),
        }
    }

    fn roles_with(&self, between: &str) -> String {
        let roles: Vec<_> = self.roles.iter().map(|role| role.as_str()).collect();
        roles.join(between)
    }
}

/// A CA that can vouch.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A new one, with its name and its key.
    pub(super) fn new() -> Result<(Self, String, String), rcgen::Error> {
        let key = KeyPair::generate()?.serialize_pem();
        let id = Uuid::new_v4().simple().to_string();
        let name = format!("vncgate CA {}", id.get(..8).unwrap_or_default());
        Ok((Self::of(&name, &key)?, name, key))
    }

    /// The one with this name and this key.
    pub(super) fn of(name: &str, key: &str) -> Result<Self, rcgen::Error> {
        let mut params = params(Vec::new(), name, CA_DAYS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::from_pem(key)?;
        CertifiedIssuer::self_signed(params, key).map(Self)
    }

    /// Its own certificate.
    pub(super) fn certificate(&self) -> String {
        self.0.pem()
    }

    /// A certificate and its key, both PEM.
    pub(super) fn vouch_for(
        &self,
        holder: &Holder,
        days: u32,
    ) -> Result<(String, String), rcgen::Error> {
        let host = holder.host_text();
        let roles = holder.roles.iter().map(|role| role_name(role.as_str()));
        let names = std::iter::once(host.clone()).chain(roles).collect();
        let mut params = params(names, &host, days)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

fn params(names: Vec<String>, common: &str, days: u32) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    params.distinguished_name = name;
    let now = SystemTime::now();
    // The clocks of machines differ a little.
    params.not_before = now.checked_sub(DAY).unwrap_or(now).into();
    params.not_after = now.checked_add(DAY * days).unwrap_or(now).into();
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_read_as_it_is_written() {
        for text in ["edge-1=proxy", "ctl-1=api,auth", "10.0.0.7", "::1=compute"] {
            let holder: Holder = text.parse().unwrap();
            assert_eq!(holder.to_string(), text);
        }
        let stem = |text: &str| text.parse::<Holder>().unwrap().stem();
        assert_eq!(stem("ctl-1=auth,api"), "ctl-1-api-auth");
        assert_eq!(stem("::1"), "__1");
        let bad = |text: &str| text.parse::<Holder>().unwrap_err().to_string();
        assert!(bad("a=viewer").contains("the roles are api"));
        assert!(bad("../a").contains("no host name"));
    }
}
