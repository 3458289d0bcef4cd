//! What auth and compute promise to those who call them, kept near and far alike.
//!
//! Every call of both facades is made in four ways: over a channel, over a Unix socket, and over
//! TCP with a secret and with mutual TLS. What comes back must be the same, errors included.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::auth::{
    self, Auth, AuthError, Beat, Cause, LiveSession, NewGrant, Order, SessionRecord,
};
use crate::compute::driver::{
    BoxFuture, Change, Changes, Driver, Fault, Logged, Met, Pictured, Survey,
};
use crate::compute::{Compute, ComputeError};
use crate::drain::{Drain, Watch};
use crate::http::Listener;
use crate::model::{
    Address, Browser, Console, ConsoleKind, ConsoleType, Instance, InstanceId, InstanceRef,
    Meeting, PowerState, Rights, SessionId, Target, Terms, Token, UnixTime,
};
use crate::rpc::{self, Client, Desk, Keys, Links, Role, Secret, Timeouts};
use crate::tls::{Mutual, MutualFiles};

/// A role that was started, and what it needs to live.
struct Started<R: Role> {
    client: Client<R>,
    _drain: Drain,
    _directory: TempDir,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Near,
    Unix,
    Secret,
    Mutual,
}

const WAYS: [Way; 4] = [Way::Near, Way::Unix, Way::Secret, Way::Mutual];

impl<R: Role> Started<R> {
    fn new(way: Way, make: impl FnOnce(&Watch) -> R) -> Self {
        let (drain, directory) = (Drain::default(), tempfile::tempdir().unwrap());
        let watch = drain.watch();
        let near = Client::Near(rpc::serve(make(&watch), &watch));
        let client = match way {
            Way::Near => near,
            Way::Unix => far(near, Keys::Nothing, &directory, &watch),
            Way::Secret => {
                let path = directory.path().join("secret");
                std::fs::write(&path, "0123456789abcdef0123456789abcdef").unwrap();
                let keys = Keys::Secret(Secret::new(path).unwrap());
                far(near, keys, &directory, &watch)
            }
            Way::Mutual => {
                let keys = Keys::Mutual(Mutual::new(certified(&directory)).unwrap());
                far(near, keys, &directory, &watch)
            }
        };
        Self {
            client,
            _drain: drain,
            _directory: directory,
        }
    }
}

fn far<R: Role>(near: Client<R>, keys: Keys, directory: &TempDir, watch: &Watch) -> Client<R> {
    let socket = directory.path().join("rpc.sock");
    let (door, address) = if matches!(keys, Keys::Nothing) {
        (Listener::unix(&socket).unwrap(), Address::Unix(socket))
    } else {
        let door = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = door.address().unwrap().to_string().parse().unwrap();
        (door, address)
    };
    let keys = Arc::new(keys);
    let desk = Arc::new(Desk::default().with(near));
    watch.spawn_service(desk.serve(door, Arc::clone(&keys), watch.clone()));
    let timeouts = Timeouts {
        connect: Duration::from_secs(5),
        call: Duration::from_secs(15),
    };
    Links::new(keys, timeouts).client(&[address])
}

/// An authority, and a certificate of it that is good for any role on this machine.
fn certified(directory: &TempDir) -> MutualFiles {
    let mut ours = rcgen::CertificateParams::new([]).unwrap();
    ours.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = rcgen::CertifiedIssuer::self_signed(ours, key).unwrap();
    let own = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let signed = own.signed_by(&key, &authority).unwrap();
    let write = |name: &str, text: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    MutualFiles {
        ca: write("ca.pem", authority.pem()),
        certificate: write("own.pem", signed.pem()),
        key: write("own.key", key.serialize_pem()),
    }
}

const WEB: InstanceId = InstanceId(uuid::Uuid::from_bytes([7; 16]));

fn started_auth(way: Way) -> Started<Auth> {
    let settings = auth::Settings {
        max_tokens: 2,
        limits: auth::Limits {
            all: Some(2),
            ..auth::Limits::default()
        },
        reconnect_window: Duration::from_secs(30),
        terms: Terms::default(),
    };
    Started::new(way, |watch| Auth::in_memory(settings, watch))
}

fn new_grant(terms: Terms) -> NewGrant {
    NewGrant {
        instance: WEB,
        instance_name: "web-1".into(),
        console_type: ConsoleType::Novnc,
        target: "10.0.0.7:5900".parse::<Address>().unwrap().into(),
        rights: Rights::VIEW,
        base: "https://console.example.org/vnc.html?a=b".parse().unwrap(),
        project: Some("p".into()),
        caller: "key:portal".into(),
        terms,
        ttl: Duration::from_mins(10),
    }
}

fn record(token: &Token, terms: Terms, browser: &str) -> SessionRecord {
    SessionRecord {
        id: SessionId::generate(),
        token: token.hash().id(),
        instance: WEB,
        instance_name: "web-1".into(),
        console_type: ConsoleType::Novnc,
        project: Some("p".into()),
        host: "10.0.0.7:5900".into(),
        proxy: "gate-1".into(),
        caller: "key:portal".into(),
        viewer: Some("2001:db8::1".parse().unwrap()),
        browser: Browser::new(None, browser.as_bytes()),
        rights: Rights::VIEW,
        started: UnixTime::now(),
        terms,
    }
}

#[tokio::test]
async fn auth_keeps_tokens_alike_near_and_far() {
    for way in WAYS {
        let started = started_auth(way);
        let auth = &started.client;

        assert_eq!(auth.ready().await, Ok(()), "{way:?}");
        let (token, grant) = auth.authorize(new_grant(Terms::default())).await.unwrap();
        let id = token.hash().id();
        assert_eq!(auth.redeem(&token).await, Ok(grant.clone()), "{way:?}");
        let entry = auth.show(id).await.unwrap();
        assert_eq!((entry.grant.clone(), &entry.id), (grant, &id), "{way:?}");
        assert_eq!(auth.list(None).await, Ok(vec![entry.clone()]), "{way:?}");
        assert_eq!(auth.list(Some(WEB)).await, Ok(vec![entry.clone()]));
        let other = InstanceId(uuid::Uuid::nil());
        assert_eq!(auth.list(Some(other)).await, Ok(Vec::new()), "{way:?}");

        let _second = auth.authorize(new_grant(Terms::default())).await.unwrap();
        let full = auth.authorize(new_grant(Terms::default())).await;
        assert_eq!(full.unwrap_err(), AuthError::Full(2), "{way:?}");
        assert_eq!(auth.revoke(id).await, Ok(entry), "{way:?}");
        assert_eq!(auth.redeem(&token).await, Err(AuthError::Unknown));
        assert_eq!(auth.show(id).await, Err(AuthError::Unknown), "{way:?}");
    }
}

#[tokio::test]
async fn auth_keeps_sessions_alike_near_and_far() {
    for way in WAYS {
        let started = started_auth(way);
        let auth = &started.client;
        let (token, _) = auth.authorize(new_grant(Terms::default())).await.unwrap();
        let (first, second) = (
            record(&token, Terms::default(), "a"),
            record(&token, Terms::default(), "b"),
        );
        let start = auth.orders(None).await.unwrap();

        assert_eq!(auth.begin(first.clone()).await, Ok(()), "{way:?}");
        assert_eq!(auth.begin(second.clone()).await, Ok(()), "{way:?}");
        let third = record(&token, Terms::default(), "c");
        let limit = auth.begin(third.clone()).await.unwrap_err();
        assert!(matches!(limit, AuthError::Limit(_)), "{way:?}: {limit:?}");
        let beat = Beat {
            up: 5,
            down: u64::MAX,
            ..Beat::first(&first)
        };
        let stray = Beat::first(&third);
        let pulse = auth.beat(vec![beat, stray]).await.unwrap();
        assert_eq!(pulse.unknown, vec![third.id], "{way:?}");
        let live = auth.session(first.id).await.unwrap();
        assert_eq!((&live.record.id, live.beat), (&first.id, beat), "{way:?}");
        assert_eq!(auth.sessions(Some(WEB)).await.unwrap().len(), 2);

        assert_eq!(auth.end(second.id, true).await, Ok(()), "{way:?}");
        let gone = auth.session(second.id).await.unwrap_err();
        assert_eq!(gone, AuthError::NoSession(second.id), "{way:?}");
        let restored = LiveSession {
            beat: Beat::first(&second),
            record: second.clone().into(),
        };
        assert_eq!(auth.restore(vec![restored]).await, Ok(()), "{way:?}");
        let rights = Rights::VIEW;
        let changed = auth.set_rights(first.id, rights).await.unwrap();
        assert_eq!(changed.record.rights, rights, "{way:?}");
        assert_eq!(auth.kill(first.id).await.unwrap().record.id, first.id);
        let news = auth.orders(Some(start.cursor)).await.unwrap();
        let ordered = [
            Order::rights(first.id, rights),
            Order::end(first.id, Cause::Operator),
        ];
        assert_eq!(news.items, ordered, "{way:?}");
        assert!(!news.missed, "{way:?}");
    }
}

#[tokio::test]
async fn a_single_use_token_is_used_alike_near_and_far() {
    for way in WAYS {
        let started = started_auth(way);
        let auth = &started.client;
        let terms = Terms {
            single_use: true,
            ..Terms::default()
        };
        let (token, _) = auth.authorize(new_grant(terms)).await.unwrap();

        assert_eq!(auth.begin(record(&token, terms, "a")).await, Ok(()));
        let other = auth.begin(record(&token, terms, "b")).await;
        assert_eq!(other, Err(AuthError::Used), "{way:?}");
    }
}

/// A hypervisor that knows one running instance and one that is off.
#[derive(Debug)]
struct Hypervisor;

fn instance(id: InstanceId, name: &str, state: PowerState) -> Instance {
    let target = (state == PowerState::Running).then(door);
    Instance {
        id,
        name: name.to_owned(),
        display_name: Some(format!("people's {name}")),
        flavor: Some("m1.small".to_owned()),
        state,
        owner: None,
        consoles: vec![Console {
            kind: ConsoleKind::Vnc,
            target,
        }],
        source: "mock".to_owned(),
        host: None,
    }
}

fn door() -> Target {
    "10.0.0.7:5900".parse::<Address>().unwrap().into()
}

fn web() -> Instance {
    instance(WEB, "web-1", PowerState::Running)
}

impl Driver for Hypervisor {
    fn source(&self) -> &'static str {
        "mock"
    }

    fn start(&self, _watch: &Watch, changes: &Changes) {
        changes.tell(Change {
            instance: WEB,
            ended: true,
        });
    }

    fn survey(&self) -> BoxFuture<'_, Survey> {
        let off = instance(InstanceId::derived("test", "db-1"), "db-1", PowerState::Off);
        Box::pin(async {
            Survey {
                instances: vec![web(), off],
                faults: vec![Fault {
                    source: "mock".to_owned(),
                    why: "one file cannot be read".to_owned(),
                }],
            }
        })
    }

    fn claimants<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Survey> {
        let mut survey = Survey::default();
        if *target == door() {
            survey.instances.push(web());
        }
        Box::pin(async { survey })
    }

    fn meeting<'a>(&'a self, _instance: &'a Instance, _kind: ConsoleKind) -> BoxFuture<'a, Met> {
        Box::pin(async { Ok(Some(met())) })
    }

    fn screenshot(&self, _instance: InstanceId) -> BoxFuture<'_, Pictured> {
        Box::pin(async { Ok(Some(picture())) })
    }

    fn console_log(&self, _instance: InstanceId) -> BoxFuture<'_, Logged> {
        Box::pin(async { Ok(Some(b"one\ntwo \xff\nthree\n".to_vec())) })
    }
}

fn met() -> Meeting {
    Meeting {
        password: serde_json::from_str("\"pässword\"").ok(),
        within: Some(vec!["10.0.0.7".parse().unwrap()]),
        ..Meeting::default()
    }
}

fn picture() -> Vec<u8> {
    b"\x89PNG\r\n\x1a\nand so on".to_vec()
}

#[tokio::test]
async fn compute_answers_alike_near_and_far() {
    for way in WAYS {
        let started = Started::new(way, |watch| {
            let compute = Compute::new(vec![Box::new(Hypervisor)]);
            compute.start(watch);
            compute
        });
        let compute = &started.client;
        let named = || InstanceRef::from("web-1");
        let novnc = ConsoleType::Novnc;

        assert_eq!(compute.ready().await, Ok(()), "{way:?}");
        let located = compute.locate(named(), novnc).await.unwrap();
        assert_eq!((located.instance, located.target), (web(), door()));
        assert_eq!(compute.recheck(WEB, novnc, door()).await, Ok(door()));
        assert_eq!(compute.instance(named()).await, Ok(web()), "{way:?}");
        let survey = compute.instances().await.unwrap();
        assert_eq!((survey.instances.len(), survey.faults.len()), (2, 1));
        let claimants = compute.claimants(door()).await.unwrap();
        assert_eq!(claimants.instances, vec![web()], "{way:?}");
        let meeting = compute.meeting(WEB, ConsoleKind::Vnc).await;
        assert_eq!(meeting, Ok(met()), "{way:?}");
        let taken = compute.screenshot(named()).await.unwrap();
        assert_eq!(taken.into_png(), picture(), "{way:?}");
        let log = compute.console_log(named(), Some(1)).await.unwrap();
        assert_eq!(log.into_text().trim(), "three", "{way:?}");
        let start = compute.changes(None).await.unwrap();
        assert!(start.items.is_empty() && !start.missed, "{way:?}");

        let off = compute.locate("db-1".into(), novnc).await.unwrap_err();
        let name = "people's db-1".to_owned();
        assert_eq!(off, ComputeError::Off { name }, "{way:?}");
        let serial = compute.locate(named(), ConsoleType::Serial).await;
        let serial = serial.unwrap_err();
        assert!(matches!(serial, ComputeError::NoSuchConsole { .. }));
        let lost = compute.locate("nobody".into(), novnc).await.unwrap_err();
        assert!(matches!(lost, ComputeError::Source { .. }), "{way:?}");
    }
}
