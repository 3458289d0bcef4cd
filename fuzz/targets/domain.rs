//! Domain XML from a file or a hypervisor: it must not panic, whatever it says.
#![no_main]

use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use vncgate::compute::domain::parse;
use vncgate::model::Host;

fuzz_target!(|xml: &str| {
    let host = Host::Ip(Ipv4Addr::LOCALHOST.into());
    if let Ok(instance) = parse(xml, &host, "fuzz") {
        assert!(!instance.name.is_empty());
    }
});
