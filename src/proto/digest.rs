//! The one place that hashes for identity: SHA-256, keyed with a per-process random key, every field length-prefixed.
//!
//! A collision here would send one conversation's tail after another's history, and the bytes may be chosen by an
//! attacker (a tool's output), so nothing weaker will do. Does not know what it digests.

use sha2::{Digest as _, Sha256};

/// 32 bytes that stand for content. Never printed in full: a digest is an identity, not a label.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The raw bytes, to feed into another digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x}{:02x}{:02x}{:02x}…", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

/// The per-process random key: two processes never agree on a digest, so none is of use outside.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// Wraps 32 random bytes (the caller's source of randomness, not ours).
    pub const fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// Starts a digest in a domain of its own: equal fields in different domains differ.
    pub fn hasher(&self, domain: &'static str) -> Hasher {
        let mut hash = Sha256::new();
        hash.update(self.0);
        let mut hasher = Hasher(hash);
        hasher.field(domain.as_bytes());
        hasher
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// A digest in the making.
#[derive(Clone)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Adds one field with its length before it, so that fields cannot run into each other.
    pub fn field(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds bytes without a length: for one long run whose parts arrive one by one. The caller fixes where it ends.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    /// The digest of what was added.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(key: u8, domain: &'static str, fields: &[&str]) -> Digest {
        let mut hasher = Key::new([key; 32]).hasher(domain);
        for field in fields {
            hasher.field(field.as_bytes());
        }
        hasher.finish()
    }

    #[test]
    fn fields_do_not_run_together_and_domains_and_keys_count() {
        assert_eq!(digest(1, "a", &["x", "y"]), digest(1, "a", &["x", "y"]));
        assert_ne!(digest(1, "a", &["xy", ""]), digest(1, "a", &["x", "y"]));
        assert_ne!(digest(1, "a", &["x"]), digest(1, "b", &["x"]));
        assert_ne!(digest(1, "a", &["x"]), digest(2, "a", &["x"]));
    }
}
