use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use url::Url;

use super::{ConfigError, Period, all_absolute, check_url, longer_than_zero, refuse_if};

/// `[keystone]`: OpenStack's identity service, and our own user there.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keystone {
    /// Where it is; unset: it is not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Url>,
    /// How clients reach it, told to callers without a token; unset: as we do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<Url>,
    /// Our user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The name of our user's domain.
    pub user_domain: String,
    /// The file with our user's password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The name of the project in which our user has its role.
    pub project: String,
    /// The name of that project's domain.
    pub project_domain: String,
    /// The id of an application credential, in place of user and password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_credential_id: Option<String>,
    /// The file with that credential's secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_credential_secret_file: Option<PathBuf>,
    /// The region whose services are asked; unset: the only one there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Which of a service's endpoints is called.
    pub interface: Interface,
    /// The CAs that Keystone and Nova are known by; unset: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// How long one call may take.
    pub timeout: Period,
    /// How long a verdict on a token is kept.
    pub cache: Period,
}

/// For whom an endpoint of a catalog is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interface {
    /// Everybody; every service has one.
    #[default]
    Public,
    /// The cloud's own services.
    Internal,
    /// Operators.
    Admin,
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Admin => "admin",
        })
    }
}

impl Default for Keystone {
    fn default() -> Self {
        Self {
            url: None,
            public_url: None,
            username: None,
            user_domain: "Default".to_owned(),
            password_file: None,
            project: "service".to_owned(),
            project_domain: "Default".to_owned(),
            application_credential_id: None,
            application_credential_secret_file: None,
            region: None,
            interface: Interface::Public,
            ca_file: None,
            timeout: Period::from_secs(5),
            cache: Period::from_secs(60),
        }
    }
}

impl Keystone {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (key, url) in [
            ("keystone.url", &self.url),
            ("keystone.public_url", &self.public_url),
        ] {
            url.as_ref().map_or(Ok(()), |url| check_url(key, url))?;
        }
        refuse_if(self.bad_login(), "keystone.username")?;
        for (key, path) in [
            ("keystone.password_file", &self.password_file),
            (
                "keystone.application_credential_secret_file",
                &self.application_credential_secret_file,
            ),
            ("keystone.ca_file", &self.ca_file),
        ] {
            all_absolute(key, path.as_slice())?;
        }
        longer_than_zero("keystone.timeout", self.timeout)
    }

    /// One way to log in, whole, where there is a Keystone; none where there is not.
    fn bad_login(&self) -> Option<String> {
        let user = [self.username.is_some(), self.password_file.is_some()];
        let credential = [
            self.application_credential_id.is_some(),
            self.application_credential_secret_file.is_some(),
        ];
        let why = match (self.url.is_some(), user, credential) {
            (false, [false, false], [false, false])
            | (true, [true, true], [false, false])
            | (true, [false, false], [true, true]) => return None,
            (false, ..) => "keystone.url says where to log in; set it too",
            (true, ..) => {
                "either username and password_file, or application_credential_id and \
                 application_credential_secret_file are needed"
            }
        };
        Some(why.to_owned())
    }
}
