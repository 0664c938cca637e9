//! Who may use the proxy, with whose key, over which transport, and what it says about them: client keys, the guard of the
//! upstream key, TLS for clients, and a log without secrets.
//!
//! The policy's tables are in `src/proxy/admission/tests.rs`, what settings may say in `src/config`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with tests that need more of it")]
#[path = "support/agent.rs"]
mod agent;
#[allow(dead_code, reason = "shared with tests that need more of it")]
#[path = "support/http.rs"]
mod http;
#[path = "trust/keys.rs"]
mod keys;
#[path = "trust/logs.rs"]
mod logs;
#[path = "trust/refusals.rs"]
mod refusals;
#[path = "trust/support.rs"]
mod support;
#[path = "trust/tls.rs"]
mod tls;
#[allow(dead_code, reason = "shared with tests that need more of it")]
#[path = "support/world.rs"]
mod world;
