use serde::{Deserialize, Serialize};

use super::{ConsoleKind, InstanceId, Target};

/// An instance as a compute driver sees it now.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Its UUID.
    pub id: InstanceId,
    /// The hypervisor's name of it (`instance-0000002a`).
    pub name: String,
    /// A name people gave it, when the hypervisor's is another (Nova's metadata).
    pub display_name: Option<String>,
    /// Its size by name, as Nova's metadata has it.
    pub flavor: Option<String>,
    /// Whether it runs.
    pub state: PowerState,
    /// Whose it is, as far as the metadata tells.
    pub owner: Option<Owner>,
    /// Its consoles in the order of its XML; at most the first of each kind is ever used.
    pub consoles: Vec<Console>,
    /// Which source knows it, for people: `config`, `demo`, a directory's path.
    pub source: String,
    /// The machine whose compute role told of it, for people; none where that is this one.
    #[serde(default)]
    pub host: Option<String>,
}

impl Instance {
    /// The name to show to people.
    pub fn shown_name(&self) -> &str {
        self.display_name.as_deref().unwrap_or(&self.name)
    }

    /// The id of the project it belongs to, where that is known.
    pub fn project_id(&self) -> Option<&str> {
        self.owner.as_ref()?.project_id.as_deref()
    }

    /// The first console of `kind`, as Nova takes the first of each type.
    pub fn console(&self, kind: ConsoleKind) -> Option<&Console> {
        self.consoles.iter().find(|console| console.kind == kind)
    }
}

/// A display or line of an instance.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Console {
    /// What it speaks.
    pub kind: ConsoleKind,
    /// Where it is; `None` while the instance is off or the hypervisor has not bound it yet.
    pub target: Option<Target>,
}

/// Whether an instance runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PowerState {
    /// It has live consoles (paused instances too).
    Running,
    /// Defined, not running.
    Off,
    /// The source does not tell (static entries, foreign VNC servers).
    Unknown,
}

impl PowerState {
    /// Lower-case word for lists.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Off => "off",
            Self::Unknown => "unknown",
        }
    }
}

/// Who an instance belongs to (Nova's `nova:owner` metadata).
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Owner {
    /// Keystone's project id.
    pub project_id: Option<String>,
    /// The project's name.
    pub project: Option<String>,
    /// Keystone's user id.
    pub user_id: Option<String>,
    /// The user's name.
    pub user: Option<String>,
}

impl Owner {
    /// An owner of which nothing but the project's id is known.
    pub fn of_project(id: String) -> Self {
        Self {
            project_id: Some(id),
            ..Self::default()
        }
    }
}
