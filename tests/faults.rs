//! The whole proxy between a client and a provider to whom things happen: every fault at every moment, clients that
//! leave, clients that stop reading, sockets that grow old. What a client sees, by which rung, and that no
//! conversation ever continues from a wrong context.
//!
//! Not here: what a healthy turn looks like; the rules of the simulated provider itself.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "faults/cancel.rs"]
mod cancel;
#[path = "faults/limits.rs"]
mod limits;
#[path = "faults/matrix.rs"]
mod matrix;
#[path = "faults/rotation.rs"]
mod rotation;
#[path = "faults/slow.rs"]
mod slow;
#[path = "faults/support.rs"]
mod support;
#[path = "faults/upgrade.rs"]
mod upgrade;
#[path = "faults/wire.rs"]
mod wire;
