//! What is read again while the program runs: the files of keys and certificates, when they change and on SIGHUP.
//!
//! A file that cannot be used changes nothing but the log. No other setting is looked at again.

use std::fs::Metadata;
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
#[derive(Debug)]
pub(super) struct Seen {
    tls: Kind,
    keys: Kind,
}

/// Files that are read together.
#[derive(Debug)]
struct Kind {
    stamps: Vec<Stamp>,
    /// They could not be used, and may be usable without another change: a certificate whose time comes.
    refused: bool,
}

/// When a file was changed, in content and otherwise, which it is and how long; none while it is not there.
type Stamp = Option<(SystemTime, i64, u64, u64)>;

impl Seen {
    /// The files as they are now; before they are read, so that what is written meanwhile is another change.
    pub(super) fn now(settings: &Settings) -> Self {
        let kind = |paths: [&Option<PathBuf>; 2]| Kind {
            stamps: paths.into_iter().flatten().map(|path| stamp(path)).collect(),
            refused: false,
        };
        Self {
            tls: kind([&settings.tls_certificate, &settings.tls_key]),
            keys: kind([&settings.client_keys_file, &settings.upstream_key_file]),
        }
    }
}

impl Kind {
    /// Whether these are to be read that were seen as `before`; and whether that is news.
    fn due(&self, before: &Self) -> (bool, bool) {
        let changed = self.stamps != before.stamps;
        (changed || before.refused, changed)
    }
}

impl Files {
    /// Those that were `seen` and then read.
    pub(super) fn new(settings: Settings, seen: Seen, tls: Option<Tls>, proxy: Arc<Proxy>) -> Self {
        let files = Self { settings, tls, proxy, seen: Mutex::new(seen) };
        // Containers mount secrets readable for all of their users; there it is meant.
        for path in files.settings.secret_files().filter(|path| is_exposed(path)) {
            tracing::warn!(file = %path.display(), "others on this machine can read this file; `chmod 600` it");
        }
        files
    }

    /// Reads all of them again.
    pub(super) fn reload(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = Seen::now(&self.settings);
        seen.tls.refused = !self.reload_tls(true);
        seen.keys.refused = !self.reload_keys(true);
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
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *seen, Seen::now(&self.settings));
        let (due, news) = seen.tls.due(&before.tls);
        seen.tls.refused = due && !self.reload_tls(news);
        let (due, news) = seen.keys.due(&before.keys);
        seen.keys.refused = due && !self.reload_keys(news);
    }

    /// False if they cannot be used, which is said where it is `news`.
    fn reload_tls(&self, news: bool) -> bool {
        let Some(tls) = &self.tls else { return true };
        let reloaded = tls.reload();
        match &reloaded {
            Ok(()) => tracing::info!(file = %tls.pem().certificate.display(), "certificate reloaded"),
            Err(error) if news => tracing::warn!(%error, "certificate not reloaded; the old one goes on"),
            Err(_) => {}
        }
        reloaded.is_ok()
    }

    fn reload_keys(&self, news: bool) -> bool {
        if self.key_files().next().is_none() {
            return true;
        }
        match self.settings.keys() {
            Ok(keys) => {
                self.proxy.admission().replace(&keys);
                tracing::info!(clients = keys.clients.len(), "keys reloaded");
                return true;
            }
            Err(error) if news => tracing::warn!(%error, "keys not reloaded; the old ones go on"),
            Err(_) => {}
        }
        false
    }

    fn is_empty(&self) -> bool {
        self.tls.is_none() && self.key_files().next().is_none()
    }

    fn key_files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.settings.client_keys_file, &self.settings.upstream_key_file].into_iter().flatten()
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    let (changed, inode) = identity(&metadata);
    Some((metadata.modified().ok()?, changed, inode, metadata.len()))
}

/// A file moved into another's place may be as old and as long.
#[cfg(unix)]
fn identity(metadata: &Metadata) -> (i64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.ctime().wrapping_mul(1_000_000_000).wrapping_add(metadata.ctime_nsec()), metadata.ino())
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> (i64, u64) {
    (0, 0)
}
