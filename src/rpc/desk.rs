use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::carry::carry;
use super::linger::Linger;
use super::wire::{self, Body, LARGEST_REQUEST};
use super::{Client, DEADLINE, Duplex, Keys, NAMES, Role, Streams};
use crate::drain::Watch;
use crate::http::{Accepted, Listener};
use crate::tls::roles_of;

/// Connections at one time; every process that calls has one.
const CONNECTIONS: usize = 1024;

/// Calls at one time on one connection.
const STREAMS: u32 = 2048;

/// How long a caller may take to show who it is, and to make its first call.
const GREETING: Duration = Duration::from_secs(5);

/// How often a caller that says nothing is asked whether it lives, and how long it may take.
const PING: Duration = Duration::from_secs(10);

/// How long a call's body may take.
const BODY: Duration = Duration::from_secs(10);

/// How long accepting rests when the process has run out of descriptors.
const REST: Duration = Duration::from_millis(50);

/// How long calls may go on once the process closes.
const FAREWELL: Duration = Duration::from_secs(1);

/// The roles of this process that others may call.
#[derive(Debug, Default)]
pub struct Desk {
    roles: Vec<Box<dyn Answers>>,
    streams: Vec<Box<dyn HandsOut>>,
}

/// Who calls: the roles that it may be.
#[derive(Clone, Debug)]
struct Caller {
    roles: Arc<[&'static str]>,
    /// Whether the connection itself has shown it.
    known: bool,
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A role, whichever.
trait Answers: fmt::Debug + Send + Sync {
    fn name(&self) -> &'static str;
    fn answer<'a>(&'a self, caller: &'a Caller, body: Bytes) -> BoxFuture<'a, Response<Body>>;
}

/// An answer, and the stream that follows it.
type Handed = (Response<Body>, Option<Box<dyn Duplex>>);

/// What hands out streams, whichever.
trait HandsOut: fmt::Debug + Send + Sync {
    fn name(&self) -> &'static str;
    fn open<'a>(&'a self, caller: &'a Caller, body: Bytes) -> BoxFuture<'a, Handed>;
}

impl Desk {
    /// The same with one more role.
    #[must_use]
    pub fn with<R: Role>(mut self, client: Client<R>) -> Self {
        self.roles.push(Box::new(client));
        self
    }

    /// The same, handing out these too.
    #[must_use]
    pub fn handing_out<S: Streams>(mut self, streams: S) -> Self {
        self.streams.push(Box::new(streams));
        self
    }

    /// Serves calls that come in at `listener` until the process closes, or leaves them to another
    /// one. Callers then go there with their next call; those under way are still answered here.
    pub async fn serve(self: Arc<Self>, listener: Listener, keys: Arc<Keys>, watch: Watch) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            if !watch.may_accept().await {
                return listener.leave();
            }
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                next = next => next,
                () = watch.held() => continue,
                () = watch.closing() => return,
            };
            let Ok(accepted) = accepted else {
                sleep(REST).await;
                continue;
            };
            let (desk, keys, own) = (Arc::clone(&self), Arc::clone(&keys), watch.clone());
            watch.spawn_connection(async move {
                desk.greet(accepted, keys, own).await;
                drop(place);
            });
        }
    }

    async fn greet(self: Arc<Self>, accepted: Accepted, keys: Arc<Keys>, watch: Watch) {
        let (all, mut known) = (Arc::from(NAMES), false);
        match (accepted, &*keys) {
            (Accepted::Unix(stream), _) => {
                known = true;
                let caller = Caller { roles: all, known };
                self.converse(stream, caller, keys, watch).await;
            }
            (Accepted::Tcp(stream, _), Keys::Mutual(mutual)) => {
                let shaken = timeout(GREETING, mutual.accept(stream)).await;
                let late = || Err("it did not shake hands in time".to_owned());
                match shaken.unwrap_or_else(|_| late()) {
                    Ok(stream) => {
                        let chain = stream.get_ref().1.peer_certificates();
                        let roles = roles_of(chain, NAMES).into();
                        let caller = Caller { roles, known: true };
                        self.converse(stream, caller, keys, watch).await;
                    }
                    Err(why) => tracing::info!(why, "a caller of roles was not let in"),
                }
            }
            (Accepted::Tcp(stream, _), _) => {
                let caller = Caller { roles: all, known };
                self.converse(stream, caller, keys, watch).await;
            }
        }
    }

    async fn converse(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        caller: Caller,
        keys: Arc<Keys>,
        watch: Watch,
    ) {
        let heard = CancellationToken::new();
        let (hearing, carrying) = (heard.clone(), watch.clone());
        let calls = Arc::<AtomicBool>::default();
        let stream = Linger::new(stream, Arc::clone(&calls));
        let answer = service_fn(move |request: Request<Incoming>| {
            hearing.cancel();
            calls.store(request.version() == Version::HTTP_2, Ordering::Relaxed);
            let (desk, caller, keys) = (Arc::clone(&self), caller.clone(), Arc::clone(&keys));
            let watch = carrying.clone();
            async move {
                let response = desk.answer(request, &caller, &keys, &watch).await;
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let builder = builder();
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), answer);
        let mut connection = std::pin::pin!(connection);
        let silent = async {
            if timeout(GREETING, heard.cancelled()).await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        // Whoever came before the door was left is heard here.
        let left = async {
            watch.parting().await;
            heard.cancelled().await;
        };
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = silent => return,
            () = watch.closing() => {
                connection.as_mut().graceful_shutdown();
                timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
            }
            () = left => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = timeout(DEADLINE, connection.as_mut()) => ended.unwrap_or(Ok(())),
                    () = watch.closing() => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a caller of roles left early");
        }
    }

    async fn answer(
        &self,
        mut request: Request<Incoming>,
        caller: &Caller,
        keys: &Keys,
        watch: &Watch,
    ) -> Response<Body> {
        let upgrade = hyper::upgrade::on(&mut request);
        let (head, body) = request.into_parts();
        if !caller.known && !keys.admit(&head.headers) {
            tracing::info!("a caller of roles has another secret, or none");
            return wire::answer(StatusCode::UNAUTHORIZED, "who are you?");
        }
        let wanted = wire::role(head.uri.path());
        if wire::wants_stream(&head.headers) {
            let streams = self.streams.iter().find(|it| wanted == Some(it.name()));
            return match streams {
                Some(streams) => hand_out(&**streams, caller, body, upgrade, watch).await,
                None => wire::answer(StatusCode::NOT_FOUND, "nothing of that name here"),
            };
        }
        let role = self.roles.iter().find(|role| wanted == Some(role.name()));
        let Some(role) = role.filter(|_| head.method == Method::POST) else {
            return wire::answer(StatusCode::NOT_FOUND, "no such role runs here");
        };
        let body = Limited::new(body, LARGEST_REQUEST).collect();
        match timeout(BODY, body).await {
            Ok(Ok(body)) => {
                let theirs = wire::version(&head.headers);
                let response = role.answer(caller, body.to_bytes()).await;
                note_misunderstanding(&response, role.name(), &theirs);
                response
            }
            Ok(Err(_)) => wire::answer(StatusCode::PAYLOAD_TOO_LARGE, "no whole body"),
            Err(_) => wire::answer(StatusCode::REQUEST_TIMEOUT, "the body did not come"),
        }
    }
}

async fn hand_out(
    streams: &dyn HandsOut,
    caller: &Caller,
    body: Incoming,
    upgrade: OnUpgrade,
    watch: &Watch,
) -> Response<Body> {
    let body = timeout(BODY, Limited::new(body, LARGEST_REQUEST).collect()).await;
    let Ok(Ok(body)) = body else {
        return wire::answer(StatusCode::BAD_REQUEST, "no whole body");
    };
    let (response, stream) = streams.open(caller, body.to_bytes()).await;
    if let Some(stream) = stream {
        let closing = watch.clone();
        // Drained like a session: it is one, seen from here.
        watch.spawn_session(async move {
            tokio::select! {
                () = hand_over(upgrade, stream) => {}
                () = closing.closing() => {}
            }
        });
    }
    response
}

async fn hand_over(upgrade: OnUpgrade, mut stream: Box<dyn Duplex>) {
    let Ok(Ok(upgraded)) = timeout(GREETING, upgrade).await else {
        return;
    };
    let mut caller = TokioIo::new(upgraded);
    if let Err(error) = carry(&mut caller, &mut stream).await {
        tracing::debug!(%error, "a stream between processes ended early");
    }
}

fn note_misunderstanding(response: &Response<Body>, role: &str, theirs: &str) {
    if response.status() == StatusCode::BAD_REQUEST {
        let ours = wire::VERSION;
        tracing::warn!(
            role,
            theirs,
            ours,
            "a caller of another version is not understood"
        );
    }
}

/// Calls over HTTP/2, streams over HTTP/1.1.
fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    let _calls = builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(STREAMS);
    let _streams = builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(GREETING);
    builder
}

impl<R: Role> Answers for Client<R> {
    fn name(&self) -> &'static str {
        R::NAME
    }

    fn answer<'a>(&'a self, caller: &'a Caller, body: Bytes) -> BoxFuture<'a, Response<Body>> {
        Box::pin(async move {
            // Somebody wants to know whether we are here.
            if body.is_empty() {
                return wire::answer(StatusCode::OK, Bytes::new());
            }
            let Ok(request) = wire::read::<R::Request>(&body) else {
                return wire::answer(StatusCode::BAD_REQUEST, "not understood");
            };
            drop(body);
            let callers = R::callers(&request);
            if !caller.roles.iter().any(|role| callers.contains(role)) {
                let (role, roles) = (R::NAME, caller.roles.join(", "));
                tracing::warn!(role, caller = roles, "a caller asked what its role may not");
                return wire::answer(StatusCode::FORBIDDEN, "not for you");
            }
            match wire::write(&self.call(request).await) {
                Ok(body) => wire::answer(StatusCode::OK, body),
                Err(_) => wire::answer(StatusCode::INTERNAL_SERVER_ERROR, "no answer"),
            }
        })
    }
}

impl<S: Streams> HandsOut for S {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn open<'a>(&'a self, caller: &'a Caller, body: Bytes) -> BoxFuture<'a, Handed> {
        let refuse = |status, why: &'static str| (wire::answer(status, why), None);
        Box::pin(async move {
            if !caller.roles.iter().any(|role| S::CALLERS.contains(role)) {
                let (name, roles) = (S::NAME, caller.roles.join(", "));
                tracing::warn!(name, caller = roles, "a caller asked what its role may not");
                return refuse(StatusCode::FORBIDDEN, "not for you");
            }
            let Ok(request) = wire::read::<S::Request>(&body) else {
                return refuse(StatusCode::BAD_REQUEST, "not understood");
            };
            match Streams::open(self, request).await {
                Ok((opened, stream)) => match wire::stream_answer(&opened) {
                    Some(response) => (response, Some(stream)),
                    None => refuse(StatusCode::INTERNAL_SERVER_ERROR, "no answer"),
                },
                Err(error) => match wire::write(&error) {
                    Ok(body) => (wire::answer(StatusCode::OK, body), None),
                    Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "no answer"),
                },
            }
        })
    }
}
