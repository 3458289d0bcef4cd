//! Domain XML from a file or a hypervisor: it must not panic, whatever it says, and what is a domain
//! to one question is one to all.

#[path = "../../src/compute/domain/mod.rs"]
mod parser;

use std::net::Ipv4Addr;

use crate::model::{ConsoleKind, Host};
use parser::{Handover, Setting, device, log_file, parse, parse_with_log, vnc_password};

pub(crate) fn run(bytes: &[u8]) {
    let Ok(xml) = std::str::from_utf8(bytes) else {
        return;
    };
    let host = Host::Ip(Ipv4Addr::LOCALHOST.into());
    let all = Handover {
        displays: true,
        lines: true,
    };
    let handing = Setting {
        host_address: &host,
        source: "fuzz",
        handover: all,
    };
    let _password = vnc_password(xml);
    let Ok(instance) = parse(xml, &host, "fuzz") else {
        assert!(parse_with_log(xml, &handing).is_err());
        return;
    };
    assert!(!instance.name.is_empty());
    let (handed, log) = parse_with_log(xml, &handing).expect("the same domain");
    assert_eq!(
        (handed.id, log),
        (instance.id, log_file(xml).expect("the same domain"))
    );
    for kind in [ConsoleKind::Vnc, ConsoleKind::Spice, ConsoleKind::Serial] {
        let _device = device(xml, kind).expect("the same domain");
    }
}
