use std::fmt;
use std::sync::Arc;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::{Role, Unreachable};
use crate::drain::Watch;

/// Calls that may wait for a role before it is called busy.
const QUEUE: usize = 1024;

/// The near way to a role.
pub struct Mailbox<R: Role>(mpsc::Sender<Letter<R>>);

struct Letter<R: Role> {
    request: R::Request,
    answer: oneshot::Sender<Result<R::Reply, R::Error>>,
}

/// Starts `role` in this process. It answers until nobody can call it or the process closes.
pub fn serve<R: Role>(role: R, watch: &Watch) -> Mailbox<R> {
    let (sender, letters) = mpsc::channel(QUEUE);
    let task = answer_all(Arc::new(role), letters, watch.clone());
    watch.spawn_service(task);
    Mailbox(sender)
}

async fn answer_all<R: Role>(role: Arc<R>, mut letters: mpsc::Receiver<Letter<R>>, watch: Watch) {
    loop {
        let letter = tokio::select! {
            letter = letters.recv() => letter,
            () = watch.closing() => None,
        };
        let Some(Letter { request, answer }) = letter else {
            return;
        };
        let role = Arc::clone(&role);
        watch.spawn_service(async move {
            let reply = role.call(request).await;
            let _caller_left = answer.send(reply).is_err();
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
