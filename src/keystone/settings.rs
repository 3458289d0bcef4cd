use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::{BadSecret, Credentials, Login};
use crate::config::{self, Interface};
use crate::http::{BadTrust, Trust};

/// What a [`Keystone`](super::Keystone) is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where version 3 of its API is: `http://controller:5000/v3`.
    pub url: Url,
    /// As whom this gateway asks.
    pub credentials: Credentials,
    /// The region whose services are asked; unset: the only one there is.
    pub region: Option<String>,
    /// Which of a service's endpoints is called.
    pub interface: Interface,
    /// The CAs that Keystone and Nova are known by; unset: the system's.
    pub ca_file: Option<PathBuf>,
    /// How long one call may take.
    pub timeout: Duration,
    /// How long a verdict on a token is kept; zero is not at all.
    pub cache: Duration,
}

/// Why Keystone could never be asked.
#[derive(Debug, thiserror::Error)]
pub enum BadSettings {
    /// The password, or the application credential's secret.
    #[error(transparent)]
    Secret(#[from] BadSecret),
    /// The CAs.
    #[error(transparent)]
    Trust(#[from] BadTrust),
}

impl Settings {
    /// What the config says; `None` where it names no Keystone.
    pub fn of(config: &config::Keystone) -> Option<Self> {
        let password = || {
            let login = Login::Password {
                username: config.username.clone()?,
                user_domain: config.user_domain.clone(),
                project: config.project.clone(),
                project_domain: config.project_domain.clone(),
            };
            let secret_file = config.password_file.clone()?;
            Some(Credentials { login, secret_file })
        };
        let application_credential = || {
            let id = config.application_credential_id.clone()?;
            let login = Login::ApplicationCredential { id };
            let secret_file = config.application_credential_secret_file.clone()?;
            Some(Credentials { login, secret_file })
        };
        Some(Self {
            url: version_3(config.url.as_ref()?),
            credentials: password().or_else(application_credential)?,
            region: config.region.clone(),
            interface: config.interface,
            ca_file: config.ca_file.clone(),
            timeout: config.timeout.get(),
            cache: config.cache.get(),
        })
    }

    /// Whether the files can be read now. Blocks.
    pub fn check(&self) -> Result<(), BadSettings> {
        self.credentials.check()?;
        if self.url.scheme() == "https" || self.ca_file.is_some() {
            Trust::new(self.ca_file.clone()).check()?;
        }
        Ok(())
    }
}

/// Other services' configs name Keystone with its version and without.
fn version_3(url: &Url) -> Url {
    let mut url = url.clone();
    let versioned = url.path().trim_end_matches('/').ends_with("/v3");
    if let Ok(mut segments) = url.path_segments_mut() {
        let _trailing = segments.pop_if_empty();
        if !versioned {
            let _version = segments.push("v3");
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_or_added() {
        for (given, used) in [
            ("http://k:5000", "http://k:5000/v3"),
            ("http://k:5000/", "http://k:5000/v3"),
            ("http://k:5000/v3/", "http://k:5000/v3"),
            ("https://k/identity", "https://k/identity/v3"),
            ("https://k/identity/v3", "https://k/identity/v3"),
        ] {
            assert_eq!(version_3(&given.parse().unwrap()).as_str(), used);
        }
    }
}
