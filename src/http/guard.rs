//! What one address may do, and who is turned away: connections, new ones a second, failed tokens.
//!
//! An IPv6 client counts by its /64, which is what one customer has. What is kept of addresses has
//! a bound: once [`MOST`] are known and none of them is at rest, all newcomers share one entry.
//! Called by the doors, by the proxy and by the api. Knows no figures: it tells who counts them.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;

use super::forwarded::is_within;
use crate::model::block_of;

/// What an address may do at once after a pause: the rate of so many seconds.
const BURST: Duration = Duration::from_secs(10);

/// Addresses known at one time, in about 100 bytes each.
const MOST: usize = 65_536;

/// Between two looks for entries to forget.
const SWEEP: Duration = Duration::from_secs(1);

/// What each address may do. 0 is any number.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Connections at one time that are no session.
    pub connections: u32,
    /// New connections a second, and ten seconds' worth at once.
    pub connections_per_second: u32,
    /// Failed tokens and keys a second, and ten seconds' worth at once.
    pub failures_per_second: u32,
    /// Reverse proxies: many come from there.
    pub exempt: Vec<IpNet>,
    /// Bytes of memory of the process beyond which nothing new begins.
    pub memory: u64,
}

/// Why somebody was turned away before a session.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Turned {
    /// Its address has too many connections.
    Connections,
    /// Its address makes too many connections a second.
    Rate,
    /// Its address has shown too many bad tokens.
    Failures,
    /// The process has as much memory as it may.
    Memory,
    /// No TLS came about.
    Handshake,
    /// A balancer did not announce it.
    Announcement,
}

impl Turned {
    /// A word for metrics and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Rate => "rate",
            Self::Failures => "tokens",
            Self::Memory => "memory",
            Self::Handshake => "handshake",
            Self::Announcement => "proxy-header",
        }
    }
}

/// Keeps count. All clones count together.
#[derive(Clone)]
pub struct Guard(Arc<Inner>);

struct Inner {
    rules: Mutex<Arc<Rules>>,
    book: Mutex<Book>,
    full: AtomicBool,
    tell: Box<dyn Fn(Turned) + Send + Sync>,
}

#[derive(Debug, Default)]
struct Book {
    known: HashMap<IpAddr, Entry>,
    /// Of all that there is no room for.
    others: Entry,
    swept: Option<Instant>,
}

#[derive(Debug, Default)]
struct Entry {
    connections: u32,
    new: Pace,
    failures: Pace,
}

/// When the next one would be due if they came evenly. Nothing: at rest.
#[derive(Clone, Copy, Debug, Default)]
struct Pace(Option<Instant>);

/// A connection that counts for its address until this is dropped.
#[derive(Debug)]
pub struct Place {
    guard: Guard,
    block: Option<IpAddr>,
}

impl Guard {
    /// One that goes by `rules` and tells `tell` of everybody turned away.
    pub fn new(rules: Rules, tell: impl Fn(Turned) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            rules: Mutex::new(Arc::new(rules)),
            book: Mutex::default(),
            full: AtomicBool::new(false),
            tell: Box::new(tell),
        }))
    }

    /// Goes by other rules from now on; what was counted stays.
    pub fn adopt(&self, rules: Rules) {
        *self.0.rules.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.0.rules.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says whether the process has as much memory as it may.
    pub fn set_full(&self, full: bool) {
        self.0.full.store(full, Ordering::Relaxed);
    }

    /// Whether there is memory for something new.
    pub fn has_room(&self) -> bool {
        !self.0.full.load(Ordering::Relaxed)
    }

    /// Whether nothing new may begin for want of memory. Tells of it.
    pub fn is_full(&self) -> bool {
        let full = !self.has_room();
        if full {
            self.tell(Turned::Memory);
        }
        full
    }

    /// Counts somebody turned away.
    pub fn tell(&self, turned: Turned) {
        (self.0.tell)(turned);
    }

    /// Lets a new connection in. Errors: `Memory`, `Rate`, `Connections`; told of already.
    pub fn admit(&self, ip: IpAddr) -> Result<Place, Turned> {
        if self.is_full() {
            return Err(Turned::Memory);
        }
        let admitted = self.count_in(ip);
        admitted.inspect_err(|turned| self.tell(*turned))
    }

    fn count_in(&self, ip: IpAddr) -> Result<Place, Turned> {
        let rules = self.rules();
        let unlimited = rules.connections == 0 && rules.connections_per_second == 0;
        if unlimited || is_within(&rules.exempt, ip) {
            return Ok(self.place(None));
        }
        let now = Instant::now();
        let mut book = self.book();
        let (block, entry) = book.entry(block_of(ip), now);
        if rules.connections > 0 && entry.connections >= rules.connections {
            return Err(Turned::Connections);
        }
        let pace = entry.new.take(now, rules.connections_per_second);
        pace.map_err(|_| Turned::Rate)?;
        entry.connections = entry.connections.saturating_add(1);
        drop(book);
        Ok(self.place(Some(block)))
    }

    fn place(&self, block: Option<IpAddr>) -> Place {
        let guard = self.clone();
        Place { guard, block }
    }

    /// Whether somebody may show a token. Errors: how long to wait; told of already.
    pub fn may_try(&self, ip: Option<IpAddr>) -> Result<(), Duration> {
        let Some(ip) = ip.filter(|ip| self.counts_failures(*ip)) else {
            return Ok(());
        };
        let now = Instant::now();
        let mut book = self.book();
        let (_, entry) = book.entry(block_of(ip), now);
        let wait = entry.failures.wait(now);
        drop(book);
        if wait.is_zero() {
            return Ok(());
        }
        self.tell(Turned::Failures);
        Err(wait)
    }

    /// Notes that somebody showed a token that is none.
    pub fn note_failure(&self, ip: Option<IpAddr>) {
        let Some(ip) = ip.filter(|ip| self.counts_failures(*ip)) else {
            return;
        };
        let (now, per_second) = (Instant::now(), self.rules().failures_per_second);
        let mut book = self.book();
        let (_, entry) = book.entry(block_of(ip), now);
        entry.failures.spend(now, per_second);
    }

    fn counts_failures(&self, ip: IpAddr) -> bool {
        let rules = self.rules();
        rules.failures_per_second > 0 && !is_within(&rules.exempt, ip)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(block) = self.block {
            self.guard.book().leave(block, Instant::now());
        }
    }
}

/// Stands for those that there is no room for: a block never has a second half.
const OTHERS: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

impl Book {
    /// The entry of a block, under which name it is to be left again.
    fn entry(&mut self, block: IpAddr, now: Instant) -> (IpAddr, &mut Entry) {
        if !self.known.contains_key(&block) && self.known.len() >= MOST {
            self.sweep(now);
            if self.known.len() >= MOST {
                return (OTHERS, &mut self.others);
            }
        }
        (block, self.known.entry(block).or_default())
    }

    fn leave(&mut self, block: IpAddr, now: Instant) {
        if block == OTHERS {
            self.others.connections = self.others.connections.saturating_sub(1);
            return;
        }
        if let Some(entry) = self.known.get_mut(&block) {
            entry.connections = entry.connections.saturating_sub(1);
            if entry.is_at_rest(now) {
                let _gone = self.known.remove(&block);
            }
        }
    }

    fn sweep(&mut self, now: Instant) {
        let recently = |swept: Instant| now.saturating_duration_since(swept) < SWEEP;
        if self.swept.is_some_and(recently) {
            return;
        }
        self.swept = Some(now);
        self.known.retain(|_, entry| !entry.is_at_rest(now));
    }
}

impl Entry {
    fn is_at_rest(&self, now: Instant) -> bool {
        self.connections == 0 && self.new.is_at_rest(now) && self.failures.is_at_rest(now)
    }
}

impl Pace {
    fn is_at_rest(self, now: Instant) -> bool {
        self.0.is_none_or(|due| due <= now)
    }

    /// How long until one more is within the burst.
    fn wait(self, now: Instant) -> Duration {
        let ahead = self
            .0
            .map_or(Duration::ZERO, |due| due.saturating_duration_since(now));
        ahead.saturating_sub(BURST)
    }

    fn spend(&mut self, now: Instant, per_second: u32) {
        let step = Duration::from_secs(1).checked_div(per_second);
        let due = self.0.map_or(now, |due| due.max(now));
        self.0 = due.checked_add(step.unwrap_or_default()).or(Some(due));
    }

    /// Spends one if it is within the burst. Errors: how long to wait.
    fn take(&mut self, now: Instant, per_second: u32) -> Result<(), Duration> {
        let wait = self.wait(now);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.spend(now, per_second);
        Ok(())
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&self.rules()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::time::advance;

    use super::*;

    fn guard(connections: u32, per_second: u32, failures: u32) -> Guard {
        let rules = Rules {
            connections,
            connections_per_second: per_second,
            failures_per_second: failures,
            exempt: vec!["10.0.0.0/8".parse().unwrap()],
            memory: 0,
        };
        Guard::new(rules, |_| ())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn each_address_has_so_many_connections_and_gets_them_back() {
        let guard = guard(2, 0, 0);
        let one = guard.admit(ip("192.0.2.1")).unwrap();
        let _two = guard.admit(ip("::ffff:192.0.2.1")).unwrap();

        let third = guard.admit(ip("192.0.2.1")).unwrap_err();
        let other = guard.admit(ip("192.0.2.2"));
        drop(one);

        assert_eq!(third, Turned::Connections);
        assert!(other.is_ok());
        assert!(guard.admit(ip("192.0.2.1")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_ipv6_network_counts_as_one() {
        let guard = guard(1, 0, 0);
        let _one = guard.admit(ip("2001:db8::1")).unwrap();

        assert!(guard.admit(ip("2001:db8::ffff:2")).is_err());
        assert!(guard.admit(ip("2001:db8:0:1::1")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn new_connections_come_at_a_rate_after_a_burst() {
        let guard = guard(0, 5, 0);
        let count = |wanted: usize| {
            let tries = (0..wanted).map(|_| guard.admit(ip("192.0.2.1")));
            tries.flatten().count()
        };

        assert_eq!(count(1000), 51);
        advance(Duration::from_secs(2)).await;
        assert_eq!(count(1000), 10);
        advance(Duration::from_mins(1)).await;
        assert_eq!(count(1000), 51);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_count_and_trying_does_not() {
        let guard = guard(0, 0, 1);
        let (bad, good) = (Some(ip("192.0.2.1")), Some(ip("192.0.2.2")));
        for _ in 0..100 {
            assert_eq!(guard.may_try(good), Ok(()));
            guard.note_failure(bad);
        }

        assert_eq!(guard.may_try(bad), Err(Duration::from_secs(90)));
        assert_eq!(guard.may_try(good), Ok(()));
        assert_eq!(guard.may_try(None), Ok(()));
        advance(Duration::from_secs(91)).await;
        assert_eq!(guard.may_try(bad), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_is_exempt() {
        let guard = guard(1, 1, 1);
        let places: Vec<_> = (0..100).map(|_| guard.admit(ip("10.1.2.3"))).collect();
        assert!(places.iter().all(Result::is_ok));
        (0..100).for_each(|_| guard.note_failure(Some(ip("10.1.2.3"))));
        assert_eq!(guard.may_try(Some(ip("10.1.2.3"))), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_addresses_come_what_is_kept_has_a_bound() {
        let guard = guard(0, 0, 1);
        let address = |number: u32| Some(Ipv4Addr::from_bits(number).into());
        for number in 0..200_000 {
            guard.note_failure(address(number));
        }

        assert_eq!(guard.book().known.len(), MOST);
        assert!(
            guard.may_try(address(199_999)).is_err(),
            "newcomers share an entry"
        );
        advance(Duration::from_secs(2)).await;
        guard.note_failure(address(300_000));
        assert_eq!(guard.book().known.len(), 1, "who is at rest is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_at_rest_is_forgotten_at_once() {
        let guard = guard(5, 1, 0);
        let place = guard.admit(ip("192.0.2.1")).unwrap();
        advance(Duration::from_secs(2)).await;

        drop(place);

        assert!(guard.book().known.is_empty());
    }

    #[tokio::test]
    async fn without_memory_nobody_is_let_in() {
        let guard = guard(0, 0, 0);
        guard.set_full(true);
        assert_eq!(guard.admit(ip("192.0.2.1")).unwrap_err(), Turned::Memory);
    }
}
