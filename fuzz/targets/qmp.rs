//! What a QEMU's monitor answers, a list in the order of the questions: nothing may panic, and what
//! does not run is nowhere.

#[path = "../../src/compute/driver/qmp/answer.rs"]
mod answer;
#[path = "../../src/compute/driver/qmp/monitor.rs"]
mod monitor;

use std::net::Ipv4Addr;
use std::path::Path;

use crate::model::{Host, PowerState};

pub(crate) fn run(bytes: &[u8]) {
    let Ok(answers) = serde_json::from_slice(bytes) else {
        return;
    };
    let here = Host::Ip(Ipv4Addr::LOCALHOST.into());
    let read = answer::instance(answers, Path::new("/run/web.qmp"), &here, "fuzz");
    let Ok(instance) = read else { return };
    assert!(!instance.name.is_empty());
    let mut consoles = instance.consoles.iter();
    assert!(instance.state != PowerState::Off || consoles.all(|it| it.target.is_none()));
}
