use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use super::catalog::{self, Entry};
use super::identity::time;
use super::{Credentials, SUBJECT_TOKEN, Settings, Unavailable};
use crate::http::{Call, Outbound, OutboundSettings};

/// Our own token in calls to services.
const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// Calls at one time to Keystone, and again to the services found through it; more wait for these.
const PARALLEL: usize = 16;

/// The largest answer: a catalog of hundreds of endpoints is a tenth of that.
const LARGEST: usize = 4 << 20;

/// How long before its end our own token is renewed, or a quarter of its life, if that is shorter.
const MARGIN: Duration = Duration::from_mins(1);

/// How long a failed login stands for those who come after it. Keystone is spared while it is
/// down, and does not lock our user out when the password is wrong.
const REST: Duration = Duration::from_secs(1);
const REST_REFUSED: Duration = Duration::from_secs(5);

/// A question to a service; always GET. `Debug` shows its base alone.
#[derive(Clone)]
pub struct Ask<'a> {
    /// Where the service is.
    pub base: &'a Url,
    /// What is asked for below it.
    pub path: &'a [&'a str],
    /// The query.
    pub query: Option<&'static str>,
    /// Headers beside our own token.
    pub headers: HeaderMap,
}

impl fmt::Debug for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ask({} ***)", self.base)
    }
}

/// Our own user at Keystone: its token, renewed in time, and its catalog.
#[derive(Debug)]
pub(super) struct Service {
    settings: Settings,
    keystone: Outbound,
    /// Apart, so that a slow Nova keeps nobody from being known.
    others: Outbound,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    token: Option<Arc<OwnToken>>,
    failed: Option<(Instant, Unavailable)>,
}

#[derive(Debug)]
struct OwnToken {
    /// Marked as sensitive, so that `Debug` hides it.
    value: HeaderValue,
    made_at: Instant,
    renew_at: Instant,
    catalog: Vec<Entry>,
}

impl Service {
    pub(super) fn new(settings: Settings) -> Self {
        let outbound = OutboundSettings {
            ca_file: settings.ca_file.clone(),
            timeout: settings.timeout,
            parallel: PARALLEL,
            largest: LARGEST,
        };
        Self {
            keystone: Outbound::new(outbound.clone()),
            others: Outbound::new(outbound),
            held: Mutex::default(),
            settings,
        }
    }

    pub(super) fn url(&self) -> &Url {
        &self.settings.url
    }

    pub(super) async fn compute_endpoint(&self) -> Result<Url, Unavailable> {
        let own = self.token(None).await?;
        let found = self.compute_in(&own);
        if found.is_ok() || own.made_at.elapsed() < REST {
            return found;
        }
        // A catalog comes with a token; what was added since is in the next one's.
        let fresh = self.token(Some(&own)).await?;
        self.compute_in(&fresh)
    }

    fn compute_in(&self, own: &OwnToken) -> Result<Url, Unavailable> {
        let region = self.settings.region.as_deref();
        catalog::compute(&own.catalog, self.settings.interface, region)
            .map_err(|why| self.unavailable(&why))
    }

    /// Asks with our own token; one that is refused is renewed once. Cancel-safe.
    pub(super) async fn call(&self, ask: &Ask<'_>) -> Result<Response<Bytes>, Unavailable> {
        let own = self.token(None).await?;
        let answer = self.send(ask, &own).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let fresh = self.token(Some(&own)).await?;
        let answer = self.send(ask, &fresh).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            let base = ask.base;
            let why = format!("{base}: it refuses our own token, which Keystone has just made");
            return Err(Unavailable(why));
        }
        Ok(answer)
    }

    async fn send(&self, ask: &Ask<'_>, own: &OwnToken) -> Result<Response<Bytes>, Unavailable> {
        let mut headers = ask.headers.clone();
        let _none = headers.insert(AUTH_TOKEN, own.value.clone());
        let _none = headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let call = Call {
            method: Method::GET,
            base: ask.base,
            path: ask.path,
            query: ask.query,
            headers,
            body: Bytes::new(),
        };
        let outbound = if *ask.base == self.settings.url {
            &self.keystone
        } else {
            &self.others
        };
        let answer = outbound.call(&call).await;
        answer.map_err(|failed| Unavailable(failed.to_string()))
    }

    /// A token that is good for a while yet, and that is not `refused`. Those who come while it is
    /// being renewed wait for it.
    async fn token(&self, refused: Option<&Arc<OwnToken>>) -> Result<Arc<OwnToken>, Unavailable> {
        let mut held = self.held.lock().await;
        let now = Instant::now();
        let good = |token: &&Arc<OwnToken>| {
            token.renew_at > now && !refused.is_some_and(|refused| Arc::ptr_eq(refused, token))
        };
        if let Some(token) = held.token.as_ref().filter(good) {
            return Ok(Arc::clone(token));
        }
        if let Some((until, failure)) = &held.failed
            && *until > now
        {
            return Err(failure.clone());
        }
        match self.log_in().await {
            Ok(token) => {
                let token = Arc::new(token);
                *held = Held {
                    token: Some(Arc::clone(&token)),
                    failed: None,
                };
                Ok(token)
            }
            Err((rest, failure)) => {
                held.failed = Some((Instant::now() + rest, failure.clone()));
                Err(failure)
            }
        }
    }

    /// `POST /v3/auth/tokens`. Errors: with how long they stand.
    async fn log_in(&self) -> Result<OwnToken, (Duration, Unavailable)> {
        let failed = |why: &str| (REST, self.unavailable(why));
        let body = self.body().await.map_err(|why| failed(&why))?;
        let json = HeaderValue::from_static("application/json");
        let call = Call {
            method: Method::POST,
            base: &self.settings.url,
            path: &["auth", "tokens"],
            query: None,
            headers: HeaderMap::from_iter([(CONTENT_TYPE, json.clone()), (ACCEPT, json)]),
            body,
        };
        let answer = self.keystone.call(&call).await;
        let answer = answer.map_err(|error| (REST, Unavailable(error.to_string())))?;
        match answer.status() {
            StatusCode::CREATED => own_token(&answer).map_err(|why| failed(&why)),
            StatusCode::UNAUTHORIZED => {
                let Credentials { login, secret_file } = &self.settings.credentials;
                let file = secret_file.display();
                let why = format!("it refuses our login as {login}; is {file} right?");
                Err((REST_REFUSED, self.unavailable(&why)))
            }
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Err(failed(
                "there is no Keystone of version 3; is keystone.url right?",
            )),
            status => Err(failed(&format!("it answers {status} to our login"))),
        }
    }

    /// The file is read on a blocking thread: it may lie on a mount that hangs.
    async fn body(&self) -> Result<Bytes, String> {
        let credentials = self.settings.credentials.clone();
        let read = tokio::task::spawn_blocking(move || credentials.body());
        let body = read.await.map_err(|why| why.to_string())?;
        let body = body.map_err(|why| why.to_string())?;
        Ok(Bytes::from_owner(body))
    }

    fn unavailable(&self, why: &str) -> Unavailable {
        Unavailable(format!("{}: {why}", self.settings.url))
    }
}

#[derive(Deserialize)]
struct Document {
    token: Token,
}

#[derive(Deserialize)]
struct Token {
    issued_at: String,
    expires_at: String,
    #[serde(default)]
    catalog: Vec<Entry>,
}

/// Both times are Keystone's, so that its clock and ours need not agree.
fn own_token(answer: &Response<Bytes>) -> Result<OwnToken, String> {
    let value = answer.headers().get(SUBJECT_TOKEN);
    let mut value = value.cloned().ok_or("its answer brings no token")?;
    value.set_sensitive(true);
    let document: Document = serde_json::from_slice(answer.body())
        .map_err(|error| format!("its answer is no token: {error}"))?;
    let token = document.token;
    let life = time(&token.expires_at)?.after(time(&token.issued_at)?);
    let made_at = Instant::now();
    Ok(OwnToken {
        value,
        made_at,
        renew_at: made_at + life.saturating_sub(MARGIN.min(life / 4)),
        catalog: token.catalog,
    })
}
