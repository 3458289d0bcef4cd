//! One connection, from the socket to its last answer: who it is, TLS, HTTP/1.1 or HTTP/2.
//!
//! Everything that a client does has an end, whatever it sends or leaves out: see decision 20 of
//! docs/design.md.

use std::convert::Infallible;
use std::io;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{HOST, STRICT_TRANSPORT_SECURITY};
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::server::TlsStream;
use tokio_util::task::AbortOnDropHandle;

use super::announcement::{BadAnnouncement, read_announcement};
use super::door::{Door, Limits, Peer, Secure, Tls};
use super::forwarded::is_within;
use super::guard::{Place, Turned};
use super::hurry::{ANSWER, Hurry};
use super::serve::Service;
use super::{Body, Reject};
use crate::drain::Watch;
use crate::tls::speaks_h2;

/// How long a request may go on once the process closes.
const FAREWELL: Duration = Duration::from_secs(3);

/// Requests at one time on one connection of HTTP/2; a page of ours needs ten.
const STREAMS: u32 = 32;

/// Said where nobody is left to answer.
const GOING: &str = "this gateway is going down";

/// What the first byte of TLS is; no request begins with it.
const HANDSHAKE: u8 = 0x16;

/// What answers on one connection.
pub(super) struct Attendant<S> {
    pub(super) service: Arc<S>,
    pub(super) peer: Peer,
    /// Whether we speak TLS on it.
    pub(super) secure: bool,
    pub(super) hsts: Option<HeaderValue>,
    /// Where heavy requests are answered; here, if nowhere.
    pub(super) home: Option<Handle>,
}

/// Serves a TCP connection to its end.
pub(super) async fn serve_tcp<S: Service>(
    stream: TcpStream,
    mut attendant: Attendant<S>,
    door: Door,
    watch: Watch,
) {
    let Some((stream, peer, _place)) = let_in(stream, attendant.peer, &door).await else {
        return;
    };
    attendant.peer = peer;
    attendant.secure = door.tls.is_some();
    let Some(tls) = &door.tls else {
        return serve_http1(stream, attendant, door.limits, watch).await;
    };
    attendant.hsts.clone_from(&tls.hsts);
    let shaken = tokio::select! {
        shaken = Box::pin(shake_hands(stream, tls)) => shaken,
        () = watch.closing() => return,
    };
    match shaken {
        Ok(stream) if speaks_h2(&stream) => {
            Box::pin(serve_http2(stream, attendant, door.limits, watch)).await;
        }
        Ok(stream) => Box::pin(serve_http1(stream, attendant, door.limits, watch)).await,
        Err(error) => {
            door.guard.tell(Turned::Handshake);
            tracing::debug!(%peer, %error, "no TLS with a client");
        }
    }
}

/// Who it is and whether it may come in. The place counts until it is dropped.
async fn let_in(
    mut stream: TcpStream,
    peer: Peer,
    door: &Door,
) -> Option<(TcpStream, Peer, Option<Place>)> {
    let announced = announced(&mut stream, peer, door).await;
    let peer = match announced {
        Ok(peer) => peer,
        Err(error) => {
            door.guard.tell(Turned::Announcement);
            tracing::debug!(%peer, %error, "a connection that nobody announced");
            return None;
        }
    };
    let admitted = peer.ip().map(|ip| door.guard.admit(ip)).transpose();
    match admitted {
        Ok(place) => Some((stream, peer, place)),
        Err(turned) => {
            tracing::debug!(%peer, why = turned.as_str(), "a connection is turned away");
            if door.tls.is_none() {
                // As far as it goes: nothing is waited for.
                let _gone = stream.try_write(farewell(turned)).is_err();
            }
            None
        }
    }
}

fn farewell(turned: Turned) -> &'static [u8] {
    match turned {
        Turned::Memory => {
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nConnection: close\r\n\
              Content-Length: 0\r\n\r\n"
        }
        _ => {
            b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nConnection: close\r\n\
              Content-Length: 0\r\n\r\n"
        }
    }
}

/// The client behind a balancer that has to announce it; else the peer.
async fn announced(
    stream: &mut TcpStream,
    peer: Peer,
    door: &Door,
) -> Result<Peer, BadAnnouncement> {
    if !door.announced {
        return Ok(peer);
    }
    let balancers = &door.guard.rules().exempt;
    if !peer.ip().is_some_and(|ip| is_within(balancers, ip)) {
        return Err(BadAnnouncement::Stranger);
    }
    let read = timeout(door.limits.header_timeout, read_announcement(stream)).await;
    let late = |_| BadAnnouncement::Stream(io::ErrorKind::TimedOut.into());
    let announced = read.map_err(late)??;
    Ok(announced.map_or(peer, Peer::Tcp))
}

async fn shake_hands(stream: TcpStream, tls: &Tls) -> io::Result<TlsStream<TcpStream>> {
    let hands = async {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first != [HANDSHAKE] {
            let _gone = stream.try_write(MISTAKEN).is_err();
            return Err(io::Error::other("it speaks no TLS"));
        }
        tls.server.accept(stream).await
    };
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    timeout(tls.timeout, hands).await.map_err(late)?
}

/// For somebody who typed http:// where it is https://.
const MISTAKEN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\
    Content-Type: text/plain\r\nContent-Length: 42\r\n\r\nthis port speaks https; use an https URL.\n";

impl<S: Service> Attendant<S> {
    async fn answer(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        if self.secure {
            let _new = request.extensions_mut().insert(Secure);
        }
        let mut response = match &self.home {
            Some(home) if !self.service.is_light(&request) => self.answer_at(home, request).await,
            _ => self.service.answer(request, self.peer).await,
        };
        if let Some(hsts) = &self.hsts {
            let headers = response.headers_mut();
            let _new = headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        Ok(response)
    }

    async fn answer_at(&self, home: &Handle, request: Request<Incoming>) -> Response<Body> {
        let (service, peer) = (Arc::clone(&self.service), self.peer);
        let answering = home.spawn(async move { service.answer(request, peer).await });
        match AbortOnDropHandle::new(answering).await {
            Ok(response) => response,
            Err(failed) => match failed.try_into_panic() {
                // As if it had been answered here.
                Ok(panic) => resume_unwind(panic),
                Err(_cancelled) => Reject::retry("draining", GOING, 5).into_response(),
            },
        }
    }
}

/// Serves HTTP/1.1 to its end, which an upgrade is, too.
pub(super) async fn serve_http1<S: Service>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    attendant: Attendant<S>,
    limits: Limits,
    watch: Watch,
) {
    let peer = attendant.peer;
    let attendant = Arc::new(attendant);
    let answer = service_fn(move |request| {
        let attendant = Arc::clone(&attendant);
        async move { attendant.answer(request).await }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_size)
        .half_close(false)
        .serve_connection(TokioIo::new(Hurry::new(stream)), answer)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = watch.parting() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = watch.closing() => timeout(FAREWELL, connection).await.unwrap_or(Ok(())),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

/// Serves HTTP/2 to its end. What is quiet for too long is told to go, and then goes.
async fn serve_http2<S: Service>(
    stream: TlsStream<TcpStream>,
    attendant: Attendant<S>,
    limits: Limits,
    watch: Watch,
) {
    let (peer, pulse) = (attendant.peer, Arc::new(Pulse::new(limits.header_timeout)));
    let attendant = Arc::new(attendant);
    let beating = Arc::clone(&pulse);
    let answer = service_fn(move |mut request: Request<Incoming>| {
        let (attendant, pulse) = (Arc::clone(&attendant), Arc::clone(&beating));
        async move {
            let _busy = pulse.begin();
            if !name_host(&mut request) {
                return Ok(Reject::bad_host().into_response());
            }
            attendant.answer(request).await
        }
    });
    let size = u32::try_from(limits.header_size).unwrap_or(u32::MAX);
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(size)
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(TokioIo::new(Hurry::new(stream)), answer);
    let mut connection = std::pin::pin!(connection);
    let over = async {
        tokio::select! {
            () = pulse.stops() => {}
            () = watch.parting() => {}
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = over => {
            connection.as_mut().graceful_shutdown();
            timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

/// Bytes that wait for the reader of one answer.
const SEND_BUFFER: usize = 64 * 1024;

/// Puts what HTTP/2 calls the authority where HTTP/1.1 has it. Whether there is one, and one alone.
fn name_host(request: &mut Request<Incoming>) -> bool {
    let authority = request.uri().authority().map(|it| it.as_str().to_owned());
    let headers = request.headers_mut();
    match (authority, headers.get(HOST)) {
        (None, named) => named.is_some(),
        (Some(authority), Some(named)) => named.as_bytes() == authority.as_bytes(),
        (Some(authority), None) => {
            let value = HeaderValue::from_str(&authority);
            value.is_ok_and(|value| headers.insert(HOST, value).is_none())
        }
    }
}

/// Whether requests run on a connection, and since when none does.
struct Pulse {
    running: AtomicUsize,
    /// When it is dead unless something begins.
    due: Mutex<Instant>,
}

/// A request that runs until this is dropped.
struct Busy(Arc<Pulse>);

impl Pulse {
    /// The first request has as long as any head.
    fn new(first: Duration) -> Self {
        let now = Instant::now();
        Self {
            running: AtomicUsize::new(0),
            due: Mutex::new(now.checked_add(first).unwrap_or(now)),
        }
    }

    fn begin(self: &Arc<Self>) -> Busy {
        let _before = self.running.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    fn due(&self) -> Instant {
        *self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer has [`ANSWER`] to be read, after which nothing runs any more.
    fn rest(&self) {
        let now = Instant::now();
        let due = now.checked_add(ANSWER).unwrap_or(now);
        *self.due.lock().unwrap_or_else(PoisonError::into_inner) = due;
        let _before = self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// Until nothing has run for too long.
    async fn stops(&self) {
        loop {
            let due = self.due();
            let busy = self.running.load(Ordering::Relaxed) > 0;
            if !busy && due <= Instant::now() {
                return;
            }
            let next = Instant::now().checked_add(LOOK);
            let next = next.filter(|next| busy || *next < due).unwrap_or(due);
            sleep_until(next).await;
        }
    }
}

/// Between two looks at a connection of HTTP/2.
const LOOK: Duration = Duration::from_secs(5);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.rest();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::Instant;

    use super::*;
    use crate::drain::Drain;

    struct Large;

    impl Service for Large {
        async fn answer(&self, _request: Request<Incoming>, _peer: Peer) -> Response<Body> {
            Response::new(Full::from(vec![0; 1 << 20]))
        }
    }

    fn attendant() -> Attendant<Large> {
        Attendant {
            service: Arc::new(Large),
            peer: Peer::Owner,
            secure: false,
            hsts: None,
            home: None,
        }
    }

    fn limits() -> Limits {
        Limits {
            connections: 1,
            header_timeout: Duration::from_secs(10),
            header_size: 32 * 1024,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_and_does_not_read_is_let_go() {
        let (mut client, ours) = duplex(1024);
        let request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(9);
        client.write_all(&request).await.unwrap();
        let started = Instant::now();

        serve_http1(ours, attendant(), limits(), Watch::default()).await;

        assert_eq!(started.elapsed().as_secs(), ANSWER.as_secs());
        let mut rest = Vec::new();
        let read = client.read_to_end(&mut rest).await.unwrap();
        assert!(read < 1 << 20, "{read}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_half_a_head_does_not_hold_up_the_end() {
        let (mut client, ours) = duplex(1024);
        client.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        let drain = Drain::default();
        let serving = serve_http1(ours, attendant(), limits(), drain.watch());
        let serving = tokio::spawn(serving);
        tokio::task::yield_now().await;
        let started = Instant::now();

        drain.run(Duration::ZERO, Duration::ZERO).await;
        serving.await.unwrap();

        assert_eq!(started.elapsed().as_secs(), FAREWELL.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_half_a_head_is_let_go() {
        let (mut client, ours) = duplex(1024);
        client.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        let started = Instant::now();

        serve_http1(ours, attendant(), limits(), Watch::default()).await;

        assert_eq!(started.elapsed().as_secs(), 10);
    }
}
