//! Tokens that Nova made, asked for at Nova's API: `GET /os-console-auth-tokens/{token}`.
//!
//! Our own user there has to be an admin, as Nova's policy wants. The answer has neither the
//! console's type nor the URL nor the time of its end: the type is the config's, the page's origin
//! is held against our own URL, and Nova is asked at each use, so that a token dies here when it
//! dies there. Nova does not say either whether the port is still the instance's; the instance is
//! looked at as well, and refused where its port may be another's by now.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};
use url::Url;

use super::{BoxFuture, Source};
use crate::auth::AuthError;
use crate::keystone::{Ask, Keystone, Unavailable};
use crate::model::{
    AccessPath, Address, Binding, ConsoleType, Grant, Host, InstanceId, Rights, Target, Terms,
    Token, UnixTime,
};

/// How long one token may take: less than a caller of auth waits.
const LIMIT: Duration = Duration::from_secs(12);

/// How long Nova's newest microversion is remembered; an upgrade counts after that.
const REMEMBERED: Duration = Duration::from_mins(5);

/// How long a grant is good after Nova was asked. It is used at once.
const GOOD: Duration = Duration::from_mins(1);

/// The first microversion that tells of tokens of every type, and the first that tells a TLS port.
const OLDEST: Microversion = Microversion(2, 31);
const WITH_TLS: Microversion = Microversion(2, 99);

/// Where Nova is asked, and what its tokens are taken for.
#[derive(Clone, Debug)]
pub struct NovaApiSettings {
    /// Its API; unset: as Keystone's catalog has it.
    pub url: Option<Url>,
    /// What its tokens open.
    pub console_type: ConsoleType,
    /// The page that such tokens are used from.
    pub base: Url,
}

/// Nova's API as a source of tokens.
#[derive(Debug)]
pub struct NovaApi {
    keystone: Keystone,
    settings: NovaApiSettings,
    newest: Mutex<Option<(Instant, Url, Microversion)>>,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Microversion(u32, u32);

impl NovaApi {
    /// Asks as `keystone`'s user.
    pub fn new(keystone: Keystone, settings: NovaApiSettings) -> Self {
        Self {
            keystone,
            settings,
            newest: Mutex::default(),
        }
    }

    async fn look_up(&self, token: &Token, now: UnixTime) -> Result<Grant, AuthError> {
        let token = token.reveal();
        // Nova's are UUIDs. What cannot be a segment of a path is nobody's token.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if !token.bytes().all(plain) {
            return Err(AuthError::Unknown);
        }
        let nova = self.nova().await?;
        let path = ["os-console-auth-tokens", token];
        let console: ConsoleDocument = self.get(&nova, &path).await?;
        let console = console.console;
        let id = console.instance_uuid.to_string();
        let server: ServerDocument = self.get(&nova, &["servers", &id]).await?;
        let server = server.server;
        server.must_have_its_port(&id)?;
        Ok(Grant {
            instance: console.instance_uuid,
            instance_name: server.name.into(),
            console_type: self.settings.console_type,
            target: console.target().map_err(source)?,
            binding: Binding::Target,
            rights: Rights::CONTROL,
            base: self.settings.base.clone(),
            caller: caller(server.tenant_id.as_deref()).into(),
            project: server.tenant_id.map(Arc::from),
            terms: Terms::default(),
            issued: now,
            expires: now.plus(GOOD),
        })
    }

    async fn nova(&self) -> Result<Nova, AuthError> {
        let (versioned, url) = versioned(&self.url().await?);
        let newest = match self.remembered(&versioned) {
            Some(newest) => newest,
            None => self.discover(&versioned).await?,
        };
        let version = if newest >= WITH_TLS { WITH_TLS } else { OLDEST };
        Ok(Nova { url, version })
    }

    async fn url(&self) -> Result<Url, AuthError> {
        match &self.settings.url {
            Some(url) => Ok(url.clone()),
            None => Ok(self.keystone.compute_endpoint().await?),
        }
    }

    fn remembered(&self, url: &Url) -> Option<Microversion> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, of, newest) = newest.as_ref()?;
        (*until > Instant::now() && of == url).then_some(*newest)
    }

    /// `GET /v2.1`: which microversions there are.
    async fn discover(&self, url: &Url) -> Result<Microversion, AuthError> {
        let ask = Ask {
            base: url,
            path: &[],
            query: None,
            headers: HeaderMap::new(),
        };
        let answer = self.keystone.call(&ask).await?;
        let document: VersionDocument = read(url, &answer)?;
        let newest = document.version.version;
        let newest = Microversion::parse(&newest)
            .filter(|newest| *newest >= OLDEST)
            .ok_or_else(|| {
                source(format!(
                    "{url}: its newest microversion is `{newest}`, and 2.31 is needed"
                ))
            })?;
        let mut remembered = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        *remembered = Some((Instant::now() + REMEMBERED, url.clone(), newest));
        Ok(newest)
    }

    async fn get<T: DeserializeOwned>(&self, nova: &Nova, path: &[&str]) -> Result<T, AuthError> {
        let ask = Ask {
            base: &nova.url,
            path,
            query: None,
            headers: nova.version.headers(),
        };
        let answer = self.keystone.call(&ask).await?;
        if answer.status() == StatusCode::NOT_FOUND && is_novas(&answer) {
            return Err(AuthError::Unknown);
        }
        read(&nova.url, &answer)
    }
}

impl Source for NovaApi {
    fn name(&self) -> &'static str {
        "Nova"
    }

    fn redeem<'a>(
        &'a self,
        token: &'a Token,
        now: UnixTime,
    ) -> BoxFuture<'a, Result<Grant, AuthError>> {
        Box::pin(async move {
            let grant = timeout(LIMIT, self.look_up(token, now)).await;
            grant.unwrap_or_else(|_| Err(source("Nova's API does not answer in time")))
        })
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), AuthError>> {
        Box::pin(async move {
            let (versioned, _) = versioned(&self.url().await?);
            self.discover(&versioned).await.map(drop)
        })
    }
}

/// Nova does not tell who asked; limits by caller are by project then.
fn caller(project: Option<&str>) -> String {
    project.map_or_else(|| "nova".to_owned(), |project| format!("nova:{project}"))
}

/// An API that can be asked.
#[derive(Debug)]
struct Nova {
    url: Url,
    version: Microversion,
}

impl Microversion {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }

    /// Both spellings, as Nova's own clients send.
    fn headers(self) -> HeaderMap {
        let number = format!("{}.{}", self.0, self.1);
        let pairs = [
            ("openstack-api-version", format!("compute {number}")),
            ("x-openstack-nova-api-version", number),
        ];
        let pairs = pairs.into_iter().filter_map(|(name, value)| {
            let value = HeaderValue::try_from(value).ok()?;
            Some((HeaderName::from_static(name), value))
        });
        pairs.collect()
    }
}

#[derive(Deserialize)]
struct VersionDocument {
    version: VersionInformation,
}

#[derive(Deserialize)]
struct VersionInformation {
    version: String,
}

#[derive(Deserialize)]
struct ConsoleDocument {
    console: Console,
}

#[derive(Deserialize)]
struct Console {
    instance_uuid: InstanceId,
    host: String,
    port: Option<i64>,
    tls_port: Option<i64>,
    internal_access_path: Option<AccessPath>,
}

impl Console {
    /// Without a plain port the TLS port is the only door, and both say so. Errors: in words.
    fn target(self) -> Result<Target, String> {
        let Self { host, port, .. } = &self;
        let bad = || format!("Nova's answer names no place to dial: `{host}`, port {port:?}");
        let number = |port: i64| u16::try_from(port).ok().filter(|port| *port != 0);
        let tls_port = self.tls_port.and_then(number);
        let plain = port.and_then(number).or(tls_port);
        let host: Host = host.parse().map_err(|_| bad())?;
        Ok(Target {
            address: Address::Tcp(host, plain.ok_or_else(bad)?),
            tls_port,
            internal_access_path: self.internal_access_path,
        })
    }
}

#[derive(Deserialize)]
struct ServerDocument {
    server: Server,
}

#[derive(Deserialize)]
struct Server {
    name: String,
    tenant_id: Option<String>,
    #[serde(rename = "OS-EXT-STS:vm_state")]
    state: Option<String>,
    #[serde(rename = "OS-EXT-STS:task_state")]
    task: Option<String>,
}

impl Server {
    /// A port is the instance's while it runs and stays where it is. Errors: `Unknown` where it has
    /// none, `Source` while it may change.
    fn must_have_its_port(&self, id: &str) -> Result<(), AuthError> {
        let gone = ["stopped", "suspended", "shelved", "deleted", "soft-delete"];
        let gone = |state: &str| gone.iter().any(|word| state.starts_with(word));
        if self.state.as_deref().is_some_and(gone) {
            return Err(AuthError::Unknown);
        }
        let moving = [
            "migrating",
            "resize_",
            "rebuild",
            "shelving",
            "deleting",
            "soft-deleting",
        ];
        let moving = |task: &&str| moving.iter().any(|word| task.starts_with(word));
        match self.task.as_deref().filter(moving) {
            Some(task) => Err(source(format!("instance {id} is on the move (`{task}`)"))),
            None => Ok(()),
        }
    }
}

/// Nova's own 404, and not that of somebody who has never heard of Nova.
fn is_novas(answer: &Response<bytes::Bytes>) -> bool {
    #[derive(Deserialize)]
    struct Fault {
        #[serde(rename = "itemNotFound")]
        _fault: serde::de::IgnoredAny,
    }
    serde_json::from_slice::<Fault>(answer.body()).is_ok()
}

fn read<T: DeserializeOwned>(url: &Url, answer: &Response<bytes::Bytes>) -> Result<T, AuthError> {
    match answer.status() {
        StatusCode::OK => serde_json::from_slice(answer.body())
            .map_err(|error| source(format!("{url}: its answer makes no sense: {error}"))),
        StatusCode::FORBIDDEN => Err(source(format!(
            "{url}: our own user may not look at consoles; give it the role `admin` in its project"
        ))),
        StatusCode::NOT_FOUND => Err(source(format!(
            "{url}: there is no Nova; is the URL right?"
        ))),
        status => Err(source(format!("{url}: it answers {status}"))),
    }
}

fn source(why: impl Into<String>) -> AuthError {
    AuthError::Source(why.into())
}

impl From<Unavailable> for AuthError {
    fn from(error: Unavailable) -> Self {
        Self::Source(error.to_string())
    }
}

/// The URL up to Nova's version, and the one for calls, which may name a project after it. A
/// catalog may leave both out.
fn versioned(url: &Url) -> (Url, Url) {
    let mut calls = url.clone();
    calls.set_query(None);
    calls.set_fragment(None);
    if let Ok(mut segments) = calls.path_segments_mut() {
        let _trailing = segments.pop_if_empty();
    }
    let version = |segment: &str| segment == "v2" || segment.starts_with("v2.");
    let segments: Vec<String> = calls
        .path_segments()
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .collect();
    let Some(place) = segments.iter().rposition(|segment| version(segment)) else {
        if let Ok(mut segments) = calls.path_segments_mut() {
            let _version = segments.push("v2.1");
        }
        return (calls.clone(), calls);
    };
    let mut versioned = calls.clone();
    let kept: Vec<&str> = segments
        .iter()
        .take(place + 1)
        .map(String::as_str)
        .collect();
    versioned.set_path(&kept.join("/"));
    (versioned, calls)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn target(console: &Value) -> Result<Target, String> {
        serde_json::from_value::<Console>(console.clone())
            .unwrap()
            .target()
    }

    fn console(members: &Value) -> Value {
        let mut console = json!({
            "instance_uuid": "b0dca4d3-b5ef-4f4a-8e0c-6a9e7b0c9c5e",
            "host": "192.0.2.7", "port": 5901, "internal_access_path": null,
        });
        let all = console.as_object_mut().unwrap();
        all.extend(members.as_object().unwrap().clone());
        console
    }

    #[test]
    fn an_answer_tells_where_to_dial() {
        let plain = target(&console(&json!({}))).unwrap();
        assert_eq!(plain.to_string(), "192.0.2.7:5901");
        assert_eq!((plain.tls_port, plain.internal_access_path), (None, None));

        let path = target(&console(&json!({"internal_access_path": "x y"}))).unwrap();
        assert_eq!(path.internal_access_path.unwrap().as_str(), "x y");

        let tls = target(&console(&json!({"port": null, "tls_port": 5902}))).unwrap();
        assert_eq!(
            (tls.to_string().as_str(), tls.tls_port),
            ("192.0.2.7:5902", Some(5902))
        );
    }

    #[test]
    fn a_port_that_nothing_can_have_is_not_dialled() {
        for members in [
            json!({"port": -1}),
            json!({"port": 70000}),
            json!({"host": ""}),
        ] {
            let refusal = target(&console(&members)).unwrap_err();
            assert!(refusal.contains("no place to dial"), "{refusal}");
        }
    }

    #[test]
    fn an_instance_without_its_port_is_refused() {
        let judge = |state: Option<&str>, task: Option<&str>| {
            let server = Server {
                name: "vm".to_owned(),
                tenant_id: None,
                state: state.map(str::to_owned),
                task: task.map(str::to_owned),
            };
            server.must_have_its_port("id")
        };

        assert_eq!(judge(Some("active"), None), Ok(()));
        assert_eq!(judge(Some("active"), Some("rebooting")), Ok(()));
        assert_eq!(judge(None, None), Ok(()));
        for state in ["stopped", "suspended", "shelved_offloaded", "soft-delete"] {
            assert_eq!(judge(Some(state), None), Err(AuthError::Unknown), "{state}");
        }
        for task in [
            "migrating",
            "resize_migrating",
            "rebuild_spawning",
            "deleting",
        ] {
            let refusal = judge(Some("active"), Some(task)).unwrap_err();
            assert!(matches!(refusal, AuthError::Source(_)), "{task}");
        }
    }

    #[test]
    fn the_version_is_asked_for_where_it_is() {
        for (url, version, calls) in [
            (
                "http://n:8774/v2.1",
                "http://n:8774/v2.1",
                "http://n:8774/v2.1",
            ),
            ("http://n/v2.1/", "http://n/v2.1", "http://n/v2.1"),
            (
                "http://n/compute/v2.1/p1",
                "http://n/compute/v2.1",
                "http://n/compute/v2.1/p1",
            ),
            ("http://n:8774/", "http://n:8774/v2.1", "http://n:8774/v2.1"),
        ] {
            let found = versioned(&url.parse().unwrap());
            let found = (found.0.as_str(), found.1.as_str());
            assert_eq!(found, (version, calls), "{url}");
        }
    }

    #[test]
    fn microversions_are_numbers() {
        let parse = Microversion::parse;
        assert!(parse("2.103").unwrap() > WITH_TLS && parse("2.96").unwrap() < WITH_TLS);
        assert_eq!(parse(""), None);
        let headers = OLDEST.headers();
        assert_eq!(headers["openstack-api-version"], "compute 2.31");
        assert_eq!(headers["x-openstack-nova-api-version"], "2.31");
    }
}
