//! Real libvirt: consoles that it hands over, what it says now, and what happens when it says
//! nothing any more.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::rig::browser::browse;
use crate::rig::gateway::{Answer, Gateway, Setup, vncgate};
use crate::rig::http::Request;
use crate::rig::libvirtd::{Libvirtd, TALKED};
use crate::rig::qemu;
use crate::rig::rfb::Viewer;
use crate::rig::wait::until;
use crate::rig::ws::Upgrade;

const SCREEN: &str = "<video><model type='vga'/></video>";
const AUTOPORT: &str = "<graphics type='vnc' port='-1' autoport='yes'/>";
const PTY: &str = "<serial type='pty'/>";

#[test]
fn every_vnc_display_is_handed_over_whatever_it_listens_on() {
    let libvirtd = Libvirtd::start();
    let secret = "<graphics type='vnc' port='-1' autoport='yes' passwd='hunter2'/>";
    let spice = "<graphics type='spice' autoport='yes'/>";
    for (name, graphics) in [
        ("tcp", AUTOPORT),
        ("password", secret),
        (
            "socket",
            "<graphics type='vnc'><listen type='socket'/></graphics>",
        ),
        (
            "nowhere",
            "<graphics type='vnc'><listen type='none'/></graphics>",
        ),
        ("second", &format!("{spice}{AUTOPORT}")),
    ] {
        libvirtd.create(name, &format!("{graphics}{SCREEN}"));
    }
    let gateway = gateway_of(&libvirtd);

    for name in ["tcp", "password", "socket", "nowhere", "second"] {
        let mut viewer = Viewer::new(gateway.open(name));
        viewer.wait_for_pixel(100, 100, qemu::BLUE);
        viewer.type_text("b");
        viewer.wait_for_pixel(100, 100, qemu::GREEN);
        drop(viewer);
        gateway.wait_for_event("the way that was taken", |event| {
            event["message"] == "session ended"
                && event["name"] == name
                && event["way"] == "libvirt"
        });
    }
    let listed = gateway.cli(&["instance", "list", "-o", "json"]).ok();
    assert!(!listed.stdout.contains("hunter2"), "{listed:?}");
}

#[test]
fn an_encrypted_display_is_handed_over_and_is_refused_in_words_where_it_is_dialled() {
    let libvirtd = Libvirtd::with_tls_displays(false);
    libvirtd.create("web", &format!("{AUTOPORT}{SCREEN}"));
    let near = gateway_of(&libvirtd);
    let far = looking_at(&libvirtd).start();

    let mut viewer = Viewer::new(near.open("web"));
    viewer.wait_for_pixel(100, 100, qemu::BLUE);
    viewer.type_text("b");
    viewer.wait_for_pixel(100, 100, qemu::GREEN);
    let closed = far.open("web").expect_close();
    assert_eq!(closed.code, Some(4006), "{closed:?}");
    let seen = browse(
        &far.issue("web"),
        &[
            "--expect-message",
            "offers no security that this gateway may use",
        ],
    );

    assert_eq!(seen.code, 0, "{seen:?}");
    far.wait_for_event("why it was refused", |event| {
        let reason = event["reason"].as_str().unwrap_or_default();
        reason.contains("it offers VeNCrypt: no `ca_file` is set")
    });
}

#[test]
fn a_spice_display_is_handed_over_to_its_page() {
    let libvirtd = Libvirtd::start();
    libvirtd.create(
        "spice",
        &format!("<graphics type='spice' autoport='yes'/>{SCREEN}"),
    );
    let gateway = gateway_of(&libvirtd);
    let url = gateway.issue_with(&["token", "issue", "spice", "--type", "spice-html5"]);

    let seen = browse(
        &url,
        &[
            ["--wait-state", "connected"],
            ["--expect-pixel", "100,100,#0000a8"],
            ["--press", "b"],
            ["--then-pixel", "100,100,#00a800"],
        ]
        .concat(),
    );

    assert_eq!(seen.code, 0, "{seen:?}");
    gateway.wait_for_event("the way that was taken", |event| {
        event["message"] == "session ended" && event["way"] == "libvirt"
    });
}

#[test]
fn serial_lines_echo_by_pty_and_by_tcp_and_the_newest_viewer_has_the_pty() {
    let libvirtd = Libvirtd::start();
    let port = free_port();
    let bind = format!("<source mode='bind' host='127.0.0.1' service='{port}'/>");
    libvirtd.create("pty", PTY);
    libvirtd.create("tcp", &format!("<serial type='tcp'>{bind}</serial>"));
    let gateway = gateway_of(&libvirtd);

    for (name, way) in [("pty", "libvirt"), ("tcp", "tcp")] {
        let mut ws = serial(&gateway, name);
        ws.send(b"hello");
        assert_eq!(ws.read(5), b"hello");
        let mut newer = serial(&gateway, name);
        if name == "pty" {
            newer.send(b"again");
            assert_eq!(newer.read(5), b"again");
            let (_, closed) = ws.read_to_close();
            assert_eq!(closed.code, Some(4005), "{closed:?}");
        }
        drop((ws, newer));
        gateway.wait_for_event("the way that was taken", |event| {
            event["message"] == "session ended" && event["name"] == name && event["way"] == way
        });
    }
}

#[test]
fn a_screenshot_is_a_png_of_what_the_screen_shows() {
    let libvirtd = Libvirtd::start();
    libvirtd.create("web", &format!("{AUTOPORT}{SCREEN}"));
    libvirtd.create("headless", "");
    let gateway = gateway_of(&libvirtd);
    Viewer::new(gateway.open("web")).wait_for_pixel(100, 100, qemu::BLUE);

    let png = gateway.cli_to_file(&["instance", "screenshot", "web"]);

    let mut reader = png::Decoder::new(std::io::Cursor::new(&png))
        .read_info()
        .unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width, info.height), (640, 400));
    assert_eq!(pixels[..3], qemu::BLUE);
    let request = Request::new("GET", "/v1/instances/web/screenshot");
    let response = gateway.http(&request);
    assert_eq!(response.header("content-type"), Some("image/png"));
    assert_eq!(response.body, png);
    let none = gateway.cli(&["instance", "screenshot", "headless"]);
    assert_eq!((none.code, &*none.stdout), (2, ""), "{none:?}");
    assert!(none.stderr.contains("headless"), "{none:?}");
}

#[test]
fn what_a_guest_wrote_to_its_serial_line_is_read_here_even_when_it_is_off() {
    let libvirtd = Libvirtd::far_away();
    let log = libvirtd.file("talk.log");
    let kept = format!("<log file='{}' append='off'/>", log.display());
    libvirtd.define("talk", &format!("<serial type='pty'>{kept}</serial>"));
    libvirtd.virsh(&["start", "talk"]).ok();
    until("the guest to have talked", || {
        let written = std::fs::read(&log).unwrap_or_default();
        written.ends_with(TALKED).then_some(())
    });
    let text = String::from_utf8_lossy(TALKED);
    let near = gateway_of(&libvirtd);
    let far = Setup::new()
        .hypervisor("kvm-2", &libvirtd.far_uri())
        .start();

    let whole = near.cli_to_file(&["instance", "log", "talk"]);
    assert!(whole.ends_with(text.as_bytes()), "{whole:?}");
    let one = near.cli_to_file(&["instance", "log", "talk", "--lines", "1"]);
    assert_eq!(one, b"login: ");
    let two = near.http(&Request::new("GET", "/v1/instances/talk/log?lines=2"));
    assert_eq!(two.text(), "\u{1b}[31mred\u{fffd}\nlogin: ");
    assert_eq!(
        two.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(two.header("x-content-type-options"), Some("nosniff"));
    let elsewhere = far.cli(&["instance", "log", "talk"]);
    assert_eq!(elsewhere.code, 4, "{elsewhere:?}");
    libvirtd.virsh(&["destroy", "talk"]).ok();

    assert_eq!(near.cli_to_file(&["instance", "log", "talk"]), whole);
    let written = near.text(crate::rig::process::Stream::Err);
    assert!(
        !written.contains("login"),
        "a guest's text in our log: {written}"
    );
}

#[test]
fn what_cannot_be_opened_is_told_apart() {
    let libvirtd = Libvirtd::start();
    libvirtd.define("off", &format!("{AUTOPORT}{SCREEN}"));
    libvirtd.create("headless", "");
    let gateway = gateway_of(&libvirtd);
    let issue = |name| gateway.cli(&["token", "issue", name]);

    assert_eq!(issue("nobody").code, 4);
    for (name, word) in [("off", "is off"), ("headless", "no vnc console")] {
        let refused = issue(name);
        assert_ne!(refused.code, 0, "{refused:?}");
        assert!(refused.stderr.contains(word), "{refused:?}");
    }
}

#[test]
fn the_list_follows_what_starts_and_ends() {
    let libvirtd = Libvirtd::start();
    let gateway = gateway_of(&libvirtd);
    assert_eq!(states(&gateway), [("", ""); 0].map(owned));

    libvirtd.create("brief", PTY);
    wait_for_states(&gateway, &[("brief", "running")]);
    libvirtd.define("lasting", PTY);
    wait_for_states(&gateway, &[("brief", "running"), ("lasting", "off")]);
    libvirtd.virsh(&["start", "lasting"]).ok();
    wait_for_states(&gateway, &[("brief", "running"), ("lasting", "running")]);
    libvirtd.virsh(&["destroy", "brief"]).ok();
    libvirtd.virsh(&["destroy", "lasting"]).ok();
    wait_for_states(&gateway, &[("lasting", "off")]);
    libvirtd.virsh(&["undefine", "lasting"]).ok();
    wait_for_states(&gateway, &[]);
}

#[test]
fn a_token_opens_no_other_instance_of_the_same_name_or_port() {
    let libvirtd = Libvirtd::start();
    let port = free_port();
    let fixed = format!("<graphics type='vnc' port='{port}' autoport='no'/>{SCREEN}");
    libvirtd.create("web", &fixed);
    let gateway = gateway_of(&libvirtd);
    let upgrade = gateway.upgrade("web");

    libvirtd.virsh(&["destroy", "web"]).ok();
    libvirtd.create("web", &fixed);
    let closed = upgrade.open(gateway.listen).unwrap().expect_close();

    assert_eq!(closed.code, Some(4004), "{closed:?}");
    Viewer::new(gateway.open("web")).wait_for_pixel(100, 100, qemu::BLUE);
}

#[test]
fn a_token_follows_its_instance_to_another_host_and_not_the_port_it_had() {
    let (here, there) = (Libvirtd::start(), Libvirtd::start());
    let socket = |it: &Libvirtd| it.uri().replace("libvirt-sock", "libvirt-sock-ro");
    let gateway = Setup::new()
        .hypervisor("here", &socket(&here))
        .set_host("readonly", true)
        .hypervisor("there", &socket(&there))
        .set_host("readonly", true)
        .start();
    here.create("web", &format!("{AUTOPORT}{SCREEN}"));
    let url = gateway.issue("web");
    let open = || Upgrade::new(&url.upgrade_path()).open(gateway.listen);
    let mut viewer = Viewer::new(open().unwrap());
    viewer.wait_for_pixel(100, 100, qemu::BLUE);
    let port = port_of(&gateway, "web");

    here.send("web", &there);
    let fixed = format!("<graphics type='vnc' port='{port}' autoport='no'/>{SCREEN}");
    here.create("other", &fixed);
    let mut other = Viewer::new(gateway.open("other"));
    other.wait_for_pixel(100, 100, qemu::BLUE);
    other.type_text("b");
    other.wait_for_pixel(100, 100, qemu::GREEN);

    Viewer::new(open().unwrap()).wait_for_pixel(100, 100, qemu::BLUE);
    assert_eq!(port_of(&gateway, "other"), port);
}

#[test]
fn a_viewer_of_a_guest_that_is_destroyed_is_told_that_it_ended() {
    let libvirtd = Libvirtd::start();
    libvirtd.create("web", &format!("{AUTOPORT}{SCREEN}"));
    let gateway = gateway_of(&libvirtd);
    let mut ws = gateway.open("web");
    crate::rig::rfb::shake_hands(&mut ws);

    libvirtd.virsh(&["destroy", "web"]).ok();

    let (_, closed) = ws.read_to_close();
    assert_eq!(closed.code, Some(1000), "{closed:?}");
    assert!(closed.reason.contains("the console ended"), "{closed:?}");
}

#[test]
fn an_address_that_a_guest_has_now_opens_for_nobody_else() {
    let libvirtd = Libvirtd::start();
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let setup = looking_at(&libvirtd).instance("stale", &address);
    let gateway = setup.start();
    let upgrade = gateway.upgrade("stale");

    let fixed = format!("<graphics type='vnc' port='{port}' autoport='no'/>{SCREEN}");
    libvirtd.create("web", &fixed);
    until("the guest to have the address", || {
        let refused = gateway.cli(&["token", "issue", "stale"]);
        refused.stderr.contains("is claimed by `web`").then_some(())
    });
    let closed = upgrade.open(gateway.listen).unwrap().expect_close();

    assert_eq!(closed.code, Some(4004), "{closed:?}");
}

#[test]
fn a_guest_of_a_host_far_away_is_dialled_at_the_hosts_address() {
    let libvirtd = Libvirtd::far_away();
    let anywhere = "<graphics type='vnc' port='-1' autoport='yes' listen='0.0.0.0'/>";
    libvirtd.create("web", &format!("{anywhere}{SCREEN}"));
    libvirtd.create("line", PTY);
    let gateway = Setup::new()
        .hypervisor("kvm-2", &libvirtd.far_uri())
        .start();

    let mut viewer = Viewer::new(gateway.open("web"));
    viewer.wait_for_pixel(100, 100, qemu::BLUE);
    drop(viewer);
    let mut line = serial(&gateway, "line");
    line.send(b"hello");
    assert_eq!(line.read(5), b"hello");
    drop(line);

    for (name, way) in [("web", "tcp"), ("line", "libvirt")] {
        gateway.wait_for_event("the way that was taken", |event| {
            event["message"] == "session ended" && event["name"] == name && event["way"] == way
        });
    }
    let shown = gateway.cli(&["instance", "show", "web", "-o", "json"]).ok();
    let target = shown.json()["consoles"][0]["target"].clone();
    let host = format!("{}:", libvirtd.address());
    assert!(target.as_str().unwrap().starts_with(&host), "{target}");
}

#[test]
fn a_killed_daemon_costs_no_session_and_is_found_again() {
    let mut libvirtd = Libvirtd::start();
    libvirtd.create("web", &format!("{AUTOPORT}{SCREEN}"));
    let gateway = gateway_of(&libvirtd);
    let mut viewer = Viewer::new(gateway.open("web"));
    viewer.wait_for_pixel(100, 100, qemu::BLUE);

    libvirtd.kill();
    assert_unreachable(&gateway.cli(&["token", "issue", "web"]));
    viewer.type_text("b");
    viewer.wait_for_pixel(100, 100, qemu::GREEN);
    libvirtd.restart();

    until("the daemon to be found again", || {
        (gateway.cli(&["token", "issue", "web"]).code == 0).then_some(())
    });
    Viewer::new(gateway.open("web")).wait_for_pixel(100, 100, qemu::GREEN);
    wait_for_states(&gateway, &[("web", "running")]);
}

#[test]
fn a_daemon_that_hangs_is_a_bounded_refusal_and_holds_up_nobody_else() {
    let libvirtd = Libvirtd::start();
    libvirtd.create("web", &format!("{AUTOPORT}{SCREEN}"));
    let peer = crate::rig::peers::Peer::echo();
    let address = format!("127.0.0.1:{}", peer.port());
    let gateway = setup_of(&libvirtd).instance("other", &address).start();
    gateway.issue("web");
    let upgrade = gateway.upgrade("other");

    libvirtd.signal(Signal::STOP);
    for _ in 0..3 {
        let started = Instant::now();
        assert_unreachable(&gateway.cli(&["token", "issue", "web"]));
        assert!(
            started.elapsed() < Duration::from_secs(8),
            "{:?}",
            started.elapsed()
        );
    }
    let started = Instant::now();
    let mut other = upgrade.open(gateway.listen).unwrap();
    assert_eq!(crate::rig::rfb::shake_hands(&mut other).2, "peer");
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
    libvirtd.signal(Signal::CONT);

    until("the daemon to answer again", || {
        (gateway.cli(&["token", "issue", "web"]).code == 0).then_some(())
    });
}

#[test]
fn a_thousand_domains_are_listed_from_the_index_and_found_live() {
    let libvirtd = Libvirtd::start();
    let domain = |number: u16| {
        format!(
            "<domain type='test'><name>vm-{number}</name><memory>8192</memory>\
             <os><type>hvm</type></os><devices>\
             <graphics type='vnc' port='{}' listen='127.0.0.1'/></devices></domain>",
            10_000 + number
        )
    };
    let domains: String = (0..1000).map(domain).collect();
    let gateway = Setup::new()
        .hypervisor("mock", &libvirtd.mock(&domains))
        .start();

    let listed = states(&gateway);
    assert_eq!(listed.len(), 1000);
    let shown = gateway.cli(&["instance", "show", "vm-999", "-o", "json"]);
    let shown = shown.ok().json();
    assert_eq!(shown["consoles"][0]["target"], "127.0.0.1:10999");
}

#[test]
fn a_user_who_may_only_look_dials_what_listens() {
    let libvirtd = Libvirtd::start();
    libvirtd.create("web", &format!("{AUTOPORT}{SCREEN}"));
    let gateway = looking_at(&libvirtd).start();

    let mut viewer = Viewer::new(gateway.open("web"));
    viewer.wait_for_pixel(100, 100, qemu::BLUE);
    drop(viewer);

    gateway.wait_for_event("the way that was taken", |event| {
        event["message"] == "session ended" && event["way"] == "tcp"
    });
}

#[test]
fn a_guest_is_seen_and_steered_in_chromium_with_nothing_configured_but_libvirt() {
    let libvirtd = Libvirtd::start();
    libvirtd.create("web", &format!("{AUTOPORT}{SCREEN}"));
    let gateway = Setup::new().start_with(|binary| libvirtd.inside(binary));
    let url = gateway.issue("web");

    let seen = browse(
        &url,
        &[
            ["--wait-state", "connected"],
            ["--expect-pixel", "100,100,#0000a8"],
            ["--press", "b"],
            ["--then-pixel", "100,100,#00a800"],
            ["--address-bar-lacks", &url.token()],
        ]
        .concat(),
    );

    assert_eq!(seen.code, 0, "{seen:?}");
    gateway.wait_for_event("the way that was taken", |event| {
        event["message"] == "session ended" && event["name"] == "web" && event["way"] == "libvirt"
    });
    let shown = gateway.cli(&["instance", "show", "web", "-o", "json"]).ok();
    assert_eq!(shown.json()["source"], "qemu:///system");
}

#[test]
fn a_way_that_cannot_be_gone_is_found_by_config_check_and_by_serve() {
    let setup = || Setup::new().hypervisor("kvm-9", "qemu+smoke://kvm-9/system");
    let config = setup();
    let file = config.write();

    let checked = vncgate(&["config", "check", file.to_str().unwrap()]);

    for refused in [checked, setup().refuse_to_start()] {
        assert_eq!(refused.code, 3, "{refused:?}");
        let says = refused.stderr.contains("kvm-9") && refused.stderr.contains("smoke");
        assert!(says, "{refused:?}");
    }
}

fn setup_of(libvirtd: &Libvirtd) -> Setup {
    Setup::new().hypervisor("kvm-1", &libvirtd.uri())
}

/// By a user who is handed nothing, as if the hypervisor were far away.
fn looking_at(libvirtd: &Libvirtd) -> Setup {
    let socket = libvirtd.uri().replace("libvirt-sock", "libvirt-sock-ro");
    let setup = Setup::new().hypervisor("looking", &socket);
    setup.set_host("readonly", true)
}

fn gateway_of(libvirtd: &Libvirtd) -> Gateway {
    setup_of(libvirtd).start()
}

#[track_caller]
fn serial(gateway: &Gateway, name: &str) -> crate::rig::ws::Ws {
    let url = gateway.issue_with(&["token", "issue", name, "--type", "serial"]);
    let path = format!("{}?{}", url.0.path(), url.0.query().unwrap());
    Upgrade::new(&path).open(gateway.listen).unwrap()
}

#[track_caller]
fn assert_unreachable(refused: &Answer) {
    assert_ne!(refused.code, 0, "{refused:?}");
    let says = refused.stderr.contains("cannot reach the hypervisor");
    assert!(says && refused.stderr.contains("kvm-1"), "{refused:?}");
}

fn owned((name, state): (&str, &str)) -> (String, String) {
    (name.to_owned(), state.to_owned())
}

#[track_caller]
fn states(gateway: &Gateway) -> Vec<(String, String)> {
    let listed = gateway.cli(&["instance", "list", "-o", "json"]).ok().json();
    let instances = listed.as_array().or_else(|| listed["instances"].as_array());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let state = |it: &Value| (text(&it["name"]), text(&it["state"]));
    instances.unwrap().iter().map(state).collect()
}

#[track_caller]
fn wait_for_states(gateway: &Gateway, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected.iter().copied().map(owned).collect();
    until(&format!("{expected:?} in the list"), || {
        (states(gateway) == expected).then_some(())
    });
}

#[track_caller]
fn port_of(gateway: &Gateway, name: &str) -> String {
    let shown = gateway.cli(&["instance", "show", name, "-o", "json"]).ok();
    let target = shown.json()["consoles"][0]["target"].clone();
    let (_, port) = target.as_str().unwrap().rsplit_once(':').unwrap();
    port.to_owned()
}

/// Free a moment ago; the hypervisor has to bind it by itself.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
