use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ConfigError, all_absolute, refuse_if};

/// `[audit]`: who did what, for later.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// The file that events are written to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// journald's socket, to have them in the journal in place of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal: Option<PathBuf>,
    /// Whether no console opens while events cannot be written.
    pub required: bool,
}

impl Audit {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let both = self.file.is_some() && self.journal.is_some();
        let why = || "set either audit.file or audit.journal".to_owned();
        refuse_if(both.then(why), "audit.journal")?;
        let neither = self.file.is_none() && self.journal.is_none();
        let why = || "needs audit.file or audit.journal".to_owned();
        refuse_if((self.required && neither).then(why), "audit.required")?;
        all_absolute("audit.file", self.file.as_slice())?;
        all_absolute("audit.journal", self.journal.as_slice())
    }
}
