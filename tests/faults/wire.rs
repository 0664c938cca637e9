//! The line between proxy and provider: passes bytes on, holds new connections back, or dies under those that exist.
//!
//! Knows no HTTP. A dead line is what a suspended laptop or a forgotten NAT entry leaves behind: no end is told.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of connections that exist when the line dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// Nothing is read, answered or ended any more.
    Silent,
    /// The next byte from the proxy is answered with a reset.
    Reset,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    held: bool,
    connections: u64,
    /// Connections below this number are dead.
    dead: (u64, Option<Death>),
}

/// See the module. Dropping it ends every connection.
pub(crate) struct Wire {
    addr: SocketAddr,
    state: Arc<watch::Sender<State>>,
    task: JoinHandle<()>,
}

impl Wire {
    pub(crate) async fn before(provider: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(watch::Sender::new(State::default()));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            let mut lines = tokio::task::JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let number = shared.borrow().connections;
                shared.send_modify(|state| state.connections += 1);
                lines.spawn(carry(near, provider, number, shared.subscribe()));
            }
        });
        Self { addr, state, task }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// New connections wait, accepted, until [`Self::release`].
    pub(crate) fn hold(&self) {
        self.state.send_modify(|state| state.held = true);
    }

    pub(crate) fn release(&self) {
        self.state.send_modify(|state| state.held = false);
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> u64 {
        self.state.borrow().connections
    }

    /// Kills the connections that exist; new ones work.
    pub(crate) fn die(&self, death: Death) {
        self.state.send_modify(|state| state.dead = (state.connections, Some(death)));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut near: TcpStream, provider: SocketAddr, number: u64, mut state: watch::Receiver<State>) {
    if state.wait_for(|state| !state.held).await.is_err() {
        return;
    }
    let mut far = TcpStream::connect(provider).await.unwrap();
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    let died =
        async { state.wait_for(|state| number < state.dead.0).await.ok().and_then(|state| state.dead.1) };
    let death = tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => return,
        death = died => death,
    };
    if death == Some(Death::Reset) && near.read(&mut [0]).await.is_ok_and(|read| read > 0) {
        near.set_zero_linger().unwrap();
        return;
    }
    // Both ends stay as they are, unread.
    std::future::pending::<()>().await;
}
