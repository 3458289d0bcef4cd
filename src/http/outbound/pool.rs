use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use super::connection::{Connection, Origin};

/// Connections that are kept open while nobody calls.
const MOST: usize = 8;

/// How long one is kept unused: less than the idle time of the load balancers in between, which
/// may forget a connection without telling.
const IDLE: Duration = Duration::from_secs(30);

/// How long a connection may take to get ready after a whole answer was read.
const SETTLE: Duration = Duration::from_millis(100);

/// The connections that wait for their next call.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Vec<Connection>>);

impl Pool {
    /// The one used last, which is the least likely to be dead.
    pub(super) fn take(&self, origin: &Origin) -> Option<Connection> {
        let mut kept = self.lock();
        kept.retain(|one| !one.is_closed() && one.last_used.elapsed() < IDLE);
        let place = kept.iter().rposition(|one| one.origin == *origin)?;
        Some(kept.remove(place))
    }

    /// Keeps a connection, unless its peer wants to close it; the oldest has to go for it.
    pub(super) async fn keep(&self, mut connection: Connection) {
        if !matches!(timeout(SETTLE, connection.is_ready()).await, Ok(true)) {
            return;
        }
        connection.last_used = tokio::time::Instant::now();
        let mut kept = self.lock();
        if kept.len() == MOST {
            drop(kept.remove(0));
        }
        kept.push(connection);
    }

    /// Closes them all.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
