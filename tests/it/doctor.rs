//! `vncgate doctor` between real things that are set up wrongly, one thing at a time: each failure
//! is told by the step it belongs to, in a sentence, with what to change.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::rig::certificates::Authority;
use crate::rig::deployment::Plan;
use crate::rig::gateway::{Answer, Gateway, Setup, vncgate};
use crate::rig::libvirtd::{Libvirtd, loopback};
use crate::rig::nginx::{Nginx, UPGRADES};
use crate::rig::peers::{Closed, Peer};
use crate::rig::process::{peer, tied};
use crate::rig::qemu::Qemu;
use crate::rig::tls::TlsFront;
use crate::rig::xvnc::{self, Xvnc};

/// Where a gateway and what stands in front of it are: an address that no other test has.
struct Street {
    host: String,
}

impl Street {
    fn new() -> Self {
        Self { host: loopback() }
    }

    fn gateway(&self) -> String {
        format!("{}:6080", self.host)
    }

    fn front(&self) -> String {
        format!("{}:8080", self.host)
    }

    /// A gateway here, with an instance at `address`, reached by the front.
    fn setup(&self, address: &str) -> Setup {
        let setup = Setup::new().instance("web-1", address);
        let setup = setup.set("proxy", "listen", vec![self.gateway()]);
        let monitor = format!("{}:9180", self.host);
        setup.set("monitor", "listen", vec![monitor])
    }

    fn fronted(&self, address: &str) -> Setup {
        let url = format!("http://{}", self.front());
        self.setup(address).set("proxy", "public_url", url)
    }
}

fn doctor_of(gateway: &Gateway, arguments: &[&str]) -> Answer {
    let config = gateway.config.to_str().unwrap();
    let all = [
        &["doctor", "--config", config, "--timeout", "10s"][..],
        arguments,
    ];
    gateway.cli(&all.concat())
}

fn steps(answer: &Answer) -> Vec<Value> {
    let report: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(report["ok"], answer.code == 0, "{report}");
    report["steps"].as_array().unwrap().clone()
}

fn step(gateway: &Gateway, name: &str) -> Value {
    step_of(&doctor_of(gateway, &["-o", "json"]), name)
}

#[track_caller]
fn step_of(answer: &Answer, name: &str) -> Value {
    let found = steps(answer).into_iter().find(|it| it["step"] == name);
    found.unwrap_or_else(|| panic!("no step {name} in {answer:?}"))
}

/// Has the doctor look, and checks that this step is the one that failed, with these words in what
/// it says and in what it advises.
#[track_caller]
fn assert_fails(gateway: &Gateway, name: &str, what: &str, change: &str) -> Answer {
    let answer = doctor_of(gateway, &["-o", "json"]);
    let failed: Vec<_> = steps(&answer)
        .into_iter()
        .filter(|it| it["outcome"] == "failed")
        .collect();
    assert_eq!(failed.len(), 1, "{answer:?}");
    let failed = &failed[0];
    let text = |key: &str| failed[key].as_str().unwrap_or_default().to_owned();
    assert_eq!(failed["step"], name, "{failed}");
    assert!(text("what").contains(what), "`{what}` is not in {failed}");
    assert!(
        text("change").contains(change),
        "`{change}` is not in {failed}"
    );
    assert_ne!(answer.code, 0);
    answer
}

#[test]
fn a_way_that_is_whole_is_walked_to_its_first_pixels_and_leaves_no_token() {
    let (street, qemu) = (Street::new(), Qemu::tcp());
    let _front = Nginx::before(&street.gateway(), &street.front(), UPGRADES);
    let gateway = street.fronted(qemu.address()).start();

    let answer = doctor_of(&gateway, &["web-1"]);
    let again = doctor_of(&gateway, &["-o", "json"]);

    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(!answer.stdout.contains("FAIL"), "{answer:?}");
    assert!(answer.stdout.contains("first pixels"), "{answer:?}");
    assert!(answer.stdout.contains("a screen of "), "{answer:?}");
    assert!(answer.stdout.contains(" ms  "), "{answer:?}");
    assert!(again.code == 0, "{again:?}");
    for step in steps(&again) {
        let fine = ["ok", "none"].contains(&step["outcome"].as_str().unwrap());
        assert!(fine && step["ms"].is_number(), "{step}");
    }
    let tokens = gateway.cli(&["token", "list", "-o", "json"]).ok().json();
    assert_eq!(tokens["tokens"], serde_json::json!([]));
    gateway.wait_for_sessions(0);
}

#[test]
fn the_doctor_needs_no_instance_to_look_at_the_way_in() {
    let street = Street::new();
    let _front = Nginx::before(&street.gateway(), &street.front(), UPGRADES);
    let url = format!("http://{}", street.front());
    let gateway = Setup::new()
        .set("proxy", "listen", vec![street.gateway()])
        .set("proxy", "public_url", url)
        .set("compute", "discover", false)
        .start();

    let answer = doctor_of(&gateway, &["-o", "json"]);

    assert_eq!(answer.code, 0, "{answer:?}");
    let steps = steps(&answer);
    let outcome = |name: &str| {
        let step = steps.iter().find(|it| it["step"] == name).unwrap();
        step["outcome"].clone()
    };
    assert_eq!(outcome("instance"), "none");
    assert_eq!(outcome("websocket"), "ok");
    assert_eq!(outcome("first pixels"), "none");
    let left = "not walked, because no instance runs: display, display's port, vnc server, token, \
                console, first pixels";
    assert_eq!(answer.json()["not_walked"], left);
    let table = doctor_of(&gateway, &[]);
    assert!(table.stdout.ends_with(&format!("\n{left}\n")), "{table:?}");
}

#[test]
fn a_display_that_only_the_gateway_reaches_is_no_fault() {
    let (street, xvnc) = (Street::new(), Xvnc::unix(xvnc::BLUE));
    let place = TempDir::with_prefix("vncgate-far-").unwrap();
    let socket = Path::new(xvnc.address().strip_prefix("unix:").unwrap());
    let (there, here) = (socket.parent().unwrap(), place.path());
    let address = format!("unix:{}/vnc.sock", here.display());
    // What is an empty directory here is the display's where the gateway runs.
    let mounted = format!(
        "mount --bind {} {} && exec \"$0\" \"$@\"",
        there.display(),
        here.display()
    );
    let gateway = street.setup(&address).start_with(|binary| {
        let mut command = tied(&peer("unshare"));
        command
            .args(["--mount", "--", "sh", "-c", &mounted])
            .arg(binary);
        command
    });

    let answer = doctor_of(&gateway, &["-o", "json"]);

    assert_eq!(answer.code, 0, "{answer:?}");
    let port = step_of(&answer, "display's port");
    let what = port["what"].as_str().unwrap();
    assert_eq!(port["outcome"], "none", "{port}");
    assert!(
        what.starts_with("not reachable from this machine ("),
        "{port}"
    );
    assert!(what.contains("No such file"), "{port}");
    assert!(what.ends_with("; the gateway reaches it"), "{port}");
    assert_eq!(step_of(&answer, "first pixels")["outcome"], "ok");
}

#[test]
fn a_way_that_ends_before_the_console_is_told_and_no_display_is_blamed() {
    let (street, nobody) = (Street::new(), Closed::new());
    let _front = Nginx::before(&nobody.address(), &street.front(), UPGRADES);
    let gateway = street.fronted(&nobody.address()).start();

    let what = "answered with 502 Bad Gateway by nginx";
    let answer = assert_fails(&gateway, "page", what, "does not reach vncgate");

    let port = step_of(&answer, "display's port");
    assert_eq!(port["outcome"], "none", "{port}");
    assert!(
        port["what"].as_str().unwrap().contains("before it showed"),
        "{port}"
    );
}

#[test]
fn where_the_api_runs_alone_the_way_is_walked_through_the_proxy_elsewhere() {
    let peer = Peer::echo();
    let deployment = Plan::of_four().instance("web-1", &peer.address()).start();
    let config = &deployment.node("api").config;

    let answer = vncgate(&[
        "doctor",
        "--config",
        config.to_str().unwrap(),
        "--timeout",
        "10s",
        "-o",
        "json",
    ]);

    // The echo has no picture to show, and is reached.
    let listener = step_of(&answer, "listener");
    assert_eq!(listener["outcome"], "note", "{listener}");
    assert!(
        listener["what"]
            .as_str()
            .unwrap()
            .contains("nobody listens at")
    );
    assert_eq!(step_of(&answer, "roles")["outcome"], "ok");
    assert_eq!(step_of(&answer, "websocket")["outcome"], "ok");
    assert_eq!(step_of(&answer, "console")["outcome"], "ok");
}

#[test]
fn an_nginx_that_lets_no_upgrade_through_is_recognized() {
    let (street, peer) = (Street::new(), Peer::echo());
    let _front = Nginx::before(&street.gateway(), &street.front(), "");
    let gateway = street.fronted(&peer.address()).start();

    assert_fails(
        &gateway,
        "websocket",
        "the WebSocket upgrade is answered with ",
        "proxy_set_header Upgrade $http_upgrade",
    );
}

#[test]
fn an_nginx_with_the_wrong_upstream_is_recognized() {
    let (street, peer) = (Street::new(), Peer::echo());
    let nobody = Closed::new();
    let _front = Nginx::before(&nobody.address(), &street.front(), UPGRADES);
    let gateway = street.fronted(&peer.address()).start();

    let what = "answered with 502 Bad Gateway by nginx";
    assert_fails(&gateway, "page", what, "does not reach vncgate");
}

#[test]
fn a_proxy_that_drops_the_query_is_recognized() {
    let (street, peer) = (Street::new(), Peer::echo());
    let drops = format!("{UPGRADES} set $args \"\";");
    let _front = Nginx::before(&street.gateway(), &street.front(), &drops);
    let gateway = street.fronted(&peer.address()).start();

    let what = "refused with 4001: unknown or expired token";
    assert_fails(&gateway, "websocket", what, "drops the query");
}

#[test]
fn a_public_url_that_leads_elsewhere_is_recognized() {
    let (street, peer) = (Street::new(), Peer::echo());
    let _front = Nginx::start(&street.front(), "location / { return 404; }");
    let gateway = street.fronted(&peer.address()).start();

    let what = "/vnc.html is answered with 404 Not Found by nginx";
    assert_fails(&gateway, "page", what, "set proxy.public_url");
}

#[test]
fn a_public_url_whose_name_or_port_is_nobodys_is_recognized() {
    let (street, peer) = (Street::new(), Peer::echo());
    let gateway = street.fronted(&peer.address()).start();
    let what = "takes no connection: Connection refused";
    assert_fails(&gateway, "public port", what, "start the reverse proxy");
    drop(gateway);

    let setup = street.setup(&peer.address());
    let setup = setup.set("proxy", "public_url", "http://console.invalid");
    // A public URL elsewhere makes the API want keys of everybody but the admin socket.
    let gateway = setup.start();
    let what = "cannot resolve console.invalid";
    assert_fails(&gateway, "public name", what, "make the name known");
}

#[test]
fn a_front_that_leads_from_http_to_https_is_recognized() {
    let (street, peer) = (Street::new(), Peer::echo());
    let block = "location / { return 301 https://$http_host$request_uri; }";
    let _front = Nginx::start(&street.front(), block);
    let gateway = street.fronted(&peer.address()).start();

    let what = "leads on to https://";
    assert_fails(&gateway, "page", what, "set proxy.public_url to https://");
}

#[test]
fn https_where_plain_http_is_spoken_is_recognized() {
    let (street, peer) = (Street::new(), Peer::echo());
    let _front = Nginx::before(&street.gateway(), &street.front(), UPGRADES);
    let url = format!("https://{}", street.front());
    let setup = street
        .setup(&peer.address())
        .set("proxy", "public_url", url);
    let gateway = setup.start();

    let what = "speaks no TLS";
    assert_fails(&gateway, "tls", what, "that port speaks plain HTTP");
}

#[test]
fn an_origin_that_is_not_the_urls_is_recognized() {
    let (street, peer) = (Street::new(), Peer::echo());
    // A front that ends TLS elsewhere and tells of it wrongly.
    let lines = format!("{UPGRADES} proxy_set_header X-Forwarded-Proto gopher;");
    let _front = Nginx::before(&street.gateway(), &street.front(), &lines);
    let trusted = vec!["127.0.0.0/8"];
    let setup = street.fronted(&peer.address());
    let gateway = setup.set("proxy", "trusted_proxies", trusted).start();

    let what = "refused with 4003";
    assert_fails(&gateway, "websocket", what, "X-Forwarded-Proto");
}

/// A gateway behind TLS with a certificate for these names in these years.
fn behind_tls(names: &[&str], years: (i32, i32)) -> (Gateway, TlsFront, TempDir, Qemu) {
    let (street, qemu) = (Street::new(), Qemu::tcp());
    let place = TempDir::with_prefix("vncgate-tls-").unwrap();
    let pki = place.path().join("pki");
    let authority = Authority::new(&pki, "ca.pem");
    authority.vouch(names, years, "cert.pem", "key.pem");
    let target: SocketAddr = street.gateway().parse().unwrap();
    let front = TlsFront::start(&pki.join("cert.pem"), &pki.join("key.pem"), target);
    let url = format!("https://{}", front.address());
    let setup = street.setup(qemu.address()).set("proxy", "public_url", url);
    (setup.start(), front, place, qemu)
}

#[test]
fn a_way_through_tls_is_walked_where_its_ca_is_known() {
    let (gateway, _front, place, _qemu) = behind_tls(&["127.0.0.1"], (2020, 2099));
    let ca = place.path().join("pki/ca.pem");

    let known = doctor_of(&gateway, &["--ca-file", ca.to_str().unwrap()]);

    assert_eq!(known.code, 0, "{known:?}");
    assert!(known.stdout.contains("the certificate is for this name"));
    let what = "is signed by no CA in";
    assert_fails(&gateway, "tls", what, "--ca-file");
}

#[test]
fn a_certificate_for_another_name_and_one_that_has_expired_are_recognized() {
    for (name, years, what, change) in [
        (
            "console.example.org",
            (2020, 2099),
            "is not for this name",
            "get a certificate for the name",
        ),
        (
            "127.0.0.1",
            (2020, 2021),
            "has expired",
            "renew the certificate",
        ),
    ] {
        let (gateway, _front, place, _qemu) = behind_tls(&[name], years);
        let ca = place.path().join("pki/ca.pem");

        let answer = doctor_of(&gateway, &["-o", "json", "--ca-file", ca.to_str().unwrap()]);

        let mut failed = steps(&answer).into_iter();
        let failed = failed.rfind(|it| it["outcome"] == "failed").unwrap();
        assert_eq!(failed["step"], "tls", "{failed}");
        assert!(failed["what"].as_str().unwrap().contains(what), "{failed}");
        assert!(failed["change"].as_str().unwrap().contains(change));
    }
}

#[test]
fn bytes_that_are_held_back_behind_the_upgrade_are_recognized() {
    let (street, peer) = (Street::new(), Peer::echo());
    let place: SocketAddr = street.front().parse().unwrap();
    let behind = street.gateway();
    let listener = std::net::TcpListener::bind(place).unwrap();
    // Passes the head of an answer on and keeps what follows, as a proxy that buffers does.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut near, behind) = (stream.unwrap(), behind.clone());
            std::thread::spawn(move || {
                let mut far = std::net::TcpStream::connect(behind).unwrap();
                let mut up = near.try_clone().unwrap();
                let mut to = far.try_clone().unwrap();
                std::thread::spawn(move || std::io::copy(&mut up, &mut to).is_ok());
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && far.read(&mut byte).unwrap_or(0) > 0 {
                    head.extend(byte);
                }
                let _left = near.write_all(&head).is_ok();
                if head.starts_with(b"HTTP/1.1 101") {
                    let _held = far.read_to_end(&mut Vec::new()).is_ok();
                } else {
                    let _whole = std::io::copy(&mut far, &mut near).is_ok();
                }
            });
        }
    });
    let gateway = street.fronted(&peer.address()).start();

    let config = gateway.config.to_str().unwrap();
    let answer = vncgate(&[
        "doctor",
        "--config",
        config,
        "--timeout",
        "2s",
        "-o",
        "json",
    ]);

    let mut failed = steps(&answer).into_iter();
    let failed = failed.rfind(|it| it["outcome"] == "failed").unwrap();
    assert_eq!(failed["step"], "websocket", "{failed}");
    assert!(failed["what"].as_str().unwrap().contains("no byte comes"));
    assert!(
        failed["change"]
            .as_str()
            .unwrap()
            .contains("proxy_buffering off")
    );
}

#[test]
fn a_display_whose_port_refuses_or_is_silent_is_recognized() {
    let (street, closed) = (Street::new(), Closed::new());
    let gateway = street.setup(&closed.address()).start();
    let what = "takes no connection: Connection refused (os error 111); nor does the gateway get \
                there: the console is refused with 4005";
    assert_fails(&gateway, "display's port", what, "nobody listens there");
    drop(gateway);

    // A queue that is full drops what knocks, as a firewall does.
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    full.bind(&any.into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap();
    let waiting: Vec<Socket> = std::iter::repeat_with(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _begun = socket.connect(&address).is_ok();
        socket
    })
    .take(4)
    .collect();
    let gateway = street
        .setup(&address.as_socket().unwrap().to_string())
        .start();
    let config = gateway.config.to_str().unwrap();
    let answer = vncgate(&["doctor", "--config", config, "--timeout", "2s"]);
    drop(waiting);

    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(
        answer.stdout.contains("does not answer within"),
        "{answer:?}"
    );
    assert!(answer.stdout.contains("a firewall drops it"), "{answer:?}");
}

#[test]
fn what_is_no_vnc_server_or_says_nothing_is_recognized() {
    let street = Street::new();
    let ssh = Peer::raw(|mut stream| {
        stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n")?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    });
    let gateway = street.setup(&ssh.address()).start();
    let what = "is no VNC server: it says \"SSH-2.0-OpenSSH_9.2p1";
    assert_fails(&gateway, "vnc server", what, "correct the address");
    drop(gateway);

    let mute = Peer::raw(|mut stream| stream.read_to_end(&mut Vec::new()).map(drop));
    let gateway = street.setup(&mute.address()).start();
    let config = gateway.config.to_str().unwrap();
    let answer = vncgate(&["doctor", "--config", config, "--timeout", "2s"]);
    assert!(answer.stdout.contains("says nothing"), "{answer:?}");
    assert!(answer.stdout.contains("a VNC server speaks first"));
}

#[test]
fn a_display_with_a_password_that_nobody_told_is_a_note() {
    let (street, place) = (
        Street::new(),
        TempDir::with_prefix("vncgate-doctor-").unwrap(),
    );
    let file = place.path().join("passwd");
    fs::write(&file, xvnc::password_file("secret")).unwrap();
    let arguments = ["-PasswordFile", file.to_str().unwrap()];
    let xvnc = Xvnc::secured("VncAuth", &arguments, None);
    let gateway = street.setup(xvnc.address()).start();

    let server = step(&gateway, "vnc server");
    let console = step(&gateway, "console");
    let answer = doctor_of(&gateway, &[]);

    assert!(
        server["what"]
            .as_str()
            .unwrap()
            .contains("VNC Authentication")
    );
    assert_eq!(console["outcome"], "note", "{console}");
    assert!(
        console["what"]
            .as_str()
            .unwrap()
            .contains("asks for a password")
    );
    assert!(
        console["change"]
            .as_str()
            .unwrap()
            .contains("password_file")
    );
    assert_eq!(answer.code, 0, "{answer:?}");
}

#[test]
fn a_wrong_password_of_the_gateways_is_recognized() {
    let (street, place) = (
        Street::new(),
        TempDir::with_prefix("vncgate-doctor-").unwrap(),
    );
    let file = place.path().join("passwd");
    fs::write(&file, xvnc::password_file("secret")).unwrap();
    let wrong = place.path().join("wrong");
    fs::write(&wrong, "mistake").unwrap();
    let arguments = ["-PasswordFile", file.to_str().unwrap()];
    let xvnc = Xvnc::secured("VncAuth", &arguments, None);
    let vnc: toml::Table = [("password_file".to_owned(), wrong.to_str().unwrap().into())]
        .into_iter()
        .collect();
    let setup = street.setup(xvnc.address()).set_instance("vnc", vnc);
    let gateway = setup.start();

    let what = "refused with 4006: the console's VNC server does not accept the gateway's password";
    let answer = assert_fails(&gateway, "websocket", what, "passwords");

    assert!(!answer.stdout.contains("mistake"), "{answer:?}");
}

#[test]
fn an_instance_that_is_off_is_recognized() {
    let (street, libvirtd) = (Street::new(), Libvirtd::start());
    libvirtd.define("web-2", "<graphics type='vnc'/>");
    let setup = Setup::new().set("proxy", "listen", vec![street.gateway()]);
    let gateway = setup.hypervisor("kvm-1", &libvirtd.uri()).start();

    let answer = doctor_of(&gateway, &["web-2"]);

    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stdout.contains("web-2 is off"), "{answer:?}");
    assert!(answer.stdout.contains("> start it"), "{answer:?}");
}

#[test]
fn a_guest_of_libvirts_is_walked_to_its_first_pixels() {
    let (street, libvirtd) = (Street::new(), Libvirtd::start());
    libvirtd.create("web-2", "<graphics type='vnc' autoport='yes'/>");
    let setup = Setup::new().set("proxy", "listen", vec![street.gateway()]);
    let gateway = setup.hypervisor("kvm-1", &libvirtd.uri()).start();

    let answer = doctor_of(&gateway, &[]);

    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(
        answer.stdout.contains("web-2, found by kvm-1"),
        "{answer:?}"
    );
    assert!(answer.stdout.contains("a screen of "), "{answer:?}");
}

#[test]
fn a_display_that_listens_on_a_far_hosts_loopback_is_recognized() {
    let libvirtd = Libvirtd::far_away();
    libvirtd.create(
        "web-2",
        "<graphics type='vnc' autoport='yes' listen='127.0.0.1'/>",
    );
    let gateway = Setup::new()
        .hypervisor("kvm-1", &libvirtd.far_uri())
        .start();

    let what = "of kvm-1, which only kvm-1 itself reaches";
    assert_fails(&gateway, "display", what, "vnc_listen");
}

#[test]
fn a_libvirt_that_does_not_run_is_recognized() {
    let uri = "qemu+unix:///system?socket=/nonexistent/libvirt-sock";
    let gateway = Setup::new().hypervisor("kvm-1", uri).start();

    let what = "no libvirt daemon listens here";
    assert_fails(&gateway, "instance", what, "start libvirt there");
    let named = doctor_of(&gateway, &["web-1"]);
    assert!(named.stdout.contains("start libvirt there"), "{named:?}");
    drop(gateway);

    let monitor = format!("{}:9180", loopback());
    let setup = Setup::new().set("monitor", "listen", vec![monitor]);
    let gateway = setup.hypervisor("kvm-1", uri).start();
    assert_fails(&gateway, "roles", what, "start libvirt there");
}

#[test]
fn a_libvirt_that_does_not_let_us_in_is_recognized() {
    let libvirtd = Libvirtd::start();
    // Where only the way to look is open, that way is taken; here there is none.
    let sockets = libvirtd.socket().parent().unwrap().to_owned();
    fs::set_permissions(&sockets, fs::Permissions::from_mode(0o700)).unwrap();
    let setup = Setup::new().hypervisor("kvm-1", &libvirtd.uri());
    let directory = setup.directory.path().to_owned();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    chown(&directory, Some(NOBODY), None).unwrap();
    let gateway = setup.start_with(as_nobody);

    let what = "ermission denied";
    assert_fails(&gateway, "instance", what, "add it to the group libvirt");
}

const NOBODY: u32 = 65534;

fn as_nobody(binary: &Path) -> std::process::Command {
    let mut command = tied(Path::new("/usr/bin/setpriv"));
    let id = NOBODY.to_string();
    command.args(["--reuid", &id, "--clear-groups", "--"]);
    command.arg(binary);
    command
}

#[test]
fn a_gateway_that_does_not_run_and_a_config_that_is_not_good_have_codes_of_their_own() {
    let place = TempDir::with_prefix("vncgate-doctor-").unwrap();
    let config = place.path().join("vncgate.toml");
    let socket = place.path().join("admin.sock");
    fs::write(&config, format!("[admin]\nsocket = {socket:?}\n")).unwrap();
    let absent = vncgate(&["doctor", "--config", config.to_str().unwrap()]);
    fs::write(&config, "[proxy]\nlisten = []\n").unwrap();
    let bad = vncgate(&["doctor", "--config", config.to_str().unwrap()]);
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let unknown = doctor_of(&gateway, &["web-7"]);

    assert_eq!(absent.code, 6, "{absent:?}");
    assert!(absent.stdout.contains("no vncgate answers"), "{absent:?}");
    assert!(absent.stdout.contains("systemctl start vncgate"));
    assert_eq!(bad.code, 3, "{bad:?}");
    assert!(bad.stdout.contains("proxy.listen: at least one"), "{bad:?}");
    assert_eq!(unknown.code, 4, "{unknown:?}");
    assert!(unknown.stdout.contains("there is no instance `web-7`"));
    for answer in [absent, bad, unknown] {
        assert_eq!(answer.stderr, "", "{answer:?}");
        assert!(answer.stdout.contains("-     first pixels"), "{answer:?}");
    }
}

#[test]
fn a_store_of_tokens_that_is_away_is_recognized() {
    let (street, peer, away) = (Street::new(), Peer::echo(), Closed::new());
    let setup = street.setup(&peer.address()).set("auth", "source", "redis");
    let gateway = setup.set_redis("servers", vec![away.address()]).start();

    assert_fails(&gateway, "roles", "the auth role: ", "auth.source");
}

#[test]
fn settings_that_will_surprise_viewers_are_noted() {
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let gateway = setup.set("proxy", "ping_interval", "5m").start();

    let config = step(&gateway, "config");

    assert_eq!(config["outcome"], "note");
    assert!(config["change"].as_str().unwrap().contains("ping_interval"));
}

#[test]
fn no_token_is_in_what_the_doctor_writes_and_the_gateway_logs() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());

    let answer = doctor_of(&gateway, &["-o", "json"]);

    let uuid = |text: &str| {
        let mut words = text.split(|c: char| !(c.is_ascii_hexdigit() || c == '-'));
        words.any(|word| word.len() == 36)
    };
    assert!(!uuid(&answer.stdout), "{answer:?}");
    assert!(!gateway.text(gateway_stream()).contains("token="));
}

fn gateway_stream() -> crate::rig::process::Stream {
    crate::rig::process::Stream::Err
}

#[test]
fn the_help_tells_what_the_exit_codes_mean() {
    let help = vncgate(&["doctor", "--help"]).ok();
    assert!(help.stdout.contains("Exit codes:"), "{help:?}");
}
