//! One live session: see it, end it.

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::identity::Caller;
use super::view::SessionView;
use super::{Api, only};
use crate::audit::{Event, What};
use crate::auth::{AuthError, LiveSession};
use crate::http::{Body, Reject, json};
use crate::model::{Role, SessionId};

/// Answers what is asked at `/v1/sessions/{id}`.
pub(super) async fn answer(
    api: &Api,
    request: Request<Incoming>,
    id: &str,
    caller: &Caller,
) -> Result<Response<Body>, Reject> {
    only(&request, &[Method::GET, Method::DELETE])?;
    let id: SessionId = id.parse().map_err(|error| {
        let why = format!("this is no session id: {error}");
        Reject::new(StatusCode::BAD_REQUEST, "bad-session-id", why)
    })?;
    let live = api.auth.session(id).await?;
    if !caller.sees(live.record.project.as_deref()) {
        return Err(AuthError::NoSession(id).into());
    }
    let live = if request.method() == Method::DELETE {
        caller.must_be(Role::Member)?;
        kill(api, id, caller).await?
    } else {
        live
    };
    Ok(json(StatusCode::OK, &SessionView::from(live)))
}

async fn kill(api: &Api, id: SessionId, caller: &Caller) -> Result<LiveSession, AuthError> {
    let live = api.auth.kill(id).await?;
    let instance = live.record.instance;
    tracing::info!(session = %id, %instance, %caller, "session killed");
    api.audit.note(&about(What::Killed, &live, caller));
    Ok(live)
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
