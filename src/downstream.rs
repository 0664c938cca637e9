//! The client's side: the listener, and what is taken from and given back to a client.
//! All sockets, no decisions: it does not know what a turn is, nor where a request goes.

pub mod body;
pub mod coding;
mod framing;
pub mod headers;
mod line;
pub mod listen;
pub mod listener;
pub mod message;
pub mod room;
pub mod stall;
pub mod tls;
pub mod upload;
