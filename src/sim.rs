//! The simulated provider: HTTP and the Responses WebSocket on one port, strict to the published protocol.
//!
//! It serves the tests, `tailwire demo` and `tailwire sim`. It is the oracle of this project: it digests the
//! context a model would really see, and shares no line with the proxy that could hide a common mistake.

mod account;
mod canon;
mod context;
mod refusal;
mod reply;
mod request;
pub mod rules;
pub mod script;
mod stream;
