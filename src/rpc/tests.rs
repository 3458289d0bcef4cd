//! Far calls between two ends in one process, over real sockets.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::drain::{Drain, Watch};
use crate::http::Listener;
use crate::model::Address;
use crate::tls::{Mutual, MutualFiles, role_name};

/// Far beyond what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Says what it is told, refuses 0, and for `None` waits until nobody wants to know any more.
struct Echo {
    left: mpsc::Sender<()>,
    calls: Arc<AtomicUsize>,
}

#[derive(Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
enum Refusal {
    #[error("zero")]
    Zero,
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

impl Role for Echo {
    const NAME: &'static str = "auth";
    type Request = Option<u32>;
    type Reply = u32;
    type Error = Refusal;

    fn callers(request: &Option<u32>) -> &'static [&'static str] {
        match request {
            Some(99) => &["api"],
            _ => &["api", "proxy"],
        }
    }

    async fn call(&self, request: Option<u32>) -> Result<u32, Refusal> {
        let _before = self.calls.fetch_add(1, Ordering::Relaxed);
        match request {
            Some(0) => Err(Refusal::Zero),
            Some(number) => Ok(number),
            None => {
                let _told = Told(self.left.clone());
                std::future::pending().await
            }
        }
    }
}

/// Tells that a call was given up.
struct Told(mpsc::Sender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        let _told = self.0.try_send(());
    }
}

struct Server {
    drain: Drain,
    address: SocketAddr,
    left: mpsc::Receiver<()>,
    calls: Arc<AtomicUsize>,
}

impl Server {
    fn start(keys: Keys) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), keys)
    }

    fn start_at(address: SocketAddr, keys: Keys) -> Self {
        let listener = Listener::tcp(address).unwrap();
        let address = listener.address().unwrap();
        let drain = Drain::default();
        let (left, calls) = listen(listener, keys, &drain.watch());
        Self {
            drain,
            address,
            left,
            calls,
        }
    }

    fn client(&self, keys: Keys) -> Client<Echo> {
        client(&[self.address], keys)
    }

    async fn stop(self) {
        self.drain.run(Duration::ZERO, PATIENCE).await;
    }
}

fn listen(listener: Listener, keys: Keys, watch: &Watch) -> (mpsc::Receiver<()>, Arc<AtomicUsize>) {
    let (told, left) = mpsc::channel(8);
    let calls = Arc::<AtomicUsize>::default();
    let echo = Echo {
        left: told,
        calls: Arc::clone(&calls),
    };
    let near = Client::Near(serve(echo, watch));
    let desk = Arc::new(Desk::default().with(near));
    watch.spawn_service(desk.serve(listener, Arc::new(keys), watch.clone()));
    (left, calls)
}

fn client(addresses: &[SocketAddr], keys: Keys) -> Client<Echo> {
    let addresses = addresses.iter().map(ToString::to_string);
    let addresses: Vec<Address> = addresses.map(|it| it.parse().unwrap()).collect();
    Links::new(Arc::new(keys), timeouts()).client(&addresses)
}

fn timeouts() -> Timeouts {
    Timeouts {
        connect: Duration::from_secs(2),
        call: PATIENCE,
    }
}

fn secret(text: &str) -> Keys {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    std::fs::write(&path, text).unwrap();
    Keys::Secret(Secret::new(path).unwrap())
}

fn ours() -> Keys {
    secret("a-secret-of-all-our-roles")
}

fn gone() -> Result<u32, Refusal> {
    Err(Unreachable::Gone("auth".to_owned()).into())
}

fn refused() -> Result<u32, Refusal> {
    Err(Unreachable::Refused("auth".to_owned()).into())
}

#[tokio::test]
async fn a_far_role_answers_as_a_near_one() {
    let server = Server::start(ours());
    let client = server.client(ours());

    assert_eq!(client.reach().await, Ok(()));
    assert_eq!(client.call(Some(7)).await, Ok(7));
    assert_eq!(client.call(Some(0)).await, Err(Refusal::Zero));
    assert_eq!(server.calls.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_slow_far_call_does_not_hold_up_the_next_and_is_reset_when_its_caller_leaves() {
    let mut server = Server::start(ours());
    let client = server.client(ours());
    let slow = client.clone();
    let stuck = tokio::spawn(async move { slow.call(None).await });

    assert_eq!(client.call(Some(7)).await, Ok(7));
    while server.calls.load(Ordering::Relaxed) < 2 {
        tokio::task::yield_now().await;
    }
    stuck.abort();

    let left = timeout(PATIENCE, server.left.recv()).await;
    assert_eq!(left, Ok(Some(())));
    assert_eq!(client.call(Some(8)).await, Ok(8));
}

#[tokio::test]
async fn a_hundred_calls_share_one_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::start(ours());
    let (front, back) = (listener.local_addr().unwrap(), server.address);
    let passing = tokio::spawn(async move {
        // One connection is passed on, and no other.
        let (mut ours, _) = listener.accept().await.unwrap();
        let mut theirs = tokio::net::TcpStream::connect(back).await.unwrap();
        let _ended = tokio::io::copy_bidirectional(&mut ours, &mut theirs).await;
    });
    let client = client(&[front], ours());

    let calls: Vec<_> = (1..=100)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.call(Some(number)).await })
        })
        .collect();
    let mut sum = 0;
    for call in calls {
        sum += call.await.unwrap().unwrap();
    }

    assert_eq!(sum, 5050);
    passing.abort();
}

#[tokio::test]
async fn nobody_there_is_said_at_once_and_somebody_later_is_found() {
    let server = Server::start(ours());
    let address = server.address;
    let client = server.client(ours());
    assert_eq!(client.call(Some(1)).await, Ok(1));
    server.stop().await;

    let started = tokio::time::Instant::now();
    assert_eq!(client.call(Some(2)).await, gone());
    assert!(started.elapsed() < Duration::from_secs(2));

    let again = Server::start_at(address, ours());
    assert_eq!(client.call(Some(3)).await, Ok(3));
    again.stop().await;
}

#[tokio::test]
async fn of_several_the_first_that_can_be_reached_answers() {
    let (first, second) = (Server::start(ours()), Server::start(ours()));
    let client = client(&[first.address, second.address], ours());
    assert_eq!(client.call(Some(1)).await, Ok(1));
    first.stop().await;

    assert_eq!(client.call(Some(2)).await, Ok(2));
    assert_eq!(second.calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_call_that_nobody_answers_ends_at_its_deadline() {
    let server = Server::start(ours());
    let keys = Arc::new(ours());
    let address = server.address.to_string().parse().unwrap();
    let call = Duration::from_millis(300);
    let limits = Timeouts { call, ..timeouts() };
    let client: Client<Echo> = Links::new(keys, limits).client(&[address]);

    let late = timeout(PATIENCE, client.call(None)).await.unwrap();

    assert_eq!(late, Err(Unreachable::Deadline("auth".to_owned()).into()));
}

#[tokio::test]
async fn who_listens_and_says_nothing_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = Timeouts {
        connect: Duration::from_millis(300),
        call: PATIENCE,
    };
    let addresses = [silent.local_addr().unwrap()];
    let addresses = addresses.map(|it| it.to_string().parse().unwrap());
    let keys = mutual_keys_of_one_authority(&["proxy"]);
    let client: Client<Echo> = Links::new(Arc::new(keys), limits).client(&addresses);

    assert_eq!(timeout(PATIENCE, client.call(Some(1))).await, Ok(gone()));
}

#[tokio::test]
async fn too_many_calls_find_the_role_busy_at_once() {
    let server = Server::start(ours());
    let client = server.client(ours());
    let stuck: Vec<_> = (0..2000)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call(None).await })
        })
        .collect();
    while server.calls.load(Ordering::Relaxed) < 1024 {
        tokio::task::yield_now().await;
    }

    let answer = client.call(Some(1)).await;

    assert_eq!(answer, Err(Unreachable::Busy("auth".to_owned()).into()));
    for call in stuck {
        call.abort();
    }
}

#[tokio::test]
async fn another_secret_or_none_is_refused() {
    let server = Server::start(ours());

    let other = server.client(secret("a-secret-of-somebody-else"));
    assert_eq!(other.call(Some(1)).await, refused());
    let none = server.client(Keys::Nothing);
    assert_eq!(none.call(Some(1)).await, refused());
    assert_eq!(server.calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_unix_socket_needs_no_keys() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rpc.sock");
    let drain = Drain::default();
    let door = Listener::unix(&path).unwrap();
    let (_left, _calls) = listen(door, Keys::Nothing, &drain.watch());
    let keys = Arc::new(Keys::Nothing);
    let client: Client<Echo> = Links::new(keys, timeouts()).client(&[Address::Unix(path)]);

    assert_eq!(client.call(Some(99)).await, Ok(99));
}

/// A role that says other things under the same name.
#[derive(Debug)]
struct Newer;

impl Role for Newer {
    const NAME: &'static str = "auth";
    type Request = String;
    type Reply = String;
    type Error = Refusal;

    fn callers(_request: &String) -> &'static [&'static str] {
        NAMES
    }

    async fn call(&self, request: String) -> Result<String, Refusal> {
        Ok(request)
    }
}

#[tokio::test]
async fn two_versions_that_do_not_fit_name_both() {
    let server = Server::start(ours());
    let address: Address = server.address.to_string().parse().unwrap();
    let client: Client<Newer> = Links::new(Arc::new(ours()), timeouts()).client(&[address]);

    let confused = client.call("hello".to_owned()).await.unwrap_err();

    let words = confused.to_string();
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        words.contains(&format!("of version {version} and")),
        "{words}"
    );
    assert!(words.contains("run the same version everywhere"), "{words}");
    assert!(matches!(
        confused,
        Refusal::Unreachable(Unreachable::Confused { .. })
    ));
}

#[tokio::test]
async fn a_request_that_is_too_large_reaches_no_role() {
    let server = Server::start(ours());
    let address: Address = server.address.to_string().parse().unwrap();
    let client: Client<Newer> = Links::new(Arc::new(ours()), timeouts()).client(&[address]);

    let refused = client.call("x".repeat(wire::LARGEST_REQUEST + 1)).await;

    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(server.calls.load(Ordering::Relaxed), 0);
    assert_eq!(server.client(ours()).call(Some(7)).await, Ok(7));
}

/// Not at that desk.
struct Elsewhere;

impl Role for Elsewhere {
    const NAME: &'static str = "compute";
    type Request = u32;
    type Reply = u32;
    type Error = Unreachable;

    fn callers(_request: &u32) -> &'static [&'static str] {
        NAMES
    }

    async fn call(&self, request: u32) -> Result<u32, Unreachable> {
        Ok(request)
    }
}

#[tokio::test]
async fn a_role_that_does_not_run_there_is_gone() {
    let server = Server::start(ours());
    let address: Address = server.address.to_string().parse().unwrap();

    let client: Client<Elsewhere> = Links::new(Arc::new(ours()), timeouts()).client(&[address]);
    let absent = client.call(1).await;

    assert_eq!(absent, Err(Unreachable::Gone("compute".to_owned())));
}

/// An authority that vouches for roles on this machine.
struct Authority(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new([]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        Self(rcgen::CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn write(&self, directory: &Path, host: &str, roles: &[&str]) -> MutualFiles {
        let mut names = vec![host.to_owned()];
        names.extend(roles.iter().map(|role| role_name(role)));
        let params = rcgen::CertificateParams::new(names).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.0).unwrap();
        let files = MutualFiles {
            ca: directory.join("ca.pem"),
            certificate: directory.join("own.pem"),
            key: directory.join("own.key"),
        };
        std::fs::write(&files.ca, self.0.pem()).unwrap();
        std::fs::write(&files.certificate, signed.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    fn keys(&self, host: &str, roles: &[&str]) -> Keys {
        let directory = tempfile::tempdir().unwrap();
        let files = self.write(directory.path(), host, roles);
        Keys::Mutual(Mutual::new(files).unwrap())
    }
}

fn mutual_keys_of_one_authority(roles: &[&str]) -> Keys {
    Authority::new().keys("127.0.0.1", roles)
}

#[tokio::test]
async fn over_mutual_tls_each_role_may_ask_what_is_its_own() {
    let authority = Authority::new();
    let server = Server::start(authority.keys("127.0.0.1", &["auth"]));

    let api = server.client(authority.keys("127.0.0.1", &["api"]));
    assert_eq!(api.call(Some(99)).await, Ok(99));
    let proxy = server.client(authority.keys("127.0.0.1", &["proxy"]));
    assert_eq!(proxy.call(Some(7)).await, Ok(7));
    assert_eq!(proxy.call(Some(99)).await, refused());
    let any = server.client(authority.keys("127.0.0.1", &[]));
    assert_eq!(any.call(Some(99)).await, Ok(99));
}

#[tokio::test]
async fn over_mutual_tls_a_stranger_gets_no_connection() {
    let authority = Authority::new();
    let server = Server::start(authority.keys("127.0.0.1", &["auth"]));

    let stranger = server.client(Authority::new().keys("127.0.0.1", &["api"]));
    assert_eq!(stranger.call(Some(1)).await, gone());
    let plain = server.client(ours());
    assert_eq!(plain.call(Some(1)).await, gone());
    assert_eq!(server.calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn over_mutual_tls_the_server_must_be_the_host_and_the_role_that_was_called() {
    let authority = Authority::new();
    let elsewhere = Server::start(authority.keys("127.0.0.2", &["auth"]));
    let client = elsewhere.client(authority.keys("127.0.0.1", &["api"]));
    assert_eq!(client.call(Some(1)).await, gone());

    let compute = Server::start(authority.keys("127.0.0.1", &["compute"]));
    let client = compute.client(authority.keys("127.0.0.1", &["api"]));
    assert_eq!(client.call(Some(1)).await, refused());
    assert_eq!(compute.calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_renewed_certificate_counts_for_the_next_connection_and_ends_no_call() {
    let (old, new) = (Authority::new(), Authority::new());
    let directory = tempfile::tempdir().unwrap();
    let files = old.write(directory.path(), "127.0.0.1", &["auth"]);
    let mut server = Server::start(Keys::Mutual(Mutual::new(files).unwrap()));
    let before = server.client(old.keys("127.0.0.1", &["api"]));
    let slow = before.clone();
    let held = tokio::spawn(async move { slow.call(None).await });
    while server.calls.load(Ordering::Relaxed) < 1 {
        tokio::task::yield_now().await;
    }

    let _files = new.write(directory.path(), "127.0.0.1", &["auth"]);
    let renewed = timeout(PATIENCE, async {
        // Until the files are looked at again, a caller of the new authority's is a stranger.
        while server
            .client(new.keys("127.0.0.1", &["api"]))
            .call(Some(5))
            .await
            != Ok(5)
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    renewed.await.unwrap();

    assert_eq!(before.call(Some(6)).await, Ok(6));
    assert!(server.left.try_recv().is_err());
    held.abort();
}
