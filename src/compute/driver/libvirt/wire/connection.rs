//! Calls and their replies, events and pings over one way to a daemon.
//!
//! [`Connection::new`] makes a handle and a future that does all reading and writing; whoever
//! spawns it decides how long it lives. Replies may come in any order. A call that is given up
//! leaves nothing behind but a reply that nobody takes.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::error::{Closed, Error, Remote};
use super::frame::{Header, Status, Type};
use super::io::{Io, Message, Reader, Writer};
use super::procedure::{KEEPALIVE, Procedure};
use super::stream::Stream;
use super::table::Table;
use super::xdr::Encoder;

/// Messages that may wait to be written; a caller beyond them waits, within its own limit.
const QUEUE: usize = 64;

/// Events that may wait to be taken; after one more, the taker is told that it missed some.
const EVENTS: usize = 256;

/// Pieces of a stream that may wait to be read, each at most libvirt's 256 KiB.
const PIECES: usize = 4;

/// "Are you there?" and "I am" of the keepalive program.
const PING: i32 = 1;
const PONG: i32 = 2;

/// When a silent daemon is given up: after `unanswered` pings, one every `interval`.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    /// How long nothing may come before a ping is sent.
    pub interval: Duration,
    /// How many pings may stay without any sign of life.
    pub unanswered: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(3),
            unanswered: 3,
        }
    }
}

/// What a call brought.
#[derive(Debug)]
pub struct Reply {
    /// XDR.
    pub payload: Vec<u8>,
    /// The descriptors that came with it.
    pub descriptors: Vec<OwnedFd>,
}

/// Something the daemon told without being asked.
#[derive(Debug)]
pub enum Event {
    /// This happened.
    Happened {
        /// Which event.
        procedure: Procedure,
        /// XDR.
        payload: Vec<u8>,
    },
    /// So much happened that some events are lost: look at everything again.
    Lagged,
}

/// Takes events.
#[derive(Debug)]
pub struct Events {
    queue: mpsc::Receiver<Event>,
    shared: Arc<Shared>,
}

impl Events {
    /// The next event; nothing once the connection has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        if self.shared.lagged.swap(false, Ordering::AcqRel) {
            return Some(Event::Lagged);
        }
        self.queue.recv().await
    }
}

/// A handle on a connection. The connection ends when no handle and no stream of it is left.
#[derive(Clone, Debug)]
pub struct Connection {
    out: mpsc::Sender<Vec<u8>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) table: Table,
    /// Something came since the last look.
    heard: AtomicBool,
    /// Nothing can come, because a stream's reader is slow.
    held_up: AtomicBool,
    pings: Notify,
    lagged: AtomicBool,
}

impl Connection {
    /// A connection over `io`. It works while the future is polled, and ends with it; the future
    /// ends with the reason when the stream does.
    pub fn new(
        io: Io,
        keepalive: Keepalive,
    ) -> (Self, Events, impl Future<Output = Closed> + Send + use<>) {
        let (out, queue) = mpsc::channel(QUEUE);
        let (event, events) = mpsc::channel(EVENTS);
        let shared = Arc::new(Shared::default());
        let (reader, writer) = io.split();
        let incoming = Incoming {
            out: out.downgrade(),
            event,
            shared: Arc::clone(&shared),
        };
        let events = Events {
            queue: events,
            shared: Arc::clone(&shared),
        };
        let work = work(reader, incoming, (writer, queue), keepalive);
        (Self { out, shared }, events, work)
    }

    /// Asks the daemon and waits for its reply up to `limit`. Cancel-safe: the daemon may act
    /// all the same.
    pub async fn call(
        &self,
        procedure: Procedure,
        arguments: Encoder,
        limit: Duration,
    ) -> Result<Reply, Error> {
        let (answer, reply) = oneshot::channel();
        let serial = self.shared.table.enter(answer, None)?;
        self.exchange(procedure, arguments, limit, serial, reply)
            .await
    }

    /// Asks for something that comes as a stream. While a stream's pieces are not read, nothing
    /// else arrives either: give it a connection of its own.
    pub async fn open_stream(
        &self,
        procedure: Procedure,
        arguments: Encoder,
        limit: Duration,
    ) -> Result<(Reply, Stream), Error> {
        let (answer, reply) = oneshot::channel();
        let (sender, pieces) = mpsc::channel(PIECES);
        let serial = self.shared.table.enter(answer, Some(sender))?;
        let header = Header {
            r#type: Type::Stream,
            status: Status::Continue,
            ..Header::call(procedure.0, serial)
        };
        let stream = Stream::new(header, pieces, self.out.clone(), Arc::clone(&self.shared));
        let reply = self.exchange(procedure, arguments, limit, serial, reply);
        Ok((reply.await?, stream))
    }

    /// From now on the daemon must show signs of life, as [`Keepalive`] says.
    pub fn start_pings(&self) {
        self.shared.pings.notify_one();
    }

    async fn exchange(
        &self,
        procedure: Procedure,
        arguments: Encoder,
        limit: Duration,
        serial: u32,
        reply: oneshot::Receiver<Result<Reply, Error>>,
    ) -> Result<Reply, Error> {
        let _leave = Leave(&self.shared.table, serial);
        let message = Header::call(procedure.0, serial).encode(&arguments.into_bytes());
        let answered = timeout(limit, async {
            let ended = || Error::from(self.shared.table.reason());
            self.out.send(message).await.map_err(|_| ended())?;
            reply.await.unwrap_or_else(|_| Err(ended()))
        });
        answered.await.unwrap_or(Err(Error::Deadline(limit)))
    }
}

/// Takes a call off the table, whether it was answered or given up.
struct Leave<'a>(&'a Table, u32);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.leave(self.1);
    }
}

/// Reading, writing and pinging side by side, so that none waits for another.
async fn work(
    reader: Reader,
    incoming: Incoming,
    (writer, queue): (Writer, mpsc::Receiver<Vec<u8>>),
    keepalive: Keepalive,
) -> Closed {
    let shared = Arc::clone(&incoming.shared);
    let end = Ending(&shared);
    let out = incoming.out.clone();
    let why = tokio::select! {
        why = incoming.take_all(reader) => why,
        why = write_all(writer, queue) => why,
        why = ping(&shared, &out, keepalive) => why,
    };
    shared.table.close(&why);
    drop(end);
    why
}

/// Tells everybody even if the work is dropped in the middle.
struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let why = self.0.table.reason();
        self.0.table.close(&why);
    }
}

async fn write_all(mut writer: Writer, mut queue: mpsc::Receiver<Vec<u8>>) -> Closed {
    while let Some(message) = queue.recv().await {
        if let Err(error) = writer.write_all(&message).await {
            return error.into();
        }
    }
    Closed::Dropped
}

async fn ping(shared: &Shared, out: &mpsc::WeakSender<Vec<u8>>, keepalive: Keepalive) -> Closed {
    shared.pings.notified().await;
    let mut unanswered = 0;
    loop {
        sleep(keepalive.interval).await;
        let heard = shared.heard.swap(false, Ordering::AcqRel);
        if heard || shared.held_up.load(Ordering::Acquire) {
            unanswered = 0;
            continue;
        }
        if unanswered >= keepalive.unanswered {
            return Closed::Silent;
        }
        unanswered += 1;
        send_keepalive(out, PING);
    }
}

/// Dropped when the queue is full: then a sign of life is on its way already.
fn send_keepalive(out: &mpsc::WeakSender<Vec<u8>>, procedure: i32) {
    let header = Header {
        program: KEEPALIVE,
        r#type: Type::Message,
        ..Header::call(procedure, 0)
    };
    if let Some(out) = out.upgrade() {
        let _full = out.try_send(header.encode(&[])).is_err();
    }
}

/// What comes from the daemon, and where it goes.
struct Incoming {
    out: mpsc::WeakSender<Vec<u8>>,
    event: mpsc::Sender<Event>,
    shared: Arc<Shared>,
}

impl Incoming {
    async fn take_all(&self, mut reader: Reader) -> Closed {
        loop {
            match reader.message().await {
                Ok(message) => self.take(message).await,
                Err(closed) => return closed,
            }
        }
    }

    async fn take(&self, message: Message) {
        self.shared.heard.store(true, Ordering::Release);
        let header = message.header;
        match header.r#type {
            _ if header.program == KEEPALIVE => {
                if header.procedure == PING {
                    send_keepalive(&self.out, PONG);
                }
            }
            Type::Reply | Type::ReplyWithDescriptors => self.answer(message),
            Type::Message => self.happened(message),
            Type::Stream => self.piece(&header, message.payload).await,
            Type::StreamHole => self.refuse_hole(header.serial),
            Type::Call | Type::CallWithDescriptors => {}
        }
    }

    fn answer(&self, message: Message) {
        let reply = match message.header.status {
            Status::Error => Err(Remote::decode(&message.payload).into()),
            Status::Ok | Status::Continue => Ok(Reply {
                payload: message.payload,
                descriptors: message.descriptors,
            }),
        };
        self.shared.table.answer(message.header.serial, reply);
    }

    fn happened(&self, message: Message) {
        let event = Event::Happened {
            procedure: Procedure(message.header.procedure),
            payload: message.payload,
        };
        if self.event.try_send(event).is_err() {
            self.shared.lagged.store(true, Ordering::Release);
        }
    }

    /// An empty piece is the end of what the daemon sends; so is its agreement to finish.
    async fn piece(&self, header: &Header, payload: Vec<u8>) {
        let table = &self.shared.table;
        let serial = header.serial;
        match header.status {
            Status::Continue if !payload.is_empty() => {
                if let Some(pieces) = table.stream(serial) {
                    self.shared.held_up.store(true, Ordering::Release);
                    let _reader_left = pieces.send(Ok(payload)).await.is_err();
                    self.shared.held_up.store(false, Ordering::Release);
                }
            }
            Status::Continue | Status::Ok => drop(table.end_stream(serial)),
            Status::Error => {
                let why = Remote::decode(&payload).into();
                self.fail_stream(serial, why).await;
            }
        }
    }

    async fn fail_stream(&self, serial: u32, why: Error) {
        if let Some(pieces) = self.shared.table.end_stream(serial) {
            let _reader_left = pieces.send(Err(why)).await.is_err();
        }
    }

    /// Holes come only to clients that asked for sparse streams; this one does not.
    fn refuse_hole(&self, serial: u32) {
        if let Some(pieces) = self.shared.table.end_stream(serial) {
            let why = Remote {
                code: 0,
                domain: 0,
                message: "a hole in a stream that may have none".to_owned(),
            };
            let _reader_left_or_full = pieces.try_send(Err(why.into())).is_err();
        }
    }
}
