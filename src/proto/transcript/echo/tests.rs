//! What counts as a repetition of a response, as a table; and what a listener makes of two accounts of it.

use bytes::Bytes;

use super::*;

fn key() -> Key {
    Key::new([8; 32])
}

const THOUGHT: &str = r#"{"type":"reasoning","id":"rs1","summary":[],"encrypted_content":"one"}"#;
const AGAIN: &str = r#"{"type":"reasoning","id":"rs2","summary":[],"encrypted_content":"two"}"#;
const TEXT: &str = r#"{"type":"message","id":"m1","role":"assistant","status":"completed","phase":"commentary","content":[{"type":"output_text","text":"ab","annotations":[]}]}"#;
const CALL: &str = r#"{"type":"function_call","id":"f1","call_id":"c1","name":"n","arguments":"{\"a\": 1.0}","status":"completed"}"#;
const SEARCH: &str = r#"{"type":"web_search_call","id":"w1","status":"completed","action":{"query":"q"}}"#;
const BORDER: &str = r#"{"type":"compaction","id":"cmp1","encrypted_content":"z"}"#;
const OUTPUT: &str = r#"{"type":"function_call_output","call_id":"c1","output":"o"}"#;
const USER: &str = r#"{"role":"user","content":"u"}"#;

fn follow(said: &[&str], items: &[&str]) -> Result<(usize, usize), Reason> {
    let echo = Listener::default().finish(&key(), Some(&format!("[{}]", said.join(",")))).expect("an echo");
    let body = format!(r#"{{"model":"m","input":[{USER},{}]}}"#, items.join(","));
    let account = key().hasher("account").finish();
    let request = Request::parse(&key(), &account, Bytes::from(body), &[]).expect("a request");
    echo.follow(&key(), &request, 1).map(|followed| (followed.new_from, followed.thoughts.len()))
}

#[test]
fn f05_the_ways_clients_repeat_a_response() {
    let short = r#"{"role":"assistant","content":"ab"}"#;
    let split =
        r#"{"role":"assistant","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"x":1}"#;
    let call = r#"{"type":"function_call","call_id":"c1","name":"n","arguments":"{\"a\":1}"}"#;
    let (by_id, thought_by_id) =
        (r#"{"type":"item_reference","id":"m1"}"#, r#"{"type":"item_reference","id":"rs1"}"#);
    let again_by_id = r#"{"id":"rs2"}"#;
    let all: &[&str] = &[THOUGHT, AGAIN, TEXT, CALL];
    for (said, items, expected) in [
        (all, &[THOUGHT, AGAIN, TEXT, CALL, OUTPUT][..], Ok((5, 2))),
        (all, &[THOUGHT, AGAIN, CALL, TEXT, OUTPUT, USER], Ok((5, 2))),
        (all, &[short, call, OUTPUT], Ok((3, 2))),
        (all, &[call, split, OUTPUT], Ok((3, 2))),
        (all, &[by_id, call, OUTPUT], Ok((3, 2))),
        (all, &[thought_by_id, again_by_id, by_id, call, OUTPUT], Ok((5, 0))),
        (all, &[again_by_id, by_id, call, OUTPUT], Ok((4, 1))),
        (&[TEXT, SEARCH], &[SEARCH, TEXT, USER], Ok((3, 0))),
        (&[], &[USER], Ok((1, 0))),
        // Reasoning keeps its order, also by reference.
        (all, &[again_by_id, thought_by_id, by_id, call, OUTPUT], Err(Reason::ReasoningAdded)),
        (all, &[TEXT, CALL, OUTPUT, THOUGHT], Err(Reason::ReasoningAdded)),
        (all, &[TEXT, CALL], Err(Reason::NothingNew)),
        (all, &[TEXT, CALL, USER], Err(Reason::CallUnanswered)),
        (all, &[CALL, OUTPUT], Err(Reason::EchoMissing)),
        (all, &[TEXT, OUTPUT], Err(Reason::EchoMissing)),
        (all, &[TEXT, TEXT, CALL, OUTPUT], Err(Reason::EchoChanged)),
        (all, &[TEXT, CALL, OUTPUT, TEXT], Err(Reason::EchoChanged)),
        (all, &[r#"{"role":"assistant","content":"ab "}"#, CALL, OUTPUT], Err(Reason::EchoChanged)),
        (
            &[CALL],
            &[r#"{"type":"function_call","call_id":"c1","name":"n","arguments":"{\"a\":2}"}"#, OUTPUT],
            Err(Reason::EchoChanged),
        ),
        (&[TEXT], &[r#"{"type":"item_reference","id":"m2"}"#, USER], Err(Reason::EchoChanged)),
        (
            &[TEXT, SEARCH],
            &[TEXT, r#"{"type":"web_search_call","action":{"query":"r"}}"#, USER],
            Err(Reason::EchoMissing),
        ),
    ] {
        assert_eq!(follow(said, items), expected, "{items:?}");
    }
}

#[test]
fn a_compaction_item_keeps_its_place() {
    let other = BORDER.replace('z', "y");
    let dressed = r#"{"encrypted_content":"z","type":"compaction","created_by":null,"x":1}"#;
    let (by_id, thought_by_id) =
        (r#"{"type":"item_reference","id":"cmp1"}"#, r#"{"type":"item_reference","id":"rs1"}"#);
    let all: &[&str] = &[THOUGHT, BORDER, AGAIN, TEXT];
    for (said, items, expected) in [
        (all, &[THOUGHT, BORDER, AGAIN, TEXT, USER][..], Ok((5, 2))),
        (all, &[BORDER, TEXT, USER], Ok((3, 2))),
        (all, &[dressed, TEXT, USER], Ok((3, 2))),
        (all, &[by_id, TEXT, USER], Ok((3, 2))),
        (all, &[thought_by_id, BORDER, TEXT, USER], Ok((4, 1))),
        (all, &[BORDER, thought_by_id, TEXT, USER], Err(Reason::EchoChanged)),
        (all, &[TEXT, BORDER, USER], Err(Reason::EchoChanged)),
        (&[TEXT, BORDER], &[BORDER, TEXT, USER], Err(Reason::EchoChanged)),
        (all, &[TEXT, USER], Err(Reason::EchoChanged)),
        (&[BORDER], &[USER], Err(Reason::EchoMissing)),
        (all, &[&other, TEXT, USER], Err(Reason::EchoChanged)),
        // Whatever it stands for, it is not what the chain holds.
        (all, &[BORDER, TEXT, USER, &other], Err(Reason::EchoChanged)),
        (&[TEXT], &[TEXT, BORDER, USER], Err(Reason::EchoChanged)),
    ] {
        assert_eq!(follow(said, items), expected, "{items:?}");
    }
}

#[test]
fn reasoning_may_not_move_across_a_compaction_item() {
    let echo = heard(&[THOUGHT, BORDER, AGAIN, TEXT], None).expect("an echo");
    let body = format!(r#"{{"model":"m","input":[{USER},{THOUGHT},{BORDER},{AGAIN},{TEXT},{USER}]}}"#);
    let account = key().hasher("account").finish();
    let request = Request::parse(&key(), &account, Bytes::from(body), &[]).expect("a request");
    let followed = echo.follow(&key(), &request, 1).expect("it follows");
    let places: Vec<_> = followed.thoughts.iter().map(|thought| (thought.from, thought.to)).collect();
    assert_eq!(places, [(None, Some(2)), (Some(3), None)]);
}

fn heard(done: &[&str], output: Option<&str>) -> Option<Echo> {
    let mut listener = Listener::default();
    for (n, item) in done.iter().enumerate().rev() {
        let text = format!(r#"{{"type":"response.output_item.done","output_index":{n},"item":{item}}}"#);
        listener.hear(&key(), &Event::parse(Bytes::from(text)).expect("an event"));
    }
    listener.finish(&key(), output)
}

#[test]
fn f18_f19_two_accounts_of_one_response_must_agree() {
    let told = heard(&[THOUGHT, TEXT], None);
    assert!(told.is_some());
    assert_eq!(heard(&[THOUGHT, TEXT], Some("[]")), told, "a terminal event without output");
    assert!(heard(&[], Some(&format!("[{THOUGHT},{TEXT}]"))).is_some());
    let copy = THOUGHT.replace("one", "another copy");
    assert!(
        heard(&[THOUGHT, TEXT], Some(&format!("[{copy},{TEXT}]"))).is_some(),
        "blobs differ from copy to copy"
    );
    let copy = BORDER.replace('z', "another copy");
    assert!(heard(&[BORDER, TEXT], Some(&format!("[{copy},{TEXT}]"))).is_some());
    assert_eq!(heard(&[THOUGHT, TEXT], Some(&format!("[{TEXT}]"))), None);
    assert_eq!(heard(&[TEXT], Some(&format!("[{}]", TEXT.replace("ab", "ac")))), None);
    assert_eq!(heard(&[USER], None), None, "an output the model cannot have made");
    assert_eq!(heard(&["7"], None), None);
}
