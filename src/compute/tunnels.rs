//! How many consoles this machine carries for proxies on others, and no more than it may.
//!
//! Entered by `hand_out` before it opens anything. Each costs two sockets and the buffers between
//! them, and all of a host's instances may be looked at by several people at once.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::live::Live;
use crate::rpc::Duplex;

/// What became of the tunnels, for those who count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TunnelNews {
    /// One more is carried.
    Opened,
    /// One less is.
    Closed,
    /// One more was wanted than may be.
    Refused,
}

/// The tunnels of this machine. Cheap to clone: all clones are one.
#[derive(Clone)]
pub struct Tunnels(Arc<Inner>);

struct Inner {
    most: Live<usize>,
    open: AtomicUsize,
    told: Box<dyn Fn(TunnelNews) + Send + Sync>,
}

impl Tunnels {
    /// At most so many. Calls `told` from anywhere: it must not wait.
    pub fn new(most: usize, told: impl Fn(TunnelNews) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            most: Live::new(most),
            open: AtomicUsize::new(0),
            told: Box::new(told),
        }))
    }

    /// Another limit, for those to come.
    pub fn limit(&self, most: usize) {
        self.0.most.exchange(most);
    }

    /// A place for one more. Errors: how many there may be.
    pub(super) fn enter(&self) -> Result<Place, usize> {
        let most = *self.0.most.now();
        let one_more = |open: usize| (open < most).then_some(open + 1);
        let open = &self.0.open;
        if open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_err()
        {
            (self.0.told)(TunnelNews::Refused);
            return Err(most);
        }
        (self.0.told)(TunnelNews::Opened);
        Ok(Place(self.clone()))
    }
}

impl Default for Tunnels {
    /// Any number, and nobody counts.
    fn default() -> Self {
        Self::new(usize::MAX, |_| {})
    }
}

impl fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tunnels").field(&self.0.open).finish()
    }
}

/// The place of one tunnel, free again once this is dropped.
#[derive(Debug)]
pub(super) struct Place(Tunnels);

impl Place {
    /// The same stream, which has the place for as long as it lives.
    pub(super) fn of(self, stream: Box<dyn Duplex>) -> Box<dyn Duplex> {
        Box::new(Carried {
            stream,
            _place: self,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self(tunnels) = self;
        let _before = tunnels.0.open.fetch_sub(1, Ordering::Relaxed);
        (tunnels.0.told)(TunnelNews::Closed);
    }
}

struct Carried {
    stream: Box<dyn Duplex>,
    _place: Place,
}

impl Carried {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut dyn Duplex> {
        Pin::new(&mut *self.get_mut().stream)
    }
}

impl AsyncRead for Carried {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(context, into)
    }
}

impl AsyncWrite for Carried {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::TunnelNews::{Closed, Opened, Refused};
    use super::*;

    #[test]
    fn a_place_is_one_tunnels_and_another_limit_counts_at_once() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hearing = Arc::clone(&heard);
        let tunnels = Tunnels::new(1, move |news| hearing.lock().unwrap().push(news));

        let first = tunnels.enter().unwrap();
        assert_eq!(tunnels.enter().unwrap_err(), 1);
        tunnels.limit(2);
        let second = tunnels.enter().unwrap();
        assert_eq!(tunnels.enter().unwrap_err(), 2);
        drop(first);
        let third = tunnels.enter().unwrap();
        drop((second, third));

        let expected = [
            Opened, Refused, Opened, Refused, Closed, Opened, Closed, Closed,
        ];
        assert_eq!(*heard.lock().unwrap(), expected);
    }

    #[tokio::test]
    async fn a_stream_has_its_place_until_it_is_dropped() {
        let tunnels = Tunnels::new(1, |_| {});
        let (near, _far) = tokio::io::duplex(1);

        let stream = tunnels.enter().unwrap().of(Box::new(near));

        assert!(tunnels.enter().is_err());
        drop(stream);
        assert!(tunnels.enter().is_ok());
    }
}
