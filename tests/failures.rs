//! The failures of other projects, played against tailwire: one test for each that could happen here, its number first in
//! its name (`just failures` lists them all). The provider is `failures/peer.rs`: it says what the test says, when the
//! test says it.
//!
//! Not here: what a single function can show; those tests stand beside their code, with the same kind of name.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/agent.rs"]
#[allow(dead_code, reason = "shared with tests/proxy.rs, which uses all of it")]
mod agent;
#[path = "failures/anchors.rs"]
mod anchors;
#[path = "failures/connection.rs"]
mod connection;
#[path = "support/forward.rs"]
#[allow(dead_code, reason = "shared with tests/networks.rs, which uses all of it")]
mod forward;
#[path = "support/http.rs"]
#[allow(dead_code, reason = "shared with tests/proxy.rs, which uses all of it")]
mod http;
#[path = "failures/isolation.rs"]
mod isolation;
#[path = "failures/matching.rs"]
mod matching;
#[path = "failures/peer.rs"]
mod peer;
#[path = "failures/resources.rs"]
mod resources;
#[path = "failures/size.rs"]
mod size;
#[path = "failures/streaming.rs"]
mod streaming;
#[path = "support/world.rs"]
#[allow(dead_code, reason = "shared with tests/proxy.rs, which uses all of it")]
mod world;
