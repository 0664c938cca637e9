//! Folders, files and keys for these tests, and a WebSocket client of a client's own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Request;
use tailwire::config::{NamedKey, Secret};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::{self};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::http::Client;

pub(crate) const ALICE: &str = "sk-planted-alice-0123";
pub(crate) const BOB: &str = "sk-planted-bob-456789";
pub(crate) const UPSTREAM: &str = "sk-planted-upstream";

pub(crate) fn clients(keys: &[&str]) -> Vec<NamedKey> {
    keys.iter().map(|key| NamedKey::parse(key).unwrap()).collect()
}

pub(crate) fn upstream_key() -> Option<Secret> {
    Some(Secret::upstream(UPSTREAM).unwrap())
}

/// A folder of this test's own, removed with it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("trust-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes a file that only its owner can read, in one step.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let (path, new) = (self.0.join(name), self.0.join(format!("{name}.new")));
        std::fs::write(&new, text).unwrap();
        expose(&new, 0o600);
        std::fs::rename(&new, &path).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn expose(path: &Path, mode: u32) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    #[cfg(not(unix))]
    let _ = (path, mode);
}

/// Asks for a WebSocket with a client's headers.
pub(crate) async fn websocket(
    client: &Client,
    path: &str,
) -> Result<WebSocketStream<TcpStream>, tungstenite::Error> {
    let mut request = Request::get(format!("ws://{}{path}", client.addr)).body(()).unwrap();
    *request.headers_mut() = client.headers.clone();
    let address = client.addr.to_string();
    let key = generate_key();
    for (name, value) in [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", &key),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request.headers_mut().entry("host").or_insert(address.parse().unwrap());
    let stream = TcpStream::connect(client.addr).await.unwrap();
    client_async(request, stream).await.map(|(socket, _)| socket)
}

/// Waits for what nobody signals.
pub(crate) async fn until<F: Future<Output = bool>>(about: &str, mut condition: impl FnMut() -> F) {
    let polled = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, polled).await.is_ok(), "{about}");
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
