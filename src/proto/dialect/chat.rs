//! Chat Completions, spoken to clients while Responses is spoken upstream (protocol §5, 2026-11): the request that a chat
//! request means, and the chat reply that a response's events mean.
//!
//! Only what loses nothing is translated; for the rest the reason is named, and the turn goes to the provider's own
//! `/chat/completions` as it came (decisions 5.4). Reasoning never comes down: Chat has no place for it. It stays upstream, and
//! the model keeps it between calls.

pub mod collect;
mod message;
mod part;
pub mod reply;
pub mod request;
pub mod stream;
mod tool;
