//! What the program says of itself: the log on stderr, and the metrics.
//!
//! Log lines carry fields, never a token, a cookie or a query string: those are parsed into
//! types that hide themselves before anything could log them. Metrics have the prefix
//! `vncgate_`, base units, and no label per instance.

mod json;
mod outlet;

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::reload::Handle;

use crate::config::{Log, LogFormat};
use crate::model::ConsoleType;
use json::Json;
use outlet::Outlet;

/// How long a process that ends waits for the reader of its log.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A log that runs; its last lines are written when this is dropped.
#[derive(Debug)]
pub struct Logging {
    outlet: Outlet,
    /// Changes what is said.
    pub level: Level,
}

/// Changes what a log that runs says. Cheap to clone.
#[derive(Clone)]
pub struct Level(Arc<dyn Fn(EnvFilter) + Send + Sync>);

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Level")
    }
}

impl Level {
    fn of<S>(handle: Handle<EnvFilter, S>) -> Self
    where
        Handle<EnvFilter, S>: Send + Sync + 'static,
    {
        // An error means that the log is gone, and nobody is left to tell.
        Self(Arc::new(move |filter| drop(handle.reload(filter))))
    }

    /// Reads a level or filter. Errors: it is none.
    pub fn parse(&self, level: &str) -> Result<EnvFilter, ParseError> {
        EnvFilter::builder().parse(level)
    }

    /// Puts a filter in force.
    pub fn set(&self, filter: EnvFilter) {
        (self.0)(filter);
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.outlet.finish(LAST_LINES);
    }
}

/// Starts logging to stderr, once per process. Errors: the level or filter does not parse, or
/// there is no thread to be had.
pub fn start_log(log: &Log) -> Result<Logging, Box<dyn std::error::Error + Send + Sync>> {
    let filter = EnvFilter::builder().parse(&log.level)?;
    let human = match log.format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    let regret = if human {
        regret_to_people
    } else {
        regret_in_json
    };
    let outlet = Outlet::start(std::io::stderr(), regret)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(outlet.clone());
    let (level, started) = if human {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let builder = builder.with_target(false).with_timer(Clock);
        let builder = builder.with_ansi(colour).with_filter_reloading();
        (Level::of(builder.reload_handle()), builder.try_init())
    } else {
        let builder = builder.event_format(Json).fmt_fields(JsonFields::new());
        let builder = builder.with_filter_reloading();
        (Level::of(builder.reload_handle()), builder.try_init())
    };
    // An error means that a log was started before, which then stays.
    drop(started);
    Ok(Logging { outlet, level })
}

fn regret_to_people(lost: u64) -> String {
    format!("vncgate: {lost} log lines are lost, their reader was too slow\n")
}

fn regret_in_json(lost: u64) -> String {
    format!("{{\"level\":\"WARN\",\"message\":\"log lines lost\",\"lost\":{lost}}}\n")
}

/// The time as people read it, to the second.
struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, line: &mut Writer<'_>) -> fmt::Result {
        write!(
            line,
            "{}",
            humantime::format_rfc3339_seconds(SystemTime::now())
        )
    }
}

/// Every figure at `/metrics`. Cheap to clone: all clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Live sessions.
    pub sessions_active: Family<TypeLabel, Gauge>,
    /// Sessions that began.
    pub sessions: Family<TypeLabel, Counter>,
    /// Sessions and refusals, by the close code sent or received.
    pub closes: Family<CodeLabel, Counter>,
    /// Payload bytes of ended sessions.
    pub bytes: Family<DirectionLabel, Counter>,
    /// How long it took to reach a target and hear its greeting, in seconds.
    pub connect_seconds: Timing,
    /// Tokens issued.
    pub tokens_issued: Family<TypeLabel, Counter>,
    /// Tokens refused.
    pub tokens_refused: Counter,
    /// Requests to the API, by status.
    pub api_requests: Family<StatusLabel, Counter>,
    /// 1 while draining.
    pub draining: Gauge,
    /// Clients turned away before a session, by why.
    pub turned_away: Family<WhyLabel, Counter>,
    /// Bytes of memory of this process.
    pub memory: Gauge,
    /// Limits that are set, by name; 0 is none.
    pub limits: Family<NameLabel, Gauge>,
    /// Events taken for the audit log.
    pub audit_events: Counter,
    /// Events that it has lost.
    pub audit_lost: Counter,
    /// 1 while it cannot be written.
    pub audit_failing: Gauge,
    /// How long compute hosts take to answer, in seconds.
    pub host_seconds: Timing,
    /// Consoles that this machine carries for proxies elsewhere.
    pub tunnels_active: Gauge,
    /// 1 for a compute host that can be reached.
    hosts: Family<HostLabel, Gauge>,
    /// How often the config was read again.
    reloads: Family<ResultLabel, Counter>,
    /// How long the certificates in a file are still valid, in days.
    certificates: Family<FileLabel, Gauge<f64, AtomicU64>>,
    registry: Arc<std::sync::OnceLock<Registry>>,
}

/// A histogram from a millisecond to ten seconds.
#[derive(Clone, Debug)]
pub struct Timing(pub Histogram);

impl Default for Timing {
    fn default() -> Self {
        Self(Histogram::new([
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0,
        ]))
    }
}

/// `type="novnc"`
#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
pub struct TypeLabel {
    r#type: &'static str,
}

impl From<ConsoleType> for TypeLabel {
    fn from(console_type: ConsoleType) -> Self {
        Self {
            r#type: console_type.as_str(),
        }
    }
}

/// `code="4001"`
#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
pub struct CodeLabel {
    /// A WebSocket close code; 1006 where none was exchanged.
    pub code: u16,
}

/// `status="201"`
#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
pub struct StatusLabel {
    /// An HTTP status.
    pub status: u16,
}

/// `why="rate"`
#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
pub struct WhyLabel {
    /// A word.
    pub why: &'static str,
}

/// `name="max_sessions"`
#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
pub struct NameLabel {
    /// A key of the config, without its section.
    pub name: &'static str,
}

/// `result="ok"`
#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
pub struct ResultLabel {
    result: &'static str,
}

/// `host="kvm-1"`
#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
pub struct HostLabel {
    host: String,
}

/// `file="/etc/vncgate/vnc-ca.pem"`
#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
pub struct FileLabel {
    file: String,
}

/// `direction="down"`
#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
pub struct DirectionLabel {
    /// Which way.
    pub direction: Direction,
}

/// Which way bytes flow.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the label's values")]
pub enum Direction {
    /// From the viewer to the target.
    up,
    /// From the target to the viewer.
    down,
}

impl Metrics {
    /// The page in Prometheus' text format.
    pub fn page(&self) -> String {
        let registry = self.registry.get_or_init(|| self.register());
        let mut page = String::new();
        if encode(&mut page, registry).is_err() {
            page.clear();
            let _infallible = write!(page, "# the metrics could not be written\n# EOF\n");
        }
        page
    }

    fn register(&self) -> Registry {
        let mut registry = Registry::with_prefix("vncgate");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What runs", build);
        registry.register(
            "sessions_active",
            "Live sessions",
            self.sessions_active.clone(),
        );
        registry.register("sessions", "Sessions that began", self.sessions.clone());
        registry.register(
            "closes",
            "WebSockets ended, by close code",
            self.closes.clone(),
        );
        let bytes = self.bytes.clone();
        registry.register_with_unit("relayed", "Bytes of ended sessions", Unit::Bytes, bytes);
        let (help, seconds) = ("Time to reach a target", self.connect_seconds.0.clone());
        registry.register_with_unit("connect_duration", help, Unit::Seconds, seconds);
        registry.register("tokens_issued", "Tokens issued", self.tokens_issued.clone());
        registry.register(
            "tokens_refused",
            "Tokens refused",
            self.tokens_refused.clone(),
        );
        registry.register(
            "api_requests",
            "Requests to the API",
            self.api_requests.clone(),
        );
        registry.register(
            "certificate_days_left",
            "Days until the first certificate in a file expires; 0 once it has",
            self.certificates.clone(),
        );
        registry.register(
            "turned_away",
            "Clients turned away before a session",
            self.turned_away.clone(),
        );
        let (help, memory) = ("Memory of this process", self.memory.clone());
        registry.register_with_unit("memory_resident", help, Unit::Bytes, memory);
        registry.register("limit", "Limits in force; 0 is none", self.limits.clone());
        registry.register(
            "config_reloads",
            "How often the config was read again, and whether it was good",
            self.reloads.clone(),
        );
        registry.register("draining", "1 while draining", self.draining.clone());
        self.register_audit(&mut registry);
        self.register_hosts(&mut registry);
        registry
    }

    fn register_hosts(&self, registry: &mut Registry) {
        let help = "1 for a compute host that can be reached, 0 for one that cannot";
        registry.register("compute_host_up", help, self.hosts.clone());
        let help = "Consoles that this machine carries for proxies elsewhere";
        registry.register("tunnels_active", help, self.tunnels_active.clone());
        let (help, seconds) = (
            "Time of compute hosts to answer",
            self.host_seconds.0.clone(),
        );
        registry.register_with_unit("compute_host_call_duration", help, Unit::Seconds, seconds);
    }

    fn register_audit(&self, registry: &mut Registry) {
        let (events, lost) = (self.audit_events.clone(), self.audit_lost.clone());
        registry.register("audit_events", "Events for the audit log", events);
        registry.register("audit_lost", "Events that the audit log has lost", lost);
        let failing = self.audit_failing.clone();
        registry.register("audit_failing", "1 while it cannot be written", failing);
    }

    /// Counts the end of a WebSocket.
    pub fn count_close(&self, code: u16) {
        self.closes.get_or_create(&CodeLabel { code }).inc();
    }

    /// Counts a config that was read again, and whether it was good.
    pub fn count_reload(&self, good: bool) {
        let result = if good { "ok" } else { "failed" };
        self.reloads.get_or_create(&ResultLabel { result }).inc();
    }

    /// Notes how long the certificates in a file are still valid.
    pub fn note_certificate(&self, file: &Path, left: Duration) {
        let file = file.display().to_string();
        let days = left.as_secs_f64() / 86_400.0;
        let gauge = self.certificates.get_or_create(&FileLabel { file });
        let _before = gauge.set((days * 100.0).round() / 100.0);
    }

    /// Notes whether a compute host can be reached; `None` if it is no host any more.
    pub fn note_host(&self, host: &str, is_up: Option<bool>) {
        let label = HostLabel {
            host: host.to_owned(),
        };
        match is_up {
            Some(is_up) => drop(self.hosts.get_or_create(&label).set(i64::from(is_up))),
            None => drop(self.hosts.remove(&label)),
        }
    }

    /// Counts a client that was turned away.
    pub fn count_turned_away(&self, why: &'static str) {
        self.turned_away.get_or_create(&WhyLabel { why }).inc();
    }

    /// Notes a limit that is in force.
    pub fn note_limit(&self, name: &'static str, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        let _before = self.limits.get_or_create(&NameLabel { name }).set(value);
    }

    /// Counts the bytes of an ended session.
    pub fn count_bytes(&self, up: u64, down: u64) {
        for (direction, bytes) in [(Direction::up, up), (Direction::down, down)] {
            self.bytes
                .get_or_create(&DirectionLabel { direction })
                .inc_by(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_what_was_counted() {
        let metrics = Metrics::default();
        metrics
            .sessions
            .get_or_create(&ConsoleType::Novnc.into())
            .inc();
        metrics.count_close(4001);
        metrics.count_bytes(3, 5);

        let page = metrics.page();

        assert!(
            page.contains("vncgate_sessions_total{type=\"novnc\"} 1"),
            "{page}"
        );
        assert!(
            page.contains("vncgate_closes_total{code=\"4001\"} 1"),
            "{page}"
        );
        assert!(
            page.contains("vncgate_relayed_bytes_total{direction=\"down\"} 5"),
            "{page}"
        );
        assert!(page.contains("vncgate_build_info{version="), "{page}");
        assert!(page.ends_with("# EOF\n"), "{page}");
    }
}
