//! Instances from libvirt, asked over its own wire protocol.
//!
//! [`Libvirt`] is one hypervisor. It keeps a connection and an index of the instances that
//! libvirt's events keep current; the index answers only lists. Where one instance is asked for,
//! libvirt is asked, so that no port that was once true is ever dialled. Displays and pty lines
//! are taken from libvirt's own hand. A daemon that hangs costs its own callers their deadline
//! and nobody else anything. Knows no token and no viewer.

pub mod client;
mod index;
mod link;
mod reach;
pub mod sasl;
pub mod transport;
pub mod wire;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{self, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use zeroize::Zeroizing;

pub use link::Settings;

use self::client::{Domain, Rights};
use self::link::{Link, Live, Why};
use self::wire::error::Kind;
use self::wire::{Closed, Error, Stream};
use super::{
    BoxFuture, Changes, Driver, Fault, Handed, Logged, Met, Pictured, Survey, fault, is_meant,
    read_log,
};
use crate::compute::claim::claims;
use crate::compute::display::Display;
use crate::compute::domain::{self, Device};
use crate::drain::Watch;
use crate::model::{
    ConsoleKind, Instance, InstanceId, InstanceRef, Meeting, Password, PowerState, Target,
};

/// Shorter than [`super::DEADLINE`], so that the fault tells what hangs.
const DEADLINE: Duration = Duration::from_millis(4500);

/// One hypervisor.
#[derive(Debug)]
pub struct Libvirt {
    link: Arc<Link>,
}

impl Libvirt {
    /// A hypervisor that is connected to once the driver is started.
    pub fn new(settings: Settings) -> Self {
        let link = Arc::new(Link::new(settings));
        Self { link }
    }

    /// Whether there is nothing to ask: no daemon that takes connections.
    pub async fn is_absent(&self) -> bool {
        self.link.is_absent(deadline()).await
    }

    async fn survey_within(&self, deadline: Instant) -> Result<Survey, Why> {
        let live = self.link.live(deadline).await?;
        let filled = timeout_at(deadline, live.index.filled()).await;
        match filled {
            Ok(true) => Ok(live.index.survey()),
            Ok(false) => Err(Why::new(
                "the connection was lost while domains were listed",
            )),
            Err(_elapsed) => Err(Why::new("its domains could not be listed in time")),
        }
    }

    /// A connection that ends in the middle was to a daemon that ended; the next one may be there.
    async fn find_within(&self, wanted: &InstanceRef, deadline: Instant) -> Result<Survey, Why> {
        let live = self.link.live(deadline).await?;
        match self.find_at(&live, wanted, deadline).await {
            Err(Error::Closed(_)) => {
                let live = self.link.next(&live, deadline).await?;
                Ok(self.find_at(&live, wanted, deadline).await?)
            }
            found => Ok(found?),
        }
    }

    async fn find_at(
        &self,
        live: &Live,
        wanted: &InstanceRef,
        deadline: Instant,
    ) -> Result<Survey, Error> {
        let looked_up = timeout_at(deadline, live.domains(wanted)).await;
        let late = || Error::Deadline(DEADLINE);
        let domains = looked_up.map_err(|_| late())??;
        let mut survey = Survey::default();
        for domain in domains {
            let read = timeout_at(deadline, live.read(&domain, &self.link.settings)).await;
            match read.map_err(|_| late())?? {
                Some(Ok(instance)) if is_meant(&instance, wanted) => {
                    survey.instances.push(instance);
                }
                Some(Err(fault)) => survey.faults.push(fault),
                Some(Ok(_)) | None => {}
            }
        }
        Ok(survey)
    }

    /// Who was just found is behind a connection that stands; other hosts are not waited for.
    async fn open(&self, id: InstanceId, kind: ConsoleKind) -> Result<Option<Display>, Why> {
        let Some(live) = self.link.current() else {
            return Ok(None);
        };
        let hands_over = match kind {
            ConsoleKind::Vnc | ConsoleKind::Spice => live.handover.displays,
            ConsoleKind::Serial => live.handover.lines,
            ConsoleKind::Mks => false,
        };
        if !hands_over || !live.index.may_have(id) {
            return Ok(None);
        }
        let Some((domain, xml)) = live.running(id).await? else {
            return Ok(None);
        };
        match domain::device(&xml, kind).map_err(|bad| Why::new(&bad.to_string()))? {
            None => Ok(None),
            Some(Device::Display(number)) => {
                let socket = live.client.open_graphics(&domain, number).await?;
                Ok(Some(Display::Socket(socket_from(socket)?)))
            }
            Some(Device::Line(alias)) => {
                let opened = self.line(&domain, alias.as_deref()).await?;
                Ok(Some(Display::Line(Box::new(opened))))
            }
        }
    }

    /// Over a connection of its own: a slow viewer stops its own console and nothing else.
    async fn line(&self, domain: &Domain, alias: Option<&str>) -> Result<Line, Why> {
        let dialled = self.link.dial_like_now().await?;
        let stream = dialled.client.open_console(domain, alias).await?;
        Ok(Line {
            stream,
            _work: dialled.work,
        })
    }

    /// Over a connection of its own, too. A daemon that lets us only look takes no pictures.
    async fn picture(&self, id: InstanceId) -> Result<Option<Vec<u8>>, Why> {
        let Some(live) = self.link.current() else {
            return Ok(None);
        };
        if live.rights == Rights::ReadOnly || !live.index.may_have(id) {
            return Ok(None);
        }
        let Some((domain, _)) = live.running(id).await? else {
            return Ok(None);
        };
        let dialled = self.link.dial_like_now().await?;
        match dialled.client.screenshot(&domain, 0).await {
            Ok(taken) => Ok(Some(taken.bytes)),
            Err(error) => match error.kind() {
                Some(Kind::InvalidNow | Kind::Unsupported | Kind::NoDomain) => Ok(None),
                _ => Err(error.into()),
            },
        }
    }

    /// Who was just found is behind a connection that stands, as in [`Libvirt::open`].
    async fn met(&self, instance: &Instance, kind: ConsoleKind) -> Result<Option<Meeting>, Why> {
        let Some(live) = self.link.current() else {
            return Ok(None);
        };
        if !live.index.may_have(instance.id) {
            return Ok(None);
        }
        let Some(domain) = known(live.client.by_uuid(instance.id.0).await)? else {
            return Ok(None);
        };
        let settings = &self.link.settings;
        let asks = settings.passwords && live.rights == Rights::ReadWrite;
        let password = if asks && kind == ConsoleKind::Vnc {
            live.password(&domain).await?
        } else {
            None
        };
        Ok(Some(Meeting {
            security: settings.security.clone(),
            password,
            within: reach::hosts(
                settings.uri.host(),
                &settings.address,
                instance.console(kind),
            ),
        }))
    }

    /// Where this machine keeps a domain's log. Another machine's file cannot be read from here.
    async fn log_file(&self, id: InstanceId) -> Result<Option<PathBuf>, Why> {
        if !self.link.settings.uri.is_local() {
            return Ok(None);
        }
        let Some(live) = self.link.current() else {
            return Ok(None);
        };
        let Some(xml) = live.described(id).await? else {
            return Ok(None);
        };
        domain::log_file(&xml).map_err(|bad| Why::new(&bad.to_string()))
    }

    /// A daemon that need not be there has nothing to hand over while it is not.
    fn or_nothing<T>(&self, answer: Result<Option<T>, Why>) -> Result<Option<T>, Fault> {
        answer.or_else(|why| {
            if why.absent && self.link.settings.optional {
                Ok(None)
            } else {
                Err(self.fault(&why))
            }
        })
    }

    fn fault(&self, why: &Why) -> Fault {
        let why = format_args!("cannot reach the hypervisor: {}", why.text).to_string();
        fault(&self.link.settings.name, &why)
    }

    fn or_fault(&self, answer: Result<Survey, Why>) -> Survey {
        answer.unwrap_or_else(|why| {
            if why.absent && self.link.settings.optional {
                Survey::default()
            } else {
                self.fault(&why).into()
            }
        })
    }
}

impl Driver for Libvirt {
    fn source(&self) -> &str {
        &self.link.settings.name
    }

    fn start(&self, watch: &Watch, changes: &Changes) {
        let link = Arc::clone(&self.link);
        watch.spawn_service(link.run(Arc::clone(changes), watch.clone()));
    }

    fn survey(&self) -> BoxFuture<'_, Survey> {
        Box::pin(async move { self.or_fault(self.survey_within(deadline()).await) })
    }

    fn find<'a>(&'a self, wanted: &'a InstanceRef) -> BoxFuture<'a, Survey> {
        Box::pin(async move { self.or_fault(self.find_within(wanted, deadline()).await) })
    }

    fn claimants<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Survey> {
        let holds = |it: &Instance| it.state == PowerState::Running && claims(it, target);
        Box::pin(async move {
            let live = self.link.current();
            Survey {
                instances: live.map_or_else(Vec::new, |live| live.index.select(holds)),
                faults: Vec::new(),
            }
        })
    }

    fn open_display(&self, instance: InstanceId, kind: ConsoleKind) -> BoxFuture<'_, Handed> {
        Box::pin(async move {
            let opened = timeout_at(deadline(), self.open(instance, kind)).await;
            let opened = opened.unwrap_or_else(|_| Err(Error::Deadline(DEADLINE).into()));
            Ok(self.or_nothing(opened)?)
        })
    }

    fn meeting<'a>(&'a self, instance: &'a Instance, kind: ConsoleKind) -> BoxFuture<'a, Met> {
        Box::pin(async move {
            let met = timeout_at(deadline(), self.met(instance, kind)).await;
            self.or_nothing(met.unwrap_or_else(|_| Err(Error::Deadline(DEADLINE).into())))
        })
    }

    fn screenshot(&self, instance: InstanceId) -> BoxFuture<'_, Pictured> {
        Box::pin(async move {
            let taken = timeout_at(deadline(), self.picture(instance)).await;
            self.or_nothing(taken.unwrap_or_else(|_| Err(Error::Deadline(DEADLINE).into())))
        })
    }

    fn console_log(&self, instance: InstanceId) -> BoxFuture<'_, Logged> {
        Box::pin(async move {
            let file = timeout_at(deadline(), self.log_file(instance)).await;
            let file = file.unwrap_or_else(|_| Err(Error::Deadline(DEADLINE).into()));
            read_log(self.source(), self.or_nothing(file)?).await
        })
    }
}

impl Live {
    /// The domains that `wanted` could mean. People's names are known to the index alone, and
    /// count only where no domain has the name itself.
    async fn domains(&self, wanted: &InstanceRef) -> Result<Vec<Domain>, Error> {
        let found = match wanted {
            InstanceRef::Id(id) => known(self.client.by_uuid(id.0).await)?,
            InstanceRef::Name(name) => known(self.client.by_name(name).await)?,
        };
        if let (None, InstanceRef::Name(name)) = (&found, wanted) {
            let mut domains = Vec::new();
            for id in self.index.shown_as(name) {
                domains.extend(known(self.client.by_uuid(id.0).await)?);
            }
            return Ok(domains);
        }
        Ok(found.into_iter().collect())
    }

    /// What the domain is now; nothing if it is no more.
    async fn read(
        &self,
        domain: &Domain,
        settings: &Settings,
    ) -> Result<Option<Result<Instance, Fault>>, Error> {
        let Some(xml) = known(self.client.xml(domain, false).await)? else {
            return Ok(None);
        };
        let setting = domain::Setting {
            host_address: &settings.address,
            source: &settings.name,
            handover: self.handover,
        };
        let read = domain::parse_in(&xml, &setting);
        Ok(Some(read.map_err(|bad| {
            let why = format_args!("{}: {bad}", domain.name).to_string();
            fault(&settings.name, &why)
        })))
    }

    /// The password of its VNC display; nothing if it has none, or if the daemon keeps it to
    /// itself.
    async fn password(&self, domain: &Domain) -> Result<Option<Password>, Error> {
        match known(self.client.xml(domain, true).await) {
            Ok(xml) => {
                let xml = xml.map(Zeroizing::new);
                Ok(xml.and_then(|xml| domain::vnc_password(&xml)))
            }
            Err(error) if error.kind() == Some(Kind::Denied) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The XML of a domain, whether it runs or not.
    async fn described(&self, id: InstanceId) -> Result<Option<String>, Error> {
        match known(self.client.by_uuid(id.0).await)? {
            Some(domain) => known(self.client.xml(&domain, false).await),
            None => Ok(None),
        }
    }

    /// The domain and its XML, if it runs here.
    async fn running(&self, id: InstanceId) -> Result<Option<(Domain, String)>, Error> {
        let Some(domain) = known(self.client.by_uuid(id.0).await)? else {
            return Ok(None);
        };
        if domain.id < 0 {
            return Ok(None);
        }
        let xml = known(self.client.xml(&domain, false).await)?;
        Ok(xml.map(|xml| (domain, xml)))
    }
}

fn deadline() -> Instant {
    Instant::now() + DEADLINE
}

fn known<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == Some(Kind::NoDomain) => Ok(None),
        Err(error) => Err(error),
    }
}

fn socket_from(descriptor: std::os::fd::OwnedFd) -> io::Result<UnixStream> {
    let socket = std::os::unix::net::UnixStream::from(descriptor);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

/// A pty line, and the connection that carries nothing else.
#[derive(Debug)]
struct Line {
    stream: Stream,
    _work: AbortOnDropHandle<Closed>,
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, into)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
