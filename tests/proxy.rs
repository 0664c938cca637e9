//! The proxy in front of the simulated provider, end to end over real sockets, in one process.
//!
//! Faults of the provider and of the network are `tests/faults.rs`'s.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/agent.rs"]
mod agent;
#[path = "proxy/chat.rs"]
mod chat;
#[path = "support/chat_rows.rs"]
mod chat_rows;
#[path = "support/http.rs"]
mod http;
#[path = "proxy/input.rs"]
mod input;
#[path = "proxy/judge.rs"]
mod judge;
#[path = "proxy/lanes.rs"]
mod lanes;
#[path = "proxy/life.rs"]
mod life;
#[path = "proxy/passthrough.rs"]
mod passthrough;
#[path = "proxy/provider.rs"]
mod provider;
#[path = "proxy/provider_sockets.rs"]
mod provider_sockets;
#[path = "proxy/shutdown.rs"]
mod shutdown;
#[path = "proxy/tenants.rs"]
mod tenants;
#[path = "proxy/transparency.rs"]
mod transparency;
#[path = "support/world.rs"]
mod world;
