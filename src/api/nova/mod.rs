//! Nova's dialect: the part of OpenStack's compute API that console clients use.
//!
//! Called by [`Api::answer`](super::Api::answer) for paths under `/v2.1` (and its older twin
//! `/v2`). The order in which a request is judged is Nova's, for it decides which refusal a client
//! sees: caller, route, microversion, content type, body, project, version range, schema, then
//! the instance. docs/compatibility.md lists what is the same and what is not.

mod console;
mod discovery;
mod fault;
mod schema;
mod server;
mod version;

use std::fmt;

use http::header::{ACCEPT, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use ipnet::IpNet;
use serde_json::{Value, json};
use tokio::time::timeout;
use url::Url;
use uuid::Uuid;

use super::Sender;
use super::identity::Caller;
use super::{Api, BODY};
use crate::http::{Body, Peer, Reject, read_body};
use crate::model::Role;
use fault::Fault;
use version::Microversion;

/// Where the API is mounted.
const CURRENT: &str = "/v2.1";

/// Where its older twin is, without microversions.
const LEGACY: &str = "/v2";

/// What this dialect goes by.
#[derive(Debug)]
pub struct Settings {
    /// How clients reach the API, if not as the request says.
    pub public_url: Option<Url>,
    /// Who may say what scheme the client used.
    pub trusted_proxies: Vec<IpNet>,
}

impl Settings {
    fn is_trusted(&self, peer: Peer) -> bool {
        let ip = peer.ip().map(|ip| ip.to_canonical());
        ip.is_some_and(|ip| self.trusted_proxies.iter().any(|net| net.contains(&ip)))
    }
}

/// Which of the two APIs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Dialect {
    Current,
    Legacy,
}

/// Whether a request is this dialect's, on a door that serves pages too.
pub(super) fn owns(request: &Request<Incoming>) -> bool {
    let path = request.uri().path();
    mounted(path).is_some() || path == "/" && discovery::is_wanted(request.headers())
}

/// Whether it is, on a door of the API alone: all versions that there are not as well.
pub(super) fn owns_here(request: &Request<Incoming>) -> bool {
    let path = request.uri().path();
    mounted(path).is_some() || path == "/" || is_some_version(path)
}

fn mounted(path: &str) -> Option<(Dialect, &str)> {
    let below = |mount| {
        let rest = path.strip_prefix(mount)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    };
    let current = below(CURRENT).map(|rest| (Dialect::Current, rest));
    current.or_else(|| below(LEGACY).map(|rest| (Dialect::Legacy, rest)))
}

/// `/v9`: a version's name, but not of our own API.
fn is_some_version(path: &str) -> bool {
    let first = path.split('/').nth(1).unwrap_or_default();
    let digits = first.strip_prefix('v').unwrap_or_default();
    let version = |c: char| c.is_ascii_digit() || c == '.';
    !digits.is_empty() && digits != "1" && digits.chars().all(version)
}

/// Answers one request.
pub(super) async fn answer(
    api: &Api,
    request: Request<Incoming>,
    sender: Sender<'_>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let Some((dialect, rest)) = mounted(&path) else {
        let own = discovery::own_url(api, &request, sender.peer);
        return match &*path {
            "/" => discovery::versions(&own),
            other => discovery::choices(&own, other),
        };
    };
    let id = format!("req-{}", Uuid::new_v4());
    let accept = preferred_type(request.headers());
    let segments: Vec<&str> = rest.split('/').skip(1).collect();
    let mut response = match &*segments {
        [] | [""] => document(api, &request, sender.peer, dialect),
        segments => respond(api, request, sender, (dialect, segments), &id).await,
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        let _new = headers.insert(REQUEST_ID, id.clone());
        let _new = headers.insert(COMPUTE_REQUEST_ID, id);
    }
    if headers.get(CONTENT_TYPE).is_some_and(|kind| kind == JSON) {
        let _same = headers.insert(CONTENT_TYPE, HeaderValue::from_static(accept));
    }
    response
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-openstack-request-id");
const COMPUTE_REQUEST_ID: HeaderName = HeaderName::from_static("x-compute-request-id");

const JSON: &str = "application/json";
const OWN_JSON: &str = "application/vnd.openstack.compute+json";

/// Nova's own type where a client names it alone; an `Accept` that names neither means JSON.
fn preferred_type(headers: &HeaderMap) -> &'static str {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let accept = accept.unwrap_or_default();
    let own = accept.contains(OWN_JSON) && !accept.contains(JSON);
    if own { OWN_JSON } else { JSON }
}

fn document(
    api: &Api,
    request: &Request<Incoming>,
    peer: Peer,
    dialect: Dialect,
) -> Response<Body> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return unrouted(request.headers());
    }
    let own = discovery::own_url(api, request, peer);
    let version = match dialect {
        Dialect::Current => version::requested(request.headers()).unwrap_or(version::OLDEST),
        Dialect::Legacy => return discovery::version(&own, dialect),
    };
    let mut response = discovery::version(&own, dialect);
    version::tell(version, response.headers_mut());
    response
}

/// What is asked of which resource.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Route<'a> {
    Servers {
        detail: bool,
    },
    Server(&'a str),
    RemoteConsoles(&'a str),
    Action(&'a str),
    AuthToken(&'a str),
    /// The API of consoles before 21.0.
    Removed,
}

/// A request that has a caller and a route.
struct Call<'a> {
    api: &'a Api,
    caller: Caller,
    dialect: Dialect,
    version: Microversion,
    query: Vec<(String, String)>,
    /// How the client reached this API.
    own_url: String,
}

async fn respond(
    api: &Api,
    request: Request<Incoming>,
    sender: Sender<'_>,
    (dialect, segments): (Dialect, &[&str]),
    id: &str,
) -> Response<Body> {
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let caller = match api.admit(&headers, sender).await {
        Ok(caller) => caller,
        Err(reject) => {
            api.note_refusal(&reject, sender);
            return not_admitted(reject, (sender, id));
        }
    };
    let Some((project, route)) = route(&method, segments) else {
        return unrouted(&headers);
    };
    let version = match dialect {
        Dialect::Current => version::requested(&headers),
        Dialect::Legacy => Ok(version::OLDEST),
    };
    let version = match version {
        Ok(version) => version,
        Err(fault) => return refused(fault, &caller, (sender, id)),
    };
    let query = request.uri().query().unwrap_or_default();
    let query = url::form_urlencoded::parse(query.as_bytes()).into_owned();
    let call = Call {
        api,
        caller,
        dialect,
        version,
        query: query.collect(),
        own_url: discovery::own_url(api, &request, sender.peer),
    };
    let outcome = call.answer(route, project, request).await;
    let mut response = outcome.unwrap_or_else(|fault| refused(fault, &call.caller, (sender, id)));
    if dialect == Dialect::Current {
        version::tell(version, response.headers_mut());
    }
    response
}

/// The route, and the project in front of it, if the path names one.
fn route<'a>(method: &Method, segments: &[&'a str]) -> Option<(Option<&'a str>, Route<'a>)> {
    let is_project = |segment: &str| {
        let digit = |c: char| c.is_ascii_digit() || matches!(c, 'a'..='f' | '-');
        !segment.is_empty() && segment.chars().all(digit)
    };
    let (project, rest) = match segments {
        [first, rest @ ..] if is_project(first) => (Some(*first), rest),
        all => (None, all),
    };
    let get = matches!(*method, Method::GET | Method::HEAD);
    let route = match *rest {
        ["servers"] if get => Route::Servers { detail: false },
        ["servers", "detail"] if get => Route::Servers { detail: true },
        ["servers", id] if get && !id.is_empty() => Route::Server(id),
        ["servers", id, "remote-consoles"] if *method == Method::POST => Route::RemoteConsoles(id),
        ["servers", id, "action"] if *method == Method::POST => Route::Action(id),
        ["servers", _, "consoles"] | ["servers", _, "consoles", _] => Route::Removed,
        ["os-console-auth-tokens", token] if get && !token.is_empty() => Route::AuthToken(token),
        _ => return None,
    };
    Some((project, route))
}

impl Call<'_> {
    async fn answer(
        &self,
        route: Route<'_>,
        project: Option<&str>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Fault> {
        version::admit(self.version)?;
        match route {
            Route::RemoteConsoles(id) => {
                let body = body(request).await?;
                self.check_project(project)?;
                self.create_console(id, &body).await
            }
            Route::Action(id) => {
                let body = body(request).await?;
                let action = console::Action::named(&body)?;
                self.check_project(project)?;
                self.act(id, action, &body).await
            }
            Route::Removed => {
                let why = "This resource is no longer available.  No forwarding address is given.";
                Err(Fault::new(StatusCode::GONE, why))
            }
            other => {
                self.check_project(project)?;
                self.look_up(other).await
            }
        }
    }

    async fn look_up(&self, route: Route<'_>) -> Result<Response<Body>, Fault> {
        match route {
            Route::Servers { detail } => self.servers(detail).await,
            Route::Server(id) => self.server(id).await,
            Route::AuthToken(token) => self.console_auth_token(token).await,
            Route::RemoteConsoles(_) | Route::Action(_) | Route::Removed => {
                Err(Fault::no_such_method())
            }
        }
    }

    /// A caller of one project may name no other in the path.
    fn check_project(&self, in_path: Option<&str>) -> Result<(), Fault> {
        match (in_path, &self.caller.project) {
            (Some(wanted), Some(own)) if wanted != own => Err(Fault::bad_request(format!(
                "Malformed request URL: URL's project_id '{wanted}' doesn't match Context's \
                 project_id '{own}'"
            ))),
            _ => Ok(()),
        }
    }

    /// Errors: 403, if the caller may do less than `role`.
    fn must_be(&self, role: Role, policy: &str) -> Result<(), Fault> {
        (self.caller.role >= role)
            .then_some(())
            .ok_or_else(|| Fault::forbidden(policy))
    }

    /// Errors: 404, if the version asked for is not among those that have this method.
    fn only_from(&self, first: u32, last: u32) -> Result<(), Fault> {
        (first..=last)
            .contains(&self.version.1)
            .then_some(())
            .ok_or_else(Fault::no_such_method)
    }

    /// Whether bodies may hold members that no schema names.
    fn is_open(&self) -> bool {
        self.dialect == Dialect::Legacy
    }
}

/// The JSON of a request. Errors: 400, 408, 413, 415.
async fn body(request: Request<Incoming>) -> Result<Value, Fault> {
    let kind = request.headers().get(CONTENT_TYPE);
    let kind = kind.map(|kind| kind.to_str().unwrap_or("?").split(';').next());
    let kind = kind
        .flatten()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if !matches!(&*kind, "" | "text/plain" | JSON | OWN_JSON) {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Fault::new(status, "Unsupported Content-Type"));
    }
    let bytes = timeout(BODY, read_body(request)).await;
    let slow = |_| Fault::new(StatusCode::REQUEST_TIMEOUT, "The body did not arrive.");
    let bytes = bytes.map_err(slow)??;
    serde_json::from_slice(&bytes).map_err(|_| Fault::bad_request("Malformed request body"))
}

/// Adds members to an object.
fn extend(object: &mut Value, more: Value) {
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
}

fn refused(fault: Fault, caller: &Caller, (sender, id): (Sender<'_>, &str)) -> Response<Body> {
    let peer = sender.address;
    let (status, detail) = (fault.status.as_u16(), fault.message.as_ref());
    // Clients ask for what they do not know yet, such as a name where an id stands.
    if fault.status == StatusCode::NOT_FOUND {
        tracing::debug!(peer, %caller, status, request = id, detail, "request refused");
    } else {
        tracing::info!(peer, %caller, status, request = id, detail, "request refused");
    }
    fault.into_response()
}

/// 401 in the shape of Keystone's own middleware; all else as any fault.
fn not_admitted(reject: Reject, (sender, id): (Sender<'_>, &str)) -> Response<Body> {
    let peer = sender.address;
    let (status, detail) = (reject.status, reject.detail.as_ref());
    tracing::info!(
        peer,
        status = status.as_u16(),
        request = id,
        detail,
        "request refused"
    );
    if status != StatusCode::UNAUTHORIZED {
        return Fault::from(reject).into_response();
    }
    let body = json!({ "error": {
        "code": 401,
        "title": "Unauthorized",
        "message": "The request you have made requires authentication.",
    }});
    let mut response = crate::http::json(status, &body);
    if let Some(challenge) = reject.header(&WWW_AUTHENTICATE) {
        let challenge = challenge.clone();
        let _new = response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

/// What is said of a path or method that there is not: no fault of this API's, but its router's.
fn unrouted(headers: &HeaderMap) -> Response<Body> {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let status = StatusCode::NOT_FOUND;
    if accept.is_some_and(|accept| accept.contains(JSON)) {
        let text = format!("{}<br /><br />\n\n\n", fault::NOT_FOUND);
        let body = json!({ "message": text, "code": "404 Not Found", "title": "Not Found" });
        return crate::http::json(status, &body);
    }
    let page = format!(
        "<html>\n <head>\n  <title>404 Not Found</title>\n </head>\n <body>\n  \
         <h1>404 Not Found</h1>\n  {}<br /><br />\n </body>\n</html>",
        fault::NOT_FOUND
    );
    let kind = HeaderValue::from_static("text/html; charset=UTF-8");
    crate::http::answer(status, kind, page.into_bytes())
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Current => CURRENT,
            Self::Legacy => LEGACY,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_exists_with_and_without_its_project() {
        let id = "62c4f8d8-40d7-5878-bd50-9062565854bc";
        let with = ["8a1e6f0c", "servers", id, "action"];
        let action = Route::Action(id);
        assert_eq!(
            route(&Method::POST, &with),
            Some((Some("8a1e6f0c"), action))
        );
        assert_eq!(route(&Method::POST, &with[1..]), Some((None, action)));
    }

    #[test]
    fn a_wrong_method_is_as_if_there_were_no_route() {
        assert_eq!(route(&Method::GET, &["servers", "x", "action"]), None);
        assert_eq!(route(&Method::DELETE, &["servers", "x"]), None);
        assert_eq!(route(&Method::GET, &["flavors", "detail"]), None);
    }

    #[test]
    fn only_its_own_mounts_are_this_dialects() {
        assert!(mounted("/v2.1").is_some() && mounted("/v2/servers").is_some());
        assert!(mounted("/v2.10").is_none() && mounted("/v1/instances").is_none());
        assert!(is_some_version("/v9/x") && is_some_version("/v3.0"));
        assert!(!is_some_version("/v1/tokens") && !is_some_version("/vnc.html"));
    }
}
