//! The two ways through the proxy, and requests for each.

use tailwire::app;
use tailwire::config::Settings;
use tailwire::sim::ledger::Outcome;

use crate::raw::{Answer, Recorder};
use crate::world::{World, settings_for};

/// What every request says here.
pub(crate) const WHO: &str =
    "host: t\r\nauthorization: Bearer sk-planted-a\r\ncontent-type: application/json\r\n";

/// A turn's way, and everything else's.
pub(crate) const WAYS: [&str; 2] = ["/v1/responses", "/v1/echo"];

/// A turn's body; any other way takes it as well.
pub(crate) const BODY: &str = r#"{"model":"gpt-sim","store":false,"input":"hi"}"#;

/// A request with [`BODY`] and these further header lines.
pub(crate) fn post(path: &str, lines: &str) -> String {
    format!("POST {path} HTTP/1.1\r\n{WHO}{lines}content-length: {}\r\n\r\n{BODY}", BODY.len())
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\n{WHO}\r\n")
}

/// [`BODY`] in chunks of so many bytes.
pub(crate) fn chunks(size: usize) -> String {
    let pieces: Vec<&str> =
        BODY.as_bytes().chunks(size).map(|piece| str::from_utf8(piece).unwrap()).collect();
    pieces.iter().map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len())).collect()
}

/// The answer to [`BODY`] on either way.
pub(crate) fn assert_answered(path: &str, answer: &Answer) {
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    assert!(answer.header("content-length").is_some(), "{path}: {answer:?}");
    let body = answer.json();
    match path {
        "/v1/responses" => assert_eq!(body["status"], "completed", "{answer:?}"),
        _ => assert_eq!(body["bytes"], BODY.len(), "{answer:?}"),
    }
}

/// How much the provider was asked: requests over HTTP, and turns.
pub(crate) fn asked(world: &World) -> (u64, usize) {
    world.ledger().read(|book| (book.http_requests, book.turns.len()))
}

/// How many turns the provider was stopped in.
pub(crate) async fn assert_cancelled(world: &World) {
    assert!(world.ledger().wait(|book| book.count(Outcome::Cancelled) == 1).await, "it goes on for nobody");
}

/// A proxy in front of something that is no provider.
pub(crate) async fn proxy(upstream: &Recorder, change: impl FnOnce(&mut Settings)) -> app::Running {
    let mut settings = settings_for(&upstream.base_url());
    change(&mut settings);
    app::Running::start(settings).await.unwrap()
}
