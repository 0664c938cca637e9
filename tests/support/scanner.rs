//! Hears everything that tailwire says in a test binary, at `trace` and through its own subscriber, and ends the binary at
//! the first line that holds a credential or words of a message.
//!
//! Knows only how tests write those: credentials begin with `sk-planted-`, prompts hold a `[sim …]` directive, agents are
//! told to be brief, their tools say "ok ok ok", and the simulated model says `naïve` things. Standard output and the
//! lines of other programs are not heard.

use std::io::{self, Write};
use std::process;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use tailwire::telemetry;

/// What no line may hold, as it is and as `Debug` and JSON write it.
const PLANTED: &[&str] = &[
    "planted",
    "Bearer ",
    "[sim ",
    "Be brief",
    "ok ok ok",
    "naïve",
    "na\\xc3\\xafve",
    "na\\u00efve",
    "überall",
    "\\xc3\\xbcberall",
    "\\u00fcberall",
];

static LINES: AtomicUsize = AtomicUsize::new(0);

/// Begins to listen; once in a process.
pub(crate) fn listen() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| assert!(telemetry::init_to("trace", true, || Scanner), "somebody else listens"));
}

/// How many lines were heard so far.
pub(crate) fn lines() -> usize {
    LINES.load(Ordering::Relaxed)
}

/// What a line holds that it must not.
pub(crate) fn planted(line: &[u8]) -> Option<&'static str> {
    let line = String::from_utf8_lossy(line);
    PLANTED.iter().find(|planted| line.contains(**planted)).copied()
}

struct Scanner;

impl Write for Scanner {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LINES.fetch_add(1, Ordering::Relaxed);
        if let Some(planted) = planted(line) {
            // Not the line: it is what must not be seen. Past the test harness, which would keep it to itself.
            let module = module(line);
            let _ = writeln!(io::stderr(), "LEAK: {module} has logged what holds {planted:?}");
            process::exit(101);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn module(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    let target = line.split_once("\"target\":\"").map_or("?", |(_, rest)| rest);
    target.split('"').next().unwrap_or_default().to_owned()
}

#[test]
fn a_planted_secret_is_found_however_it_is_written() {
    for line in [
        r#"{"fields":{"headers":"{\"authorization\": \"Bearer x\"}"}}"#,
        "key=sk-planted-a",
        r#"body=b"{\"input\":\"go [sim text=9]\"}""#,
        "text=\"a naïve tool\"",
        r#"body=b"a na\xc3\xafve tool""#,
    ] {
        assert!(planted(line.as_bytes()).is_some(), "{line}");
    }
    assert_eq!(planted(br#"{"fields":{"message":"turn","plan":"delta"}}"#), None);
    assert_eq!(module(br#"{"level":"INFO","target":"tailwire::proxy","fields":{}}"#), "tailwire::proxy");
}

#[test]
fn what_is_said_at_trace_is_heard() {
    listen();
    let before = lines();
    tracing::trace!(target: "tailwire::test", "a line");
    assert!(lines() > before);
}

/// The process that leaks is another one, or this one would end.
#[test]
fn a_leak_ends_the_binary() {
    const LEAKY: &str = "TEST_LEAKS";
    if std::env::var_os(LEAKY).is_some() {
        listen();
        tracing::trace!(target: "tailwire::test", authorization = "Bearer sk-planted-x", "a leak");
        return;
    }
    let path = module_path!().split_once("::").map_or("", |(_, path)| path);
    let output = process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{path}::a_leak_ends_the_binary")])
        .env(LEAKY, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(101), "{said}");
    assert!(said.contains("LEAK: tailwire::test"), "{said}");
    assert!(!said.contains("sk-planted-x"), "{said}");
}
