use std::fmt;
use std::sync::Arc;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{Role, Unreachable};
use crate::drain::Watch;

/// Calls that a role works on at one time, and that may wait for it before it is called busy.
const QUEUE: usize = 1024;

/// The near way to a role.
pub struct Mailbox<R: Role>(mpsc::Sender<Letter<R>>);

struct Letter<R: Role> {
    request: R::Request,
    answer: oneshot::Sender<Result<R::Reply, R::Error>>,
}

/// Starts `role` in this process. It answers until nobody can call it or the process closes; a
/// call whose caller left is dropped.
pub fn serve<R: Role>(role: R, watch: &Watch) -> Mailbox<R> {
    let (sender, letters) = mpsc::channel(QUEUE);
    let task = answer_all(Arc::new(role), letters, watch.clone());
    watch.spawn_service(task);
    Mailbox(sender)
}

async fn answer_all<R: Role>(role: Arc<R>, mut letters: mpsc::Receiver<Letter<R>>, watch: Watch) {
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
        let Some(Letter {
            request,
            mut answer,
        }) = letter
        else {
            return;
        };
        let role = Arc::clone(&role);
        watch.spawn_service(async move {
            tokio::select! {
                reply = role.call(request) => drop(answer.send(reply)),
                () = answer.closed() => {}
            }
            drop(place);
        });
    }
}

impl<R: Role> Mailbox<R> {
    pub(super) async fn call(&self, request: R::Request) -> Result<R::Reply, R::Error> {
        let (answer, reply) = oneshot::channel();
        self.0
            .try_send(Letter { request, answer })
            .map_err(|error| match error {
                TrySendError::Full(_) => Unreachable::Busy(R::NAME.to_owned()),
                TrySendError::Closed(_) => Unreachable::Gone(R::NAME.to_owned()),
            })?;
        reply
            .await
            .unwrap_or_else(|_| Err(Unreachable::Gone(R::NAME.to_owned()).into()))
    }
}

impl<R: Role> Clone for Mailbox<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
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

    use super::super::{Client, DEADLINE};
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
