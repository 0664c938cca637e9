//! The admin listener over real sockets: health, who may look, and that what it says is what the provider saw.
//!
//! The dashboard in a browser is `tests/browser`'s.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with tests that need more of it")]
#[path = "support/agent.rs"]
mod agent;
#[path = "admin/figures.rs"]
mod figures;
#[path = "admin/followers.rs"]
mod followers;
#[allow(dead_code, reason = "shared with tests that need more of it")]
#[path = "support/http.rs"]
mod http;
#[path = "admin/listener.rs"]
mod listener;
#[path = "admin/names.rs"]
mod names;
#[path = "admin/reader.rs"]
mod reader;
#[path = "admin/support.rs"]
mod support;
#[allow(dead_code, reason = "shared with tests that need more of it")]
#[path = "support/world.rs"]
mod world;
