use std::future::pending;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::atomic::AtomicUsize;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::model::{ConsoleKind, InstanceRef};

const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n";
const EVENT: &str = "{\"timestamp\": {}, \"event\": \"RTC_CHANGE\", \"data\": {\"offset\": 0}}\r\n";
const WEB: &str = "3f0c7a52-6d0e-4f6e-9a55-0c1de7a00001";

/// What a QEMU says of itself, as 7.2 says it.
fn answer(command: &str) -> Value {
    match command {
        "qmp_capabilities" => json!({}),
        "query-name" => json!({"name": "web"}),
        "query-uuid" => json!({"UUID": WEB}),
        "query-status" => json!({"status": "running", "singlestep": false, "running": true}),
        "query-vnc" => listener("ipv4", "127.0.0.1", "5901"),
        "query-vnc-servers" => json!([]),
        "query-spice" => json!({"enabled": false, "migrated": false, "mouse-mode": "client"}),
        other => panic!("asked to {other}"),
    }
}

fn listener(family: &str, host: &str, service: &str) -> Value {
    json!({"enabled": true, "family": family, "host": host, "service": service, "clients": []})
}

/// Serves clients one after the other, as QEMU does, until it is dropped.
struct Fake {
    served: AbortOnDropHandle<()>,
    clients: Arc<AtomicUsize>,
}

impl Fake {
    fn at<F>(socket: &Path, mut serve: impl FnMut(UnixStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send,
    {
        let listener = UnixListener::bind(socket).unwrap();
        let clients = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&clients);
        let served = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                serve(stream).await;
            }
        });
        Self {
            served: AbortOnDropHandle::new(served),
            clients,
        }
    }

    /// One that answers `command` with `what`, and everything else as a QEMU does.
    fn saying(socket: &Path, command: &'static str, what: Value) -> Self {
        Self::at(socket, move |stream| {
            let what = what.clone();
            converse(stream, move |asked| {
                let own = || json!({"return": answer(asked)});
                if asked == command {
                    what.clone()
                } else {
                    own()
                }
            })
        })
    }

    fn normal(socket: &Path) -> Self {
        Self::saying(socket, "", Value::Null)
    }

    /// Returns once nobody listens any more; a mere drop only asks for that.
    async fn end(self) {
        self.served.abort();
        let ended = self.served.await;
        assert!(ended.unwrap_err().is_cancelled());
    }
}

/// The whole conversation, with an event before each answer and each line in two halves.
async fn converse(stream: UnixStream, answer: impl Fn(&str) -> Value + Send) {
    let (from, mut to) = stream.into_split();
    let mut lines = BufReader::new(from).lines();
    in_halves(&mut to, GREETING).await;
    while let Ok(Some(line)) = lines.next_line().await {
        let asked: Value = serde_json::from_str(&line).unwrap();
        let mut said = answer(asked["execute"].as_str().unwrap());
        said["id"] = asked["id"].clone();
        in_halves(&mut to, EVENT).await;
        in_halves(&mut to, &format!("{said}\r\n")).await;
    }
}

async fn in_halves(to: &mut (impl AsyncWriteExt + Unpin), line: &str) {
    let (one, other) = line.as_bytes().split_at(line.len() / 2);
    for half in [one, other] {
        // Whoever has gone does not care.
        let _gone = to.write_all(half).await.is_err();
        tokio::task::yield_now().await;
    }
}

/// Says `what` and then nothing, with the connection open.
async fn say(mut stream: UnixStream, what: Vec<u8>) {
    let _gone = stream.write_all(&what).await.is_err();
    pending::<()>().await;
}

fn place() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn driver(path: &Path) -> Qmp {
    Qmp::new(path.to_owned(), "10.0.0.7".parse().unwrap())
}

/// Name, state and consoles of all that was found.
fn shown(survey: &Survey) -> Vec<String> {
    let shown = |it: &Instance| {
        let consoles = it.consoles.iter().map(|console| match &console.target {
            Some(target) => format!(" {}={target}", console.kind),
            None => format!(" {}", console.kind),
        });
        let consoles: String = consoles.collect();
        format!("{} {}{consoles}", it.name, it.state.as_str())
    };
    survey.instances.iter().map(shown).collect()
}

fn whys(survey: &Survey) -> Vec<&str> {
    survey.faults.iter().map(|it| it.why.as_str()).collect()
}

/// What is found of one QEMU that answers `command` with `what`.
async fn seen(command: &'static str, what: Value) -> Vec<String> {
    let place = place();
    let socket = place.path().join("db.qmp");
    let _qemu = Fake::saying(&socket, command, json!({"return": what}));
    let survey = driver(&socket).survey().await;
    assert_eq!(survey.faults, []);
    shown(&survey)
}

#[tokio::test]
async fn a_qemu_is_an_instance_with_its_own_name_and_uuid() {
    let place = place();
    let socket = place.path().join("db.qmp");
    let _qemu = Fake::normal(&socket);

    let survey = driver(&socket).survey().await;

    assert_eq!(shown(&survey), ["web running vnc=127.0.0.1:5901"]);
    assert_eq!(survey.instances[0].id, WEB.parse().unwrap());
    assert_eq!(survey.instances[0].source, socket.display().to_string());
}

#[tokio::test]
async fn without_a_name_and_a_uuid_the_socket_gives_both_the_same_at_every_start() {
    let nil = json!({"UUID": "00000000-0000-0000-0000-000000000000"});
    assert_eq!(
        seen("query-name", json!({})).await,
        ["db running vnc=127.0.0.1:5901"]
    );
    let place = place();
    let [one, other] = ["a.qmp", "b.qmp"].map(|name| place.path().join(name));
    let _one = Fake::saying(&one, "query-uuid", json!({"return": nil}));
    let _other = Fake::saying(&other, "query-uuid", json!({"return": nil}));
    let id = async |socket: &Path| driver(socket).survey().await.instances[0].id;

    assert_eq!(id(&one).await, id(&one).await);
    assert_ne!(id(&one).await, id(&other).await);
    assert!(!id(&one).await.0.is_nil());
}

#[test]
fn a_socket_of_a_common_name_is_named_after_what_is_not_common() {
    for (socket, name) in [
        ("/run/vms/web.qmp", "web"),
        ("/run/vms/web-qmp.sock", "web"),
        ("/run/vms/web.qmp.sock", "web"),
        ("/run/vms/web/qmp.sock", "web"),
        ("/run/vms/web/monitor", "monitor"),
        ("/qmp.sock", "qmp"),
    ] {
        assert_eq!(answer::path_name(Path::new(socket)), name, "{socket}");
    }
}

#[tokio::test]
async fn a_display_is_wherever_qemu_listens() {
    for (vnc, expected) in [
        (
            listener("ipv4", "0.0.0.0", "5972"),
            "web running vnc=10.0.0.7:5972",
        ),
        (
            listener("ipv6", "::", "5973"),
            "web running vnc=10.0.0.7:5973",
        ),
        (
            listener("ipv6", "::1", "5973"),
            "web running vnc=[::1]:5973",
        ),
        (
            listener("unix", "", "/run/a.vnc"),
            "web running vnc=unix:/run/a.vnc",
        ),
        (listener("unix", "", "a.vnc"), "web running vnc"),
        (listener("vsock", "3", "5900"), "web running"),
        (json!({"enabled": false}), "web running"),
    ] {
        assert_eq!(seen("query-vnc", vnc).await, [expected]);
    }
}

#[tokio::test]
async fn of_several_displays_the_first_counts_and_all_doors_are_known() {
    let servers = json!([
        {"id": "second", "server": [listener("ipv4", "127.0.0.1", "5975")]},
        {"id": "default", "server": [
            {"family": "ipv4", "host": "127.0.0.1", "service": "5700", "websocket": true},
            listener("ipv4", "127.0.0.1", "5901"),
        ]},
    ]);
    let expected = "web running vnc=127.0.0.1:5901 vnc=127.0.0.1:5975";

    assert_eq!(seen("query-vnc-servers", servers).await, [expected]);
}

#[tokio::test]
async fn spice_is_a_console_with_its_tls_port() {
    for (spice, expected, tls_port) in [
        (
            json!({"enabled": true, "host": "127.0.0.1", "port": 5990}),
            "127.0.0.1:5990",
            None,
        ),
        (
            json!({"enabled": true, "host": "*", "port": 5990, "tls-port": 5991}),
            "10.0.0.7:5990",
            Some(5991),
        ),
        (
            json!({"enabled": true, "host": "::", "tls-port": 5991}),
            "10.0.0.7:5991",
            Some(5991),
        ),
        (
            json!({"enabled": true, "host": "/run/a.spice"}),
            "unix:/run/a.spice",
            None,
        ),
    ] {
        let place = place();
        let socket = place.path().join("db.qmp");
        let _qemu = Fake::saying(&socket, "query-spice", json!({"return": spice}));

        let survey = driver(&socket).survey().await;

        let spice = survey.instances[0].console(ConsoleKind::Spice).unwrap();
        let target = spice.target.as_ref().unwrap();
        assert_eq!(
            (target.to_string().as_str(), target.tls_port),
            (expected, tls_port)
        );
    }
}

#[tokio::test]
async fn only_a_guest_that_is_here_and_not_shut_down_runs() {
    for status in [
        "running",
        "paused",
        "prelaunch",
        "guest-panicked",
        "suspended",
    ] {
        let seen = seen("query-status", json!({"status": status})).await;
        assert_eq!(seen, ["web running vnc=127.0.0.1:5901"], "{status}");
    }
    for status in ["shutdown", "postmigrate", "inmigrate"] {
        let seen = seen("query-status", json!({"status": status})).await;
        assert_eq!(seen, ["web off vnc"], "{status}");
    }
}

#[tokio::test]
async fn a_qemu_built_without_displays_has_none() {
    let place = place();
    let socket = place.path().join("a.qmp");
    let unknown = json!({"error": {"class": "CommandNotFound", "desc": "not found"}});
    let _qemu = Fake::at(&socket, move |stream| {
        let unknown = unknown.clone();
        converse(stream, move |asked| match asked {
            "query-vnc" | "query-vnc-servers" | "query-spice" => unknown.clone(),
            asked => json!({"return": answer(asked)}),
        })
    });

    let survey = driver(&socket).survey().await;

    assert_eq!(shown(&survey), ["web running"]);
    assert_eq!(survey.faults, []);
}

#[tokio::test]
async fn what_makes_no_sense_is_a_fault_that_says_so() {
    let place = place();
    let at = |name: &str| place.path().join(name);
    let mut long = GREETING.as_bytes().to_vec();
    long.extend(vec![b' '; 1 << 20]);
    let deep = format!("{}\n", "[".repeat(100_000)).into_bytes();
    let _qemus = [
        Fake::at(&at("a.qmp"), |it| say(it, b"RFB 003.008\n".to_vec())),
        Fake::at(&at("b.qmp"), move |it| say(it, long.clone())),
        Fake::at(&at("c.qmp"), move |it| say(it, deep.clone())),
        Fake::at(&at("d.qmp"), async |_ends| ()),
        Fake::at(&at("e.qmp"), |it| say(it, b"{\"return\": {}}\n".to_vec())),
        Fake::saying(
            &at("f.qmp"),
            "query-status",
            json!({"return": {"status": 7}}),
        ),
        Fake::saying(
            &at("g.qmp"),
            "query-name",
            json!({"error": {"class": "GenericError", "desc": "not today"}}),
        ),
        Fake::normal(&at("h.qmp")),
    ];

    let survey = driver(place.path()).survey().await;

    let expected = [
        "a.qmp does not speak QMP",
        "b.qmp sent a line of more than 1 MiB",
        "c.qmp does not speak QMP",
        "d.qmp ended the connection without an answer",
        "e.qmp does not speak QMP",
        "f.qmp made no sense when asked to `query-status`",
        "g.qmp refused `query-name`: not today",
    ];
    assert_eq!(whys(&survey), expected);
    assert_eq!(shown(&survey), ["web running vnc=127.0.0.1:5901"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_delays_no_other_beyond_its_time_and_then_less() {
    let place = place();
    let _hung = Fake::at(&place.path().join("hung.qmp"), |it| say(it, Vec::new()));
    let _well = Fake::normal(&place.path().join("well.qmp"));
    let driver = driver(place.path());
    let timed = async || {
        let started = tokio::time::Instant::now();
        let survey = driver.survey().await;
        assert_eq!(shown(&survey), ["web running vnc=127.0.0.1:5901"]);
        assert!(whys(&survey)[0].starts_with("hung.qmp did not answer in time"));
        started.elapsed()
    };

    assert_eq!(timed().await, DEADLINE);
    assert_eq!(timed().await, SECOND_CHANCE);
}

#[tokio::test]
async fn look_ups_that_waited_together_share_a_talk() {
    let place = place();
    let socket = place.path().join("a.qmp");
    let qemu = Fake::normal(&socket);
    let desk = Arc::new(Desk::of(&driver(&socket).site, &socket));

    let busy = desk.last.lock().await;
    let mut look_ups = JoinSet::new();
    for _ in 0..50 {
        let desk = Arc::clone(&desk);
        look_ups.spawn(async move { desk.ask().await });
    }
    while desk.arrivals.load(Ordering::SeqCst) < 50 {
        tokio::task::yield_now().await;
    }
    drop(busy);

    for answer in look_ups.join_all().await {
        assert_eq!(answer.unwrap().unwrap().name, "web");
    }
    assert_eq!(qemu.clients.load(Ordering::SeqCst), 1);
    desk.ask().await.unwrap();
    assert_eq!(qemu.clients.load(Ordering::SeqCst), 2, "who comes later");
}

#[tokio::test]
async fn what_changes_is_seen_at_the_next_look_up() {
    let place = place();
    let socket = place.path().join("a.qmp");
    let driver = driver(&socket);
    assert_eq!(driver.survey().await, Survey::default(), "not started yet");

    let first = Fake::normal(&socket);
    assert_eq!(
        shown(&driver.survey().await),
        ["web running vnc=127.0.0.1:5901"]
    );

    first.end().await;
    std::fs::remove_file(&socket).unwrap();
    let moved = json!({"return": listener("ipv4", "127.0.0.1", "5999")});
    let _second = Fake::saying(&socket, "query-vnc", moved);
    assert_eq!(
        shown(&driver.survey().await),
        ["web running vnc=127.0.0.1:5999"]
    );
}

#[tokio::test]
async fn a_socket_that_nobody_listens_on_is_an_instance_that_is_off_if_it_ever_was_one() {
    let place = place();
    drop(StdListener::bind(place.path().join("old.qmp")).unwrap());
    let qemu = Fake::normal(&place.path().join("web.qmp"));
    let driver = driver(place.path());
    assert_eq!(
        shown(&driver.survey().await),
        ["web running vnc=127.0.0.1:5901"]
    );

    qemu.end().await;
    let killed = driver.survey().await;
    std::fs::remove_file(place.path().join("web.qmp")).unwrap();
    let gone = driver.survey().await;

    assert_eq!(shown(&killed), ["web off vnc"]);
    assert_eq!(killed.faults, []);
    assert_eq!(gone, Survey::default());
}

#[tokio::test]
async fn of_a_directory_only_monitors_are_touched() {
    let place = place();
    let names = ["web.vnc", "serial.sock", ".hidden.qmp", "a-qmp.sock"];
    let qemus = names.map(|name| Fake::normal(&place.path().join(name)));
    std::fs::write(place.path().join("file.qmp"), "").unwrap();

    let survey = driver(place.path()).survey().await;

    let touched = qemus.map(|it| it.clients.load(Ordering::SeqCst));
    assert_eq!(touched, [0, 0, 0, 1]);
    assert_eq!((survey.instances.len(), survey.faults.len()), (1, 0));
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_a_fault() {
    let place = place();
    let file = place.path().join("file.qmp");
    std::fs::write(&file, "").unwrap();

    let survey = driver(&file).survey().await;

    assert_eq!(whys(&survey), ["is neither a socket nor a directory"]);
}

#[tokio::test]
async fn an_instance_is_found_and_its_doors_are_claimed() {
    let place = place();
    let _qemu = Fake::normal(&place.path().join("a.qmp"));
    let driver = driver(place.path());
    let target = |text: &str| text.parse::<crate::model::Address>().unwrap().into();

    for wanted in [WEB, "web"] {
        let found = driver.find(&InstanceRef::from(wanted)).await;
        assert_eq!(found.instances.len(), 1, "{wanted}");
    }
    let claimed = driver.claimants(&target("localhost:5901")).await;
    let free = driver.claimants(&target("localhost:5902")).await;
    assert_eq!((claimed.instances.len(), free.instances.len()), (1, 0));
}

#[tokio::test]
async fn a_qemu_that_knows_no_png_says_so_and_another_instance_has_no_picture() {
    let place = place();
    let socket = place.path().join("a.qmp");
    let old = json!({"error": {"class": "GenericError", "desc": "'format' is unexpected"}});
    let _qemu = Fake::at(&socket, move |stream| {
        let old = old.clone();
        converse(stream, move |asked| match asked {
            "add-fd" => json!({"return": {"fdset-id": 1, "fd": 12}}),
            "screendump" => old.clone(),
            "remove-fd" => json!({"return": {}}),
            asked => json!({"return": answer(asked)}),
        })
    });
    let driver = driver(&socket);

    let refused = driver.screenshot(WEB.parse().unwrap()).await.unwrap_err();
    let other = WEB.replace("0001", "0002").parse().unwrap();

    assert_eq!(refused.why, "refused `screendump`: 'format' is unexpected");
    assert_eq!(driver.screenshot(other).await, Ok(None));
}

/// A QEMU without a disk, ended when dropped.
struct RealQemu(std::process::Child);

impl RealQemu {
    fn at(socket: &Path, arguments: &[&str]) -> Self {
        let mut qemu = std::process::Command::new("qemu-system-x86_64");
        qemu.args("-accel tcg -m 16 -nodefaults -no-user-config".split(' '))
            .args("-display none -vga std -uuid".split(' '))
            .args([WEB, "-qmp"])
            .arg(format!("unix:{},server=on,wait=off", socket.display()))
            .args(arguments)
            .stdin(std::process::Stdio::null());
        Self(qemu.spawn().unwrap())
    }
}

impl Drop for RealQemu {
    fn drop(&mut self) {
        let _ended_already = self.0.kill().is_err();
        let _status = self.0.wait();
    }
}

/// Nothing but a real QEMU takes a descriptor and writes a picture into it.
#[tokio::test]
async fn a_real_qemu_draws_its_screen_running_and_paused() {
    for arguments in [&["-S"][..], &[]] {
        let place = place();
        let socket = place.path().join("a.qmp");
        let _qemu = RealQemu::at(&socket, arguments);
        let driver = driver(&socket);
        let started = async {
            while driver.survey().await.instances.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(30), started).await.unwrap();

        for _ in 0..3 {
            let picture = driver.screenshot(WEB.parse().unwrap()).await;

            let picture = picture.unwrap().expect("a picture");
            assert!(picture.ends_with(b"IEND\xae\x42\x60\x82"), "a whole PNG");
        }
    }
}
