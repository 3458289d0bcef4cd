use std::time::Duration;

use tempfile::TempDir;

use super::driver::{BoxFuture, Directory, Driver, Entry, Fixed};
use super::*;
use crate::drain::Drain;
use crate::model::{PowerState, Scheme, Security};
use crate::rpc::{self, Client};

const VNC: &str = include_str!("../../tests/data/libvirt/vnc.xml");
const OFF: &str = include_str!("../../tests/data/libvirt/off.xml");
const PTY: &str = include_str!("../../tests/data/libvirt/pty.xml");
const SPICE: &str = include_str!("../../tests/data/libvirt/spice.xml");

const WEB: &str = "3f0c7a52-6d0e-4f6e-9a55-0c1de7a00001";

/// A directory with these files, which lives as long as the first of the pair.
fn directory(files: &[&str]) -> (TempDir, Box<dyn Driver>) {
    let place = tempfile::tempdir().unwrap();
    for (number, xml) in files.iter().enumerate() {
        std::fs::write(place.path().join(format!("{number}.xml")), xml).unwrap();
    }
    let directory = Directory::new(place.path().into(), "127.0.0.1".parse().unwrap());
    (place, Box::new(directory))
}

fn entry(id: Option<&str>, name: &str, address: &str) -> Entry {
    Entry {
        id: id.map(|id| id.parse().unwrap()),
        name: name.to_owned(),
        kind: ConsoleKind::Vnc,
        target: target_at(address),
        project: None,
        security: Security::default(),
    }
}

fn fixed(entries: Vec<Entry>) -> Box<dyn Driver> {
    Box::new(Fixed::new("config", entries).unwrap())
}

fn target_at(address: &str) -> Target {
    address.parse::<Address>().unwrap().into()
}

/// Near, with the drain that ends it.
fn client(drivers: Vec<Box<dyn Driver>>) -> (Drain, Client<Compute>) {
    let drain = Drain::default();
    let client = Client::Near(rpc::serve(Compute::new(drivers), &drain.watch()));
    (drain, client)
}

async fn locate(client: &Client<Compute>, name: &str) -> Result<String, ComputeError> {
    let located = client.locate(name.into(), ConsoleType::Novnc);
    located.await.map(|located| located.target.to_string())
}

async fn refusal(client: &Client<Compute>, name: &str) -> String {
    locate(client, name).await.unwrap_err().to_string()
}

#[derive(Debug)]
struct Hanging;

impl Driver for Hanging {
    fn source(&self) -> &'static str {
        "far away"
    }

    fn survey(&self) -> BoxFuture<'_, Survey> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn an_instance_is_found_by_uuid_and_by_both_its_names() {
    let (_place, directory) = directory(&[VNC, OFF]);
    let (_drain, client) = client(vec![directory]);

    for name in [WEB, "web-1", "Web shop"] {
        assert_eq!(locate(&client, name).await.unwrap(), "127.0.0.1:5901");
    }
}

#[tokio::test]
async fn a_log_is_read_where_the_xml_of_this_machine_names_one() {
    let logs = tempfile::tempdir().unwrap();
    let path = logs.path().join("pty-1.log");
    std::fs::write(&path, "booting\nlogin: ").unwrap();
    let kept = PTY.replace("/var/log/vms/pty-1.log", path.to_str().unwrap());
    let (place, here) = directory(&[&kept, OFF]);
    let there = Directory::new(place.path().into(), "10.0.0.7".parse().unwrap());
    let (_drain, far) = client(vec![Box::new(there)]);
    let (_drain, client) = client(vec![here]);
    let log = async |name: &str, lines| {
        let log = client.console_log(name.into(), lines).await;
        log.map(ConsoleLog::into_text)
    };

    let elsewhere = far.console_log("pty-1".into(), None).await.unwrap_err();
    assert_eq!(
        elsewhere.to_string(),
        "nobody keeps a log of `pty-1`: its XML names no `<log file=...>` on this machine"
    );
    assert_eq!(log("pty-1", None).await.unwrap(), "booting\nlogin: ");
    assert_eq!(log("pty-1", Some(1)).await.unwrap(), "login: ");
    assert!(matches!(
        log("off-1", None).await,
        Err(ComputeError::NoLog { .. })
    ));
    assert!(matches!(
        log("none", None).await,
        Err(ComputeError::NoSuchInstance { .. })
    ));
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    let refused = log("pty-1", None).await.unwrap_err().to_string();
    assert!(refused.ends_with("it is no regular file"), "{refused}");
}

#[tokio::test]
async fn the_hypervisors_name_goes_before_the_name_people_gave() {
    let alias = entry(None, "Web shop", "127.0.0.1:5999");
    let (_place, directory) = directory(&[VNC]);
    let (_drain, client) = client(vec![directory, fixed(vec![alias])]);

    assert_eq!(locate(&client, "Web shop").await.unwrap(), "127.0.0.1:5999");
}

#[tokio::test]
async fn two_instances_of_one_name_have_to_be_told_apart_by_uuid() {
    let other = "11111111-2222-4333-8444-555555555555";
    let (_place, directory) = directory(&[VNC]);
    let web = entry(Some(other), "web-1", "127.0.0.1:5999");
    let (_drain, client) = client(vec![directory, fixed(vec![web])]);

    let refusal = refusal(&client, "web-1").await;

    let expected =
        format!("`web-1` is the name of several instances, use the UUID: {WEB}, {other}");
    assert_eq!(refusal, expected);
    assert_eq!(locate(&client, other).await.unwrap(), "127.0.0.1:5999");
}

#[tokio::test]
async fn of_two_sources_of_one_instance_the_first_that_has_it_running_counts() {
    let off = VNC.replace(" id='4'", "");
    let moved = VNC.replace("5901", "5902");
    let (_off, off) = directory(&[&off]);
    let (_running, running) = directory(&[&moved]);
    let (_later, later) = directory(&[VNC]);
    let (_drain, client) = client(vec![off, running, later]);

    assert_eq!(locate(&client, WEB).await.unwrap(), "127.0.0.1:5902");
    assert_eq!(client.instances().await.unwrap().instances.len(), 1);
}

#[tokio::test]
async fn each_refusal_says_what_to_do() {
    let (_place, directory) = directory(&[OFF, PTY, SPICE, &VNC.replace("'5901'", "'-1'")]);
    let (_drain, client) = client(vec![directory]);

    for (name, sentence) in [
        (
            "nobody",
            "there is no instance `nobody`, see `vncgate instance list` for those there are",
        ),
        ("off-1", "`off-1` is off, start it and try again"),
        ("spice-1", "`spice-1` has no vnc console, it has: spice"),
        ("pty-1", "`pty-1` has no vnc console, nor any other"),
        (
            "web-1",
            "the vnc console of `Web shop` has no address yet, try again in a moment",
        ),
    ] {
        assert_eq!(refusal(&client, name).await, sentence);
    }
}

#[tokio::test]
async fn a_recheck_returns_where_the_console_is_now() {
    let (place, directory) = directory(&[VNC]);
    let (_drain, client) = client(vec![directory]);
    let stored = client.locate(WEB.into(), ConsoleType::Novnc);
    let stored = stored.await.unwrap().target;
    std::fs::write(place.path().join("0.xml"), VNC.replace("5901", "5950")).unwrap();

    let now = client.recheck(WEB.parse().unwrap(), ConsoleType::Novnc, stored);

    assert_eq!(now.await.unwrap(), target_at("127.0.0.1:5950"));
}

#[tokio::test]
async fn a_port_that_has_become_anothers_is_refused_at_locate_and_at_recheck() {
    let other = OFF
        .replace("type='kvm'", "type='kvm' id='9'")
        .replace("'-1'", "'5901'")
        .replace("'127.0.0.1'", "'localhost'");
    let (_place, directory) = directory(&[VNC, &other]);
    let (_drain, client) = client(vec![directory]);

    let located = locate(&client, WEB).await;
    let stored = target_at("127.0.0.1:5901");
    let rechecked = client.recheck(WEB.parse().unwrap(), ConsoleType::Novnc, stored);

    let claimed = ComputeError::Claimed {
        address: "127.0.0.1:5901".parse().unwrap(),
        instance: "web-1".to_owned(),
        other: "off-1".to_owned(),
    };
    assert_eq!(located, Err(claimed.clone()));
    assert_eq!(rechecked.await, Err(claimed));
}

#[tokio::test]
async fn static_entries_may_share_an_address_among_themselves_but_not_with_a_guest() {
    let aliases = ["a", "b"].map(|name| entry(None, name, "127.0.0.1:5902"));
    let mut entries = aliases.to_vec();
    entries.push(entry(None, "stray", "localhost:5901"));
    let (_place, directory) = directory(&[VNC]);
    let (_drain, client) = client(vec![fixed(entries), directory]);

    assert_eq!(locate(&client, "a").await.unwrap(), "127.0.0.1:5902");
    assert_eq!(locate(&client, "b").await.unwrap(), "127.0.0.1:5902");
    let stray = locate(&client, "stray").await;
    assert!(matches!(stray, Err(ComputeError::Claimed { .. })));
    assert_eq!(locate(&client, "web-1").await.unwrap(), "127.0.0.1:5901");
}

#[tokio::test]
async fn a_source_that_could_not_be_read_is_not_taken_for_a_missing_instance() {
    let (_place, directory) = directory(&[VNC, "<domain>"]);
    let (_drain, client) = client(vec![directory]);

    let missing = locate(&client, "web-2").await;

    assert!(matches!(missing, Err(ComputeError::Source { .. })));
    assert!(locate(&client, "web-1").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_hangs_hides_no_other_and_is_named() {
    let web = entry(None, "web", "127.0.0.1:5902");
    let (_drain, client) = client(vec![Box::new(Hanging), fixed(vec![web])]);
    let started = tokio::time::Instant::now();

    let survey = client.instances().await.unwrap();

    assert_eq!(survey.instances.len(), 1);
    let [fault] = &survey.faults[..] else {
        panic!("{:?}", survey.faults)
    };
    assert_eq!(fault.to_string(), "far away: did not answer within 5 s");
    assert_eq!(started.elapsed(), Duration::from_secs(5));
}

#[tokio::test]
async fn one_instance_is_shown_whether_it_runs_or_not() {
    let (_place, directory) = directory(&[OFF]);
    let (_drain, client) = client(vec![directory]);

    let instance = client.instance("off-1".into()).await.unwrap();

    assert_eq!(instance.state, PowerState::Off);
}

#[test]
fn every_message_reads_back_from_json() {
    let error = ComputeError::Ambiguous {
        name: "web".to_owned(),
        candidates: vec![WEB.parse().unwrap()],
    };
    let request = Request::Recheck {
        instance: WEB.parse().unwrap(),
        console_type: ConsoleType::Novnc,
        stored: target_at("unix:/run/a.sock"),
    };

    let read_back: ComputeError =
        serde_json::from_str(&serde_json::to_string(&error).unwrap()).unwrap();
    let request_text = serde_json::to_string(&request).unwrap();
    let request_back: Request = serde_json::from_str(&request_text).unwrap();

    assert_eq!(read_back, error);
    assert_eq!(format!("{request_back:?}"), format!("{request:?}"));
}

#[tokio::test(start_paused = true)]
async fn what_one_driver_found_does_not_wait_for_another_that_hangs() {
    let known = fixed(vec![entry(None, "router", "10.0.0.7:5901")]);
    let (_drain, client) = client(vec![Box::new(Hanging), known]);
    let started = tokio::time::Instant::now();

    assert_eq!(locate(&client, "router").await.unwrap(), "10.0.0.7:5901");

    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
}

/// A driver that knows one instance and a password of it.
#[derive(Debug)]
struct Knowing(&'static str, Instance);

impl Driver for Knowing {
    fn source(&self) -> &str {
        self.0
    }

    fn survey(&self) -> BoxFuture<'_, Survey> {
        let survey = Survey {
            instances: vec![self.1.clone()],
            faults: Vec::new(),
        };
        Box::pin(async move { survey })
    }

    fn meeting<'a>(
        &'a self,
        _instance: &'a Instance,
        _kind: ConsoleKind,
    ) -> BoxFuture<'a, driver::Met> {
        let meeting = Meeting {
            password: Some(self.0.to_owned().into()),
            ..Meeting::default()
        };
        Box::pin(async move { Ok(Some(meeting)) })
    }
}

#[tokio::test]
async fn a_server_is_met_as_the_source_says_that_knows_where_it_is() {
    let instance = |source: &str, state| Instance {
        id: InstanceId(uuid::Uuid::nil()),
        name: "web".to_owned(),
        display_name: None,
        state,
        flavor: None,
        owner: None,
        consoles: Vec::new(),
        source: source.to_owned(),
        host: None,
    };
    let stale = Knowing("stale", instance("stale", PowerState::Off));
    let live = Knowing("live", instance("live", PowerState::Running));
    let compute = Compute::new(vec![Box::new(stale), Box::new(live)]);

    let id = InstanceId(uuid::Uuid::nil());
    let meeting = compute.meeting(id, ConsoleKind::Vnc).await.unwrap();

    assert_eq!(meeting.password, Some("live".to_owned().into()));
}

#[test]
fn how_a_server_is_met_survives_the_wire_and_shows_no_password() {
    let meeting = Meeting {
        security: Security {
            security: Some(vec![Scheme::X509Vnc].into()),
            ca_file: Some("/ca".into()),
            ..Security::default()
        },
        password: Some("s3cret".to_owned().into()),
        within: Some(vec!["kvm-1".parse().unwrap()]),
    };
    let reply = Reply::Meeting(Box::new(meeting.clone()));

    let wire = serde_json::to_string(&reply).unwrap();
    let Reply::Meeting(read) = serde_json::from_str(&wire).unwrap() else {
        panic!("another reply")
    };

    assert_eq!(*read, meeting);
    assert!(!format!("{reply:?}").contains("s3cret"));
}
