//! Whether the upstream can be reached: tried when somebody asks and what is known is too old. One try at a time, however
//! many ask.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::proxy::Proxy;

/// Why no turn should be sent here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unready {
    /// The proxy is on its way out.
    Draining,
    /// The upstream cannot be reached; why not.
    Unreachable(String),
}

impl Unready {
    /// Its name for machines.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Unreachable(_) => "upstream-unreachable",
        }
    }
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Draining => f.write_str("tailwire is about to stop; turns under way may end."),
            Self::Unreachable(why) => write!(f, "The upstream cannot be reached: {why}."),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Probe {
    fresh: Duration,
    trying: Semaphore,
    known: Mutex<Option<(Instant, Result<(), Unready>)>>,
}

impl Probe {
    /// What is known counts for `fresh`.
    pub(super) fn new(fresh: Duration) -> Self {
        Self { fresh, trying: Semaphore::new(1), known: Mutex::default() }
    }

    /// Whether the upstream can be reached; at most the connect time limit for each who asked before.
    pub(super) async fn check(&self, proxy: &Proxy) -> Result<(), Unready> {
        if let Some(known) = self.known() {
            return known;
        }
        let _turn = self.trying.acquire().await;
        // Whoever was before has found out meanwhile.
        if let Some(known) = self.known() {
            return known;
        }
        let found = proxy.reach().await.map_err(|error| Unready::Unreachable(error.to_string()));
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), found.clone()));
        found
    }

    fn known(&self) -> Option<Result<(), Unready>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|(at, _)| at.elapsed() < self.fresh).map(|(_, found)| found.clone())
    }
}
