use std::path::Path;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use uuid::Uuid;

use super::wire::Procedure;
use super::wire::frame::{HEADER, Header, Status, Type};
use super::wire::xdr::{Decoder, Encoder};
use super::*;
use crate::drain::Drain;

const WEB: Uuid = Uuid::from_u128(0x7);

/// What a daemon would say to one call: values, or an error's code.
type Answers = fn(Procedure) -> Result<Vec<u8>, i32>;

/// The code for saying nothing and hanging up.
const HANG_UP: i32 = -1;

/// A daemon that knows the calls of a look-up, with one domain.
fn usual(procedure: Procedure) -> Result<Vec<u8>, i32> {
    let domain = || Encoder::new().string("web").fixed(WEB.as_bytes()).int(1);
    let xml = "<domain id='1'><name>web</name><uuid>00000000-0000-0000-0000-000000000007</uuid>\
               <title>Shop</title><devices><graphics type='vnc' port='5901'/></devices></domain>";
    let said = match procedure {
        Procedure::AUTH_LIST => Encoder::new().uint(0),
        Procedure::CONNECT_OPEN => Encoder::new(),
        Procedure::CONNECT_SUPPORTS_FEATURE | Procedure::EVENT_REGISTER => Encoder::new().int(0),
        Procedure::CONNECT_LIST_ALL_DOMAINS => {
            let one = Encoder::new().uint(1).string("web");
            one.fixed(WEB.as_bytes()).int(1).uint(1)
        }
        Procedure::DOMAIN_LOOKUP_BY_UUID => domain(),
        Procedure::DOMAIN_LOOKUP_BY_NAME => return Err(42),
        Procedure::DOMAIN_GET_XML_DESC => Encoder::new().string(xml),
        _ => return Err(39),
    };
    Ok(said.into_bytes())
}

async fn serve(listener: UnixListener, answers: Answers) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut head = [0; HEADER];
            while stream.read_exact(&mut head).await.is_ok() {
                let (header, length) = Header::decode(&head).unwrap();
                let mut arguments = vec![0; length];
                stream.read_exact(&mut arguments).await.unwrap();
                let procedure = Procedure(header.procedure);
                let (status, payload) = match answers(procedure) {
                    Err(HANG_UP) => return,
                    Ok(payload) => (Status::Ok, payload),
                    Err(code) => {
                        let words = Encoder::new().int(code).int(0);
                        let words = words.optional_string(Some("as the test wants it"));
                        (Status::Error, words.into_bytes())
                    }
                };
                let header = Header {
                    r#type: Type::Reply,
                    status,
                    ..header
                };
                stream.write_all(&header.encode(&payload)).await.unwrap();
            }
        });
    }
}

struct Rig {
    place: TempDir,
    driver: Libvirt,
    drain: Drain,
    daemon: Option<AbortOnDropHandle<()>>,
}

impl Rig {
    fn new(answers: Option<Answers>) -> Self {
        let place = tempfile::tempdir().unwrap();
        let drain = Drain::default();
        let driver = Libvirt::new(settings(&place.path().join("sock")));
        let mut rig = Self {
            place,
            driver,
            drain,
            daemon: None,
        };
        if let Some(answers) = answers {
            rig.serve(answers);
        }
        rig.driver.start(&rig.drain.watch(), &Changes::default());
        rig
    }

    fn serve(&mut self, answers: Answers) {
        let listener = UnixListener::bind(self.place.path().join("sock")).unwrap();
        let daemon = tokio::spawn(serve(listener, answers));
        self.daemon = Some(AbortOnDropHandle::new(daemon));
    }

    async fn find(&self, wanted: &str) -> Survey {
        self.driver.find(&wanted.into()).await
    }
}

fn settings(socket: &Path) -> Settings {
    let uri = format!("qemu+unix:///system?socket={}", socket.display());
    Settings {
        name: "kvm-1".to_owned(),
        uri: uri.parse().unwrap(),
        address: "127.0.0.1".parse().unwrap(),
        readonly: false,
        credentials: None,
        optional: false,
        security: crate::model::Security::default(),
        passwords: true,
    }
}

#[tokio::test]
async fn an_instance_is_found_by_id_and_by_the_name_people_gave_and_listed() {
    let rig = Rig::new(Some(usual));

    let by_id = rig.find(&WEB.to_string()).await;

    assert_eq!(by_id.faults, []);
    assert_eq!(by_id.instances[0].name, "web");
    let listed = rig.driver.survey().await;
    assert_eq!(listed, by_id);
    assert_eq!(rig.find("Shop").await, by_id);
    assert_eq!(rig.find("nobody").await, Survey::default());
    let target = by_id.instances[0].consoles[0].target.clone().unwrap();
    assert_eq!(rig.driver.claimants(&target).await.instances.len(), 1);
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_a_fault_until_it_comes() {
    let mut rig = Rig::new(None);

    let [fault] = &rig.find("web").await.faults[..] else {
        panic!("a fault")
    };
    assert_eq!(fault.source, "kvm-1");
    assert!(
        fault.why.starts_with("cannot reach the hypervisor: "),
        "{fault}"
    );
    assert!(rig.driver.is_absent().await);
    rig.serve(usual);
    let found = loop {
        let found = rig.find(&WEB.to_string()).await;
        if found.faults.is_empty() {
            break found;
        }
    };

    assert_eq!(found.instances.len(), 1);
}

#[tokio::test]
async fn what_polkit_refuses_is_told_with_the_way_out() {
    fn polkit(procedure: Procedure) -> Result<Vec<u8>, i32> {
        match procedure {
            Procedure::AUTH_LIST => Ok(Encoder::new().uint(1).int(2).into_bytes()),
            Procedure::AUTH_POLKIT => Err(45),
            _ => usual(procedure),
        }
    }
    let rig = Rig::new(Some(polkit));

    let fault = rig.find("web").await.faults.pop().unwrap();

    assert!(fault.why.contains("join the group `libvirt`"), "{fault}");
}

#[tokio::test]
async fn a_daemon_that_hangs_up_at_every_look_up_is_a_fault_and_no_endless_loop() {
    fn brief(procedure: Procedure) -> Result<Vec<u8>, i32> {
        match procedure {
            Procedure::DOMAIN_LOOKUP_BY_UUID => Err(HANG_UP),
            _ => usual(procedure),
        }
    }
    let rig = Rig::new(Some(brief));

    let found = rig.find(&WEB.to_string()).await;

    assert_eq!(found.instances, []);
    assert_eq!(found.faults.len(), 1);
}

#[tokio::test]
async fn a_daemon_without_handover_leaves_the_console_to_be_dialled() {
    let rig = Rig::new(Some(usual));
    let _first = rig.find(&WEB.to_string()).await;

    let refused = rig
        .driver
        .open_display(InstanceId(WEB), ConsoleKind::Vnc)
        .await;
    let serial = rig
        .driver
        .open_display(InstanceId(WEB), ConsoleKind::Serial)
        .await;

    assert!(refused.is_err(), "an old daemon does not know the call");
    assert!(matches!(serial, Ok(None)), "{serial:?}");
    assert!(matches!(
        rig.driver.screenshot(InstanceId(WEB)).await,
        Ok(None)
    ));
}

#[test]
fn an_event_is_about_its_domain() {
    let event = Encoder::new()
        .int(3)
        .string("web")
        .fixed(WEB.as_bytes())
        .int(1);
    let bytes = event.into_bytes();
    let mut decoder = Decoder::new(&bytes);
    assert_eq!(decoder.int(), Ok(3));
    assert_eq!(Domain::decode(&mut decoder).unwrap().uuid, WEB);
}
