//! The byte fast path: a body whose first bytes are an earlier body's, up to the end of its last item, is read on from
//! there. 931 of 937 captured follow-ups are such (`clients.md` 2.1).
//!
//! Equal bytes leave a parser in an equal state, so nothing before that point needs reading; what follows is read with
//! suspicion, and anything odd sends the body the long way.

use std::ops::Range;
use std::sync::Arc;

use crate::proto::digest::{Digest, Hasher, Key};
use crate::proto::wire::item::ReasoningKey;
use crate::proto::wire::json::{self, Member};

/// One link of the visible chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Items up to and including the visible one this step stands for.
    pub items: usize,
    /// Visible ones among them.
    pub visible: u32,
    /// The chain's digest there.
    pub digest: Digest,
}

/// The bytes of a body up to the end of its last item, as a later body may repeat them.
#[derive(Debug, Clone)]
pub struct Prefix {
    /// Its length in bytes.
    pub len: usize,
    /// Digest of those bytes.
    pub digest: Digest,
    /// Digest of the last few of them: most bodies that do not match are told apart without hashing all.
    pub(super) tag: u32,
    pub(super) scope: Digest,
    pub(super) step: Step,
    pub(super) items: usize,
    pub(super) input_start: usize,
    /// Members before the array.
    pub(super) members: Arc<[Member]>,
    pub(super) reasoning: Arc<[(u32, ReasoningKey)]>,
}

impl Prefix {
    /// Bytes it weighs in a cache.
    pub fn weight(&self) -> usize {
        let members: usize = self.members.iter().map(|member| 64 + member.key.len()).sum();
        size_of::<Self>() + members + self.reasoning.len() * size_of::<(u32, ReasoningKey)>()
    }
}

/// Bytes of a prefix that its tag covers.
const TAG_BYTES: usize = 32;

/// What follows a known prefix: more items, the array's end, more members, the object's end.
pub(super) struct Tail {
    pub(super) items: Vec<Range<usize>>,
    pub(super) input_end: usize,
    pub(super) members: Vec<Member>,
}

impl Tail {
    pub(super) fn read(text: &str, at: usize) -> Option<Self> {
        let mut cursor = Cursor { text, at };
        let mut items = Vec::new();
        while cursor.take(',') {
            (items.len() < json::MAX_PARTS).then_some(())?;
            items.push(cursor.value()?);
        }
        cursor.take(']').then_some(())?;
        let input_end = cursor.at;
        let mut members = Vec::new();
        while cursor.take(',') {
            (members.len() < json::MAX_PARTS).then_some(())?;
            let name = cursor.value()?;
            let key = json::string(&text[name])?.into_owned().into_boxed_str();
            cursor.take(':').then_some(())?;
            members.push(Member { key, value: cursor.value()? });
        }
        cursor.take('}').then_some(())?;
        text[cursor.at..].trim_matches([' ', '\t', '\n', '\r']).is_empty().then_some(())?;
        Some(Self { items, input_end, members })
    }
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl Cursor<'_> {
    fn take(&mut self, wanted: char) -> bool {
        let rest = self.text[self.at..].trim_start_matches([' ', '\t', '\n', '\r']);
        let found = rest.starts_with(wanted);
        if found {
            self.at = self.text.len() - rest.len() + 1;
        }
        found
    }

    fn value(&mut self) -> Option<Range<usize>> {
        let span = json::first_value(&self.text[self.at..]).ok()?;
        let span = self.at + span.start..self.at + span.end;
        self.at = span.end;
        Some(span)
    }
}

/// The longest known prefix this body starts with, and the hash of it to go on from.
pub(super) fn find_prefix<'a>(key: &Key, body: &[u8], known: &'a [Prefix]) -> Option<(&'a Prefix, Hasher)> {
    let mut tried: Vec<&Prefix> = known
        .iter()
        .filter(|prefix| prefix.len < body.len() && tag(key, &body[..prefix.len]) == prefix.tag)
        .collect();
    tried.sort_by_key(|prefix| prefix.len);
    let (mut hasher, mut hashed) = (key.hasher("prefix"), 0);
    let mut found = None;
    for prefix in tried {
        hasher.raw(&body[hashed..prefix.len]);
        hashed = prefix.len;
        if hasher.clone().finish() == prefix.digest {
            found = Some((prefix, hasher.clone()));
        }
    }
    found
}

pub(super) fn tag(key: &Key, prefix: &[u8]) -> u32 {
    let mut hasher = key.hasher("tag");
    hasher.raw(&prefix[prefix.len().saturating_sub(TAG_BYTES)..]);
    let digest = hasher.finish();
    let [a, b, c, d, ..] = *digest.as_bytes();
    u32::from_le_bytes([a, b, c, d])
}
