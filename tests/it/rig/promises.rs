//! What an API has promised about tokens while things were killed around it, and who makes it
//! promise.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::gateway::ConsoleUrl;
use super::http::Request;
use super::peers::Random;
use super::wait::until;

/// Tokens made before something is killed.
const ENOUGH: usize = 10;

/// Which tokens open, and which do not, by their ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    pub(crate) live: BTreeMap<String, ConsoleUrl>,
    pub(crate) dead: BTreeMap<String, ConsoleUrl>,
}

/// What was promised so far. A token that was to be revoked without an answer stands nowhere:
/// either is fine.
#[derive(Debug, Default)]
pub(crate) struct Promises(Mutex<Kept>);

impl Promises {
    pub(crate) fn count(&self) -> usize {
        let kept = self.0.lock().unwrap();
        kept.live.len() + kept.dead.len()
    }

    /// A copy, to which no more is added.
    pub(crate) fn so_far(&self) -> Kept {
        self.0.lock().unwrap().clone()
    }

    /// Waits for some more, of both kinds.
    #[track_caller]
    pub(crate) fn wait_for_more(&self) {
        let enough = self.count() + ENOUGH;
        until("some traffic", || {
            let kept = self.so_far();
            let both = !kept.live.is_empty() && !kept.dead.is_empty();
            (both && self.count() >= enough).then_some(())
        });
    }

    /// Holds an api to every promise.
    #[track_caller]
    pub(crate) fn assert_kept_by(&self, api: SocketAddr) {
        self.so_far().assert_by(api);
    }
}

impl Kept {
    /// Holds an api to these.
    #[track_caller]
    pub(crate) fn assert_by(&self, api: SocketAddr) {
        let (status, listed) = ask(api, &Request::new("GET", "/v1/tokens")).unwrap();
        assert_eq!(status, 200, "{listed}");
        let tokens = listed["tokens"].as_array().unwrap();
        let there: BTreeSet<&str> = tokens
            .iter()
            .map(|token| token["id"].as_str().unwrap())
            .collect();
        for id in self.live.keys() {
            assert!(there.contains(&**id), "{id} was issued and is lost");
        }
        for id in self.dead.keys() {
            assert!(!there.contains(&**id), "{id} was revoked and is back");
        }
    }
}

/// Issues tokens and revokes some, until it is stopped, whatever becomes of those it asks.
pub(crate) struct Traffic {
    stopped: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Traffic {
    pub(crate) fn start(api: SocketAddr, seed: u64, promises: &Arc<Promises>) -> Self {
        Self::about("web-1", api, seed, promises)
    }

    /// The same with tokens of that instance.
    pub(crate) fn about(
        instance: &'static str,
        api: SocketAddr,
        seed: u64,
        promises: &Arc<Promises>,
    ) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let one = |number: u64| {
            let (stopped, promises) = (Arc::clone(&stopped), Arc::clone(promises));
            let mut random = Random::new(seed * 4 + number + 1);
            thread::spawn(move || {
                while !stopped.load(Ordering::SeqCst) {
                    let _failed = traffic(instance, api, &mut random, &promises).is_none();
                }
            })
        };
        let threads = (0..3).map(one).collect();
        Self { stopped, threads }
    }

    pub(crate) fn stop(self) {
        self.stopped.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// One token, and perhaps its end; nothing if there was no answer.
fn traffic(
    instance: &str,
    api: SocketAddr,
    random: &mut Random,
    promises: &Promises,
) -> Option<()> {
    let request = Request::new("POST", "/v1/consoles").json(&json!({ "instance": instance }));
    let (status, body) = ask(api, &request)?;
    if status != 201 {
        return None;
    }
    let id = body["id"].as_str().unwrap().to_owned();
    let url = ConsoleUrl::parse(body["url"].as_str().unwrap());
    if random.below(3) != 0 {
        promises.0.lock().unwrap().live.insert(id, url);
        return Some(());
    }
    let revoke = Request::new("DELETE", &format!("/v1/tokens/{id}"));
    let (status, _) = ask(api, &revoke)?;
    if status == 200 {
        promises.0.lock().unwrap().dead.insert(id, url);
    }
    Some(())
}

/// An answer, or nothing if the api died over it.
fn ask(api: SocketAddr, request: &Request) -> Option<(u16, Value)> {
    let response = request.try_send(api).ok()?;
    let body = serde_json::from_slice(&response.body).unwrap_or_default();
    Some((response.status, body))
}

/// How many things are killed: `VNCGATE_ROUNDS`, or each once.
pub(crate) fn rounds(each: usize) -> u64 {
    number("VNCGATE_ROUNDS").unwrap_or_else(|| u64::try_from(each).unwrap())
}

/// What decides in which order: `VNCGATE_SEED`, or something new.
pub(crate) fn order() -> Random {
    let seed = number("VNCGATE_SEED").unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        since.as_secs()
    });
    eprintln!("VNCGATE_SEED={seed} makes the same rounds again");
    Random::new(seed)
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap())
}
