//! tailwire: full-history REST in, the tail over one WebSocket, plain REST out.
//!
//! Floors, from the ground up; a module imports its own room and the floors below, never upward:
//! `proto` (pure: no I/O, no clock, no async) · `config`, `telemetry` · `downstream`, `upstream`, `sim`
//! (all sockets) · `proxy` (the life of a request) · `admin` (what is shown of it) · `args` · `app`, `check`, `demo`, `explain`, `run`,
//! `top`, `cli` (the door).

pub mod admin;
pub mod app;
pub mod args;
pub mod check;
pub mod cli;
pub mod config;
pub mod demo;
pub mod downstream;
pub mod explain;
pub mod proto;
pub mod proxy;
pub mod run;
pub mod sim;
pub mod telemetry;
pub mod top;
pub mod upstream;
