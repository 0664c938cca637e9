//! Pairs of items by hand, and a property: what the heart tells apart, a person is shown.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::proto::digest::Key;
use crate::proto::wire::item;

#[test]
fn the_first_difference_has_a_path_and_no_content() {
    for (earlier, later, path, what) in [
        (
            r#"{"role":"user","content":"abc"}"#,
            r#"{"role":"user","content":"abd"}"#,
            "content[0].text",
            "differs from character 3 on (3 characters before, 3 now)",
        ),
        (
            r#"{"role":"user","content":"abc"}"#,
            r#"{"role":"user","content":"abc "}"#,
            "content[0].text",
            "white space at an end changed (3 characters before, 4 now)",
        ),
        (
            r#"{"role":"user","content":"abc"}"#,
            r#"{"role":"user","content":"ab"}"#,
            "content[0].text",
            "its last 1 of 3 characters are missing",
        ),
        (
            r#"{"role":"user","content":"abc"}"#,
            r#"{"role":"user","content":[{"type":"input_text","text":"abc"},{"type":"input_text","text":"d"}]}"#,
            "content[1]",
            "was added",
        ),
        (
            r#"{"role":"user","content":"abc"}"#,
            r#"{"role":"system","content":"abc"}"#,
            "role",
            "differs from character 1 on (4 characters before, 6 now)",
        ),
        (
            r#"{"type":"function_call","arguments":"{\"a\":10.0,\"b\":[1,2]}"}"#,
            r#"{"type":"function_call","arguments":"{\"b\":[1,3],\"a\":10}"}"#,
            "arguments.b[1]",
            "is another number",
        ),
        (r#"{"type":"x","a":{"b":null}}"#, r#"{"type":"x","a":{}}"#, "a.b", "is missing"),
        (r#"{"type":"x","a":1}"#, r#"{"type":"x","a":"1"}"#, "a", "was number, is a string"),
        (r#"{"type":"x","id":"1","a":1}"#, r#"{"type":"x","a":2,"id":"2"}"#, "a", "is another number"),
        (r#"{"type":"x","id":"1","a":1}"#, r#"{"type":"x","a":1,"id":"2"}"#, "id", "is another string"),
    ] {
        let found = items(earlier, later).unwrap_or_else(|| panic!("{earlier} {later}"));
        assert_eq!((&*found.path, &*found.what), (path, what), "{earlier} {later}");
    }
}

#[test]
fn what_counts_as_the_same_is_no_difference() {
    for (earlier, later) in [
        (
            r#"{"role":"user","content":"\u00fc"}"#,
            r#"{ "content": [{"text":"ü","type":"input_text","x":null}], "type": "message", "role":"user","status":null }"#,
        ),
        (
            r#"{"type":"function_call","arguments":"{\"a\":1e3}"}"#,
            r#"{"type":"function_call","arguments":"{ \"a\": 1000.0 }"}"#,
        ),
    ] {
        assert_eq!(items(earlier, later), None, "{earlier} {later}");
    }
}

/// JSON of a small world, so that pairs are often close.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3i64).prop_map(Value::from),
        Just(json!(1.0)),
        "[a-b ]{0,3}".prop_map(Value::from),
        Just(json!([{ "type": "input_text", "text": "a" }])),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[ab]", inner, 0..3).prop_map(|map| json!(map)),
        ]
    })
}

fn thing() -> impl Strategy<Value = String> {
    let kind = prop::option::of(prop_oneof![
        Just("message"),
        Just("function_call"),
        Just("function_call_output"),
        Just("odd")
    ]);
    let role = prop::option::of(prop_oneof![Just("user"), Just("assistant")]);
    let members = prop::collection::btree_map(
        prop_oneof![Just("content"), Just("arguments"), Just("id"), Just("status"), Just("name")],
        value(),
        0..4,
    );
    (kind, role, members).prop_map(|(kind, role, members)| {
        let mut item = json!(members);
        if let Some(kind) = kind {
            item["type"] = kind.into();
        }
        if let Some(role) = role {
            item["role"] = role.into();
        }
        item.to_string()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn what_the_heart_tells_apart_has_a_place(earlier in thing(), later in thing()) {
        let key = Key::new([1; 32]);
        let digest = |text: &str| item::input_digest(&key, text);
        if let (Ok(a), Ok(b)) = (digest(&earlier), digest(&later)) {
            let found = items(&earlier, &later);
            if a != b {
                prop_assert!(found.is_some(), "{} {}", earlier, later);
            }
        }
    }
}
