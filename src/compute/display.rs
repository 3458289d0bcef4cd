//! Consoles that a hypervisor hands over, with no port and no address in between.
//!
//! Asked by a proxy in the same process right after it rechecked the grant. What is handed over
//! belongs to the instance it was asked for, so no port can have been recycled under it. Consoles of
//! other machines come through a tunnel, opened there by `hand_out`.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::driver::{Unopened, silent};
use super::{ComputeError, Drivers, Opened};
use crate::model::{ConsoleKind, InstanceId, InstanceRef};
use crate::rpc::Tunnel;

/// A stream both ways.
pub trait Line: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}

/// A console, open.
pub enum Display {
    /// A display, which asks for no password.
    Socket(UnixStream),
    /// A serial line.
    Line(Box<dyn Line>),
    /// Either, or a server that is still to be entered, on another machine.
    Tunnel(Box<Tunnelled>),
}

/// A console of another machine.
#[derive(Debug)]
pub struct Tunnelled {
    /// The way there.
    pub stream: Tunnel,
    /// What was opened there.
    pub opened: Opened,
}

impl fmt::Debug for Display {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Socket(_) => "Display::Socket",
            Self::Line(_) => "Display::Line",
            Self::Tunnel(_) => "Display::Tunnel",
        })
    }
}

impl AsyncRead for Display {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_read(context, into),
            Self::Line(stream) => Pin::new(stream).poll_read(context, into),
            Self::Tunnel(tunnelled) => Pin::new(&mut tunnelled.stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Display {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Line(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tunnel(tunnelled) => Pin::new(&mut tunnelled.stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_flush(context),
            Self::Line(stream) => Pin::new(stream).poll_flush(context),
            Self::Tunnel(tunnelled) => Pin::new(&mut tunnelled.stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Line(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tunnel(tunnelled) => Pin::new(&mut tunnelled.stream).poll_shutdown(context),
        }
    }
}

/// Opens what hypervisors hand over.
#[derive(Clone, Debug)]
pub struct Displays {
    drivers: Drivers,
    /// Whether there is no other way to a console.
    only: bool,
}

impl Displays {
    pub(super) fn new(drivers: Drivers) -> Self {
        Self {
            drivers,
            only: false,
        }
    }

    /// The same where nothing may be dialled.
    #[must_use]
    pub fn only(self) -> Self {
        Self { only: true, ..self }
    }

    /// Whether what is not handed over must not be dialled.
    pub fn are_only(&self) -> bool {
        self.only
    }

    /// The console of a running instance; nothing if no hypervisor hands it over, and it has to be
    /// dialled. Errors: `NotOpened`, if one could not be asked; `Crowded`. Cancel-safe: what was
    /// opened is closed.
    pub async fn open(
        &self,
        instance: InstanceId,
        kind: ConsoleKind,
    ) -> Result<Option<Display>, ComputeError> {
        let mut fault = None;
        let name = instance.to_string();
        let id = InstanceRef::Id(instance);
        let drivers = self.drivers.now();
        for driver in drivers.iter().filter(|it| it.knows(&id) != Some(false)) {
            let opened = timeout(driver.patience(), driver.open_display(instance, kind)).await;
            match opened.unwrap_or_else(|_| Err(silent(driver.source()).into())) {
                Ok(Some(display)) => return Ok(Some(display)),
                Ok(None) => {}
                Err(Unopened::Failed(failed)) => fault = fault.or(Some(failed)),
                Err(Unopened::Crowded(most)) => return Err(ComputeError::Crowded { name, most }),
            }
        }
        fault.map_or(Ok(None), |fault| {
            Err(ComputeError::NotOpened { name, fault })
        })
    }
}
