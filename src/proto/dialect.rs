//! The REST dialects clients speak: how the provider's events become their stream or their JSON body.

pub mod chat;
pub mod responses;
pub mod setup;
