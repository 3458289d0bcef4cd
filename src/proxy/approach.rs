//! From a target to a server that a viewer can be let to: handed over, reached through its own
//! machine's compute role, or dialled; and entered.

use super::Proxy;
use super::close::Refusal;
use super::entry::{Entered, Entry};
use super::target::{self, Bounds, ConnectError, Connected};
use crate::compute::{ComputeError, Display, Displays};
use crate::model::{Address, Binding, ConsoleKind, Grant, Meeting, Target};

impl Proxy {
    /// By the hypervisor's own hand where it hands over, or through its machine; that needs no port
    /// and cannot reach another instance. Else, or if that fails, by the address, where that may
    /// be dialled.
    pub(super) async fn reach(&self, grant: &Grant, target: &Target) -> Result<Entered, Refusal> {
        let address = &target.address;
        let failure = match Box::pin(self.handed(grant, address)).await {
            Ok(Some(entered)) => return Ok(entered),
            Ok(None) => None,
            Err(refusal) => Some(refusal),
        };
        if let Some(error) = &failure {
            tracing::debug!(instance = %grant.instance, %address, %error, "not handed over");
        }
        let handed_only = self.displays.as_ref().is_some_and(Displays::are_only);
        match (failure, address) {
            (Some(refusal), Address::Hypervisor) => Err(refusal),
            (Some(refusal), _) if handed_only => Err(refusal),
            (None, _) if handed_only => Err(ConnectError::Nowhere.into()),
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
        if let Display::Tunnel(tunnelled) = &display
            && !tunnelled.opened.handed
        {
            let target = tunnelled.opened.target.clone();
            let again = || displays.open(grant.instance, kind);
            return self
                .tunnelled(grant, &target, display, again)
                .await
                .map(Some);
        }
        let limit = self.settings.now().connect_timeout;
        let connected = target::take_over(display, address, None, kind, limit).await?;
        if kind != ConsoleKind::Vnc {
            return Ok(Some(entered(connected)));
        }
        Ok(Some(Entry::handed(address).enter(connected, limit).await?))
    }

    /// A server at the other end of a tunnel is entered like one that was dialled.
    async fn tunnelled<Again>(
        &self,
        grant: &Grant,
        target: &Target,
        display: Display,
        again: impl FnOnce() -> Again,
    ) -> Result<Entered, Refusal>
    where
        Again: Future<Output = Result<Option<Display>, ComputeError>>,
    {
        let settings = self.settings.now();
        let (kind, limit) = (grant.console_type.kind(), settings.connect_timeout);
        let path = target.internal_access_path.as_ref();
        let take = |display| target::take_over(display, &target.address, path, kind, limit);
        if kind != ConsoleKind::Vnc {
            return Ok(entered(take(display).await?));
        }
        let meeting = self.meeting(grant).await?;
        let entry = Entry::prepare(&target.address, &meeting, &settings.vnc).await?;
        let error = match entry.enter(take(display).await?, limit).await {
            Ok(entered) => return Ok(entered),
            Err(error) => error,
        };
        let Some(entry) = entry.beside_vencrypt(&error) else {
            return Err(error.into());
        };
        match again().await? {
            Some(display) => Ok(entry.enter(take(display).await?, limit).await?),
            None => Err(error.into()),
        }
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
                Some(entry) => Ok(Box::pin(entry.enter(connect().await?, limit)).await?),
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
        way: connected.stream.way(),
        stream: connected.stream,
        early: connected.greeting,
        scheme: None,
        asked: None,
    }
}
