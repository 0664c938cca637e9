//! The life of a request: what comes from a client, what becomes of it, what goes back.

pub mod passthrough;
pub mod reply;
pub mod tunnel;
