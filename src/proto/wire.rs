//! What goes over the wires, as bytes and spans of bytes: JSON, items, frames out, events in, SSE.
//!
//! Knows nothing of conversations, sockets or plans.

pub mod error;
pub mod event;
pub mod item;
pub mod json;
pub mod object;
pub mod sse;
