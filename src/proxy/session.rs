//! One viewer's time at a console, from its first line in the log to its last.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use socket2::SockRef;
use tokio::time::Instant;

use super::close::{ABNORMAL, ENDED, LOST, NO_CODE};
use super::entry::Entered;
use super::reception::receive;
use super::relay::{self, End, Ending, Opening, Report};
use super::rights;
use super::roster::Seat;
use super::target::Stream;
use super::workers::{adopt, adopt_tcp};
use super::{Proxy, Settings};
use crate::audit::{Event, What};
use crate::compute::Display;
use crate::http::{Upgraded, upgraded_stream};
use crate::model::{CorrelationId, Grant, Scheme, SessionId, TokenId, Way};
use crate::resolve;
use crate::telemetry::TypeLabel;

/// How long a refused viewer may take to hear it.
const REFUSAL: Duration = Duration::from_secs(2);

/// Bytes that may wait in the kernel for a slow viewer: more would be stale pictures, up to 4 MiB of
/// them. It costs a fast viewer nothing; see docs/performance.md.
const UNSENT: u32 = 128 << 10;

/// Who looks at what.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) seat: Seat,
    pub(super) correlation: CorrelationId,
    /// With the target it is at now. Boxed, as what is large is all over here: a session is held for
    /// hours, and there are thousands.
    pub(super) grant: Box<Grant>,
    pub(super) viewer: Option<IpAddr>,
}

/// Relays until somebody leaves. A line in both logs at the start and one at the end.
pub(super) async fn run(proxy: &Proxy, session: Session, upgrade: OnUpgrade, mut entered: Entered) {
    let Some((mut viewer, viewer_bytes)) = take_stream(upgrade).await else {
        return;
    };
    let adopted = adopt_tcp(viewer.socket_mut()).and_then(|()| adopt(&mut entered.stream));
    if let Err(error) = adopted {
        tracing::warn!(%error, "a session ended before it began");
        return;
    }
    let Session {
        mut seat,
        correlation,
        grant,
        viewer: peer,
    } = session;
    seat.open(entered.way);
    let story = Story {
        id: seat.live().record.id,
        token: seat.live().record.token.clone(),
        correlation,
        peer,
        way: entered.way,
        scheme: entered.scheme,
        started: Instant::now(),
    };
    story.begin(proxy, &grant);
    let settings = proxy.settings.now();

    let opening = Opening {
        viewer_bytes,
        meter: Arc::clone(&seat.live().meter),
        filter: rights::filter(grant.console_type.kind(), &seat.live().rights),
        signature: format!(" [{correlation}]").into(),
        caps: proxy.bandwidth.caps(&grant, settings.bandwidth),
        ..Opening::default()
    };
    let report = serve(&settings, &seat, (viewer, entered), opening).await;
    let mut grant = grant;
    grant.rights = seat.live().rights.get();
    drop(seat);
    story.end(proxy, &grant, &report);
}

/// What the logs tell of a session, beside its grant.
struct Story {
    id: SessionId,
    token: TokenId,
    correlation: CorrelationId,
    peer: Option<IpAddr>,
    way: Way,
    scheme: Option<Scheme>,
    started: Instant,
}

impl Story {
    fn begin(&self, proxy: &Proxy, grant: &Grant) {
        let (correlation, peer) = (self.correlation, self.peer.map(tracing::field::display));
        tracing::info!(
            session = %self.id, %correlation, instance = %grant.instance, name = grant.instance_name,
            r#type = %grant.console_type, address = %grant.target, caller = grant.caller, peer,
            rights = %grant.rights, "session started"
        );
        proxy.audit.note(&self.event(What::Opened, grant));
        let label = TypeLabel::from(grant.console_type);
        proxy.metrics.sessions.get_or_create(&label).inc();
        proxy.metrics.sessions_active.get_or_create(&label).inc();
    }

    fn end(&self, proxy: &Proxy, grant: &Grant, report: &Report) {
        let label = TypeLabel::from(grant.console_type);
        proxy.metrics.sessions_active.get_or_create(&label).dec();
        proxy.metrics.count_bytes(report.up, report.down);
        let (code, why) = outcome(&report.end);
        proxy.metrics.count_close(code);
        let seconds = (self.started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        let (correlation, peer) = (self.correlation, self.peer.map(tracing::field::display));
        let (way, security) = (self.way.as_str(), self.scheme.map(tracing::field::display));
        tracing::info!(
            session = %self.id, %correlation, instance = %grant.instance, name = grant.instance_name,
            r#type = %grant.console_type, address = %grant.target, caller = grant.caller, peer,
            way, security, rights = %grant.rights, code, why, up = report.up, down = report.down,
            seconds, "session ended"
        );
        proxy.audit.note(&Event {
            code: Some(code),
            why: Some(why),
            up: Some(report.up),
            down: Some(report.down),
            seconds: Some(seconds),
            ..self.event(What::Ended, grant)
        });
    }

    fn event(&self, what: What, grant: &Grant) -> Event {
        Event {
            address: self.peer,
            session: Some(self.id),
            token: Some(self.token.clone()),
            ..Event::new(what)
                .of_grant(grant)
                .correlated(self.correlation)
        }
    }
}

/// Lets the viewer in, where there is something to shake hands on, and relays.
async fn serve(
    settings: &Settings,
    seat: &Seat,
    (mut viewer, mut entered): (Upgraded, Entered),
    mut opening: Opening,
) -> Report {
    if entered.scheme.is_none() {
        opening.target_bytes = entered.early;
        return relay(settings, seat, viewer, entered.stream, opening).await;
    }
    let early = std::mem::take(&mut opening.viewer_bytes);
    let (frames, limit) = (&settings.relay, settings.connect_timeout);
    let received = tokio::select! {
        biased;
        ending = seat.ended() => Err(End::Stopped(ending)),
        // Boxed: what the handshake needs is not to be held for the session.
        received = Box::pin(receive(&mut viewer, early, &mut entered, frames, limit)) => received,
    };
    match received {
        Ok(received) => {
            opening.decoder = Some(received.decoder);
            opening.viewer_payload = received.payload;
            opening.target_bytes = entered.early;
            relay(settings, seat, viewer, entered.stream, opening).await
        }
        Err(end) => {
            if let End::Stopped(Ending { code, reason }) = &end {
                let reason = format!("{reason}{}", opening.signature);
                relay::refuse(viewer, *code, &reason, REFUSAL).await;
            }
            Report {
                up: 0,
                down: 0,
                end,
            }
        }
    }
}

async fn relay(
    settings: &Settings,
    seat: &Seat,
    viewer: Upgraded,
    target: Stream,
    opening: Opening,
) -> Report {
    let settings = &settings.relay;
    let stop = seat.ended();
    match target {
        Stream::Tcp(target) => Box::pin(relay::run(viewer, target, opening, settings, stop)).await,
        Stream::Unix(target) => Box::pin(relay::run(viewer, target, opening, settings, stop)).await,
        Stream::Handed(Display::Socket(target)) => {
            Box::pin(relay::run(viewer, target, opening, settings, stop)).await
        }
        Stream::Handed(Display::Line(target)) => {
            Box::pin(relay::run(viewer, target, opening, settings, stop)).await
        }
        Stream::Handed(Display::Tunnel(target)) => {
            Box::pin(relay::run(viewer, target.stream, opening, settings, stop)).await
        }
        Stream::Tls(target) => Box::pin(relay::run(viewer, target, opening, settings, stop)).await,
    }
}

/// Completes the upgrade only to close it with a sentence.
pub(super) async fn refuse(upgrade: OnUpgrade, code: u16, reason: &str) {
    if let Some((viewer, _early)) = take_stream(upgrade).await {
        relay::refuse(viewer, code, reason, REFUSAL).await;
    }
}

/// The viewer's stream once the 101 has left, and what it sent behind its request.
async fn take_stream(upgrade: OnUpgrade) -> Option<(Upgraded, Vec<u8>)> {
    let (stream, early) = upgraded_stream(upgrade).await?;
    let unsent = |()| SockRef::from(stream.socket()).set_tcp_notsent_lowat(UNSENT);
    if let Err(error) = resolve::prepare(stream.socket()).and_then(unsent) {
        tracing::debug!(%error, "the viewer left before the session began");
    }
    Some((stream, early.to_vec()))
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
