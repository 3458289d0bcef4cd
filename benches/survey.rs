//! What a thousand domains in an XML directory cost. `cargo bench --bench survey`.
//!
//! Prints figures instead of judging them: absolute numbers are the machine's and its file
//! system's, so compare the lines of one run with each other.
#![expect(clippy::print_stdout, reason = "figures are its product")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on says where")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use vncgate::compute::driver::{Directory, Driver, Survey};
use vncgate::model::InstanceRef;

const DOMAINS: usize = 1_000;
const ROUNDS: u32 = 100;

/// A status file as libvirt writes it, but short; each gets the size and the names of a real one.
const STATUS: &str = include_str!("../tests/data/libvirt/status.xml");
const FLAG: &str = "<flag name='vnc'/>";
const FLAGS: usize = 400;

#[tokio::main]
async fn main() {
    // `cargo test --benches` only wants to see that it starts.
    if std::env::args().all(|argument| argument != "--bench") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    for number in 0..DOMAINS {
        write(place.path(), number, 5900);
    }
    let before = resident_kib();
    let directory = Directory::new(place.path().into(), "127.0.0.1".parse().unwrap());
    let started = Instant::now();
    let survey = directory.survey().await;
    report("first survey", started.elapsed());
    assert_eq!(whole(&survey), DOMAINS, "{:?}", survey.faults);
    drop(survey);
    let kept = resident_kib().saturating_sub(before);
    println!("{:<36} {kept:8} KiB resident", "kept of it");

    // Files changed just now are parsed again by who has nothing but their times to go by.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let _settled = directory.survey().await;
    rounds("later survey, nothing changed", &directory, |_| ()).await;
    rounds("later survey, one file changed", &directory, |round| {
        write(place.path(), 7, 5900 + round);
    })
    .await;
    one(&directory).await;
}

/// The mean of some surveys, each after a `change` that is in the figure too.
async fn rounds(name: &str, directory: &Directory, change: impl Fn(u32)) {
    let mut worst = Duration::ZERO;
    let started = Instant::now();
    for round in 0..ROUNDS {
        change(round);
        let begun = Instant::now();
        let survey = directory.survey().await;
        worst = worst.max(begun.elapsed());
        assert_eq!(whole(&survey), DOMAINS, "{:?}", survey.faults);
    }
    report(name, started.elapsed() / ROUNDS);
    report("  the slowest of them", worst);
}

/// What a viewer who comes waits for.
async fn one(directory: &Directory) {
    let wanted = InstanceRef::Name("bench-500".to_owned());
    let started = Instant::now();
    for _ in 0..ROUNDS {
        assert_eq!(directory.find(&wanted).await.instances.len(), 1);
    }
    report("find one by name", started.elapsed() / ROUNDS);
}

fn write(place: &Path, number: usize, port: u32) {
    let xml = STATUS
        .replace(FLAG, &FLAG.repeat(FLAGS))
        .replace("status-1", &format!("bench-{number}"))
        .replace("0c1de7a0000e", &format!("{number:012x}"))
        .replace("5914", &port.to_string());
    fs::write(place.join(format!("bench-{number}.xml")), xml).unwrap();
}

fn whole(survey: &Survey) -> usize {
    assert_eq!(survey.faults, []);
    survey.instances.len()
}

fn report(name: &str, took: Duration) {
    println!("{name:<36} {:8.3} ms", took.as_secs_f64() * 1e3);
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.split_ascii_whitespace().next());
    number.unwrap().parse().unwrap()
}
