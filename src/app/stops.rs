//! The signals that ask for an end: SIGINT and SIGTERM, Ctrl-C elsewhere. Decides nothing about what follows.

use std::io;

/// Hears from the moment it is made, not from the first wait: who was told that the program is ready may end it at once.
#[cfg(unix)]
#[derive(Debug)]
pub(super) struct Stops {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Stops {
    /// From now on neither signal ends the program by itself.
    ///
    /// # Errors
    /// The signals cannot be listened to.
    pub(super) fn hear() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Resolves with the next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// See the other one.
#[cfg(not(unix))]
#[derive(Debug)]
pub(super) struct Stops;

#[cfg(not(unix))]
impl Stops {
    /// As there; here Ctrl-C is heard from the first wait on.
    ///
    /// # Errors
    /// None.
    pub(super) fn hear() -> io::Result<Self> {
        Ok(Self)
    }

    /// Resolves with the next one.
    pub(super) async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
