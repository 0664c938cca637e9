//! The client's side: the listener, and what is taken from and given back to a client.
//! All sockets, no decisions: it does not know what a turn is, nor where a request goes.

pub mod body;
pub mod coding;
pub mod headers;
pub mod listen;
pub mod room;
pub mod stall;
pub mod upload;
