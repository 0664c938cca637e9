//! What is read again while the program runs: the files of keys and certificates, when they change and on SIGHUP.
//!
//! A file that cannot be used changes nothing but the log. No other setting is looked at again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::task::JoinHandle;

use crate::config::{Settings, is_exposed};
use crate::downstream::tls::Tls;
use crate::proxy::Proxy;

/// See the module.
#[derive(Debug)]
pub(super) struct Files {
    settings: Settings,
    tls: Option<Tls>,
    proxy: Arc<Proxy>,
    seen: Mutex<Seen>,
}

/// The files as they were when last read: certificate and its key, and keys.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    tls: Vec<Stamp>,
    keys: Vec<Stamp>,
}

/// When a file was changed and how long it is; none while it is not there.
type Stamp = Option<(SystemTime, u64)>;

impl Files {
    /// These, just read.
    pub(super) fn new(settings: Settings, tls: Option<Tls>, proxy: Arc<Proxy>) -> Self {
        let files = Self { settings, tls, proxy, seen: Mutex::default() };
        *files.seen.lock().unwrap_or_else(PoisonError::into_inner) = files.look();
        // Containers mount secrets readable for all of their users; there it is meant.
        for path in files.settings.secret_files().filter(|path| is_exposed(path)) {
            tracing::warn!(file = %path.display(), "others on this machine can read this file; `chmod 600` it");
        }
        files
    }

    /// Reads all of them again.
    pub(super) fn reload(&self) {
        let now = self.look();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = now;
        self.reload_tls();
        self.reload_keys();
    }

    /// Reads again what changes, until dropped. Looks at every `timeouts.file_check`: notices from the system would miss
    /// network file systems and swapped links.
    pub(super) async fn watch(self: Arc<Self>) {
        if self.is_empty() {
            return;
        }
        let mut ticks = tokio::time::interval(self.settings.timeouts.file_check);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let files = self.clone();
            // A file system may hang; then nothing is reloaded, and nobody waits for it.
            let _ = tokio::task::spawn_blocking(move || files.reload_changed()).await;
        }
    }

    /// Has SIGHUP read all of them again, if there are any; or always, where it comes from a service manager that was asked to
    /// reload and not from a terminal that went away.
    ///
    /// # Errors
    /// The signal cannot be listened to.
    pub(super) fn reload_on_hangup(self: Arc<Self>, supervised: bool) -> io::Result<JoinHandle<()>> {
        #[cfg(unix)]
        if supervised || !self.is_empty() {
            let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
            return Ok(tokio::spawn(async move {
                while hangup.recv().await.is_some() {
                    let files = self.clone();
                    let _ = tokio::task::spawn_blocking(move || files.reload()).await;
                }
            }));
        }
        Ok(tokio::spawn(async {}))
    }

    fn reload_changed(&self) {
        let now = self.look();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (tls, keys) = (now.tls != seen.tls, now.keys != seen.keys);
        // Before they are read: what is written meanwhile is another change.
        *seen = now;
        drop(seen);
        if tls {
            self.reload_tls();
        }
        if keys {
            self.reload_keys();
        }
    }

    fn reload_tls(&self) {
        let Some(tls) = &self.tls else { return };
        match tls.reload() {
            Ok(()) => tracing::info!(file = %tls.pem().certificate.display(), "certificate reloaded"),
            Err(error) => tracing::warn!(%error, "certificate not reloaded; the old one goes on"),
        }
    }

    fn reload_keys(&self) {
        if self.key_files().next().is_none() {
            return;
        }
        match self.settings.keys() {
            Ok(keys) => {
                self.proxy.admission().replace(&keys);
                tracing::info!(clients = keys.clients.len(), "keys reloaded");
            }
            Err(error) => tracing::warn!(%error, "keys not reloaded; the old ones go on"),
        }
    }

    fn is_empty(&self) -> bool {
        self.tls.is_none() && self.key_files().next().is_none()
    }

    fn key_files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.settings.client_keys_file, &self.settings.upstream_key_file].into_iter().flatten()
    }

    fn look(&self) -> Seen {
        let tls = self.tls.iter().flat_map(|tls| [&tls.pem().certificate, &tls.pem().key]);
        Seen {
            tls: tls.map(|path| stamp(path)).collect(),
            keys: self.key_files().map(|path| stamp(path)).collect(),
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
