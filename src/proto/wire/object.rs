//! Reading an object's members by name, and writing one from spans: for translations, which carry the other side's words
//! unread.
//!
//! Builds no tree and judges no meaning.

use std::borrow::Cow;

use crate::proto::wire::json::{self, JsonError, Member};

/// The members of an object, looked up by name.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    text: &'a str,
    members: Vec<Member>,
}

impl<'a> Fields<'a> {
    /// Reads a text that is one object.
    ///
    /// # Errors
    /// It is not, or names a key twice.
    pub fn read(text: &'a str) -> Result<Self, JsonError> {
        let members = json::members(text)?;
        if json::has_duplicate(&members) {
            return Err(JsonError::DuplicateKey);
        }
        Ok(Self { text, members })
    }

    /// The value's text; a null member is an absent one.
    pub fn value(&self, key: &str) -> Option<&'a str> {
        let value = &self.text[json::find(&self.members, key)?.value.clone()];
        (value != "null").then_some(value)
    }

    /// The value of a string member; `None` for any other kind of value.
    pub fn string(&self, key: &str) -> Option<Cow<'a, str>> {
        json::string(self.value(key)?)
    }

    /// The first member beyond those named, if there is one.
    pub fn beyond(&self, known: &[&str]) -> Option<&str> {
        self.iter().map(|(name, _)| name).find(|name| !known.contains(name))
    }

    /// The members that are not null, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        let text = self.text;
        let pairs = self.members.iter().map(move |member| (&*member.key, &text[member.value.clone()]));
        pairs.filter(|(_, value)| *value != "null")
    }
}

/// An object being written.
#[derive(Debug, Clone, Default)]
pub struct Object(String);

impl Object {
    /// One that will be about so many bytes long.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(String::with_capacity(bytes))
    }

    /// Adds a member whose value is JSON already.
    pub fn raw(&mut self, key: &str, value: &str) -> &mut Self {
        self.pieces(key, &[value])
    }

    /// Adds a member whose value is these pieces of JSON, one after another.
    pub fn pieces(&mut self, key: &str, value: &[&str]) -> &mut Self {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(&quoted(key));
        self.0.push(':');
        value.iter().for_each(|piece| self.0.push_str(piece));
        self
    }

    /// Adds a string.
    pub fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.raw(key, &quoted(value))
    }

    /// Adds a member, if there is one.
    pub fn raw_if(&mut self, key: &str, value: Option<&str>) -> &mut Self {
        if let Some(value) = value {
            self.raw(key, value);
        }
        self
    }

    /// True if nothing was added.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The object as JSON.
    pub fn finish(&mut self) -> String {
        if self.0.is_empty() {
            self.0.push('{');
        }
        self.0.push('}');
        std::mem::take(&mut self.0)
    }
}

/// A JSON string. Serialising a `str` cannot fail.
pub fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// A list of values that are JSON already.
pub fn array<S: AsRef<str>>(values: &[S]) -> String {
    let mut list =
        String::with_capacity(2 + values.iter().map(|value| value.as_ref().len() + 1).sum::<usize>());
    list.push('[');
    for (n, value) in values.iter().enumerate() {
        if n > 0 {
            list.push(',');
        }
        list.push_str(value.as_ref());
    }
    list.push(']');
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_in_and_out() {
        let fields = Fields::read(r#" {"a": null, "b": "x\n", "c": [1, 2]} "#).expect("an object");
        assert_eq!((fields.value("a"), fields.string("b").as_deref()), (None, Some("x\n")));
        assert_eq!(fields.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!((fields.beyond(&["b", "c"]), fields.beyond(&["b"])), (None, Some("c")));
        assert_eq!(Fields::read(r#"{"a":1,"a":2}"#).err(), Some(JsonError::DuplicateKey));

        let mut object = Object::default();
        assert!(object.is_empty());
        object.text("k\"", "v\u{1}").raw("n", "1.0").raw_if("absent", None);
        assert_eq!(object.finish(), r#"{"k\"":"v\u0001","n":1.0}"#);
        assert_eq!(Object::default().finish(), "{}");
        assert_eq!(array::<&str>(&[]), "[]");
        assert_eq!(array(&["1", "{}"]), "[1,{}]");
    }
}
