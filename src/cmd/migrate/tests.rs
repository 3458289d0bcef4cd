use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::config::{Config, TokenSource};

const CANARY: &str = "canary-5e1f00d";

fn settings(text: &str) -> Settings {
    let mut settings = Settings::default();
    settings.add(Path::new("nova.conf"), text).unwrap();
    settings
}

fn wanted(arguments: &[&str]) -> Nova {
    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        nova: Nova,
    }
    let line = ["nova", "nova.conf"].iter().chain(arguments);
    <Line as clap::Parser>::try_parse_from(line).unwrap().nova
}

/// What is printed, as text and as it is read back; and what is said beside it.
fn migrated(text: &str, arguments: &[&str]) -> (String, Config, Vec<String>) {
    let (settings, wanted) = (settings(text), wanted(arguments));
    let plan = Plan::new(&wanted, &settings, Path::new("/s"));
    let draft = plan.draft().unwrap();
    let printed = draft.text(&wanted.head(&settings));
    let config = Config::parse(&printed).unwrap();
    (printed, config, draft.warnings().to_vec())
}

/// Comments without the ends of their lines.
fn flat(printed: &str) -> String {
    printed.replace("\n#  ", "").replace("\n#", "")
}

fn refusal(text: &str, arguments: &[&str]) -> String {
    let (settings, wanted) = (settings(text), wanted(arguments));
    let plan = Plan::new(&wanted, &settings, Path::new("/s"));
    plan.draft().unwrap_err().to_string()
}

#[test]
fn the_listener_is_that_of_the_chosen_proxy() {
    for (console, expected) in [
        ("novnc", "0.0.0.0:6080"),
        ("spice", "0.0.0.0:6082"),
        ("serial", "0.0.0.0:6083"),
    ] {
        let (_, config, _) = migrated("", &["--console", console]);
        assert_eq!(config.proxy.listen, [expected.parse().unwrap()]);
    }
    let text = "[serial_console]\nserialproxy_host = ::1\nserialproxy_port = 7\n";
    let (_, config, _) = migrated(text, &["--console", "serial"]);
    assert_eq!(config.proxy.listen, ["[::1]:7".parse().unwrap()]);
}

#[test]
fn a_name_to_listen_on_is_told_and_nothing_is_opened_to_the_world() {
    for host in ["controller", "$my_ip"] {
        let text = format!("[vnc]\nnovncproxy_host = {host}\n");
        let (printed, config, warnings) = migrated(&text, &[]);
        assert_eq!(config.proxy.listen, ["127.0.0.1:6080".parse().unwrap()]);
        let told = format!("`{host}` is no address");
        assert!(
            flat(&printed).contains(&told) && warnings[0].contains(&told),
            "{printed}"
        );
    }
}

#[test]
fn a_newer_name_beats_an_older_one_and_a_later_file_beats_both() {
    let mut settings = settings("[vnc]\nnovncproxy_port = 1\n[DEFAULT]\nnovncproxy_port = 2\n");
    let port = |settings: &Settings| settings.get(&options::NOVNC.port).unwrap();
    assert_eq!(port(&settings).value, "1");

    let older = "[DEFAULT]\nnovncproxy_port = 3\nnovncproxy_port = 4\n";
    settings.add(Path::new("more.conf"), older).unwrap();

    let port = port(&settings);
    assert_eq!(port.value, "4");
    assert_eq!(
        port.origin.to_string(),
        "[DEFAULT] novncproxy_port (more.conf:3)"
    );
}

#[test]
fn what_nova_would_refuse_is_refused_with_its_place() {
    for (text, expected) in [
        (
            "[vnc]\n\nnovncproxy_port = many\n",
            "[vnc] novncproxy_port (nova.conf:3): it is not a number that Nova would take",
        ),
        (
            "[DEFAULT]\nssl_only = maybe\n",
            "[DEFAULT] ssl_only (nova.conf:2): it is neither true nor false",
        ),
        (
            "[keystone_authtoken]\nauth_url = http://k\nauth_type = v3kerberos\n",
            "[keystone_authtoken] auth_type (nova.conf:3): expected password or \
             v3applicationcredential; vncgate logs in no other way",
        ),
    ] {
        assert_eq!(refusal(text, &["--source", "nova-api"]), expected);
    }
}

#[test]
fn a_url_with_a_password_is_neither_taken_nor_shown() {
    let text = format!(
        "[vnc]\nnovncproxy_base_url = https://u:{CANARY}@h/vnc.html\n\
         [keystone_authtoken]\nauth_url = https://u:{CANARY}@k/v3\nregion_name = r\n"
    );
    let (printed, config, warnings) = migrated(&text, &["--source", "nova-api"]);
    assert_eq!(config.proxy.novnc_url, None);
    assert!(
        !format!("{printed}{warnings:?}").contains(CANARY),
        "{printed}"
    );
}

#[test]
fn text_of_nova_cannot_leave_its_comment() {
    let text = "[vnc]\nnovncproxy_host = a\n  [log]\n  level = \"off\"\nweird\u{85}key = 1\n";
    let (printed, config, _) = migrated(text, &[]);
    assert_eq!(config.log.level, "info", "{printed}");
}

#[test]
fn without_a_database_nova_is_asked() {
    let authtoken = "[keystone_authtoken]\nauth_url = http://k:5000\nusername = nova\n\
                     password = p\nuser_domain_id = default\n";
    let (_, config, _) = migrated(authtoken, &[]);
    assert_eq!(config.auth.source, TokenSource::NovaApi);
    assert_eq!(config.keystone.user_domain, "Default");
    assert_eq!(
        config.keystone.password_file,
        Some("/s/keystone.password".into())
    );
}

#[test]
fn keystone_of_before_urls_is_found() {
    let text = "[keystone_authtoken]\nauth_host = k\nauth_protocol = http\nadmin_user = nova\n\
                admin_password = p\nadmin_tenant_name = services\n";
    let (_, config, _) = migrated(text, &["--role", "all"]);
    assert_eq!(config.keystone.url.unwrap().as_str(), "http://k:35357/");
    assert_eq!(config.keystone.project, "services");
    let text = "[keystone_authtoken]\nidentity_uri = http://k/v2.0/\nusername = nova\n";
    let (_, config, _) = migrated(text, &["--role", "all"]);
    assert_eq!(config.keystone.url.unwrap().as_str(), "http://k/v3");
}

#[test]
fn nova_that_spoke_tls_speaks_it_with_the_same_files() {
    let text = "[DEFAULT]\nssl_only = true\ncert = /c.pem\nkey = /k.pem\n";
    let (_, config, warnings) = migrated(text, &[]);
    assert_eq!(config.proxy.listen, ["0.0.0.0:6080".parse().unwrap()]);
    assert_eq!(config.tls.certificate, Some("/c.pem".into()));
    assert_eq!(config.tls.key, Some("/k.pem".into()));
    assert!(!warnings.concat().contains("TLS"), "{warnings:?}");

    let (printed, config, _) = migrated("[DEFAULT]\ncert = /c.pem\n", &[]);
    assert_eq!(config.tls.key, Some("/c.pem".into()));
    assert!(printed.contains("plain HTTP on one port"), "{printed}");
}

#[test]
fn a_certificate_that_cannot_be_named_is_asked_for() {
    let (printed, config, warnings) = migrated("[DEFAULT]\nssl_only = true\n", &[]);

    assert_eq!(config.tls.certificate, None);
    assert!(printed.contains("#certificate = \"self.pem\""), "{printed}");
    assert!(warnings.concat().contains("until [tls] names its files"));
}

#[test]
fn vnc_servers_are_met_as_nova_meets_them() {
    let text = "[vnc]\nauth_schemes = vencrypt, none\nvencrypt_ca_certs = /ca.pem\n\
                vencrypt_client_cert = /cert.pem\nvencrypt_client_key = /key.pem\n";
    let (printed, _, _) = migrated(text, &[]);
    for line in [
        "security = [\"x509none\", \"none\"]\n",
        "ca_file = \"/ca.pem\"\n",
        "cert_file = \"/cert.pem\"\n",
        "key_file = \"/key.pem\"\n",
        "verify = \"ca\"\n",
    ] {
        assert!(printed.contains(line), "{line}{printed}");
    }
    let (printed, _, _) = migrated(text, &["--console", "serial"]);
    assert!(!printed.contains("[proxy.vnc]"), "{printed}");
}

#[test]
fn every_option_about_consoles_that_is_not_carried_over_is_named() {
    let text = "[vnc]\nteleport = 1\n[DEFAULT]\nrecord = /r\nconsole_colour = 2\nosapi = 3\n\
                [SPICE]\nx = 4\n";
    let (printed, _, _) = migrated(text, &[]);
    let losses = printed.split("What has no equivalent:").nth(1).unwrap();
    for named in [
        "[vnc] teleport (nova.conf:2)",
        "[DEFAULT] record (nova.conf:4): sessions are not recorded",
        "[DEFAULT] console_colour (nova.conf:5)",
        "[spice] x (nova.conf:8)",
    ] {
        assert!(flat(losses).contains(named), "{named}: {losses}");
    }
    assert!(!losses.contains("osapi"), "{losses}");
}

#[test]
fn secrets_are_kept_for_files_and_said_nowhere() {
    let text = format!(
        "[database]\nconnection = mysql://n:{CANARY}@h/nova\n[keystone_authtoken]\n\
         auth_url = http://k\nusername = nova\npassword = {CANARY}\n"
    );
    let settings = settings(&text);
    for (arguments, files) in [
        (&["--source", "nova-db"][..], &["nova-cell1.url"][..]),
        (&["--source", "nova-api"], &["keystone.password"]),
        (&["--role", "all"], &["keystone.password"]),
    ] {
        let wanted = wanted(arguments);
        let draft = Plan::new(&wanted, &settings, Path::new("/s"))
            .draft()
            .unwrap();
        let kept: Vec<&str> = draft.secrets().iter().map(|it| it.file).collect();
        assert_eq!(kept, files);
        let said = format!(
            "{}{:?}{draft:?}{settings:?}",
            draft.text(""),
            draft.warnings()
        );
        assert!(!said.contains(CANARY), "{said}");
    }
}

/// Every option that any table knows, and some that none does.
fn any_option() -> impl Strategy<Value = (String, String)> {
    let mut names = BTreeSet::from([
        ("vnc".to_owned(), "teleport".to_owned()),
        ("DEFAULT".to_owned(), "console_x".to_owned()),
    ]);
    for option in options::all() {
        names.extend(
            option
                .names()
                .into_iter()
                .map(|(group, name)| (group.to_owned(), name.to_owned())),
        );
    }
    proptest::sample::select(names.into_iter().collect::<Vec<_>>())
}

/// What stands behind an equals sign.
fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("true".to_owned()),
        Just("6080".to_owned()),
        Just("10.0.0.1".to_owned()),
        Just("https://c.example:1/vnc.html?a=b#c".to_owned()),
        Just("/etc/x.pem".to_owned()),
        Just("vencrypt,none".to_owned()),
        Just("$my_ip".to_owned()),
        Just(String::new()),
        "[ -~]{0,20}",
        "[\"'\\\\\\[\\]=#:$\u{7f}\u{85}\u{2028}a]{0,12}",
    ]
}

proptest! {
    #[test]
    fn whatever_nova_says_the_config_is_good_or_the_refusal_names_the_place(
        assignments in proptest::collection::vec((any_option(), any_value()), 0..12),
        role in proptest::sample::select(&["proxy", "all"][..]),
        console in proptest::sample::select(&["novnc", "spice", "serial"][..]),
        source in proptest::sample::select(&["nova-db", "nova-api"][..]),
    ) {
        let lines = assignments.iter().map(|((group, name), value)| format!("[{group}]\n{name} = {value}\n"));
        let settings = settings(&lines.collect::<String>());
        let wanted = wanted(&["--role", role, "--console", console, "--source", source]);
        let plan = Plan::new(&wanted, &settings, Path::new("/s"));
        match plan.draft() {
            Ok(draft) => {
                let printed = draft.text(&wanted.head(&settings));
                let read = Config::parse(&printed);
                prop_assert!(read.is_ok(), "{}\n{printed}", read.unwrap_err());
            }
            Err(refused) => prop_assert!(refused.to_string().contains("(nova.conf:"), "{refused}"),
        }
    }
}
