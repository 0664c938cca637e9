//! The walls against real sockets on loopback: listener, socket, TLS, pass-through, tunnel.
//! No turn is taken here; what flows through is opaque.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod listen;
mod passage;
mod socket;
mod support;
mod tls;
mod wire;
