//! A world for a test: a simulated provider, and in front of it a proxy, both on ports of the system's choice.
//!
//! Says nothing about what either should do.

#[path = "scanner.rs"]
pub(crate) mod scanner;

use tailwire::app;
use tailwire::config::{AdminListen, Settings};
use tailwire::sim::ledger::{Ledger, Outcome, Record};
use tailwire::sim::{Running, Script};

use crate::http::Client;

pub(crate) struct World {
    pub(crate) sim: Running,
    pub(crate) proxy: app::Running,
}

impl World {
    /// Defaults, as changed.
    pub(crate) async fn start(
        settings: impl FnOnce(&mut Settings),
        script: impl FnOnce(&mut Script),
    ) -> Self {
        let mut told = Script::default();
        script(&mut told);
        let sim = Running::start(told).await.unwrap();
        let mut chosen = settings_for(&sim.base_url());
        settings(&mut chosen);
        let proxy = app::Running::start(chosen).await.unwrap();
        Self { sim, proxy }
    }

    pub(crate) async fn plain() -> Self {
        Self::start(|_| (), |_| ()).await
    }

    pub(crate) fn direct(&self) -> Client {
        Client::new(self.sim.addr)
    }

    pub(crate) fn proxied(&self) -> Client {
        Client::new(self.proxy.addr)
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        self.sim.provider.ledger()
    }

    /// The provider's record of a response.
    pub(crate) fn record(&self, response: &str) -> Record {
        let find = |record: &&Record| record.response.as_deref() == Some(response);
        self.ledger().read(|book| book.turns.iter().find(find).cloned()).expect("the provider made it")
    }

    /// Waits until so many turns are in flight at the provider, and returns their records. No two share a lane.
    pub(crate) async fn in_flight(&self, turns: usize) -> Vec<Record> {
        let reached = self.ledger().wait(|book| book.count(Outcome::Running) == turns).await;
        let running = self.ledger().read(|book| {
            book.turns.iter().filter(|turn| turn.outcome == Outcome::Running).cloned().collect::<Vec<_>>()
        });
        assert!(reached, "{} of {turns} in flight", running.len());
        let lanes: std::collections::HashSet<_> =
            running.iter().map(|turn| (turn.connection, turn.stream_id.clone())).collect();
        assert_eq!(lanes.len(), turns, "a lane is used by two turns at once");
        running
    }

    /// From now on answers take seconds, so that turns overlap for certain.
    pub(crate) fn slow(&self) {
        self.sim.provider.script(|script| script.speed = 10.0);
    }

    /// Ends [`Self::slow`], for turns in flight as well.
    pub(crate) fn fast(&self) {
        self.sim.provider.script(|script| script.speed = 0.0);
    }

    /// The provider saw no rule broken.
    pub(crate) fn assert_lawful(&self) {
        self.ledger().read(|book| assert_eq!(book.violations, []));
    }
}

/// The default settings for this upstream, listening wherever there is a port.
pub(crate) fn settings_for(upstream: &str) -> Settings {
    scanner::listen();
    Settings {
        listen: ([127, 0, 0, 1], 0).into(),
        admin_listen: AdminListen::Off,
        upstream: upstream.parse().unwrap(),
        ..Settings::default()
    }
}
