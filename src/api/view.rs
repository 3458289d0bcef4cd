//! The JSON of `/v1`, as `openapi.json` describes it. Commands read it back.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::auth::{Entry, LiveSession};
use crate::compute::Survey;
use crate::config::Period;
use crate::model::{
    AccessUrl, ConsoleKind, ConsoleType, Grant, Instance, InstanceId, Owner, PowerState, Rights,
    SecondViewer, SessionId, Terms, Token, TokenId, Way,
};

/// An instance, named.
#[derive(Debug, Serialize, Deserialize)]
pub struct InstanceName {
    /// Its UUID.
    pub id: InstanceId,
    /// Its name.
    pub name: String,
}

/// On what terms sessions open; none is no end.
#[derive(Debug, Serialize, Deserialize)]
pub struct TermsView {
    /// How long a viewer may do nothing.
    pub idle_timeout: Option<Period>,
    /// How long a session may last.
    pub max_session: Option<Period>,
    /// Whether for one browser alone.
    pub single_use: bool,
    /// What becomes of viewers that share a console.
    pub second_viewer: SecondViewer,
}

impl From<Terms> for TermsView {
    fn from(terms: Terms) -> Self {
        Self {
            idle_timeout: terms.idle_timeout.map(Period::from),
            max_session: terms.max_session.map(Period::from),
            single_use: terms.single_use,
            second_viewer: terms.second_viewer,
        }
    }
}

/// A URL that opens a console. The one answer that holds secrets.
#[derive(Serialize, Deserialize)]
pub struct ConsoleView {
    /// What to open.
    pub url: String,
    /// What a person opens, where `url` is for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
    /// The token in them.
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
    /// How long that is from when it was made.
    pub url_ttl: Period,
    /// On what terms.
    pub terms: TermsView,
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
            page: None,
            token: token.reveal().to_owned(),
            id: token.hash().id(),
            r#type: grant.console_type,
            rights: grant.rights,
            instance: InstanceName {
                id: grant.instance,
                name: grant.instance_name.to_string(),
            },
            expires_at: grant.expires.to_string(),
            url_ttl: grant.expires.after(grant.issued).into(),
            terms: grant.terms.into(),
        }
    }

    pub(super) fn with_page(self, page: Option<&AccessUrl>) -> Self {
        Self {
            page: page.map(|page| page.reveal().to_owned()),
            ..self
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
    /// On what terms.
    pub terms: TermsView,
}

impl From<Entry> for TokenView {
    fn from(Entry { id, grant }: Entry) -> Self {
        Self {
            id,
            r#type: grant.console_type,
            rights: grant.rights,
            instance: InstanceName {
                id: grant.instance,
                name: grant.instance_name.to_string(),
            },
            caller: grant.caller.to_string(),
            issued_at: grant.issued.to_string(),
            expires_at: grant.expires.to_string(),
            terms: grant.terms.into(),
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

/// A live session.
#[derive(Debug, Serialize, Deserialize)]
pub struct SessionView {
    /// Its id.
    pub id: SessionId,
    /// Whose console.
    pub instance: InstanceName,
    /// Which.
    pub r#type: ConsoleType,
    /// Where that console is.
    pub host: String,
    /// How it is reached: `tcp`, `unix`, `libvirt`, `tls` or `tunnel`; none in the first seconds.
    pub way: Option<Way>,
    /// Which proxy holds the session.
    pub proxy: String,
    /// The token that opened it, by its public name.
    pub token: TokenId,
    /// Who asked for that token.
    pub caller: String,
    /// Where the viewer is; none if it could not be told.
    pub viewer: Option<IpAddr>,
    /// Since when, RFC 3339.
    pub started_at: String,
    /// When the viewer last did something, RFC 3339, a few seconds old.
    pub last_input_at: String,
    /// Bytes from the viewer, a few seconds ago.
    pub up: u64,
    /// Bytes to the viewer, a few seconds ago.
    pub down: u64,
    /// What the viewer may do now.
    pub rights: Rights,
    /// On what terms.
    pub terms: TermsView,
}

impl From<LiveSession> for SessionView {
    fn from(LiveSession { record, beat }: LiveSession) -> Self {
        Self {
            id: record.id,
            instance: InstanceName {
                id: record.instance,
                name: record.instance_name.to_string(),
            },
            r#type: record.console_type,
            rights: beat.rights,
            host: record.host.to_string(),
            way: beat.way,
            proxy: record.proxy.to_string(),
            token: record.token,
            caller: record.caller.to_string(),
            viewer: record.viewer,
            started_at: record.started.to_string(),
            last_input_at: beat.last_input.to_string(),
            up: beat.up,
            down: beat.down,
            terms: record.terms.into(),
        }
    }
}

/// All live sessions.
#[derive(Debug, Serialize, Deserialize)]
pub struct SessionsView {
    /// The oldest first.
    pub sessions: Vec<SessionView>,
}

impl From<Vec<LiveSession>> for SessionsView {
    fn from(sessions: Vec<LiveSession>) -> Self {
        Self {
            sessions: sessions.into_iter().map(SessionView::from).collect(),
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
    /// The machine whose compute role found it; none where that is this one.
    pub host: Option<String>,
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
            host: instance.host,
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
