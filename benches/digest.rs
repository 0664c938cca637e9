//! What it costs to recognise a conversation: a body of 2 MB the long way (parsed, every item digested), the byte fast
//! path (one hash over the known prefix, the tail parsed), and the split into members and items alone, as a floor.
//!
//! Measures no socket and no index.

use std::fmt::Write as _;
use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tailwire::proto::digest::Key;
use tailwire::proto::transcript::request::Request;
use tailwire::proto::wire::json;

/// An agent's body: instructions, tools, and rounds of a call and its output until it is `size` bytes long; then `more`
/// rounds.
fn body(size: usize, more: usize) -> Bytes {
    let mut text = String::from(
        r#"{"model":"m","store":false,"stream":true,"input":[{"role":"user","content":"Fix the build."}"#,
    );
    let (mut round, mut left) = (0, more);
    while text.len() < size || left > 0 {
        left -= usize::from(text.len() >= size);
        let _ = write!(
            text,
            r#",{{"type":"function_call","id":"fc_{round}","call_id":"call_{round}","name":"read","arguments":"{{\"path\":\"src/{round}.rs\"}}","status":"completed"}},{{"type":"function_call_output","call_id":"call_{round}","output":""#
        );
        for line in 0..60 {
            let _ = write!(
                text,
                r"{line:>5}\tlet value_{round} = self.table.insert(\u0022key_{line}\u0022, {})?;\n",
                line * round
            );
        }
        text.push_str("\"}");
        round += 1;
    }
    let _ = write!(text, r#"],"instructions":"{}","tools":[]}}"#, "Be brief. ".repeat(800));
    text.into()
}

fn recognise(criterion: &mut Criterion) {
    let key = Key::new([7; 32]);
    let account = key.hasher("account").finish();
    let (first, next) = (body(2 << 20, 0), body(2 << 20, 1));
    let read = |body: &Bytes, known: &[_]| {
        Request::parse(&key, &account, body.clone(), known).expect("the bench writes a good body")
    };
    let chain = read(&first, &[]).chain.expect("a list of items has a chain");
    let known = [chain.prefix.expect("it ends in an object")];
    let fast = read(&next, &known).chain.expect("a list of items has a chain");
    assert_eq!(fast.first, chain.items, "the fast path is not taken");

    let mut group = criterion.benchmark_group("recognise 2 MB");
    group.throughput(Throughput::Bytes(next.len() as u64));
    group.bench_function("long way", |bencher| bencher.iter(|| read(black_box(&next), &[])));
    group.bench_function("byte fast path", |bencher| bencher.iter(|| read(black_box(&next), &known)));
    group.bench_function("split alone", |bencher| {
        bencher.iter(|| {
            let text = std::str::from_utf8(black_box(&next)).expect("the bench writes UTF-8");
            let members = json::members(text).expect("the bench writes JSON");
            let input = json::find(&members, "input").expect("the bench writes an input");
            json::elements(&text[input.value.clone()]).map(|items| items.len())
        });
    });
    group.finish();
}

criterion_group!(benches, recognise);
criterion_main!(benches);
