use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::cache::Key;
use super::{Unavailable, Verdict};

/// Tokens that are being asked about at one time; a further one is told to come again.
const MOST: usize = 512;

/// The questions that are under way, so that many callers with one token ask Keystone once.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Key, Flight>>);

/// A question that somebody waits for.
#[derive(Clone, Debug)]
pub(super) struct Flight(watch::Receiver<Option<Verdict>>);

/// The duty to answer a question.
pub(super) type Takeoff = watch::Sender<Option<Verdict>>;

impl Flights {
    /// Joins those who wait for a token's verdict; the first of them has to see to it.
    pub(super) fn join(&self, key: Key) -> Result<(Flight, Option<Takeoff>), Unavailable> {
        let mut flights = self.lock();
        // One whose sender has gone without an answer will never land.
        let alive = |flight: &&Flight| flight.0.has_changed().is_ok();
        if let Some(flight) = flights.get(&key).filter(alive) {
            return Ok((flight.clone(), None));
        }
        if flights.len() >= MOST {
            let why = format!("{MOST} tokens are being asked about; try again");
            return Err(Unavailable(why));
        }
        let (takeoff, receiver) = watch::channel(None);
        let flight = Flight(receiver);
        let _dead = flights.insert(key, flight.clone());
        Ok((flight, Some(takeoff)))
    }

    /// Gives everybody who waits the verdict.
    pub(super) fn land(&self, key: &Key, takeoff: &Takeoff, verdict: Verdict) {
        let _flight = self.lock().remove(key);
        let _nobody_waits = takeoff.send(Some(verdict));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// Waits for the verdict. Cancel-safe.
    pub(super) async fn landed(mut self) -> Verdict {
        let verdict = self.0.wait_for(Option::is_some).await;
        let verdict = verdict.ok().and_then(|verdict| verdict.clone());
        verdict.unwrap_or_else(|| Err(Unavailable("this gateway is going down".to_owned()).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::NotValid;
    use super::*;

    #[tokio::test]
    async fn the_first_sees_to_it_and_all_get_the_verdict() {
        let flights = Flights::default();
        let (first, takeoff) = flights.join([1; 32]).unwrap();
        let (second, none) = flights.join([1; 32]).unwrap();

        assert!(none.is_none());
        flights.land(&[1; 32], &takeoff.unwrap(), Err(NotValid::Unknown));

        assert_eq!(first.landed().await, Err(NotValid::Unknown));
        assert_eq!(second.landed().await, Err(NotValid::Unknown));
        assert!(flights.lock().is_empty());
    }

    #[tokio::test]
    async fn a_question_that_was_dropped_is_asked_again() {
        let flights = Flights::default();
        let (waiting, takeoff) = flights.join([1; 32]).unwrap();
        drop(takeoff);

        assert!(matches!(
            waiting.landed().await,
            Err(NotValid::Unavailable(_))
        ));
        assert!(flights.join([1; 32]).unwrap().1.is_some());
    }

    #[test]
    fn questions_are_bounded() {
        let flights = Flights::default();
        let mut under_way = Vec::new();
        for number in 0..MOST {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            under_way.push(flights.join(key).unwrap());
        }

        assert!(flights.join([255; 32]).is_err());
        assert!(flights.join([0; 32]).is_ok(), "joining needs no room");
    }
}
