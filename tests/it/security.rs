//! Towards VNC servers: passwords and certificates that the viewer never sees, in front of real
//! servers, and servers that break every rule.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::rig::browser::browse;
use crate::rig::certificates::Authority;
use crate::rig::gateway::{Gateway, Setup, run};
use crate::rig::libvirtd::Libvirtd;
use crate::rig::peers::Peer;
use crate::rig::qemu::{self, Qemu};
use crate::rig::rfb::{Viewer, shake_hands};
use crate::rig::vencrypt::{self, Versions};
use crate::rig::wait::until;
use crate::rig::xvnc::{self, Xvnc};

const PASSWORD: &str = "canary5e";
const USER: &str = "ann";
const SCREEN: &str = "<video><model type='vga'/></video>";

/// A directory with a CA, what it vouches for, and passwords.
struct Files {
    place: TempDir,
}

impl Files {
    /// `server-cert.pem` is for 127.0.0.1; the names are those that QEMU wants.
    fn new() -> Self {
        let place = TempDir::with_prefix("vncgate-pki-").unwrap();
        let pki = place.path().join("pki");
        let authority = Authority::new(&pki, "ca-cert.pem");
        authority.vouch_for("127.0.0.1", "server-cert.pem", "server-key.pem");
        authority.vouch_for("vncgate", "client-cert.pem", "client-key.pem");
        for (name, names, years) in [
            ("other", &["10.9.8.7", "kvm-2"][..], (2020, 2099)),
            ("nameless", &[], (2020, 2099)),
            ("old", &["127.0.0.1"], (2020, 2021)),
            ("young", &["127.0.0.1"], (2098, 2099)),
        ] {
            let (certificate, key) = (format!("{name}-cert.pem"), format!("{name}-key.pem"));
            authority.vouch(names, years, &certificate, &key);
        }
        fs::write(place.path().join("password"), format!("{PASSWORD}\n")).unwrap();
        fs::write(place.path().join("wrong"), "other").unwrap();
        fs::write(place.path().join("vnc"), xvnc::password_file(PASSWORD)).unwrap();
        Self { place }
    }

    fn pki(&self) -> PathBuf {
        self.place.path().join("pki")
    }

    fn path(&self, name: &str) -> String {
        self.place.path().join(name).to_str().unwrap().to_owned()
    }
}

/// `[proxy.vnc]` with these keys.
fn meeting(setup: Setup, keys: &[(&str, toml::Value)]) -> Setup {
    let keys = keys
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()));
    setup.set("proxy", "vnc", toml::Value::Table(keys.collect()))
}

fn gateway(address: &str, keys: &[(&str, toml::Value)]) -> Gateway {
    meeting(Setup::new().instance("web", address), keys).start()
}

/// The session's last line.
fn ended(gateway: &Gateway) -> Value {
    gateway.wait_for_event("the session's end", |event| {
        event["message"] == "session ended"
    })
}

/// Opens what must be refused: 4006, the sentence, and the words in the log.
#[track_caller]
fn assert_refused(gateway: &Gateway, sentence: &str, words: &str) {
    let closed = gateway.open("web").expect_close();
    assert_eq!(closed.code, Some(4006), "{closed:?}");
    assert!(!closed.reason.contains("127.0.0.1"), "{closed:?}");
    let event = gateway.wait_for_event("the refusal", |event| event["code"] == 4006);
    assert!(closed.reason.contains(sentence), "{closed:?} {event}");
    let reason = event["reason"].as_str().unwrap();
    assert!(reason.contains(words), "{reason}");
}

fn a_key_reaches_the_window(gateway: &Gateway, xvnc: &Xvnc) {
    let mut viewer = Viewer::new(gateway.open("web"));
    viewer.wait_for_pixel(5, 5, xvnc::BLUE);
    viewer.point(xvnc::SCREEN.0 / 2, xvnc::SCREEN.1 / 2);
    viewer.type_text("hello");
    xvnc.wait_for_keys("hello");
}

#[test]
fn xvnc_is_opened_with_each_scheme_and_the_viewer_is_asked_for_nothing() {
    let files = Files::new();
    let (cert, key) = (
        files.path("pki/server-cert.pem"),
        files.path("pki/server-key.pem"),
    );
    let (stored, pam) = (files.path("vnc"), pam(&files));
    let certificate = ["-X509Cert", &cert, "-X509Key", &key];
    let with_password = ["-PasswordFile", &stored];
    let plain = ["-PAMService", "vncgate", "-PlainUsers", USER];
    for (types, more, before, scheme, way) in [
        ("X509None", &[][..], None, "x509none", "tls"),
        ("X509Vnc", &with_password, None, "x509vnc", "tls"),
        ("X509Plain", &plain, Some(&*pam), "x509plain", "tls"),
        ("VncAuth", &with_password, None, "vncauth", "tcp"),
    ] {
        let arguments = [&certificate, more].concat();
        let xvnc = Xvnc::secured(types, &arguments, before);
        let gateway = gateway(
            xvnc.address(),
            &[
                ("ca_file", files.path("pki/ca-cert.pem").into()),
                ("user", USER.into()),
                ("password_file", files.path("password").into()),
            ],
        );

        a_key_reaches_the_window(&gateway, &xvnc);

        let ended = ended(&gateway);
        assert_eq!(
            (&ended["security"], &ended["way"]),
            (&scheme.into(), &way.into())
        );
        assert!(!format!("{:?}", gateway.events()).contains(PASSWORD));
    }
}

/// Makes PAM's service `vncgate`, which knows one user, in a mount namespace.
fn pam(files: &Files) -> String {
    let place = files.place.path().join("pam");
    fs::create_dir(&place).unwrap();
    let check = files.place.path().join("check");
    let script =
        format!("#!/bin/sh\n[ \"$PAM_USER\" = {USER} ] && [ \"$(tr -d '\\000')\" = {PASSWORD} ]\n");
    fs::write(&check, script).unwrap();
    let service = format!(
        "auth required pam_exec.so quiet expose_authtok /bin/sh {}\naccount required pam_permit.so\n",
        check.display()
    );
    fs::write(place.join("vncgate"), service).unwrap();
    format!("mount --bind {} /etc/pam.d", place.display())
}

#[test]
fn a_wrong_password_is_refused_by_xvnc_and_told_in_words() {
    let files = Files::new();
    let stored = files.path("vnc");
    let xvnc = Xvnc::secured("VncAuth", &["-PasswordFile", &stored], None);
    let gateway = gateway(
        xvnc.address(),
        &[("password_file", files.path("wrong").into())],
    );

    assert_refused(
        &gateway,
        "does not accept the gateway's password",
        "refused us with vncauth: Authentication fail",
    );
}

#[test]
fn anonymous_tls_is_refused_in_words_and_a_way_beside_it_is_taken() {
    let files = Files::new();
    let stored = files.path("vnc");
    let keys = [
        ("ca_file", files.path("pki/ca-cert.pem").into()),
        ("password_file", files.path("password").into()),
    ];
    let xvnc = Xvnc::secured("TLSVnc", &["-PasswordFile", &stored], None);
    assert_refused(
        &gateway(xvnc.address(), &keys),
        "offers no security that this gateway may use",
        "it offers TLSVnc: its TLS without a certificate",
    );

    let both = Xvnc::secured("TLSVnc,VncAuth", &["-PasswordFile", &stored], None);
    let gateway = gateway(both.address(), &keys);
    Viewer::new(gateway.open("web")).wait_for_pixel(5, 5, xvnc::BLUE);
    assert_eq!(ended(&gateway)["security"], "vncauth");
}

/// QEMU with the certificates of `files`, and a password.
fn qemu(files: &Files, verify: &str, password: bool) -> Qemu {
    let pki = files.pki();
    let tls = format!(
        "tls-creds-x509,id=t,dir={},endpoint=server,verify-peer={verify}",
        pki.display()
    );
    let secret = format!("secret,id=p,data={PASSWORD}");
    let more = if password {
        "tls-creds=t,password-secret=p"
    } else {
        "tls-creds=t"
    };
    Qemu::secured(more, &[&tls, &secret])
}

#[test]
fn qemu_is_opened_with_a_certificate_with_and_without_a_password() {
    let files = Files::new();
    for (verify, password, scheme) in [
        ("off", false, "x509none"),
        ("off", true, "x509vnc"),
        ("on", true, "x509vnc"),
    ] {
        let qemu = qemu(&files, verify, password);
        let gateway = gateway(
            qemu.address(),
            &[
                ("security", vec!["vencrypt"].into()),
                ("ca_file", files.path("pki/ca-cert.pem").into()),
                ("cert_file", files.path("pki/client-cert.pem").into()),
                ("key_file", files.path("pki/client-key.pem").into()),
                ("password_file", files.path("password").into()),
            ],
        );

        let mut viewer = Viewer::new(gateway.open("web"));
        viewer.wait_for_pixel(100, 100, qemu::BLUE);
        viewer.type_text("b");
        viewer.wait_for_pixel(100, 100, qemu::GREEN);
        drop(viewer);

        assert_eq!(ended(&gateway)["security"], scheme);
    }
}

#[test]
fn qemu_that_wants_a_client_certificate_says_so_whatever_is_shown() {
    let files = Files::new();
    let stranger = Files::new();
    let qemu = qemu(&files, "on", false);
    let ca = ("ca_file", files.path("pki/ca-cert.pem").into());

    let without = gateway(qemu.address(), std::slice::from_ref(&ca));
    assert_refused(
        &without,
        "wants a client certificate, and the gateway has none",
        "it wants a client certificate, and neither `cert_file` nor `key_file` is set",
    );

    let foreign = gateway(
        qemu.address(),
        &[
            ca.clone(),
            ("cert_file", stranger.path("pki/client-cert.pem").into()),
            ("key_file", stranger.path("pki/client-key.pem").into()),
        ],
    );
    assert_refused(
        &foreign,
        "does not accept the gateway's client certificate",
        "client-cert.pem: it is signed by no CA in ",
    );

    let old = gateway(
        qemu.address(),
        &[
            ca,
            ("cert_file", files.path("pki/old-cert.pem").into()),
            ("key_file", files.path("pki/old-key.pem").into()),
        ],
    );
    assert_refused(
        &old,
        "does not accept the gateway's client certificate",
        "old-cert.pem: it expired on 2021-01-01T00:00:00Z",
    );
}

#[test]
fn both_versions_of_tls_carry_a_session() {
    const BOTH: [Versions; 2] = [&[&rustls::version::TLS12], &[&rustls::version::TLS13]];
    let files = Files::new();
    for versions in BOTH {
        let peer = vencrypt::server(&files.pki(), "server", versions);
        let gateway = gateway(
            &peer.address(),
            &[("ca_file", files.path("pki/ca-cert.pem").into())],
        );

        let mut ws = gateway.open("web");
        let (_, _, name) = shake_hands(&mut ws);
        ws.send(b"to and fro");

        assert_eq!(name, "inside");
        assert_eq!(ws.read(10), b"to and fro");
    }
}

#[test]
fn a_server_with_a_bad_certificate_is_refused_with_what_is_bad() {
    let files = Files::new();
    let stranger = Files::new();
    for (place, name, sentence, words) in [
        (
            &files,
            "old",
            "has expired",
            "expired on 2021-01-01T00:00:00Z",
        ),
        (
            &files,
            "young",
            "is not valid yet",
            "is not valid before 2098-01-01T00:00:00Z",
        ),
        (
            &files,
            "other",
            "is for another name",
            "is not for the name 127.0.0.1: its subject alternative names are 10.9.8.7, kvm-2",
        ),
        (
            &files,
            "nameless",
            "is for another name",
            "it has no subject alternative name at all",
        ),
        (
            &stranger,
            "server",
            "from a CA that is not known here",
            "is signed by no CA in ",
        ),
    ] {
        let peer = vencrypt::server(&place.pki(), name, rustls::ALL_VERSIONS);
        let gateway = gateway(
            &peer.address(),
            &[("ca_file", files.path("pki/ca-cert.pem").into())],
        );

        assert_refused(&gateway, sentence, words);
    }
}

/// A CA of `openssl`'s and a certificate of it, with RSA keys of these many bits and this signature,
/// as `weak-ca.pem`, `weak.pem` and `weak.key`.
fn weak(place: &Path, (ca, own): (u32, u32), digest: &str) {
    let script = format!(
        "openssl req -x509 -newkey rsa:{ca} -nodes -keyout ca.key -out weak-ca.pem -subj /CN=weak -days 9 \
           -addext keyUsage=keyCertSign &&
         openssl req -newkey rsa:{own} -nodes -keyout weak.key -out csr -subj /CN=127.0.0.1 &&
         echo subjectAltName=IP:127.0.0.1 >names &&
         openssl x509 -req -in csr -CA weak-ca.pem -CAkey ca.key -CAcreateserial -days 9 -{digest} \
           -extfile names -out weak.pem"
    );
    let mut openssl = Command::new("sh");
    let made = run(openssl.arg("-c").arg(script).current_dir(place));
    assert_eq!(made.code, 0, "{made:?}");
}

#[test]
fn a_server_with_a_weak_certificate_is_refused_with_what_is_weak() {
    for (bits, digest, words) in [
        (
            (2048, 1024),
            "sha256",
            "it has an RSA key of 1024 bits, and 2048 are the least",
        ),
        (
            (1024, 2048),
            "sha256",
            "its CA has an RSA key of 1024 bits, and 2048 are the least",
        ),
        (
            (2048, 2048),
            "sha1",
            "it is signed with SHA-1, which can be forged",
        ),
        (
            (2048, 2048),
            "md5",
            "it is signed with MD5, which can be forged",
        ),
    ] {
        let place = TempDir::with_prefix("vncgate-weak-").unwrap();
        weak(place.path(), bits, digest);
        let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
        let (peer, _openssl) = vencrypt::weak_server(place.path(), "weak");
        let ca = path("weak-ca.pem");
        let gateway = gateway(&peer.address(), &[("ca_file", ca.into())]);

        let words = format!("its certificate is too weak: {words}");
        assert_refused(
            &gateway,
            "certificate of the console's host is too weak",
            &words,
        );
    }
}

#[test]
fn a_name_may_be_given_or_left_out_of_account() {
    let files = Files::new();
    let ca = ("ca_file", files.path("pki/ca-cert.pem").into());
    for (name, key, value) in [
        ("other", "tls_server_name", "kvm-2"),
        ("other", "tls_server_name", "10.9.8.7"),
        ("nameless", "verify", "ca"),
    ] {
        let peer = vencrypt::server(&files.pki(), name, rustls::ALL_VERSIONS);
        let gateway = gateway(&peer.address(), &[ca.clone(), (key, value.into())]);
        shake_hands(&mut gateway.open("web"));
    }

    let stranger = Files::new();
    let peer = vencrypt::server(&stranger.pki(), "server", rustls::ALL_VERSIONS);
    let gateway = gateway(&peer.address(), &[ca, ("verify", "ca".into())]);
    assert_refused(&gateway, "not known here", "is signed by no CA in ");
}

#[test]
fn files_that_change_count_at_the_next_connection() {
    let files = Files::new();
    let stranger = Files::new();
    let peer = vencrypt::server(&stranger.pki(), "server", rustls::ALL_VERSIONS);
    let ca = files.path("pki/ca-cert.pem");
    let gateway = gateway(&peer.address(), &[("ca_file", ca.clone().into())]);
    assert_refused(&gateway, "not known here", "is signed by no CA in ");

    fs::copy(stranger.path("pki/ca-cert.pem"), &ca).unwrap();
    shake_hands(&mut gateway.open("web"));

    fs::remove_file(&ca).unwrap();
    let closed = gateway.open("web").expect_close();
    assert!(closed.reason.contains("cannot read its own certificates"));
}

#[test]
fn a_host_of_its_own_and_an_instance_of_its_own_beat_the_wide_setting() {
    let files = Files::new();
    let peer = vencrypt::server(&files.pki(), "server", rustls::ALL_VERSIONS);
    let plain = Peer::echo();
    let own =
        toml::Table::from_iter([("ca_file".to_owned(), files.path("pki/ca-cert.pem").into())]);
    let setup = Setup::new()
        .instance("plain", &plain.address())
        .instance("web", &peer.address())
        .set_instance("vnc", own);
    let wide = [
        ("security", vec!["vencrypt"].into()),
        ("ca_file", files.path("pki/server-cert.pem").into()),
    ];
    let gateway = meeting(setup, &wide).start();

    shake_hands(&mut gateway.open("web"));
    let closed = gateway.open("plain").expect_close();

    assert_eq!(closed.code, Some(4006), "{closed:?}");
}

/// A server that says `pieces`, waiting for that many bytes before each, and then does `end`.
fn scripted<F>(pieces: Vec<(usize, Vec<u8>)>, end: F) -> Peer
where
    F: Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
{
    Peer::raw(move |mut stream| {
        for (heard, said) in &pieces {
            stream.read_exact(&mut vec![0; *heard])?;
            stream.write_all(said)?;
        }
        end(stream)
    })
}

const VERSION: &[u8] = b"RFB 003.008\n";

#[test]
fn an_encrypted_only_setting_never_falls_back() {
    let files = Files::new();
    let (told, heard) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let pieces = vec![(0, VERSION.to_vec()), (12, vec![2, 2, 1])];
    let peer = scripted(pieces, move |mut stream| {
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest);
        told.lock().unwrap().send(rest).unwrap();
        read.map(drop)
    });
    let gateway = gateway(
        &peer.address(),
        &[
            ("security", vec!["vencrypt"].into()),
            ("ca_file", files.path("pki/ca-cert.pem").into()),
            ("password_file", files.path("password").into()),
        ],
    );

    assert_refused(
        &gateway,
        "offers no security that this gateway may use",
        "it offers VncAuth, None: `security` does not allow VncAuth",
    );

    assert_eq!(heard.recv().unwrap(), b"", "it was told a choice");
    assert_eq!(peer.connections(), 1, "it was tried again");
}

/// All that a server with a password says up to `ServerInit`, and where each byte of ours is due.
fn good() -> Vec<(usize, Vec<u8>)> {
    vec![
        (0, VERSION.to_vec()),
        (12, vec![2, 77, 2]),
        (1, vec![0x5a; 16]),
        (16, vec![0; 4]),
    ]
}

/// The same, cut off after `count` bytes.
fn beginning(count: usize) -> Vec<(usize, Vec<u8>)> {
    let mut left = count;
    let mut pieces = Vec::new();
    for (heard, said) in good() {
        let said = said[..said.len().min(left)].to_vec();
        if said.is_empty() {
            break;
        }
        left -= said.len();
        pieces.push((heard, said));
    }
    pieces
}

/// `patience` is far beyond what a busy machine needs, where nothing is to be late.
fn instances(peers: &[Peer], patience: &str) -> Setup {
    let mut setup = Setup::new().set("proxy", "connect_timeout", patience);
    for (number, peer) in peers.iter().enumerate() {
        setup = setup.instance(&format!("cut-{number}"), &peer.address());
    }
    setup
}

#[test]
fn a_server_that_hangs_up_or_falls_silent_at_any_byte_is_refused_in_words() {
    let files = Files::new();
    let password = [("password_file", files.path("password").into())];
    let length: usize = good().iter().map(|(_, said)| said.len()).sum();
    for silent in [false, true] {
        let peers: Vec<_> = (12..length)
            .map(|count| {
                scripted(beginning(count), move |mut stream| {
                    if silent {
                        stream.read_to_end(&mut Vec::new())?;
                    }
                    Ok(())
                })
            })
            .collect();
        let patience = if silent { "3s" } else { "25s" };
        let gateway = meeting(instances(&peers, patience), &password).start();

        thread::scope(|scope| {
            for number in 0..peers.len() {
                let gateway = &gateway;
                scope.spawn(move || {
                    let closed = gateway.open(&format!("cut-{number}")).expect_close();
                    let sentence = if silent {
                        "does not finish the security handshake"
                    } else {
                        "hung up during the security handshake"
                    };
                    assert_eq!(closed.code, Some(4006), "{number}: {closed:?}");
                    assert!(closed.reason.contains(sentence), "{number}: {closed:?}");
                });
            }
        });
    }
}

#[test]
fn a_server_that_says_one_byte_at_a_time_is_understood() {
    let files = Files::new();
    let peer = Peer::raw(|mut stream| {
        for (heard, said) in good() {
            stream.read_exact(&mut vec![0; heard])?;
            for byte in said {
                stream.write_all(&[byte])?;
                thread::yield_now();
            }
        }
        stream.read_exact(&mut [0])?;
        stream.write_all(&server_init("slow"))?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    });
    let gateway = gateway(
        &peer.address(),
        &[("password_file", files.path("password").into())],
    );

    let (_, _, name) = shake_hands(&mut gateway.open("web"));

    assert_eq!(name, "slow");
}

fn server_init(name: &str) -> Vec<u8> {
    let mut bytes = vec![0, 64, 0, 64];
    bytes.extend([32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]);
    bytes.extend(u32::try_from(name.len()).unwrap().to_be_bytes());
    bytes.extend(name.as_bytes());
    bytes
}

#[test]
fn older_servers_look_like_new_ones_without_security() {
    for (pieces, name) in [
        (
            vec![(0, b"RFB 003.003\n".to_vec()), (12, vec![0, 0, 0, 1])],
            "3.3",
        ),
        (
            vec![
                (0, b"RFB 003.007\n".to_vec()),
                (12, vec![2, 200, 1]),
                (1, vec![]),
            ],
            "3.7",
        ),
    ] {
        let peer = scripted(pieces, move |mut stream| {
            stream.read_exact(&mut [0])?;
            stream.write_all(&server_init(name))?;
            stream.read_to_end(&mut Vec::new()).map(drop)
        });
        let gateway = gateway(&peer.address(), &[]);

        assert_eq!(shake_hands(&mut gateway.open("web")).2, name);
    }
}

#[test]
fn nothing_that_a_server_announces_is_believed() {
    let endless = |stream: TcpStream| {
        let mut stream = stream;
        let junk = vec![b'x'; 65_536];
        while stream.write_all(&junk).is_ok() {}
        Ok(())
    };
    let huge = [&[0][..], &u32::MAX.to_be_bytes()].concat();
    let reason = vec![(0, VERSION.to_vec()), (12, huge)];
    let closed = scripted(reason, endless);
    assert_refused(
        &gateway(&closed.address(), &[]),
        "lets nobody in just now",
        &"x".repeat(1024),
    );

    let mut types: Vec<u8> = vec![255];
    types.extend((0..255).map(|number| 100_u8.saturating_add(number % 100)));
    let many = scripted(vec![(0, VERSION.to_vec()), (12, types)], endless);
    assert_refused(
        &gateway(&many.address(), &[]),
        "offers no security",
        "and 247 more: ",
    );
}

#[test]
fn a_password_that_only_the_viewer_has_is_asked_for_in_the_page() {
    let files = Files::new();
    let stored = files.path("vnc");
    let (cert, key) = (
        files.path("pki/server-cert.pem"),
        files.path("pki/server-key.pem"),
    );
    let arguments = [
        "-PasswordFile",
        &stored,
        "-X509Cert",
        &cert,
        "-X509Key",
        &key,
    ];
    for types in ["VncAuth", "X509Vnc"] {
        let xvnc = Xvnc::secured(types, &arguments, None);
        let gateway = gateway(
            xvnc.address(),
            &[("ca_file", files.path("pki/ca-cert.pem").into())],
        );

        let fill = format!("#password={PASSWORD}");
        let seen = browse(
            &gateway.issue("web"),
            &[
                &["--wait-state", "credentials"][..],
                &["--fill", &fill, "--press", "Enter"],
                &["--wait-state", "connected"],
                &["--expect-pixel", "5,5,#2060c0"],
            ]
            .concat(),
        );
        assert_eq!(seen.code, 0, "{seen:?}");

        let seen = browse(
            &gateway.issue("web"),
            &[
                &["--wait-state", "credentials"][..],
                &["--fill", "#password=wrong", "--press", "Enter"],
                &["--expect-message", "password"],
            ]
            .concat(),
        );
        assert_eq!(seen.code, 0, "{seen:?}");
        gateway.wait_for_event("the verdict", |event| {
            event["message"] == "session ended" && event["code"] == 4006
        });
    }
}

#[test]
fn a_viewers_own_answer_reaches_the_server_and_so_does_what_follows_at_once() {
    let peer = Peer::raw(|mut stream| {
        stream.write_all(VERSION)?;
        stream.read_exact(&mut [0; 12])?;
        stream.write_all(&[1, 2])?;
        stream.read_exact(&mut [0])?;
        stream.write_all(&[0x5a; 16])?;
        let mut answer = [0; 16];
        stream.read_exact(&mut answer)?;
        assert_eq!(answer, [7; 16]);
        stream.write_all(&[0; 4])?;
        stream.read_exact(&mut [0])?;
        stream.write_all(&server_init("answered"))?;
        let mut rest = [0; 5];
        stream.read_exact(&mut rest)?;
        stream.write_all(&rest)
    });
    let gateway = gateway(&peer.address(), &[]);
    let mut ws = gateway.open("web");

    ws.send(&[VERSION, &[2], &[7; 16], &[1], b"early"].concat());

    assert_eq!(ws.read(12), VERSION);
    assert_eq!(ws.read(2), [1, 2]);
    assert_eq!(ws.read(16), [0x5a; 16]);
    assert_eq!(ws.read(4), [0; 4]);
    let init = server_init("answered");
    assert_eq!(ws.read(init.len()), init);
    assert_eq!(ws.read(5), b"early");
}

#[test]
fn a_viewer_that_sends_everything_at_once_or_in_pieces_loses_nothing() {
    let peer = Peer::echo();
    let gateway = gateway(&peer.address(), &[]);
    let all = [VERSION, &[1, 1], b"hasty keys"].concat();
    for cut in [1, 3, all.len()] {
        let mut ws = gateway.open("web");
        for piece in all.chunks(cut) {
            ws.send(piece);
        }
        assert_eq!(ws.read(12), VERSION);
        assert_eq!(ws.read(6), [1, 1, 0, 0, 0, 0]);
        ws.read(24 + 4);
        assert_eq!(ws.read(10), b"hasty keys");
    }
}

#[test]
fn a_viewer_that_is_none_is_told_so() {
    let peer = Peer::echo();
    let gateway = gateway(&peer.address(), &[]);
    for (bytes, words) in [
        (&b"GET / HTTP/1.1\r\n"[..], "does not speak RFB"),
        (
            b"RFB 003.008\n\x02",
            "security type 2, which was not offered",
        ),
    ] {
        let mut ws = gateway.open("web");
        ws.send(bytes);
        let (_, closed) = ws.read_to_close();
        assert_eq!(closed.code, Some(4012), "{closed:?}");
        assert!(closed.reason.contains(words), "{closed:?}");
    }
}

#[test]
fn a_password_in_libvirts_xml_is_used_and_never_shown() {
    let libvirtd = Libvirtd::far_away();
    let display = format!(
        "<graphics type='vnc' port='-1' autoport='yes' listen='0.0.0.0' passwd='{PASSWORD}'/>"
    );
    libvirtd.create("web", &format!("{display}{SCREEN}"));
    let gateway = Setup::new()
        .hypervisor("kvm-2", &libvirtd.far_uri())
        .start();

    let mut viewer = Viewer::new(gateway.open("web"));
    viewer.wait_for_pixel(100, 100, qemu::BLUE);
    drop(viewer);
    let ended = ended(&gateway);

    assert_eq!(
        (&ended["security"], &ended["way"]),
        (&"vncauth".into(), &"tcp".into())
    );
    let listed = gateway.cli(&["instance", "list", "-o", "json"]).ok();
    let said = format!("{listed:?}{:?}", gateway.events());
    assert!(!said.contains(PASSWORD), "{said}");
}

#[test]
fn libvirt_is_not_asked_for_passwords_where_the_config_forbids_it() {
    let libvirtd = Libvirtd::far_away();
    let display = format!(
        "<graphics type='vnc' port='-1' autoport='yes' listen='0.0.0.0' passwd='{PASSWORD}'/>"
    );
    libvirtd.create("web", &format!("{display}{SCREEN}"));
    let gateway = Setup::new()
        .hypervisor("kvm-2", &libvirtd.far_uri())
        .set_host("passwords", false)
        .start();

    let mut ws = gateway.open("web");
    ws.send(VERSION);

    assert_eq!(
        ws.read(14),
        [VERSION, &[1, 2]].concat(),
        "it asks the viewer"
    );
}

/// A gateway that dials the displays of this libvirtd's guests, with these of its own files.
fn looking(libvirtd: &Libvirtd, own: &[(&str, &str)]) -> Gateway {
    let socket = libvirtd.uri().replace("libvirt-sock", "libvirt-sock-ro");
    let file = |name: &str| libvirtd.pki().join(name).to_str().unwrap().to_owned();
    let mut vnc = toml::Table::from_iter([("security".to_owned(), vec!["vencrypt"].into())]);
    for (key, name) in own {
        vnc.insert((*key).to_owned(), file(name).into());
    }
    let setup = Setup::new().hypervisor("looking", &socket);
    let setup = setup.set_host("readonly", true);
    setup.set_host("vnc", vnc).start()
}

#[test]
fn a_display_of_libvirts_with_tls_is_dialled_with_its_ca() {
    let display = "<graphics type='vnc' port='-1' autoport='yes'/>";
    let ca = ("ca_file", "ca-cert.pem");
    let own = [
        ca,
        ("cert_file", "client-cert.pem"),
        ("key_file", "client-key.pem"),
    ];
    // As `vnc_tls_x509_verify` of its qemu.conf says.
    for (verify, files) in [(false, &own[..1]), (true, &own[..])] {
        let libvirtd = Libvirtd::with_tls_displays(verify);
        libvirtd.create("web", &format!("{display}{SCREEN}"));
        if verify {
            let closed = looking(&libvirtd, &[ca]).open("web").expect_close();
            assert_eq!(closed.code, Some(4006), "{closed:?}");
            let words = "wants a client certificate, and the gateway has none";
            assert!(closed.reason.contains(words), "{closed:?}");
        }

        let gateway = looking(&libvirtd, files);
        let mut viewer = Viewer::new(gateway.open("web"));
        viewer.wait_for_pixel(100, 100, qemu::BLUE);
        viewer.type_text("b");
        viewer.wait_for_pixel(100, 100, qemu::GREEN);
        drop(viewer);

        let ended = ended(&gateway);
        assert_eq!(
            (&ended["security"], &ended["way"]),
            (&"x509none".into(), &"tls".into())
        );
    }
}

#[test]
fn a_host_far_away_can_name_no_address_but_its_own() {
    let libvirtd = Libvirtd::far_away();
    let here = "<graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/>";
    libvirtd.create("web", &format!("{here}{SCREEN}"));
    let setup = || Setup::new().hypervisor("kvm-2", &libvirtd.far_uri());

    let bound = setup().start();
    let closed = bound.open("web").expect_close();
    let allowing = setup()
        .set("proxy", "allowed_networks", vec!["127.0.0.1/32"])
        .start();
    let mut viewer = Viewer::new(allowing.open("web"));

    assert_eq!(closed.code, Some(4005), "{closed:?}");
    assert!(closed.reason.contains("allowed networks"), "{closed:?}");
    viewer.wait_for_pixel(100, 100, qemu::BLUE);
}

#[test]
fn nothing_is_dialled_outside_the_allowed_networks() {
    let peer = Peer::echo();
    let gateway = Setup::new()
        .instance("web", &peer.address())
        .set("proxy", "allowed_networks", vec!["10.0.0.0/8"])
        .start();

    let closed = gateway.open("web").expect_close();

    assert_eq!(closed.code, Some(4005), "{closed:?}");
    assert_eq!(peer.connections(), 0);
}

#[test]
fn certificates_that_end_soon_are_told_in_the_log_and_in_the_metrics() {
    let files = Files::new();
    let peer = Peer::echo();
    let gateway = gateway(
        &peer.address(),
        &[
            ("ca_file", files.path("pki/ca-cert.pem").into()),
            ("cert_file", files.path("pki/old-cert.pem").into()),
            ("key_file", files.path("pki/old-key.pem").into()),
        ],
    );

    let event = gateway.wait_for_event("the warning", |event| {
        event["message"] == "a certificate has expired"
    });
    assert_eq!(event["until"], "2021-01-01T00:00:00Z");
    until("both certificates in the metrics", || {
        let left = |file: &str| gateway.metric("vncgate_certificate_days_left", file);
        let page = gateway.watch("/metrics").text();
        let fine = left("ca-cert.pem") > 365.0 && left("old-cert.pem").abs() < 0.01;
        (fine && page.contains("old-cert.pem")).then_some(())
    });
}

#[test]
fn thirty_seven_and_one_days_before_its_end_a_certificate_of_either_side_is_told_once() {
    const DAY: Duration = Duration::from_hours(24);
    let (files, peer) = (Files::new(), Peer::echo());
    let pki = files.place.path().join("short");
    let authority = Authority::new(&pki, "ca.pem");
    for (file, left) in [("month", DAY * 20), ("week", DAY * 5), ("day", DAY / 2)] {
        authority.vouch_until(left, &format!("{file}.pem"), &format!("{file}.key"));
    }
    let path = |name: &str| files.path(&format!("short/{name}"));
    let extra = toml::Table::from_iter([
        ("certificate".to_owned(), path("day.pem").into()),
        ("key".to_owned(), path("day.key").into()),
    ]);
    let setup = Setup::new().instance("web", &peer.address());
    let setup = setup.set("tls", "certificate", path("month.pem"));
    let setup = setup.set("tls", "key", path("month.key"));
    let setup = setup.set("tls", "extra", vec![toml::Value::Table(extra)]);
    let own = [
        ("ca_file", files.path("pki/ca-cert.pem").into()),
        ("cert_file", path("week.pem").into()),
        ("key_file", path("week.key").into()),
    ];
    let gateway = meeting(setup, &own).start();

    for (file, days, left) in [("month", 30, 20.0), ("week", 7, 5.0), ("day", 1, 0.5)] {
        let is_it = |event: &Value| {
            let named = event["file"]
                .as_str()
                .is_some_and(|it| it.ends_with(&format!("/{file}.pem")));
            named && event["message"] == "a certificate expires soon"
        };
        let event = gateway.wait_for_event("the warning", is_it);
        assert_eq!(
            (&event["level"], &event["days"]),
            (&"WARN".into(), &days.into())
        );
        let count = gateway.events().iter().filter(|event| is_it(event)).count();
        assert_eq!(count, 1, "{file}");
        let shown = gateway.metric("vncgate_certificate_days_left", &format!("/{file}.pem"));
        assert!((shown - left).abs() < 0.6, "{file}: {shown}");
    }
}

#[test]
fn chromium_sees_consoles_behind_passwords_and_certificates_and_is_asked_for_nothing() {
    let files = Files::new();
    let qemu = qemu(&files, "off", true);
    let stored = files.path("vnc");
    let xvnc = Xvnc::secured("VncAuth", &["-PasswordFile", &stored], None);
    let keys = [
        ("ca_file", files.path("pki/ca-cert.pem").into()),
        ("password_file", files.path("password").into()),
    ];
    let setup = Setup::new()
        .instance("guest", qemu.address())
        .instance("desk", xvnc.address());
    let gateway = meeting(setup, &keys).start();

    for (name, pixel) in [("guest", "100,100,#0000a8"), ("desk", "5,5,#2060c0")] {
        let words = ["--wait-state", "connected", "--expect-pixel", pixel];
        let seen = browse(&gateway.issue(name), &words);
        assert_eq!(seen.code, 0, "{name}: {seen:?}");
    }
}
