//! What it costs to relay an answer: 1,000 delta events as the socket brings them, parsed, restored and written as
//! server-sent events.
//!
//! Measures no socket.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tailwire::proto::dialect::responses::Restorer;
use tailwire::proto::wire::event::Event;

fn frames(count: usize) -> Vec<Bytes> {
    let opening = [
        r#"{"type":"response.created","sequence_number":0,"stream_id":"a","response":{"id":"resp_1","object":"response","status":"in_progress","output":[]}}"#,
        r#"{"type":"response.output_item.added","sequence_number":1,"stream_id":"a","output_index":0,"item":{"id":"msg_1","type":"message","role":"assistant","status":"in_progress","content":[]}}"#,
        r#"{"type":"response.content_part.added","sequence_number":2,"stream_id":"a","item_id":"msg_1","output_index":0,"content_index":0,"part":{"type":"output_text","text":"","annotations":[]}}"#,
    ];
    let delta = |n: usize| {
        format!(
            r#"{{"type":"response.output_text.delta","sequence_number":{},"stream_id":"a","item_id":"msg_1","output_index":0,"content_index":0,"delta":" word{n}","logprobs":[],"obfuscation":"xK3pQ9"}}"#,
            n + opening.len()
        )
    };
    let opening = opening.iter().map(|frame| Bytes::from_static(frame.as_bytes()));
    opening.chain((0..count).map(|n| Bytes::from(delta(n)))).collect()
}

fn relay(criterion: &mut Criterion) {
    let frames = frames(1000);
    let mut group = criterion.benchmark_group("relay");
    group.throughput(Throughput::Elements(frames.len() as u64));
    group.bench_function("1,000 deltas", |bencher| {
        bencher.iter_batched(
            || (Restorer::new(None), Vec::with_capacity(1 << 20)),
            |(mut restorer, mut out)| {
                for frame in &frames {
                    let event = Event::parse(black_box(frame.clone())).expect("the bench writes events");
                    restorer.write(&event, &mut out);
                }
                out
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, relay);
criterion_main!(benches);
