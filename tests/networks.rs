//! Networks as they are: forward proxies, private authorities, client certificates, names with several addresses, IPv6, unix
//! sockets. Small servers inside the process stand for all of it; `networks/run.sh` does the same with proxies from Debian.
//!
//! What settings and variables mean is tested in `src/config/proxy.rs`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with tests that need more of it")]
#[path = "support/agent.rs"]
mod agent;
#[path = "networks/authority.rs"]
mod authority;
#[allow(dead_code, reason = "shared with tests that need more of it")]
#[path = "support/forward.rs"]
mod forward;
#[allow(dead_code, reason = "shared with tests that need more of it")]
#[path = "support/http.rs"]
mod http;
#[path = "networks/names.rs"]
mod names;
#[path = "networks/proxies.rs"]
mod proxies;
#[path = "networks/trust.rs"]
mod trust;
#[cfg(unix)]
#[path = "networks/unix.rs"]
mod unix;
#[allow(dead_code, reason = "shared with tests that need more of it")]
#[path = "support/world.rs"]
mod world;
