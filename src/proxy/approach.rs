//! From a target to a server that a viewer can be let to: handed over or dialled, and entered.

use super::Proxy;
use super::close::Refusal;
use super::entry::{Entered, Entry};
use super::target::{self, Bounds, Connected};
use crate::compute::ComputeError;
use crate::model::{Address, Binding, ConsoleKind, Grant, Meeting, Target};

impl Proxy {
    /// By the hypervisor's own hand where it hands over; that needs no port and cannot reach
    /// another instance. Else, or if that fails, by the address.
    pub(super) async fn reach(&self, grant: &Grant, target: &Target) -> Result<Entered, Refusal> {
        let address = &target.address;
        let failure = match self.handed(grant, address).await {
            Ok(Some(entered)) => return Ok(entered),
            Ok(None) => None,
            Err(refusal) => Some(refusal),
        };
        if let Some(error) = &failure {
            tracing::debug!(instance = %grant.instance, %address, %error, "not handed over");
        }
        match (failure, address) {
            (Some(refusal), Address::Hypervisor) => Err(refusal),
            _ => self.dialled(grant, target).await,
        }
    }

    async fn handed(&self, grant: &Grant, address: &Address) -> Result<Option<Entered>, Refusal> {
        let kind = grant.console_type.kind();
        let Some(displays) = &self.displays else {
            return Ok(None);
        };
        let Some(display) = displays.open(grant.instance, kind).await? else {
            return Ok(None);
        };
        let limit = self.settings.now().connect_timeout;
        let connected = target::take_over(display, address, kind, limit).await?;
        if kind != ConsoleKind::Vnc {
            return Ok(Some(entered(connected)));
        }
        Ok(Some(Entry::handed(address).enter(connected, limit).await?))
    }

    async fn dialled(&self, grant: &Grant, target: &Target) -> Result<Entered, Refusal> {
        let settings = self.settings.now();
        let (kind, limit) = (grant.console_type.kind(), settings.connect_timeout);
        let meeting = self.meeting(grant).await?;
        let bounds = Bounds {
            networks: settings.allowed_networks.clone(),
            hosts: meeting.within.clone(),
        };
        let connect = || target::connect(target, &bounds, kind, limit);
        if kind != ConsoleKind::Vnc {
            return Ok(entered(connect().await?));
        }
        let entry = Entry::prepare(&target.address, &meeting, &settings.vnc).await?;
        match entry.enter(connect().await?, limit).await {
            Ok(entered) => Ok(entered),
            // Once in VeNCrypt, there is no way back but from the start.
            Err(error) => match entry.beside_vencrypt(&error) {
                Some(entry) => Ok(entry.enter(connect().await?, limit).await?),
                None => Err(error.into()),
            },
        }
    }

    /// How the server is to be met. Of what only a foreign token knows, nothing is known here.
    async fn meeting(&self, grant: &Grant) -> Result<Meeting, ComputeError> {
        let kind = grant.console_type.kind();
        let meeting = self.compute.meeting(grant.instance, kind).await;
        match (meeting, grant.binding) {
            (Err(ComputeError::NoSuchInstance { .. }), Binding::Target) => Ok(Meeting::default()),
            (meeting, _) => meeting,
        }
    }
}

/// A server that wants no handshake.
fn entered(connected: Connected) -> Entered {
    Entered {
        stream: connected.stream,
        early: connected.greeting,
        scheme: None,
        asked: None,
    }
}
