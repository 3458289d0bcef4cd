use std::path::PathBuf;

use crate::audit::Place;
use crate::auth::BadDatabase;
use crate::auth::store::BadFile;
use crate::compute::driver::BadEntry;
use crate::http::BindError;
use crate::keystone;
use crate::process::BadSocket;
use crate::rpc::BadSecret;
use crate::tls::BadMutual;
use crate::tls::TlsError;
use crate::web::BadPages;

/// Why nothing runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A door cannot be opened.
    #[error("{key}: {error}")]
    Door {
        /// The key of the config that says where it is.
        key: &'static str,
        /// Why not.
        error: BindError,
    },
    /// A socket that was given cannot be used.
    #[error(transparent)]
    Given(#[from] BadSocket),
    /// The process before could not be answered.
    #[error("the process before cannot be answered: {0}")]
    Heir(#[source] BindError),
    /// The demo's own port cannot be opened.
    #[error("the demo cannot listen on loopback")]
    Demo(#[source] std::io::Error),
    /// There is no TLS as the config wants it.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// The threads that relay cannot be started.
    #[error("cannot start the threads that relay")]
    Workers(#[source] std::io::Error),
    /// The pages cannot be served.
    #[error(transparent)]
    Web(#[from] BadPages),
    /// Two instances listed by hand cannot be told apart.
    #[error("compute.instance: {0}")]
    Instances(#[from] BadEntry),
    /// Nobody could tell later who did what.
    #[error("audit: {place} cannot be written: {why}")]
    Audit {
        /// Where it was to go.
        place: Place,
        /// Why not.
        why: std::io::Error,
    },
    /// Tokens cannot be kept.
    #[error("auth.file: {0}")]
    Tokens(#[from] BadFile),
    /// There is no password to log in to Redis with.
    #[error("auth.redis.password_file: cannot read {}: {why}", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: std::io::Error,
    },
    /// The log's level is none.
    #[error("log.level: {0}")]
    Level(String),
    /// Keystone could never be asked.
    #[error("keystone: {0}")]
    Keystone(#[from] keystone::BadSettings),
    /// A database cannot be asked as the config says.
    #[error("auth.databases: {0}")]
    Database(#[from] BadDatabase),
    /// A hypervisor cannot be asked as the config says.
    #[error("compute.host `{name}`: {why}")]
    Host {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// What the config says does not do for the roles that are to run here.
    #[error("{key}: {why}")]
    Roles {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The certificates of roles cannot be used.
    #[error("rpc.certificate: {0}")]
    Mutual(#[from] BadMutual),
    /// The secret of roles cannot be used.
    #[error("rpc.secret_file: {0}")]
    Secret(#[from] BadSecret),
}

impl StartError {
    /// Whether the config is at fault.
    pub fn is_of_config(&self) -> bool {
        matches!(
            self,
            Self::Host { .. }
                | Self::Database(_)
                | Self::Roles { .. }
                | Self::Mutual(_)
                | Self::Secret(_)
        )
    }
}
