//! `tailwire demo`: one scripted agent, first straight to a simulated provider, then through tailwire, in one process;
//! and a table of what each way cost.
//!
//! It is also a check: every context must be the one the direct run had, every turn after the first a delta, no rule of
//! the provider broken; else it fails, and says where. What is measured is in `demo/figures.rs`.

mod agent;
mod figures;
mod speech;
mod table;
mod text;
mod workload;

use std::io::{self, Write};

use hyper::Uri;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use self::agent::{Agent, Turn};
use self::figures::{Figures, Run};
use self::workload::Workload;
use crate::app;
use crate::args::{DemoApi, DemoArgs, DemoCompression};
use crate::config::{AdminListen, Compression, ProfileName, Settings};
use crate::sim::script::Link;
use crate::sim::{self, Script};

/// Runs the demonstration, prints its table on stdout, and writes the figures where they were asked for.
///
/// # Errors
/// A port cannot be bound, a turn failed, the figures cannot be written; or the runs contradict what tailwire promises.
pub async fn run(arguments: DemoArgs) -> io::Result<()> {
    let figures = measure(&arguments).await?;
    io::stdout().write_all(table::table(&figures).as_bytes())?;
    if let Some(path) = &arguments.json {
        let mut json = serde_json::to_vec_pretty(&figures)?;
        json.push(b'\n');
        std::fs::write(path, json)?;
    }
    match figures.faults.len() {
        0 => Ok(()),
        count => Err(io::Error::other(format!("the demonstration FAILED in {count} points; see above"))),
    }
}

async fn measure(arguments: &DemoArgs) -> io::Result<Figures> {
    let workload = Workload::new(arguments)?;
    let ways = ways(arguments.compression);
    let bar = ProgressBar::new(ways.len() as u64 * u64::from(workload.calls + 1));
    // A template that does not parse leaves the plain bar.
    if let Ok(style) = ProgressStyle::with_template("{msg:32} [{bar:40}] {pos}/{len} turns, {elapsed}") {
        bar.set_style(style.progress_chars("=> "));
    }
    let mut runs = Vec::new();
    for way in ways {
        bar.set_message(way.name());
        runs.push(travel(way, arguments, &workload, &bar).await?);
    }
    bar.finish_and_clear();
    Ok(Figures::new(arguments, &workload, &runs))
}

/// How the agent reaches the provider.
#[derive(Clone, Copy, Debug)]
enum Way {
    Direct,
    Through(Compression),
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Through(Compression::Off) => "tailwire, no compression",
            Self::Through(_) => "tailwire",
        }
    }
}

fn ways(compression: DemoCompression) -> Vec<Way> {
    let (on, off) = (Way::Through(Compression::Auto), Way::Through(Compression::Off));
    match compression {
        DemoCompression::On => vec![Way::Direct, on],
        DemoCompression::Off => vec![Way::Direct, off],
        DemoCompression::Both => vec![Way::Direct, on, off],
    }
}

/// One run against a provider of its own, so that nothing is left over from the one before.
async fn travel(way: Way, arguments: &DemoArgs, workload: &Workload, bar: &ProgressBar) -> io::Result<Run> {
    let provider = sim::Running::start(script(arguments)).await?;
    let stream = !arguments.no_stream;
    let began = Instant::now();
    let (turns, wall) = match way {
        Way::Direct => {
            let turns =
                Agent::new(&provider.base_url(), arguments.api, stream).run(workload, || bar.inc(1)).await?;
            (turns, began.elapsed())
        }
        Way::Through(compression) => {
            let proxy = app::Running::start(settings(&provider.base_url(), compression)?).await?;
            let turns =
                Agent::new(&proxy.base_url(), arguments.api, stream).run(workload, || bar.inc(1)).await;
            let wall = began.elapsed();
            proxy.stop().await;
            (turns?, wall)
        }
    };
    let mut turns = turns;
    contexts(arguments.api, &provider, &mut turns);
    let (traffic, violations) = provider.provider.ledger().read(|book| {
        let violations = book.violations.iter().map(|violation| format!("{violation:?}")).collect();
        (book.traffic(), violations)
    });
    provider.stop().await.map_err(io::Error::other)?;
    Ok(Run { name: way.name(), through: matches!(way, Way::Through(_)), turns, wall, traffic, violations })
}

/// What the model saw for each answer. With Chat without its hidden reasoning, which a direct client cannot send back.
fn contexts(api: DemoApi, provider: &sim::Running, turns: &mut [Turn]) {
    provider.provider.ledger().read(|book| {
        for turn in turns {
            let Some(record) = book.answer(&turn.id) else { continue };
            turn.context = match api {
                DemoApi::Responses => format!("{} {}", record.digests.context, record.digests.visible),
                DemoApi::Chat => record.digests.visible.clone(),
            };
        }
    });
}

fn script(arguments: &DemoArgs) -> Script {
    let link =
        Link { rtt: arguments.link.rtt, uplink: arguments.link.uplink.div_ceil(8), handshakes: HANDSHAKES };
    let speed = f64::from(arguments.link.tokens_per_second);
    Script { speed, link, deflate: true, ..Script::default() }
}

fn settings(upstream: &str, compression: Compression) -> io::Result<Settings> {
    Ok(Settings {
        listen: ([127, 0, 0, 1], 0).into(),
        admin_listen: AdminListen::Off,
        upstream: upstream.parse::<Uri>().map_err(io::Error::other)?,
        profile: ProfileName::Openai,
        compression,
        ..Settings::default()
    })
}

/// Round trips before a new connection's first byte: TCP's and TLS 1.3's.
const HANDSHAKES: u32 = 2;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::args::LinkArgs;

    fn arguments(api: DemoApi, no_stream: bool) -> DemoArgs {
        DemoArgs {
            calls: 6,
            instructions: 8 << 10,
            tools: 10 << 10,
            result_min: 1 << 10,
            result_max: 8 << 10,
            link: LinkArgs { rtt: Duration::ZERO, uplink: 1_000_000_000, tokens_per_second: 0 },
            api,
            compression: DemoCompression::Both,
            json: None,
            no_stream,
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_short_run_keeps_its_promises() {
        let apis = [DemoApi::Responses, DemoApi::Chat];
        for (api, no_stream) in apis.into_iter().flat_map(|api| [(api, false), (api, true)]) {
            let figures = measure(&arguments(api, no_stream)).await.unwrap();
            assert_eq!(figures.faults, Vec::<String>::new());
            let rows: Vec<_> = figures.rows.iter().map(|row| (row.turns, row.delta, row.equal)).collect();
            assert_eq!(rows, [(7, 0, 7), (7, 6, 7), (7, 6, 7)]);
            assert!(figures.rows[1].saved > figures.rows[2].saved && figures.rows[2].saved > 0.3);
        }
    }
}
