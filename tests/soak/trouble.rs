//! When a side was down: the windows of time in which an attempt may fail for a reason that is no fault of the proxy's.
//!
//! Knows no reasons but these three; what a mishap of the provider explains is `excuse.rs`'s.

use std::sync::Mutex;
use std::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The provider's port is closed, its connections are gone.
    ProviderDown,
    /// The proxy was told to stop: it accepts no more, and turns in flight may end.
    Draining,
    /// The proxy was killed.
    Cut,
}

#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<Vec<Window>>);

#[derive(Clone, Copy, Debug)]
struct Window {
    what: Trouble,
    from: Instant,
    to: Option<Instant>,
}

impl Troubles {
    pub(crate) fn begin(&self, what: Trouble) {
        let mut windows = self.0.lock().expect("no panic under this lock");
        if windows.len() >= MOST_WINDOWS {
            windows.remove(0);
        }
        windows.push(Window { what, from: Instant::now(), to: None });
    }

    /// Ends every window of this kind.
    pub(crate) fn end(&self, what: Trouble) {
        let now = Instant::now();
        for window in self.0.lock().expect("no panic under this lock").iter_mut() {
            if window.what == what {
                window.to.get_or_insert(now);
            }
        }
    }

    /// Whether there was such trouble at any time between the two.
    pub(crate) fn met(&self, what: Trouble, from: Instant, to: Instant) -> bool {
        let windows = self.0.lock().expect("no panic under this lock");
        windows.iter().any(|window| {
            window.what == what && window.from <= to && window.to.is_none_or(|ended| ended >= from)
        })
    }
}

/// Those of the last minutes; no attempt lasts longer.
const MOST_WINDOWS: usize = 256;
