use proptest::prelude::*;

use super::*;

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../tests/data/libvirt/", $name, ".xml"))
    };
}

const ALL: [&str; 14] = [
    fixture!("autosock"),
    fixture!("both"),
    fixture!("console"),
    fixture!("headless"),
    fixture!("inactive"),
    fixture!("off"),
    fixture!("passwd"),
    fixture!("pty"),
    fixture!("serial"),
    fixture!("spice"),
    fixture!("status"),
    fixture!("unix"),
    fixture!("vnc"),
    fixture!("websocket"),
];

fn read(xml: &str) -> Result<Instance, BadDomain> {
    parse(xml, &"10.0.0.7".parse().unwrap(), "test")
}

/// Every console as `kind address`, the TLS port behind a plus.
fn consoles(xml: &str) -> Vec<String> {
    let shown = |console: &Console| match &console.target {
        None => format!("{} nowhere", console.kind),
        Some(Target {
            address, tls_port, ..
        }) => {
            let tls = tls_port.map(|port| format!("+{port}")).unwrap_or_default();
            format!("{} {address}{tls}", console.kind)
        }
    };
    read(xml).unwrap().consoles.iter().map(shown).collect()
}

fn handed_over(xml: &str) -> Vec<String> {
    let setting = Setting {
        host_address: &"10.0.0.7".parse().unwrap(),
        source: "test",
        handover: Handover {
            displays: true,
            lines: true,
        },
    };
    let instance = parse_in(xml, &setting).unwrap();
    let shown = |it: &Console| match &it.target {
        Some(target) => format!("{} {target}", it.kind),
        None => format!("{} nowhere", it.kind),
    };
    instance.consoles.iter().map(shown).collect()
}

#[test]
fn what_listens_nowhere_is_a_console_where_the_hypervisor_hands_it_over() {
    let nowhere = with_graphics("port='-1' autoport='yes'");
    assert_eq!(consoles(&nowhere), ["vnc nowhere"]);
    assert_eq!(handed_over(&nowhere), ["vnc hypervisor"]);
    assert_eq!(handed_over(fixture!("vnc")), ["vnc 127.0.0.1:5901"]);
    assert!(handed_over(fixture!("pty")).contains(&"serial hypervisor".to_owned()));
    let off = handed_over(fixture!("off"));
    assert!(off.iter().all(|it| it.ends_with("nowhere")), "{off:?}");
}

#[test]
fn a_display_is_known_by_its_number_among_all_and_a_line_by_its_alias() {
    let number = |xml, kind| device(xml, kind).unwrap();
    let two = "<domain><devices><graphics type='sdl'/><graphics type='spice'/>\
               <graphics type='vnc'/><graphics type='vnc'/></devices></domain>";
    assert_eq!(number(two, ConsoleKind::Spice), Some(Device::Display(1)));
    assert_eq!(number(two, ConsoleKind::Vnc), Some(Device::Display(2)));
    assert_eq!(number(two, ConsoleKind::Serial), None);
    let line = "<domain><devices><serial type='pty'><alias name='serial0'/></serial>\
                <console type='pty'/></devices></domain>";
    let alias = Some("serial0".to_owned());
    assert_eq!(number(line, ConsoleKind::Serial), Some(Device::Line(alias)));
    let line = number(fixture!("pty"), ConsoleKind::Serial);
    assert_eq!(line, Some(Device::Line(None)));
    assert_eq!(number(fixture!("serial"), ConsoleKind::Serial), None);
}

fn with_graphics(attributes: &str) -> String {
    fixture!("vnc").replace("port='5901' autoport='yes' listen='127.0.0.1'", attributes)
}

#[test]
fn a_tcp_display_is_where_it_listens() {
    assert_eq!(consoles(fixture!("vnc")), ["vnc 127.0.0.1:5901"]);
}

#[test]
fn a_unix_socket_is_taken_from_either_place() {
    assert_eq!(
        consoles(fixture!("unix")),
        ["vnc unix:/run/vms/unix-1.sock"]
    );
    assert_eq!(
        consoles(fixture!("autosock")),
        ["vnc unix:/var/lib/libvirt/qemu/domain-12-autosock-1/vnc.sock"]
    );
}

#[test]
fn a_wildcard_listener_is_dialled_at_the_hosts_address() {
    assert_eq!(consoles(fixture!("websocket")), ["vnc 10.0.0.7:5904"]);
    assert_eq!(consoles(fixture!("status")), ["vnc 10.0.0.7:5914"]);
    assert_eq!(consoles(fixture!("console")), ["serial 10.0.0.7:10008"]);
}

#[test]
fn a_password_is_never_kept() {
    let kept = format!("{:?}", read(fixture!("passwd")).unwrap());
    assert!(!kept.contains("hunter2"), "{kept}");
}

#[test]
fn spice_has_a_plain_and_a_tls_port() {
    assert_eq!(consoles(fixture!("spice")), ["spice 127.0.0.1:5905+5915"]);
}

#[test]
fn several_displays_keep_their_order_and_the_first_of_a_kind_counts() {
    let both = fixture!("both");
    assert_eq!(
        consoles(both),
        [
            "vnc [fd00::6]:5906",
            "spice vm-host-6.example:5916+5916",
            "vnc 127.0.0.1:5926",
        ]
    );
    let first = read(both).unwrap().console(ConsoleKind::Vnc).cloned();
    let first = first.and_then(|console| console.target).unwrap();
    assert_eq!(first.to_string(), "[fd00::6]:5906");
}

#[test]
fn a_tcp_line_goes_before_a_unix_one_and_the_copy_under_console_is_left_out() {
    assert_eq!(
        consoles(fixture!("serial")),
        [
            "serial 127.0.0.1:10007",
            "serial unix:/run/vms/serial-1.sock"
        ]
    );
}

#[test]
fn what_cannot_be_dialled_is_no_console() {
    assert_eq!(consoles(fixture!("pty")), Vec::<String>::new());
    assert_eq!(consoles(fixture!("headless")), Vec::<String>::new());
}

#[test]
fn a_domain_that_is_off_has_consoles_nowhere_even_with_a_fixed_port() {
    assert_eq!(consoles(fixture!("off")), ["vnc nowhere"]);
    let inactive = fixture!("inactive");
    assert_eq!(consoles(inactive), ["vnc nowhere", "serial nowhere"]);
    assert_eq!(read(inactive).unwrap().state, PowerState::Off);
}

#[test]
fn a_port_that_is_not_chosen_yet_is_nowhere() {
    for attributes in ["port='-1'", "port='0'", "", "listen='127.0.0.1'"] {
        assert_eq!(consoles(&with_graphics(attributes)), ["vnc nowhere"]);
    }
}

#[test]
fn a_paused_guest_has_a_display_and_one_that_is_shut_off_has_none() {
    let paused = fixture!("status");
    let off = paused.replace("'paused'", "'shutoff'");
    assert_eq!(read(paused).unwrap().state, PowerState::Running);
    assert_eq!(read(&off).unwrap().state, PowerState::Off);
}

#[test]
fn nova_tells_the_name_the_flavor_and_the_owner() {
    let instance = read(fixture!("vnc")).unwrap();

    assert_eq!(instance.name, "web-1");
    assert_eq!(instance.shown_name(), "Web shop");
    assert_eq!(instance.flavor.as_deref(), Some("m1.small"));
    let owner = instance.owner.unwrap();
    assert_eq!(owner.project.as_deref(), Some("shop"));
    assert_eq!(owner.user.as_deref(), Some("ada"));
    let project_id = owner.project_id.as_deref();
    assert_eq!(project_id, Some("b1946ac92492d2347c6235b4d2611184"));
    let user_id = owner.user_id.as_deref();
    assert_eq!(user_id, Some("0f5c7d3d4b5a4a6f9d6e8b2f4c1a7e90"));
}

#[test]
fn older_metadata_is_read_and_what_nova_did_not_know_stays_unknown() {
    let instance = read(fixture!("inactive")).unwrap();

    let owner = instance.owner.unwrap();
    assert!(owner.project_id.is_some());
    assert_eq!((owner.project, owner.user), (None, None));
    assert_eq!(instance.display_name.as_deref(), Some("Spare machine"));
}

#[test]
fn metadata_of_others_is_not_novas() {
    let foreign = fixture!("vnc").replace("openstack.org", "example.org");
    let instance = read(&foreign).unwrap();
    assert_eq!((instance.display_name, instance.owner), (None, None));
}

#[test]
fn names_reach_a_terminal_without_control_characters() {
    let named = fixture!("vnc").replace("Web shop", "&#x9b;31m\tred");
    let name = read(&named).unwrap().display_name.unwrap();
    assert!(!name.contains(char::is_control), "{name:?}");
}

#[test]
fn a_fault_says_what_is_wrong_in_one_sentence() {
    let vnc = fixture!("vnc");
    let uuid = "3f0c7a52-6d0e-4f6e-9a55-0c1de7a00001";
    for (xml, sentence) in [
        (
            with_graphics("port='70000'"),
            "`graphics/@port` is `70000`, expected a port from 1 to 65535",
        ),
        (
            with_graphics("port='-5'"),
            "`graphics/@port` is `-5`, expected a port from 1 to 65535",
        ),
        (
            with_graphics("port='1' listen='a b'"),
            "`graphics/@listen` is `a b`, expected a host name or address",
        ),
        (
            with_graphics("socket='x'"),
            "`graphics/@socket` is `x`, expected an absolute path",
        ),
        (vnc.replace(uuid, "x"), "`<uuid>` is `x`, expected a UUID"),
        (vnc.replace(uuid, ""), "the domain has no `<uuid>`"),
        (vnc.replace("name>", "nom>"), "the domain has no `<name>`"),
        ("<domstatus/>".to_owned(), "the domain has no `<domain>`"),
        (
            "<network/>".to_owned(),
            "holds a `<network>`, not a `<domain>`",
        ),
        (
            "<domain>\n<a>\n</domain>".to_owned(),
            "line 3: expected 'a' tag, not 'domain'",
        ),
        (
            "<!DOCTYPE x []><domain/>".to_owned(),
            "XML with DTD detected",
        ),
        (String::new(), "the document does not have a root node"),
    ] {
        assert_eq!(read(&xml).unwrap_err().to_string(), sentence);
    }
}

#[test]
fn xml_made_to_be_slow_is_refused_at_once() {
    let nested = "<a xmlns:a='b'>".repeat(5_000);
    let wide = format!("<domain{}/>", " a=''".repeat(5_000));
    let long = format!("<domain>{}</domain>", "<a/>".repeat(300_000));

    assert_eq!(read(&nested), Err(BadDomain::Costly("namespaces")));
    assert_eq!(read(&wide), Err(BadDomain::Costly("attributes")));
    let limit = BadDomain::Xml("nodes limit reached".to_owned());
    assert_eq!(read(&long), Err(limit));
}

#[test]
fn deep_nesting_is_no_danger_to_the_stack() {
    let deep = format!(
        "{}{}",
        "<domain>".repeat(90_000),
        "</domain>".repeat(90_000)
    );
    assert_eq!(read(&deep), Err(BadDomain::Missing("name")));
}

#[test]
fn the_log_is_that_of_the_first_serial_line_that_has_one() {
    let file = |devices: &str| {
        let xml = format!("<domain><devices>{devices}</devices></domain>");
        let file = log_file(&xml).unwrap();
        file.map(|path| path.display().to_string())
    };
    let log = |path: &str| format!("<log file='{path}' append='off'/>");
    let serial = |inner: &str| format!("<serial type='pty'>{inner}</serial>");
    let console = format!("<console type='pty'>{}</console>", log("/c"));

    let two = format!("{}{}", serial(&log("/a")), serial(&log("/b")));
    assert_eq!(file(&two).as_deref(), Some("/a"));
    let second = format!("{}{}{console}", serial(""), serial(&log("/b")));
    assert_eq!(file(&second).as_deref(), Some("/b"));
    let of_console = format!("{}{console}", serial(""));
    assert_eq!(file(&of_console).as_deref(), Some("/c"));
    let written = "<serial type='file'><source path='/f' append='on'/></serial>";
    assert_eq!(file(written).as_deref(), Some("/f"));
    let socket = "<serial type='unix'><source mode='bind' path='/s'/></serial>";
    assert_eq!(file(socket), None);
    assert_eq!(file(&serial(&log("relative"))), None);
    assert_eq!(
        log_file("<network/>"),
        Err(BadDomain::Foreign("network".to_owned()))
    );
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".*") {
        let _outcome = read(&text);
    }

    #[test]
    fn a_domain_with_something_else_in_it_is_read_or_refused(
        fixture in 0..ALL.len(),
        at in any::<prop::sample::Index>(),
        cut in 0_usize..40,
        put in "[<>/='\"& a-z0-9:.-]{0,12}",
    ) {
        let mut text: Vec<char> = ALL[fixture].chars().collect();
        let start = at.index(text.len());
        let end = text.len().min(start + cut);
        text.splice(start..end, put.chars());
        let text: String = text.into_iter().collect();

        if let Ok(instance) = read(&text) {
            prop_assert!(instance.name.len() <= 4 * MAX_NAME);
        }
    }
}
