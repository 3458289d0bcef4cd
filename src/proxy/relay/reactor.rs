//! Where sessions on plain sockets live: one epoll and one task for all of a thread.
//!
//! To the runtime each session would be a task and two watched sockets, 1.2 KB that a quiet one
//! never uses, in pieces that leave holes between them. Here it is its own state and two descriptors
//! ([`Socket`]). The runtime sees one more descriptor, the epoll's, and one task that polls whoever
//! is ready. Everything else a session waits for wakes it as usual.
//!
//! Invariants: a resident is polled by its own thread alone; every edge of its sockets is noted
//! before it is polled; the task yields to the runtime's other tasks after [`EVENTS`] edges. A
//! knock at a place whose resident has changed wakes the new one for nothing, and no more.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::mem;
use std::net::TcpStream as Descriptor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::ioctl_fionbio;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::yield_now;

use super::socket::{EDGES, Socket};

/// Edges that are served before the runtime's other tasks have their turn.
const EVENTS: usize = 32;

/// The two sockets of a resident.
const SIDES: u64 = 2;

const NO_EDGE: Event = Event {
    flags: EventFlags::empty(),
    data: EventData::new_u64(0),
};

/// A session that a reactor serves.
pub trait Resident: Send {
    /// Its sockets, always the same two; none once it has ended.
    fn sockets(&mut self) -> Option<[&mut Socket; 2]>;

    /// Moves it on, as a future; ready once it has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

thread_local! {
    static ARRIVALS: RefCell<Arrivals> = const { RefCell::new(Arrivals::none()) };
}

/// Who wants to live on this thread and does not yet.
struct Arrivals {
    waiting: Vec<Box<dyn Resident>>,
    /// Wakes the thread's reactor; none if there is none.
    reactor: Option<Waker>,
}

impl Arrivals {
    const fn none() -> Self {
        Self {
            waiting: Vec::new(),
            reactor: None,
        }
    }
}

/// Whether this thread has a reactor.
pub fn has_reactor() -> bool {
    ARRIVALS.with_borrow(|arrivals| arrivals.reactor.is_some())
}

/// Leaves a session to the reactor of this thread, which has one.
pub fn settle(resident: Box<dyn Resident>) {
    ARRIVALS.with_borrow_mut(|arrivals| {
        arrivals.waiting.push(resident);
        if let Some(reactor) = &arrivals.reactor {
            reactor.wake_by_ref();
        }
    });
}

/// Serves the residents of this thread, until it is dropped. For a runtime of one thread; there can
/// be one on a thread.
pub(super) async fn serve_residents() -> Infallible {
    match Reactor::open() {
        Ok(mut reactor) => loop {
            poll_fn(|cx| reactor.poll_work(cx)).await;
            if reactor.work() {
                yield_now().await;
            }
        },
        Err(error) => {
            tracing::warn!(%error, "no epoll; sessions take more memory");
            pending().await
        }
    }
}

struct Reactor {
    /// The epoll. To the runtime, which watches sockets, it is one.
    epoll: TcpStream,
    /// Room for knocks; empty between two turns.
    knocks: Vec<u32>,
    places: Vec<Option<Place>>,
    free: Vec<u32>,
    post: Arc<Post>,
}

struct Place {
    resident: Box<dyn Resident>,
    knock: Arc<Knock>,
}

/// Where knocks are left.
struct Post {
    knocks: Mutex<Vec<u32>>,
    reactor: Mutex<Waker>,
}

/// Wakes one resident.
struct Knock {
    post: Arc<Post>,
    place: u32,
    /// Whether it lies in the post.
    sent: AtomicBool,
}

impl Reactor {
    fn open() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        ioctl_fionbio(&epoll, true)?;
        let nobody = || Waker::noop().clone();
        ARRIVALS.with_borrow_mut(|arrivals| arrivals.reactor = Some(nobody()));
        Ok(Self {
            epoll: TcpStream::from_std(Descriptor::from(epoll))?,
            knocks: Vec::new(),
            places: Vec::new(),
            free: Vec::new(),
            post: Arc::new(Post {
                knocks: Mutex::default(),
                reactor: Mutex::new(nobody()),
            }),
        })
    }

    /// Ready once there is something to do.
    #[expect(
        clippy::needless_pass_by_ref_mut,
        reason = "a task may not share what only one thread may have"
    )]
    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let arrived = ARRIVALS.with_borrow_mut(|arrivals| {
            arrivals.reactor = Some(cx.waker().clone());
            !arrivals.waiting.is_empty()
        });
        // In place before the post is looked at: a knock between the two is not lost.
        lock(&self.post.reactor).clone_from(cx.waker());
        if arrived || !lock(&self.post.knocks).is_empty() {
            return Poll::Ready(());
        }
        // An epoll cannot fail to be readable but by its end.
        self.epoll.poll_read_ready(cx).map(drop)
    }

    /// Serves whoever is ready. Whether there is more to do at once.
    fn work(&mut self) -> bool {
        let arrived = ARRIVALS.with_borrow_mut(|arrivals| mem::take(&mut arrivals.waiting));
        for resident in arrived {
            self.admit(resident);
        }
        let mut knocks = mem::take(&mut self.knocks);
        mem::swap(&mut knocks, &mut lock(&self.post.knocks));
        knocks.drain(..).for_each(|place| self.poll(place));
        self.knocks = knocks;
        let mut room = [NO_EDGE; EVENTS];
        let count = self.fetch(&mut room);
        let edges = room.into_iter().take(count);
        edges.for_each(|edge| self.note(edge));
        count == EVENTS || !lock(&self.post.knocks).is_empty()
    }

    /// Fetches what has become ready, and tells how much. The runtime, unless it is told that there
    /// is no more, finds the epoll readable at once again.
    fn fetch(&self, room: &mut [Event]) -> usize {
        let mut count = 0;
        let told = self.epoll.try_io(Interest::READABLE, || {
            count = epoll::wait(&self.epoll, &mut *room, Some(&Timespec::default()))?;
            let more = count == room.len();
            more.then_some(())
                .ok_or_else(|| io::ErrorKind::WouldBlock.into())
        });
        drop(told);
        count
    }

    /// Gives a session a place and its first turn. If its sockets cannot be watched, it finds them
    /// closed.
    fn admit(&mut self, mut resident: Box<dyn Resident>) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
        });
        if let Err(error) = self.watch(place, &mut *resident) {
            tracing::warn!(%error, "the sockets of a session cannot be watched");
            let sockets = resident.sockets().into_iter().flatten();
            sockets.for_each(Socket::close);
        }
        let knock = Arc::new(Knock {
            post: Arc::clone(&self.post),
            place,
            sent: AtomicBool::new(false),
        });
        if let Some(slot) = self.slot(place) {
            *slot = Some(Place { resident, knock });
        }
        self.poll(place);
    }

    fn watch(&self, place: u32, resident: &mut dyn Resident) -> io::Result<()> {
        for (side, socket) in (0..).zip(resident.sockets().into_iter().flatten()) {
            let data = EventData::new_u64(u64::from(place) * SIDES + side);
            epoll::add(&self.epoll, socket, data, EDGES)?;
        }
        Ok(())
    }

    fn note(&mut self, Event { flags, data }: Event) {
        let (place, side) = (data.u64() / SIDES, data.u64() % SIDES);
        let Ok(place) = u32::try_from(place) else {
            return;
        };
        let Some(Some(Place { resident, .. })) = self.slot(place) else {
            return;
        };
        if let Some([viewer, target]) = resident.sockets() {
            let socket = if side == 0 { viewer } else { target };
            socket.note(flags);
            self.poll(place);
        }
    }

    /// A fault in one session ends that one.
    fn poll(&mut self, place: u32) {
        let Some(Some(Place { resident, knock })) = self.slot(place) else {
            return;
        };
        knock.sent.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(knock));
        let turn = AssertUnwindSafe(|| resident.poll(&mut Context::from_waker(&waker)));
        if !matches!(catch_unwind(turn), Ok(Poll::Pending)) {
            drop(self.slot(place).and_then(Option::take));
            self.free.push(place);
        }
    }

    fn slot(&mut self, place: u32) -> Option<&mut Option<Place>> {
        self.places.get_mut(usize::try_from(place).ok()?)
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        // At the thread's end they may be gone already.
        let _gone = ARRIVALS.try_with(|arrivals| arrivals.replace(Arrivals::none()));
    }
}

impl Wake for Knock {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.sent.swap(true, Ordering::AcqRel) {
            lock(&self.post.knocks).push(self.place);
            lock(&self.post.reactor).wake_by_ref();
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(super) mod tests {
    use std::future::Pending;
    use std::pin::Pin;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::super::tests::masked;
    use super::super::{Ending, Opening, Relay, Report, Settings, run};
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// A relay that tells what it came to.
    struct Told(
        Relay<Socket, Socket, Pending<Ending>>,
        Option<oneshot::Sender<Report>>,
    );

    impl Resident for Told {
        fn sockets(&mut self) -> Option<[&mut Socket; 2]> {
            Some(self.0.sockets())
        }

        fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            let ended = Pin::new(&mut self.0).poll(cx);
            ended.map(|report| drop(self.1.take().unwrap().send(report)))
        }
    }

    /// Has the reactor of this thread, once it is there, relay between two sockets.
    pub(in super::super) async fn reside(
        viewer: UnixStream,
        target: UnixStream,
        settings: &Arc<Settings>,
    ) -> oneshot::Receiver<Report> {
        while !has_reactor() {
            yield_now().await;
        }
        let sockets = [viewer, target].map(|it| Socket::from_unix(it).unwrap());
        let [viewer, target] = sockets;
        let (tell, told) = oneshot::channel();
        let relay = run(viewer, target, Opening::default(), settings, pending());
        settle(Box::new(Told(relay, Some(tell))));
        told
    }

    /// A resident that panics at its second turn.
    struct Faulty([Socket; 2], bool);

    impl Resident for Faulty {
        fn sockets(&mut self) -> Option<[&mut Socket; 2]> {
            Some(self.0.each_mut())
        }

        fn poll(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
            assert!(!self.1, "on purpose");
            self.1 = true;
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn more_sessions_than_edges_in_one_turn_are_all_served() {
        let _reactor = tokio::spawn(serve_residents());
        let settings = Arc::new(Settings::default());
        let mut sessions = Vec::new();
        for _ in 0..5 * EVENTS {
            let (viewer, target) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
            let told = reside(viewer.1, target.1, &settings).await;
            sessions.push((viewer.0, target.0, told));
        }

        for round in 0..3_u8 {
            for (viewer, ..) in &mut sessions {
                viewer.write_all(&masked(0x82, &[round])).await.unwrap();
            }
            for (_, target, _) in &mut sessions {
                let read = timeout(LONG, target.read_u8()).await;
                assert_eq!(read.unwrap().unwrap(), round);
            }
        }
        for (viewer, target, told) in sessions {
            drop((viewer, target));
            assert_eq!(timeout(LONG, told).await.unwrap().unwrap().up, 3);
        }
    }

    #[tokio::test]
    async fn what_a_peer_said_before_it_left_is_not_lost() {
        let _reactor = tokio::spawn(serve_residents());
        let (viewer, mut target) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        target.0.write_all(b"last words").await.unwrap();
        target.0.shutdown().await.unwrap();

        let told = reside(viewer.1, target.1, &Arc::new(Settings::default())).await;

        let (mut viewer, mut heard) = (viewer.0, [0; 12]);
        let read = timeout(LONG, viewer.read_exact(&mut heard)).await;
        let _length = read.unwrap().unwrap();
        assert_eq!(heard[2..], *b"last words");
        drop(viewer);
        assert_eq!(timeout(LONG, told).await.unwrap().unwrap().down, 10);
    }

    #[tokio::test]
    async fn a_fault_in_one_session_does_not_end_the_others() {
        let _reactor = tokio::spawn(serve_residents());
        let settings = Arc::new(Settings::default());
        let (viewer, target) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let _told = reside(viewer.1, target.1, &settings).await;
        let (mut one, mut other) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let sockets = [one.1, other.1].map(|it| Socket::from_unix(it).unwrap());
        settle(Box::new(Faulty(sockets, false)));

        for end in [&mut one.0, &mut other.0] {
            let read = timeout(LONG, end.read(&mut [0])).await;
            assert_eq!(read.unwrap().unwrap(), 0, "its sockets are closed");
        }
        let (mut viewer, mut target) = (viewer.0, target.0);
        viewer.write_all(&masked(0x82, b"k")).await.unwrap();
        let read = timeout(LONG, target.read_u8()).await;
        assert_eq!(read.unwrap().unwrap(), b'k');
    }

    #[tokio::test]
    async fn a_session_whose_socket_cannot_be_watched_ends() {
        let _reactor = tokio::spawn(serve_residents());
        yield_now().await;
        let file = tempfile::tempfile().unwrap();
        let (mut far, near) = UnixStream::pair().unwrap();
        let (viewer, target) = (Socket::new(file.into()), Socket::from_unix(near).unwrap());
        let (tell, told) = oneshot::channel();
        let settings = Arc::new(Settings::default());
        let relay = run(viewer, target, Opening::default(), &settings, pending());

        settle(Box::new(Told(relay, Some(tell))));

        let read = timeout(LONG, far.read(&mut [0])).await;
        assert_eq!(read.unwrap().unwrap(), 0);
        assert!(timeout(LONG, told).await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn residents_end_with_their_reactor() {
        let reactor = tokio::spawn(serve_residents());
        let (viewer, target) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let _told = reside(viewer.1, target.1, &Arc::new(Settings::default())).await;
        let mut viewer = viewer.0;
        viewer.write_all(&masked(0x82, b"k")).await.unwrap();
        let mut target = target.0;
        assert_eq!(target.read_u8().await.unwrap(), b'k');

        reactor.abort();

        let read = timeout(LONG, viewer.read(&mut [0])).await;
        assert_eq!(read.unwrap().unwrap(), 0);
        assert!(!has_reactor());
    }
}
