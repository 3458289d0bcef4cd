//! An event of the log as one line of JSON.
//!
//! `{"timestamp":"...","level":"INFO",` what the event tells, `"target":"..."}`, and a list of the
//! spans around it where there are any. Byte for byte these are the lines of tracing-subscriber's
//! own format, flattened and without the current span, which the tests hold them to. They are
//! written here because each session has two of them: keys and values go straight into one buffer,
//! runs of plain bytes are taken over as they are, and the date is worked out once a second.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Number;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::{LookupSpan, SpanRef};

/// The name of all that comes by way of the `log` crate, which has its target in a field.
const FOREIGN: &str = "log event";
const FOREIGN_TARGET: &str = "log.target";

/// Writes events, for a subscriber whose spans have their fields as JSON.
#[derive(Debug)]
pub(super) struct Json;

thread_local! {
    static DESK: Cell<Desk> = Cell::default();
}

/// What a thread writes its lines with.
#[derive(Default)]
struct Desk {
    line: Line,
    second: Second,
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // Taken, not borrowed: what an event tells may log while it is written.
        let mut desk = DESK.take();
        desk.write(event);
        add_spans(&mut desk.line, context, event);
        desk.line.0.push_str("}\n");
        let written = writer.write_str(&desk.line.0);
        DESK.set(desk);
        written
    }
}

impl Desk {
    /// Begins a line anew, with all that the event itself knows.
    fn write(&mut self, event: &Event<'_>) {
        let Self { line, second } = self;
        let metadata = event.metadata();
        line.0.clear();
        line.0.push_str("{\"timestamp\":\"");
        second.write(SystemTime::now(), &mut line.0);
        line.0.push_str("\",\"level\":\"");
        line.0.push_str(metadata.level().as_str());
        line.0.push('"');
        let is_foreign = metadata.name() == FOREIGN;
        let mut fields = Fields {
            line,
            is_foreign,
            target: None,
        };
        event.record(&mut fields);
        let target = fields.target;
        line.key("target");
        line.text(target.as_deref().unwrap_or_else(|| metadata.target()));
    }
}

/// Adds the spans that the event is in, the outermost first.
fn add_spans<S, N>(line: &mut Line, context: &FmtContext<'_, S, N>, event: &Event<'_>)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let current = context.lookup_current();
    let parent = event.parent().and_then(|id| context.span(id));
    if current.is_none() && parent.is_none() {
        return;
    }
    line.key("spans");
    let mut before = '[';
    for span in current.iter().flat_map(|leaf| leaf.scope().from_root()) {
        line.0.push(before);
        add_span::<S, N>(line, &span);
        before = ',';
    }
    line.0.push_str(if before == '[' { "[]" } else { "]" });
}

/// Adds a span: its fields, which are an object already, and its name.
fn add_span<S, N>(line: &mut Line, span: &SpanRef<'_, S>)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let known = span.extensions();
    let fields = known.get::<FormattedFields<N>>();
    let fields = fields.and_then(|fields| fields.strip_suffix('}'));
    let fields = fields.unwrap_or("{");
    line.0.push_str(fields);
    if fields != "{" {
        line.0.push(',');
    }
    line.0.push_str("\"name\":");
    line.text(span.name());
    line.0.push('}');
}

/// Adds what an event tells, one after the other.
struct Fields<'a> {
    line: &'a mut Line,
    is_foreign: bool,
    /// Of an event from the `log` crate.
    target: Option<String>,
}

impl Fields<'_> {
    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        self.line.key(field.name());
        // A string takes what it is given.
        let _infallible = self.line.0.write_fmt(value);
    }
}

impl Visit for Fields<'_> {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, format_args!("{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match Number::from_f64(value) {
            Some(number) => self.add(field, format_args!("{number}")),
            None => self.add(field, format_args!("null")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.line.key(field.name());
        self.line.text(value);
        if self.is_foreign && field.name() == FOREIGN_TARGET {
            self.target = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.line.key(field.name());
        self.line.shown(value);
    }
}

/// A line that grows.
#[derive(Default)]
struct Line(String);

impl Line {
    fn key(&mut self, key: &str) {
        self.0.push_str(",\"");
        escape(key, &mut self.0);
        self.0.push_str("\":");
    }

    fn text(&mut self, text: &str) {
        self.0.push('"');
        escape(text, &mut self.0);
        self.0.push('"');
    }

    /// A text that says itself. It does so into the line, and is taken back if it must be escaped.
    fn shown(&mut self, text: &dyn fmt::Debug) {
        self.0.push('"');
        let begin = self.0.len();
        // What cannot say itself to the end is cut short: the line stays a line.
        let _cut_short = write!(self.0, "{text:?}");
        let said = self.0.as_bytes().get(begin..).unwrap_or_default();
        if !is_plain(said) {
            let said = self.0.split_off(begin);
            escape(&said, &mut self.0);
        }
        self.0.push('"');
    }
}

/// Appends a text as it stands between JSON's quotes.
fn escape(text: &str, line: &mut String) {
    if is_plain(text.as_bytes()) {
        line.push_str(text);
    } else {
        text.chars().for_each(|c| push(c, line));
    }
}

fn push(c: char, line: &mut String) {
    match c {
        '"' => line.push_str("\\\""),
        '\\' => line.push_str("\\\\"),
        '\n' => line.push_str("\\n"),
        '\t' => line.push_str("\\t"),
        '\r' => line.push_str("\\r"),
        '\u{8}' => line.push_str("\\b"),
        '\u{c}' => line.push_str("\\f"),
        '\0'..' ' => {
            let _infallible = write!(line, "\\u{:04x}", u32::from(c));
        }
        _ => line.push(c),
    }
}

/// Whether all of a text stands for itself, which most texts do: looked at eight bytes at a time, the
/// last of which may be looked at twice.
fn is_plain(text: &[u8]) -> bool {
    if let Some(last) = text.last_chunk() {
        let (words, _) = text.as_chunks();
        return !words.iter().any(|word| has_odd(*word)) && !has_odd(*last);
    }
    let mut word = [b' '; 8];
    word.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
    !has_odd(word)
}

/// Whether one of eight bytes has to be escaped. Taking `n` from each at once sets the top bit of
/// those that are less than `n`, and of others only if there is such a one.
fn has_odd(bytes: [u8; 8]) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let word = u64::from_ne_bytes(bytes);
    let less = |word: u64, n: u8| word.wrapping_sub(EACH * u64::from(n)) & !word;
    let is = |byte: u8| less(word ^ (EACH * u64::from(byte)), 1);
    (less(word, b' ') | is(b'"') | is(b'\\')) & (EACH << 7) != 0
}

/// The second that was written last, for the next line is mostly of the same one.
#[derive(Default)]
struct Second {
    since_epoch: u64,
    text: String,
}

impl Second {
    /// Appends a time in UTC, to the microsecond. No kernel has its clock before 1970.
    fn write(&mut self, now: SystemTime, line: &mut String) {
        let now = now.max(UNIX_EPOCH);
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.text.is_empty() || self.since_epoch != since.as_secs() {
            self.since_epoch = since.as_secs();
            self.text = humantime::format_rfc3339_seconds(now).to_string();
            // The `Z` comes after the microseconds.
            let _zone = self.text.pop();
        }
        line.push_str(&self.text);
        let _infallible = write!(line, ".{:06}Z", since.subsec_micros());
    }
}

#[cfg(test)]
mod tests;
