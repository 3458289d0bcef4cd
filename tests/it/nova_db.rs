//! Tokens that Nova made, from real database servers of both kinds with the tables of a cell, through
//! the proxy alone.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::rig::cell::{Console, Database, Instance, PASSWORD, now};
use crate::rig::gateway::{Gateway, Setup, vncgate};
use crate::rig::mariadb::MariaDb;
use crate::rig::peers::Peer;
use crate::rig::postgres::Postgres;
use crate::rig::process::Stream;
use crate::rig::rfb::{shake_hands, welcome};
use crate::rig::wait::until;
use crate::rig::ws::{Closed, Upgrade, Ws};

/// Longer than the gateway waits for a database.
const SOON: Duration = Duration::from_secs(9);

#[test]
fn a_token_in_mariadb_opens_its_console() {
    let cell = MariaDb::start();
    opens_what_nova_would_open(&cell, &cell.url());
}

#[test]
fn a_token_in_postgres_opens_its_console() {
    let cell = Postgres::start();
    opens_what_nova_would_open(&cell, &cell.url());
}

fn opens_what_nova_would_open(cell: &dyn Cell, url: &str) {
    let peer = Peer::echo();
    let (instance, console) = console(&peer);
    let expired = Console {
        expires: now(),
        ..fresh(&instance, &peer)
    };
    cell.fill(5000);
    cell.add(&instance, &[console.clone(), expired.clone()]);
    let gateway = gateway(&[url]).start();

    let mut ws = open(&gateway, &console.token);
    shake_hands(&mut ws);
    ws.send(b"through");
    assert_eq!(ws.read(7), b"through");
    shows(&gateway, &console.token);
    refuses(&gateway, &expired.token, 4001, "unknown or expired token");
    refuses(&gateway, "unheard-of", 4001, "unknown or expired token");

    let sessions = gateway.cli(&["session", "list", "-o", "json"]).ok().json();
    let session = &sessions["sessions"][0];
    assert_eq!(session["instance"]["id"], instance.id.as_str());
    assert_eq!(session["instance"]["name"], "web-1");
    assert_eq!(session["caller"], format!("nova:{}", instance.user));
    assert_eq!(peer.connections(), 2);
}

#[test]
fn a_token_dies_on_the_second_and_its_session_lives_on() {
    let cell = MariaDb::start();
    let peer = Peer::echo();
    let (instance, mut console) = console(&peer);
    console.expires = now() + 4;
    cell.add(&instance, std::slice::from_ref(&console));
    let gateway = gateway(&[&cell.url()]).start();
    let mut ws = open(&gateway, &console.token);
    shake_hands(&mut ws);

    let mut good_at = 0;
    until("the token's end", || {
        let asked = now();
        let code = open(&gateway, &console.token).read_to_close_or_greeting();
        if code.is_none() {
            good_at = asked;
        }
        (code == Some(4001)).then_some(())
    });

    assert!(good_at < console.expires, "{good_at}");
    assert!(now() >= console.expires);
    ws.send(b"still here");
    assert_eq!(ws.read(10), b"still here");
}

#[test]
fn what_an_instance_goes_through_closes_its_console() {
    let cell = MariaDb::start();
    let postgres = Postgres::start();
    closes_with_its_instance(&cell, &cell.url());
    closes_with_its_instance(&postgres, &postgres.url());
}

fn closes_with_its_instance(cell: &dyn Cell, url: &str) {
    let peer = Peer::echo();
    let gateway = gateway(&[url]).start();
    let refused = |change: &dyn Fn(&mut Instance, &mut Console), code, words| {
        let (mut instance, mut console) = console(&peer);
        change(&mut instance, &mut console);
        cell.add(&instance, std::slice::from_ref(&console));
        refuses(&gateway, &console.token, code, words);
    };

    refused(
        &|instance, _| instance.deleted = true,
        4001,
        "unknown or expired",
    );
    refused(
        &|_, console| console.instance = uuid(),
        4001,
        "unknown or expired",
    );
    for (task, words) in [
        ("deleting", "being deleted"),
        ("migrating", "being moved"),
        ("resize_migrating", "being moved"),
    ] {
        refused(
            &|instance, _| instance.task = Some(task.to_owned()),
            4004,
            words,
        );
    }
    refused(
        &|instance, _| instance.state = "stopped".to_owned(),
        4004,
        "not running",
    );
    refused(&|_, console| console.port = -1, 4004, "not running");
    refused(&|_, console| console.port = 0, 4004, "not running");
    refused(
        &|_, console| console.kind = "rdp-html5".to_owned(),
        4004,
        "does not show",
    );

    assert_eq!(peer.connections(), 0);
}

#[test]
fn an_address_that_nova_gave_to_another_instance_since_is_not_dialled() {
    let cell = MariaDb::start();
    let peer = Peer::echo();
    let (first, old) = console(&peer);
    let (second, new) = console(&peer);
    cell.add(&first, std::slice::from_ref(&old));
    let gateway = gateway(&[&cell.url()]).start();
    shows(&gateway, &old.token);

    cell.add(&second, std::slice::from_ref(&new));
    refuses(&gateway, &old.token, 4004, "another instance's by now");
    shows(&gateway, &new.token);
    let again = fresh(&first, &peer);
    cell.add_consoles(std::slice::from_ref(&again));

    shows(&gateway, &again.token);
    refuses(&gateway, &new.token, 4004, "another instance's by now");
}

#[test]
fn every_cell_is_asked_and_one_that_is_down_holds_up_no_other() {
    let mut first = MariaDb::start();
    let second = Postgres::start();
    let peer = Peer::echo();
    let (instance, in_first) = console(&peer);
    first.add(&instance, std::slice::from_ref(&in_first));
    let (instance, in_second) = console(&peer);
    second.add(&instance, std::slice::from_ref(&in_second));
    let gateway = gateway(&[&first.url(), &second.url()]).start();
    shows(&gateway, &in_first.token);
    shows(&gateway, &in_second.token);

    first.kill();
    shows(&gateway, &in_second.token);
    refuses(&gateway, &in_first.token, 4011, "cannot be asked just now");
    refuses(&gateway, "unheard-of", 4011, "cannot be asked just now");
    let told = gateway.wait_for_event("the warning", |event| {
        event["message"] == "a cell's database cannot be asked"
    });
    assert!(
        told["fault"].as_str().unwrap().contains("cell-0.url"),
        "{told}"
    );
    assert_eq!(gateway.watch("/readyz").status, 200);

    second.signal(Signal::STOP);
    until("no cell to answer", || {
        (gateway.watch("/readyz").status == 503).then_some(())
    });
    second.signal(Signal::CONT);

    first.restart();
    until("the cells to be asked again", || {
        (refusal(&gateway, "unheard-of").code == Some(4001)).then_some(())
    });
    shows(&gateway, &in_first.token);
    shows(&gateway, &in_second.token);
    gateway.wait_for_event("the good news", |event| {
        event["message"] == "a cell's database answers again"
    });
}

#[test]
fn mariadb_may_hang_and_come_back() {
    let cell = MariaDb::start();
    survives_a_hang(&cell, &cell.url(), &|signal| cell.signal(signal));

    let aborted = cell.sql("SHOW GLOBAL STATUS LIKE 'Aborted_connects';");
    let aborted: u32 = aborted.split_whitespace().last().unwrap().parse().unwrap();
    assert!(aborted < 5, "{aborted} connections left a server that hung");
}

#[test]
fn postgres_may_hang_and_come_back() {
    let cell = Postgres::start();
    survives_a_hang(&cell, &cell.url(), &|signal| cell.signal(signal));
}

fn survives_a_hang(cell: &dyn Cell, url: &str, signal: &dyn Fn(Signal)) {
    let peer = Peer::echo();
    let (instance, console) = console(&peer);
    cell.add(&instance, std::slice::from_ref(&console));
    let gateway = gateway(&[url]).start();
    let mut live = open(&gateway, &console.token);
    shake_hands(&mut live);

    signal(Signal::STOP);
    let started = Instant::now();
    thread::scope(|scope| {
        for _viewer in 0..20 {
            scope.spawn(|| refuses(&gateway, &console.token, 4011, "cannot be asked just now"));
        }
    });
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    live.send(b"still here");
    assert_eq!(live.read(10), b"still here");

    signal(Signal::CONT);
    until("the console to open again", || {
        open(&gateway, &console.token)
            .read_to_close_or_greeting()
            .is_none()
            .then_some(())
    });
    shows(&gateway, &console.token);
}

#[test]
fn a_server_that_was_started_anew_is_asked_without_a_hitch() {
    let mut cell = Postgres::start();
    let peer = Peer::echo();
    let (instance, console) = console(&peer);
    cell.add(&instance, std::slice::from_ref(&console));
    let gateway = gateway(&[&cell.url()]).start();
    shows(&gateway, &console.token);

    cell.kill();
    cell.restart();

    shows(&gateway, &console.token);
}

#[test]
fn hundreds_of_viewers_share_a_few_connections() {
    let cell = MariaDb::start();
    let peer = Peer::echo();
    let (instance, console) = console(&peer);
    cell.add(&instance, std::slice::from_ref(&console));
    let gateway = gateway(&[&cell.url()]).set("log", "level", "info").start();

    thread::scope(|scope| {
        for _viewer in 0..200 {
            scope.spawn(|| shows(&gateway, &console.token));
        }
    });

    let most = cell.sql("SHOW GLOBAL STATUS LIKE 'Max_used_connections';");
    let most: u32 = most.split_whitespace().last().unwrap().parse().unwrap();
    assert!(most <= 9, "{most} with the owner's own");
}

#[test]
fn the_pages_origin_is_held_against_the_rows_base_or_the_gateways_own() {
    let cell = MariaDb::start();
    let peer = Peer::echo();
    let (instance, mut based) = console(&peer);
    based.base = Some("https://nova.example/vnc_auto.html".to_owned());
    let baseless = Console {
        base: None,
        ..fresh(&instance, &peer)
    };
    cell.add(&instance, &[based.clone(), baseless.clone()]);
    let gateway = gateway(&[&cell.url()])
        .set("proxy", "public_url", "https://here.example")
        .start();
    let from = |console: &Console, origin: &str| {
        let upgrade = Upgrade::new(&format!("/?token={}", console.token));
        let mut ws = upgrade.with("Origin", origin).open(gateway.listen).unwrap();
        ws.read_to_close_or_greeting()
    };

    assert_eq!(from(&based, "https://nova.example"), None);
    assert_eq!(from(&based, "http://nova.example"), Some(4003));
    assert_eq!(from(&based, "https://here.example"), Some(4003));
    assert_eq!(from(&baseless, "https://here.example"), None);
    assert_eq!(from(&baseless, "https://nova.example"), Some(4003));
}

#[test]
fn tables_of_older_releases_will_do_and_may_grow_meanwhile() {
    for (cell, url) in both() {
        let peer = Peer::echo();
        let (instance, console) = console(&peer);
        cell.add(&instance, std::slice::from_ref(&console));
        let gateway = gateway(&[&url]).start();
        for change in [
            "DROP COLUMN tls_port",
            "DROP COLUMN access_url_base",
            "ADD COLUMN access_url_base VARCHAR(255)",
        ] {
            shows(&gateway, &console.token);
            cell.run(&format!("ALTER TABLE console_auth_tokens {change};"));
            shows(&gateway, &console.token);
        }
    }
}

#[test]
fn an_access_path_is_asked_for_at_its_door() {
    let cell = MariaDb::start();
    let peer = Peer::raw(|mut stream| {
        let mut request = [0; 25];
        stream.read_exact(&mut request)?;
        assert_eq!(&request, b"CONNECT vm-1 HTTP/1.1\r\n\r\n");
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        welcome(&mut stream, "behind the door")
    });
    let (instance, mut console) = console(&peer);
    console.path = Some("vm-1".to_owned());
    cell.add(&instance, std::slice::from_ref(&console));
    let gateway = gateway(&[&cell.url()]).start();

    let (_, _, name) = shake_hands(&mut open(&gateway, &console.token));

    assert_eq!(name, "behind the door");
}

#[test]
fn a_server_over_tls_must_be_the_one_that_the_authority_vouches_for() {
    let (mysql, postgres) = (MariaDb::with_tls(), Postgres::with_tls());
    let stranger = MariaDb::with_tls();
    let file = |path: PathBuf| path.to_str().unwrap().to_owned();
    let peer = Peer::echo();
    let (instance, console) = console(&peer);
    mysql.add(&instance, std::slice::from_ref(&console));
    postgres.add(&instance, std::slice::from_ref(&console));
    let opens = |url: &str| {
        let gateway = gateway(&[url]).start();
        let code = open(&gateway, &console.token).read_to_close_or_greeting();
        code.is_none()
    };

    let (ca, other) = (file(mysql.authority()), file(stranger.authority()));
    assert!(opens(&mysql.url()), "TLS where it is offered");
    assert!(opens(&format!("{}?ssl_ca={ca}", mysql.url())));
    assert!(!opens(&format!("{}?ssl_ca={other}", mysql.url())));
    assert!(!opens(&format!("{}?ssl_mode=DISABLED", mysql.url())));
    let ca = file(postgres.authority());
    let full = format!("{}?sslmode=verify-full&sslrootcert=", postgres.url());
    assert!(opens(&postgres.url()), "TLS where it is offered");
    assert!(opens(&format!("{full}{ca}")));
    assert!(!opens(&format!("{full}{other}")));
    assert!(!opens(&format!("{}?sslmode=disable", postgres.url())));
}

#[test]
fn a_password_can_be_put_right_without_a_restart() {
    for (cell, url) in both() {
        let peer = Peer::echo();
        let (instance, console) = console(&peer);
        cell.add(&instance, std::slice::from_ref(&console));
        let setup = gateway(&[&url.replace(PASSWORD, "canary-wrong")]);
        let file = setup.directory.path().join("cell-0.url");
        let gateway = setup.start();

        refuses(&gateway, &console.token, 4011, "cannot be asked just now");
        fs::write(&file, &url).unwrap();
        shows(&gateway, &console.token);

        let log = gateway.text(Stream::Err);
        assert!(log.contains("vncgate"), "{log}");
        assert!(!log.contains("canary-wrong"), "{log}");
    }
}

#[test]
fn no_token_and_no_password_is_ever_written() {
    for (cell, url) in both() {
        let peer = Peer::echo();
        let (instance, console) = console(&peer);
        cell.add(&instance, std::slice::from_ref(&console));
        let gateway = gateway(&[&url]).set("log", "level", "trace").start();

        shows(&gateway, &console.token);
        refuses(&gateway, "canary-token", 4001, "unknown");
        gateway.cli(&["session", "list"]).ok();
        gateway.watch("/metrics");

        let log = gateway.text(Stream::Err) + &gateway.text(Stream::Out);
        for secret in [&*console.token, PASSWORD, "canary-token"] {
            assert!(!log.contains(secret), "{secret} in {log}");
        }
    }
}

#[test]
fn a_file_without_a_url_is_a_fault_of_the_config() {
    let setup = gateway(&["hunter2"]);
    let config = setup.write();

    let check = vncgate(&["config", "check", config.to_str().unwrap()]);
    let start = setup.refuse_to_start();

    for refused in [check, start] {
        assert_eq!(refused.code, 3, "{refused:?}");
        assert!(refused.stderr.contains("auth.databases: "), "{refused:?}");
        assert!(
            refused.stderr.contains("cell-0.url: is no URL"),
            "{refused:?}"
        );
        assert!(!refused.stderr.contains("hunter2"), "{refused:?}");
    }
}

/// A database whose kind does not matter.
trait Cell {
    fn run(&self, statements: &str);
    fn fill(&self, count: usize);
    fn add(&self, instance: &Instance, consoles: &[Console]);
}

impl<D: Database> Cell for D {
    fn run(&self, statements: &str) {
        self.sql(statements);
    }

    fn fill(&self, count: usize) {
        self.crowd(count);
    }

    fn add(&self, instance: &Instance, consoles: &[Console]) {
        self.add_instances(std::slice::from_ref(instance));
        self.add_consoles(consoles);
    }
}

/// Both kinds, with their URLs.
fn both() -> Vec<(Box<dyn Cell>, String)> {
    let (first, second) = (MariaDb::start(), Postgres::start());
    let urls = [first.url(), second.url()];
    let cells: [Box<dyn Cell>; 2] = [Box::new(first), Box::new(second)];
    cells.into_iter().zip(urls).collect()
}

/// The proxy alone, before databases of these URLs.
fn gateway(urls: &[&str]) -> Setup {
    let setup = Setup::new().proxy_alone().set("auth", "source", "nova-db");
    let mut files = Vec::new();
    for (number, url) in urls.iter().enumerate() {
        let file = setup.directory.path().join(format!("cell-{number}.url"));
        fs::write(&file, format!("# cell {number}\n{url}\n")).unwrap();
        files.push(file.to_str().unwrap().to_owned());
    }
    setup.set("auth", "databases", files)
}

/// A fresh instance with a console at that server.
fn console(peer: &Peer) -> (Instance, Console) {
    let instance = Instance::running("web-1");
    let console = fresh(&instance, peer);
    (instance, console)
}

fn fresh(instance: &Instance, peer: &Peer) -> Console {
    Console::novnc(instance, &peer.address())
}

fn uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}

fn open(gateway: &Gateway, token: &str) -> Ws {
    let upgrade = Upgrade::new(&format!("/websockify?token={token}"));
    upgrade.open(gateway.listen).unwrap()
}

/// A VNC console opens.
#[track_caller]
fn shows(gateway: &Gateway, token: &str) {
    shake_hands(&mut open(gateway, token));
}

fn refusal(gateway: &Gateway, token: &str) -> Closed {
    open(gateway, token).expect_close()
}

#[track_caller]
fn refuses(gateway: &Gateway, token: &str, code: u16, words: &str) {
    let closed = refusal(gateway, token);
    assert_eq!(closed.code, Some(code), "{closed:?}");
    assert!(closed.reason.contains(words), "{closed:?}");
}

/// What comes first.
trait First {
    /// The code of a close frame, or none where the console's first bytes come.
    fn read_to_close_or_greeting(&mut self) -> Option<u16>;
}

impl First for Ws {
    fn read_to_close_or_greeting(&mut self) -> Option<u16> {
        let frame = self.answer();
        let code = frame.payload.first_chunk().copied();
        let closed = frame.opcode == crate::rig::ws::CLOSE;
        closed.then(|| u16::from_be_bytes(code.unwrap()))
    }
}
