use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::model::{ConsoleType, CorrelationId, Grant, InstanceId, Rights, SessionId, TokenId};

/// What happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A console URL was made.
    Issued,
    /// A token was revoked.
    Revoked,
    /// A console opened.
    Opened,
    /// A console did not open, or a caller of the API was turned away.
    Refused,
    /// A session is over.
    Ended,
    /// An operator had a session ended.
    Killed,
    /// An operator changed what a viewer may do.
    RightsChanged,
    /// The config was read again.
    ConfigReloaded,
    /// Events could not be kept until they were written; `count` says how many.
    Lost,
}

/// One event: who, what, from where, why. What is not known stays out of the line.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// What happened.
    pub event: What,
    /// Who asked for it; of a session, who asked for its token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<Arc<str>>,
    /// Where the caller is, or the viewer; nothing for the admin socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Whose console.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// The instance's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// Whose instance, by project id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<Arc<str>>,
    /// Which of its consoles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<ConsoleType>,
    /// What the viewer may do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rights: Option<Rights>,
    /// The token, by its public name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The close code, or the HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Why, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Ties it to the log, and to what a person was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
    /// Bytes from the viewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<u64>,
    /// Bytes to the viewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down: Option<u64>,
    /// How long it lasted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// How many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl Event {
    /// An event of which nothing else is known.
    pub fn new(event: What) -> Self {
        Self {
            event,
            caller: None,
            address: None,
            instance: None,
            name: None,
            project: None,
            r#type: None,
            rights: None,
            token: None,
            session: None,
            code: None,
            why: None,
            correlation: None,
            up: None,
            down: None,
            seconds: None,
            count: None,
        }
    }

    /// With all that a grant tells. The caller is the one who asked for its token.
    #[must_use]
    pub fn of_grant(self, grant: &Grant) -> Self {
        Self {
            caller: Some(grant.caller.clone()),
            instance: Some(grant.instance),
            name: Some(grant.instance_name.clone()),
            project: grant.project.clone(),
            r#type: Some(grant.console_type),
            rights: Some(grant.rights),
            ..self
        }
    }

    /// By whom, and from where.
    #[must_use]
    pub fn by(self, caller: &impl ToString, address: Option<IpAddr>) -> Self {
        Self {
            caller: Some(caller.to_string().into()),
            address,
            ..self
        }
    }

    /// With the id that a person was told.
    #[must_use]
    pub fn correlated(self, correlation: CorrelationId) -> Self {
        Self {
            correlation: Some(correlation.to_string()),
            ..self
        }
    }
}
