//! Sockets and lanes as state machines: which one a turn takes, what a fault leads to. Time is an argument; limits are
//! data, so that many lanes and one turn at a time are one code path.

use std::time::Duration;

pub mod connection;
pub mod health;
pub mod lane;
pub mod profile;
pub mod recovery;

/// What the provider and the owner allow. The consequence of each limit stands beside it.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Responses in flight on one socket; past it another socket is opened.
    pub in_flight: usize,
    /// Named lanes over a socket's life; 0 means the default lane only, one turn at a time.
    pub lanes: u32,
    /// Sockets of one credential; past it the oldest idle conversation gives up its lane, then turns go over HTTP.
    pub sockets_per_account: usize,
    /// Sockets in all; past it turns go over HTTP.
    pub sockets: usize,
    /// Largest frame in bytes; a larger turn goes over HTTP.
    pub frame: usize,
    /// A frame above this, and above any the socket has taken, goes on a socket of its own.
    pub own_socket_frame: usize,
    /// Age at which a socket takes no new turns (the provider closes it a little later).
    pub rotate_after: Duration,
    /// Up to this much earlier, by socket, so that sockets opened together do not turn over together.
    pub jitter: Duration,
    /// A socket without turns for this long is closed; its conversations cost one full resend each.
    pub idle: Duration,
    /// A head unused for this long may lose its lane to a new conversation.
    pub keep_head: Duration,
    /// Silence after which a socket is pinged.
    pub ping: Duration,
    /// Wait for a sign of life after a ping; then the socket is dead.
    pub pong: Duration,
    /// Wait for a turn's first event; then the socket takes no new turns, and the turn is tried on the next rung.
    pub first_event: Duration,
    /// Wait for a turn's next event; then the turn ends.
    pub silence: Duration,
    /// How long an abandoned turn is read beside others; then its socket takes no new turns.
    pub abandon_grace: Duration,
    /// How long HTTP is used after the provider said it serves no sockets.
    pub latch: Duration,
    /// First and longest wait between handshakes after a failure.
    pub backoff: (Duration, Duration),
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight: 16,
            lanes: 32,
            sockets_per_account: 16,
            sockets: 256,
            frame: 15 << 20,
            own_socket_frame: 1 << 20,
            rotate_after: Duration::from_secs(55 * 60),
            jitter: Duration::from_secs(3 * 60),
            idle: Duration::from_secs(30 * 60),
            keep_head: Duration::from_secs(10 * 60),
            ping: Duration::from_secs(25),
            pong: Duration::from_secs(10),
            first_event: Duration::from_secs(90),
            silence: Duration::from_secs(15 * 60),
            abandon_grace: Duration::from_secs(5),
            latch: Duration::from_secs(10 * 60),
            backoff: (Duration::from_secs(1), Duration::from_secs(5 * 60)),
        }
    }
}
