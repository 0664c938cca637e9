//! Chat Completions on their way to a turn: which models and conversations are spoken to over their own Chat API, and the
//! translation.
//!
//! What can be translated is `proto::dialect::chat`'s to say.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lru::LruCache;

use crate::proto::dialect::Dialect;
use crate::proto::dialect::chat::request::Chat;
use crate::proto::digest::{Digest, Key};
use crate::proto::transcript::plan::Reason;
use crate::proxy::Proxy;

/// Models that the provider was heard not to serve on the Responses API; past it the one unused for longest is forgotten,
/// which costs one refusal.
const MAX_MODELS: usize = 256;
/// A longer name is not remembered: it costs a refusal each time.
const MAX_NAME: usize = 256;

/// Conversations remembered whose translation was refused; past it the one unused for longest is forgotten, which costs one
/// more refusal.
const MAX_REFUSED: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// They are translated again after this.
const REFUSED_AGE: Duration = Duration::from_secs(60 * 60);

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

/// Conversations that the provider took over its Chat API only.
#[derive(Debug)]
pub(super) struct Refused(Mutex<LruCache<Digest, Instant>>);

impl Refused {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(MAX_REFUSED)))
    }

    /// The translation was refused just now, and what the client itself had sent was not.
    pub(super) fn note(&self, conversation: Digest, now: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(conversation, now);
    }

    fn contain(&self, conversation: &Digest, now: Instant) -> bool {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = refused
            .get(conversation)
            .is_some_and(|noted| now.saturating_duration_since(*noted) < REFUSED_AGE);
        if !fresh {
            refused.pop(conversation);
        }
        fresh
    }
}

/// What a chat request means as a turn.
#[derive(Debug)]
pub(super) struct Translation {
    /// The body of a Responses request.
    pub(super) body: Bytes,
    pub(super) dialect: Dialect,
    /// Whose turn it is: by its account, its model and how it begins.
    pub(super) conversation: Digest,
}

/// The Responses request that a chat request means, or why its own API is to answer.
pub(super) fn translate(proxy: &Proxy, account: &Digest, body: &Bytes) -> Result<Translation, Reason> {
    let chat = Chat::read(std::str::from_utf8(body).map_err(|_| Reason::NotUnderstood)?)?;
    if proxy.chat_models.contain(chat.model()) {
        return Err(Reason::ChatOnly);
    }
    let conversation = conversation(&proxy.key, account, &chat);
    if proxy.refused.contain(&conversation, Instant::now()) {
        return Err(Reason::Refused);
    }
    let translated = chat.translate()?;
    let dialect = Dialect::Chat { framing: translated.framing, model: translated.model };
    Ok(Translation { body: translated.body.into(), dialect, conversation })
}

fn conversation(key: &Key, account: &Digest, chat: &Chat<'_>) -> Digest {
    let mut hasher = key.hasher("chat-conversation");
    hasher.field(account.as_bytes()).field(chat.model().as_bytes());
    for message in chat.opening() {
        hasher.field(message.as_bytes());
    }
    hasher.finish()
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

    #[test]
    fn refused_conversations_are_few_and_forgotten() {
        let (refused, key, now) = (Refused::new(), Key::new([1; 32]), Instant::now());
        let account = key.hasher("account").finish();
        let begun = |first: &str, last: &str| {
            let body = format!(
                r#"{{"model":"m","messages":[{{"role":"system","content":"s"}},{{"role":"user","content":"{first}"}},{{"role":"user","content":"{last}"}}]}}"#
            );
            conversation(&key, &account, &Chat::read(&body).expect("a chat request"))
        };
        refused.note(begun("a", "b"), now);
        assert!(refused.contain(&begun("a", "c"), now) && !refused.contain(&begun("b", "b"), now));
        let late = now + REFUSED_AGE;
        assert!(refused.contain(&begun("a", "b"), late - Duration::from_millis(1)));
        assert!(!refused.contain(&begun("a", "b"), late), "tried again");
        refused.note(begun("a", "b"), now);
        for n in 0..MAX_REFUSED.get() {
            refused.note(begun(&n.to_string(), ""), now);
        }
        assert!(!refused.contain(&begun("a", "b"), now), "forgotten");
    }
}
