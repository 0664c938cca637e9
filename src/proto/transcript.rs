//! What a request says, and which earlier response it continues.
//!
//! A *head* is a completed response and the input it answered; a request that repeats that input, then what the
//! response said, then something new, continues it. Everything here is digests and ids: no content is kept. Does not
//! know whether a head is still alive upstream; `session` does.

pub mod echo;
pub mod fields;
pub mod frame;
pub mod index;
pub mod plan;
pub mod prefix;
pub mod request;
