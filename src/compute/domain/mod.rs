//! Turns libvirt's XML of a domain into an instance: who it is, whether it runs, where its
//! consoles are.
//!
//! Pure. Called by the drivers; knows no file and no socket. Takes what `virsh dumpxml` prints,
//! live or inactive, and libvirt's own status files. The look-up rules are Nova's (the first
//! console of a type counts), widened by Unix sockets and by listen addresses. Passwords are
//! read only where they are asked for, `websocket=` ports never. What listens nowhere (a pty serial
//! line, a display with `<listen type='none'/>`) is a console only where the hypervisor hands it
//! over.

use std::path::PathBuf;

use roxmltree::{Document, Node, ParsingOptions};

use crate::model::{
    Address, Console, ConsoleKind, Host, Instance, InstanceId, Owner, Password, PowerState, Target,
};

/// The longest XML worth reading: a thousand times what libvirt writes for a usual domain.
pub const MAX_XML_BYTES: u64 = 16 * 1024 * 1024;

/// A status file has about 500 nodes; a hundred disks make that 5,000.
const MAX_NODES: u32 = 200_000;

/// Real domains declare fewer than ten. The parser copies and compares all declarations in scope
/// at each nested one, which is cubic: 2,000 of them in 80 KB would take seconds.
const MAX_NAMESPACES: usize = 256;

/// The parser compares each attribute with all earlier ones of its element, which is quadratic.
const MAX_ATTRIBUTES: usize = 512;

/// The longest name kept, in characters; Nova's limit for a server's name.
const MAX_NAME: usize = 255;

/// Nova's metadata since 23.0, and before.
const NOVA: [&str; 2] = [
    "http://openstack.org/xmlns/libvirt/nova/1.1",
    "http://openstack.org/xmlns/libvirt/nova/1.0",
];

/// Why a text is no domain we can use.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadDomain {
    /// Well-formed, but about something else: a network, a pool, a snapshot.
    #[error("holds a `<{0}>`, not a `<domain>`")]
    Foreign(String),
    /// Not well-formed, or with a document type, which is never read.
    #[error("{0}")]
    Xml(String),
    /// Made to be slow or large in memory.
    #[error("has more {0} than any real domain")]
    Costly(&'static str),
    /// A domain must have this.
    #[error("the domain has no `<{0}>`")]
    Missing(&'static str),
    /// Something has a value it cannot have.
    #[error("`{place}` is `{value}`, expected {expected}")]
    Value {
        /// The element or attribute, as one would look for it.
        place: String,
        /// What it says.
        value: String,
        /// What it could say.
        expected: &'static str,
    },
}

/// What the XML does not tell of the machine it is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Setting<'a> {
    /// Replaces a listen address that names no host (missing, `0.0.0.0`, `::`).
    pub host_address: &'a Host,
    /// Kept for people.
    pub source: &'a str,
    /// What the source can hand over by itself.
    pub handover: Handover,
}

/// What a hypervisor hands over of running domains, whether or not it listens anywhere.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Handover {
    /// VNC and SPICE.
    pub displays: bool,
    /// Serial lines that are ptys.
    pub lines: bool,
}

/// How a hypervisor knows a console that it is to hand over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Device {
    /// The display of this number among all of the domain's.
    Display(u32),
    /// The pty line of this alias; without one the domain's first.
    Line(Option<String>),
}

/// Reads one `<domain>` or `<domstatus>` of a source that hands nothing over; see [`parse_in`].
pub fn parse(xml: &str, host_address: &Host, source: &str) -> Result<Instance, BadDomain> {
    let setting = Setting {
        host_address,
        source,
        handover: Handover::default(),
    };
    parse_in(xml, &setting)
}

/// Reads one `<domain>` or `<domstatus>`.
///
/// Errors: `Foreign` if it is about no domain at all, else what is wrong with it, as a phrase that
/// can follow the file's name.
pub fn parse_in(xml: &str, setting: &Setting<'_>) -> Result<Instance, BadDomain> {
    parse_with_log(xml, setting).map(|(instance, _)| instance)
}

/// The same, with the file that [`log_file`] tells of.
pub fn parse_with_log(
    xml: &str,
    setting: &Setting<'_>,
) -> Result<(Instance, Option<PathBuf>), BadDomain> {
    refuse_costly(xml)?;
    let document = document(xml)?;
    let root = document.root_element();
    let log = log(domain(root)?);
    instance(root, setting).map(|instance| (instance, log))
}

/// Where the hypervisor keeps what the domain writes to its first serial line that is kept at all.
/// Errors: as [`parse_in`].
pub fn log_file(xml: &str) -> Result<Option<PathBuf>, BadDomain> {
    refuse_costly(xml)?;
    let document = document(xml)?;
    Ok(log(domain(document.root_element())?))
}

fn instance(root: Node<'_, '_>, setting: &Setting<'_>) -> Result<Instance, BadDomain> {
    let domain = domain(root)?;
    let name = text(domain, "name").ok_or(BadDomain::Missing("name"))?;
    let state = state(root, domain);
    Ok(Instance {
        id: id(domain)?,
        display_name: display_name(domain).filter(|shown| *shown != name),
        name,
        state,
        flavor: flavor(domain),
        owner: owner(domain),
        consoles: consoles(domain, state, setting)?,
        source: setting.source.to_owned(),
        host: None,
    })
}

/// The device of the console of `kind` that [`parse_in`] takes: the first display of that type;
/// the first pty line, if none listens. Errors: as there.
pub fn device(xml: &str, kind: ConsoleKind) -> Result<Option<Device>, BadDomain> {
    refuse_costly(xml)?;
    let document = document(xml)?;
    let Some(devices) = child(domain(document.root_element())?, "devices") else {
        return Ok(None);
    };
    if kind != ConsoleKind::Serial {
        let mut displays = (0..).zip(children(devices, "graphics"));
        let found = displays.find(|(_, node)| self::kind(*node) == Some(kind));
        return Ok(found.map(|(number, _)| Device::Display(number)));
    }
    if !lines(devices).is_empty() {
        return Ok(None);
    }
    Ok(ptys(devices).first().map(|line| {
        let alias = child(*line, "alias").and_then(|alias| alias.attribute("name"));
        Device::Line(alias.map(str::to_owned))
    }))
}

/// The password of the display that [`parse_in`] takes for VNC, from an XML that has it. It is the
/// only secret read here, and only when asked for.
pub fn vnc_password(xml: &str) -> Option<Password> {
    refuse_costly(xml).ok()?;
    let document = document(xml).ok()?;
    let devices = child(domain(document.root_element()).ok()?, "devices")?;
    let mut displays = children(devices, "graphics");
    let display = displays.find(|node| kind(*node) == Some(ConsoleKind::Vnc))?;
    filled(display, "passwd").map(|text| text.to_owned().into())
}

/// No `<` can stand inside a tag, so what lies between two of them holds at most one.
fn refuse_costly(xml: &str) -> Result<(), BadDomain> {
    if xml.matches("xmlns").nth(MAX_NAMESPACES).is_some() {
        return Err(BadDomain::Costly("namespaces"));
    }
    let attributes = |tag: &str| tag.matches('=').nth(MAX_ATTRIBUTES).is_some();
    let mut tags = xml.split('<').filter(|tag| !tag.starts_with(['!', '?']));
    tags.all(|tag| !attributes(tag))
        .then_some(())
        .ok_or(BadDomain::Costly("attributes"))
}

fn document(xml: &str) -> Result<Document<'_>, BadDomain> {
    let options = ParsingOptions {
        nodes_limit: MAX_NODES,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(xml, options).map_err(|error| BadDomain::Xml(explain(&error)))
}

/// Puts the line first where the parser knows it; only then does its text hold the position.
fn explain(error: &roxmltree::Error) -> String {
    let text = error.to_string();
    let position = format!(" at {}", error.pos());
    if !text.contains(&position) {
        return plain(&text);
    }
    let text = plain(&text.replacen(&position, "", 1));
    format!("line {}: {text}", error.pos().row)
}

fn domain<'a, 'input>(root: Node<'a, 'input>) -> Result<Node<'a, 'input>, BadDomain> {
    match root.tag_name().name() {
        "domain" => Ok(root),
        "domstatus" => child(root, "domain").ok_or(BadDomain::Missing("domain")),
        other => Err(BadDomain::Foreign(plain(other))),
    }
}

fn id(domain: Node<'_, '_>) -> Result<InstanceId, BadDomain> {
    let uuid = text(domain, "uuid").ok_or(BadDomain::Missing("uuid"))?;
    uuid.parse()
        .map_err(|_| bad("<uuid>".to_owned(), &uuid, "a UUID"))
}

/// libvirt keeps a status file while the hypervisor's process lives: paused and even crashed
/// guests have their display. Otherwise only a live domain has an `id`.
fn state(root: Node<'_, '_>, domain: Node<'_, '_>) -> PowerState {
    let runs = match root.attribute("state") {
        Some(state) => state != "shutoff",
        None => domain.attribute("id").is_some_and(|id| id != "-1"),
    };
    if runs {
        PowerState::Running
    } else {
        PowerState::Off
    }
}

fn display_name(domain: Node<'_, '_>) -> Option<String> {
    let named = nova(domain).and_then(|nova| text(nova, "name"));
    named.or_else(|| text(domain, "title"))
}

fn flavor(domain: Node<'_, '_>) -> Option<String> {
    let flavor = child(nova(domain)?, "flavor")?;
    flavor.attribute("name").map(plain).and_then(known)
}

/// What Nova knew: it writes `N/A` where it did not.
fn known(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty() && text != "N/A")
}

fn owner(domain: Node<'_, '_>) -> Option<Owner> {
    let owner = child(nova(domain)?, "owner")?;
    let id = |who| child(owner, who).and_then(|node| node.attribute("uuid"));
    let owner = Owner {
        project_id: id("project").map(plain).and_then(known),
        project: text(owner, "project").and_then(known),
        user_id: id("user").map(plain).and_then(known),
        user: text(owner, "user").and_then(known),
    };
    Some(owner).filter(|owner| *owner != Owner::default())
}

fn nova<'a, 'input>(domain: Node<'a, 'input>) -> Option<Node<'a, 'input>> {
    let metadata = child(domain, "metadata")?;
    let ours = |node: &Node<'_, '_>| {
        let namespace = node.tag_name().namespace();
        namespace.is_some_and(|namespace| NOVA.contains(&namespace))
    };
    children(metadata, "instance").find(ours)
}

/// Displays in the order of the XML, then serial lines, those that listen first.
fn consoles(
    domain: Node<'_, '_>,
    state: PowerState,
    setting: &Setting<'_>,
) -> Result<Vec<Console>, BadDomain> {
    let Some(devices) = child(domain, "devices") else {
        return Ok(Vec::new());
    };
    // A fixed port of a domain that is off may be another's by now.
    let off = state == PowerState::Off;
    let displays = children(devices, "graphics").filter_map(|node| Some((kind(node)?, node)));
    let lines = lines(devices);
    let lines = lines.into_iter().map(|node| (ConsoleKind::Serial, node));
    let listening = displays.chain(lines).map(|(kind, node)| {
        let target = if off {
            None
        } else {
            target(kind, node, setting)?
        };
        Ok(Console { kind, target })
    });
    let ptys = ptys(devices);
    let ptys = ptys.iter().filter(|_| setting.handover.lines).map(|_| {
        Ok(Console {
            kind: ConsoleKind::Serial,
            target: (!off).then(|| Address::Hypervisor.into()),
        })
    });
    listening.chain(ptys).collect()
}

fn kind(graphics: Node<'_, '_>) -> Option<ConsoleKind> {
    match graphics.attribute("type")? {
        "vnc" => Some(ConsoleKind::Vnc),
        "spice" => Some(ConsoleKind::Spice),
        _ => None,
    }
}

/// The `<source>` elements the hypervisor listens on: TCP before Unix, and those of `<console>`
/// only without any of `<serial>`, because the first console is a copy of the first serial.
fn lines<'a, 'input>(devices: Node<'a, 'input>) -> Vec<Node<'a, 'input>> {
    serial_or_console(|tag| {
        let typed = move |kind| {
            typed(devices, tag, kind)
                .flat_map(|node| children(node, "source"))
                .filter(|source| source.attribute("mode") == Some("bind"))
        };
        typed("tcp").chain(typed("unix")).collect()
    })
}

/// Lines of any kind have a `<log>`; those of type `file` are one.
fn log(domain: Node<'_, '_>) -> Option<PathBuf> {
    let devices = child(domain, "devices")?;
    let file = |line: Node<'_, '_>| {
        let written = (line.attribute("type") == Some("file")).then(|| child(line, "source"));
        let written = written
            .flatten()
            .and_then(|source| source.attribute("path"));
        let log = child(line, "log").and_then(|log| log.attribute("file"));
        let path = PathBuf::from(log.or(written)?);
        path.is_absolute().then_some(path)
    };
    let files = serial_or_console(|tag| children(devices, tag).filter_map(file).collect());
    files.into_iter().next()
}

/// The lines that are ptys, by the same rule.
fn ptys<'a, 'input>(devices: Node<'a, 'input>) -> Vec<Node<'a, 'input>> {
    serial_or_console(|tag| typed(devices, tag, "pty").collect())
}

fn serial_or_console<T>(of: impl Fn(&'static str) -> Vec<T>) -> Vec<T> {
    Some(of("serial"))
        .filter(|serial| !serial.is_empty())
        .unwrap_or_else(|| of("console"))
}

fn typed<'a, 'input>(
    devices: Node<'a, 'input>,
    tag: &'static str,
    kind: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    children(devices, tag).filter(move |node| node.attribute("type") == Some(kind))
}

fn target(
    kind: ConsoleKind,
    node: Node<'_, '_>,
    setting: &Setting<'_>,
) -> Result<Option<Target>, BadDomain> {
    let host = setting.host_address;
    match kind {
        ConsoleKind::Vnc | ConsoleKind::Spice => {
            let handed = || {
                setting
                    .handover
                    .displays
                    .then(|| Address::Hypervisor.into())
            };
            Ok(display(kind, node, host)?.or_else(handed))
        }
        ConsoleKind::Serial => line(node, host),
        ConsoleKind::Mks => Ok(None),
    }
}

fn display(
    kind: ConsoleKind,
    graphics: Node<'_, '_>,
    host: &Host,
) -> Result<Option<Target>, BadDomain> {
    if let Some(path) = socket(graphics) {
        return unix("graphics/@socket", path).map(Some);
    }
    let tls_port = match kind {
        ConsoleKind::Spice => port(graphics, "graphics", "tlsPort")?,
        ConsoleKind::Vnc | ConsoleKind::Serial | ConsoleKind::Mks => None,
    };
    // Without a plain port the TLS port is the only door, and both say so.
    let Some(port) = port(graphics, "graphics", "port")?.or(tls_port) else {
        return Ok(None);
    };
    let listens = children(graphics, "listen").find_map(|listen| listen.attribute("address"));
    let listens = filled(graphics, "listen").or(listens);
    Ok(Some(Target {
        tls_port,
        ..Address::Tcp(dialled("graphics/@listen", listens, host)?, port).into()
    }))
}

fn socket<'a>(graphics: Node<'a, '_>) -> Option<&'a str> {
    filled(graphics, "socket").or_else(|| {
        let mut listens = children(graphics, "listen");
        listens.find_map(|listen| filled(listen, "socket"))
    })
}

fn line(source: Node<'_, '_>, host: &Host) -> Result<Option<Target>, BadDomain> {
    if let Some(path) = filled(source, "path") {
        return unix("source/@path", path).map(Some);
    }
    let Some(port) = port(source, "source", "service")? else {
        return Ok(None);
    };
    let host = dialled("source/@host", filled(source, "host"), host)?;
    Ok(Some(Address::Tcp(host, port).into()))
}

/// Where to dial what listens on `listens`; every address of a host means the one configured.
fn dialled(place: &str, listens: Option<&str>, host: &Host) -> Result<Host, BadDomain> {
    let Some(listens) = listens.filter(|listens| !listens.is_empty()) else {
        return Ok(host.clone());
    };
    match listens.parse() {
        Ok(Host::Ip(ip)) if ip.to_canonical().is_unspecified() => Ok(host.clone()),
        Ok(parsed) => Ok(parsed),
        Err(_) => Err(bad(place.to_owned(), listens, "a host name or address")),
    }
}

fn unix(place: &str, path: &str) -> Result<Target, BadDomain> {
    let address = Address::Unix(path.into());
    path.starts_with('/')
        .then(|| address.into())
        .ok_or_else(|| bad(place.to_owned(), path, "an absolute path"))
}

/// libvirt writes -1, older versions 0, for a port it has yet to choose.
fn port(node: Node<'_, '_>, tag: &str, attribute: &str) -> Result<Option<u16>, BadDomain> {
    match node.attribute(attribute) {
        None | Some("-1" | "0") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            let place = format!("{tag}/@{attribute}");
            bad(place, text, "a port from 1 to 65535")
        }),
    }
}

fn bad(place: String, value: &str, expected: &'static str) -> BadDomain {
    BadDomain::Value {
        place,
        value: plain(value),
        expected,
    }
}

fn filled<'a>(node: Node<'a, '_>, attribute: &str) -> Option<&'a str> {
    node.attribute(attribute).filter(|value| !value.is_empty())
}

fn child<'a, 'input>(node: Node<'a, 'input>, tag: &'static str) -> Option<Node<'a, 'input>> {
    children(node, tag).next()
}

fn children<'a, 'input>(
    node: Node<'a, 'input>,
    tag: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children()
        .filter(move |child| child.tag_name().name() == tag)
}

fn text(node: Node<'_, '_>, tag: &'static str) -> Option<String> {
    let text = plain(child(node, tag)?.text()?);
    (!text.is_empty()).then_some(text)
}

/// Fit for a terminal and a log line: bounded, without control characters.
fn plain(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.trim().chars().take(MAX_NAME).map(visible).collect()
}

#[cfg(test)]
mod tests;
