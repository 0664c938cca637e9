//! The edges of HTTP between clients and the whole proxy, said by hand: what is ambiguous is refused, what is unusual
//! works as it would without a proxy, and what is slow is bounded; on a turn's way and on the way of everything else.
//!
//! Not here: what a turn means (`tests/proxy.rs`), and what happens when the provider fails (`tests/faults.rs`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "edges/connections.rs"]
mod connections;
#[path = "edges/framing.rs"]
mod framing;
#[path = "edges/heads.rs"]
mod heads;
#[path = "edges/hops.rs"]
mod hops;
#[allow(dead_code, reason = "other suites use the rest of it")]
#[path = "support/http.rs"]
mod http;
#[path = "edges/http2.rs"]
mod http2;
#[path = "support/raw.rs"]
mod raw;
#[path = "edges/slow.rs"]
mod slow;
#[path = "edges/support.rs"]
mod support;
#[path = "edges/targets.rs"]
mod targets;
#[allow(dead_code, reason = "other suites use the rest of it")]
#[path = "support/world.rs"]
mod world;
