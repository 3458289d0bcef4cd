//! Other programs' configs turned into ours: whole files of Nova's as they are found in clouds.
//!
//! What is printed for each of tests/data/nova is kept beside it; `BLESS=1` writes it anew.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::rig::cell::{Console, Database as _, Instance, PASSWORD};
use crate::rig::certificates::Authority;
use crate::rig::gateway::{Answer, BINARY, Setup, bare, run, vncgate};
use crate::rig::mariadb::MariaDb;
use crate::rig::peers::Peer;
use crate::rig::process::Stream;
use crate::rig::rfb::shake_hands;
use crate::rig::ws::Upgrade;

/// The expected output, and what it is made of.
const CASES: &[(&str, &[&str])] = &[
    (
        "devstack",
        &["devstack/nova.conf", "devstack/nova_cell1.conf"],
    ),
    ("devstack-cell0", &["devstack/nova.conf"]),
    (
        "devstack-serial",
        &[
            "devstack/nova.conf",
            "devstack/nova_cell1.conf",
            "--console",
            "serial",
        ],
    ),
    (
        "devstack-api",
        &[
            "devstack/nova.conf",
            "devstack/nova_cell1.conf",
            "--source",
            "nova-api",
        ],
    ),
    ("kolla", &["kolla/nova.conf"]),
    ("kolla-db", &["kolla/nova.conf", "--source", "nova-db"]),
    ("old", &["old/nova.conf"]),
    ("old-api", &["old/nova.conf", "--source", "nova-api"]),
    ("spice", &["spice/nova.conf", "--console", "spice"]),
    ("tls", &["tls/nova.conf", "tls/nova.conf.d"]),
    ("compute-all", &["compute/nova.conf", "--role", "all"]),
    ("kolla-all", &["kolla/nova.conf", "--role", "all"]),
];

/// Part of every secret in tests/data/nova.
const CANARY: &str = "canary-";

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/nova")
}

/// `vncgate migrate nova ...`, among the files of tests/data/nova.
fn migrate(arguments: &[&str]) -> Answer {
    let mut command = bare(Path::new(BINARY));
    command.args(["migrate", "nova"]).args(arguments);
    run(command.current_dir(data()))
}

/// The same with the secrets in files of their own, and the printed config in another.
fn migrate_whole(arguments: &[&str]) -> (Answer, TempDir) {
    let directory = TempDir::with_prefix("vncgate-").unwrap();
    let secrets = directory.path().join("secrets");
    let secrets = ["--secrets", secrets.to_str().unwrap()];
    let answer = migrate(&[arguments, &secrets].concat()).ok();
    fs::write(directory.path().join("vncgate.toml"), &answer.stdout).unwrap();
    (answer, directory)
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn each_config_of_nova_becomes_the_one_that_is_kept_beside_it() {
    for (name, arguments) in CASES {
        let printed = migrate(arguments).ok();

        let kept = data().join(format!("{name}.toml"));
        if std::env::var_os("BLESS").is_some() {
            fs::write(&kept, &printed.stdout).unwrap();
        }
        let expected = fs::read_to_string(&kept).unwrap();
        assert!(printed.stdout == expected, "{name}: {}", printed.stdout);
    }
}

#[test]
fn nothing_of_a_real_config_is_refused_or_left_out_unsaid() {
    for (name, arguments) in CASES {
        let printed = migrate(arguments).ok().stdout;

        assert!(!printed.contains("Not taken over"), "{name}: {printed}");
        let source = printed.lines().any(|line| line.starts_with("source = "));
        assert!(source, "{name}: {printed}");
    }
}

#[test]
fn each_printed_config_is_accepted_once_its_files_are_there() {
    for (name, arguments) in CASES {
        let (answer, directory) = migrate_whole(arguments);
        let config = directory.path().join("vncgate.toml");
        fs::write(&config, with_certificates(&answer.stdout, directory.path())).unwrap();
        write_what_a_person_must(&directory.path().join("secrets"));

        let checked = vncgate(&["config", "check", config.to_str().unwrap()]);

        assert_eq!(checked.code, 0, "{name}: {checked:?}");
    }
}

/// The config with certificates that are there in place of those of a cloud that is not.
fn with_certificates(printed: &str, directory: &Path) -> String {
    let place = directory.join("certificates");
    Authority::new(&place, "ca.pem").vouch_for("gate", "cert.pem", "key.pem");
    let files = [
        ("/opt/stack/data/ca-bundle.pem", "ca.pem"),
        ("/etc/ssl/certs/ca-certificates.crt", "ca.pem"),
        ("/etc/pki/nova-novncproxy/ca-cert.pem", "ca.pem"),
        ("/etc/pki/nova-novncproxy/client-cert.pem", "cert.pem"),
        ("/etc/pki/nova-novncproxy/client-key.pem", "key.pem"),
    ];
    files
        .iter()
        .fold(printed.to_owned(), |printed, (file, ours)| {
            printed.replace(file, place.join(ours).to_str().unwrap())
        })
}

/// The files whose contents stand in none of Nova's.
fn write_what_a_person_must(secrets: &Path) {
    for file in ["nova-cell1.url", "keystone.password"] {
        let path = secrets.join(file);
        if !path.exists() {
            fs::write(path, "mysql://nova:x@127.0.0.1/nova\n").unwrap();
        }
    }
}

#[test]
fn secrets_go_into_files_for_one_user_and_nowhere_else() {
    for (name, arguments) in CASES {
        let bare = migrate(arguments).ok();
        let (whole, directory) = migrate_whole(arguments);

        for said in [&bare.stdout, &bare.stderr, &whole.stdout, &whole.stderr] {
            assert!(!said.contains(CANARY), "{name}: {said}");
        }
        let secrets = directory.path().join("secrets");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&secrets), 0o700, "{name}");
        for file in files_in(&secrets) {
            assert_eq!(mode(&file), 0o600, "{name}");
            assert!(
                fs::read_to_string(&file).unwrap().contains(CANARY),
                "{file:?}"
            );
            assert!(whole.stderr.contains(file.to_str().unwrap()), "{whole:?}");
        }
    }
}

#[test]
fn a_secret_is_written_as_nova_understands_it() {
    let (_, directory) = migrate_whole(&["old/nova.conf"]);
    let url = fs::read_to_string(directory.path().join("secrets/nova-cell1.url")).unwrap();
    assert_eq!(url, "mysql://nova:canary-old-db@10.0.0.10/nova\n");

    let (_, directory) = migrate_whole(&["tls/nova.conf", "tls/nova.conf.d"]);
    let secret = fs::read_to_string(directory.path().join("secrets/keystone.secret")).unwrap();
    assert_eq!(secret, "canary-app-secret\n");
}

#[test]
fn a_file_that_is_there_is_not_overwritten() {
    let (_, directory) = migrate_whole(&["old/nova.conf"]);
    let secrets = directory.path().join("secrets");
    let file = secrets.join("nova-cell1.url");
    fs::write(&file, "mine").unwrap();

    let refused = migrate(&["old/nova.conf", "--secrets", secrets.to_str().unwrap()]);

    assert_eq!((refused.code, &*refused.stdout), (1, ""), "{refused:?}");
    assert!(
        refused.stderr.contains("nova-cell1.url is there already"),
        "{refused:?}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn what_cannot_be_read_is_told_with_file_and_line_and_without_the_line_itself() {
    let directory = TempDir::with_prefix("vncgate-").unwrap();
    let path = directory.path().join("nova.conf");
    let path = path.to_str().unwrap();
    for (text, expected) in [
        (
            &b"[database]\nconnection canary-1\n"[..],
            "nova.conf: line 2: expected `key = value`",
        ),
        (
            b"[vnc\ncanary-1 = 1\n",
            "nova.conf: line 1: a section ends in `]`",
        ),
        (
            b"[vnc]\na = canary-\xff\n",
            "nova.conf: line 2: it is no UTF-8",
        ),
        (
            b"[vnc]\nnovncproxy_port = canary-1\n",
            "[vnc] novncproxy_port (PATH:2): it is not a number that Nova would take",
        ),
    ] {
        fs::write(path, text).unwrap();

        let refused = migrate(&[path]);

        assert_eq!((refused.code, &*refused.stdout), (3, ""), "{refused:?}");
        let expected = expected.replace("PATH", path);
        assert!(refused.stderr.contains(&expected), "{refused:?}");
        assert!(!refused.stderr.contains(CANARY), "{refused:?}");
    }
    let missing = migrate(&["/nonexistent/nova.conf"]);
    assert_eq!(missing.code, 3, "{missing:?}");
    let expected = "cannot read /nonexistent/nova.conf: No such file";
    assert!(missing.stderr.contains(expected), "{missing:?}");
}

#[test]
fn an_empty_directory_is_told() {
    let directory = TempDir::with_prefix("vncgate-").unwrap();

    let refused = migrate(&[directory.path().to_str().unwrap()]);

    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.stderr.contains("there is no *.conf"), "{refused:?}");
}

#[test]
fn a_directory_that_nova_reads_unasked_is_pointed_out() {
    let pointed_out = migrate(&["tls/nova.conf"]).ok();
    let named = migrate(&["tls/nova.conf", "tls/nova.conf.d"]).ok();

    let hint = "note: Nova reads tls/nova.conf.d too";
    assert!(pointed_out.stderr.contains(hint), "{pointed_out:?}");
    assert!(!named.stderr.contains(hint), "{named:?}");
}

#[test]
fn a_console_of_nova_opens_by_nothing_but_its_migrated_config() {
    let (cell, peer) = (MariaDb::start(), Peer::echo());
    let instance = Instance::running("web-1");
    let console = Console::novnc(&instance, &peer.address());
    cell.add_instances(std::slice::from_ref(&instance));
    cell.add_consoles(std::slice::from_ref(&console));
    let place = TempDir::with_prefix("vncgate-").unwrap();
    let nova = place.path().join("nova.conf");
    let base = console.base.as_deref().unwrap();
    let text = format!(
        "[DEFAULT]\ndebug = true\n[vnc]\nnovncproxy_host = 127.0.0.1\nnovncproxy_base_url = {base}\n\
         [database]\nconnection = {}\n",
        cell.url()
    );
    fs::write(&nova, text).unwrap();

    let secrets = place.path().join("secrets");
    let nova = nova.to_str().unwrap();
    let printed = migrate(&[nova, "--secrets", secrets.to_str().unwrap()]).ok();
    let gateway = on_free_ports(&printed.stdout).proxy_alone().start();

    let path = format!("/websockify?token={}", console.token);
    let upgrade = Upgrade::new(&path).with("Origin", "http://127.0.0.1:6080");
    let mut ws = upgrade.open(gateway.listen).unwrap();
    assert_eq!(shake_hands(&mut ws).2, "peer");
    assert!(!gateway.text(Stream::Err).contains(PASSWORD));
}

/// The config with the doors of a test.
fn on_free_ports(printed: &str) -> Setup {
    let doors = [
        ("proxy", "listen"),
        ("monitor", "listen"),
        ("admin", "socket"),
    ];
    let config: toml::Table = printed.parse().unwrap();
    let keys = config.iter().flat_map(|(section, keys)| {
        let keys = keys.as_table().unwrap().iter();
        keys.map(move |(key, value)| (section.as_str(), key.as_str(), value.clone()))
    });
    let kept = keys.filter(|(section, key, _)| !doors.contains(&(*section, *key)));
    kept.fold(Setup::new(), |setup, (section, key, value)| {
        setup.set(section, key, value)
    })
}
