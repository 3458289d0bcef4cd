//! What answers in clear text beside TLS: the way to it, and nothing else.

use http::header::{HOST, LOCATION};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::{Body, Peer, Reject, Service, text};

/// Sends browsers from http to https.
#[derive(Debug)]
pub struct Redirect {
    /// The port of https.
    pub port: u16,
}

impl Service for Redirect {
    async fn answer(&self, request: Request<Incoming>, _peer: Peer) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let why = "nothing is taken in clear text here; use https";
            return Reject::new(StatusCode::FORBIDDEN, "https-only", why).into_response();
        }
        let path = request.uri().path_and_query().map_or("/", |it| it.as_str());
        let location = host(request.headers()).map(|host| self.to(&host, path));
        match location.map(HeaderValue::try_from) {
            Some(Ok(location)) => {
                let mut response = text(StatusCode::PERMANENT_REDIRECT, "use https\n");
                let _new = response.headers_mut().insert(LOCATION, location);
                response
            }
            _ => Reject::bad_host().into_response(),
        }
    }
}

impl Redirect {
    fn to(&self, host: &str, path: &str) -> String {
        match self.port {
            443 => format!("https://{host}{path}"),
            port => format!("https://{host}:{port}{path}"),
        }
    }
}

/// The host that the request names, without a port.
fn host(headers: &HeaderMap) -> Option<String> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return None;
    };
    let authority: Authority = host.to_str().ok()?.parse().ok()?;
    let alone = !authority.as_str().contains('@') && !authority.host().is_empty();
    alone.then(|| authority.host().to_owned())
}
