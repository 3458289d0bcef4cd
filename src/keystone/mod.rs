//! Keystone, the identity service of OpenStack: whose a token is, and where other services are.
//!
//! Called by api (who is calling) and by auth (to ask Nova about tokens). A [`Keystone`] has a user
//! of its own there, whose token it renews. What Keystone said of a caller's token is kept for
//! [`Settings::cache`], which is therefore how long a revoked one may live on; what it could not
//! say is kept as no verdict: [`Unavailable`] is never "yes". Tokens are kept as their SHA-256.
//! Identity API v3, "Authentication and token management".

mod cache;
mod catalog;
mod credentials;
mod flights;
mod identity;
mod service;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::timeout;
use url::Url;

use crate::drain::Watch;
use crate::model::UnixTime;
use cache::Cache;
pub use credentials::{BadSecret, Credentials, Login};
use flights::Flights;
pub use identity::{Identity, Named, Scope};
pub use service::Ask;
use service::Service;
pub use settings::{BadSettings, Settings};

/// The token of whoever is asked about (Identity API v3).
const SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");

/// The longest token. Fernet's have a few hundred bytes, JWS a thousand.
const LONGEST_TOKEN: usize = 8 * 1024;

/// Keystone, as this gateway asks it. Cheap to clone: all clones share what is known.
#[derive(Clone, Debug)]
pub struct Keystone(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    service: Service,
    cache: Cache,
    flights: Flights,
    limit: Duration,
    watch: Watch,
}

/// What Keystone says of a token.
type Verdict = Result<Arc<Identity>, NotValid>;

/// Why a token is not taken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotValid {
    /// Keystone does not know it: never issued, revoked, or expired.
    #[error("Keystone does not know this token, or not any more")]
    Unknown,
    /// Keystone could not be asked. Nothing is known of the token.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Keystone, or a service found through it, gives no useful answer. It may the next time.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(String);

impl Keystone {
    /// Asks nothing yet. Calls end when `watch` closes.
    pub fn new(settings: Settings, watch: &Watch) -> Self {
        Self(Arc::new(Inner {
            cache: Cache::new(settings.cache),
            flights: Flights::default(),
            limit: settings.timeout * 2,
            service: Service::new(settings),
            watch: watch.clone(),
        }))
    }

    /// Whose `token` is: from what is known already, or by asking Keystone, once for all who want
    /// to know the same at one time. Cancel-safe: the answer is kept for the next one.
    pub async fn validate(&self, token: &str) -> Verdict {
        let printable = token.bytes().all(|byte| byte.is_ascii_graphic());
        if token.is_empty() || token.len() > LONGEST_TOKEN || !printable {
            return Err(NotValid::Unknown);
        }
        let key = cache::key(token);
        if let Some(verdict) = self.0.cache.get(&key, UnixTime::now()) {
            return verdict;
        }
        let subject = HeaderValue::try_from(token).map_err(|_| NotValid::Unknown)?;
        let (flight, takeoff) = self.0.flights.join(key)?;
        if let Some(takeoff) = takeoff {
            let inner = Arc::clone(&self.0);
            self.0.watch.spawn_service(async move {
                tokio::select! {
                    verdict = inner.ask(subject) => {
                        inner.cache.put(key, &verdict, UnixTime::now());
                        inner.flights.land(&key, &takeoff, verdict);
                    }
                    () = inner.watch.closing() => {}
                }
            });
        }
        flight.landed().await
    }

    /// The address of the compute service, as the catalog has it for our own user.
    pub async fn compute_endpoint(&self) -> Result<Url, Unavailable> {
        self.0.service.compute_endpoint().await
    }

    /// Makes a call to a service of the cloud with our own token, renewed once if it is refused.
    pub async fn call(&self, ask: &Ask<'_>) -> Result<http::Response<bytes::Bytes>, Unavailable> {
        self.0.service.call(ask).await
    }
}

impl Inner {
    async fn ask(&self, mut subject: HeaderValue) -> Verdict {
        subject.set_sensitive(true);
        let answer = timeout(self.limit, self.show(subject)).await;
        answer.unwrap_or_else(|_| {
            let limit = humantime::format_duration(self.limit);
            Err(Unavailable(format!("no verdict on a token within {limit}")).into())
        })
    }

    /// `GET /v3/auth/tokens`.
    async fn show(&self, subject: HeaderValue) -> Verdict {
        let mut headers = HeaderMap::new();
        let _none = headers.insert(SUBJECT_TOKEN, subject);
        let base = self.service.url();
        let ask = Ask {
            base,
            path: &["auth", "tokens"],
            query: Some("nocatalog"),
            headers,
        };
        let answer = self.service.call(&ask).await?;
        match answer.status() {
            StatusCode::OK => Identity::parse(answer.body())
                .map(Arc::new)
                .map_err(|why| Unavailable(format!("{base}: {why}")).into()),
            StatusCode::NOT_FOUND => Err(NotValid::Unknown),
            StatusCode::FORBIDDEN => Err(Unavailable(format!(
                "{base}: our own user may not look at tokens; give it the role `service` (or \
                 `admin`) in its project"
            ))
            .into()),
            status => Err(Unavailable(format!("{base}: it answers {status} to a token")).into()),
        }
    }
}
