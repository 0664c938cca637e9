//! The same JSON written in other ways: none of them changes what a request means.

use serde_json::{Value, json};

/// Bits of ways to write; none of them set is what most clients do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dress(pub(crate) u8);

/// Space between tokens.
pub(crate) const SPACES: u8 = 1;
/// Keys in the opposite order.
pub(crate) const REVERSED: u8 = 2;
/// Escapes that need not be.
pub(crate) const ESCAPES: u8 = 4;
/// Null members.
pub(crate) const NULLS: u8 = 8;
/// No ids and statuses on items that are known without.
pub(crate) const NO_IDS: u8 = 16;
/// Strings for lists of one text, and the other way round.
pub(crate) const WRAP: u8 = 32;
/// Messages without a type.
pub(crate) const NO_TYPES: u8 = 64;
/// `input` before all other members.
pub(crate) const INPUT_FIRST: u8 = 128;

impl Dress {
    pub(crate) fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    /// An item in other words of the same meaning.
    pub(crate) fn item(self, item: &Value) -> Value {
        let mut item = item.clone();
        let kind = item["type"].as_str().unwrap_or("message").to_owned();
        let Some(members) = item.as_object_mut() else { return item };
        if self.has(NULLS) {
            members.insert("x_null".to_owned(), Value::Null);
        }
        if matches!(kind.as_str(), "x_note" | "item_reference") {
            return item;
        }
        let named = kind != "reasoning" || members.contains_key("encrypted_content");
        if self.has(NO_IDS) && named {
            members.remove("id");
            members.remove("status");
        }
        if kind == "message" && self.has(NO_TYPES) {
            members.remove("type");
        } else if kind == "message" && self.has(NO_IDS) {
            members.insert("type".to_owned(), kind.into());
        }
        if self.has(WRAP) && item["role"] == "user" {
            item["content"] = match &item["content"] {
                Value::String(text) => json!([{"type": "input_text", "text": text, "detail": null}]),
                Value::Array(parts) if parts.len() == 1 => parts[0]["text"].clone(),
                other => other.clone(),
            };
        }
        item
    }

    /// An object whose members stand in the order given.
    pub(crate) fn object(self, members: &[(&str, Value)]) -> String {
        let mut out = String::from("{");
        for (n, (name, value)) in members.iter().enumerate() {
            self.member(n, name, value, &mut out);
        }
        out.push('}');
        out
    }

    fn member(self, n: usize, name: &str, value: &Value, out: &mut String) {
        out.push_str(if n == 0 { "" } else { "," });
        self.space(out);
        self.string(name, out);
        self.space(out);
        out.push(':');
        self.value(value, out);
    }

    fn value(self, value: &Value, out: &mut String) {
        self.space(out);
        match value {
            Value::String(text) => self.string(text, out),
            Value::Array(elements) => {
                out.push('[');
                for (n, element) in elements.iter().enumerate() {
                    out.push_str(if n == 0 { "" } else { "," });
                    self.value(element, out);
                }
                self.space(out);
                out.push(']');
            }
            Value::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                if self.has(REVERSED) {
                    members.reverse();
                }
                out.push('{');
                for (n, (name, value)) in members.into_iter().enumerate() {
                    self.member(n, name, value, out);
                }
                self.space(out);
                out.push('}');
            }
            other => out.push_str(&other.to_string()),
        }
        self.space(out);
    }

    fn string(self, text: &str, out: &mut String) {
        let plain = Value::from(text).to_string();
        if !self.has(ESCAPES) {
            return out.push_str(&plain);
        }
        for letter in plain.chars() {
            match letter {
                '/' => out.push_str("\\/"),
                letter if letter.is_ascii() => out.push(letter),
                letter => {
                    let mut units = [0; 2];
                    for unit in letter.encode_utf16(&mut units) {
                        out.push_str(&format!("\\u{unit:04X}"));
                    }
                }
            }
        }
    }

    fn space(self, out: &mut String) {
        if self.has(SPACES) {
            out.push_str("\n ");
        }
    }
}
