//! OpenStack's own clients against the API, as people run them: `openstack`, `nova` and
//! openstacksdk, with a key of the config. What they print is used: each URL is opened.

use std::io::{Read, Write};

use serde_json::Value;

use crate::api::new_key;
use crate::rig::browser::browse;
use crate::rig::gateway::{Answer, ConsoleUrl, Gateway, Setup};
use crate::rig::libvirtd::{Libvirtd, TALKED};
use crate::rig::openstack::Client;
use crate::rig::peers::Peer;
use crate::rig::rfb::shake_hands;
use crate::rig::wait::until;
use crate::rig::ws::{Upgrade, Ws};

const OURS: &str = "8a1e6f0c2b5d4d0f9c3b7a6e5d4c3b2a";
const THEIRS: &str = "0badc0de0badc0de0badc0de0badc0de";
pub(crate) const WEB: &str = "3f0c6a52-0d3f-4a40-9c5e-1f2f0f6f7a01";
pub(crate) const FOREIGN: &str = "3f0c6a52-0d3f-4a40-9c5e-1f2f0f6f7a02";
const NOBODY: &str = "99999999-9999-4999-8999-999999999999";

/// How a SPICE client begins: protocol 2.2, and a body of 18 bytes that asks for the main channel.
const SPICE_LINK: [u8; 34] = [
    b'R', b'E', b'D', b'Q', 2, 0, 0, 0, 2, 0, 0, 0, 18, 0, 0, 0, // magic, version, size
    0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 18, 0, 0,
    0, // new session, main, no capabilities
];

/// A gateway in front of a server with all kinds of consoles, which echo, and one of another
/// project; and the clients of people who may use it.
struct Cloud {
    gateway: Gateway,
    admin: Client,
    member: Client,
    reader: Client,
    screen: Peer,
    _line: Peer,
}

impl Cloud {
    fn new() -> Self {
        let (screen, line) = (Peer::echo(), echo());
        let [admin, member, reader] = ["admin", "member", "reader"].map(new_key);
        let setup = Setup::new()
            .key("admin", &admin.1)
            .key_of("member", &member.1, OURS, "member")
            .key_of("reader", &reader.1, OURS, "reader");
        let gateway = furnish(setup, [OURS, THEIRS], [&screen, &line]).start();
        let url = compute(&gateway);
        let client = |key: (String, String)| Client::with_key(&url, &key.0);
        Self {
            admin: client(admin),
            member: client(member),
            reader: client(reader),
            gateway,
            screen,
            _line: line,
        }
    }

    /// Opens a URL that a client printed, and has its bytes come back.
    #[track_caller]
    fn open(&self, kind: &str, url: &str) {
        bytes_come_back(&self.gateway, kind, url);
    }
}

#[test]
fn the_guests_consoles_open_by_the_urls_that_the_openstack_client_shows() {
    let libvirtd = Libvirtd::start();
    let vnc = "<graphics type='vnc' port='-1' autoport='yes'/>";
    let spice = "<graphics type='spice' autoport='yes'/>";
    let video = "<video><model type='vga'/></video>";
    let desktop = libvirtd.boot("desktop", OURS, &format!("{vnc}{spice}{video}"));
    libvirtd.boot("line", OURS, "<serial type='pty'/>");
    let key = new_key("portal");
    let setup = Setup::new().hypervisor("kvm-1", &libvirtd.uri());
    let gateway = setup.key_of("portal", &key.1, OURS, "member").start();
    let client = Client::with_key(&compute(&gateway), &key.0);

    let screen = shown(&client.openstack(&show("--novnc", "desktop")));
    let spice = shown(&client.openstack(&show("--spice", &desktop)));
    let serial = shown(&client.openstack(&show("--serial", "line")));

    let seen = browse(
        &ConsoleUrl::parse(&screen),
        &[
            ["--wait-state", "connected"],
            ["--expect-pixel", "100,100,#0000a8"],
        ]
        .concat(),
    );
    assert_eq!(seen.code, 0, "{seen:?}");
    let mut ws = open(&gateway, &spice);
    ws.send(&SPICE_LINK);
    assert_eq!(
        ws.read(8),
        SPICE_LINK[..8],
        "the guest links the main channel"
    );
    let mut ws = open(&gateway, &serial);
    ws.send(b"hello");
    assert_eq!(ws.read(5), b"hello");
}

#[test]
fn the_clients_show_what_a_guest_wrote_to_its_serial_line() {
    let libvirtd = Libvirtd::start();
    let log = libvirtd.file("talk.log");
    let kept = format!("<log file='{}' append='off'/>", log.display());
    let talk = libvirtd.boot("talk", OURS, &format!("<serial type='pty'>{kept}</serial>"));
    let key = new_key("portal");
    let setup = Setup::new().hypervisor("kvm-1", &libvirtd.uri());
    let gateway = setup.key_of("portal", &key.1, OURS, "member").start();
    let client = Client::with_key(&compute(&gateway), &key.0);
    let wrote = String::from_utf8_lossy(TALKED);
    until("what the guest writes", || {
        let written = std::fs::read(&log).unwrap_or_default();
        written.ends_with(TALKED).then_some(())
    });

    let whole = client.openstack(&["console", "log", "show", "talk"]).ok();
    let last = ["console", "log", "show", "--lines", "1", &talk];
    let last = client.at("2.1").openstack(&last).ok();
    let nova = client.nova(&["console-log", &talk]).ok();

    for answer in [whole, nova] {
        assert!(answer.stdout.contains(wrote.trim_end()), "{answer:?}");
    }
    assert_eq!(last.stdout.trim_end(), "login:");
}

#[test]
fn the_openstack_client_shows_consoles_of_every_kind_by_name_and_by_id() {
    let cloud = Cloud::new();

    for (option, kind, server) in [
        ("--novnc", "novnc", "web"),
        ("--novnc", "novnc", WEB),
        ("--spice", "spice-html5", "web"),
        ("--serial", "serial", WEB),
    ] {
        let answer = cloud.member.openstack(&show(option, server));

        cloud.open(kind, &shown(&answer));
        assert_eq!(answer.json()["type"], kind);
    }
}

#[test]
fn consoles_open_at_every_microversion_that_people_ask_for() {
    let cloud = Cloud::new();

    for version in ["2.1", "2.6", "2.31", "2.99"] {
        let client = cloud.member.at(version);

        let answer = client.openstack(&show("--novnc", WEB));

        cloud.open("novnc", &shown(&answer));
    }
    for (version, option, kind) in [
        ("2.1", "--spice", "spice-html5"),
        ("2.1", "--serial", "serial"),
    ] {
        let client = cloud.member.at(version);

        let answer = client.openstack(&show(option, WEB));

        cloud.open(kind, &shown(&answer));
    }
}

#[test]
fn the_openstack_client_lists_and_shows_servers() {
    let cloud = Cloud::new();

    let own = cloud.member.openstack(&["server", "list", "-f", "json"]);
    let every = ["server", "list", "--all-projects", "-n", "-f", "json"];
    let all = cloud.admin.openstack(&every).ok().json();
    let refused = cloud.member.openstack(&every);
    let by_name = cloud
        .reader
        .openstack(&["server", "show", "web", "-f", "json"]);
    let by_id = cloud
        .member
        .openstack(&["server", "show", WEB, "-f", "json"]);

    let own = own.ok().json();
    assert_eq!(own.as_array().unwrap().len(), 1, "{own}");
    assert_eq!(own[0]["ID"], WEB);
    assert_eq!(own[0]["Name"], "web");
    let mut names: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["Name"])
        .collect();
    names.sort_by_key(ToString::to_string);
    assert_eq!(names, ["other", "web"]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("Policy doesn't allow"),
        "{refused:?}"
    );
    for answer in [by_name, by_id] {
        let server = answer.ok().json();
        assert_eq!(server["id"], WEB);
        assert_eq!(server["project_id"], OURS);
    }
}

#[test]
fn a_server_that_is_not_there_or_anothers_is_told_as_not_found() {
    let cloud = Cloud::new();

    for server in ["nosuch", NOBODY, "other", FOREIGN] {
        let answer = cloud.member.openstack(&show("--novnc", server));

        assert_eq!(answer.code, 1, "{answer:?}");
        let says = format!("No Server found for {server}");
        assert!(answer.stderr.contains(&says), "{answer:?}");
    }
    assert_eq!(cloud.screen.connections(), 0);
}

#[test]
fn a_reader_is_told_that_policy_forbids_consoles() {
    let cloud = Cloud::new();

    for version in ["2.1", "2.99"] {
        let answer = cloud.reader.at(version).openstack(&show("--novnc", WEB));

        assert_eq!(answer.code, 1, "{answer:?}");
        let says = "Policy doesn't allow os_compute_api:os-remote-consoles to be performed";
        assert!(answer.stderr.contains(says), "{answer:?}");
    }
}

#[test]
fn a_key_that_is_none_is_refused_as_keystone_would() {
    let cloud = Cloud::new();
    let stranger = Client::with_key(&compute(&cloud.gateway), "vgk_guess");

    let answer = stranger.openstack(&show("--novnc", WEB));

    assert_eq!(answer.code, 1);
    assert!(
        answer.stderr.contains("requires authentication"),
        "{answer:?}"
    );
}

#[test]
fn a_key_serves_as_a_password_too() {
    let key = new_key("portal");
    let screen = Peer::echo();
    let setup = furnish(Setup::new(), [OURS, THEIRS], [&screen, &screen]);
    let gateway = setup.key_of("portal", &key.1, OURS, "member").start();
    let client = Client::with_password(&compute(&gateway), &key.0);

    let answer = client.openstack(&show("--novnc", WEB));

    bytes_come_back(&gateway, "novnc", &shown(&answer));
}

#[test]
fn where_no_key_is_configured_this_machines_clients_need_none() {
    let screen = Peer::echo();
    let setup = furnish(Setup::new(), [OURS, THEIRS], [&screen, &screen]);
    let gateway = setup.start();
    let client = Client::without_credentials(&compute(&gateway));

    let answer = client.openstack(&show("--novnc", "web"));

    bytes_come_back(&gateway, "novnc", &shown(&answer));
}

#[test]
fn an_administrator_sees_where_a_token_leads_and_a_member_does_not() {
    let cloud = Cloud::new();
    let url = shown(&cloud.member.openstack(&show("--novnc", WEB)));
    let token = ConsoleUrl::parse(&url).token();
    let command = ["console", "connection", "show", &token, "-f", "json"];

    let newest = cloud.admin.openstack(&command).ok().json();
    let older = cloud.admin.at("2.31").openstack(&command).ok().json();
    let refused = cloud.member.openstack(&command);

    for leads in [newest, older] {
        assert_eq!(leads["instance_uuid"], WEB);
        assert_eq!(leads["host"], "127.0.0.1");
        assert_eq!(leads["port"], cloud.screen.port());
        assert_eq!(leads["internal_access_path"], Value::Null);
    }
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("Policy doesn't allow"),
        "{refused:?}"
    );
}

#[test]
fn the_nova_client_lists_servers_and_shows_consoles() {
    let cloud = Cloud::new();

    let listed = cloud.member.nova(&["list"]).ok().stdout;
    assert!(listed.contains(WEB), "{listed}");
    assert!(!listed.contains(FOREIGN), "{listed}");
    for (command, version) in [
        (&["get-vnc-console", "web", "novnc"][..], "2.latest"),
        (&["get-vnc-console", "web", "novnc"], "2.1"),
        (&["get-spice-console", WEB, "spice-html5"], "2.latest"),
        (&["get-serial-console", WEB], "2.latest"),
        (&["get-serial-console", "web"], "2.1"),
    ] {
        let answer = cloud.member.at(version).nova(command).ok();

        let cells = answer.stdout.split('|').map(str::trim);
        let cells: Vec<_> = cells.filter(|cell| !cell.is_empty()).collect();
        let at = cells.iter().position(|cell| cell.contains('?')).unwrap();
        cloud.open(cells[at - 1], cells[at]);
    }
}

#[test]
fn openstacksdk_gets_consoles_and_asks_where_they_lead() {
    let cloud = Cloud::new();
    let script = format!(
        "server = cloud.compute.find_server('web')\n\
         assert server.id == '{WEB}', server\n\
         made = cloud.compute.create_console(server, console_type='novnc')\n\
         line = cloud.compute.create_server_remote_console(\n\
         \x20   server, protocol='serial', type='serial')\n\
         show([made['url'], line.url])"
    );

    let made = cloud.member.sdk(&script).ok().json();

    let url = made[0].as_str().unwrap();
    cloud.open("novnc", url);
    cloud.open("serial", made[1].as_str().unwrap());
    let token = ConsoleUrl::parse(url).token();
    let ask = format!("show(cloud.compute.validate_console_auth_token('{token}'))");
    let leads = cloud.admin.sdk(&ask).ok().json();
    assert_eq!(leads["instance_uuid"], WEB);
    assert_eq!(leads["port"], cloud.screen.port());
}

#[test]
fn the_call_of_openstacksdk_that_knows_actions_alone_works_at_2_1() {
    let cloud = Cloud::new();
    let script = format!(
        "console = cloud.compute.get_server_console_url('{WEB}', 'novnc')\nshow(console['url'])"
    );

    let answer = cloud.member.at("2.1").sdk(&script).ok().json();
    let newest = cloud.member.sdk(&script);

    cloud.open("novnc", answer.as_str().unwrap());
    // the newest version has no such action, and the call of the SDK asks for it all the same
    assert!(newest.stderr.contains("NotFoundException"), "{newest:?}");
}

/// Opens a URL that a client printed, and has its bytes come back.
#[track_caller]
pub(crate) fn bytes_come_back(gateway: &Gateway, kind: &str, url: &str) {
    let mut ws = open(gateway, url);
    if kind == "novnc" {
        shake_hands(&mut ws);
    }
    ws.send(b"there and back");
    assert_eq!(ws.read(14), b"there and back", "{kind}");
}

/// The WebSocket that a page behind this URL opens.
#[track_caller]
pub(crate) fn open(gateway: &Gateway, url: &str) -> Ws {
    let path = ConsoleUrl::parse(url).upgrade_path();
    Upgrade::new(&path).open(gateway.listen).unwrap()
}

/// A server of `ours` with a console of each kind, and one of `theirs`.
pub(crate) fn furnish(
    setup: Setup,
    [ours, theirs]: [&str; 2],
    [screen, line]: [&Peer; 2],
) -> Setup {
    let (screen, line) = (screen.address(), line.address());
    let consoles = [("vnc", &screen), ("spice", &line), ("serial", &line)];
    let setup = consoles.iter().fold(setup, |setup, (kind, address)| {
        setup.console(&[
            ("id", WEB),
            ("name", "web"),
            ("address", address),
            ("kind", kind),
            ("project", ours),
        ])
    });
    setup.console(&[
        ("id", FOREIGN),
        ("name", "other"),
        ("address", &screen),
        ("project", theirs),
    ])
}

/// The URL of the compute API, as a catalogue has it.
pub(crate) fn compute(gateway: &Gateway) -> String {
    format!("http://{}/v2.1", gateway.listen)
}

pub(crate) fn show<'a>(option: &'a str, server: &'a str) -> [&'a str; 7] {
    ["console", "url", "show", option, server, "-f", "json"]
}

/// The URL in what `console url show` printed.
#[track_caller]
pub(crate) fn shown(answer: &Answer) -> String {
    let printed = answer.clone().ok().json();
    printed["url"].as_str().expect("a URL").to_owned()
}

/// A line that sends back what it hears.
pub(crate) fn echo() -> Peer {
    Peer::raw(|mut stream| {
        let mut buffer = vec![0; 1 << 12];
        loop {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            stream.write_all(&buffer[..count])?;
        }
    })
}
