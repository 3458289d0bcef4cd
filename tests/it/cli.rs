//! The command line: what is data, what is talk, and what the exit code says.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use crate::rig::gateway::{Answer, Gateway, Setup, vncgate};
use crate::rig::peers::Peer;

const COMMANDS: &[&[&str]] = &[
    &["serve"],
    &["token"],
    &["token", "issue"],
    &["token", "show"],
    &["token", "list"],
    &["token", "revoke"],
    &["instance"],
    &["instance", "list"],
    &["instance", "show"],
    &["config"],
    &["config", "check"],
    &["config", "show"],
    &["config", "example"],
    &["key", "new"],
    &["proxy"],
    &["api"],
    &["auth"],
    &["compute"],
    &["pki"],
    &["pki", "init"],
    &["pki", "renew"],
    &["pki", "show"],
    &["migrate"],
    &["migrate", "nova"],
    &["completions"],
    &["man"],
    &["version"],
];

#[test]
fn every_command_has_a_help_text_on_stdout() {
    for command in COMMANDS {
        let help = vncgate(&[command, &["--help"][..]].concat()).ok();

        assert!(
            help.stdout.contains("Usage: vncgate"),
            "{command:?}: {help:?}"
        );
        assert!(help.stdout.lines().count() > 4, "{command:?}: {help:?}");
        assert_eq!(help.stderr, "");
    }
}

#[test]
fn every_flag_names_its_variable() {
    for command in COMMANDS {
        let help = vncgate(&[command, &["--help"][..]].concat()).ok().stdout;
        for option in options(&help) {
            let switch = ["--help", "--version"]
                .iter()
                .any(|name| option.contains(name));
            assert!(
                switch || option.contains("[env: VNCGATE_"),
                "{command:?}: {option}"
            );
        }
    }
}

#[test]
fn help_tells_defaults_and_exit_codes() {
    let issue = vncgate(&["token", "issue", "--help"]).ok().stdout;
    let all = vncgate(&["--help"]).ok().stdout;

    assert!(issue.contains("[default: novnc]"), "{issue}");
    assert!(issue.contains("[default: url]"), "{issue}");
    let (_, codes) = all.split_once("Exit codes:").unwrap();
    for code in [
        "0 ok",
        "1 failure",
        "2 usage",
        "3 config",
        "4 not found",
        "5 denied",
        "6 unreachable",
        "7 timeout",
        "130 interrupted",
    ] {
        let told = codes
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .contains(code);
        assert!(told, "exit code {code} is missing in {codes}");
    }
}

#[test]
fn version_is_one_line_of_data() {
    let version = vncgate(&["version"]).ok();
    let flag = vncgate(&["--version"]).ok();

    let expected = format!("vncgate {}", env!("CARGO_PKG_VERSION"));
    assert!(version.stdout.starts_with(&expected), "{version:?}");
    assert!(flag.stdout.starts_with(&expected), "{flag:?}");
    assert_eq!(version.stderr, "");
}

#[test]
fn usage_errors_go_to_stderr_with_exit_code_2() {
    for arguments in [
        &["serv"][..],
        &["token", "issue"],
        &["serve", "--nonsense"],
        &["serve", "--all", "--listen", "localhost:6080"],
        &["token", "issue", "web-1", "--ttl", "soon"],
        &["token", "issue", "web-1", "-o", "yaml"],
        &["completions", "cobol"],
    ] {
        let refused = vncgate(arguments);

        assert_eq!(refused.code, 2, "{refused:?}");
        assert_eq!(refused.stdout, "");
        assert!(!refused.stderr.is_empty());
    }
}

#[test]
fn a_server_that_does_not_run_is_one_sentence_with_exit_code_6() {
    for arguments in [
        &["token", "issue", "web-1"][..],
        &["token", "list"],
        &["instance", "list"],
    ] {
        let socket = ["--admin-socket", "/nonexistent/admin.sock"];
        let refused = vncgate(&[arguments, &socket].concat());

        assert_eq!(refused.code, 6, "{refused:?}");
        assert_eq!(refused.stdout, "");
        assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
        assert!(
            refused.stderr.contains("/nonexistent/admin.sock"),
            "{refused:?}"
        );
    }
}

#[test]
fn a_socket_of_somebody_else_is_denied_with_exit_code_5() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, Permissions::from_mode(0o000)).unwrap();
    if UnixStream::connect(&socket).is_ok() {
        return; // root may do everything
    }

    let refused = vncgate(&["token", "list", "--admin-socket", socket.to_str().unwrap()]);

    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.stderr.contains("not yours"), "{refused:?}");
}

#[test]
fn an_unknown_instance_is_one_sentence_with_exit_code_4() {
    let gateway = Setup::new().start();
    for arguments in [
        &["token", "issue", "nobody"][..],
        &["instance", "show", "nobody"],
        &["token", "issue", "6695eb01-f6a4-8304-79aa-97f2502e193f"],
    ] {
        let refused = gateway.cli(arguments);

        assert_eq!(refused.code, 4, "{refused:?}");
        assert_eq!(refused.stdout, "");
        assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
        assert!(
            refused.stderr.contains(arguments.last().unwrap()),
            "{refused:?}"
        );
    }
}

#[test]
fn instances_are_shown_as_tables_and_as_json() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());

    let table = gateway.cli(&["instance", "list"]).ok();
    let listed = gateway.cli(&["instance", "list", "-o", "json"]).ok().json();
    let shown = gateway
        .cli(&["instance", "show", "web-1", "-o", "json"])
        .ok()
        .json();

    assert!(
        table
            .stdout
            .lines()
            .next()
            .unwrap()
            .to_lowercase()
            .contains("name"),
        "{table:?}"
    );
    assert!(table.stdout.contains("web-1"));
    assert_eq!(listed["instances"][0]["name"], "web-1");
    assert_eq!(shown["name"], "web-1");
    assert_eq!(shown["id"], listed["instances"][0]["id"]);
}

#[test]
fn an_empty_list_is_a_sentence_on_a_terminal_and_still_json_for_scripts() {
    let gateway = Setup::new().set("compute", "discover", false).start();
    for (command, list) in [("instance", "instances"), ("token", "tokens")] {
        let table = gateway.cli(&[command, "list"]).ok();
        let json = gateway.cli(&[command, "list", "-o", "json"]).ok().json();

        assert_eq!(table.stdout, "");
        assert!(table.stderr.starts_with("no "), "{table:?}");
        assert_eq!(json[list], serde_json::json!([]));
    }
}

#[test]
fn an_address_to_listen_on_is_asked_for_with_an_example() {
    let refused = vncgate(&["serve", "--all", "--listen", "localhost:6080"]);

    assert!(
        refused.stderr.contains("`localhost:6080`") || refused.stderr.contains("'localhost:6080'")
    );
    assert!(refused.stderr.contains("127.0.0.1:6080"), "{refused:?}");
}

#[test]
fn what_is_found_at_the_start_and_what_is_not_is_told() {
    let peer = Peer::echo();
    let setup = Setup::new()
        .instance("web-1", &peer.address())
        .xml_directory();
    fs::write(setup.xml_path().join("cut.xml"), "<domain><name>cut").unwrap();
    let gateway = setup.start();

    let fault = gateway.wait_for_event("the broken file", |event| event["level"] == "WARN");
    let found = gateway.wait_for_event("the count", |event| event["message"] == "instances");

    assert!(
        fault["fault"].as_str().unwrap().contains("cut.xml"),
        "{fault}"
    );
    assert_eq!(found["found"], 1, "{found}");
}

#[test]
fn an_instance_is_shown_by_its_uuid_too() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let by_name = gateway
        .cli(&["instance", "show", "web-1", "-o", "json"])
        .ok()
        .json();

    let id = by_name["id"].as_str().unwrap();
    let by_id = gateway
        .cli(&["instance", "show", id, "-o", "json"])
        .ok()
        .json();

    assert_eq!(by_id, by_name);
}

#[test]
fn an_instance_without_an_id_keeps_the_one_it_was_given() {
    let peer = Peer::echo();
    let id = |gateway: &Gateway| {
        let shown = gateway
            .cli(&["instance", "show", "web-1", "-o", "json"])
            .ok()
            .json();
        shown["id"].as_str().unwrap().to_owned()
    };

    let first = id(&Gateway::of("web-1", &peer.address()));
    let second = id(&Gateway::of("web-1", &peer.address()));

    assert_eq!(first, second, "a restart must not change it");
}

#[test]
fn the_example_config_is_accepted_and_holds_the_defaults() {
    let example = vncgate(&["config", "example"]).ok();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("example.toml");
    fs::write(&path, &example.stdout).unwrap();

    vncgate(&["config", "check", path.to_str().unwrap()]).ok();

    for key in [
        "listen",
        "public_url",
        "url_ttl",
        "drain_timeout",
        "ping_interval",
        "socket",
    ] {
        assert!(example.stdout.contains(key), "{key}");
    }
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/config.example.toml");
    assert_eq!(example.stdout, fs::read_to_string(committed).unwrap());
}

#[test]
fn a_good_config_that_names_a_missing_path_is_good_with_a_note() {
    let path = Setup::new().set("compute", "xml", vec!["/nonexistent/domains"]);
    let file = path.write();

    let checked = vncgate(&["config", "check", file.to_str().unwrap()]).ok();

    assert!(
        checked
            .stderr
            .contains("note: compute.xml: /nonexistent/domains"),
        "{checked:?}"
    );
}

#[test]
fn the_manual_is_one_page_with_every_command() {
    let page = vncgate(&["man"]).ok().stdout.replace("\\-", "-");

    for command in COMMANDS.iter().filter(|command| command.len() == 2) {
        let heading = format!(".SS vncgate {}", command.join(" "));
        assert!(page.contains(&heading), "{heading}");
    }
    for part in [
        "--admin-socket",
        "VNCGATE_LISTEN",
        "4 not found",
        ".SH FILES",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(
        !page.contains("vncgate-serve(1)"),
        "a page of which there is none"
    );
}

#[test]
fn config_show_prints_what_is_in_force() {
    let setup = Setup::new().set("auth", "url_ttl", "42m");
    let path = setup.write();

    let shown = vncgate(&["config", "show", "--config", path.to_str().unwrap()]).ok();

    let parsed: toml::Table = shown.stdout.parse().unwrap();
    assert_eq!(parsed["auth"]["url_ttl"].as_str(), Some("42m"));
    assert_eq!(parsed["proxy"]["ping_interval"].as_str(), Some("30s"));
}

#[test]
fn completions_are_written_for_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let completions = vncgate(&["completions", shell]).ok();

        assert!(completions.stdout.contains("vncgate"), "{shell}");
        assert_eq!(completions.stderr, "");
    }
}

#[test]
fn the_server_writes_json_lines_to_stderr_and_nothing_to_stdout() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    gateway.issue("web-1");

    let (out, err) = (
        gateway.text(crate::rig::process::Stream::Out),
        gateway.text(crate::rig::process::Stream::Err),
    );

    assert_eq!(out, "");
    for line in err.lines() {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok(), "no JSON: {line}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let script = format!(
        "set -o pipefail; {} config example | head -n 1",
        crate::rig::gateway::BINARY
    );

    let mut bash = crate::rig::gateway::bare(std::path::Path::new("bash"));
    let answer: Answer = crate::rig::gateway::run(bash.args(["-c", &script]));

    assert_eq!(answer.stderr, "", "{answer:?}");
}

/// The options of a help text, each with its whole description on one line.
fn options(help: &str) -> Vec<String> {
    let mut options: Vec<String> = Vec::new();
    for line in help
        .lines()
        .skip_while(|line| !line.starts_with("Options:"))
    {
        let trimmed = line.trim_start();
        let option = trimmed.starts_with('-') && !trimmed.starts_with("- ");
        if option && line.starts_with(' ') {
            options.push(trimmed.to_owned());
        } else if let Some(option) = options.last_mut() {
            option.push(' ');
            option.push_str(trimmed);
        }
    }
    options
}
