//! Finds the header that splits one credential into many scopes (F8): some clients put a value that changes with every
//! call into a header we do not know, and then nothing is ever continued.
//!
//! Only watches and names; what counts as identity is `downstream::headers`'s to say. Keeps digests, no values.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use hyper::header::{HeaderName, HeaderValue};
use lru::LruCache;

use crate::config::identity::{is_credential, is_essential};
use crate::proto::digest::{Digest, Key};

/// Credentials watched; the one seen longest ago is forgotten first.
const CREDENTIALS: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// More scopes than this behind one credential, differing in one header, are taken for a mistake.
const SCOPES: usize = 8;

/// Headers watched for one credential; further ones are not, nor any with a longer name.
const HEADERS: usize = 64;
const NAME_BYTES: usize = 128;

/// See the module.
#[derive(Debug)]
pub(super) struct Census(Mutex<LruCache<Digest, Seen>>);

#[derive(Debug, Default)]
struct Seen {
    scopes: BTreeSet<Digest>,
    values: HashMap<HeaderName, BTreeSet<Digest>>,
    culprit: Option<HeaderName>,
}

impl Census {
    /// Nobody seen yet.
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(CREDENTIALS)))
    }

    /// Notes one request's identity, and names the header that splits its credential, if one does.
    pub(super) fn note(
        &self,
        key: &Key,
        scope: &Digest,
        guest: Option<&Digest>,
        identity: &[(HeaderName, HeaderValue)],
    ) -> Option<HeaderName> {
        let credential = credential(key, guest, identity);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.get_or_insert_mut(credential, Seen::default);
        if seen.culprit.is_some() || seen.scopes.contains(scope) {
            return seen.culprit.clone();
        }
        seen.scopes.insert(*scope);
        // One that every provider reads as who is asking is never the client's mistake.
        let watched = |name: &HeaderName| !is_essential(name.as_str()) && name.as_str().len() <= NAME_BYTES;
        for (name, value) in identity.iter().filter(|(name, _)| watched(name)) {
            if seen.values.len() < HEADERS || seen.values.contains_key(name) {
                let mut hasher = key.hasher("header");
                hasher.field(value.as_bytes());
                let values = seen.values.entry(name.clone()).or_default();
                values.insert(hasher.finish());
            }
        }
        if seen.scopes.len() > SCOPES {
            let mut varying = seen.values.iter().filter(|(_, values)| values.len() > 1);
            if let (Some((name, _)), None) = (varying.next(), varying.next()) {
                tracing::warn!(header = %name, "one credential, many scopes: they differ in this header; if it changes with every call, add it to per_turn_headers");
                seen.culprit = Some(name.clone());
            }
            // Enough to judge by; what comes next is judged anew.
            seen.scopes.clear();
            seen.values.clear();
        }
        seen.culprit.clone()
    }
}

fn credential(key: &Key, guest: Option<&Digest>, identity: &[(HeaderName, HeaderValue)]) -> Digest {
    let mut hasher = key.hasher("credential");
    if let Some(guest) = guest {
        hasher.field(guest.as_bytes());
    }
    for (_, value) in identity.iter().filter(|(name, _)| is_credential(name.as_str())) {
        hasher.field(value.as_bytes());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use hyper::header::AUTHORIZATION;

    use super::*;

    fn note(census: &Census, headers: &[(&'static str, String)]) -> Option<String> {
        let key = Key::new([1; 32]);
        let identity: Vec<_> = headers
            .iter()
            .map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::try_from(value).expect("a value"))
            })
            .collect();
        let mut hasher = key.hasher("account");
        for (name, value) in &identity {
            hasher.field(name.as_str().as_bytes()).field(value.as_bytes());
        }
        census.note(&key, &hasher.finish(), None, &identity).map(|name| name.to_string())
    }

    #[test]
    fn f08_the_one_header_that_varies_is_named_and_only_past_the_limit() {
        let census = Census::new();
        for n in 0..=SCOPES {
            let named = note(
                &census,
                &[("authorization", "k".into()), ("x-turn", n.to_string()), ("x-app", "a".into())],
            );
            assert_eq!(named.as_deref(), (n == SCOPES).then_some("x-turn"), "{n}");
        }
        let other = note(&census, &[("authorization", "other".into()), ("x-turn", "1".into())]);
        assert_eq!(other, None, "another credential is judged for itself");
    }

    #[test]
    fn what_is_watched_is_bounded_and_the_credential_seen_longest_ago_goes_first() {
        let (census, key) = (Census::new(), Key::new([1; 32]));
        let identity = |credential: usize, headers: usize, turn: usize| -> Vec<(HeaderName, HeaderValue)> {
            let long = format!("x-{}", "a".repeat(NAME_BYTES));
            let mut identity = vec![(AUTHORIZATION, HeaderValue::from(credential))];
            identity.push((long.parse().expect("a name"), HeaderValue::from(turn)));
            identity.extend(
                (0..headers).map(|n| (format!("x-{n}").parse().expect("a name"), HeaderValue::from(7))),
            );
            identity
        };
        let scope = |turn: usize| {
            let mut hasher = key.hasher("scope");
            hasher.field(&turn.to_le_bytes());
            hasher.finish()
        };
        let seen = |credential: usize| {
            let digest = super::credential(&key, None, &identity(credential, 0, 0));
            let seen = census.0.lock().expect("it is whole");
            seen.peek(&digest).map(|seen| (seen.scopes.len(), seen.values.len()))
        };
        for turn in 0..=SCOPES {
            let named = census.note(&key, &scope(turn), None, &identity(0, 2 * HEADERS, turn));
            assert_eq!(named, None, "a name too long to be kept is not told either");
            assert!(seen(0).is_some_and(|(scopes, values)| scopes <= SCOPES && values <= HEADERS));
        }
        for credential in 1..=CREDENTIALS.get() {
            census.note(&key, &scope(0), None, &identity(credential, 1, 0));
        }
        assert_eq!((seen(0), seen(1)), (None, Some((1, 1))));
        assert_eq!(census.0.lock().expect("it is whole").len(), CREDENTIALS.get());
    }

    #[test]
    fn what_says_who_is_asking_is_never_named() {
        for name in ["x-api-key", "api-key", "openai-organization", "chatgpt-account-id", "cookie"] {
            let census = Census::new();
            for n in 0..=4 * SCOPES {
                assert_eq!(note(&census, &[(name, n.to_string()), ("x-app", "a".into())]), None, "{name}");
            }
        }
    }

    #[test]
    fn two_varying_headers_prove_nothing() {
        let census = Census::new();
        for n in 0..40 {
            let headers = [
                ("authorization", "k".into()),
                ("x-user", (n % 5).to_string()),
                ("x-session", n.to_string()),
            ];
            assert_eq!(note(&census, &headers), None);
        }
    }
}
