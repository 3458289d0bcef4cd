use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;
use tokio::time::timeout;

use crate::auth::Auth;
use crate::compute::Compute;
use crate::drain::Watch;
use crate::http::{Body, Guard, Peer, Reject, Service, json, text};
use crate::rpc::Client;
use crate::telemetry::Metrics;

/// The monitor's door: alive, ready, figures.
#[derive(Debug)]
pub(super) struct Monitor {
    pub(super) auth: Option<Client<Auth>>,
    pub(super) compute: Option<Client<Compute>>,
    pub(super) guard: Guard,
    pub(super) metrics: Metrics,
    pub(super) watch: Watch,
}

/// `/readyz`: each check is `ok` or what is wrong.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    drain: String,
    memory: String,
    /// Absent where nobody calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compute: Option<String>,
}

const OK: &str = "ok";

/// Whoever is sent here meanwhile would be turned away.
const FULL: &str = "more memory is used than limits.memory allows; nothing new begins";

/// How long a probe waits for the sources; balancers give up after a second or two.
const PATIENCE: Duration = Duration::from_millis(500);

impl Service for Monitor {
    async fn answer(&self, request: Request<Incoming>, _peer: Peer) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            return Reject::new(status, "method-not-allowed", "only GET and HEAD work here")
                .with_header(ALLOW, HeaderValue::from_static("GET, HEAD"))
                .into_response();
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.readiness().await,
            "/metrics" => self.figures(),
            _ => Reject::not_found().into_response(),
        }
    }
}

impl Monitor {
    async fn readiness(&self) -> Response<Body> {
        let draining = self.watch.is_draining();
        let drain = if draining { "draining" } else { OK }.to_owned();
        let memory = if self.guard.has_room() { OK } else { FULL }.to_owned();
        let auth = match &self.auth {
            Some(auth) => Some(tokens(auth).await),
            None => None,
        };
        let compute = match &self.compute {
            Some(compute) => Some(sources(compute).await),
            None => None,
        };
        let checks = [Some(&drain), Some(&memory), auth.as_ref(), compute.as_ref()];
        let ready = checks.into_iter().flatten().all(|check| check == OK);
        let status = if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        json(
            status,
            &Readiness {
                ready,
                drain,
                memory,
                auth,
                compute,
            },
        )
    }

    fn figures(&self) -> Response<Body> {
        self.metrics
            .draining
            .set(i64::from(self.watch.is_draining()));
        let mut response = text(StatusCode::OK, self.metrics.page());
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        let _plain = response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

/// Whether tokens can be redeemed; whoever is slow to say so is not waited for either.
async fn tokens(auth: &Client<Auth>) -> String {
    match timeout(PATIENCE, auth.ready()).await {
        Ok(Err(error)) => error.to_string(),
        Ok(Ok(())) => OK.to_owned(),
        Err(_) => "tokens are slow to be checked".to_owned(),
    }
}

/// Whether any source answers. One that is slow is not waited for: a balancer would take the
/// whole gateway out for one host that hangs. A role elsewhere has to be there, though.
async fn sources(compute: &Client<Compute>) -> String {
    match timeout(PATIENCE, compute.reach()).await {
        Ok(Err(error)) => return error.to_string(),
        Err(_) => return "the compute role is slow to answer".to_owned(),
        Ok(Ok(())) => {}
    }
    match timeout(PATIENCE, compute.ready()).await {
        Ok(Err(error)) => error.to_string(),
        Ok(Ok(())) | Err(_) => OK.to_owned(),
    }
}
