//! Doors that serve several consoles and are told which by HTTP CONNECT.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::rig::gateway::{Gateway, Setup};
use crate::rig::peers::Peer;
use crate::rig::rfb::{shake_hands, welcome_greeted};
use crate::rig::wait::PATIENCE;
use crate::rig::ws::Upgrade;

const OPENED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

#[test]
fn the_consoles_bytes_follow_the_answer_however_they_come() {
    for size in [1, 20, OPENED.len() + 4, 4096] {
        let door = Peer::raw(move |mut stream| {
            assert_eq!(asked(&mut stream)?, "CONNECT console-1 HTTP/1.1\r\n\r\n");
            let says = [OPENED, b"RFB 003.008\n"].concat();
            for piece in says.chunks(size) {
                stream.write_all(piece)?;
            }
            welcome_greeted(&mut stream, "behind the door")?;
            std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
        });
        let gateway = gateway_to(&door);

        let mut ws = gateway.open("guest");

        assert_eq!(shake_hands(&mut ws).2, "behind the door", "{size}");
    }
}

#[test]
fn a_serial_line_behind_a_door_loses_nothing_that_came_with_the_answer() {
    let door = Peer::raw(|mut stream| {
        asked(&mut stream)?;
        stream.write_all(&[OPENED, b"login: "].concat())?;
        std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
    });
    let setup = Setup::new().instance("guest", &door.address());
    let setup = setup.set_instance("kind", "serial");
    let gateway = setup
        .set_instance("internal_access_path", "console-1")
        .start();
    let url = gateway.issue_with(&["token", "issue", "guest", "--type", "serial"]);

    let path = format!("/?token={}", url.token());
    let mut ws = Upgrade::new(&path).open(gateway.listen).unwrap();

    assert_eq!(ws.read(7), b"login: ");
}

#[test]
fn a_door_that_does_not_open_is_told_to_the_viewer_in_words() {
    for (says, lingers, words) in [
        (
            &b"HTTP/1.1 404 200 consoles, not yours\r\n\r\n"[..],
            true,
            "does not open this",
        ),
        (b"RFB 003.008\n\r\n\r\n", true, "does not understand"),
        (&[b'x'; 5000], true, "does not understand"),
        (b"HTTP/1.1 200 OK\r\n", false, "hung up"),
        (b"HTTP/1.1 200 OK\r\n", true, "does not answer"),
    ] {
        let door = Peer::raw(move |mut stream| {
            asked(&mut stream)?;
            stream.write_all(says)?;
            while lingers && stream.read(&mut [0; 64])? > 0 {}
            Ok(())
        });
        let gateway = gateway_to(&door);
        let upgrade = gateway.upgrade("guest");

        let started = Instant::now();
        let closed = upgrade.open(gateway.listen).unwrap().expect_close();

        assert_eq!(closed.code, Some(4005), "{closed:?}");
        assert!(closed.reason.contains(words), "{closed:?}");
        assert!(started.elapsed() < PATIENCE / 2, "{:?}", started.elapsed());
        assert_eq!(door.connections(), 1);
    }
}

#[test]
fn an_access_path_that_could_end_its_line_is_refused_at_the_start() {
    let setup = Setup::new().instance("guest", "127.0.0.1:5900");
    let setup = setup.set_instance("internal_access_path", "a HTTP/1.1\r\nX: 1");

    let refused = setup.refuse_to_start();

    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(
        refused.stderr.contains("internal access path"),
        "{refused:?}"
    );
}

fn gateway_to(door: &Peer) -> Gateway {
    let setup = Setup::new().instance("guest", &door.address());
    let setup = setup.set("proxy", "connect_timeout", "2s");
    setup
        .set_instance("internal_access_path", "console-1")
        .start()
}

/// The head of the request.
fn asked(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut request = vec![0; "CONNECT console-1 HTTP/1.1\r\n\r\n".len()];
    stream.read_exact(&mut request)?;
    Ok(String::from_utf8_lossy(&request).into_owned())
}
