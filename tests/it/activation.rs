//! Sockets that a service manager opened before the program ran.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use rustix::io::{FdFlags, fcntl_setfd};

use crate::rig::gateway::{Setup, bare};
use crate::rig::http::Request;
use crate::rig::peers::Peer;
use crate::rig::rfb::shake_hands;

/// A listener that a child inherits.
fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    fcntl_setfd(&listener, FdFlags::empty()).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Starts the program as a service manager does: the sockets as descriptors from 3 on, their names
/// in the environment.
fn activated(binary: &Path, names: &str, sockets: &[RawFd]) -> Command {
    // By way of numbers that nobody uses: a socket may have another's future number.
    let pairs = (3..).zip(sockets);
    let (away, home): (String, String) = pairs
        .map(|(to, from)| (format!(" 10{to}<&{from}"), format!(" {to}<&10{to}")))
        .unzip();
    let script = format!("exec {away}; LISTEN_PID=$$ exec \"$@\" {home}");
    let mut command = bare(Path::new("bash"));
    command
        .env("LISTEN_FDS", sockets.len().to_string())
        .env("LISTEN_FDNAMES", names)
        .args(["-c", &script, "bash"])
        .arg(binary);
    command
}

#[test]
fn sockets_of_the_service_manager_take_the_place_of_the_configs() {
    let peer = Peer::echo();
    let ((public, public_at), (api, api_at)) = (listener(), listener());
    let sockets = [public.as_raw_fd(), api.as_raw_fd()];

    let setup = Setup::new().instance("web-1", &peer.address());
    let gateway = setup.start_with(|binary| activated(binary, "proxy:api", &sockets));
    let mut ws = gateway.open("web-1");
    shake_hands(&mut ws);
    ws.send(b"alive");

    assert_eq!(gateway.listeners, [public_at]);
    assert_eq!(ws.read(5), b"alive");
    let instances = Request::new("GET", "/v1/instances");
    assert_eq!(instances.send(api_at).status, 200);
    let elsewhere = gateway.http(&instances).status;
    assert_eq!(elsewhere, 404, "the API has a door of its own now");
}

#[test]
fn a_socket_without_a_name_of_its_own_is_the_public_one() {
    let (public, address) = listener();
    let sockets = [public.as_raw_fd()];

    let gateway = Setup::new().start_with(|binary| activated(binary, "vncgate.socket", &sockets));

    assert_eq!(gateway.listeners, [address]);
    assert_eq!(gateway.http(&Request::new("GET", "/vnc.html")).status, 200);
}

#[test]
fn an_admin_socket_that_was_given_stays_when_the_program_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("given.sock");
    let socket = UnixListener::bind(&path).unwrap();
    fcntl_setfd(&socket, FdFlags::empty()).unwrap();

    let setup = Setup::new();
    let mut gateway = setup.start_with(|binary| activated(binary, "admin", &[socket.as_raw_fd()]));
    let answer = gateway.cli(&["instance", "list", "--admin-socket", path.to_str().unwrap()]);
    gateway.signal(rustix::process::Signal::TERM);

    answer.ok();
    assert_eq!(gateway.wait(), 0);
    assert!(path.exists());
}

#[test]
fn a_socket_that_no_door_wants_is_an_error_at_the_start() {
    for (name, tcp, wanted) in [
        ("rcp", true, "`rcp`"),
        ("admin", true, "must be a Unix socket"),
        ("proxy", false, "only the door `admin`"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let (public, _) = listener();
        let local = UnixListener::bind(directory.path().join("socket")).unwrap();
        fcntl_setfd(&local, FdFlags::empty()).unwrap();
        let socket = if tcp {
            public.as_raw_fd()
        } else {
            local.as_raw_fd()
        };

        let refused =
            Setup::new().refuse_to_start_with(|binary| activated(binary, name, &[socket]));

        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.stderr.contains(wanted), "{refused:?}");
    }
}
