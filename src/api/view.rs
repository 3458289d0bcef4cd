//! The JSON of `/v1`, as `openapi.json` describes it. Commands read it back.

use serde::{Deserialize, Serialize};

use crate::auth::Entry;
use crate::compute::Survey;
use crate::model::{
    AccessUrl, ConsoleKind, ConsoleType, Grant, Instance, InstanceId, Owner, PowerState, Rights,
    Token, TokenId,
};

/// An instance, named.
#[derive(Debug, Serialize, Deserialize)]
pub struct InstanceName {
    /// Its UUID.
    pub id: InstanceId,
    /// Its name.
    pub name: String,
}

/// A URL that opens a console. The one answer that holds secrets.
#[derive(Serialize, Deserialize)]
pub struct ConsoleView {
    /// What to open.
    pub url: String,
    /// The token in it.
    pub token: String,
    /// The token's public name, for `token show` and `token revoke`.
    pub id: TokenId,
    /// Which console.
    pub r#type: ConsoleType,
    /// What its viewer may do.
    pub rights: Rights,
    /// Whose.
    pub instance: InstanceName,
    /// Until when it opens, RFC 3339.
    pub expires_at: String,
}

impl std::fmt::Debug for ConsoleView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsoleView")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl ConsoleView {
    pub(super) fn new(url: &AccessUrl, token: &Token, grant: &Grant) -> Self {
        Self {
            url: url.reveal().to_owned(),
            token: token.reveal().to_owned(),
            id: token.hash().id(),
            r#type: grant.console_type,
            rights: grant.rights,
            instance: InstanceName {
                id: grant.instance,
                name: grant.instance_name.clone(),
            },
            expires_at: grant.expires.to_string(),
        }
    }
}

/// A live token.
#[derive(Debug, Serialize, Deserialize)]
pub struct TokenView {
    /// Its public name.
    pub id: TokenId,
    /// Which console it opens.
    pub r#type: ConsoleType,
    /// What its viewer may do.
    pub rights: Rights,
    /// Whose.
    pub instance: InstanceName,
    /// Who asked for it.
    pub caller: String,
    /// When it was made, RFC 3339.
    pub issued_at: String,
    /// Until when it opens, RFC 3339.
    pub expires_at: String,
}

impl From<Entry> for TokenView {
    fn from(Entry { id, grant }: Entry) -> Self {
        Self {
            id,
            r#type: grant.console_type,
            rights: grant.rights,
            instance: InstanceName {
                id: grant.instance,
                name: grant.instance_name,
            },
            caller: grant.caller,
            issued_at: grant.issued.to_string(),
            expires_at: grant.expires.to_string(),
        }
    }
}

/// All live tokens.
#[derive(Debug, Serialize, Deserialize)]
pub struct TokensView {
    /// The next to expire first.
    pub tokens: Vec<TokenView>,
}

impl From<Vec<Entry>> for TokensView {
    fn from(entries: Vec<Entry>) -> Self {
        Self {
            tokens: entries.into_iter().map(TokenView::from).collect(),
        }
    }
}

/// An instance.
#[derive(Debug, Serialize, Deserialize)]
pub struct InstanceView {
    /// Its UUID.
    pub id: InstanceId,
    /// The hypervisor's name of it.
    pub name: String,
    /// The name people gave it, if another.
    pub display_name: Option<String>,
    /// Its size by name, if Nova made it.
    pub flavor: Option<String>,
    /// Whether it runs.
    pub state: PowerState,
    /// Its consoles.
    pub consoles: Vec<ConsoleOfInstance>,
    /// Whose it is.
    pub owner: Option<Owner>,
    /// Where it was found.
    pub source: String,
}

/// A console of an instance.
#[derive(Debug, Serialize, Deserialize)]
pub struct ConsoleOfInstance {
    /// What it speaks.
    pub kind: ConsoleKind,
    /// Where it is, while the instance runs.
    pub target: Option<String>,
    /// A second port that speaks TLS.
    pub tls_port: Option<u16>,
}

impl From<Instance> for InstanceView {
    fn from(instance: Instance) -> Self {
        let consoles = instance
            .consoles
            .into_iter()
            .map(|console| ConsoleOfInstance {
                kind: console.kind,
                target: console.target.as_ref().map(ToString::to_string),
                tls_port: console.target.and_then(|target| target.tls_port),
            });
        Self {
            id: instance.id,
            name: instance.name,
            display_name: instance.display_name,
            flavor: instance.flavor,
            state: instance.state,
            consoles: consoles.collect(),
            owner: instance.owner,
            source: instance.source,
        }
    }
}

/// All instances, and what could not be read.
#[derive(Debug, Serialize, Deserialize)]
pub struct InstancesView {
    /// By name.
    pub instances: Vec<InstanceView>,
    /// A sentence for each thing that could not be read.
    pub faults: Vec<String>,
}

impl From<Survey> for InstancesView {
    fn from(survey: Survey) -> Self {
        let mut instances: Vec<InstanceView> = survey
            .instances
            .into_iter()
            .map(InstanceView::from)
            .collect();
        instances.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        let faults = survey.faults.iter().map(ToString::to_string).collect();
        Self { instances, faults }
    }
}
