//! Consoles that a hypervisor hands over, with no port and no address in between.
//!
//! Asked by a proxy in the same process right after it rechecked the grant. Never far: a stream
//! cannot be sent to another machine. What is handed over belongs to the instance it was asked
//! for, so no port can have been recycled under it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::ComputeError;
use super::driver::{DEADLINE, Driver, silent};
use crate::model::{ConsoleKind, InstanceId};

/// A stream both ways.
pub trait Line: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}

/// A console, open.
pub enum Display {
    /// A display, which asks for no password.
    Socket(UnixStream),
    /// A serial line.
    Line(Box<dyn Line>),
}

impl fmt::Debug for Display {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Socket(_) => "Display::Socket",
            Self::Line(_) => "Display::Line",
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
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_flush(context),
            Self::Line(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Line(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Opens what hypervisors hand over.
#[derive(Clone, Debug)]
pub struct Displays(Arc<[Arc<dyn Driver>]>);

impl Displays {
    pub(super) fn new(drivers: Arc<[Arc<dyn Driver>]>) -> Self {
        Self(drivers)
    }

    /// The console of a running instance; nothing if no hypervisor hands it over, and it has to be
    /// dialled. Errors: `Source`, if one could not be asked. Cancel-safe: what was opened is
    /// closed.
    pub async fn open(
        &self,
        instance: InstanceId,
        kind: ConsoleKind,
    ) -> Result<Option<Display>, ComputeError> {
        let mut fault = None;
        for driver in &*self.0 {
            let opened = timeout(DEADLINE, driver.open_display(instance, kind)).await;
            match opened.unwrap_or_else(|_| Err(silent(driver.source()))) {
                Ok(Some(display)) => return Ok(Some(display)),
                Ok(None) => {}
                Err(failed) => fault = fault.or(Some(failed)),
            }
        }
        let name = instance.to_string();
        fault.map_or(Ok(None), |fault| Err(ComputeError::Source { name, fault }))
    }
}
