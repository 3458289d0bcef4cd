//! Whatever is killed in the middle of traffic: no token that was issued is lost, none that was
//! revoked is back, no session ends but those of the proxy that was killed, and all works again
//! within seconds. What may die on a host is in `rounds_hosts`.
//!
//! Each part is killed once; `VNCGATE_ROUNDS=20` makes more of it, `VNCGATE_SEED` the same again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::rig::deployment::{Deployment, Plan};
use crate::rig::peers::{Peer, Random};
use crate::rig::promises::{Promises, Traffic, order, rounds};
use crate::rig::redis::{Cluster, Redis, Sentinels};
use crate::rig::rfb::shake_hands;
use crate::rig::wait::within;
use crate::rig::ws::Ws;

/// How long it may take until all works again, once what was killed is back.
const BACK: Duration = Duration::from_secs(10);

#[test]
fn tokens_in_a_file_outlive_the_kill_of_any_role() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("tokens.redb");
    let peer = Peer::echo();
    let plan =
        apart(&peer)
            .set("auth", "source", "file")
            .set("auth", "file", file.to_str().unwrap());

    let deck = ["auth", "compute", "api-2", "proxy-2"].map(Victim::Node);
    Rounds::new(plan.start(), Store::File).run(&deck);
}

#[test]
fn tokens_in_redis_outlive_the_kill_of_any_role_and_of_redis() {
    let (peer, redis) = (Peer::echo(), Redis::start());
    let plan = apart(&peer).node("auth-2", "auth").on(&redis);
    let mut deck = ["auth", "auth-2", "compute", "api-2", "proxy-2"]
        .map(Victim::Node)
        .to_vec();
    deck.push(Victim::Store(0));
    Rounds::new(plan.start(), Store::Single(redis)).run(&deck);
}

#[test]
fn tokens_in_a_cluster_outlive_the_kill_of_any_of_its_nodes() {
    let (peer, cluster) = (Peer::echo(), Cluster::start());
    let plan = apart(&peer).on_redis(cluster.section());
    let deck = [0, 1, 2].map(Victim::Store);
    Rounds::new(plan.start(), Store::Cluster(cluster)).run(&deck);
}

#[test]
fn a_failover_in_the_middle_of_traffic_loses_nothing_that_was_replicated() {
    let (peer, mut sentinels) = (Peer::echo(), Sentinels::start());
    let deployment = apart(&peer).on_redis(sentinels.section()).start();
    let (api, proxy) = (deployment.node("api-1"), deployment.node("proxy-1"));
    let mut live = proxy.open(&api.issue("web-1"));
    shake_hands(&mut live);
    let promises = Arc::new(Promises::default());
    let traffic = Traffic::start(api.api, 1, &promises);
    promises.wait_for_more();
    let replicated = promises.so_far();
    sentinels.wait_for_replica();

    sentinels.master.kill();
    promises.wait_for_more();
    traffic.stop();

    replicated.assert_by(api.api);
    for url in replicated.live.values().take(3) {
        shake_hands(&mut proxy.open(url));
    }
    for url in replicated.dead.values().take(3) {
        assert_eq!(proxy.open(url).expect_close().code, Some(4001));
    }
    live.send(b"still here");
    assert_eq!(live.read(10), b"still here");
}

/// What is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Node(&'static str),
    Store(usize),
}

/// Where the tokens are.
enum Store {
    File,
    Single(Redis),
    Cluster(Cluster),
}

struct Rounds {
    deployment: Deployment,
    store: Store,
    promises: Arc<Promises>,
    /// A session at each proxy.
    live: [Ws; 2],
    random: Random,
}

const PROXIES: [&str; 2] = ["proxy-1", "proxy-2"];

impl Rounds {
    fn new(deployment: Deployment, store: Store) -> Self {
        let live = PROXIES.map(|name| open(&deployment, name));
        Self {
            deployment,
            store,
            promises: Arc::default(),
            live,
            random: order(),
        }
    }

    fn run(mut self, deck: &[Victim]) {
        let mut slowest = Duration::ZERO;
        let mut left = Vec::new();
        for round in 0..rounds(deck.len()) {
            if left.is_empty() {
                left = deck.to_vec();
            }
            let victim = left.swap_remove(self.random.below(left.len()));
            let took = self.round(round, victim);
            eprintln!("round {round}: {victim:?} killed, all well {took:?} after its return");
            slowest = slowest.max(took);
        }
        assert!(slowest < BACK, "{slowest:?}");
    }

    /// How long it took until all was well again.
    fn round(&mut self, round: u64, victim: Victim) -> Duration {
        let api = self.deployment.node("api-1").api;
        let traffic = [
            Traffic::start(api, round * 2, &self.promises),
            Traffic::start(
                self.deployment.node("api-2").api,
                round * 2 + 1,
                &self.promises,
            ),
        ];
        self.promises.wait_for_more();

        self.kill(victim);
        self.assert_live_but(victim);
        self.bring_back(victim);
        let back = Instant::now();
        self.wait_until_all_works();
        let took = back.elapsed();
        traffic.into_iter().for_each(Traffic::stop);

        self.promises.assert_kept_by(api);
        self.assert_some_open_and_some_do_not();
        self.replace(victim);
        took
    }

    fn kill(&mut self, victim: Victim) {
        match (victim, &mut self.store) {
            (Victim::Node(name), _) => self.deployment.kill(name),
            (Victim::Store(_), Store::Single(redis)) => redis.kill(),
            (Victim::Store(number), Store::Cluster(cluster)) => cluster.node(number).kill(),
            (Victim::Store(_), Store::File) => panic!("a file cannot be killed"),
        }
    }

    fn bring_back(&mut self, victim: Victim) {
        match (victim, &mut self.store) {
            (Victim::Node(name), _) => self.deployment.start(name),
            (Victim::Store(_), Store::Single(redis)) => redis.restart(),
            (Victim::Store(number), Store::Cluster(cluster)) => cluster.node(number).restart(),
            (Victim::Store(_), Store::File) => panic!("a file cannot be killed"),
        }
    }

    fn assert_live_but(&mut self, victim: Victim) {
        for (name, ws) in PROXIES.iter().zip(&mut self.live) {
            if matches!(victim, Victim::Node(killed) if killed == *name) {
                assert!(ws.ends(), "the session of a dead proxy ends");
                continue;
            }
            ws.send(b"unhurt");
            assert_eq!(ws.read(6), b"unhurt", "{victim:?}");
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
            let issued = within(BACK, "a console", || {
                let answer = self.deployment.node(api).cli(&["token", "issue", "web-1"]);
                (answer.code == 0).then_some(answer.stdout)
            });
            let url = crate::rig::gateway::ConsoleUrl::parse(&issued);
            shake_hands(&mut self.deployment.node(proxy).open(&url));
        }
    }

    fn assert_some_open_and_some_do_not(&mut self) {
        let kept = self.promises.so_far();
        let mut some = |all: &std::collections::BTreeMap<_, _>| {
            let skipped = self.random.below(all.len());
            all.values()
                .skip(skipped)
                .take(3)
                .cloned()
                .collect::<Vec<_>>()
        };
        let (good, bad) = (some(&kept.live), some(&kept.dead));
        for name in PROXIES {
            let proxy = self.deployment.node(name);
            for url in &good {
                shake_hands(&mut proxy.open(url));
            }
            for url in &bad {
                assert_eq!(proxy.open(url).expect_close().code, Some(4001));
            }
        }
    }

    /// A session for the proxy that has lost its own.
    fn replace(&mut self, victim: Victim) {
        for (name, ws) in PROXIES.iter().zip(&mut self.live) {
            if matches!(victim, Victim::Node(killed) if killed == *name) {
                *ws = open(&self.deployment, name);
            }
        }
    }
}

/// Two apis, two proxies, one auth and one compute.
fn apart(peer: &Peer) -> Plan {
    Plan::new()
        .node("auth", "auth")
        .node("compute", "compute")
        .node("api-1", "api")
        .node("api-2", "api")
        .node("proxy-1", "proxy")
        .node("proxy-2", "proxy")
        .instance("web-1", &peer.address())
}

fn open(deployment: &Deployment, proxy: &str) -> Ws {
    let url = deployment.node("api-1").issue("web-1");
    let mut ws = deployment.node(proxy).open(&url);
    shake_hands(&mut ws);
    ws
}
