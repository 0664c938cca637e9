//! What the proxy weighs: the real binary as a process of its own before a simulated provider, under 1,000 slow readers,
//! 60 MiB bodies, 200 MB of events to a stalled client, 100,000 conversations and 10,000 scopes. Resident memory before,
//! at its peak and after, and whether each limit held with the consequence that `proxy.toml` names.
//!
//! `just memory`, or `cargo bench --bench memory -- [SCENARIO…] [--scale=PERCENT]`. `TAILWIRE_BINARY` names another build.
//! Linux only: it reads `/proc`. Not part of `cargo test`; what a test can show without weighing is in `tests/faults`.

use std::process::ExitCode;

#[path = "memory/bodies.rs"]
mod bodies;
#[path = "memory/client.rs"]
mod client;
#[path = "memory/crowds.rs"]
mod crowds;
#[path = "memory/house.rs"]
mod house;
#[path = "memory/readers.rs"]
mod readers;
#[path = "memory/report.rs"]
mod report;

use report::{Line, Scale};

const SCENARIOS: [&str; 8] = [
    "idle",
    "slow-readers",
    "stalled-alone",
    "stalled-beside",
    "body-first",
    "body-delta",
    "conversations",
    "scopes",
];

fn main() -> ExitCode {
    let (mut wanted, mut scale) = (Vec::new(), Scale(100));
    // cargo itself passes `--bench`.
    for argument in std::env::args().skip(1).filter(|argument| argument != "--bench") {
        match argument.strip_prefix("--scale=").map(str::parse) {
            Some(Ok(percent @ 1..=100)) => scale = Scale(percent),
            None if SCENARIOS.contains(&&*argument) => wanted.push(argument),
            _ => {
                eprintln!("unknown: {argument}; there are --scale=1..100 and {}", SCENARIOS.join(", "));
                return ExitCode::from(64);
            }
        }
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut good = true;
    println!("{}", Line::head(&house::describe()));
    for name in SCENARIOS.iter().filter(|name| wanted.is_empty() || wanted.iter().any(|want| want == *name)) {
        let line = runtime.block_on(async {
            match *name {
                "idle" => crowds::idle().await,
                "slow-readers" => readers::slow(scale).await,
                "stalled-alone" => readers::stalled(scale, false).await,
                "stalled-beside" => readers::stalled(scale, true).await,
                "body-first" => bodies::first(scale).await,
                "body-delta" => bodies::delta(scale).await,
                "conversations" => crowds::conversations(scale).await,
                _ => crowds::scopes(scale).await,
            }
        });
        good &= line.is_good();
        println!("{line}");
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
