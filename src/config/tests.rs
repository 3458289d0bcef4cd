use std::collections::BTreeSet;

use super::*;

fn refusal(text: &str) -> String {
    Config::parse(text).unwrap_err().to_string()
}

#[test]
fn an_empty_file_is_the_default() {
    let config = Config::parse("").unwrap();
    assert_eq!(config.auth.url_ttl, Period::from_secs(600));
    assert!(config.discovers());
}

#[test]
fn the_example_is_the_default_value_of_every_key() {
    let example = Config::parse(EXAMPLE).unwrap();
    let shown = toml::to_string(&example).unwrap();
    assert_eq!(shown, toml::to_string(&Config::default()).unwrap());
}

#[test]
fn the_example_shows_every_key_there_is() {
    let everything = r#"
        proxy = { name = "n", public_url = "http://h", novnc_url = "http://h", spice_url = "http://h", xvpvnc_url = "http://h", spice_direct_url = "http://h", mks_url = "http://h", serial_url = "ws://h", vnc = VNC }
        admin = { socket = "/s" }
        limits = { memory = 1 }
        tls = { certificate = "/c", key = "/k", extra = [{ certificate = "/c", key = "/k" }] }
        audit = { file = "/a" }
        web = { root = "/w" }
        auth = { nova_url = "http://h", file = "/f", redis = { sentinel = "m", ca_file = "/f", user = "u", password_file = "/f" } }
        keystone = { url = "http://h", public_url = "http://h", username = "u", password_file = "/p", region = "r", ca_file = "/c" }
        compute = { discover = true, host = [{ name = "n", address = "h", user = "u", password_file = "/p", vnc = VNC }], instance = [{ name = "n", id = "11111111-1111-4111-8111-111111111111", address = "h:1", internal_access_path = "a", project = "p", vnc = VNC }] }
        api = { public_url = "http://h", key = [{ name = "n", sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", project = "p", role = "reader" }] }
    "#;
    let vnc = r#"{ security = ["none"], ca_file = "/c", cert_file = "/d", key_file = "/k", verify = "ca", tls_server_name = "n", user = "u", password_file = "/p" }"#;
    let mut everything = Config::parse(&everything.replace("VNC", vnc)).unwrap();
    everything.keystone.application_credential_id = Some("i".to_owned());
    everything.keystone.application_credential_secret_file = Some("/s".into());
    everything.auth.token_file = Some("/t".into());
    let rpc = &mut everything.rpc;
    rpc.compute_dir = Some("/d".into());
    rpc.ca = Some("/c".into());
    (rpc.certificate, rpc.key) = (rpc.ca.clone(), rpc.ca.clone());
    rpc.secret_file = Some("/s".into());
    everything.audit.journal = Some("/j".into());
    let keys = keys_of(&toml::to_string(&everything).unwrap());
    assert_eq!(keys, keys_of(EXAMPLE));
}

/// Every `section.key` of a TOML text, with those that stand behind a `#` too.
fn keys_of(text: &str) -> BTreeSet<String> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in text.lines() {
        let line = line.strip_prefix('#').unwrap_or(line).trim();
        if line.starts_with('[') && line.ends_with(']') {
            section = line.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            let _new = keys.insert(format!("{section}.{key}"));
        }
    }
    keys
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_match() {
    let refusal = refusal("[auth]\nurl_tll = \"10m\"\n");
    assert!(refusal.contains("line 2"), "{refusal}");
    assert!(
        refusal.ends_with("unknown key `url_tll`; did you mean `url_ttl`?"),
        "{refusal}"
    );
}

#[test]
fn a_secret_in_the_wrong_place_is_not_shown() {
    let refusal = refusal("[[api.key]]\nname = \"ops\"\nsha256 = \"vgk_secret\"\n");
    assert!(
        refusal.starts_with("line 3, sha256: expected 64"),
        "{refusal}"
    );
    assert!(!refusal.contains("vgk_"), "{refusal}");
}

#[test]
fn an_impossible_value_is_refused_by_its_key() {
    for (text, key, why) in [
        ("[auth]\nurl_ttl = \"0s\"", "auth.url_ttl", "at least 1s"),
        ("[proxy]\nlisten = []", "proxy.listen", "at least one"),
        ("[proxy]\nmax_frame = 10", "proxy.max_frame", "4096"),
        (
            "[proxy]\npublic_url = \"ftp://h\"",
            "proxy.public_url",
            "http:// or https://",
        ),
        (
            "[proxy]\npublic_url = \"http://u:p@h\"",
            "proxy.public_url",
            "user or password",
        ),
        (
            "[proxy]\nallowed_origins = [\"https://h\"]",
            "proxy.allowed_origins",
            "without scheme",
        ),
        ("[log]\nlevel = \"info,loud\"", "log.level", "`loud`"),
        ("[compute]\nxml = [\"x\"]", "compute.xml", "absolute"),
        ("[compute]\nqmp = [\"x\"]", "compute.qmp", "absolute"),
        (
            "[web]\nframe_ancestors = [\"a; b\"]",
            "web.frame_ancestors",
            "no source",
        ),
    ] {
        let refusal = refusal(text);
        assert!(
            refusal.starts_with(key) && refusal.contains(why),
            "{text}: {refusal}"
        );
    }
}

#[test]
fn a_value_of_the_wrong_shape_is_refused_with_what_was_expected() {
    assert!(refusal("[auth]\nurl_ttl = \"soon\"").contains("no length of time"));
    assert!(refusal("[proxy]\nlisten = [\"localhost\"]").contains("127.0.0.1:6080"));
    assert!(refusal("[[compute.instance]]\nname = \"a\"\naddress = \"h\"").contains("host:port"));
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_in_the_words_of_the_file() {
    for (text, why) in [
        ("[proxy]\nlisten = \"0.0.0.0:6080\"", "expected a list"),
        ("[proxy]\nlisten = [6080]", "such as \"127.0.0.1:6080\""),
        ("[proxy]\nping_interval = 30", "expected text in quotes"),
        ("[proxy]\nmax_sessions = -1", "expected a whole number"),
        ("[proxy]\ntrusted_proxies = [\"10.0.0.7\"]", "10.0.0.7/32"),
        ("[proxy]\npublic_url = \"h\"", "https://console.example.org"),
        ("proxy = 1", "expected a section"),
        (
            "[proxy]\nqwertz = 1",
            "unknown key `qwertz`, expected one of `listen`",
        ),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(why), "{text}: {refusal}");
    }
}

#[test]
fn an_instance_has_one_console_of_each_kind() {
    let text = "[[compute.instance]]\nname = \"a\"\naddress = \"h:1\"\n".repeat(2);
    assert!(refusal(&text).contains("`a` has two vnc consoles"));
}

#[test]
fn a_hypervisor_is_named_once_and_its_user_has_a_password() {
    let host = |keys: &str| format!("[[compute.host]]\nname = \"kvm-1\"\n{keys}");
    assert!(!Config::parse(&host("")).unwrap().discovers());
    let twice = refusal(&(host("") + &host("")));
    assert!(twice.contains("compute.host.name"), "{twice}");
    let half = refusal(&host("user = \"u\"\n"));
    assert!(half.contains("user and password_file"), "{half}");
}

#[test]
fn keystone_is_asked_as_one_user_in_one_way() {
    let check = |keys: &str| Config::parse(&format!("[keystone]\n{keys}"));
    let refusal = |keys: &str| check(keys).unwrap_err().to_string();
    let (url, user) = (
        "url = 'http://k'\n",
        "username = 'u'\npassword_file = '/p'\n",
    );
    let credential = "application_credential_id = 'i'\n\
                      application_credential_secret_file = '/s'\n";

    assert!(check(&format!("{url}{user}")).is_ok());
    assert!(check(&format!("{url}{credential}")).is_ok());
    assert!(refusal(user).contains("keystone.url says where"));
    for login in ["", "username = 'u'\n", &format!("{user}{credential}")] {
        let refusal = refusal(&format!("{url}{login}"));
        assert!(
            refusal.contains("either username and password_file"),
            "{refusal}"
        );
    }
    let relative = refusal(&format!("{url}username = 'u'\npassword_file = 'p'"));
    assert!(
        relative.contains("`p` is not an absolute path"),
        "{relative}"
    );
    let scheme = refusal(&format!("url = 'k:5000'\n{user}"));
    assert!(scheme.contains("keystone.url: "), "{scheme}");
}

#[test]
fn each_source_of_tokens_has_its_own_keys_and_no_others() {
    let check = |keys: &str| Config::parse(&format!("[auth]\n{keys}"));
    let refusal = |keys: &str| check(keys).unwrap_err().to_string();

    let file = check("source = 'websockify-file'\ntoken_file = '/t'\nconsole_type = 'serial'");
    let database = check("source = 'nova-db'\ndatabases = ['/a', '/b']");
    let lonely = [
        refusal("source = 'websockify-file'"),
        refusal("source = 'nova-db'"),
    ];
    let idle = [refusal("token_file = '/t'"), refusal("databases = ['/t']")];
    let relative = refusal("source = 'nova-db'\ndatabases = ['a']");

    assert!(!file.unwrap().discovers());
    assert!(!database.unwrap().discovers());
    assert!(lonely[0].starts_with("auth.token_file: auth.source needs it"));
    assert!(lonely[1].starts_with("auth.databases: auth.source needs it"));
    assert!(idle.iter().all(|why| why.contains("is of no use with")));
    assert!(
        relative.contains("`a` is not an absolute path"),
        "{relative}"
    );
}

#[test]
fn every_config_in_the_documents_is_good() {
    for (document, least) in [
        (include_str!("../../README.md"), 2),
        (include_str!("../../docs/openstack.md"), 3),
    ] {
        let blocks = document
            .split("```toml\n")
            .skip(1)
            .map(|rest| rest.split("```").next().unwrap());
        let blocks: Vec<&str> = blocks.collect();

        assert!(blocks.len() >= least);
        for block in blocks {
            let outcome = Config::parse(block);
            assert!(outcome.is_ok(), "{block}\n{}", outcome.unwrap_err());
        }
    }
}
