//! `docs/metrics.md` is what `/metrics` serves; `UPDATE=1 cargo test --test admin metrics_page` writes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::json;

use crate::reader::{Family, Scrape};
use crate::support::{admin, looked_at, scrape};

#[tokio::test]
async fn metrics_page() {
    let world = looked_at(|_| (), |_| ()).await;
    world.proxied().ask(&json!({"model": "m", "input": "hi"})).await;
    let page = page(&scrape(&admin(&world)).await);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/metrics.md is not what /metrics serves: UPDATE=1 cargo test --test admin metrics_page"
    );
}

fn page(scrape: &Scrape) -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str("| Name | Type | Labels | What it counts |\n|---|---|---|---|\n");
    for family in &scrape.families {
        let (name, labels) = (name(family), labels(family));
        page.push_str(&format!("| `{name}` | {} | {labels} | {} |\n", family.kind, family.help));
    }
    page
}

/// As a query names it.
fn name(family: &Family) -> String {
    match family.kind.as_str() {
        "counter" => format!("{}_total", family.name),
        "info" => format!("{}_info", family.name),
        _ => family.name.clone(),
    }
}

fn labels(family: &Family) -> String {
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for sample in &family.samples {
        for (label, value) in sample.labels.iter().filter(|(label, _)| *label != "le") {
            values.entry(label).or_default().insert(value);
        }
    }
    let told = |(label, values): (&&str, &BTreeSet<&str>)| match *label {
        "reason" | "version" | "upstream" | "profile" => format!("`{label}`"),
        _ => format!("`{label}`: {}", values.iter().copied().collect::<Vec<_>>().join(", ")),
    };
    values.iter().map(told).collect::<Vec<_>>().join("; ")
}

const INTRODUCTION: &str = "\
# Metrics

What the admin listener (`admin_listen`, by default `http://127.0.0.1:8485`) tells. This page is written by a test from what it serves.

| Path | What |
|---|---|
| `/` | the dashboard: one page, live over `/events`, that loads nothing from elsewhere |
| `/live` | 200 while the process serves |
| `/ready` | 200 while turns may be sent here; 503 with `reason` `draining` or `upstream-unreachable` |
| `/metrics` | Prometheus text; OpenMetrics for who accepts `application/openmetrics-text` |
| `/stats` | how things stand, as JSON: the figures below, quantiles, every socket with its lanes |
| `/turns` | the last turns (`limits.recent_turns`), as JSON: sizes, times, plan, reason, recovery, outcome |
| `/events` | server-sent events: `snapshot`, then `turn` for each, `stats` each second while anything changes, `missed` for a slow reader |

It answers GET and HEAD, to names of this machine and to no page of another site. Listening elsewhere takes `admin_allow_remote`; there is neither
TLS nor a key before it then. Nothing on it holds content, a key, a model's name, or whose something is. `/ready` connects to the upstream (name,
TCP, TLS; no request) when what it knows is older than `timeouts.ready`.

Bytes saved are `1 - tailwire_wire_bytes_total / tailwire_received_bytes_total`; without compression, `sent` in place of `wire`. A turn and its
bytes are counted when its answer begins, or when its client leaves before that; its times when it ends. Buckets are exact, not estimated.
A `plan` is how a turn travelled: `delta` (only the new items), `full` (the whole history over a socket) or `http` (the client's own bytes). Every
`reason` is explained on the dashboard and in `x-tailwire`'s own words; series of reasons come as they occur, all others are there from the start.

";
