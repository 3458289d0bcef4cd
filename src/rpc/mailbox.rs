use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::Poll;

use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::{DEADLINE, Role, Unreachable};
use crate::drain::Watch;

/// Calls that a role works on at one time, and that may wait for it before it is called busy.
const QUEUE: usize = 1024;

/// The near way to a role.
pub struct Mailbox<R: Role> {
    role: Weak<dyn Begin<R>>,
    /// Where the role's tasks run.
    runtime: Handle,
    letters: mpsc::Sender<Letter<R>>,
}

type Answer<R> = Result<<R as Role>::Reply, <R as Role>::Error>;

type Call<R> = Pin<Box<dyn Future<Output = Answer<R>> + Send>>;

/// A role whose calls are all of one type: one may call itself by way of another.
trait Begin<R: Role>: Send + Sync {
    fn begin(self: Arc<Self>, request: R::Request) -> Call<R>;
}

impl<R: Role> Begin<R> for R {
    fn begin(self: Arc<Self>, request: R::Request) -> Call<R> {
        Box::pin(async move { self.call(request).await })
    }
}

/// A call that has begun and waits for something.
struct Letter<R: Role> {
    call: Call<R>,
    answer: oneshot::Sender<Answer<R>>,
}

/// Starts `role` in this process. It answers until nobody can call it or the process closes; a
/// call whose caller left is dropped.
pub fn serve<R: Role>(role: R, watch: &Watch) -> Mailbox<R> {
    let (sender, letters) = mpsc::channel(QUEUE);
    let role = Arc::new(role);
    let weak = Arc::downgrade(&role);
    let mailbox = Mailbox {
        role: weak,
        runtime: Handle::current(),
        letters: sender,
    };
    watch.spawn_service(answer_all(role, letters, watch.clone()));
    mailbox
}

async fn answer_all<R: Role>(_role: Arc<R>, mut letters: mpsc::Receiver<Letter<R>>, watch: Watch) {
    let places = Arc::new(Semaphore::new(QUEUE));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, letters.recv().await)
        };
        let (place, letter) = tokio::select! {
            next = next => next,
            () = watch.closing() => return,
        };
        let Some(Letter { call, mut answer }) = letter else {
            return;
        };
        watch.spawn_service(async move {
            tokio::select! {
                reply = call => drop(answer.send(reply)),
                () = answer.closed() => {}
            }
            drop(place);
        });
    }
}

impl<R: Role> Mailbox<R> {
    /// What the role can say at once is said without a detour; what waits for something goes over
    /// the channel and is finished by the role's own tasks.
    pub(super) async fn call(&self, request: R::Request) -> Answer<R> {
        let gone = || Unreachable::Gone(R::NAME.to_owned());
        let role = self.role.upgrade().ok_or_else(gone)?;
        let letter = self.letters.try_reserve().map_err(|error| match error {
            TrySendError::Full(()) => Unreachable::Busy(R::NAME.to_owned()),
            TrySendError::Closed(()) => gone(),
        })?;
        let mut call = role.begin(request);
        let begun = poll_fn(|context| {
            // Whatever it starts belongs to the role's runtime, whoever calls.
            let _there = self.runtime.enter();
            Poll::Ready(call.as_mut().poll(context))
        });
        if let Poll::Ready(reply) = begun.await {
            return reply;
        }
        let (answer, reply) = oneshot::channel();
        letter.send(Letter { call, answer });
        match timeout(DEADLINE, reply).await {
            Ok(reply) => reply.unwrap_or_else(|_| Err(gone().into())),
            Err(_late) => Err(Unreachable::Deadline(R::NAME.to_owned()).into()),
        }
    }
}

impl<R: Role> Clone for Mailbox<R> {
    fn clone(&self) -> Self {
        Self {
            role: Weak::clone(&self.role),
            runtime: self.runtime.clone(),
            letters: self.letters.clone(),
        }
    }
}

impl<R: Role> fmt::Debug for Mailbox<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mailbox").field(&R::NAME).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use super::super::Client;
    use super::*;
    use crate::drain::Drain;

    struct Echo;

    impl Role for Echo {
        const NAME: &'static str = "echo";
        type Request = Option<u32>;
        type Reply = u32;
        type Error = Unreachable;

        fn callers(_request: &Option<u32>) -> &'static [&'static str] {
            &["api"]
        }

        async fn call(&self, request: Option<u32>) -> Result<u32, Unreachable> {
            match request {
                Some(number) => Ok(number),
                None => pending().await,
            }
        }
    }

    #[tokio::test]
    async fn a_slow_call_does_not_hold_up_the_next() {
        let drain = Drain::default();
        let client = Client::Near(serve(Echo, &drain.watch()));
        let slow = client.clone();
        let stuck = tokio::spawn(async move { slow.call(None).await });

        assert_eq!(client.call(Some(7)).await, Ok(7));
        stuck.abort();
    }

    /// Says which runtime its calls run in.
    struct Local;

    impl Role for Local {
        const NAME: &'static str = "local";
        type Request = ();
        type Reply = String;
        type Error = Unreachable;

        fn callers(_request: &()) -> &'static [&'static str] {
            &[]
        }

        async fn call(&self, _request: ()) -> Result<String, Unreachable> {
            Ok(Handle::current().id().to_string())
        }
    }

    #[tokio::test]
    async fn a_call_from_another_runtime_runs_in_the_roles_own() {
        let drain = Drain::default();
        let client = Client::Near(serve(Local, &drain.watch()));
        let elsewhere = std::thread::spawn(move || {
            let other = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            (other.block_on(client.call(())), other.handle().id())
        });

        let (answer, other) = elsewhere.join().unwrap();

        let own = Handle::current().id();
        assert_eq!(answer, Ok(own.to_string()));
        assert_ne!(own, other);
    }

    #[tokio::test]
    async fn calls_under_way_are_bounded_and_end_with_their_callers() {
        let drain = Drain::default();
        let client = Client::Near(serve(Echo, &drain.watch()));
        let call = || {
            let client = client.clone();
            tokio::spawn(async move { client.call(None).await })
        };

        // The first lot is worked on, the second waits.
        let mut stuck = Vec::new();
        for _lot in 0..2 {
            stuck.extend((0..QUEUE).map(|_| call()));
            for _turn in 0..100 {
                tokio::task::yield_now().await;
            }
        }
        let busy = client.call(Some(1)).await;
        for call in stuck {
            call.abort();
        }
        let mut late = client.call(Some(2)).await;
        while late == Err(Unreachable::Busy("echo".to_owned())) {
            tokio::task::yield_now().await;
            late = client.call(Some(2)).await;
        }

        assert_eq!(busy, Err(Unreachable::Busy("echo".to_owned())));
        assert_eq!(late, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_at_its_deadline() {
        let drain = Drain::default();
        let client = Client::Near(serve(Echo, &drain.watch()));
        let started = tokio::time::Instant::now();

        assert_eq!(
            client.call(None).await,
            Err(Unreachable::Deadline("echo".to_owned()))
        );
        assert_eq!(started.elapsed(), DEADLINE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_role_that_has_ended_is_gone() {
        let drain = Drain::default();
        let client = Client::Near(serve(Echo, &drain.watch()));
        drain.run(Duration::ZERO, Duration::from_secs(1)).await;

        assert_eq!(
            client.call(Some(1)).await,
            Err(Unreachable::Gone("echo".to_owned()))
        );
    }
}
