//! Canonical JSON: idempotent in effect, blind to key order, white space and escapes; distinct values stay distinct.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn form(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    canonical(text, Numbers::Exact, false, &mut out).expect("canonical");
    out
}

fn loose(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    canonical(text, Numbers::Double, false, &mut out).expect("canonical");
    out
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-d\"\\\\é]{0,2}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Writes a value with members reversed, white space strewn about and every character escaped.
fn disguise(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            out.push_str(" {\n");
            for (n, (key, member)) in map.iter().rev().enumerate() {
                out.push_str(if n > 0 { " ,\t" } else { "" });
                disguise(&Value::from(key.as_str()), out);
                out.push_str(" : ");
                disguise(member, out);
            }
            out.push_str("\r}");
        }
        Value::Array(list) => {
            out.push('[');
            for (n, element) in list.iter().enumerate() {
                out.push_str(if n > 0 { "  , " } else { " " });
                disguise(element, out);
            }
            out.push_str(" ] ");
        }
        Value::String(text) => {
            out.push('"');
            for unit in text.encode_utf16() {
                out.push_str(&format!("\\u{unit:04X}"));
            }
            out.push('"');
        }
        other => out.push_str(&other.to_string()),
    }
}

proptest! {
    #[test]
    fn key_order_space_and_escapes_do_not_count(value in value()) {
        let mut disguised = String::new();
        disguise(&value, &mut disguised);
        prop_assert_eq!(form(&value.to_string()), form(&disguised));
    }

    #[test]
    fn distinct_values_stay_distinct(a in value(), b in value()) {
        prop_assert_eq!(a == b, form(&a.to_string()) == form(&b.to_string()));
    }

    #[test]
    fn members_are_where_they_say(value in prop::collection::btree_map("[a-e\"]{0,3}", value(), 0..6)) {
        let text = Value::Object(value.clone().into_iter().collect::<Map<_, _>>()).to_string();
        let found = members(&text).expect("an object");
        prop_assert_eq!(found.len(), value.len());
        for member in found {
            let read: Value = serde_json::from_str(&text[member.value]).expect("a value");
            prop_assert_eq!(&read, &value[&*member.key]);
        }
    }
}

#[test]
fn numbers_count_by_letter_or_by_value() {
    assert_ne!(form("1"), form("1.0"));
    assert_eq!(loose("1"), loose("1.0"));
    assert_eq!(loose("1e3"), loose("1000"));
    assert_eq!(loose("12345678901234567"), loose("12345678901234568"));
    assert_ne!(form("12345678901234567890123"), form("12345678901234567890124"));
    assert_ne!(loose("2.5"), loose("2.51"));
}

#[test]
fn what_readers_differ_over_has_no_form() {
    let mut out = Vec::new();
    for text in [r#""\ud800""#, r#"["a\udc00"]"#, r#"{"\ud83d":1}"#, "1e400", "-1e999"] {
        for numbers in [Numbers::Exact, Numbers::Double] {
            assert_eq!(canonical(text, numbers, false, &mut out), Err(JsonError::Unreadable), "{text}");
        }
    }
    assert_eq!(form(r#""\ud83d\ude00""#), form("\"😀\""));
}

#[test]
fn a_key_named_twice_is_refused_at_any_depth() {
    let mut out = Vec::new();
    assert_eq!(
        canonical(r#"{"a":[{"b":1,"c":2,"b":1}]}"#, Numbers::Exact, false, &mut out),
        Err(JsonError::DuplicateKey)
    );
    assert_eq!(canonical(r#"{"b":1,"b":1}"#, Numbers::Exact, false, &mut out), Err(JsonError::DuplicateKey));
    assert!(has_duplicate(&members(r#"{"a":1,"b":2,"\u0061":3}"#).unwrap()));
    assert!(!has_duplicate(&members(r#"{"a":1,"b":{"a":3}}"#).unwrap()));
}

#[test]
fn absurd_nesting_is_refused_not_followed() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let mut out = Vec::new();
    assert_eq!(canonical(&deep, Numbers::Exact, false, &mut out), Err(JsonError::TooDeep));
    assert!(members(&format!("{{\"a\":{deep}}}")).is_ok(), "spans need no recursion");
}

#[test]
fn null_members_may_be_dropped_at_the_top_only() {
    let drop = |text: &str| {
        let mut out = Vec::new();
        canonical(text, Numbers::Exact, true, &mut out).unwrap();
        out
    };
    assert_eq!(drop(r#"{"a":null,"b":1}"#), drop(r#"{"b":1}"#));
    assert_ne!(drop(r#"{"b":{"a":null}}"#), drop(r#"{"b":{}}"#));
}

#[test]
fn text_after_the_value_is_an_error() {
    assert_eq!(members("{} x"), Err(JsonError::Syntax));
    assert_eq!(members("[]"), Err(JsonError::Syntax));
    assert_eq!(elements("[1,2]").unwrap(), vec![1..2, 3..4]);
    assert_eq!(first_value("  {\"a\":1} , 2").unwrap(), 2..9);
}

#[test]
fn the_json_library_keeps_the_features_we_rely_on() {
    // `preserve_order` would make this a list in the order written, `arbitrary_precision` would keep the letters.
    assert_eq!(json!({"b": 1, "a": 2}).to_string(), r#"{"a":2,"b":1}"#);
    assert_eq!(serde_json::from_str::<Value>("1.10").unwrap().to_string(), "1.1");
}

#[test]
fn f59_what_has_too_many_parts_is_not_taken() {
    let array = |n: usize| format!("[{}{{}}]", "{},".repeat(n - 1));
    assert_eq!(elements(&array(MAX_PARTS)).map(|parts| parts.len()), Ok(MAX_PARTS));
    assert_eq!(elements(&array(MAX_PARTS + 1)), Err(JsonError::Syntax));
    let object = |n: usize| format!("{{{}\"a\":1}}", "\"a\":1,".repeat(n - 1));
    assert_eq!(members(&object(MAX_PARTS)).map(|parts| parts.len()), Ok(MAX_PARTS));
    assert_eq!(members(&object(MAX_PARTS + 1)), Err(JsonError::Syntax));
}
