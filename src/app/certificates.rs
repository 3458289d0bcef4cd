//! Keeps an eye on how long our certificates, towards viewers and hypervisors, are still valid.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::sleep;

use crate::compute::driver::libvirt::transport::{Places, Uri};
use crate::config::Config;
use crate::drain::Watch;
use crate::live::Live;
use crate::telemetry::Metrics;
use crate::tls::{BadFile, Expiry, expiries};

/// Between two looks at the files.
const PAUSE: Duration = Duration::from_mins(1);

/// Before the end, in days, when the log tells: once each.
const WARNINGS: [u64; 3] = [30, 7, 1];

const DAY: u64 = 24 * 60 * 60;

/// Looks at `files` now and then until everything ends.
pub(super) fn start(files: &Live<Vec<PathBuf>>, metrics: &Metrics, watch: &Watch) {
    let (files, metrics) = (files.clone(), metrics.clone());
    watch.spawn_service(look(files, metrics, watch.clone()));
}

/// Every file with certificates that are shown to anybody, or that hypervisors and other roles are
/// known by.
pub(super) fn files(config: &Config) -> Vec<PathBuf> {
    let mut files = config.certificate_files();
    files.extend(config.rpc.certificate_files());
    files.extend(config.viewer_certificate_files());
    let uris = config.compute.host.iter().map(|host| &host.uri);
    for uri in uris.filter_map(|uri| uri.parse::<Uri>().ok()) {
        files.extend(uri.certificate_files(&Places::of_this_process()));
    }
    files.sort();
    files.dedup();
    files
}

async fn look(files: Live<Vec<PathBuf>>, metrics: Metrics, watch: Watch) {
    let mut told = Told::default();
    loop {
        let asked = files.now();
        // They may lie on a mount that hangs.
        let read = tokio::task::spawn_blocking(move || expiries(&asked));
        for found in read.await.unwrap_or_default() {
            note(found, &mut told, &metrics);
        }
        tokio::select! {
            () = watch.closing() => return,
            () = sleep(PAUSE) => {}
        }
    }
}

fn note(found: Result<Expiry, BadFile>, told: &mut Told, metrics: &Metrics) {
    let expiry = match found {
        Ok(expiry) => expiry,
        Err(error) => return tracing::debug!(%error, "a certificate cannot be read"),
    };
    let left = expiry.left(SystemTime::now());
    metrics.note_certificate(&expiry.path, left);
    let Some(days) = told.due(&expiry.path, left) else {
        return;
    };
    let file = expiry.path.display();
    let until = humantime::format_rfc3339_seconds(expiry.not_after);
    if left.is_zero() {
        tracing::warn!(%file, %until, "a certificate has expired");
    } else {
        tracing::warn!(%file, %until, days, "a certificate expires soon");
    }
}

/// What the log has been told of each file: the last of [`WARNINGS`], 0 for its end.
#[derive(Debug, Default)]
struct Told(HashMap<PathBuf, u64>);

impl Told {
    /// The warning that is due now and was not given yet. A renewed certificate starts anew.
    fn due(&mut self, path: &Path, left: Duration) -> Option<u64> {
        let seconds = left.as_secs();
        let reached = |days: &u64| seconds <= days.saturating_mul(DAY);
        let days = match seconds {
            0 => Some(0),
            _ => WARNINGS.into_iter().rev().find(reached),
        };
        let Some(days) = days else {
            let _renewed = self.0.remove(path);
            return None;
        };
        let before = self.0.insert(path.to_owned(), days);
        before.is_none_or(|before| days < before).then_some(days)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_warning_is_given_once_and_again_after_a_renewal() {
        let mut told = Told::default();
        let mut due = |days: u64| {
            let left = Duration::from_secs(days * DAY);
            told.due(Path::new("/cert"), left)
        };

        let given = [400, 30, 29, 8, 7, 6, 1, 1, 0, 0, 400, 5].map(&mut due);

        let (n, s) = (None, Some);
        assert_eq!(given, [n, s(30), n, n, s(7), n, s(1), n, s(0), n, n, s(7)]);
    }
}
