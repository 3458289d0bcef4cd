//! Held against rules that are written down plainly and looked up by reading everything.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::auth::session::Reached;
use crate::auth::tests::{browser, instance_id, record};
use crate::model::{ConsoleKind, ConsoleType, SecondViewer, Terms, Token};

/// What may happen to a registry.
#[derive(Clone, Debug)]
enum Step {
    Begin(Arrival),
    Restore(Arrival),
    /// The session with that number in the list, so many times around.
    End(usize),
    Order(usize),
    Revoke(usize),
}

/// Who comes: all small numbers, so that some are the same.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    token: usize,
    browser: u8,
    address: Option<u8>,
    console_type: ConsoleType,
    second_viewer: SecondViewer,
    single_use: bool,
}

/// Sessions in a list: each, and whether it is told to end.
#[derive(Default)]
struct Plain(Vec<(SessionRecord, bool)>);

impl Plain {
    /// What the registry should say.
    fn begin(
        &mut self,
        new: &SessionRecord,
        limits: &Limits,
    ) -> Result<BTreeSet<SessionId>, AuthError> {
        let own = |its: &SessionRecord| (its.token, its.browser) == (new.token, new.browser);
        let kind = |its: &SessionRecord| its.console_type.kind();
        let same_console =
            |its: &SessionRecord| its.instance == new.instance && kind(its) == kind(new);
        let comes_back = self.0.iter().any(|(its, _)| own(its));
        let mut going = BTreeSet::new();
        if !(kind(new) == ConsoleKind::Spice && comes_back) {
            let terms = new.terms;
            let others = |its: &SessionRecord| same_console(its) && !own(its);
            let others = self.ids(|its, ending| others(its) && !ending);
            let own = self.ids(|its, _| own(its));
            if terms.second_viewer == SecondViewer::Refuse && !others.is_empty() {
                return Err(AuthError::Occupied);
            }
            if terms.second_viewer != SecondViewer::Allow || terms.single_use {
                going.extend(&own);
            }
            if terms.second_viewer == SecondViewer::TakeOver {
                going.extend(&others);
            }
            if self.reached(new, limits, &going).is_some() {
                going.extend(&own);
            }
            if let Some(reached) = self.reached(new, limits, &going) {
                return Err(AuthError::Limit(reached));
            }
        }
        for (its, ending) in &mut self.0 {
            *ending |= going.contains(&its.id);
        }
        self.0.push((new.clone(), false));
        Ok(going)
    }

    fn ids(&self, wanted: impl Fn(&SessionRecord, bool) -> bool) -> BTreeSet<SessionId> {
        let found = self.0.iter().filter(|(its, ending)| wanted(its, *ending));
        found.map(|(its, _)| its.id).collect()
    }

    fn reached(
        &self,
        new: &SessionRecord,
        limits: &Limits,
        going: &BTreeSet<SessionId>,
    ) -> Option<Reached> {
        let full = |limit: Option<usize>, alike: &dyn Fn(&SessionRecord) -> bool| {
            let staying = self.ids(|its, ending| alike(its) && !ending && !going.contains(&its.id));
            limit.is_some_and(|limit| staying.len() >= limit)
        };
        let all = self.0.len() - going.len();
        if limits.all.is_some_and(|limit| all >= limit) {
            return Some(Reached::All);
        }
        if full(limits.instance, &|its| its.instance == new.instance) {
            return Some(Reached::Instance);
        }
        if full(limits.caller, &|its| its.caller == new.caller) {
            return Some(Reached::Caller);
        }
        let address = full(limits.address, &|its| its.viewer == new.viewer);
        (new.viewer.is_some() && address).then_some(Reached::Address)
    }
}

fn viewers() -> impl Strategy<Value = Arrival> {
    let types = [
        ConsoleType::Novnc,
        ConsoleType::SpiceHtml5,
        ConsoleType::Serial,
    ];
    let seconds = [
        SecondViewer::Allow,
        SecondViewer::Refuse,
        SecondViewer::TakeOver,
    ];
    let who = (0..4_usize, 0..2_u8, prop::option::of(0..2_u8));
    let what = (
        prop::sample::select(types.to_vec()),
        prop::sample::select(seconds.to_vec()),
        prop::bool::weighted(0.2),
    );
    (who, what).prop_map(
        |((token, browser, address), (console_type, second_viewer, single_use))| Arrival {
            token,
            browser,
            address,
            console_type,
            second_viewer,
            single_use,
        },
    )
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => viewers().prop_map(Step::Begin),
        1 => viewers().prop_map(Step::Restore),
        2 => any::<usize>().prop_map(Step::End),
        1 => any::<usize>().prop_map(Step::Order),
        1 => (0..4_usize).prop_map(Step::Revoke),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let limit = |most: usize| prop::option::of(1..most);
    (limit(9), limit(5), limit(5), limit(5)).prop_map(|(all, instance, caller, address)| Limits {
        all,
        instance,
        caller,
        address,
    })
}

/// Tokens 0 and 1 are of one instance, 2 and 3 of another; the even ones are one caller's.
fn session(tokens: &[Token], viewer: Arrival) -> SessionRecord {
    let terms = Terms {
        second_viewer: viewer.second_viewer,
        single_use: viewer.single_use,
        ..Terms::default()
    };
    let instance = if viewer.token < 2 { 1 } else { 2 };
    let name = format!("browser {}", viewer.browser);
    SessionRecord {
        console_type: viewer.console_type,
        caller: format!("caller {}", viewer.token % 2).into(),
        viewer: viewer.address.map(|last| [192, 0, 2, last].into()),
        browser: browser(&name),
        ..record(&tokens[viewer.token], instance, terms, "")
    }
}

fn told(orders: &[Order]) -> BTreeSet<SessionId> {
    orders.iter().map(|order| order.session).collect()
}

fn follow(step: &Step, tokens: &[Token], limits: &Limits, memory: &Memory, plain: &mut Plain) {
    let nth = |plain: &Plain, number: usize| {
        let count = plain.0.len();
        (count > 0).then(|| number % count.max(1))
    };
    let now = UnixTime(100);
    match step {
        Step::Begin(viewer) => {
            let new = session(tokens, *viewer);
            let orders = memory.begin(new.clone().into(), now);
            let orders = orders.map(|orders| told(&orders));
            assert_eq!(orders, plain.begin(&new, limits), "{viewer:?}");
        }
        Step::Restore(viewer) => {
            let new = session(tokens, *viewer);
            memory.restore(vec![first(new.clone().into())], now);
            plain.0.push((new, false));
        }
        Step::End(number) => {
            if let Some(number) = nth(plain, *number) {
                let (its, _) = plain.0.remove(number);
                assert_eq!(memory.end(its.id).as_deref(), Some(&its));
                assert_eq!(memory.end(its.id), None);
            }
        }
        Step::Order(number) => {
            if let Some(number) = nth(plain, *number) {
                let (its, ending) = &mut plain.0[number];
                *ending = true;
                assert!(memory.order(its.id, Cause::Operator).is_some());
            }
        }
        Step::Revoke(token) => {
            let token = tokens[*token].hash().id();
            let orders = told(&memory.order_all(token, Cause::Revoked));
            assert_eq!(orders, plain.ids(|its, _| its.token == token));
            for (its, ending) in &mut plain.0 {
                *ending |= its.token == token;
            }
        }
    }
}

proptest! {
    #[test]
    fn a_registry_decides_as_the_rules_say(
        limits in limits(),
        steps in prop::collection::vec(steps(), 1..40),
    ) {
        let tokens = [(); 4].map(|()| Token::generate());
        let (memory, mut plain) = (Memory::new(Live::new(limits)), Plain::default());
        for step in steps {
            follow(&step, &tokens, &limits, &memory, &mut plain);
            let ids = |sessions: Vec<LiveSession>| sessions.into_iter().map(|it| it.record.id);
            let all: BTreeSet<_> = ids(memory.list(None)).collect();
            prop_assert_eq!(all, plain.ids(|_, _| true));
            let one: BTreeSet<_> = ids(memory.list(Some(instance_id(1)))).collect();
            prop_assert_eq!(one, plain.ids(|its, _| its.instance == instance_id(1)));
        }
    }
}

#[test]
fn what_has_ended_leaves_nothing_behind() {
    let memory = Memory::new(Live::new(Limits::default()));
    let token = Token::generate();
    for _round in 0..3 {
        let records = [1, 2, 3].map(|instance| record(&token, instance, Terms::default(), "a"));
        for record in &records {
            memory.begin(record.clone().into(), UnixTime(1)).unwrap();
        }
        memory.order(records[0].id, Cause::Operator);
        for record in &records {
            memory.end(record.id).unwrap();
        }
    }
    let held = memory.lock();
    assert_eq!(held.sizes(), [3, 3, 0, 0, 0, 0, 0]);
}

#[test]
fn ten_thousand_sessions_of_one_viewer_come_and_go_as_quickly_as_one() {
    let limits = Limits {
        caller: Some(20_000),
        address: Some(20_000),
        ..Limits::default()
    };
    let memory = Memory::new(Live::new(limits));
    let token = Token::generate();
    let records: Vec<Arc<SessionRecord>> = (0..10_000)
        .map(|_| record(&token, 1, Terms::default(), "a").into())
        .collect();

    let began = Instant::now();
    for record in &records {
        let orders = memory.begin(Arc::clone(record), UnixTime(1)).unwrap();
        assert_eq!(orders, []);
    }
    for record in &records {
        assert!(memory.end(record.id).is_some());
    }

    // To look at all of them each time would take minutes here.
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}
