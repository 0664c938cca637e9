//! Many small things: nothing at all, 100,000 conversations, 10,000 scopes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tailwire::sim::Script;
use tokio::task::JoinSet;

use crate::client::{self, Line as Connection};
use crate::house::House;
use crate::report::{Line, Scale};

const WORKERS: usize = 32;
/// `limits.sockets` and `limits.sockets_per_credential` at their defaults.
const SOCKETS: usize = 256;
const OF_ONE: usize = 16;
/// `limits.index` as it is set here, in KiB, and what allocator and tables may add to what is counted.
const INDEX: u64 = 64 << 10;
const SLACK: u64 = 2;

/// What it weighs with nothing to do.
pub(crate) async fn idle() -> Line {
    let house = House::start(Script::default(), &[]).await;
    let (weighed, took) = house.weigh().await;
    Line::new("idle", weighed, took)
}

/// Plans by name, of `count` turns made by a few clients at once.
async fn crowd(
    house: &House,
    count: usize,
    make: impl Fn(usize) -> (String, bytes::Bytes) + Send + Sync + 'static,
) -> BTreeMap<String, usize> {
    let (next, make) = (Arc::new(AtomicUsize::new(0)), Arc::new(make));
    let mut working = JoinSet::new();
    for _ in 0..WORKERS {
        let (addr, next, make) = (house.addr, next.clone(), make.clone());
        working.spawn(async move {
            let mut plans: BTreeMap<String, usize> = BTreeMap::new();
            let mut line = Connection::open(addr).await;
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return plans;
                }
                let (key, body) = make(n);
                let answer = line.post(&key, body).await;
                let plan = if answer.status == 200 { answer.plan } else { answer.status.to_string() };
                *plans.entry(plan).or_default() += 1;
            }
        });
    }
    let mut all: BTreeMap<String, usize> = BTreeMap::new();
    for (plan, count) in working.join_all().await.into_iter().flatten() {
        *all.entry(plan).or_default() += count;
    }
    all
}

fn told(plans: &BTreeMap<String, usize>) -> String {
    let told: Vec<String> = plans.iter().map(|(plan, count)| format!("{count} × {plan}")).collect();
    told.join(", ")
}

fn opening(n: usize) -> serde_json::Value {
    client::user(&format!("conversation {n}: hello [sim text=20]"))
}

/// One small first turn each; then the oldest and the newest go on.
pub(crate) async fn conversations(scale: Scale) -> Line {
    let count = scale.of(100_000);
    let house = House::start(Script::default(), &[]).await;
    let plans = crowd(&house, count, |n| ("key".to_owned(), client::turn(false, &[opening(n)]))).await;
    let mut next = Vec::new();
    // One more begins now, and is the newest.
    let body = client::turn(false, &[opening(count)]);
    let newest = client::post(house.addr, "key", body).await.json();
    for (n, said) in [(0, &newest), (count, &newest)] {
        let mut history = vec![opening(n)];
        history.extend(said["output"].as_array().cloned().unwrap_or_default());
        history.push(client::user("go on [sim text=20]"));
        next.push(client::post(house.addr, "key", client::turn(false, &history)).await.plan);
    }
    let sockets = house.sim.provider.ledger().read(|book| book.sockets_open);
    let (weighed, took) = house.weigh().await;
    let full = scale.0 == 100;
    Line::new("conversations", weighed, took)
        .check(
            plans.get("full; first-turn") == Some(&count) && sockets <= OF_ONE + 1,
            format!("{} on {sockets} sockets, of at most {OF_ONE} and the first turn's", told(&plans)),
        )
        .check(
            next[1] == "delta" && (!full || next[0] == "full; first-turn"),
            format!("the oldest, forgotten, goes on as {}, the newest as {}", next[0], next[1]),
        )
        .check(
            weighed.after <= weighed.before + SLACK * INDEX,
            "what stays is the index, 64 MiB by its own count, and the sockets",
        )
}

/// So many credentials, then as many users behind one of them.
pub(crate) async fn scopes(scale: Scale) -> Line {
    let count = scale.of(10_000);
    let house = House::start(Script::default(), &[]).await;
    let keys = crowd(&house, count, |n| (format!("key-{n}"), client::turn(false, &[opening(n)]))).await;
    let users = crowd(&house, count, |n| {
        let body = serde_json::json!({ "model": "m", "store": false, "user": format!("u{n}"), "input": [opening(n)] });
        ("warm".to_owned(), body.to_string().into())
    })
    .await;
    let (open, granted) = house.sim.provider.ledger().read(|book| (book.sockets_open, book.upgrades_granted));
    let (weighed, took) = house.weigh().await;
    let enough = count > SOCKETS;
    Line::new("scopes", weighed, took)
        .check(
            open <= SOCKETS && (!enough || keys.keys().any(|plan| plan == "http; busy")),
            format!("credentials: {}; {open} sockets open of at most {SOCKETS}, {granted} ever", told(&keys)),
        )
        .check(
            // A second socket for them may be one too many in all.
            users.keys().all(|plan| plan.starts_with("full; ") || plan == "http; busy")
                && users.values().sum::<usize>() == count,
            format!("users of one credential: {}", told(&users)),
        )
}
