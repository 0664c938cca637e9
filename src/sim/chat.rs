//! The provider's own Chat Completions endpoint: what a chat request means to the model, and its answer in Chat's form.
//!
//! Reads and writes in its own way: the proxy's translation is judged by it. The model's hidden reasoning is lost between
//! requests, as it is there.

mod read;
mod write;

pub(super) use read::{Asked, read};
pub(super) use write::{Chunks, whole};
