use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ConfigError, all_absolute, refuse_if};
use crate::model::Address;

/// `[auth.redis]`: where tokens and sessions are kept if `auth.source` is `redis`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// The server; or the Sentinels; or some nodes of the cluster.
    pub servers: Vec<Address>,
    /// The name of the master, if the servers are Sentinels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel: Option<String>,
    /// Whether the servers are a cluster.
    pub cluster: bool,
    /// Whether to speak TLS.
    pub tls: bool,
    /// Whom TLS trusts, in PEM; unset: the machine's own authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Who logs in, if not the default user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The file with the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// What all keys begin with.
    pub prefix: String,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            sentinel: None,
            cluster: false,
            tls: false,
            ca_file: None,
            user: None,
            password_file: None,
            prefix: "vncgate".to_owned(),
        }
    }
}

impl Redis {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let count = self.servers.len();
        let none = (count == 0).then(|| "at least one server is needed".to_owned());
        refuse_if(none, "auth.redis.servers")?;
        let both = self.cluster && self.sentinel.is_some();
        let why = || "a cluster needs no Sentinels; set one of the two".to_owned();
        refuse_if(both.then(why), "auth.redis.cluster")?;
        let several = count > 1 && !self.cluster && self.sentinel.is_none();
        let why = || "several servers are a cluster, or Sentinels: say which".to_owned();
        refuse_if(several.then(why), "auth.redis.servers")?;
        let braces = self.prefix.is_empty() || self.prefix.contains(['{', '}']);
        let why = || "must be some text without braces".to_owned();
        refuse_if(braces.then(why), "auth.redis.prefix")?;
        all_absolute("auth.redis.ca_file", self.ca_file.as_slice())?;
        all_absolute("auth.redis.password_file", self.password_file.as_slice())
    }
}
