//! The canonical form against a naive one: a tree, sorted, compared. Two texts have one canonical form exactly if their
//! trees are equal.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use tailwire::proto::wire::json::{JsonError, Numbers, canonical};

/// Two texts, apart by the first line break.
pub fn check(data: &[u8]) {
    let mut texts = data.splitn(2, |byte| *byte == b'\n');
    let (Some(one), Some(other)) = (texts.next(), texts.next()) else { return };
    for (numbers, drop_null) in [(Numbers::Exact, false), (Numbers::Double, false), (Numbers::Exact, true)] {
        let (Some(one), Some(other)) = (form(one, numbers, drop_null), form(other, numbers, drop_null)) else { return };
        assert_eq!(one.1 == other.1, one.0 == other.0, "{:?} {:?}", one.0, other.0);
    }
}

/// The tree and the canonical form of a text, if it is JSON that has both.
fn form(text: &[u8], numbers: Numbers, drop_null: bool) -> Option<(Tree, Vec<u8>)> {
    let text = std::str::from_utf8(text).ok()?;
    // The canonical form is asked for what is known to be JSON.
    serde_json::from_str::<&RawValue>(text).ok()?;
    let tree = Tree::read(text, numbers, drop_null, 0);
    let mut out = Vec::new();
    match (tree, canonical(text, numbers, drop_null, &mut out)) {
        (Ok(tree), Ok(())) => Some((tree, out)),
        (Err(expected), Err(error)) => {
            // Of several things wrong either reader may name the first it meets.
            let _ = (expected, error);
            None
        }
        (tree, form) => panic!("the tree says {tree:?}, the canonical form {form:?}"),
    }
}

#[derive(Debug, PartialEq)]
enum Tree {
    Word(String),
    Number(String),
    Text(String),
    List(Vec<Tree>),
    Object(BTreeMap<String, Tree>),
}

impl Tree {
    fn read(text: &str, numbers: Numbers, drop_null: bool, depth: usize) -> Result<Self, JsonError> {
        // Nesting is bounded on both sides; how the two count at the border is not what is compared.
        if depth > 100 {
            return Err(JsonError::TooDeep);
        }
        let text = text.trim_matches([' ', '\t', '\n', '\r']);
        let below = |value: &RawValue| Self::read(value.get(), numbers, false, depth + 1);
        match text.as_bytes()[0] {
            b'{' => {
                let members = serde_json::Deserializer::from_str(text).deserialize_map(Members);
                // Keys with half a surrogate pair cannot be read at all.
                let members = members.map_err(|_| JsonError::Unreadable)?;
                let mut object = BTreeMap::new();
                let count = members.len();
                let mut dropped = 0;
                for (key, value) in members {
                    if drop_null && value.get() == "null" {
                        dropped += 1;
                        continue;
                    }
                    object.insert(key, below(value)?);
                }
                if object.len() + dropped < count { Err(JsonError::DuplicateKey) } else { Ok(Self::Object(object)) }
            }
            b'[' => {
                let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| JsonError::Syntax)?;
                elements.into_iter().map(below).collect::<Result<_, _>>().map(Self::List)
            }
            b'"' => serde_json::from_str(text).map(Self::Text).map_err(|_| JsonError::Unreadable),
            b't' | b'f' | b'n' => Ok(Self::Word(text.to_owned())),
            _ => {
                let value: f64 = text.parse().map_err(|_| JsonError::Syntax)?;
                match numbers {
                    _ if !value.is_finite() => Err(JsonError::Unreadable),
                    Numbers::Exact => Ok(Self::Number(text.to_owned())),
                    // Minus zero is zero to whoever parses and prints.
                    Numbers::Double => Ok(Self::Number(format!("{:x}", (value + 0.0).to_bits()))),
                }
            }
        }
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}
