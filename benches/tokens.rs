//! What making a token and redeeming it costs, wherever they are kept; and what a second proxy
//! adds. `cargo bench --bench tokens [-- SECONDS]`.
//!
//! Prints figures instead of judging them: they are the machine's of the day, so compare the lines
//! of one run. The rows of stores have everything but their server on one thread; those of proxies
//! start the real program.
#![expect(clippy::print_stdout, reason = "figures are its product")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on says where")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime;
use tokio::task::JoinSet;
use vncgate::auth::redis::{self, Topology};
use vncgate::auth::{Auth, Limits, NewGrant, Settings};
use vncgate::drain::{Drain, Watch};
use vncgate::http::Listener;
use vncgate::model::{Address, ConsoleType, InstanceId, Rights, Target, Terms};
use vncgate::rpc::{self, Client, Desk, Keys, Links, Timeouts};
use vncgate::tls::{Mutual, MutualFiles};

/// The program that `cargo` built for this.
const BINARY: &str = env!("CARGO_BIN_EXE_vncgate");

/// Callers at one time.
const CALLERS: usize = 32;

/// Viewers that open consoles at one time.
const VIEWERS: usize = 16;

fn main() {
    // `cargo test --benches` only wants to see that it starts.
    if std::env::args().all(|argument| argument != "--bench") {
        return;
    }
    let seconds = std::env::args().find_map(|argument| argument.parse().ok());
    let window = Duration::from_secs(seconds.unwrap_or(3));
    println!("| tokens | issued and redeemed /s | per s of processor | p50 | p99 |");
    println!("|---|---:|---:|---:|---:|");
    near_memory(window);
    near_file(window);
    far_memory(window);
    near_redis(window);
    println!();
    println!("| consoles, all apart | opened /s | p50 | p99 |");
    println!("|---|---:|---:|---:|");
    for proxies in [1, 2] {
        opened(proxies, window);
    }
}

fn near_memory(window: Duration) {
    on_one_thread("near, memory", window, |watch| {
        near(Auth::in_memory(settings(), watch), watch)
    });
}

fn near_file(window: Duration) {
    let place = TempDir::new().unwrap();
    let path = place.path().join("tokens.redb");
    on_one_thread("near, file", window, |watch| {
        near(Auth::in_file(&path, settings(), watch).unwrap(), watch)
    });
}

/// Both ends of the call, TLS included, on the one thread.
fn far_memory(window: Duration) {
    let place = TempDir::new().unwrap();
    let keys = keys(place.path());
    on_one_thread("far (mutual TLS), memory", window, |watch| {
        let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.address().unwrap();
        let auth = near(Auth::in_memory(settings(), watch), watch);
        let desk = Arc::new(Desk::default().with(auth));
        let serving = desk.serve(listener, Arc::clone(&keys), watch.clone());
        watch.spawn_service(serving);
        let timeouts = Timeouts {
            connect: Duration::from_secs(5),
            call: Duration::from_secs(15),
        };
        let address: Address = address.to_string().parse().unwrap();
        Links::new(keys, timeouts).client(&[address])
    });
}

fn near_redis(window: Duration) {
    let place = TempDir::new().unwrap();
    let port = free_port();
    let mut server = Command::new("redis-server");
    server.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    server.args(["--save", "", "--dir"]).arg(place.path());
    let Ok(child) = server.stdout(Stdio::null()).spawn() else {
        println!("| near, redis | no redis-server here | | | |");
        return;
    };
    let _server = Ended(child);
    wait_for(([127, 0, 0, 1], port).into());
    on_one_thread("near, redis", window, |watch| {
        let redis = redis::Settings {
            servers: vec![format!("127.0.0.1:{port}").parse().unwrap()],
            topology: Topology::Single,
            user: None,
            password: None,
            tls: None,
            prefix: "bench".to_owned(),
        };
        near(Auth::in_redis(redis, settings(), watch), watch)
    });
}

fn near(auth: Auth, watch: &Watch) -> Client<Auth> {
    Client::Near(rpc::serve(auth, watch))
}

/// Has [`CALLERS`] issue and redeem until the window is over, and prints what they did.
fn on_one_thread<F>(name: &str, window: Duration, make: F)
where
    F: FnOnce(&Watch) -> Client<Auth>,
{
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        let drain = Drain::default();
        let client = make(&drain.watch());
        until_ready(&client).await;
        let (started, used) = (Instant::now(), processor_time());
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            callers.spawn(call(client.clone(), started + window));
        }
        let took = callers.join_all().await.concat();
        let (passed, used) = (started.elapsed(), processor_time().saturating_sub(used));
        let count = u32::try_from(took.len()).unwrap();
        let each = |time: Duration| f64::from(count) / time.as_secs_f64();
        let [p50, p99] = percentiles(took);
        println!(
            "| {name} | {:.0} | {:.0} | {p50:.1?} | {p99:.1?} |",
            each(passed),
            each(used)
        );
        drain.run(Duration::ZERO, Duration::ZERO).await;
    });
}

async fn call(client: Client<Auth>, end: Instant) -> Vec<Duration> {
    let mut took = Vec::new();
    while Instant::now() < end {
        let begun = Instant::now();
        let (token, _) = client.authorize(new_grant()).await.unwrap();
        let grant = client.redeem(&token).await.unwrap();
        took.push(begun.elapsed());
        assert_eq!(&*grant.caller, "bench");
    }
    took
}

async fn until_ready(client: &Client<Auth>) {
    while client.ready().await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn new_grant() -> NewGrant {
    NewGrant {
        instance: InstanceId::derived("bench", "web-1"),
        instance_name: "web-1".into(),
        console_type: ConsoleType::Novnc,
        target: Target::from("127.0.0.1:5900".parse::<Address>().unwrap()),
        rights: Rights::default(),
        base: "http://127.0.0.1:6080/vnc.html".parse().unwrap(),
        project: None,
        caller: "bench".into(),
        terms: Terms::default(),
        // so that the stores have something to forget
        ttl: Duration::from_secs(2),
    }
}

fn settings() -> Settings {
    Settings {
        max_tokens: 1_000_000,
        limits: Limits::default(),
        reconnect_window: Duration::from_secs(30),
        terms: Terms::default(),
    }
}

/// Certificates as an operator makes them.
fn keys(place: &Path) -> Arc<Keys> {
    let pki = make_certificates(place);
    let mutual = Mutual::new(MutualFiles {
        ca: pki.join("ca.pem"),
        certificate: pki.join("127.0.0.1.pem"),
        key: pki.join("127.0.0.1.key"),
    });
    Arc::new(Keys::Mutual(mutual.unwrap()))
}

fn make_certificates(place: &Path) -> std::path::PathBuf {
    let pki = place.join("pki");
    let mut command = Command::new(BINARY);
    let command = command.args(["pki", "init"]).arg(&pki);
    let command = command.args(["--host", "127.0.0.1"]);
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().unwrap().success());
    pki
}

/// Consoles that are opened and left again, through so many proxies. api, auth and compute have a
/// process together.
fn opened(proxies: usize, window: Duration) {
    let place = TempDir::new().unwrap();
    let _pki = make_certificates(place.path());
    let ways = Ways {
        rpc: free_port(),
        display: display(),
    };
    let (_core, _) = start(place.path(), &ways, "api,auth,compute", 0);
    let doors = (1..=proxies).map(|number| start(place.path(), &ways, "proxy", number));
    let doors: Vec<_> = doors.collect();
    let token = issue(&place.path().join("0.sock"));
    let end = Instant::now() + window;
    let mut viewers = Vec::new();
    for (_, door) in doors.iter().cycle().take(VIEWERS) {
        let (door, token) = (*door, token.clone());
        viewers.push(thread::spawn(move || view(door, &token, end)));
    }
    let mut took = Vec::new();
    for viewer in viewers {
        took.extend(viewer.join().unwrap());
    }
    let rate = f64::from(u32::try_from(took.len()).unwrap()) / window.as_secs_f64();
    let [p50, p99] = percentiles(took);
    println!("| {proxies} proxy processes | {rate:.0} | {p50:.1?} | {p99:.1?} |");
}

/// Where the processes find each other and the console.
struct Ways {
    rpc: u16,
    display: SocketAddr,
}

/// A process with these roles, and where its pages and WebSockets are.
fn start(place: &Path, ways: &Ways, roles: &str, number: usize) -> (Ended, SocketAddr) {
    let [listen, api, monitor] = [(); 3].map(|()| free_port());
    let Ways { rpc, display } = ways;
    let here = place.display();
    let config = format!(
        "[proxy]\nlisten = ['127.0.0.1:{listen}']\npublic_url = 'http://127.0.0.1:{listen}'\n[api]\nlisten = ['127.0.0.1:{api}']\n\
         [monitor]\nlisten = ['127.0.0.1:{monitor}']\n[admin]\nsocket = '{here}/{number}.sock'\n\
         [limits]\nconnections_per_address = 0\nnew_connections_per_address = 0\n\
         [log]\nlevel = 'warn'\n[[compute.instance]]\nname = 'web-1'\naddress = '{display}'\n\
         [rpc]\nlisten = ['127.0.0.1:{rpc}']\nauth = ['127.0.0.1:{rpc}']\n\
         compute = ['127.0.0.1:{rpc}']\nca = '{here}/pki/ca.pem'\n\
         certificate = '{here}/pki/127.0.0.1.pem'\nkey = '{here}/pki/127.0.0.1.key'\n"
    );
    let path = place.join(format!("{number}.toml"));
    fs::write(&path, config).unwrap();
    let mut command = Command::new(BINARY);
    command
        .args(["serve", "--role", roles, "--config"])
        .arg(path);
    let child = Ended(command.stderr(Stdio::null()).spawn().unwrap());
    let door = if roles == "proxy" { listen } else { api };
    wait_for(([127, 0, 0, 1], door).into());
    (child, ([127, 0, 0, 1], listen).into())
}

fn issue(socket: &Path) -> String {
    let mut command = Command::new(BINARY);
    let command = command.env("VNCGATE_ADMIN_SOCKET", socket);
    let said = command.args(["token", "issue", "web-1"]).output().unwrap();
    let url = String::from_utf8(said.stdout).unwrap();
    let (_, token) = url.trim().rsplit_once("token%3D").unwrap();
    token.to_owned()
}

/// How long each console took, from the dial to the greeting in it.
fn view(door: SocketAddr, token: &str, end: Instant) -> Vec<Duration> {
    let mut took = Vec::new();
    while Instant::now() < end {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(door).unwrap();
        let request = format!(
            "GET /websockify?token={token} HTTP/1.1\r\nHost: {door}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while line != "\r\n" {
            assert!(
                !line.starts_with("HTTP") || line.contains(" 101 "),
                "{line}"
            );
            line.clear();
            assert_ne!(reader.read_line(&mut line).unwrap(), 0);
        }
        let mut greeting = [0; 14];
        reader.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting[2..], b"RFB 003.008\n");
        took.push(begun.elapsed());
    }
    took
}

/// A VNC server without a picture.
fn display() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(|| greet(stream?));
        }
    });
    address
}

fn greet(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(b"RFB 003.008\n")?;
    stream.read_exact(&mut [0; 12])?;
    stream.write_all(&[1, 1])?;
    stream.read_exact(&mut [0])?;
    stream.write_all(&[0; 4])?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}

/// A child that ends with the bench.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _gone_already = self.0.kill().is_err();
        let _status = self.0.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn wait_for(door: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(door).is_err() {
        assert!(Instant::now() < deadline, "nobody listens at {door}");
        thread::park_timeout(Duration::from_millis(20));
    }
}

fn percentiles(mut took: Vec<Duration>) -> [Duration; 2] {
    took.sort_unstable();
    [50, 99].map(|percent| {
        let place = took.len() * percent / 100;
        took.get(place).copied().unwrap_or_default()
    })
}

fn processor_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(now).unwrap()
}
