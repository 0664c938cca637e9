//! The canonical form against a naive one, a tree: two texts have one canonical form exactly if their trees are equal, and
//! a tree written in another spelling keeps its form.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use tailwire::proto::wire::json::{JsonError, MAX_DEPTH, Numbers, canonical};

/// Two texts, apart by the first blank line.
pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (one, other) = text.split_once("\n\n").unwrap_or((text, "{}"));
    for (numbers, drop_null) in [(Numbers::Exact, false), (Numbers::Double, false), (Numbers::Exact, true)] {
        let (one, other) = (form(one, numbers, drop_null), form(other, numbers, drop_null));
        for (tree, canonical) in [&one, &other].into_iter().flatten() {
            let mut again = String::new();
            tree.spell(drop_null, &mut again);
            assert_eq!(
                form(&again, numbers, drop_null).as_ref(),
                Some(&(tree.clone(), canonical.clone())),
                "{again}"
            );
        }
        if let (Some(one), Some(other)) = (one, other) {
            assert_eq!(one.1 == other.1, one.0 == other.0, "{:?} {:?}", one.0, other.0);
        }
    }
}

/// The tree and the canonical form of a text, if it is JSON that has both.
fn form(text: &str, numbers: Numbers, drop_null: bool) -> Option<(Tree, Vec<u8>)> {
    // The canonical form is asked for what is known to be JSON.
    serde_json::from_str::<&RawValue>(text).ok()?;
    let mut out = Vec::new();
    match (Tree::read(text, numbers, drop_null, 0), canonical(text, numbers, drop_null, &mut out)) {
        (Ok(tree), Ok(())) => Some((tree, out)),
        // Of several things wrong either reader may name the first it meets.
        (Err(_), Err(_)) => None,
        (tree, form) => panic!("the tree says {tree:?}, the canonical form {form:?}"),
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Tree {
    Word(String),
    /// Its letters.
    Exact(String),
    Double(f64),
    Text(String),
    List(Vec<Self>),
    Object(BTreeMap<String, Self>),
}

impl Tree {
    fn read(text: &str, numbers: Numbers, drop_null: bool, depth: usize) -> Result<Self, JsonError> {
        if depth > MAX_DEPTH {
            return Err(JsonError::TooDeep);
        }
        let text = text.trim_matches([' ', '\t', '\n', '\r']);
        let below = |value: &RawValue| Self::read(value.get(), numbers, false, depth + 1);
        match text.as_bytes()[0] {
            b'{' => {
                let members = serde_json::Deserializer::from_str(text).deserialize_map(Members);
                let mut object = BTreeMap::new();
                // A key with half a surrogate pair cannot be read.
                for (key, value) in members.map_err(|_| JsonError::Unreadable)? {
                    let absent = drop_null && value.get() == "null";
                    if !absent && object.insert(key, below(value)?).is_some() {
                        return Err(JsonError::DuplicateKey);
                    }
                }
                Ok(Self::Object(object))
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
                    Numbers::Exact => Ok(Self::Exact(text.to_owned())),
                    // Minus zero equals zero.
                    Numbers::Double => Ok(Self::Double(value)),
                }
            }
        }
    }

    /// The same value as another writer would put it: last key first, every letter escaped, spaced out.
    fn spell(&self, null_is_absent: bool, out: &mut String) {
        match self {
            Self::Word(text) | Self::Exact(text) => out.push_str(text),
            Self::Double(value) => out.push_str(&format!("{value:e}")),
            Self::Text(text) => spell_text(text, out),
            Self::List(list) => spell_all(["[ ", " ]"], list, out, |element, out| element.spell(false, out)),
            Self::Object(object) => {
                let absent = ("a key that is not there".to_owned(), Self::Word("null".into()));
                let members = object.iter().map(|(key, value)| (key.clone(), value.clone()));
                let mut members: Vec<(String, Self)> =
                    members.chain(null_is_absent.then_some(absent)).collect();
                members.sort_by(|a, b| b.0.cmp(&a.0));
                spell_all(["{\r\n", "\t}"], &members, out, |(key, value), out| {
                    spell_text(key, out);
                    out.push_str(" : ");
                    value.spell(false, out);
                });
            }
        }
    }
}

fn spell_all<T>(
    [open, close]: [&str; 2],
    parts: &[T],
    out: &mut String,
    mut spell: impl FnMut(&T, &mut String),
) {
    out.push_str(open);
    for (n, part) in parts.iter().enumerate() {
        out.push_str(if n > 0 { " ,\t" } else { "" });
        spell(part, out);
    }
    out.push_str(close);
}

fn spell_text(text: &str, out: &mut String) {
    out.push('"');
    for unit in text.encode_utf16() {
        out.push_str(&format!("\\u{unit:04X}"));
    }
    out.push('"');
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
