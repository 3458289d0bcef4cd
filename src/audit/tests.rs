use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::*;

const LIMIT: Duration = Duration::from_secs(30);

fn killed(why: &str) -> Event {
    Event {
        why: Some(why.to_owned()),
        ..Event::new(What::Killed).by(&"key:ops", Some([10, 0, 0, 1].into()))
    }
}

fn audit(path: &Path) -> (Audit, Metrics) {
    let metrics = Metrics::default();
    let place = Place::File(path.to_owned());
    (Audit::start(&place, true, &metrics).unwrap(), metrics)
}

#[test]
fn an_event_is_a_line_of_json_that_its_owner_and_group_may_read() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("audit.jsonl");
    let (audit, _) = audit(&path);

    audit.note(|| killed("two\nlines"));
    audit.finish(LIMIT);

    let text = fs::read_to_string(&path).unwrap();
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(line["event"], "killed");
    assert_eq!(line["caller"], "key:ops");
    assert_eq!(line["address"], "10.0.0.1");
    assert_eq!(line["why"], "two\nlines");
    humantime::parse_rfc3339(line["time"].as_str().unwrap()).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");
}

#[test]
fn a_file_that_was_renamed_is_made_anew() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("audit.jsonl");
    let (audit, _) = audit(&path);
    audit.note(|| killed("before"));
    audit.finish(LIMIT);

    let rotated = place.path().join("audit.jsonl.1");
    fs::rename(&path, &rotated).unwrap();
    audit.note(|| killed("after"));
    audit.finish(LIMIT);

    assert!(fs::read_to_string(&rotated).unwrap().contains("before"));
    assert!(fs::read_to_string(&path).unwrap().contains("after"));
}

#[test]
fn a_link_is_not_followed() {
    let place = tempfile::tempdir().unwrap();
    let (path, other) = (place.path().join("audit"), place.path().join("other"));
    symlink(&other, &path).unwrap();

    let refused = Audit::start(&Place::File(path), false, &Metrics::default());

    assert!(refused.unwrap_err().to_string().contains("link"));
    assert!(!other.exists());
}

#[test]
fn what_cannot_be_written_waits_and_is_said_to() {
    let (audit, metrics) = audit(Path::new("/dev/full"));
    assert!(audit.accepts());

    audit.note(|| killed("lost?"));
    while audit.accepts() {
        std::thread::yield_now();
    }

    let page = metrics.page();
    assert!(page.contains("vncgate_audit_failing 1"), "{page}");
    assert!(page.contains("vncgate_audit_lost_total 0"), "{page}");
}

#[test]
fn more_than_fits_is_counted_as_lost_and_holds_up_nobody() {
    let (audit, metrics) = audit(Path::new("/dev/full"));
    let long = "x".repeat(64 << 10);

    for _ in 0..100 {
        audit.note(|| killed(&long));
    }

    assert!(metrics.audit_lost.get() > 0);
    assert!(!audit.accepts());
}

#[test]
fn the_journal_gets_an_entry_with_our_name() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("socket");
    let journal = UnixDatagram::bind(&path).unwrap();
    let audit = Audit::start(&Place::Journal(path), false, &Metrics::default()).unwrap();

    audit.note(|| killed("by hand"));

    let mut entry = [0; 4096];
    let length = journal.recv(&mut entry).unwrap();
    let entry = std::str::from_utf8(&entry[..length]).unwrap();
    assert!(entry.contains("\nSYSLOG_IDENTIFIER=vncgate-audit\n"));
    assert!(entry.contains("\nMESSAGE={\"time\":"), "{entry}");
    assert!(entry.ends_with("}\n"), "{entry}");
}

#[test]
fn without_a_place_nothing_is_refused() {
    let audit = Audit::default();
    audit.note(|| killed("unheard"));
    assert!(audit.accepts());
}

#[test]
fn without_a_place_no_event_is_made() {
    let made = Cell::new(false);

    Audit::default().note(|| {
        made.set(true);
        killed("unheard")
    });

    assert!(!made.get());
}
