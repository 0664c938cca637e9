//! The simulated provider: HTTP and the Responses WebSocket on one port, strict to the published protocol.
//!
//! It serves the tests, `tailwire demo` and `tailwire sim`. It is the oracle of this project: it digests the
//! context a model would really see, and shares no line with the proxy that could hide a common mistake.

mod account;
mod answer;
mod canon;
mod chat;
mod compaction;
mod context;
mod cut;
mod files;
mod http;
pub mod ledger;
mod refusal;
mod reply;
mod request;
pub mod rules;
pub mod script;
mod server;
mod socket;
mod stored;
mod stream;
mod upgrade;

pub use ledger::Ledger;
pub use request::Transport;
pub use script::{Fault, Mishap, Moment, Script};
pub use server::{Provider, Running, serve};
