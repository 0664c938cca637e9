//! Worlds: the heart against the simulated provider's rules, with an invented clock and not one socket. Whatever clients,
//! provider, sockets and time do, the model reads exactly what the client sent, and everybody gets one answer.
//!
//! The oracle is `sim::rules`, which shares no line with the heart. A failing world is shrunk and printed with its seed.

#[path = "world/answer.rs"]
mod answer;
#[path = "world/client.rs"]
mod client;
#[path = "world/direct.rs"]
mod direct;
#[path = "world/dress.rs"]
mod dress;
#[path = "world/provider.rs"]
mod provider;
#[path = "world/steps.rs"]
mod steps;
#[path = "world/turn.rs"]
mod turn;
#[path = "world/twist.rs"]
mod twist;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use client::{Node, TENANTS, Wanted};
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};
use provider::Socket;
use steps::{Setup, Step};
use tailwire::proto::core::{Core, Plan};
use tailwire::proto::digest::{Digest, Key};
use tailwire::proto::id::{ConnectionId, TurnId};
use tailwire::proto::session::Limits;
use tailwire::proto::transcript::plan::{Grade, Reason};
use tailwire::sim::rules::Account;
use tailwire::sim::script;
use turn::Ask;
use twist::Twist;

/// What became of all turns of a test.
#[derive(Debug, Default)]
struct Tally {
    steps: AtomicUsize,
    exact: AtomicUsize,
    visible: AtomicUsize,
    full: AtomicUsize,
    http: AtomicUsize,
    refused: AtomicUsize,
    broken: AtomicUsize,
    recovered: AtomicUsize,
}

impl Tally {
    fn count(counter: &AtomicUsize) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A proxy's heart, its clients, and its provider.
struct World<'a> {
    setup: Setup,
    tally: &'a Tally,
    now: Instant,
    core: Core,
    sockets: BTreeMap<ConnectionId, Socket>,
    account: Account,
    limits: script::Limits,
    style: script::Style,
    direct: Account,
    asks: BTreeMap<usize, Ask>,
    next_ask: usize,
    /// Whose each turn in the heart is.
    turns: HashMap<TurnId, usize>,
    nodes: Vec<Node>,
    /// Whose each response is, and in which scope.
    owners: HashMap<String, (usize, usize)>,
    sent: Vec<client::Prepared>,
    /// A client has sent what any provider refuses as a repetition.
    repetitions: bool,
}

fn credential(tenant: usize) -> String {
    ["a", "b", "c"][tenant].repeat(64)
}

impl<'a> World<'a> {
    fn new(setup: Setup, tally: &'a Tally) -> Self {
        let limits = Limits {
            lanes: setup.lanes,
            in_flight: setup.in_flight,
            sockets_per_account: setup.sockets_per_account,
            sockets: setup.sockets,
            frame: setup.frame,
            own_socket_frame: setup.own_socket_frame,
            ..Limits::default()
        };
        let provider = script::Limits {
            in_flight: if setup.lanes == 0 { 1 } else { setup.in_flight },
            lanes: setup.provider_lanes,
            max_age: Duration::from_secs(60 * setup.provider_age),
            ..script::Limits::default()
        };
        let style = script::Style {
            sparse: setup.sparse,
            empty_output: setup.empty_output,
            future_event: setup.future_event,
            ..script::Style::default()
        };
        Self {
            tally,
            now: Instant::now(),
            core: Core::new(Key::new([5; 32]), limits, setup.strict, setup.index),
            sockets: BTreeMap::new(),
            account: Account::new([1; 32]),
            limits: provider,
            style,
            direct: Account::new([2; 32]),
            asks: BTreeMap::new(),
            next_ask: 0,
            turns: HashMap::new(),
            nodes: Vec::new(),
            owners: HashMap::new(),
            sent: Vec::new(),
            repetitions: false,
            setup,
        }
    }

    fn digest_of(&self, tenant: usize) -> Digest {
        let mut hasher = self.core.key().hasher("account");
        hasher.field(credential(tenant).as_bytes());
        hasher.finish()
    }

    fn run(mut self, steps: &[Step]) {
        for step in steps {
            Tally::count(&self.tally.steps);
            self.now += Duration::from_millis(20);
            self.step(step);
            self.check();
        }
        self.end();
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Ask(wanted) => drop(self.wanted(wanted)),
            Step::Again(n) => {
                if let Some(request) = nth(self.sent.iter().rev(), *n).cloned() {
                    self.ask(request);
                }
            }
            Step::Open(n, how) => {
                let opening = self.sockets.iter().filter(|(_, socket)| !socket.is_open());
                if let Some(id) = nth(opening.map(|(id, _)| *id), *n) {
                    self.open(id, *how);
                }
            }
            Step::Write(n) => {
                if let Some(id) = nth(self.sockets.keys().copied(), *n) {
                    self.write(id);
                }
            }
            Step::Tell(n, events) => {
                if let Some((id, turn)) = nth(self.under_way().into_iter(), *n) {
                    for _ in 0..=events % 24 {
                        self.tell(id, turn);
                    }
                }
            }
            Step::Read(n) => {
                if let Some(ask) = nth(self.asks.keys().copied(), *n) {
                    self.read(ask);
                }
            }
            Step::Flow => self.flow(),
            Step::Leave(n) => {
                if let Some(ask) = nth(self.asks.keys().copied(), *n) {
                    self.leave(ask);
                }
            }
            Step::Lose(n, how) => {
                if let Some(id) = nth(self.sockets.keys().copied(), *n) {
                    self.lose(id, *how);
                }
            }
            Step::Spoil(n, how) => {
                if let Some((id, turn)) = nth(self.under_way().into_iter(), *n) {
                    self.spoil(id, turn, *how);
                }
            }
            Step::Wait(n) => self.wait([1, 6, 11, 30, 100, 600, 1000, 2000, 3400][usize::from(*n) % 9]),
            Step::Lag(n, on) => {
                if let Some(id) = nth(self.sockets.keys().copied(), *n) {
                    self.core.lag(id, *on);
                }
            }
            Step::Forget(n) => {
                if let Some(node) = nth(self.nodes.iter(), *n).cloned() {
                    self.core.forget(&self.digest_of(node.tenant), &node.response.unwrap_or_default());
                }
            }
        }
    }

    /// A request as wanted; its number.
    fn wanted(&mut self, wanted: &Wanted) -> usize {
        let known = nth(self.nodes.iter().rev(), wanted.node).filter(|_| wanted.fresh.is_none());
        let mut node = known.cloned().unwrap_or_else(|| Node::root(wanted.fresh.unwrap_or(wanted.node)));
        if let Some(number) = wanted.moved {
            node = node.moved(number);
        }
        let request = node.ask(wanted);
        self.sent.push(request.clone());
        self.ask(request)
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        if seconds > 5 {
            self.asks.values_mut().for_each(|ask| ask.disturbed = true);
        }
        let ids: Vec<ConnectionId> = self.sockets.keys().copied().collect();
        for id in ids {
            let mut calls = 0;
            while self.core.poll_timeout(id).is_some_and(|at| at <= self.now) {
                self.core.timeout(self.now, id);
                self.act(id);
                calls += 1;
                assert!(calls < 8, "a timer that never rests");
            }
        }
    }

    /// Brings everything under way to rest.
    fn flow(&mut self) {
        loop {
            let mut moved = false;
            let ids: Vec<ConnectionId> = self.sockets.keys().copied().collect();
            for id in ids {
                self.act(id);
                moved |= self.open(id, 0);
                while self.write(id) {
                    moved = true;
                }
            }
            for (id, turn) in self.under_way() {
                while self.tell(id, turn) {
                    moved = true;
                }
            }
            let asks: Vec<usize> = self.asks.keys().copied().collect();
            for ask in asks {
                moved |= self.read(ask);
            }
            if !moved {
                return;
            }
        }
    }

    /// The limits hold, and nothing is lost track of.
    fn check(&mut self) {
        let limits = self.core.limits();
        assert!(self.core.sockets() <= limits.sockets, "sockets in all");
        assert_eq!(self.core.sockets(), self.sockets.len(), "every socket has a task");
        assert!(self.core.index().weight() <= self.setup.index, "the index's weight");
        assert_eq!(self.core.turns(), self.turns.len(), "every turn has a client");
        for tenant in 0..TENANTS {
            let open = self.sockets.values().filter(|socket| socket.tenant == tenant).count();
            let most = limits.sockets_per_account;
            assert!(open <= most || self.setup.lazy, "{open} sockets of one account, of {most}");
        }
        for socket in self.sockets.values() {
            assert_eq!(socket.rules.waiting(), 0, "no turn waits behind another at the provider's");
        }
        for violation in self.account.drain_violations() {
            assert!(violation.rule == "duplicate" && self.repetitions, "{violation:?}");
        }
    }

    /// All turns end, all sockets close, nothing remains.
    fn end(mut self) {
        let ids: Vec<ConnectionId> = self.sockets.keys().copied().collect();
        ids.into_iter().for_each(|id| self.core.lag(id, false));
        for _ in 0..80 {
            self.flow();
            if self.asks.is_empty() {
                break;
            }
            self.wait(30);
        }
        assert!(self.asks.is_empty(), "every turn ends: {:?}", self.asks.values().next());
        self.check();
        assert_eq!(self.core.turns(), 0, "no turn is left");
        self.core.retire_all();
        self.flow();
        assert_eq!(self.core.sockets(), 0, "no socket is left");
    }

    /// One turn of a calm conversation: sent, answered, and how.
    fn turn(&mut self, wanted: &Wanted) -> (Plan, usize) {
        let ask = self.wanted(wanted);
        let plan = self.asks[&ask].plan().cloned().expect("on a socket");
        let known = self.asks[&ask].request.known;
        self.flow();
        assert!(self.asks.is_empty(), "answered");
        self.check();
        Tally::count(&self.tally.steps);
        (plan, known)
    }
}

/// The n-th of what there is, counted round.
fn nth<T>(items: impl Iterator<Item = T>, n: u8) -> Option<T> {
    let mut items: Vec<T> = items.collect();
    let n = usize::from(n) % items.len().max(1);
    (n < items.len()).then(|| items.swap_remove(n))
}

/// `PROPTEST_CASES` (256) worlds, or a part of them. A failing world's seed is kept, to be run first from then on.
fn runner(part: u32) -> TestRunner {
    let seeds = FileFailurePersistence::Direct("proptest-regressions/world.txt");
    let config = Config::default();
    TestRunner::new(Config {
        cases: config.cases / part,
        failure_persistence: Some(Box::new(seeds)),
        ..config
    })
}

#[test]
fn never_a_wrong_context() {
    let tally = Tally::default();
    let mut runner = runner(1);
    let run = runner.run(&(steps::setups(), steps::steps()), |(setup, steps)| {
        World::new(setup, &tally).run(&steps.0);
        Ok(())
    });
    println!("{tally:?}");
    if let Err(failure) = run {
        panic!("{failure}");
    }
    assert!(tally.steps.load(Ordering::Relaxed) >= 10_000);
    // Worlds in which little happens prove nothing.
    let often = |name: &str, counter: &AtomicUsize, least: usize| {
        assert!(counter.load(Ordering::Relaxed) >= least, "only {counter:?} of {least} turns were {name}");
    };
    often("exact", &tally.exact, 500);
    often("visible", &tally.visible, 15);
    often("full", &tally.full, 500);
    often("recovered", &tally.recovered, 100);
    often("refused", &tally.refused, 30);
    often("over HTTP", &tally.http, 100);
}

#[test]
fn every_later_turn_of_a_calm_conversation_is_a_delta_with_exactly_the_new_items() {
    let tally = Tally::default();
    // Two of three conversations are stored differently; each way of repeating an answer, every settings change.
    let turns = prop::collection::vec((0..3usize, any::<(u8, u8, u8, u16, bool)>(), any::<bool>()), 1..16);
    let mut runner = runner(4);
    let run =
        runner.run(&(any::<bool>(), prop_oneof![Just(0u32), Just(32)], turns), |(strict, lanes, turns)| {
            let mut world = World::new(Setup::calm(strict, lanes), &tally);
            let mut talks: [Option<Node>; 3] = [None, None, None];
            for (talk, (message, echo, dress, tune, stream), reorder) in turns {
                let first = talks[talk].is_none();
                // Not what breaks a chain (an unknown field) or bypasses it, and no dropped reasoning where that is strict.
                let tune = tune & !(1 << 5 | 1 << 8 | 1 << 10 | 1 << 14);
                let echo = if strict && echo % 6 == 3 { 2 } else { echo };
                let twist = if reorder { Twist::Reorder } else { Twist::None };
                let fresh = first.then_some([0, 6, 13][talk]);
                let wanted = Wanted {
                    node: 0,
                    moved: None,
                    fresh,
                    message,
                    twist,
                    at: 1,
                    echo,
                    dress,
                    tune,
                    stream,
                    anchor: false,
                };
                world.nodes = talks[talk].take().into_iter().collect();
                let (plan, known) = world.turn(&wanted);
                talks[talk] = world.nodes.pop();
                match plan {
                    Plan::Full { reason, .. } => {
                        prop_assert!(first && reason == Reason::FirstTurn, "{:?}", reason)
                    }
                    Plan::Delta { new_from, grade, .. } => {
                        prop_assert_eq!(new_from, known);
                        prop_assert!(!strict || grade == Grade::Exact);
                    }
                }
            }
            world.end();
            Ok(())
        });
    println!("{tally:?}");
    if let Err(failure) = run {
        panic!("{failure}");
    }
}
