//! Whether any source answers: asked by one at a time and remembered for a moment, since whoever
//! watches a gateway probes it as often as it likes, and there may be many who do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// So long an answer is good.
const MEMORY: Duration = Duration::from_secs(1);

/// How many sources were asked in vain, if none answered.
pub(super) type Outcome = Result<(), usize>;

/// What was felt last. Cheap to clone: all clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Pulse(Arc<Mutex<Option<Flight>>>);

/// A question that is under way, or its answer.
type Flight = watch::Receiver<Option<Felt>>;

#[derive(Clone, Copy, Debug)]
struct Felt {
    outcome: Outcome,
    at: Instant,
}

impl Pulse {
    /// What was felt a moment ago, or is being felt, or what `ask` says. It runs to its end, whoever
    /// leaves, and so must have one. None: it came to no end. Cancel-safe.
    pub(super) async fn feel<F>(&self, ask: impl FnOnce() -> F) -> Option<Outcome>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut flight = self.join(ask);
        let felt = flight.wait_for(Option::is_some).await.ok()?;
        felt.map(|felt| felt.outcome)
    }

    fn join<F>(&self, ask: impl FnOnce() -> F) -> Flight
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = last.as_ref().filter(|flight| is_good(flight)) {
            return flight.clone();
        }
        let (land, flight) = watch::channel(None);
        let asking = ask();
        let _task = tokio::spawn(async move {
            let outcome = asking.await;
            let at = Instant::now();
            let _nobody_waits = land.send(Some(Felt { outcome, at }));
        });
        *last = Some(flight.clone());
        flight
    }
}

/// Whether it is still under way, or was answered a moment ago.
fn is_good(flight: &Flight) -> bool {
    let felt = *flight.borrow();
    let flies = || flight.has_changed().is_ok();
    felt.map_or_else(flies, |felt| felt.at.elapsed() < MEMORY)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::{advance, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_probes_are_one_question_and_the_next_is_asked_after_a_second() {
        let (pulse, asked) = (Pulse::default(), Arc::new(AtomicUsize::new(0)));
        let probe = || {
            let (pulse, asked) = (pulse.clone(), Arc::clone(&asked));
            tokio::spawn(async move {
                let ask = || async move {
                    let number = asked.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(100)).await;
                    if number == 0 { Err(3) } else { Ok(()) }
                };
                pulse.feel(ask).await
            })
        };

        let first: Vec<_> = (0..50).map(|_| probe()).collect();
        for probe in first {
            assert_eq!(probe.await.unwrap(), Some(Err(3)));
        }
        assert_eq!(probe().await.unwrap(), Some(Err(3)), "remembered");
        advance(MEMORY).await;

        assert_eq!(probe().await.unwrap(), Some(Ok(())));
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_takes_no_answer_along_and_what_failed_is_asked_again() {
        let pulse = Pulse::default();
        let slow = || async {
            sleep(Duration::from_secs(3)).await;
            Ok(())
        };
        let second = Duration::from_secs(1);

        let left = tokio::time::timeout(second, pulse.feel(slow)).await;
        assert!(left.is_err());
        let never = || async { panic!("it is under way already") };
        assert_eq!(pulse.feel(never).await, Some(Ok(())));

        advance(MEMORY).await;
        let failing = || async { panic!("a driver's fault") };
        assert_eq!(pulse.feel(failing).await, None);
        assert_eq!(pulse.feel(|| async { Err(1) }).await, Some(Err(1)));
    }
}
