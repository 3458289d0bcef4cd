//! The worked examples of docs/deploy.md, carried out as they stand there.
//!
//! Each file is written, each command run, in the order of the page, by a shell. Every machine is a
//! directory and a loopback address of its own; what is put in the place of names, ports and paths
//! stands in a table of each test, and nothing else is changed.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::rig::cell::{Console, Database as _, Instance};
use crate::rig::gateway::{BINARY, ConsoleUrl, bare, run};
use crate::rig::http::Request;
use crate::rig::mariadb::MariaDb;
use crate::rig::mock::Mock;
use crate::rig::peers::Peer;
use crate::rig::process::Process;
use crate::rig::redis::{Redis, free_port};
use crate::rig::rfb::shake_hands;
use crate::rig::ws::{Upgrade, Ws};

const PAGE: &str = include_str!("../../docs/deploy.md");

/// The loopback addresses of the page's machines.
const MACHINES: &[(&str, &str)] = &[
    ("lab-1", "127.0.0.10"),
    ("ctl-1", "127.0.0.11"),
    ("ctl-2", "127.0.0.12"),
    ("edge-1", "127.0.0.13"),
    ("edge-2", "127.0.0.14"),
    ("gate-1", "127.0.0.15"),
    ("kvm-1", "127.0.0.21"),
    ("kvm-2", "127.0.0.22"),
];

/// Directories of the page that are each machine's own.
const DIRECTORIES: &[&str] = &["/etc/vncgate", "/var/lib/vncgate", "/run/vncgate"];

#[test]
fn the_lab_box_shows_what_libvirt_runs_and_what_is_listed() {
    let (mut mock, web, router) = (Mock::start(), Peer::echo(), Peer::echo());
    mock.keep("web-1", &web);
    let mut site = Site::new(&[6080, 9180]);
    site.replace("qemu:///system", &mock.uri);
    site.replace("10.0.0.7:5901", &router.address());

    let printed = site.follow("1. A lab box");

    open(&ConsoleUrl::parse(&printed));
    let listed = site.on("lab-1", "vncgate token issue router");
    open(&ConsoleUrl::parse(&listed));
    assert_eq!((web.connections(), router.connections()), (1, 1));
}

#[test]
fn the_small_cloud_gives_its_portal_a_url_and_nobody_without_its_key() {
    let (mut one, mut two, web, db) = (Mock::start(), Mock::start(), Peer::echo(), Peer::echo());
    let mut site = Site::new(&[6080, 6090, 9180]);
    one.keep("web-1", &web);
    two.keep("db-1", &db);
    let public = format!("127.0.0.1:{}", site.port(6080));
    site.replace_on("kvm-1", "qemu:///system", &one.uri);
    site.replace_on("kvm-2", "qemu:///system", &two.uri);
    site.replace("https://console.example.org", &format!("http://{public}"));

    let answered = site.follow("2. A small cloud");

    let answer: Value = serde_json::from_str(&answered).unwrap();
    open(&ConsoleUrl::parse(answer["url"].as_str().unwrap()));
    open(&ConsoleUrl::parse(
        &site.on("ctl-1", "vncgate token issue db-1"),
    ));
    let body = serde_json::json!({ "instance": "web-1" });
    let request = Request::new("POST", "/v1/consoles").json(&body);
    assert_eq!(request.send(public.parse().unwrap()).status, 401);
    assert_eq!((web.connections(), db.connections()), (1, 1));
}

#[test]
fn any_edge_opens_what_any_api_issued_of_either_hypervisor() {
    let (mut one, mut two, web, db) = (Mock::start(), Mock::start(), Peer::echo(), Peer::echo());
    one.keep("web-1", &web);
    two.keep("db-1", &db);
    let redis = Redis::with(&["--requirepass", "another-secret-of-yours"]);
    let mut site = Site::new(&[6080, 6090, 8774, 9180]);
    let edges = ["127.0.0.13", "127.0.0.14"].map(|ip| format!("{ip}:{}", site.port(6080)));
    let server = format!("127.0.0.1:{}", redis.port);
    site.replace("redis-1.example.org:6379", &server);
    let public = format!("http://{}", edges[0]);
    site.replace("https://console.example.org", &public);
    site.replace("10.0.0.0/24", "127.0.0.0/8");
    site.replace("10.0.0.21", "127.0.0.21");
    site.replace("10.0.0.22", "127.0.0.22");
    site.replace_on("kvm-1", "qemu:///system", &one.uri);
    site.replace_on("kvm-2", "qemu:///system", &two.uri);

    let printed = site.follow("3. Edge proxies with Redis");

    let web_url = ConsoleUrl::parse(&printed);
    let db_url = ConsoleUrl::parse(&site.on("ctl-1", "vncgate token issue db-1"));
    let edges = edges.map(|edge| edge.parse().unwrap());
    let _live = [
        open_at(edges[0], &web_url),
        open_at(edges[1], &web_url),
        open_at(edges[1], &db_url),
    ];
    for api in ["ctl-1", "ctl-2"] {
        let listed = site.on(api, "vncgate session list -o json");
        let listed: Value = serde_json::from_str(&listed).unwrap();
        assert_eq!(listed["sessions"].as_array().unwrap().len(), 3, "{listed}");
    }
    assert_eq!((web.connections(), db.connections()), (2, 1));
}

#[test]
fn the_gateway_of_an_openstack_opens_what_nova_issued() {
    let (cell, peer) = (MariaDb::start(), Peer::echo());
    let instance = Instance::running("web-1");
    let console = Console::novnc(&instance, &peer.address());
    cell.add_instances(std::slice::from_ref(&instance));
    cell.add_consoles(std::slice::from_ref(&console));
    let mut site = Site::new(&[6080, 9180]);
    let gate = format!("127.0.0.15:{}", site.port(6080));
    let url = "mysql+pymysql://vncgate:PASSWORD@db-1.example.org/nova_cell1\
               ?ssl_ca=/etc/vncgate/db-ca.pem";
    site.replace(url, &cell.url());
    site.replace("https://console.example.org", &format!("http://{gate}"));
    site.replace("10.0.0.0/24", "127.0.0.0/8");

    site.follow("4. OpenStack");

    let path = format!("/vnc_auto.html?token={}", console.token);
    let mut ws = Upgrade::new(&path).open(gate.parse().unwrap()).unwrap();
    shake_hands(&mut ws);
    assert_eq!(peer.connections(), 1);
}

#[test]
fn every_example_of_the_page_is_carried_out_by_a_test() {
    let titles = PAGE.lines().filter_map(|line| line.strip_prefix("## "));
    let sections: Vec<_> = titles.collect();
    assert_eq!(sections.len(), 4, "{sections:?}");
    let blocks = PAGE.matches("\n```").count();
    let steps = sections.iter().map(|title| steps(title).len());
    assert_eq!(steps.sum::<usize>() * 2, blocks, "each block is a step");
}

/// Something that the page has done on some machines.
#[derive(Debug)]
struct Step {
    machines: Vec<String>,
    /// A file to be written; else commands.
    file: Option<String>,
    text: String,
}

/// The steps under a heading: blocks, each below a line that tells where, such as
/// "On `ctl-1` and `ctl-2`, `/etc/vncgate/vncgate.toml`:".
fn steps(title: &str) -> Vec<Step> {
    let heading = format!("\n## {title}\n");
    let (_, section) = PAGE.split_once(&heading).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut blocks = section.split("```");
    let mut steps = Vec::new();
    while let (Some(before), Some(block)) = (blocks.next(), blocks.next()) {
        let place = before.trim_end().lines().last().unwrap();
        assert!(place.starts_with("On `"), "{place:?} tells no machine");
        let (files, machines) = place
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .partition::<Vec<_>, _>(|word| word.starts_with('/'));
        let (_, text) = block.split_once('\n').unwrap();
        steps.push(Step {
            machines,
            file: files.into_iter().next(),
            text: text.to_owned(),
        });
    }
    steps
}

/// The machines of one example, as far as it needs them.
struct Site {
    root: TempDir,
    ports: Vec<(u16, u16)>,
    /// On which machine (all, if on none), what, and by what.
    table: Vec<(Option<&'static str>, String, String)>,
    running: Vec<Process>,
}

impl Site {
    /// One in which these ports of the page are others.
    fn new(ports: &[u16]) -> Self {
        let root = TempDir::with_prefix("vncgate-site-").unwrap();
        let bin = root.path().join("bin");
        fs::create_dir(&bin).unwrap();
        symlink(BINARY, bin.join("vncgate")).unwrap();
        write_scp(&bin.join("scp"), root.path());
        for (_, ip) in MACHINES {
            for directory in DIRECTORIES {
                let own = format!("{}/{ip}{directory}", root.path().display());
                fs::create_dir_all(own).unwrap();
            }
        }
        Self {
            root,
            ports: ports.iter().map(|port| (*port, free_port())).collect(),
            table: Vec::new(),
            running: Vec::new(),
        }
    }

    /// The port in the place of one of the page.
    fn port(&self, port: u16) -> u16 {
        let found = self.ports.iter().find(|(known, _)| *known == port);
        found.unwrap().1
    }

    fn replace(&mut self, what: &str, by: &str) {
        self.table.push((None, what.to_owned(), by.to_owned()));
    }

    fn replace_on(&mut self, machine: &'static str, what: &str, by: &str) {
        let entry = (Some(machine), what.to_owned(), by.to_owned());
        self.table.push(entry);
    }

    /// Text of the page as it is for one machine: the table first, then names, ports and paths.
    fn localize(&self, machine: &str, text: &str) -> String {
        let mut text = text.to_owned();
        for (where_, what, by) in &self.table {
            if where_.is_none_or(|only| only == machine) {
                text = text.replace(what, by);
            }
        }
        for (name, ip) in MACHINES {
            text = text.replace(&format!("{name}.example.org"), ip);
        }
        let ip = address(machine);
        for (port, own) in &self.ports {
            text = text.replace(&format!("0.0.0.0:{port}"), &format!("{ip}:{own}"));
            text = text.replace(&format!(":{port}"), &format!(":{own}"));
        }
        for directory in DIRECTORIES {
            let own = format!("{}/{ip}{directory}", self.root.path().display());
            text = text.replace(directory, &own);
        }
        text
    }

    /// Carries out an example, and returns what its last command printed.
    #[track_caller]
    fn follow(&mut self, title: &str) -> String {
        let mut printed = String::new();
        for step in steps(title) {
            for machine in &step.machines {
                match &step.file {
                    Some(path) => {
                        let text = self.localize(machine, &step.text);
                        fs::write(self.localize(machine, path), text).unwrap();
                    }
                    None if is_a_server(&step.text) => self.serve(machine, &step.text),
                    None => printed = self.on(machine, &step.text),
                }
            }
        }
        printed
    }

    /// Runs commands on a machine, all of which must end well; what they print.
    #[track_caller]
    fn on(&self, machine: &str, commands: &str) -> String {
        let mut shell = self.shell(machine);
        let commands = self.localize(machine, commands);
        run(shell.arg(commands)).ok().stdout
    }

    /// Starts a server on a machine, and waits until it is ready.
    #[track_caller]
    fn serve(&mut self, machine: &str, command: &str) {
        let mut shell = self.shell(machine);
        let command = format!("exec {}", self.localize(machine, command));
        let process = Process::spawn(machine, shell.arg(command));
        process.wait_for_line("that it is ready", |line| {
            let event: Value = serde_json::from_str(&line.text).ok()?;
            (event["message"] == "ready").then_some(())
        });
        self.running.push(process);
    }

    fn shell(&self, machine: &str) -> Command {
        let mut shell = bare(Path::new("/bin/sh"));
        let bin = self.root.path().join("bin");
        let path = format!("{}:/usr/bin:/bin", bin.display());
        let config = self.localize(machine, "/etc/vncgate/vncgate.toml");
        shell.env("PATH", path).env("VNCGATE_CONFIG", config);
        shell.arg("-ec");
        shell
    }
}

fn address(machine: &str) -> &'static str {
    let found = MACHINES.iter().find(|(name, _)| *name == machine);
    found.unwrap_or_else(|| panic!("{machine} is no machine")).1
}

/// Whether a block is one command that does not end.
fn is_a_server(commands: &str) -> bool {
    let words = ["vncgate serve", "vncgate compute", "vncgate proxy"];
    commands.trim().lines().count() == 1 && words.iter().any(|word| commands.starts_with(word))
}

/// scp between machines that are directories: the path is taken from the machine that it names.
fn write_scp(path: &Path, root: &Path) {
    let root = root.display();
    let script = format!(
        "#!/bin/sh -e\npath=${{2#*:}}\ncp \"$1\" \"{root}/${{2%%:*}}/${{path#{root}/*/}}\"\n"
    );
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Opens a console as a browser does that was given its URL.
#[track_caller]
fn open(url: &ConsoleUrl) -> Ws {
    let host = url.0.host_str().unwrap();
    let address = format!("{host}:{}", url.0.port().unwrap());
    open_at(address.parse().unwrap(), url)
}

#[track_caller]
fn open_at(address: SocketAddr, url: &ConsoleUrl) -> Ws {
    let page = Request::new("GET", url.0.path()).send(address);
    assert_eq!(page.status, 200, "{page:?}");
    let upgrade = Upgrade::new(&url.upgrade_path());
    let origin = format!("http://{address}");
    let mut ws = upgrade.and("Origin", &origin).open(address).unwrap();
    shake_hands(&mut ws);
    ws
}
