//! Chat Completions on their way to a turn: which models are spoken to over their own Chat API, and the translation.
//!
//! What can be translated is `proto::dialect::chat`'s to say.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use lru::LruCache;

use crate::proto::dialect::Dialect;
use crate::proto::dialect::chat::request;
use crate::proto::transcript::plan::Reason;
use crate::proxy::Proxy;

/// Models that the provider was heard not to serve on the Responses API; past it the one unused for longest is forgotten,
/// which costs one refusal.
const MAX_MODELS: usize = 256;
/// A longer name is not remembered: it costs a refusal each time.
const MAX_NAME: usize = 256;

/// Models that speak Chat only.
#[derive(Debug)]
pub(super) struct ChatModels {
    /// By the settings: names, or beginnings of names with a `*` after them.
    patterns: Vec<String>,
    heard: Mutex<LruCache<String, ()>>,
}

impl ChatModels {
    /// Those of the settings.
    pub(super) fn new(patterns: Vec<String>) -> Self {
        let most = NonZeroUsize::new(MAX_MODELS).unwrap_or(NonZeroUsize::MIN);
        Self { patterns, heard: Mutex::new(LruCache::new(most)) }
    }

    /// The provider said that it does not serve this one on the Responses API.
    pub(super) fn note(&self, model: &str) {
        if model.len() <= MAX_NAME {
            self.heard.lock().unwrap_or_else(PoisonError::into_inner).put(model.to_owned(), ());
        }
    }

    fn contain(&self, model: &str) -> bool {
        let matches = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => model.starts_with(beginning),
            None => model == pattern,
        };
        self.patterns.iter().any(matches)
            || self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(model).is_some()
    }
}

/// The Responses request that a chat request means, or why its own API is to answer.
pub(super) fn translate(proxy: &Proxy, body: &Bytes) -> Result<(Bytes, Dialect), Reason> {
    let text = std::str::from_utf8(body).map_err(|_| Reason::NotUnderstood)?;
    let translated = request::translate(text)?;
    if proxy.chat_models.contain(&translated.model) {
        return Err(Reason::ChatOnly);
    }
    let dialect = Dialect::Chat { framing: translated.framing, model: translated.model };
    Ok((translated.body.into(), dialect))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_name_by_beginning_and_by_hearsay() {
        let models = ChatModels::new(vec!["gpt-3.5*".to_owned(), "ours".to_owned()]);
        for (model, chat) in [("gpt-3.5-turbo", true), ("gpt-3", false), ("ours", true), ("ours-2", false)] {
            assert_eq!(models.contain(model), chat, "{model}");
        }
        models.note("gpt-3");
        models.note(&"x".repeat(MAX_NAME + 1));
        assert!(models.contain("gpt-3") && !models.contain(&"x".repeat(MAX_NAME + 1)));
        for n in 0..MAX_MODELS {
            models.note(&format!("model-{n}"));
        }
        assert!(!models.contain("gpt-3"), "forgotten");
    }
}
