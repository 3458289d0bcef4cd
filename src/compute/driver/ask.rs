//! One question to all drivers at once.

use std::future::{Future, pending};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{BoxFuture, Driver, Survey, fault, silent};

/// How long the other drivers have once one has found what was asked for: two names that are the
/// same should be noticed wherever both hypervisors are well.
const GRACE: Duration = Duration::from_millis(250);

/// How many are asked at one time: more would not be answered sooner.
const AT_ONCE: usize = 128;

/// Asks all drivers at once; a driver that hangs or panics becomes a fault of its own.
pub(in crate::compute) async fn ask_all<F, Answer>(drivers: &[Arc<dyn Driver>], ask: F) -> Survey
where
    F: Fn(Arc<dyn Driver>) -> Answer,
    Answer: Future<Output = Survey> + Send + 'static,
{
    ask_until(drivers, ask, |_| false).await
}

/// The same; once an answer is `enough`, the others have no more than [`GRACE`]: a hypervisor that
/// hangs must not hold up what is on another.
pub(in crate::compute) async fn ask_until<F, Answer>(
    drivers: &[Arc<dyn Driver>],
    ask: F,
    enough: impl Fn(&Survey) -> bool + Clone + Send + 'static,
) -> Survey
where
    F: Fn(Arc<dyn Driver>) -> Answer,
    Answer: Future<Output = Survey> + Send + 'static,
{
    let begin = |(number, driver): (usize, &Arc<dyn Driver>)| {
        let asking = Box::pin(ask(Arc::clone(driver)));
        Asked::begin(asking, number < AT_ONCE)
    };
    let mut asked: Vec<Asked> = drivers.iter().enumerate().map(begin).collect();
    if asked.iter().any(Asked::is_asking) {
        await_all(drivers, &mut asked, enough).await;
    }
    let mut all = Survey::default();
    for (driver, asked) in drivers.iter().zip(asked) {
        all.extend(match asked {
            Asked::Answered(survey) => survey,
            Asked::Panicked(why) => fault(driver.source(), &why).into(),
            Asked::Late => silent(driver.source()).into(),
            Asked::Asking(_) => fault(driver.source(), &"was not waited for").into(),
        });
    }
    all
}

/// A driver that was asked.
enum Asked {
    /// It may have known at once, which needs no task.
    Answered(Survey),
    Panicked(String),
    Late,
    Asking(BoxFuture<'static, Survey>),
}

impl Asked {
    /// Begins at once unless too many have begun.
    fn begin(mut asking: BoxFuture<'static, Survey>, begins: bool) -> Self {
        if !begins {
            return Self::Asking(asking);
        }
        let mut nobody = Context::from_waker(Waker::noop());
        // Whoever waits for it polls it again.
        let begun = AssertUnwindSafe(|| asking.as_mut().poll(&mut nobody));
        match catch_unwind(begun) {
            Ok(Poll::Ready(survey)) => Self::Answered(survey),
            Ok(Poll::Pending) => Self::Asking(asking),
            Err(_panic) => Self::Panicked("panicked".to_owned()),
        }
    }

    fn is_asking(&self) -> bool {
        matches!(self, Self::Asking(_))
    }
}

/// Waits for those that do not know at once, each in a task of its own. What is not waited for any
/// more stays as it is.
async fn await_all(
    drivers: &[Arc<dyn Driver>],
    asked: &mut [Asked],
    enough: impl Fn(&Survey) -> bool + Clone + Send + 'static,
) {
    let found = CancellationToken::new();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    if asked
        .iter()
        .any(|it| matches!(it, Asked::Answered(survey) if enough(survey)))
    {
        found.cancel();
    }
    let mut waiting = Vec::new();
    for (driver, asked) in drivers.iter().zip(asked) {
        let Asked::Asking(asking) = asked else {
            continue;
        };
        let nothing: BoxFuture<'static, Survey> = Box::pin(pending());
        let asking = mem::replace(asking, nothing);
        let (patience, places) = (driver.patience(), Arc::clone(&places));
        let (found, enough) = (found.clone(), enough.clone());
        let task = tokio::spawn(async move {
            let answer = timeout(patience, async {
                let _place = places.acquire().await;
                asking.await
            });
            let answer = answer.await.ok();
            if answer.as_ref().is_some_and(enough) {
                found.cancel();
            }
            answer
        });
        waiting.push((asked, AbortOnDropHandle::new(task)));
    }
    let mut end = pin!(async {
        found.cancelled().await;
        sleep(GRACE).await;
    });
    let mut ended = false;
    for (asked, mut task) in waiting {
        if ended && !task.is_finished() {
            continue;
        }
        tokio::select! {
            biased;
            answer = &mut task => *asked = match answer {
                Ok(Some(survey)) => Asked::Answered(survey),
                Ok(None) => Asked::Late,
                Err(panic) => Asked::Panicked(panic.to_string()),
            },
            () = &mut end, if !ended => ended = true,
        }
    }
}
