//! Keeps an eye on how much memory this process has, so that nothing new begins before it is killed.

use std::fs;
use std::time::Duration;

use tokio::time::sleep;

use crate::config::Config;
use crate::drain::Watch;
use crate::http::Guard;
use crate::telemetry::Metrics;

/// Between two looks: what comes in meanwhile is bounded by other limits.
const PAUSE: Duration = Duration::from_millis(500);

/// Looks until everything ends; tells `guard` when there is too much, and when no longer.
pub(super) fn start(guard: &Guard, metrics: &Metrics, watch: &Watch) {
    let (guard, metrics) = (guard.clone(), metrics.clone());
    watch.spawn_service(look(guard, metrics, watch.clone()));
}

/// The most that the process may have, in bytes; 0 is any amount.
pub(super) fn ceiling(config: &Config) -> u64 {
    config.limits.memory.unwrap_or_else(usual)
}

async fn look(guard: Guard, metrics: Metrics, watch: Watch) {
    let mut was_full = false;
    loop {
        let (now, ceiling) = (resident().unwrap_or_default(), guard.rules().memory);
        let _before = metrics.memory.set(i64::try_from(now).unwrap_or(i64::MAX));
        let full = ceiling > 0 && now > ceiling;
        guard.set_full(full);
        if full != was_full {
            was_full = full;
            tell(full, now, ceiling);
        }
        tokio::select! {
            () = watch.closing() => return,
            () = sleep(PAUSE) => {}
        }
    }
}

fn tell(full: bool, bytes: u64, ceiling: u64) {
    if full {
        tracing::warn!(bytes, ceiling, "too much memory; nothing new begins");
    } else {
        tracing::info!(bytes, ceiling, "enough memory again");
    }
}

/// What this process has in memory, in bytes. Never waits: no disk is behind it.
fn resident() -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Four fifths of what the machine has, or of what the control group allows.
fn usual() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| kilobytes(&text, "MemTotal:"));
    let all = machine.into_iter().chain(allowed()).min();
    all.map_or(0, |bytes| bytes / 5 * 4)
}

/// What the control group allows, in its second version: of all groups that this process is in.
fn allowed() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mut limits = Vec::new();
    let mut path = own.trim_end_matches('/');
    loop {
        let file = format!("/sys/fs/cgroup{path}/memory.max");
        let limit = fs::read_to_string(file).ok();
        limits.extend(limit.and_then(|text| text.trim().parse::<u64>().ok()));
        match path.rsplit_once('/') {
            Some((parent, _)) => path = parent,
            None => return limits.into_iter().min(),
        }
    }
}

/// The value of a line such as `VmRSS:   1234 kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_we_have_and_what_there_is() {
        let (mine, all) = (resident().unwrap(), usual());
        assert!(mine > 1 << 20 && mine < all, "{mine} of {all}");
    }
}
