use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Uri {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refusal(text: &str) -> String {
    text.parse::<Uri>().unwrap_err().to_string()
}

fn sockets(text: &str, rights: Rights) -> Vec<String> {
    let places = Places {
        runtime: Some("/run/user/7".into()),
        home: None,
    };
    let sockets = parse(text).sockets(rights, &places).into_iter();
    sockets.map(|path| path.display().to_string()).collect()
}

#[test]
fn every_supported_form_is_read_and_the_daemon_is_told_only_its_part() {
    for (text, remote) in [
        ("qemu:///system", "qemu:///system"),
        ("qemu:///session", "qemu:///session"),
        ("test:///default", "test:///default"),
        ("test:///srv/node.xml", "test:///srv/node.xml"),
        ("qemu+unix:///system?socket=/x", "qemu:///system"),
        ("qemu://kvm-1/system", "qemu:///system"),
        ("qemu+tcp://kvm-1/system", "qemu:///system"),
        ("qemu+tls://kvm-1:4/system?pkipath=/p", "qemu:///system"),
        ("test+tls://[::1]/default", "test:///default"),
        ("qemu+ssh://root@kvm-1:22/session", "qemu:///session"),
    ] {
        assert_eq!(parse(text).remote(), remote, "{text}");
        assert_eq!(parse(text).to_string(), text);
    }
}

#[test]
fn the_daemons_own_socket_comes_before_the_shared_one() {
    let system = ["/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock"];
    assert_eq!(sockets("qemu:///system", Rights::ReadWrite), system);
    let read_only = system.map(|path| format!("{path}-ro"));
    assert_eq!(sockets("qemu:///system", Rights::ReadOnly), read_only);
    let shared = ["/run/libvirt/libvirt-sock"];
    assert_eq!(sockets("test:///default", Rights::ReadWrite), shared);
}

#[test]
fn a_session_has_its_sockets_in_the_runtime_directory_and_none_without_it() {
    let session = [
        "/run/user/7/libvirt/virtqemud-sock",
        "/run/user/7/libvirt/libvirt-sock",
    ];
    assert_eq!(sockets("qemu:///session", Rights::ReadWrite), session);
    assert_eq!(sockets("qemu:///session", Rights::ReadOnly), session);

    let nowhere = parse("qemu:///session").sockets(Rights::ReadWrite, &Places::default());

    assert_eq!(nowhere, Vec::<PathBuf>::new());
}

#[test]
fn a_socket_that_is_named_is_the_only_one() {
    let uri = "qemu:///system?socket=/srv/my%20sock";
    assert_eq!(sockets(uri, Rights::ReadOnly), ["/srv/my sock"]);
}

#[test]
fn only_a_unix_socket_is_local() {
    assert!(parse("qemu:///system").is_local());
    assert_eq!(parse("qemu:///system").host(), None);
    let ssh = parse("qemu+ssh://kvm-1/system");
    assert!(!ssh.is_local());
    assert_eq!(ssh.host(), Some(&"kvm-1".parse().unwrap()));
}

#[test]
fn a_host_without_a_transport_means_tls_at_its_port() {
    let route = |text: &str| parse(text).route().clone();
    let Route::Tls(tls) = route("qemu://kvm-1/system") else {
        panic!("TLS")
    };
    assert_eq!((tls.port, tls.verify, tls.pki), (16514, true, None));
    let Route::Tcp { port, .. } = route("qemu+tcp://kvm-1/system") else {
        panic!("TCP")
    };
    assert_eq!(port, 16509);
}

#[test]
fn every_parameter_of_ssh_is_read() {
    let text = "qemu+ssh://ops@kvm-1:2222/system?keyfile=/k&known_hosts=/h&no_verify=1\
        &proxy=netcat&netcat=ncat&socket=/s&command=/usr/bin/ssh";
    let Route::Ssh(ssh) = parse(text).route().clone() else {
        panic!("ssh")
    };

    let expected = SshRoute {
        host: "kvm-1".parse().unwrap(),
        port: Some(2222),
        program: "/usr/bin/ssh".into(),
        key_file: Some("/k".into()),
        known_hosts: Some("/h".into()),
        verify: false,
        helper: Helper::Netcat,
        netcat: "ncat".to_owned(),
        socket: Some("/s".into()),
    };
    assert_eq!(ssh, expected);
    assert_eq!(parse(text).user(), Some("ops"));
}

#[test]
fn libvirts_helper_is_preferred_unless_a_socket_is_named() {
    let helper = |text: &str| match parse(text).route() {
        Route::Ssh(ssh) => ssh.helper,
        other => panic!("{other:?}"),
    };
    assert_eq!(helper("qemu+ssh://a/system"), Helper::Auto);
    assert_eq!(helper("qemu+ssh://a/system?socket=/s"), Helper::Netcat);
    assert_eq!(helper("qemu+ssh://a/system?proxy=native"), Helper::Native);
}

#[test]
fn what_is_not_supported_is_refused_with_what_is() {
    for (text, why) in [
        (
            "xen:///system",
            "the driver `xen` is not supported; qemu and test are",
        ),
        (
            "qemu+libssh2://a/system",
            "the transport `libssh2` is not supported; unix, tcp, tls and ssh are",
        ),
        (
            "qemu:///embed?root=/x",
            "the path `/embed` is not supported with `qemu`; /system and /session are",
        ),
        (
            "qemu+tls://a/system?tls_priority=NORMAL",
            "the parameter `tls_priority` is not supported with `tls`; \
             pkipath and no_verify are",
        ),
        (
            "qemu+tcp://a/system?x",
            "the parameter `x` is not supported with `tcp`; it takes none",
        ),
        ("qemu+tls:///system", "the transport `tls` needs a host"),
        (
            "qemu+unix://a/system",
            "a Unix socket is on this machine; take out the host `a`, or name a transport",
        ),
        (
            "system",
            "not a URI such as qemu:///system (relative URL without a base)",
        ),
        (
            "qemu+tls://a/system?pkipath=x",
            "the parameter `pkipath` cannot be `x`: it must be an absolute path",
        ),
        (
            "qemu+tls://a/system?no_verify=yes",
            "the parameter `no_verify` cannot be `yes`: it must be 0 or 1",
        ),
        (
            "qemu+ssh://a/system?proxy=native&socket=/s",
            "the parameter `proxy` cannot be `native`: socket and netcat are for proxy=netcat",
        ),
        (
            "qemu+ssh://a/session?proxy=netcat",
            "the parameter `proxy` cannot be `netcat`: \
             where the socket of a session is must be said with socket=",
        ),
        (
            "qemu:///system?socket=/a&socket=/b",
            "the parameter `socket` stands there twice",
        ),
        ("qemu+tcp://a:0/system", "the port 0 cannot be used here"),
    ] {
        assert_eq!(refusal(text), why, "{text}");
    }
}

#[test]
fn a_password_is_refused_and_not_repeated() {
    let why = refusal("qemu+tls://ops:hunter2@kvm-1/system");

    assert_eq!(
        why,
        "a password must not stand in a URI; put it into a file of its own"
    );
}

#[test]
fn nothing_that_ssh_would_read_as_an_option_is_a_host_or_a_user() {
    for text in [
        "qemu+ssh://-oProxyCommand=x/system",
        "qemu+ssh://-x/system",
        "qemu+ssh://%2dx/system",
        "qemu+ssh://a%20b/system",
        "qemu+ssh://-l@kvm-1/system",
        "qemu+ssh://a%0Ab@kvm-1/system",
        "qemu+ssh://kvm-1/system?keyfile=/a%0Ab",
    ] {
        assert!(text.parse::<Uri>().is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
        let _parsed = text.parse::<Uri>();
    }

    #[test]
    fn anything_after_a_transport_is_read_or_refused(
        transport in "(unix|tcp|tls|ssh)",
        rest in "[a-z0-9@:/?=&;%#.\\[\\]-]{0,60}",
    ) {
        let text = format!("qemu+{transport}://{rest}");
        if let Ok(uri) = text.parse::<Uri>() {
            let again: Uri = uri.to_string().parse().unwrap();
            prop_assert_eq!(uri, again);
        }
    }
}
