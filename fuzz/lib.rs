//! The heart alone under the name of the whole, so that the checks are the same here and in `tests/fuzz.rs`, and fuzzing needs
//! neither sockets nor TLS to be built.

#[path = "../src"]
mod source {
    pub mod proto;
}

pub use source::proto;
