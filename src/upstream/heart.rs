//! The heart behind its lock, for the pool and for every socket's task.
//!
//! A short std mutex, never held across an await: every call under it is arithmetic and map look-ups. An async lock would
//! cost more than what it guards.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::proto::core::Core;
use crate::telemetry::metrics::Metrics;

/// See the module.
#[derive(Debug)]
pub struct Heart {
    core: Mutex<Core>,
    /// The counters.
    pub metrics: Arc<Metrics>,
}

impl Heart {
    /// Puts a heart behind its lock.
    pub fn new(core: Core, metrics: Arc<Metrics>) -> Self {
        Self { core: Mutex::new(core), metrics }
    }

    /// The heart. A panic under the lock is a defect of ours; refusing every later turn would only make it worse.
    pub fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
