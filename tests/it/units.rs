//! The units for systemd in dist/: that systemd understands them, and how much they leave open.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::rig::gateway::{Answer, BINARY, bare, run};
use crate::rig::process::peer;

/// The units as they would be installed here, with the program that is tested.
fn installed() -> (TempDir, Vec<PathBuf>) {
    let directory = TempDir::with_prefix("vncgate-units-").unwrap();
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist");
    let mut units = Vec::new();
    for entry in fs::read_dir(dist).unwrap() {
        let from = entry.unwrap().path();
        let unit = from
            .extension()
            .is_some_and(|it| it == "service" || it == "socket");
        if !unit {
            continue;
        }
        let text = fs::read_to_string(&from).unwrap();
        let name = from.file_name().unwrap().to_str().unwrap();
        let to = directory.path().join(name.replace("@.", "@proxy."));
        fs::write(
            directory.path().join(name),
            text.replace("/usr/bin/vncgate", BINARY),
        )
        .unwrap();
        units.push(to);
    }
    assert!(units.len() >= 3, "{units:?}");
    (directory, units)
}

fn analyze(arguments: &[&str], units: &[PathBuf]) -> Answer {
    let mut command: Command = bare(&peer("systemd-analyze"));
    run(command.args(arguments).args(units))
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let (_directory, units) = installed();

    let verified = analyze(&["verify", "--man=no"], &units);

    assert_eq!(verified.code, 0, "{verified:?}");
    let ours = verified
        .stderr
        .lines()
        .filter(|line| line.contains("vncgate"));
    assert_eq!(ours.count(), 0, "{verified:?}");
}

#[test]
fn the_units_leave_little_open() {
    let (directory, _) = installed();
    let service = directory.path().join("vncgate.service");

    // Tenths: 20 is "OK", of 100 for a service that may do all.
    let rated = analyze(&["security", "--offline=yes", "--threshold=20"], &[service]);

    assert_eq!(rated.code, 0, "{rated:?}");
    assert!(rated.stdout.contains("Overall exposure level"), "{rated:?}");
}

#[test]
fn the_units_call_commands_that_there_are() {
    let (directory, _) = installed();
    let text = fs::read_to_string(directory.path().join("vncgate.service")).unwrap();
    let commands = text
        .lines()
        .filter_map(|line| line.split_once(&format!("={BINARY} ")));
    let mut seen = 0;
    for (key, arguments) in commands {
        let words = arguments
            .split_whitespace()
            .take_while(|word| !word.starts_with('-'));
        let mut command = bare(Path::new(BINARY));
        run(command.args(words).arg("--help")).ok();
        assert!(key.starts_with("Exec"), "{key}");
        seen += 1;
    }
    assert_eq!(seen, 3);
}

#[test]
fn secrets_may_be_credentials_of_systemds() {
    let directory = TempDir::with_prefix("vncgate-credentials-").unwrap();
    let place = directory.path().to_str().unwrap();
    let config = directory.path().join("vncgate.toml");
    let text = "[auth.redis]\npassword_file = \"$CREDENTIALS_DIRECTORY/redis\"\n";
    fs::write(&config, text).unwrap();

    let shown = |variable: Option<&str>| {
        let mut command = bare(Path::new(BINARY));
        command.envs(variable.map(|place| ("CREDENTIALS_DIRECTORY", place)));
        command.args(["config", "show", "--config", config.to_str().unwrap()]);
        run(&mut command).ok().stdout
    };

    assert!(shown(Some(place)).contains(&format!("{place}/redis")));
    assert!(shown(None).contains("/run/credentials/vncgate.service/redis"));
}
