use super::{Change, Compute, ComputeError, ConsoleLog, Located, Picture, Reply, Request, Survey};
use crate::model::{
    Binding, ConsoleKind, ConsoleType, Grant, Instance, InstanceId, InstanceRef, Meeting, Target,
};
use crate::rpc::{Client, Cursor, News, Role as _, Unreachable};

/// What the api and the proxy ask. Every call is cancel-safe and changes nothing.
impl Client<Compute> {
    /// Where the console is that a person asks for. Errors: all.
    pub async fn locate(
        &self,
        instance: InstanceRef,
        console_type: ConsoleType,
    ) -> Result<Located, ComputeError> {
        let request = Request::Locate {
            instance,
            console_type,
        };
        match self.call(request).await? {
            Reply::Located(located) => Ok(located),
            other => Err(stray(&other)),
        }
    }

    /// Where the console of a grant is now; dial this, not `stored`. Errors: all but `Ambiguous`.
    pub async fn recheck(
        &self,
        instance: InstanceId,
        console_type: ConsoleType,
        stored: Target,
    ) -> Result<Target, ComputeError> {
        let request = Request::Recheck {
            instance,
            console_type,
            stored,
        };
        match self.call(request).await? {
            Reply::Target(target) => Ok(target),
            other => Err(stray(&other)),
        }
    }

    /// Where the console of a grant is now; dial this. What somebody else's token stands for is
    /// checked as far as its instance is known here. Errors: as of `recheck`.
    pub async fn current(&self, grant: &Grant) -> Result<Target, ComputeError> {
        let stored = grant.target.clone();
        let current = self.recheck(grant.instance, grant.console_type, stored.clone());
        match (current.await, grant.binding) {
            (Err(ComputeError::NoSuchInstance { .. }), Binding::Target) => Ok(stored),
            (current, _) => current,
        }
    }

    /// Whether any source answers; what was found is remembered there for a second. Errors:
    /// `Unready`, `Unreachable`.
    pub async fn ready(&self) -> Result<(), ComputeError> {
        match self.call(Request::Ready).await? {
            Reply::Ready => Ok(()),
            other => Err(stray(&other)),
        }
    }

    /// All instances, and what could not be read. Errors: `Unreachable`.
    pub async fn instances(&self) -> Result<Survey, ComputeError> {
        match self.call(Request::Instances).await? {
            Reply::Instances(survey) => Ok(survey),
            other => Err(stray(&other)),
        }
    }

    /// The running instances that hold a door of `target`. Errors: `Unreachable`.
    pub async fn claimants(&self, target: Target) -> Result<Survey, ComputeError> {
        match self.call(Request::Claimants(target)).await? {
            Reply::Instances(survey) => Ok(survey),
            other => Err(stray(&other)),
        }
    }

    /// What an instance's screen shows now. Errors: `NoSuchInstance`, `Ambiguous`, `Off`,
    /// `NoPicture`, `Source`, `Unreachable`.
    pub async fn screenshot(&self, instance: InstanceRef) -> Result<Picture, ComputeError> {
        match self.call(Request::Screenshot { instance }).await? {
            Reply::Screenshot(picture) => Ok(picture),
            other => Err(stray(&other)),
        }
    }

    /// How the server behind a console is to be met; holds a secret. Errors: `NoSuchInstance`,
    /// `Source`, `Unreachable`.
    pub async fn meeting(
        &self,
        instance: InstanceId,
        kind: ConsoleKind,
    ) -> Result<Meeting, ComputeError> {
        match self.call(Request::Meeting { instance, kind }).await? {
            Reply::Meeting(meeting) => Ok(*meeting),
            other => Err(stray(&other)),
        }
    }

    /// What became of instances since `cursor`, as far as sources tell: waits up to [`HOLD`](crate::rpc::HOLD) for
    /// something. One that ended may be back already, or somewhere else. Errors: `Unreachable`.
    pub async fn changes(&self, cursor: Option<Cursor>) -> Result<News<Change>, ComputeError> {
        match self.call(Request::Changes(cursor)).await? {
            Reply::Changes(news) => Ok(news),
            other => Err(stray(&other)),
        }
    }

    /// The last `lines` (or all that is kept, at most 100 KiB) of what an instance wrote to its
    /// serial line, running or not. Untrusted text. Errors: `NoSuchInstance`, `Ambiguous`, `NoLog`,
    /// `Source`, `Unreachable`.
    pub async fn console_log(
        &self,
        instance: InstanceRef,
        lines: Option<u32>,
    ) -> Result<ConsoleLog, ComputeError> {
        match self.call(Request::ConsoleLog { instance, lines }).await? {
            Reply::ConsoleLog(log) => Ok(log),
            other => Err(stray(&other)),
        }
    }

    /// One instance, running or not. Errors: `NoSuchInstance`, `Ambiguous`, `Source`,
    /// `Unreachable`.
    pub async fn instance(&self, instance: InstanceRef) -> Result<Instance, ComputeError> {
        match self.call(Request::Instance { instance }).await? {
            Reply::Instance(instance) => Ok(instance),
            other => Err(stray(&other)),
        }
    }
}

/// An answer to another question: that is not the role we know.
fn stray(reply: &Reply) -> ComputeError {
    tracing::error!(?reply, "compute answered another question");
    Unreachable::stray(Compute::NAME).into()
}
