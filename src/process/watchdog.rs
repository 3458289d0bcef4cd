use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{MissedTickBehavior, interval};

use super::Notifier;
use super::notify::watchdog_interval;

/// A manager that wants to hear that this process is alive.
#[derive(Debug)]
pub struct Watchdog {
    notifier: Notifier,
    every: Duration,
}

impl Watchdog {
    /// Nothing where nobody wants to hear it.
    pub fn from_env(notifier: &Notifier) -> Option<Self> {
        Some(Self {
            notifier: notifier.clone(),
            every: watchdog_interval()?,
        })
    }
}

/// Tells that the process is alive as long as all of `runtimes`, and the one this runs on, do what
/// they are given. A process that only looks alive is one that its manager should end. Never
/// returns; drop it to stop.
pub async fn beat(watchdog: Watchdog, runtimes: Vec<Handle>) {
    let mut beats = interval(watchdog.every);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let _now = beats.tick().await;
        for runtime in &runtimes {
            let _turned = runtime.spawn(async {}).await.is_ok();
        }
        let here = Handle::current();
        let _turned = here.spawn(async {}).await.is_ok();
        watchdog.notifier.alive();
    }
}
