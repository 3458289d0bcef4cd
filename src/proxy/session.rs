//! One viewer's time at a console, from its first line in the log to its last.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::close::{ABNORMAL, ENDED, LOST, NO_CODE};
use super::console::Held;
use super::entry::Entered;
use super::reception::receive;
use super::relay::{
    self, End, Ending, Opening, Relay, Report, Resident, Socket, has_reactor, settle,
};
use super::rights;
use super::roster::{Ended, Seat};
use super::target::Stream;
use crate::audit::{Event, What};
use crate::auth::SessionRecord;
use crate::compute::Display;
use crate::drain::Tracked;
use crate::http::{Upgraded, upgraded_stream};
use crate::model::{CorrelationId, Ip, Rights, Scheme, Way};
use crate::telemetry::TypeLabel;

/// How long a refused viewer may take to hear it.
const REFUSAL: Duration = Duration::from_secs(2);

/// A session that is about to begin.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) seat: Seat,
    pub(super) correlation: CorrelationId,
    pub(super) held: Held,
}

/// Begins a session on this thread, which another one has led there until now.
pub(super) async fn move_and_run(session: Session, viewer: (Upgraded, Bytes), entered: Entered) {
    let (viewer, viewer_bytes) = viewer;
    let Entered { stream, .. } = entered;
    let adopted = viewer
        .adopt()
        .and_then(|viewer| Ok((viewer, stream.adopt()?)));
    match adopted {
        Ok((viewer, stream)) => {
            run(
                session,
                (viewer, viewer_bytes),
                Entered { stream, ..entered },
            )
            .await;
        }
        Err(error) => tracing::warn!(%error, "a session ended before it began"),
    }
}

/// Begins a session, and leaves it to a task of its own: what is needed to begin is over here, and
/// a session is held for hours. A line in both logs at the start and one at the end.
pub(super) async fn run(session: Session, viewer: (Upgraded, Bytes), mut entered: Entered) {
    let (mut viewer, viewer_bytes) = viewer;
    let story = Story::begin(session, &entered);
    let opening = story.opening(viewer_bytes.into());
    match admit(&story, &mut viewer, &mut entered, opening).await {
        Ok(opening) => story.relay(viewer, entered.stream, opening),
        Err(end) => {
            story.refuse(viewer, &end).await;
            let (up, down) = (0, 0);
            story.end(&Report { up, down, end });
        }
    }
}

/// Lets the viewer in, where there is something to shake hands on.
async fn admit(
    story: &Story,
    viewer: &mut Upgraded,
    entered: &mut Entered,
    mut opening: Opening,
) -> Result<Opening, End> {
    if entered.scheme.is_some() {
        let early = std::mem::take(&mut opening.viewer_bytes);
        let settings = story.seat.proxy().settings.now();
        let (frames, limit) = (&settings.relay, settings.connect_timeout);
        let received = tokio::select! {
            biased;
            ending = story.seat.ended() => return Err(End::Stopped(ending)),
            received = receive(viewer, early, entered, frames, limit) => received?,
        };
        opening.decoder = Some(received.decoder);
        opening.viewer_payload = received.payload;
    }
    opening.target_bytes = std::mem::take(&mut entered.early);
    Ok(opening)
}

/// A session that lives: its place, and what the logs tell of it beside its record.
struct Story {
    seat: Seat,
    correlation: CorrelationId,
    way: Way,
    scheme: Option<Scheme>,
    started: Instant,
    _held: Held,
}

impl Story {
    fn begin(session: Session, entered: &Entered) -> Self {
        let Session {
            mut seat,
            correlation,
            held,
        } = session;
        seat.open(entered.way);
        let story = Self {
            seat,
            correlation,
            way: entered.way,
            scheme: entered.scheme,
            started: Instant::now(),
            _held: held,
        };
        story.tell_begin();
        story
    }

    fn record(&self) -> &SessionRecord {
        &self.seat.live().record
    }

    fn opening(&self, viewer_bytes: Vec<u8>) -> Opening {
        let (live, proxy) = (self.seat.live(), self.seat.proxy());
        let bandwidth = proxy.settings.now().bandwidth;
        Opening {
            viewer_bytes,
            meter: Arc::clone(&live.meter),
            filter: rights::filter(live.record.console_type.kind(), &live.rights),
            signature: format!(" [{}]", self.correlation).into(),
            caps: proxy.bandwidth.caps(&live.record, bandwidth),
            ..Opening::default()
        }
    }

    /// Relays until somebody leaves: by this thread's reactor, if both sides are plain sockets.
    fn relay(self, viewer: Upgraded, target: Stream, opening: Opening) {
        match (viewer, target) {
            (Upgraded::Tcp(viewer), Stream::Tcp(target)) if has_reactor() => {
                self.reside(viewer, Socket::from_tcp(target), opening);
            }
            (
                Upgraded::Tcp(viewer),
                Stream::Unix(target) | Stream::Handed(Display::Socket(target)),
            ) if has_reactor() => self.reside(viewer, Socket::from_unix(target), opening),
            (viewer, Stream::Tcp(target)) => self.relay_to(viewer, target, opening),
            (viewer, Stream::Unix(target) | Stream::Handed(Display::Socket(target))) => {
                self.relay_to(viewer, target, opening);
            }
            (viewer, Stream::Handed(Display::Tunnel(target))) => {
                self.relay_to(viewer, target.stream, opening);
            }
            (viewer, Stream::Handed(Display::Line(target)) | Stream::Tls(target)) => {
                self.relay_to(viewer, target, opening);
            }
        }
    }

    fn reside(self, viewer: TcpStream, target: io::Result<Socket>, opening: Opening) {
        let sockets = Socket::from_tcp(viewer).and_then(|viewer| Ok((viewer, target?)));
        match sockets {
            Ok((viewer, target)) => {
                let tracked = self.seat.proxy().watch.track_session();
                let life = self.live(viewer, target, opening);
                settle(Box::new(Settled(life, tracked)));
            }
            Err(error) => {
                tracing::warn!(%error, "a session's socket cannot be watched");
                self.end(&Report {
                    up: 0,
                    down: 0,
                    end: End::ViewerFailed(error.kind()),
                });
            }
        }
    }

    fn relay_to<T>(self, viewer: Upgraded, target: T, opening: Opening)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let watch = self.seat.proxy().watch.clone();
        watch.spawn_session(self.live(viewer, target, opening));
    }

    fn live<V, T>(self, viewer: V, target: T, opening: Opening) -> Life<Relay<V, T, Ended>>
    where
        V: AsyncRead + AsyncWrite + Unpin,
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let (settings, stop) = (self.seat.proxy().settings.now(), self.seat.ended());
        let relay = relay::run(viewer, target, opening, &settings.relay, stop);
        Life(Some((relay, self)))
    }

    async fn refuse(&self, viewer: Upgraded, end: &End) {
        if let End::Stopped(Ending { code, reason }) = end {
            let reason = format!("{reason} [{}]", self.correlation);
            relay::refuse(viewer, *code, &reason, REFUSAL).await;
        }
    }

    fn tell_begin(&self) {
        let (record, proxy) = (self.record(), self.seat.proxy());
        let correlation = self.correlation;
        tracing::info!(
            session = %record.id, %correlation, instance = %record.instance,
            name = record.instance_name, r#type = %record.console_type, address = record.host,
            caller = record.caller, peer = record.viewer.map(Ip).map(tracing::field::display),
            rights = %record.rights, "session started"
        );
        proxy
            .audit
            .note(|| event(What::Opened, record, record.rights, self.correlation));
        let label = TypeLabel::from(record.console_type);
        proxy.metrics.sessions.get_or_create(&label).inc();
        proxy.metrics.sessions_active.get_or_create(&label).inc();
    }

    fn end(self, report: &Report) {
        let (proxy, live) = (Arc::clone(self.seat.proxy()), Arc::clone(self.seat.live()));
        let record = &live.record;
        let label = TypeLabel::from(record.console_type);
        proxy.metrics.sessions_active.get_or_create(&label).dec();
        proxy.metrics.count_bytes(report.up, report.down);
        let (code, why) = outcome(&report.end);
        proxy.metrics.count_close(code);
        let seconds = (self.started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        let (correlation, rights) = (self.correlation, live.rights.get());
        let (way, security) = (self.way.as_str(), self.scheme.map(tracing::field::display));
        drop(self);
        tracing::info!(
            session = %record.id, %correlation, instance = %record.instance,
            name = record.instance_name, r#type = %record.console_type, address = record.host,
            caller = record.caller, peer = record.viewer.map(Ip).map(tracing::field::display),
            way, security, %rights, code, why, up = report.up, down = report.down, seconds,
            "session ended"
        );
        proxy.audit.note(|| Event {
            code: Some(code),
            why: Some(why),
            up: Some(report.up),
            down: Some(report.down),
            seconds: Some(seconds),
            ..event(What::Ended, record, rights, correlation)
        });
    }
}

fn event(what: What, record: &SessionRecord, rights: Rights, correlation: CorrelationId) -> Event {
    Event {
        caller: Some(record.caller.clone()),
        instance: Some(record.instance),
        name: Some(record.instance_name.clone()),
        project: record.project.clone(),
        r#type: Some(record.console_type),
        rights: Some(rights),
        address: record.viewer,
        session: Some(record.id),
        token: Some(record.token.clone()),
        ..Event::new(what).correlated(correlation)
    }
}

/// A relay and its story, until both end. No `async` block, which would hold room for each twice.
struct Life<R>(Option<(R, Story)>);

impl<R: Future<Output = Report> + Unpin> Future for Life<R> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some((relay, _)) = &mut self.0 else {
            return Poll::Ready(());
        };
        let report = ready!(Pin::new(relay).poll(cx));
        if let Some((relay, story)) = self.0.take() {
            // The streams end before the place is free.
            drop(relay);
            story.end(&report);
        }
        Poll::Ready(())
    }
}

// Neither is pinned in place.
impl<R> Unpin for Life<R> {}

/// A life that is no task, and that draining waits for.
struct Settled<R>(
    Life<R>,
    #[expect(dead_code, reason = "it is counted")] Tracked,
);

impl Resident for Settled<Relay<Socket, Socket, Ended>> {
    fn sockets(&mut self) -> Option<[&mut Socket; 2]> {
        let (relay, _) = self.0.0.as_mut()?;
        Some(relay.sockets())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// Completes the upgrade only to close it with a sentence.
pub(super) async fn refuse(upgrade: OnUpgrade, code: u16, reason: &str) {
    if let Some((viewer, _early)) = upgraded_stream(upgrade).await {
        relay::refuse(viewer, code, reason, REFUSAL).await;
    }
}

/// The close code that a session is counted under, and its end in words for the log.
fn outcome(end: &End) -> (u16, String) {
    match end {
        End::TargetClosed => (ENDED, "the target closed".to_owned()),
        End::TargetFailed(kind) => (LOST, format!("the target failed: {kind}")),
        End::ViewerClosed { code } => (counted(*code), "the viewer left".to_owned()),
        End::ViewerGone => (ABNORMAL, "the viewer vanished".to_owned()),
        End::ViewerFailed(kind) => (ABNORMAL, format!("the viewer's connection failed: {kind}")),
        End::ViewerSilent => (ABNORMAL, "the viewer answers no pings".to_owned()),
        End::Violation(violation) => (violation.code(), violation.to_string()),
        End::Stopped(ending) => (ending.code, ending.reason.clone()),
    }
}

/// A viewer may send any code; those above RFC 6455's own would mix with ours (4001 is a refusal)
/// and make a series of metrics each.
fn counted(code: Option<u16>) -> u16 {
    code.filter(|code| *code < 3000).unwrap_or(NO_CODE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewers_own_codes_are_not_counted_as_ours() {
        let left = |code| outcome(&End::ViewerClosed { code }).0;
        assert_eq!(left(Some(1001)), 1001);
        assert_eq!(left(Some(4001)), 1005);
        assert_eq!(left(None), 1005);
    }
}
