//! Whatever is killed on a host in the middle of traffic: its compute role, or the hypervisor of a
//! console. Only the sessions of that host or of that console end, with the code that says which;
//! no token is lost or comes back, and all works again within seconds.
//!
//! `VNCGATE_ROUNDS` and `VNCGATE_SEED` are as in `rounds`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::rig::deployment::{Deployment, Plan};
use crate::rig::gateway::ConsoleUrl;
use crate::rig::libvirtd::Libvirtd;
use crate::rig::peers::Random;
use crate::rig::promises::{Promises, Traffic, order, rounds};
use crate::rig::qemu;
use crate::rig::rfb::{Colour, Viewer};
use crate::rig::wait::{until, within};
use crate::rig::ws::BINARY;
use crate::rig::xvnc::{self, Xvnc};

/// How long it may take until all works again, once what was killed is back.
const BACK: Duration = Duration::from_secs(10);

/// A host, the one instance on it, and what its screen shows.
struct Place {
    compute: &'static str,
    instance: &'static str,
    colour: Colour,
}

/// The guest of a libvirt that hands its display over, and a VNC server on a Unix socket.
const PLACES: [Place; 2] = [
    Place {
        compute: "compute-1",
        instance: "web-1",
        colour: qemu::BLUE,
    },
    Place {
        compute: "compute-2",
        instance: "web-2",
        colour: xvnc::RUST,
    },
];

const PROXIES: [&str; 2] = ["proxy-1", "proxy-2"];

const DISPLAY: &str =
    "<graphics type='vnc' port='-1' autoport='yes'/><video><model type='vga'/></video>";

#[test]
fn the_kill_of_a_host_or_a_hypervisor_ends_its_own_sessions_and_loses_no_token() {
    let mut cloud = Cloud::start();
    let deck = [
        Victim::Host(0),
        Victim::Host(1),
        Victim::Hypervisor(0),
        Victim::Hypervisor(1),
    ];
    let mut left = Vec::new();
    let mut slowest = Duration::ZERO;
    for round in 0..rounds(deck.len()) {
        if left.is_empty() {
            left = deck.to_vec();
        }
        let victim = left.swap_remove(cloud.random.below(left.len()));
        let took = cloud.round(round, victim);
        eprintln!("round {round}: {victim:?} killed, all well {took:?} after its return");
        slowest = slowest.max(took);
    }
    assert!(slowest < BACK, "{slowest:?}");
}

/// What is killed, by the place where it is.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// The compute role, through which the consoles there are reached.
    Host(usize),
    /// What a console's screen is made by.
    Hypervisor(usize),
}

impl Victim {
    fn place(self) -> usize {
        match self {
            Self::Host(place) | Self::Hypervisor(place) => place,
        }
    }

    /// The close code of its sessions. A hypervisor's end is heard of from its own socket, and, where
    /// there is a libvirt, from that.
    fn codes(self) -> &'static [u16] {
        match self {
            Self::Host(_) => &[4005],
            Self::Hypervisor(0) => &[1000, 4004],
            Self::Hypervisor(_) => &[1000],
        }
    }
}

/// Two hosts behind two apis and two proxies, which go through the hosts alone.
struct Cloud {
    deployment: Deployment,
    libvirtd: Libvirtd,
    xvnc: Xvnc,
    /// Of each instance.
    promises: [Arc<Promises>; 2],
    live: Vec<Live>,
    random: Random,
    _files: tempfile::TempDir,
}

/// A session.
struct Live {
    proxy: &'static str,
    place: usize,
    viewer: Viewer,
}

impl Cloud {
    fn start() -> Self {
        let (libvirtd, xvnc) = (Libvirtd::start(), Xvnc::unix(xvnc::RUST));
        libvirtd.define("web-1", DISPLAY);
        libvirtd.virsh(&["start", "web-1"]).ok();
        let files = tempfile::tempdir().unwrap();
        let file = files.path().join("tokens.redb");
        let plan = Plan::new()
            .node("auth", "auth")
            .node("compute-1", "compute")
            .node("compute-2", "compute")
            .node("api-1", "api")
            .node("api-2", "api")
            .node("proxy-1", "proxy")
            .node("proxy-2", "proxy");
        let mut deployment = plan
            .set("rpc", "tunnel", "only")
            .set("auth", "source", "file")
            .set("auth", "file", file.to_str().unwrap())
            .prepare();
        let local = [("name", "libvirt"), ("uri", &libvirtd.uri())];
        deployment.add("compute-1", "host", &local);
        deployment.add_instance("compute-2", "web-2", xvnc.address());
        deployment.start_all();
        let mut cloud = Self {
            deployment,
            libvirtd,
            xvnc,
            promises: Default::default(),
            live: Vec::new(),
            random: order(),
            _files: files,
        };
        cloud.wait_until_all_works();
        cloud.open_what_is_missing();
        cloud
    }

    /// How long it took until all was well again.
    fn round(&mut self, round: u64, victim: Victim) -> Duration {
        let traffic = [self.traffic(round, 0), self.traffic(round, 1)];
        for promises in &self.promises {
            promises.wait_for_more();
        }

        self.kill(victim);
        self.assert_only_its_own_end(victim);
        self.bring_back(victim);
        let back = Instant::now();
        self.wait_until_all_works();
        let took = back.elapsed();
        traffic.into_iter().for_each(Traffic::stop);

        let api = self.deployment.node("api-1").api;
        for promises in &self.promises {
            promises.assert_kept_by(api);
        }
        self.assert_some_open_and_some_do_not();
        self.open_what_is_missing();
        took
    }

    fn traffic(&self, round: u64, place: usize) -> Traffic {
        let api = self.deployment.node(["api-1", "api-2"][place]).api;
        let seed = round * 2 + u64::try_from(place).unwrap();
        Traffic::about(PLACES[place].instance, api, seed, &self.promises[place])
    }

    fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::Host(place) => self.deployment.kill(PLACES[place].compute),
            Victim::Hypervisor(0) => self.libvirtd.kill_guest("web-1"),
            Victim::Hypervisor(_) => self.xvnc.kill(),
        }
    }

    fn bring_back(&mut self, victim: Victim) {
        match victim {
            Victim::Host(place) => self.deployment.start(PLACES[place].compute),
            Victim::Hypervisor(0) => drop(self.libvirtd.virsh(&["start", "web-1"]).ok()),
            Victim::Hypervisor(_) => self.xvnc.restart(),
        }
    }

    fn assert_only_its_own_end(&mut self, victim: Victim) {
        for mut live in std::mem::take(&mut self.live) {
            if live.place == victim.place() {
                let (_, closed) = live.viewer.into_ws().read_to_close();
                let code = closed.code.unwrap_or_default();
                assert!(victim.codes().contains(&code), "{victim:?}: {closed:?}");
            } else {
                let Place { colour, .. } = PLACES[live.place];
                assert_eq!(live.viewer.pixel(100, 100), colour, "{victim:?}");
                self.live.push(live);
            }
        }
    }

    #[track_caller]
    fn wait_until_all_works(&self) {
        for name in ["api-1", "api-2", "proxy-1", "proxy-2"] {
            let node = self.deployment.node(name);
            within(BACK, &format!("{name} to be ready"), || {
                (node.watch("/readyz").status == 200).then_some(())
            });
        }
        for (api, proxy) in [("api-1", "proxy-2"), ("api-2", "proxy-1")] {
            for place in &PLACES {
                let what = format!("the console of {}", place.instance);
                within(BACK, &what, || self.tries(api, proxy, place.instance));
            }
        }
    }

    /// Makes a URL and opens it, or does not.
    fn tries(&self, api: &str, proxy: &str, instance: &str) -> Option<()> {
        let issued = self.deployment.node(api).cli(&["token", "issue", instance]);
        let url = (issued.code == 0).then(|| ConsoleUrl::parse(&issued.stdout))?;
        let first = self.deployment.node(proxy).open(&url).answer();
        (first.opcode == BINARY).then_some(())
    }

    fn assert_some_open_and_some_do_not(&mut self) {
        for (place, promises) in PLACES.iter().zip(&self.promises) {
            let kept = promises.so_far();
            for proxy in PROXIES {
                let proxy = self.deployment.node(proxy);
                let skipped = self.random.below(kept.live.len());
                for url in kept.live.values().skip(skipped).take(2) {
                    let mut viewer = Viewer::new(proxy.open(url));
                    viewer.wait_for_pixel(100, 100, place.colour);
                }
                let skipped = self.random.below(kept.dead.len());
                for url in kept.dead.values().skip(skipped).take(2) {
                    assert_eq!(proxy.open(url).expect_close().code, Some(4001));
                }
            }
        }
    }

    /// A session of each instance at each proxy.
    fn open_what_is_missing(&mut self) {
        for proxy in PROXIES {
            for (place, its) in PLACES.iter().enumerate() {
                let is_it = |live: &Live| live.proxy == proxy && live.place == place;
                if self.live.iter().any(is_it) {
                    continue;
                }
                let url = self.deployment.node("api-1").issue(its.instance);
                let mut viewer = Viewer::new(self.deployment.node(proxy).open(&url));
                viewer.wait_for_pixel(100, 100, its.colour);
                self.live.push(Live {
                    proxy,
                    place,
                    viewer,
                });
            }
        }
        until("all sessions to be told of", || {
            let all = self.deployment.node("api-2").sessions();
            (all.len() >= self.live.len()).then_some(())
        });
    }
}
