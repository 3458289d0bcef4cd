//! One live session: see it, change what its viewer may do, end it.

use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::console::enforceable;
use super::identity::Caller;
use super::view::SessionView;
use super::{Api, only, read_body};
use crate::audit::{Event, What};
use crate::auth::{AuthError, LiveSession};
use crate::http::{Body, Reject, json};
use crate::model::{Rights, Role, SessionId};

/// How long a proxy may take to say that it has done what was wanted.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// The body of `PATCH /v1/sessions/{id}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    /// What the viewer is to be allowed.
    rights: Rights,
}

/// Answers what is asked at `/v1/sessions/{id}`.
pub(super) async fn answer(
    api: &Api,
    request: Request<Incoming>,
    id: &str,
    caller: &Caller,
) -> Result<Response<Body>, Reject> {
    only(&request, &[Method::GET, Method::PATCH, Method::DELETE])?;
    let id: SessionId = id.parse().map_err(|error| {
        let why = format!("this is no session id: {error}");
        Reject::new(StatusCode::BAD_REQUEST, "bad-session-id", why)
    })?;
    let live = api.auth.session(id).await?;
    if !caller.sees(live.record.project.as_deref()) {
        return Err(AuthError::NoSession(id).into());
    }
    let (status, live) = match *request.method() {
        Method::DELETE => (StatusCode::OK, kill(api, id, caller).await?),
        Method::PATCH => change(api, request, &live, caller).await?,
        _ => (StatusCode::OK, live),
    };
    Ok(json(status, &SessionView::from(live)))
}

async fn kill(api: &Api, id: SessionId, caller: &Caller) -> Result<LiveSession, Reject> {
    caller.must_be(Role::Member)?;
    let live = api.auth.kill(id).await?;
    let instance = live.record.instance;
    tracing::info!(session = %id, %instance, %caller, "session killed");
    api.audit.note(|| about(What::Killed, &live, caller));
    Ok(live)
}

/// Gives the viewer other rights. Whoever may issue a URL with all rights, which every member may
/// for what it sees, may give them to a session, too. 202 if the proxy has not yet said that they
/// are in force.
async fn change(
    api: &Api,
    request: Request<Incoming>,
    before: &LiveSession,
    caller: &Caller,
) -> Result<(StatusCode, LiveSession), Reject> {
    caller.must_be(Role::Member)?;
    let Change { rights } = read_body(request).await?;
    let rights = enforceable(rights, before.record.console_type)?;
    let (id, instance) = (before.record.id, before.record.instance);
    let live = api.auth.set_rights(id, rights).await?;
    let (from, to) = (before.beat.rights, live.record.rights);
    tracing::info!(session = %id, %instance, %caller, %from, %to, "rights of a session changed");
    api.audit.note(|| Event {
        why: Some(format!(
            "from {from} to {to}; its token opens with {rights}"
        )),
        ..about(What::RightsChanged, &live, caller)
    });
    in_force(api, live).await
}

/// Waits for the proxy.
async fn in_force(api: &Api, mut live: LiveSession) -> Result<(StatusCode, LiveSession), Reject> {
    let begun = Instant::now();
    while live.beat.rights != live.record.rights {
        if begun.elapsed() > PATIENCE {
            return Ok((StatusCode::ACCEPTED, live));
        }
        sleep(LOOK).await;
        live = api.auth.session(live.record.id).await?;
    }
    Ok((StatusCode::OK, live))
}

/// That somebody did something to a session.
fn about(what: What, live: &LiveSession, caller: &Caller) -> Event {
    let record = &live.record;
    Event {
        instance: Some(record.instance),
        name: Some(record.instance_name.clone()),
        project: record.project.clone(),
        r#type: Some(record.console_type),
        rights: Some(record.rights),
        token: Some(record.token.clone()),
        session: Some(record.id),
        ..Event::new(what).by(caller, caller.address)
    }
}
