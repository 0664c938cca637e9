//! The fuzz targets without a fuzzer: every seed, and some thousands of changed ones, the same ones each time. So checks and
//! seeds cannot rot; what lies further off is `just fuzz`'s to find.

#[path = "../fuzz/checks/canonical.rs"]
mod canonical;
#[path = "../fuzz/checks/chat_reply.rs"]
mod chat_reply;
#[path = "../fuzz/checks/frame_parse.rs"]
mod frame_parse;
#[path = "../fuzz/checks/lane_ops.rs"]
mod lane_ops;
#[path = "../fuzz/checks/request_spans.rs"]
mod request_spans;
#[path = "../fuzz/checks/sse_decode.rs"]
mod sse_decode;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

#[test]
fn canonical_form() {
    replay("canonical", 2000, canonical::check);
}

#[test]
fn chat_replies() {
    replay("chat_reply", 3000, chat_reply::check);
}

#[test]
fn frames_of_the_provider() {
    replay("frame_parse", 1500, frame_parse::check);
}

#[test]
fn lane_operations() {
    replay("lane_ops", 10_000, lane_ops::check);
}

#[test]
fn spans_of_a_request() {
    replay("request_spans", 2000, request_spans::check);
}

#[test]
fn sse_in_pieces() {
    replay("sse_decode", 5000, sse_decode::check);
}

fn replay(target: &str, changed: usize, check: impl Fn(&[u8])) {
    let seeds = seeds(target);
    assert!(seeds.len() >= 3, "{target} has {} seeds", seeds.len());
    let mut chance = Chance(0x9E37_79B9_7F4A_7C15);
    for seed in &seeds {
        run(target, seed, &check);
    }
    for _ in 0..changed {
        let mut data = chance.pick(&seeds).clone();
        for _ in 0..=chance.below(3) {
            change(&mut data, chance.pick::<Vec<u8>>(&seeds), &mut chance);
        }
        run(target, &data, &check);
    }
}

/// Says what broke a check, in a form that makes a seed.
fn run(target: &str, data: &[u8], check: impl Fn(&[u8])) {
    let broken = catch_unwind(AssertUnwindSafe(|| check(data)));
    if let Err(panic) = broken {
        eprintln!("{target} broke on {}", data.escape_ascii());
        resume_unwind(panic);
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let entries = fs::read_dir(folder).expect("seeds");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a seed").path()).collect();
    // The order of a folder is the file system's.
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a seed")).collect()
}

/// One small change: a bit, a piece gone, a piece twice, or a piece of another seed.
fn change(data: &mut Vec<u8>, other: &[u8], chance: &mut Chance) {
    let from = chance.below(data.len() + 1);
    let to = (from + chance.below(12)).min(data.len());
    match chance.below(5) {
        0 => data.iter_mut().skip(from).take(1).for_each(|byte| *byte ^= 1 << chance.below(8)),
        1 => drop(data.drain(from..to)),
        2 => drop(data.splice(from..from, data[from..to].to_vec())),
        3 => {
            let start = chance.below(other.len() + 1);
            let end = (start + chance.below(40)).min(other.len());
            drop(data.splice(from..to, other[start..end].iter().copied()));
        }
        _ => {
            let letters = b"\"\\{}[]:,0-e.n \n\r\xffu";
            data.insert(from, letters[chance.below(letters.len())]);
        }
    }
}

/// Xorshift.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or_default() % bound.max(1)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
