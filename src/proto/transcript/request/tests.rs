//! Reading a body: what it is refused for, what its scope is, and that both ways of reading it are one.

use proptest::prelude::*;

use super::*;
use crate::proto::transcript::frame::{self, Envelope};

fn key() -> Key {
    Key::new([2; 32])
}

fn account() -> Digest {
    key().hasher("account").finish()
}

fn read(body: &str, known: &[Prefix]) -> Result<Request, Reason> {
    Request::parse(&key(), &account(), Bytes::copy_from_slice(body.as_bytes()), known)
}

fn whole(body: &str) -> Request {
    read(body, &[]).expect(body)
}

fn prefix(body: &str) -> Prefix {
    whole(body).chain.and_then(|chain| chain.prefix).expect("a list of items")
}

#[test]
fn what_goes_over_http() {
    for (body, reason) in [
        ("", Reason::NotUnderstood),
        ("[1]", Reason::NotUnderstood),
        (r#"{"model":"m"}"#, Reason::NotUnderstood),
        (r#"{"model":"m","input":7}"#, Reason::NotUnderstood),
        (r#"{"model":"m","input":null}"#, Reason::NotUnderstood),
        (r#"{"model":"m","input":[{]}"#, Reason::NotUnderstood),
        (r#"{"model":"m","input":[]} x"#, Reason::NotUnderstood),
        (r#"{"model":"m","input":[],"stream":1}"#, Reason::NotUnderstood),
        (r#"{"model":"m","input":[],"store":"no"}"#, Reason::NotUnderstood),
        (r#"{"model":"m","input":[],"previous_response_id":7}"#, Reason::NotUnderstood),
        (r#"{"model":"m","input":[],"model":"n"}"#, Reason::DuplicateKey),
        (r#"{"model":"m","input":[],"\u006dodel":"m"}"#, Reason::DuplicateKey),
        (r#"{"model":"m","input":[],"background":true}"#, Reason::Field("background")),
        (r#"{"model":"m","input":[],"conversation":"c"}"#, Reason::Field("conversation")),
        (r#"{"model":"m","input":[],"prompt":{"id":"p"}}"#, Reason::Field("prompt")),
        (r#"{"model":"m","input":[],"stream_id":null}"#, Reason::Field("stream_id")),
        (r#"{"model":"m","input":[],"generate":false}"#, Reason::Field("generate")),
        (r#"{"model":"m","input":[],"type":"response.create"}"#, Reason::Field("type")),
    ] {
        assert_eq!(read(body, &[]).err(), Some(reason), "{body}");
    }
    let not_text = Request::parse(&key(), &account(), Bytes::from_static(b"{\"input\":\"\xff\"}"), &[]);
    assert_eq!(not_text.err(), Some(Reason::NotUnderstood));
}

#[test]
fn defaults_and_flags() {
    let plain = whole(r#"{"model":"m","input":[]}"#);
    assert!(plain.store && !plain.stream && !plain.acts && plain.anchor.is_none() && plain.items() == 0);
    let nulls = whole(
        r#"{"model":"m","input":[],"store":null,"stream":null,"previous_response_id":null,"background":false,"prompt":null}"#,
    );
    assert_eq!((nulls.store, nulls.stream, &nulls.anchor), (true, false, &None));
    assert_eq!((nulls.scope, nulls.unknown), (plain.scope, plain.unknown));
    let set = whole(r#"{"model":"m","input":"hi","store":false,"stream":true,"previous_response_id":"r"}"#);
    assert_eq!((set.store, set.stream, set.anchor.as_deref(), set.items()), (false, true, Some("r"), 1));
    for (tools, acts) in [
        (r#"[{"type":"function","name":"mcp"}]"#, false),
        (r#"[{"type":"function"},{"type":"mcp"}]"#, true),
        (r#"[{"type":"code_interpreter"}]"#, true),
        (r#"[{"type":"web_search"}]"#, false),
        (r#""mcp""#, false),
    ] {
        assert_eq!(whole(&format!(r#"{{"model":"m","input":[],"tools":{tools}}}"#)).acts, acts, "{tools}");
    }
}

#[test]
fn the_scope_and_the_unknown_fields() {
    let base = whole(r#"{"model":"m","input":[]}"#);
    for (more, same_scope, same_unknown) in [
        (r#""store":true"#, true, true),
        (r#""store":false"#, false, true),
        (r#""user":"ann""#, false, true),
        (r#""safety_identifier":"x""#, false, true),
        (r#""user":null"#, true, true),
        (r#""instructions":"i","tools":[],"temperature":1,"metadata":{},"reasoning":{}"#, true, true),
        (r#""x_switch":1"#, true, false),
        (r#""x_switch":null"#, true, false),
    ] {
        let other = whole(&format!(r#"{{"model":"m","input":[],{more}}}"#));
        assert_eq!(
            (other.scope == base.scope, other.unknown == base.unknown),
            (same_scope, same_unknown),
            "{more}"
        );
    }
    assert_ne!(whole(r#"{"model":"n","input":[]}"#).scope, base.scope);
    let other = key().hasher("account").field(b"b").clone().finish();
    let theirs = Request::parse(&key(), &other, Bytes::from_static(br#"{"model":"m","input":[]}"#), &[]);
    assert_ne!(theirs.expect("a request").scope, base.scope);
    let ordered = whole(r#"{"model":"m","x_a":{"a":1,"b":2},"input":[],"x_b":1}"#);
    let written = whole(r#"{"x_b":1,"x_a":{"b": 2, "\u0061":1},"model":"\u006d","input":[]}"#);
    assert_eq!((ordered.unknown, ordered.scope), (written.unknown, written.scope));
}

#[test]
fn a_string_is_the_message_it_stands_for() {
    let steps = |body: &str| whole(body).chain.expect("a chain").steps.last().map(|step| step.digest);
    let text = steps(r#"{"model":"m","input":"hi"}"#);
    assert_eq!(text, steps(r#"{"model":"m","input":[{"role":"user","content":"hi"}]}"#));
    assert_ne!(text, steps(r#"{"model":"m","input":[{"role":"system","content":"hi"}]}"#));
    assert!(whole(r#"{"model":"m","input":"hi"}"#).chain.is_some_and(|chain| chain.prefix.is_none()));
}

#[test]
fn what_cannot_be_digested_is_still_a_request() {
    let twice = whole(r#"{"model":"m","input":[{"role":"user","content":"a","content":"b"}]}"#);
    assert!(twice.chain.is_none() && twice.item(0).is_none() && twice.items() == 0);
    let deep =
        format!(r#"{{"model":"m","input":[{{"type":"x","deep":{}1{}}}]}}"#, "[".repeat(200), "]".repeat(200));
    assert!(read(&deep, &[]).is_ok_and(|request| request.chain.is_none()) || read(&deep, &[]).is_err());
}

#[test]
fn a_known_prefix_is_read_on_from_and_oddities_go_the_long_way() {
    let first = r#"{"model":"m","input":[{"role":"user","content":"a"}],"stream":true}"#;
    let known = [prefix(first)];
    let start = r#"{"model":"m","input":[{"role":"user","content":"a"}"#;
    for (tail, fast) in [
        (r#",{"role":"user","content":"b"}]}"#, true),
        (r#",7]}"#, false),
        // A repetition.
        ("]}", false),
        (" , {\"role\":\"user\",\"content\":\"b\"} ] , \"stream\" : true } \n", true),
        (r#",{"role":"user","content":"b"}],"temperature":1,"x_new":{"a":[1]}}"#, true),
        (r#",{"role":"user","content":"b"}],"\u0073tream":true}"#, true),
        // A scope that is known only now.
        (r#",{"type":"x"}],"user":"ann"}"#, false),
        (r#",{"type":"x"}],"store":false}"#, false),
        // What is refused is refused under the same name.
        (r#",{"type":"x"}],"input":[]}"#, false),
        (r#",{"type":"x"}],"model":"m"}"#, false),
        (r#",{"type":"x"}],"prompt":{}}"#, false),
        ("]} {", false),
        (",]}", false),
        ("", false),
    ] {
        let body = format!("{start}{tail}");
        let (by_bytes, slow) = (read(&body, &known), read(&body, &[]));
        let first =
            by_bytes.as_ref().ok().and_then(|request| request.chain.as_ref()).map(|chain| chain.first);
        assert_eq!(first == Some(1), fast, "{body}");
        assert_eq!(by_bytes.err(), slow.err(), "{body}");
    }
    let other = format!("{start},{{\"role\":\"user\",\"content\":\"b\"}}]}}").replace("\"a\"", "\"e\"");
    assert_eq!(
        read(&other, &known).expect("a request").chain.map(|chain| chain.first),
        Some(0),
        "other bytes"
    );
}

/// One item of a body, in one of several ways of writing it.
fn item() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        r#"{"role":"user","content":"a"}"#,
        r#"{ "content" : "a", "role" : "user" }"#,
        r#"{"role":"user","content":"é\u00e9]},{"}"#,
        r#"{"type":"message","role":"assistant","content":[{"type":"output_text","text":"x"}],"id":"m"}"#,
        r#"{"type":"reasoning","summary":[],"encrypted_content":"blob"}"#,
        r#"{"type":"reasoning","summary":[],"id":"rs"}"#,
        r#"{"type":"function_call","call_id":"c","name":"n","arguments":"{\"a\": 1}"}"#,
        r#"{"type":"function_call_output","call_id":"c","output":"o"}"#,
        r#"{"type":"item_reference","id":"x"}"#,
        r#"{"type":"x_thing","deep":[{"a":[null,1.50]}]}"#,
        r#"{"role":"user","role":"user","content":"twice"}"#,
        "7",
    ])
}

fn settings() -> impl Strategy<Value = Vec<&'static str>> {
    let members = vec![
        r#""model":"m""#,
        r#""instructions":"i""#,
        r#""user":"ann""#,
        r#""x_new":{"b":1,"a":2}"#,
        r#""stream":true"#,
        r#""store":false"#,
        r#""prompt":null"#,
        r#""tools":[{"type":"mcp"}]"#,
        r#""previous_response_id":"r""#,
        r#""model":"n""#,
    ];
    prop::sample::subsequence(members, 0..5)
}

fn body(before: &[&str], items: &[&str], comma: &str, after: &[&str]) -> String {
    let input = format!("\"input\":[{}]", items.join(comma));
    let members: Vec<&str> =
        before.iter().copied().chain([input.as_str()]).chain(after.iter().copied()).collect();
    format!("{{{}}}", members.join(","))
}

proptest! {
    /// Whatever follows a known prefix, reading on from it and reading it all come to the same.
    #[test]
    fn both_ways_of_reading_are_one(
        before in settings(),
        after in (settings(), settings()),
        items in (prop::collection::vec(item(), 0..5), prop::collection::vec(item(), 0..4)),
        comma in prop::sample::select(vec![",", " , ", ",\n"]),
        cut in any::<prop::sample::Index>(),
        other in item(),
        changed in prop::bool::weighted(0.2),
    ) {
        let first = body(&before, &items.0, comma, &after.0);
        let mut all: Vec<&str> = items.0.iter().chain(&items.1).copied().collect();
        if changed && !all.is_empty() {
            let n = cut.index(all.len());
            all[n] = other;
        }
        let second = body(&before, &all, comma, &after.1);
        let known: Vec<Prefix> =
            read(&first, &[]).ok().and_then(|request| request.chain?.prefix).into_iter().collect();
        match (read(&second, &known), read(&second, &[])) {
            (Err(fast), Err(slow)) => prop_assert_eq!(fast, slow),
            (Ok(fast), Ok(slow)) => prop_assert_eq!(told(&fast), told_from(&slow, &fast)),
            (fast, slow) => prop_assert!(false, "{:?} / {:?}", fast.err(), slow.err()),
        }
    }
}

/// All that anybody asks of a request from item `from` on.
fn told_of(request: &Request, from: usize) -> String {
    let Request { stream, store, acts, anchor, scope, unknown, chain, .. } = request;
    let envelope = Envelope { stream_id: Some("tw0"), previous: Some("r"), new_from: Some(from) };
    let frame = chain.as_ref().map(|_| String::from_utf8(frame::write(request, envelope)));
    let whole = String::from_utf8(frame::write(request, Envelope { new_from: None, ..envelope }));
    let chain = chain.as_ref().map(|chain| {
        let last = chain.steps.last().map(|step| (step.visible, step.digest));
        let items: Vec<_> = (from..chain.items).map(|n| request.item(n)).collect();
        let prefix =
            chain.prefix.as_ref().map(|p| (p.len, p.digest, p.tag, p.items, p.step.visible, p.step.digest));
        format!("{} {last:?} {items:?} {:?} {prefix:?}", chain.items, chain.reasoning)
    });
    format!("{stream} {store} {acts} {anchor:?} {scope:?} {unknown:?} {chain:?} {frame:?} {whole:?}")
}

fn told(request: &Request) -> String {
    told_of(request, request.chain.as_ref().map_or(0, |chain| chain.first))
}

fn told_from(request: &Request, other: &Request) -> String {
    told_of(request, other.chain.as_ref().map_or(0, |chain| chain.first))
}

#[test]
fn f59_a_request_is_read_where_it_lies_and_its_frame_is_the_only_copy() {
    let words = "x".repeat(1 << 20);
    let body = Bytes::from(format!(r#"{{"model":"m","input":[{{"role":"user","content":"{words}"}}]}}"#));
    let request = Request::parse(&key(), &account(), body.clone(), &[]).expect("a request");
    assert_eq!(request.clone().body().as_ptr(), body.as_ptr());
    assert!(body.as_ptr_range().contains(&request.item(0).expect("an item").as_ptr()));
    let frame = frame::write(&request, Envelope { stream_id: Some("tw0"), previous: None, new_from: None });
    assert!(frame.capacity() <= body.len() + 512, "{}", frame.capacity());
}
