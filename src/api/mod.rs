//! The api role: who is asking, may they, and what do they get.
//!
//! Two dialects: our own, `/v1`, described by `openapi.json` beside this file, which the admin
//! socket speaks too; and Nova's (`nova`), for the clients of OpenStack. Journey A of docs/design.md begins here: [`Api::answer`] finds the caller and the
//! route, `console` makes the URL. Knows the facades of auth and compute, no store, no driver.

mod console;
mod error;
mod identity;
mod keystone;
mod nova;
mod session;
mod urls;
mod view;

use std::net::IpAddr;
use std::time::Duration;

use http::header::ALLOW;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

pub use console::ConsoleRequest;
pub use identity::{Caller, Gatekeeper, Who};
pub use keystone::Identities;
pub use nova::Settings as NovaSettings;
pub use urls::Urls;
pub use view::{
    ConsoleView, InstanceView, InstancesView, SessionView, SessionsView, TermsView, TokenView,
    TokensView,
};

use crate::audit::{Audit, Event, What};
use crate::auth::{Auth, AuthError};
use crate::compute::{Compute, ComputeError};
use crate::drain::Watch;
use crate::http::{Body, Guard, Peer, Reject, client, json};
use crate::model::{ConsoleType, Instance, InstanceRef, Role, Terms, TokenId};
use crate::rpc::Client;
use crate::telemetry::{Metrics, StatusLabel};

/// The document that describes `/v1`.
const OPENAPI: &str = include_str!("openapi.json");

/// How long a caller may take to send a body of a few hundred bytes.
const BODY: Duration = Duration::from_secs(10);

/// The role.
#[derive(Debug)]
pub struct Api {
    /// Who may call.
    pub gatekeeper: Gatekeeper,
    /// Where consoles are opened.
    pub urls: Urls,
    /// What Nova's dialect goes by.
    pub nova: NovaSettings,
    /// The longest, and usual, life of a URL.
    pub url_ttl: Duration,
    /// The usual terms of a token.
    pub terms: Terms,
    /// Makes and keeps tokens.
    pub auth: Client<Auth>,
    /// Finds instances.
    pub compute: Client<Compute>,
    /// Is told who did what.
    pub audit: Audit,
    /// Counts.
    pub metrics: Metrics,
    /// Slows down who guesses keys.
    pub guard: Guard,
    /// Says when to refuse new work.
    pub watch: Watch,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
struct Sender<'a> {
    /// The other end of the connection.
    peer: Peer,
    /// The client's address, after what trusted proxies say.
    ip: Option<IpAddr>,
    /// The same for the log.
    address: &'a str,
}

impl Api {
    /// Whether a request is the API's; all others are for pages.
    pub fn owns(request: &Request<Incoming>) -> bool {
        let path = request.uri().path();
        let own = path == "/openapi.json" || path == "/v1" || path.starts_with("/v1/");
        own || nova::owns(request)
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let trusted = &self.nova.trusted_proxies;
        let ip = client(peer.ip(), request.headers(), trusted).ip;
        let address = ip.map_or_else(|| peer.to_string(), |ip| ip.to_string());
        let sender = Sender {
            peer,
            ip,
            address: &address,
        };
        if let Err(wait) = self.guard.may_try(ip) {
            let why = "too many keys from your address were wrong; wait a moment";
            return Reject::too_many(why, wait.as_secs().saturating_add(1)).into_response();
        }
        let presented = identity::is_presented(request.headers());
        let response = if nova::owns_here(&request) {
            nova::answer(self, request, sender).await
        } else {
            self.answer_own(request, sender).await
        };
        if presented && response.status() == StatusCode::UNAUTHORIZED {
            self.guard.note_failure(ip);
        }
        let status = response.status().as_u16();
        self.metrics
            .api_requests
            .get_or_create(&StatusLabel { status })
            .inc();
        response
    }

    async fn answer_own(&self, request: Request<Incoming>, sender: Sender<'_>) -> Response<Body> {
        let method = request.method().clone();
        let answer = self.route(request, sender).await;
        answer.unwrap_or_else(|reject| {
            let (status, code) = (reject.status.as_u16(), reject.code);
            let (correlation, detail) = (reject.correlation, reject.detail.as_ref());
            let peer = sender.address;
            if reject.status == StatusCode::NOT_FOUND {
                tracing::debug!(peer, %method, status, code, %correlation, detail, "request refused");
            } else {
                tracing::info!(peer, %method, status, code, %correlation, detail, "request refused");
            }
            self.note_refusal(&reject, sender);
            reject.into_response()
        })
    }

    /// Who is calling, and from where.
    async fn admit(&self, headers: &HeaderMap, sender: Sender<'_>) -> Result<Caller, Reject> {
        let caller = self.gatekeeper.admit(headers, sender.peer).await?;
        let address = sender.ip;
        Ok(Caller { address, ..caller })
    }

    /// Whoever is turned away is an event; a typing mistake is none.
    fn note_refusal(&self, reject: &Reject, sender: Sender<'_>) {
        if !matches!(
            reject.status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        ) {
            return;
        }
        self.audit.note(|| Event {
            address: sender.ip,
            code: Some(reject.status.as_u16()),
            why: Some(reject.detail.to_string()),
            ..Event::new(What::Refused).correlated(reject.correlation)
        });
    }

    /// Makes a URL for this process's own starter.
    pub async fn issue(
        &self,
        instance: &str,
        console_type: ConsoleType,
    ) -> Result<ConsoleView, Reject> {
        let request = ConsoleRequest::plain(instance, console_type);
        console::create_console(self, request, &Caller::admin(Who::Admin)).await
    }

    async fn route(
        &self,
        request: Request<Incoming>,
        sender: Sender<'_>,
    ) -> Result<Response<Body>, Reject> {
        let path = request.uri().path().to_owned();
        let path: Vec<&str> = path.split('/').skip(1).collect();
        if path == ["openapi.json"] {
            only(&request, &[Method::GET])?;
            return Ok(openapi());
        }
        let caller = self.admit(request.headers(), sender).await?;
        caller.must_be(Role::Reader)?;
        match *path {
            ["v1", "consoles"] => {
                only(&request, &[Method::POST])?;
                self.create_console(request, &caller).await
            }
            ["v1", "instances"] => {
                only(&request, &[Method::GET])?;
                let mut survey = self.compute.instances().await?;
                survey.instances.retain(|it| caller.sees(it.project_id()));
                if caller.project.is_some() {
                    survey.faults.clear();
                }
                Ok(json(StatusCode::OK, &InstancesView::from(survey)))
            }
            ["v1", "instances", name] => {
                only(&request, &[Method::GET])?;
                let instance = self.instance(instance_ref(name), &caller).await?;
                Ok(json(StatusCode::OK, &InstanceView::from(instance)))
            }
            ["v1", "instances", name, what @ ("screenshot" | "log")] => {
                only(&request, &[Method::GET])?;
                caller.must_be(Role::Member)?;
                let instance = self.instance(instance_ref(name), &caller).await?;
                let instance = InstanceRef::Id(instance.id);
                match what {
                    "log" => self.log(instance, request.uri().query()).await,
                    _ => self.screenshot(instance).await,
                }
            }
            ["v1", "tokens"] => {
                only(&request, &[Method::GET])?;
                let mut entries = self.auth.list(None).await?;
                entries.retain(|entry| caller.sees(entry.grant.project.as_deref()));
                Ok(json(StatusCode::OK, &TokensView::from(entries)))
            }
            ["v1", "tokens", id] => self.token(&request, id, &caller).await,
            ["v1", "sessions"] => {
                only(&request, &[Method::GET])?;
                let mut sessions = self.auth.sessions(None).await?;
                sessions.retain(|live| caller.sees(live.record.project.as_deref()));
                Ok(json(StatusCode::OK, &SessionsView::from(sessions)))
            }
            ["v1", "sessions", id] => session::answer(self, request, id, &caller).await,
            _ => Err(Reject::not_found()),
        }
    }

    async fn screenshot(&self, instance: InstanceRef) -> Result<Response<Body>, Reject> {
        let picture = self.compute.screenshot(instance).await?.into_png();
        let kind = HeaderValue::from_static("image/png");
        Ok(crate::http::answer(StatusCode::OK, kind, picture))
    }

    /// The text is the guest's, so no browser may take it for anything else.
    async fn log(
        &self,
        instance: InstanceRef,
        query: Option<&str>,
    ) -> Result<Response<Body>, Reject> {
        let log = self.compute.console_log(instance, lines(query)?).await?;
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        let mut response = crate::http::answer(StatusCode::OK, kind, log.into_text());
        let nosniff = HeaderValue::from_static("nosniff");
        let headers = response.headers_mut();
        let _new = headers.insert(http::header::X_CONTENT_TYPE_OPTIONS, nosniff);
        Ok(response)
    }

    async fn create_console(
        &self,
        request: Request<Incoming>,
        caller: &Caller,
    ) -> Result<Response<Body>, Reject> {
        if self.watch.is_draining() {
            return Err(Reject::retry("draining", "this gateway is going down", 5));
        }
        let view = console::create_console(self, read_body(request).await?, caller).await?;
        Ok(json(StatusCode::CREATED, &view))
    }

    async fn token(
        &self,
        request: &Request<Incoming>,
        id: &str,
        caller: &Caller,
    ) -> Result<Response<Body>, Reject> {
        only(request, &[Method::GET, Method::DELETE])?;
        let id: TokenId = id.parse().map_err(|error| {
            let why = format!("this is no token id: {error}");
            Reject::new(StatusCode::BAD_REQUEST, "bad-token-id", why)
        })?;
        let entry = self.auth.show(id.clone()).await?;
        if !caller.sees(entry.grant.project.as_deref()) {
            return Err(AuthError::Unknown.into());
        }
        let entry = if request.method() == Method::DELETE {
            caller.must_be(Role::Member)?;
            let entry = self.auth.revoke(id).await?;
            let (id, instance) = (&entry.id, entry.grant.instance);
            tracing::info!(token = %id, %instance, %caller, "token revoked");
            self.audit.note(|| Event {
                token: Some(entry.id.clone()),
                ..Event::new(What::Revoked)
                    .of_grant(&entry.grant)
                    .by(caller, caller.address)
            });
            entry
        } else {
            entry
        };
        Ok(json(StatusCode::OK, &TokenView::from(entry)))
    }

    /// An instance that is there for `caller`; another's is as if it were not.
    async fn instance(
        &self,
        wanted: InstanceRef,
        caller: &Caller,
    ) -> Result<Instance, ComputeError> {
        let name = wanted.to_string();
        let instance = self.compute.instance(wanted).await?;
        if caller.sees(instance.project_id()) {
            return Ok(instance);
        }
        Err(ComputeError::NoSuchInstance { name })
    }
}

/// What a request holds, if it comes in time.
async fn read_body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Reject> {
    let body = timeout(BODY, crate::http::read_json(request)).await;
    let why = "the body did not arrive";
    body.unwrap_or_else(|_| Err(Reject::new(StatusCode::REQUEST_TIMEOUT, "slow", why)))
}

/// Where GET works, HEAD does too (RFC 9110 section 9.1); hyper leaves its body out.
fn only(request: &Request<Incoming>, methods: &[Method]) -> Result<(), Reject> {
    let wanted = match *request.method() {
        Method::HEAD => &Method::GET,
        ref other => other,
    };
    if methods.contains(wanted) {
        return Ok(());
    }
    let allowed: Vec<&str> = methods.iter().map(Method::as_str).collect();
    let allowed = allowed.join(", ").replace("GET", "GET, HEAD");
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let reject = Reject::new(
        status,
        "method-not-allowed",
        format!("only {allowed} works here"),
    );
    let value = HeaderValue::from_str(&allowed).unwrap_or(HeaderValue::from_static("GET"));
    Err(reject.with_header(ALLOW, value))
}

fn openapi() -> Response<Body> {
    let document = OPENAPI.replace("@VERSION@", env!("CARGO_PKG_VERSION"));
    let mut response = Response::new(Body::from(document));
    let kind = HeaderValue::from_static("application/json");
    let _new = response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, kind);
    response
}

/// The last `lines` of a query; absent: all.
fn lines(query: Option<&str>) -> Result<Option<u32>, Reject> {
    let query = query.unwrap_or_default().as_bytes();
    let mut pairs = url::form_urlencoded::parse(query);
    let Some((_, lines)) = pairs.find(|(key, _)| key == "lines") else {
        return Ok(None);
    };
    lines.parse().map(Some).map_err(|_| {
        let why = "lines is how many of the last lines are wanted, a whole number";
        Reject::new(StatusCode::BAD_REQUEST, "bad-lines", why)
    })
}

fn instance_ref(segment: &str) -> InstanceRef {
    InstanceRef::from(&*percent_decode_str(segment).decode_utf8_lossy())
}
