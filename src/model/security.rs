use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Host;

/// One way for a VNC server and the gateway to prove to each other who they are.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// VeNCrypt: TLS with a certificate, then a user's name and password.
    X509Plain,
    /// VeNCrypt: TLS with a certificate, then the display's password.
    X509Vnc,
    /// VeNCrypt: TLS with a certificate.
    X509None,
    /// The display's password, on a wire that anybody may read.
    VncAuth,
    /// Nothing at all.
    None,
}

impl Scheme {
    /// Its name in the config and in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X509Plain => "x509plain",
            Self::X509Vnc => "x509vnc",
            Self::X509None => "x509none",
            Self::VncAuth => "vncauth",
            Self::None => "none",
        }
    }

    /// Whether the server shows a certificate.
    pub const fn is_encrypted(self) -> bool {
        match self {
            Self::X509Plain | Self::X509Vnc | Self::X509None => true,
            Self::VncAuth | Self::None => false,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which schemes may be used with a server, the preferred ones first.
///
/// Written as a list of their names, in which `vencrypt` stands for all that are encrypted.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<Scheme>")]
pub struct Schemes(Vec<Scheme>);

/// The list names no scheme, or something else.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadSchemes {
    /// Nothing would ever be opened.
    #[error("at least one scheme is needed")]
    Empty,
    /// No scheme has this name.
    #[error(
        "`{0}` is no security scheme, expected vencrypt (for x509plain, x509vnc and x509none), \
         vncauth or none"
    )]
    Unknown(String),
}

impl Schemes {
    /// What `vencrypt` stands for.
    const VENCRYPT: [Scheme; 3] = [Scheme::X509Plain, Scheme::X509Vnc, Scheme::X509None];

    /// In their order.
    pub fn iter(&self) -> impl Iterator<Item = Scheme> + '_ {
        self.0.iter().copied()
    }

    /// Whether this one is among them.
    pub fn contains(&self, scheme: Scheme) -> bool {
        self.0.contains(&scheme)
    }

    /// Whether nothing is ever said or shown in the clear.
    pub fn are_encrypted(&self) -> bool {
        self.iter().all(Scheme::is_encrypted)
    }
}

impl Default for Schemes {
    /// All: encrypted where the server can, without a password only where it asks for none.
    fn default() -> Self {
        let plain = [Scheme::VncAuth, Scheme::None];
        Self(Self::VENCRYPT.into_iter().chain(plain).collect())
    }
}

impl From<Vec<Scheme>> for Schemes {
    fn from(schemes: Vec<Scheme>) -> Self {
        Self(schemes)
    }
}

impl From<Schemes> for Vec<Scheme> {
    fn from(schemes: Schemes) -> Self {
        schemes.0
    }
}

impl TryFrom<Vec<String>> for Schemes {
    type Error = BadSchemes;

    fn try_from(names: Vec<String>) -> Result<Self, BadSchemes> {
        let mut schemes = Vec::new();
        for name in names {
            match name.as_str() {
                "vencrypt" => schemes.extend(Self::VENCRYPT),
                name => schemes.push(name.parse()?),
            }
        }
        (!schemes.is_empty())
            .then_some(Self(schemes))
            .ok_or(BadSchemes::Empty)
    }
}

impl FromStr for Scheme {
    type Err = BadSchemes;

    fn from_str(name: &str) -> Result<Self, BadSchemes> {
        let mut all = Schemes::default().0.into_iter();
        let found = all.find(|scheme| scheme.as_str() == name);
        found.ok_or_else(|| BadSchemes::Unknown(name.to_owned()))
    }
}

/// What of a server's certificate is looked at.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// That our CA signed it, and that it is for this server.
    #[default]
    Name,
    /// That our CA signed it, for whomever: as Nova does.
    Ca,
}

/// How VNC servers are met: what is asked of them, and what is proved to them. What is unset is
/// as the wider setting says.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Security {
    /// What may be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security: Option<Schemes>,
    /// The CAs that servers are known by, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Our own certificate, for servers that want one, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// Its key, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// What of a certificate is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// The name that has to stand in a certificate, if it is not that of the dialled address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
    /// Who to log in as with `x509plain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The file with the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

impl Security {
    /// What is set here, and for the rest what `wider` says.
    ///
    /// A certificate goes with its key, and a user with its password: these are taken in pairs.
    #[must_use]
    pub fn or(&self, wider: &Self) -> Self {
        let own = |set: bool| if set { self } else { wider };
        let certificate = own(self.cert_file.is_some() || self.key_file.is_some());
        let person = own(self.user.is_some() || self.password_file.is_some());
        Self {
            security: self.security.clone().or_else(|| wider.security.clone()),
            ca_file: self.ca_file.clone().or_else(|| wider.ca_file.clone()),
            cert_file: certificate.cert_file.clone(),
            key_file: certificate.key_file.clone(),
            verify: self.verify.or(wider.verify),
            tls_server_name: self
                .tls_server_name
                .clone()
                .or_else(|| wider.tls_server_name.clone()),
            user: person.user.clone(),
            password_file: person.password_file.clone(),
        }
    }

    /// The schemes in force once nothing wider says otherwise.
    pub fn schemes(&self) -> Schemes {
        self.security.clone().unwrap_or_default()
    }
}

/// The password of a display or of a user. `Debug` hides it and there is no `Display`.
/// Serializing reveals it and is meant for the wire between roles alone.
#[derive(Clone, Eq, PartialEq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Password(Zeroizing<String>);

impl Password {
    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<Password> for String {
    fn from(password: Password) -> Self {
        password.reveal().to_owned()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}

/// What compute knows of how a console's server is to be met, beside its address.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Meeting {
    /// What is set for this server; the proxy's own setting is wider.
    pub security: Security,
    /// The display's password, where the hypervisor tells.
    pub password: Option<Password>,
    /// The hosts the server must be on; nothing where people named the address themselves.
    pub within: Option<Vec<Host>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schemes(names: &[&str]) -> Result<Schemes, BadSchemes> {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        names.try_into()
    }

    #[test]
    fn every_scheme_reads_back_from_its_own_name() {
        for scheme in Schemes::default().iter() {
            assert_eq!(scheme.as_str().parse(), Ok(scheme));
            assert_eq!(serde_json::to_value(scheme).unwrap(), scheme.as_str());
        }
    }

    #[test]
    fn vencrypt_alone_allows_nothing_in_the_clear() {
        let only = schemes(&["vencrypt"]).unwrap();
        assert!(only.are_encrypted() && only.contains(Scheme::X509Vnc));
        assert!(!schemes(&["vencrypt", "none"]).unwrap().are_encrypted());
    }

    #[test]
    fn a_list_of_nothing_or_of_something_else_is_refused() {
        assert_eq!(schemes(&[]), Err(BadSchemes::Empty));
        let unknown = Err(BadSchemes::Unknown("tls".to_owned()));
        assert_eq!(schemes(&["none", "tls"]), unknown);
    }

    #[test]
    fn a_narrow_setting_beats_a_wide_one_and_takes_no_half_of_a_pair_from_it() {
        let narrow = Security {
            password_file: Some("/narrow".into()),
            ..Security::default()
        };
        let wide = Security {
            ca_file: Some("/ca".into()),
            user: Some("wide".to_owned()),
            password_file: Some("/wide".into()),
            ..Security::default()
        };

        let both = narrow.or(&wide);

        assert_eq!(both.ca_file, wide.ca_file);
        assert_eq!(
            (both.user, both.password_file),
            (None, narrow.password_file)
        );
    }

    #[test]
    fn debug_shows_no_password() {
        let password = Password::from("s3cret".to_owned());
        assert!(!format!("{password:?}").contains("s3cret"));
    }
}
