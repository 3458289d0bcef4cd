//! A small RFB server with a moving test picture: a console without any hypervisor.
//!
//! Run by the app for `serve --demo` and by tests; speaks RFB 3.3, 3.7 and 3.8 without
//! authentication (RFC 6143), Raw and Hextile, and lets viewers resize the screen they share.
//! Knows nothing of the gateway but how to end.
//!
//! Two signal squares in the top left corner let a program tell from one pixel whether input
//! arrived; nothing is ever drawn over them:
//!
//! | pixels | idle | then |
//! |---|---|---|
//! | x 0..16, y 0..16 | `#2060c0` | `#20c060` once any key was pressed since the start |
//! | x 16..32, y 0..16 | `#c02060` | `#c0a020` while any pointer button is held |

mod area;
mod canvas;
mod encode;
mod font;
mod keys;
mod picture;
mod protocol;
mod screen;
#[cfg(test)]
mod tests;
mod viewer;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::drain::Watch;
use screen::Screen;

/// Viewers at the same time; further ones are hung up on.
const VIEWERS: usize = 32;
/// A rest after a failed accept, which is lack of descriptors: they come back when others end.
const BREATH: Duration = Duration::from_millis(100);

/// The demo server, bound and ready to run.
#[derive(Debug)]
pub struct Demo {
    listener: TcpListener,
    address: SocketAddr,
}

impl Demo {
    /// Binds to a free port of loopback.
    pub async fn bind() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where viewers find it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `watch` closes; draining stops nothing, for sessions live on. Without viewers
    /// it sleeps. Cancel-safe in that dropping it ends the accepting; viewers end with `watch`.
    pub async fn run(self, watch: Watch) {
        let screen = Arc::new(Screen::new());
        let places = Arc::new(Semaphore::new(VIEWERS));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = watch.closing() => return,
            };
            match accepted {
                Ok((stream, _)) => admit(stream, &screen, &places, &watch),
                Err(error) => {
                    tracing::debug!(%error, "demo accept failed");
                    tokio::select! {
                        () = sleep(BREATH) => {}
                        () = watch.closing() => return,
                    }
                }
            }
        }
    }
}

fn admit(stream: TcpStream, screen: &Arc<Screen>, places: &Arc<Semaphore>, watch: &Watch) {
    let Ok(place) = Arc::clone(places).try_acquire_owned() else {
        tracing::debug!(limit = VIEWERS, "demo viewer turned away");
        return;
    };
    watch.spawn_service(view(stream, Arc::clone(screen), place, watch.clone()));
}

async fn view(stream: TcpStream, screen: Arc<Screen>, _place: OwnedSemaphorePermit, watch: Watch) {
    tokio::select! {
        Err(error) = viewer::serve(stream, &screen) => {
            let error: &dyn std::error::Error = &error;
            tracing::debug!(error, "demo viewer ended");
        }
        () = watch.closing() => {}
    }
}
