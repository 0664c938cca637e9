//! Item identity as tables: which changes count, where.

use super::*;

fn key() -> Key {
    Key::new([7; 32])
}

fn input(text: &str) -> InputItem {
    input_digest(&key(), text).expect(text)
}

fn model(text: &str) -> ModelItem {
    model_item(&key(), text).expect(text)
}

#[test]
fn what_does_not_count_in_old_input() {
    for (a, b) in [
        (r#"{"role":"user","content":"hi"}"#, r#"{ "content":"h\u0069", "role":"user" }"#),
        (
            r#"{"role":"user","content":"hi"}"#,
            r#"{"type":"message","role":"user","content":"hi","status":null}"#,
        ),
        (
            r#"{"role":"user","content":"hi"}"#,
            r#"{"role":"user","content":[{"type":"input_text","text":"hi","detail":null}],"id":"msg_1"}"#,
        ),
        (
            r#"{"role":"assistant","content":"hi"}"#,
            r#"{"role":"assistant","content":[{"type":"output_text","text":"hi"}],"status":"completed"}"#,
        ),
        (
            r#"{"type":"function_call","call_id":"c","name":"f","arguments":"{\"a\":1,\"b\":10.0}"}"#,
            r#"{"type":"function_call","call_id":"c","name":"f","arguments":"{ \"b\":10, \"a\":1 }","id":"fc_1","status":"completed","caller":null}"#,
        ),
        (
            r#"{"type":"function_call_output","call_id":"c","output":"x"}"#,
            r#"{"type":"function_call_output","call_id":"c","output":"x","id":"fco_1","status":"completed"}"#,
        ),
    ] {
        assert_eq!(input(a), input(b), "{a} / {b}");
    }
}

#[test]
fn what_counts_in_old_input() {
    for (a, b) in [
        (r#"{"role":"user","content":"hi"}"#, r#"{"role":"user","content":"hi "}"#),
        (r#"{"role":"user","content":"hi"}"#, r#"{"role":"developer","content":"hi"}"#),
        (r#"{"role":"user","content":"hi"}"#, r#"{"role":"user","content":"hi","name":"bob"}"#),
        (r#"{"role":"user","content":"hi"}"#, r#"{"role":"user","content":"hi","x_future":false}"#),
        (
            r#"{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_text","text":"b"}]}"#,
            r#"{"role":"user","content":[{"type":"input_text","text":"ab"}]}"#,
        ),
        (
            r#"{"role":"assistant","content":"hi"}"#,
            r#"{"role":"assistant","content":"hi","phase":"commentary"}"#,
        ),
        (
            r#"{"type":"function_call","call_id":"c","name":"f","arguments":"{\"a\":1}"}"#,
            r#"{"type":"function_call","call_id":"c","name":"f","arguments":"{\"a\":2}"}"#,
        ),
        (
            r#"{"role":"user","content":{"type":"input_text","text":"a"}}"#,
            r#"{"role":"user","content":[{"type":"input_text","text":"a"}]}"#,
        ),
        (r#"{"type":5,"role":"user","content":"hi"}"#, r#"{"type":6,"role":"user","content":"hi"}"#),
        (r#"{"type":["a"]}"#, r#"{"type":["b"]}"#),
        (r#"{"type":"item_reference","id":"a"}"#, r#"{"type":"item_reference","id":"b"}"#),
        (r#"{"type":"future","id":"a"}"#, r#"{"type":"future","id":"b"}"#),
        (
            r#"{"type":"additional_tools","tools":[{"default":null}]}"#,
            r#"{"type":"additional_tools","tools":[{}]}"#,
        ),
        (
            r#"{"type":"function_call_output","call_id":"c","output":"x"}"#,
            r#"{"type":"custom_tool_call_output","call_id":"c","output":"x"}"#,
        ),
        (
            r#"{"type":"local_shell_call_output","id":"call_a","output":"x"}"#,
            r#"{"type":"local_shell_call_output","id":"call_b","output":"x"}"#,
        ),
        (
            r#"{"type":"apply_patch_call_output","call_id":"c","status":"failed"}"#,
            r#"{"type":"apply_patch_call_output","call_id":"c","status":"completed"}"#,
        ),
    ] {
        assert_ne!(input(a), input(b), "{a} / {b}");
    }
}

#[test]
fn f05_f06_an_echo_is_known_by_what_the_model_said() {
    for (a, b) in [
        (
            r#"{"type":"message","id":"m1","role":"assistant","status":"completed","phase":"final_answer","content":[{"type":"output_text","text":"a","annotations":[],"logprobs":[]},{"type":"output_text","text":"b"}]}"#,
            r#"{"type":"message","id":"m1","role":"assistant","content":"ab","parsed":null,"x":1}"#,
        ),
        (
            r#"{"type":"function_call","id":"fc_1","call_id":"c","name":"f","arguments":"{\"a\":1e3}","status":"completed"}"#,
            r#"{"type":"function_call","call_id":"c","name":"f","arguments":"{\"a\": 1000.0}","parsed_arguments":{"a":1},"async_":null}"#,
        ),
        (
            r#"{"type":"function_call","call_id":"c","name":"f","arguments":""}"#,
            r#"{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}"#,
        ),
    ] {
        assert_eq!(model(a), model(b), "{a} / {b}");
    }
    for (a, b) in [
        (r#"{"role":"assistant","content":"a"}"#, r#"{"role":"assistant","content":"a "}"#),
        (
            r#"{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}"#,
            r#"{"type":"function_call","call_id":"d","name":"f","arguments":"{}"}"#,
        ),
        (
            r#"{"type":"custom_tool_call","call_id":"c","name":"f","input":"a"}"#,
            r#"{"type":"custom_tool_call","call_id":"c","name":"f","input":"b"}"#,
        ),
        (
            r#"{"role":"assistant","content":[{"type":"refusal","refusal":"no"}]}"#,
            r#"{"role":"assistant","content":"no"}"#,
        ),
        (
            r#"{"type":"web_search_call","id":"w","action":{"q":1}}"#,
            r#"{"type":"web_search_call","id":"w","action":{"q":2}}"#,
        ),
    ] {
        assert_ne!(model(a), model(b), "{a} / {b}");
    }
}

#[test]
fn f07_reasoning_is_known_by_its_blob_then_by_its_id() {
    let key_of = |text: &str| match input(text) {
        InputItem::Reasoning(key) => key,
        InputItem::Visible(_) => panic!("{text}"),
    };
    let a = key_of(r#"{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"X"}"#);
    assert_eq!(
        a,
        key_of(r#"{"type":"reasoning","id":"rs_2","summary":[{}],"encrypted_content":"X","content":null}"#)
    );
    assert_ne!(a, key_of(r#"{"type":"reasoning","id":"rs_1","summary":[]}"#));
    assert_eq!(
        key_of(r#"{"type":"reasoning","id":"rs_1","summary":[]}"#),
        key_of(r#"{"type":"reasoning","id":"rs_1","summary":[1],"encrypted_content":null}"#)
    );
}

#[test]
fn a_thought_shown_as_text_is_the_reasoning_it_shows() {
    let reasoning = r#"{"type":"reasoning","id":"r","summary":[{"type":"summary_text","text":"hm"}]}"#;
    let shown = r#"{"role":"assistant","content":"<think>\nhm\n</think>"}"#;
    let (ModelItem::Reasoning { think, .. }, ModelItem::Text { text, think: true, .. }) =
        (model(reasoning), model(shown))
    else {
        panic!("kinds");
    };
    assert_eq!(think, text);
}

#[test]
fn a_key_named_twice_makes_an_item_unknowable() {
    assert_eq!(
        input_digest(&key(), r#"{"role":"user","role":"user","content":""}"#),
        Err(JsonError::DuplicateKey)
    );
    assert_eq!(
        input_digest(&key(), r#"{"role":"user","content":[{"type":"input_text","text":"a","text":"b"}]}"#),
        Err(JsonError::DuplicateKey)
    );
}

#[test]
fn a_string_is_the_user_message_it_stands_for() {
    let InputItem::Visible(message) =
        input(r#"{"role":"user","content":[{"type":"input_text","text":"hé"}]}"#)
    else {
        panic!("visible");
    };
    assert_eq!(text_digest(&key(), r#""h\u00e9""#).unwrap(), message);
}
