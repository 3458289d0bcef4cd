//! The log as its readers get it: lines of JSON, whatever stands in them.

use serde_json::{Map, Value};

use crate::rig::gateway::Setup;
use crate::rig::peers::Peer;
use crate::rig::process::Stream;
use crate::rig::rfb::shake_hands;

/// As odd as a name may be.
const NAME: &str = "we\"b\\1 ü\u{2028}\u{7f}字";

#[test]
fn every_line_is_an_object_that_begins_with_its_time_and_ends_with_its_origin() {
    let peer = Peer::echo();
    let setup = Setup::new().instance(NAME, &peer.address());
    let gateway = setup.set("log", "level", "trace").start();

    let mut ws = gateway.open(NAME);
    shake_hands(&mut ws);
    ws.send_close(1000, "");
    let ended = gateway.wait_for_event("the session's end", |event| {
        event["message"] == "session ended"
    });

    assert_eq!(ended["name"], NAME);
    assert_eq!(ended["peer"], "127.0.0.1");
    assert_eq!(ended["code"], 1000);
    assert!(ended["up"].as_u64().unwrap() > 0, "{ended}");
    assert!(ended["seconds"].as_f64().unwrap() >= 0.0, "{ended}");
    let log = gateway.text(Stream::Err);
    for line in log.lines() {
        let event: Map<String, Value> = serde_json::from_str(line).unwrap();
        assert!(line.starts_with("{\"timestamp\":\"20"), "{line}");
        humantime::parse_rfc3339(event["timestamp"].as_str().unwrap()).unwrap();
        let begin = format!("\",\"level\":{},\"", event["level"]);
        assert!(line.contains(&begin), "{line}");
        let origin = format!(",\"target\":{}", event["target"]);
        assert!(line.contains(&origin), "{line}");
    }
}
