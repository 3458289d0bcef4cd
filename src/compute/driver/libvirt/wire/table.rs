//! Who waits for what on one connection.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::connection::Reply;
use super::error::{Closed, Error};

/// What a reply is delivered to.
type Answer = oneshot::Sender<Result<Reply, Error>>;

/// What the pieces of a stream are delivered to.
pub(super) type Pieces = mpsc::Sender<Result<Vec<u8>, Error>>;

/// The calls that have no reply yet and the streams that have not ended, by serial.
#[derive(Debug, Default)]
pub(super) struct Table(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: u32,
    calls: HashMap<u32, Answer>,
    streams: HashMap<u32, Pieces>,
    closed: Option<Closed>,
}

impl Table {
    /// Chooses a serial that nobody waits for, and waits for it. Errors: the connection's end.
    pub(super) fn enter(&self, answer: Answer, pieces: Option<Pieces>) -> Result<u32, Closed> {
        let mut state = self.lock();
        if let Some(closed) = &state.closed {
            return Err(closed.clone());
        }
        let serial = loop {
            state.last = state.last.wrapping_add(1);
            let taken = state.calls.contains_key(&state.last);
            if state.last != 0 && !taken && !state.streams.contains_key(&state.last) {
                break state.last;
            }
        };
        let _none = state.calls.insert(serial, answer);
        if let Some(pieces) = pieces {
            let _none = state.streams.insert(serial, pieces);
        }
        Ok(serial)
    }

    /// The call's reply, if anybody still waits for it. A refused call has no stream.
    pub(super) fn answer(&self, serial: u32, reply: Result<Reply, Error>) {
        let mut state = self.lock();
        if reply.is_err() {
            let _none = state.streams.remove(&serial);
        }
        if let Some(answer) = state.calls.remove(&serial) {
            let _caller_left = answer.send(reply).is_err();
        }
    }

    /// Where the pieces of this stream go.
    pub(super) fn stream(&self, serial: u32) -> Option<Pieces> {
        self.lock().streams.get(&serial).cloned()
    }

    /// No more pieces come.
    pub(super) fn end_stream(&self, serial: u32) -> Option<Pieces> {
        self.lock().streams.remove(&serial)
    }

    /// Nobody waits for this call's reply any more.
    pub(super) fn leave(&self, serial: u32) {
        let _answered = self.lock().calls.remove(&serial);
    }

    /// The connection has ended: everybody is told, now and from now on.
    pub(super) fn close(&self, why: &Closed) {
        let (calls, streams) = {
            let mut state = self.lock();
            state.closed = Some(why.clone());
            let calls = std::mem::take(&mut state.calls);
            (calls, std::mem::take(&mut state.streams))
        };
        for answer in calls.into_values() {
            let _caller_left = answer.send(Err(why.clone().into())).is_err();
        }
        for pieces in streams.into_values() {
            let _full = pieces.try_send(Err(why.clone().into())).is_err();
        }
    }

    /// Why the connection has ended.
    pub(super) fn reason(&self) -> Closed {
        self.lock().closed.clone().unwrap_or(Closed::Dropped)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
