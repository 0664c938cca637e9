//! The heart: what decides. Pure functions and state machines; time comes in as an argument, bytes come in and go
//! out as values.
//!
//! What never appears below this line: I/O, a clock, a source of randomness, async code, a log line. The drivers in
//! `upstream` and `proxy` carry out what is decided here and do the tracing.

pub mod core;
pub mod dialect;
pub mod digest;
pub mod fault;
pub mod id;

pub mod session;
pub mod transcript;
pub mod wire;
