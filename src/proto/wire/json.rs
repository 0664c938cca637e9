//! JSON as spans of the original text, and a canonical form for digests.
//!
//! Parsing is serde_json's; nothing here builds a tree or re-serialises. The canonical form is blind to key order,
//! white space and escapes, and to nothing else unless asked.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserializer as _;
use serde::de::{self, Deserialize, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Nesting beyond this is not digested (serde_json's own limit for typed values is the same).
pub const MAX_DEPTH: usize = 128;

/// Why a text was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonError {
    /// Not JSON, or not an object (array) where one was asked for, or one of more than [`MAX_PARTS`].
    Syntax,
    /// Some object names a key twice: which one counts is the reader's taste, so we do not guess.
    DuplicateKey,
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// JSON by its grammar, but half a surrogate pair, or a number no double holds: readers differ over it.
    Unreadable,
}

/// Most members of an object, or elements of an array, that are told apart; one with more is not taken.
pub const MAX_PARTS: usize = 1 << 16;

/// One member of an object, by position in the text it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The key, unescaped.
    pub key: Box<str>,
    /// Where its value stands.
    pub value: Range<usize>,
}

/// The members of a whole text that is one object, in order. The text is checked to its end.
pub fn members(text: &str) -> Result<Vec<Member>, JsonError> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let raw = reader.deserialize_map(Members).map_err(|_| JsonError::Syntax)?;
    reader.end().map_err(|_| JsonError::Syntax)?;
    let members = raw.into_iter().map(|(key, value)| Member { key: key.into(), value: span(text, value) });
    Ok(members.collect())
}

/// The elements of a whole text that is one array, as spans of it.
pub fn elements(text: &str) -> Result<Vec<Range<usize>>, JsonError> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let raw = reader.deserialize_seq(Elements).map_err(|_| JsonError::Syntax)?;
    reader.end().map_err(|_| JsonError::Syntax)?;
    Ok(raw.into_iter().map(|value| span(text, value)).collect())
}

/// The value at the start of `text` (white space before it allowed): its span. What follows is not looked at.
pub fn first_value(text: &str) -> Result<Range<usize>, JsonError> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    match values.next() {
        Some(Ok(value)) => Ok(span(text, value.get())),
        _ => Err(JsonError::Syntax),
    }
}

/// The member `key` of a list, the last one if it stands there twice.
pub fn find<'a>(members: &'a [Member], key: &str) -> Option<&'a Member> {
    members.iter().rfind(|member| &*member.key == key)
}

/// True if some key stands there twice.
pub fn has_duplicate(members: &[Member]) -> bool {
    let mut keys: Vec<&str> = members.iter().map(|member| &*member.key).collect();
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair[0] == pair[1])
}

/// A JSON string's value, if `text` is one and has no lone surrogate.
pub fn string(text: &str) -> Option<Cow<'_, str>> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(text).ok().map(Cow::Owned)
}

fn span(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - text.as_ptr() as usize;
    start..start + part.len()
}

/// How numbers count in the canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// By their letters: `1`, `1.0` and `1e0` are three.
    Exact,
    /// By their value as a double, as JavaScript clients re-serialise them (`clients.md` A.4 rule 4).
    Double,
}

/// Appends the canonical form of the JSON value `text` (already known to be JSON) to `out`.
///
/// With `drop_null`, null members of the outermost object are absent ones.
pub fn canonical(text: &str, numbers: Numbers, drop_null: bool, out: &mut Vec<u8>) -> Result<(), JsonError> {
    let mut writer = Canonical { text: text.as_bytes(), at: 0, numbers, out };
    writer.space();
    writer.value(0, drop_null)?;
    writer.space();
    if writer.at == text.len() { Ok(()) } else { Err(JsonError::Syntax) }
}

/// Appends a tag and a length-prefixed run of bytes.
pub fn tagged(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

struct Canonical<'a> {
    text: &'a [u8],
    at: usize,
    numbers: Numbers,
    out: &'a mut Vec<u8>,
}

impl Canonical<'_> {
    fn value(&mut self, depth: usize, drop_null: bool) -> Result<(), JsonError> {
        if depth > MAX_DEPTH {
            return Err(JsonError::TooDeep);
        }
        match self.peek()? {
            b'{' => self.object(depth, drop_null),
            b'[' => self.array(depth),
            b'"' => self.string(),
            b't' => self.word(b"true", b't'),
            b'f' => self.word(b"false", b'f'),
            b'n' => self.word(b"null", b'z'),
            _ => self.number(),
        }
    }

    /// Members are written as they come and put in order afterwards: one pass over the text whatever the depth.
    fn object(&mut self, depth: usize, drop_null: bool) -> Result<(), JsonError> {
        self.at += 1;
        self.out.push(b'{');
        let count_at = self.out.len();
        self.out.extend_from_slice(&[0; 8]);
        let mut written: Vec<(Range<usize>, Range<usize>)> = Vec::new();
        self.space();
        while self.peek()? != b'}' {
            let member = self.out.len();
            self.string()?;
            let key = member..self.out.len();
            self.space();
            self.expect(b':')?;
            self.space();
            let null = self.peek()? == b'n';
            self.value(depth + 1, false)?;
            if null && drop_null {
                self.out.truncate(member);
            } else {
                written.push((key, member..self.out.len()));
            }
            self.space();
            if self.peek()? == b',' {
                self.at += 1;
                self.space();
            }
        }
        self.at += 1;
        self.out[count_at..count_at + 8].copy_from_slice(&(written.len() as u64).to_le_bytes());
        if written.windows(2).all(|w| self.out[w[0].0.clone()] < self.out[w[1].0.clone()]) {
            return Ok(());
        }
        self.sort(count_at + 8, written)
    }

    fn sort(
        &mut self,
        start: usize,
        mut written: Vec<(Range<usize>, Range<usize>)>,
    ) -> Result<(), JsonError> {
        written.sort_by(|a, b| self.out[a.0.clone()].cmp(&self.out[b.0.clone()]));
        if written.windows(2).any(|w| self.out[w[0].0.clone()] == self.out[w[1].0.clone()]) {
            return Err(JsonError::DuplicateKey);
        }
        let mut sorted = Vec::with_capacity(self.out.len() - start);
        for (_, member) in &written {
            sorted.extend_from_slice(&self.out[member.clone()]);
        }
        self.out.truncate(start);
        self.out.extend_from_slice(&sorted);
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), JsonError> {
        self.at += 1;
        self.out.push(b'[');
        let count_at = self.out.len();
        self.out.extend_from_slice(&[0; 8]);
        let mut count = 0u64;
        self.space();
        while self.peek()? != b']' {
            self.value(depth + 1, false)?;
            count += 1;
            self.space();
            if self.peek()? == b',' {
                self.at += 1;
                self.space();
            }
        }
        self.at += 1;
        self.out[count_at..count_at + 8].copy_from_slice(&count.to_le_bytes());
        Ok(())
    }

    /// A string's code points.
    fn string(&mut self) -> Result<(), JsonError> {
        self.expect(b'"')?;
        self.out.push(b's');
        let length_at = self.out.len();
        self.out.extend_from_slice(&[0; 8]);
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.iter().position(|b| matches!(b, b'"' | b'\\')).ok_or(JsonError::Syntax)?;
            self.out.extend_from_slice(&rest[..plain]);
            self.at += plain + 1;
            if rest[plain] == b'"' {
                break;
            }
            self.escape()?;
        }
        let length = (self.out.len() - length_at - 8) as u64;
        self.out[length_at..length_at + 8].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let letter = self.peek()?;
        self.at += 1;
        let plain = match letter {
            b'"' | b'\\' | b'/' => letter,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => return self.unicode(),
            _ => return Err(JsonError::Syntax),
        };
        self.out.push(plain);
        Ok(())
    }

    fn unicode(&mut self) -> Result<(), JsonError> {
        let first = self.hex(self.at)?;
        self.at += 4;
        let mut code = first;
        if (0xD800..0xDC00).contains(&first) && self.text[self.at..].starts_with(b"\\u") {
            let second = self.hex(self.at + 2)?;
            if (0xDC00..0xE000).contains(&second) {
                self.at += 6;
                code = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
            }
        }
        let c = char::from_u32(code).ok_or(JsonError::Unreadable)?;
        self.out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn hex(&self, at: usize) -> Result<u32, JsonError> {
        let digits = self.text.get(at..at + 4).ok_or(JsonError::Syntax)?;
        let digits = std::str::from_utf8(digits).map_err(|_| JsonError::Syntax)?;
        u32::from_str_radix(digits, 16).map_err(|_| JsonError::Syntax)
    }

    fn number(&mut self) -> Result<(), JsonError> {
        let rest = &self.text[self.at..];
        let end = rest
            .iter()
            .position(|b| !matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
            .unwrap_or(rest.len());
        let letters = std::str::from_utf8(&rest[..end]).map_err(|_| JsonError::Syntax)?;
        self.at += end;
        let value: f64 = letters.parse().map_err(|_| JsonError::Syntax)?;
        match self.numbers {
            _ if !value.is_finite() => return Err(JsonError::Unreadable),
            Numbers::Exact => tagged(b'n', letters.as_bytes(), self.out),
            Numbers::Double => {
                // −0 and 0 are one value to every client that parses and prints.
                let value = if value == 0.0 { 0.0 } else { value };
                tagged(b'd', &value.to_bits().to_le_bytes(), self.out);
            }
        }
        Ok(())
    }

    fn word(&mut self, word: &[u8], tag: u8) -> Result<(), JsonError> {
        if !self.text[self.at..].starts_with(word) {
            return Err(JsonError::Syntax);
        }
        self.at += word.len();
        self.out.push(tag);
        Ok(())
    }

    fn peek(&self) -> Result<u8, JsonError> {
        self.text.get(self.at).copied().ok_or(JsonError::Syntax)
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.peek()? != byte {
            return Err(JsonError::Syntax);
        }
        self.at += 1;
        Ok(())
    }

    fn space(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
}

struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(value)))
            }
            fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(value.to_owned())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(Cow<'de, str>, &'de str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::with_capacity(16);
        while let Some(key) = map.next_key::<Name<'de>>()? {
            room(members.len())?;
            members.push((key.0, map.next_value::<&RawValue>()?.get()));
        }
        Ok(members)
    }
}

/// A span weighs more than the shortest element: without a bound 60 MB of `{},` would become gigabytes.
fn room<E: de::Error>(parts: usize) -> Result<(), E> {
    if parts < MAX_PARTS { Ok(()) } else { Err(E::custom("too many parts")) }
}

struct Elements;

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::with_capacity(16);
        while let Some(element) = seq.next_element::<&RawValue>()? {
            room(elements.len())?;
            elements.push(element.get());
        }
        Ok(elements)
    }
}

#[cfg(test)]
mod tests;
