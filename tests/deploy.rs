//! What an owner runs tailwire with: the service manager's protocol against the real binary, and the files under `deploy`
//! as far as they can be read without the tools that judge them (`tests/deploy/run.sh` brings those).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "deploy/files.rs"]
mod files;
#[allow(dead_code, reason = "shared with tests that need more of it")]
#[path = "support/http.rs"]
mod http;
#[cfg(target_os = "linux")]
#[path = "deploy/supervisor.rs"]
mod supervisor;
#[cfg(target_os = "linux")]
#[path = "deploy/systemd.rs"]
mod systemd;
