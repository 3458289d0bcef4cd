//! Calls to other services over HTTP/1.1, in clear or over TLS: Keystone, Nova.
//!
//! Everything has a deadline, every answer a largest size, and the connections a largest number;
//! a few are kept open between calls. One that was kept may turn out to be dead, and then its call
//! is made once more on a new one: a call must do no harm when it is made twice. Redirects are not
//! followed, and no proxy is asked. Errors name the base of the URL alone, because what is below it
//! may be a secret.

mod connection;
mod pool;
mod trust;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use url::Url;

use crate::resolve::Unresolved;
use connection::{Connection, Origin};
use pool::Pool;
pub use trust::{BadTrust, Trust};

/// What a client is made with.
#[derive(Clone, Debug)]
pub struct OutboundSettings {
    /// The CAs that servers are known by, in PEM; unset: the system's.
    pub ca_file: Option<PathBuf>,
    /// How long a whole call may take, its wait for a place included.
    pub timeout: Duration,
    /// Calls at one time. One more waits.
    pub parallel: usize,
    /// The largest answer, in bytes.
    pub largest: usize,
}

/// A client for services. Share it: what it keeps open is its own.
#[derive(Debug)]
pub struct Outbound {
    settings: OutboundSettings,
    trust: Trust,
    places: Semaphore,
    pool: Pool,
}

/// One call. `Debug` shows its base alone.
#[derive(Clone)]
pub struct Call<'a> {
    /// The method.
    pub method: Method,
    /// Where the service is; stands in errors.
    pub base: &'a Url,
    /// What is asked for below the base, a segment each. Stands nowhere else.
    pub path: &'a [&'a str],
    /// The query.
    pub query: Option<&'static str>,
    /// Headers beside `Host` and `Content-Length`.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call({} {} ***)", self.method, shown(self.base))
    }
}

/// A call without an answer.
#[derive(Debug, thiserror::Error)]
#[error("{base}: {fault}")]
pub struct Failed {
    /// The base of the URL that was called, without user, password and query.
    pub base: String,
    /// What went wrong.
    pub fault: Fault,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No `http://` or `https://`, or no host.
    #[error("only http:// and https:// URLs with a host can be called")]
    Url,
    /// Its name has no address.
    #[error(transparent)]
    Resolve(#[from] Unresolved),
    /// Nobody takes the connection.
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    /// It has not proved who it is, or no TLS is spoken there.
    #[error(transparent)]
    Tls(#[from] BadTrust),
    /// The connection broke off, or what came over it is no HTTP.
    #[error("no whole answer: {}", chain(&**.0))]
    Exchange(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer is larger than allowed.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// It took too long.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
}

impl Outbound {
    /// A client that is connected to nothing yet.
    pub fn new(settings: OutboundSettings) -> Self {
        Self {
            trust: Trust::new(settings.ca_file.clone()),
            places: Semaphore::new(settings.parallel),
            pool: Pool::default(),
            settings,
        }
    }

    /// Makes one call; any status is an answer. Cancel-safe: the connection is closed.
    pub async fn call(&self, call: &Call<'_>) -> Result<Response<Bytes>, Failed> {
        let limit = self.settings.timeout;
        let answer = timeout(limit, self.call_in_turn(call)).await;
        let answer = answer.unwrap_or_else(|_| {
            // whoever has gone without a word has left the other kept connections too
            self.pool.forget();
            Err(Fault::Timeout(limit))
        });
        answer.map_err(|fault| Failed {
            base: shown(call.base),
            fault,
        })
    }

    async fn call_in_turn(&self, call: &Call<'_>) -> Result<Response<Bytes>, Fault> {
        let _place = self.places.acquire().await;
        let origin = Origin::of(call.base)?;
        let request = request(call, &origin)?;
        if let Some(kept) = self.pool.take(&origin) {
            match self.exchange(kept, request.clone()).await {
                Err(Fault::Exchange(error)) => {
                    tracing::debug!(error = chain(&*error), "a kept connection was dead");
                }
                answered => return answered,
            }
        }
        let fresh = Connection::open(origin, &self.trust, self.settings.timeout).await?;
        self.exchange(fresh, request).await
    }

    async fn exchange(
        &self,
        mut connection: Connection,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, Fault> {
        let (head, body) = connection.send(request).await?.into_parts();
        let limit = self.settings.largest;
        let body = Limited::new(body, limit).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                Fault::TooLarge(limit)
            } else {
                Fault::Exchange(error)
            }
        })?;
        self.pool.keep(connection).await;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

fn request(call: &Call<'_>, origin: &Origin) -> Result<Request<Full<Bytes>>, Fault> {
    let mut url = call.base.clone();
    let mut segments = url.path_segments_mut().map_err(|()| Fault::Url)?;
    segments.pop_if_empty().extend(call.path);
    drop(segments);
    url.set_query(call.query);
    let mut request = Request::new(Full::new(call.body.clone()));
    *request.method_mut() = call.method.clone();
    *request.headers_mut() = call.headers.clone();
    let bad = |_| Fault::Url;
    let target = url::Position::BeforePath..url::Position::AfterQuery;
    *request.uri_mut() = url[target].parse().map_err(bad)?;
    let host = HeaderValue::try_from(origin.authority()).map_err(|_| Fault::Url)?;
    let _none = request.headers_mut().insert(HOST, host);
    Ok(request)
}

/// A URL as it may be shown.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _only_with_host = (url.set_username(""), url.set_password(None));
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// An error with its causes: the first alone says little ("error reading a body").
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
