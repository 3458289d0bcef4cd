//! The rest: where instances are, the log, what changes, and what becomes nothing.

use super::draft::{Key, Place};
use super::options::{
    API_LINK_PREFIX, COMPUTE_DRIVER, CONNECTION_URI, DEBUG, Fate, HOST, PROXYCLIENT_ADDRESS,
    SPICE_PROXYCLIENT_ADDRESS, fate,
};
use super::settings::SettingsError;
use super::{Console, Plan, Role, Source};

impl Plan<'_> {
    pub(super) fn rest(&mut self) -> Result<(), SettingsError> {
        match self.role {
            Role::Proxy => self.other_doors(),
            Role::All => {
                self.hypervisor();
                self.api();
            }
        }
        self.log()?;
        self.changes();
        self.leftovers();
        Ok(())
    }

    /// The stand-ins of several proxies may run on one machine, where that of nova-novncproxy has the
    /// usual doors.
    fn other_doors(&mut self) {
        let port = match self.console {
            Console::Novnc => return,
            Console::Spice => 9182,
            Console::Serial => 9183,
        };
        let remark = "So that the stand-in of nova-novncproxy can run on the same machine.";
        let address = super::proxy::list([format!("127.0.0.1:{port}")]);
        let monitor = Key::new(remark, "listen", address);
        let _taken = self.draft.key(Place::Monitor, monitor);
        let socket = format!("/run/vncgate/{}.sock", self.console.as_str());
        let _taken = self
            .draft
            .key(Place::Admin, Key::new(remark, "socket", socket));
    }

    /// The machine itself, where the files are those of a compute node.
    fn hypervisor(&mut self) {
        let set = |option| self.settings.set(option);
        let address = match self.console {
            Console::Spice => set(&SPICE_PROXYCLIENT_ADDRESS),
            _ => set(&PROXYCLIENT_ADDRESS),
        };
        let (uri, driver, name) = (set(&CONNECTION_URI), set(&COMPUTE_DRIVER), set(&HOST));
        if address.is_none() && uri.is_none() && driver.is_none() {
            let remark = "One for each machine that runs nova-compute: consoles are found by asking \
                          its libvirt.";
            self.draft
                .suggest(Place::Host, Key::new(remark, "name", "kvm-1"));
            let uri = Key::new("", "uri", "qemu+tls://kvm-1.example.org/system");
            return self.draft.suggest(Place::Host, uri);
        }
        let mut keys = vec![match name {
            Some(name) => Key::new(format!("From {}.", name.origin), "name", name.value),
            None => Key::new(
                "This machine. Add one for each other hypervisor.",
                "name",
                "local",
            ),
        }];
        if let Some(uri) = uri {
            keys.push(Key::new(format!("From {}.", uri.origin), "uri", uri.value));
        }
        if let Some(address) = address.filter(|it| it.unknown.is_none()) {
            keys.push(Key::new(
                format!("From {}.", address.origin),
                "address",
                address.value,
            ));
        }
        let _taken = self.draft.keys(Place::Host, keys);
    }

    fn api(&mut self) {
        let remark = "Nova's API for consoles answers where the pages are served, under /v2.1. Give \
                      it a listener of its own, and a `compute` endpoint in Keystone's catalog, where \
                      clients are to find it. Nova's own API listens on 8774.";
        let key = Key::new(remark, "listen", super::proxy::list(["127.0.0.1:8774"]));
        self.draft.suggest(Place::Api, key);
        if let Some(prefix) = self.settings.set(&API_LINK_PREFIX) {
            let from = format!("From {}.", prefix.origin);
            let key = Key::new(from, "public_url", prefix.value);
            let _taken = self.draft.key(Place::Api, key);
        }
    }

    fn log(&mut self) -> Result<(), SettingsError> {
        if self.settings.is_on(&DEBUG)?
            && let Some(debug) = self.settings.set(&DEBUG)
        {
            let key = Key::new(format!("From {}.", debug.origin), "level", "debug");
            let _taken = self.draft.key(Place::Log, key);
        }
        Ok(())
    }

    fn changes(&mut self) {
        let checks = match (self.role, self.source) {
            (Role::All, _) => {
                "Tokens are this gateway's own, in memory: Nova's API knows nothing of them, and \
                 clients have to ask here. Each console is looked up at its hypervisor when it is \
                 opened."
            }
            (Role::Proxy, Source::NovaDb) => {
                "Tokens are in the database since Nova 18.0. No compute service is asked over the \
                 message bus whether a port is still the instance's. In its stead a token is refused \
                 whose instance is gone, does not run, or is being deleted, moved or rebuilt, and one \
                 whose address a later token gave to another instance. docs/openstack.md has what that \
                 leaves open, and how [[compute.host]] closes it."
            }
            (Role::Proxy, Source::NovaApi) => {
                "No compute service is asked over the message bus whether a port is still the \
                 instance's, and Nova's API tells neither a token's type nor its end. \
                 docs/openstack.md has what stands in for it, and how [[compute.host]] helps."
            }
        };
        self.draft.change(checks);
        for change in CHANGES {
            self.draft.change(*change);
        }
    }

    /// Says of every option that sounds like consoles what became of it, if nothing did.
    fn leftovers(&mut self) {
        let settings = self.settings;
        for (assignment, origin) in settings.assignments() {
            match fate(&assignment.section, &assignment.key) {
                Fate::Nothing(why) => self.draft.loss(origin.to_string(), why),
                Fate::Unknown => {
                    let why = "it sounds like one of consoles, and vncgate does not know it";
                    self.draft.loss(origin.to_string(), why);
                }
                Fate::Used | Fate::Foreign => {}
            }
        }
    }
}

/// What is different whatever the config says.
const CHANGES: &[&str] = &[
    "A viewer that is refused is told why, with a code, a sentence, and an id that stands in the log \
     too. Nova drops the connection.",
    "X-Forwarded-Proto and X-Forwarded-For count only from proxy.trusted_proxies. Nova believes \
     everybody's X-Forwarded-Proto.",
    "A token opens a console of its own type alone.",
    "One process serves everybody, within proxy.max_sessions and proxy.max_connections. Idle viewers \
     are pinged (proxy.ping_interval).",
    "docs/compatibility.md has every difference.",
];
