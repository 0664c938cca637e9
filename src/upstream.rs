//! The provider's side: where it is, and the ways to reach it (a WebSocket, a pooled HTTP client).
//! All sockets, no decisions: it does not know what a turn is, and never retries on its own account.

pub mod connection;
pub mod connector;
pub mod dial;
pub mod extension;
mod forward;
pub mod handshake;
pub mod heart;
pub mod http;
pub mod inbox;
pub mod origin;
pub mod pool;
pub mod socket;
pub mod tls;
