use std::error::Error;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tracing::{Level, Span};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime as Theirs};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::*;

/// What was logged.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Page {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Page {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// What our lines are when this is logged.
fn ours(log: impl Fn()) -> String {
    let page = Page::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(Level::TRACE);
    let subscriber = subscriber.with_writer(page.clone()).event_format(Json);
    let guard = subscriber.fmt_fields(JsonFields::new()).set_default();
    log();
    drop(guard);
    page.text()
}

/// What tracing-subscriber's are.
fn theirs(log: impl Fn()) -> String {
    let page = Page::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(Level::TRACE);
    let subscriber = subscriber.with_writer(page.clone());
    let subscriber = subscriber.json().flatten_event(true);
    let guard = subscriber.with_current_span(false).set_default();
    log();
    drop(guard);
    page.text()
}

/// The lines without their time, which is looked at here. Each is JSON.
fn timeless(page: &str) -> Vec<String> {
    let line = |line: &str| {
        let _json: serde_json::Map<_, _> = serde_json::from_str(line).unwrap();
        let rest = line.strip_prefix("{\"timestamp\":\"").unwrap();
        let (time, rest) = rest.split_once('"').unwrap();
        assert_eq!(time.len(), "2026-11-26T17:41:23.123456Z".len(), "{time}");
        humantime::parse_rfc3339(time).unwrap();
        rest.to_owned()
    };
    assert!(page.ends_with('\n'), "{page:?}");
    page.lines().map(line).collect()
}

/// Logs twice, and gives how many lines that were, the same ones both times.
fn same(log: impl Fn()) -> usize {
    let (ours, theirs) = (timeless(&ours(&log)), timeless(&theirs(&log)));
    assert_eq!(ours, theirs);
    ours.len()
}

/// A text that says itself a piece at a time.
struct Pieces(Vec<String>);

impl fmt::Display for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| f.write_str(piece))
    }
}

#[test]
fn a_number_is_as_it_was() {
    let lines = same(|| {
        tracing::info!(a = 0, b = i64::MIN, c = u64::MAX, d = 7_u8, e = -7_i8);
        tracing::info!(a = i128::MIN, b = u128::MAX, c = 7_usize, d = 3_u16);
        tracing::info!(
            a = 0.0,
            b = -0.0,
            c = 1.5,
            d = 1e300,
            e = 1e-7,
            f = 12.345_f32
        );
        tracing::info!(
            a = f64::NAN,
            b = f64::INFINITY,
            c = f64::MIN_POSITIVE,
            d = 1e16
        );
        tracing::info!(a = true, b = false);
    });
    assert_eq!(lines, 5);
}

#[test]
fn a_text_is_as_it_was_however_it_is_told() {
    let text = "quo\"te, back\\slash, \u{7f}, \u{0}\u{1f}\n\r\t\u{8}\u{c}, ü, 字, 🖥, \\u0041 \\";
    let lines = same(|| {
        tracing::info!(a = text, b = String::from(text), c = ?text, d = %text, e = "");
        tracing::info!(a = ?Some(text), b = ?[text, ""], c = %"", "{text} and {}", text);
        tracing::info!(a = text.as_bytes(), b = ?text.as_bytes());
        tracing::info!("plain");
        tracing::info!("{}", "");
    });
    assert_eq!(lines, 5);
}

#[test]
fn an_error_and_what_is_not_there_are_as_they_were() {
    let error = io::Error::other("it \"broke\"");
    let lines = same(|| {
        let error: &(dyn Error + 'static) = &error;
        let (some, none) = (Some("it"), None::<&str>);
        let (shown, unshown) = (some.map(tracing::field::display), None::<u64>);
        tracing::warn!(error, some, none, shown, unshown, "told");
        tracing::warn!(%error, a = tracing::field::Empty, debug = ?error);
        tracing::warn!(none);
    });
    assert_eq!(lines, 3);
}

#[test]
fn keys_levels_and_targets_are_as_they_were() {
    let lines = same(|| {
        tracing::error!(
            r#type = "novnc",
            a.b = 1,
            "a \"key\"" = 2,
            "ü\n" = "3",
            message = "m"
        );
        tracing::warn!(target: "odd \"target\"\\", "warned");
        tracing::debug!(target: "log", a = 3, log.target = "other", "not of that crate");
        tracing::trace!(name: "named", target: "", "traced");
        tracing::debug!(
            a = 1,
            a = 2,
            timestamp = "then",
            level = 3,
            target = "t",
            "twice"
        );
    });
    assert_eq!(lines, 5);
}

#[test]
fn the_spans_around_an_event_are_as_they_were() {
    let lines = same(|| {
        let outer = tracing::info_span!(
            "outer \"span\"",
            zone = "ü\"",
            age = 3,
            late = tracing::field::Empty
        );
        let inner = tracing::debug_span!(parent: &outer, "inner");
        tracing::info!(parent: &inner, "of a span that is not entered");
        let _outer = outer.enter();
        tracing::info!("in one");
        outer.record("late", "now");
        let _inner = inner.enter();
        tracing::info!(a = 1, "in both");
        tracing::info!(parent: Span::none(), "in none, it says");
        tracing::info!(parent: &outer, "of the outer, in both");
    });
    assert_eq!(lines, 5);
}

#[test]
fn what_the_log_crate_tells_is_as_it_was() {
    let lines = same(|| {
        log::warn!(target: "a \"crate\"", "said {}", "\"so\"");
        log::info!("from here");
    });
    assert_eq!(lines, 2);
}

#[test]
fn what_logs_while_it_is_written_spoils_no_line() {
    /// Does what a line within the line would.
    struct Talker;
    impl fmt::Display for Talker {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let mut desk = DESK.take();
            desk.line.0.clear();
            desk.line.text("another line");
            DESK.set(desk);
            f.write_str("talker")
        }
    }
    let lines = same(|| tracing::info!(a = "a", talker = %Talker, z = "z", "told"));
    assert_eq!(lines, 1);
}

#[test]
fn what_cannot_say_itself_is_cut_short_and_the_line_is_whole() {
    struct Mute;
    impl fmt::Display for Mute {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("so \"far")?;
            Err(fmt::Error)
        }
    }

    let page = ours(|| tracing::info!(mute = %Mute, after = 1, "said"));

    let line: serde_json::Value = serde_json::from_str(&page).unwrap();
    assert_eq!(line["mute"], "so \"far");
    assert_eq!(line["after"], 1);
    assert_eq!(line["message"], "said");
}

#[test]
fn a_line_has_the_time_of_now() {
    let now = || {
        let mut time = String::new();
        Theirs.format_time(&mut Writer::new(&mut time)).unwrap();
        time
    };

    let before = now();
    let page = ours(|| tracing::info!("now"));
    let after = now();

    let line: serde_json::Value = serde_json::from_str(&page).unwrap();
    let time = line["timestamp"].as_str().unwrap();
    assert!(
        *before <= *time && *time <= *after,
        "{before} {time} {after}"
    );
}

/// Texts of all characters, those with a meaning more often.
fn texts() -> impl Strategy<Value = String> {
    const ODD: &[&str] = &[
        "\"", "\\", "\n", "\0", "\u{1f}", " ", "\u{7f}", "\u{80}", "ü",
    ];
    let odd = select(ODD).prop_map(str::to_owned);
    let any = any::<char>().prop_map(String::from);
    let piece = prop_oneof![odd, any, "[a-z0-9]{1,20}"];
    vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_is_as_it_was(whole in texts(), pieces in vec(texts(), 0..6)) {
        let pieces = Pieces(pieces);
        let lines = same(|| {
            tracing::info!(whole, %pieces, debug = ?whole, bytes = whole.as_bytes(), "{whole}{pieces}");
        });
        prop_assert_eq!(lines, 1);
    }

    #[test]
    fn any_number_is_as_it_was(f: f64, i: i64, u: u64, wide: i128) {
        let lines = same(|| tracing::info!(f, i, u, wide));
        prop_assert_eq!(lines, 1);
    }

    #[test]
    fn a_time_is_written_whatever_was_before(
        times in vec((0..3_u64, 0..1_000_000_000_u32), 1..8),
        from in 0..8_000_000_000_u64,
    ) {
        let mut second = Second::default();
        for (seconds, nanos) in times {
            let time = UNIX_EPOCH + Duration::new(from + seconds, nanos);
            let mut line = String::from("at ");
            second.write(time, &mut line);
            prop_assert_eq!(line, format!("at {}", humantime::format_rfc3339_micros(time)));
        }
    }
}
