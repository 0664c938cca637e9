//! Bodies of 60 MiB: as first turns, several at once until there is no room for more; and as a delta.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tailwire::sim::Script;
use tailwire::sim::script::Link;
use tokio::task::JoinSet;

use crate::client;
use crate::house::House;
use crate::report::{Line, Scale};

const MIB: usize = 1 << 20;

/// History of about `bytes`, in items as an agent's are.
fn history(bytes: usize) -> Vec<Value> {
    let file = "let value = self.table.insert(key, 17)?;\n".repeat(2400);
    (0..bytes.div_ceil(100 << 10)).map(|n| client::user(&format!("{n} {file}"))).collect()
}

/// Six at once with room for four: over HTTP, for a frame takes 15 MiB; those beyond are told to try again.
pub(crate) async fn first(scale: Scale) -> Line {
    let settings = [("LIMITS_ALL_BODIES", "256MiB")];
    let house = House::start(Script::default(), &settings).await;
    // All bodies are there before the first is answered.
    house.sim.provider.script(|script| {
        script.link = Link { rtt: Duration::from_secs(10), ..Link::default() };
    });
    let size = scale.of(60).max(16) * MIB;
    let mut items = history(size);
    items.push(client::user("hi [sim text=20]"));
    let body = client::turn(false, &items);
    let copies = 256 * MIB / body.len() + 2;
    let mut asking = JoinSet::new();
    for n in 0..copies {
        let (addr, body) = (house.addr, body.clone());
        asking.spawn(async move { client::post(addr, &format!("key-{n}"), body).await });
    }
    let answers = asking.join_all().await;
    let count = |status: u16, plan: &str| {
        answers.iter().filter(|answer| answer.status == status && answer.plan == plan).count()
    };
    let (served, refused) = (count(200, "http; too-large"), count(503, ""));
    let (weighed, took) = house.weigh().await;
    let each = (weighed.peak - weighed.before) as usize * 1024 / body.len();
    Line::new("body-first", weighed, took)
        .check(
            served + refused == copies && served >= 1 && served <= copies - 2 && refused >= 2,
            format!(
                "{copies} of {} MiB, all_bodies 256 MiB: {served} over HTTP, {refused} answered 503",
                size / MIB
            ),
        )
        .check(each <= served + 3, format!("at the peak there were {each} bodies' worth"))
}

/// One conversation that grows to 60 MiB in steps that fit a frame; the last turn is a small delta.
pub(crate) async fn delta(scale: Scale) -> Line {
    let house = House::start(Script::default(), &[]).await;
    let step = scale.of(12).max(2) * MIB;
    let mut items: Vec<Value> = Vec::new();
    let mut plans = Vec::new();
    let mut size = 0;
    for n in 0..6 {
        items.extend(if n < 5 { history(step) } else { Vec::new() });
        items.push(client::user("go on [sim text=20]"));
        let body: Bytes = client::turn(n % 2 == 0, &items);
        size = body.len();
        let answer = client::post(house.addr, "key", body).await;
        plans.push(answer.plan.clone());
        let response = if n % 2 == 0 { last_response(&answer.body) } else { answer.json() };
        items.extend(response["output"].as_array().cloned().unwrap_or_default());
    }
    let (weighed, took) = house.weigh().await;
    let tenths = (weighed.peak - weighed.before) as usize * 1024 * 10 / size;
    Line::new("body-delta", weighed, took)
        .check(
            plans[0] == "full; first-turn" && plans[1..].iter().all(|plan| plan == "delta"),
            format!("a body of {} MiB at last; {}", size / MIB, plans.join(", ")),
        )
        .check(tenths <= 40, format!("at the peak there were {}.{} bodies' worth", tenths / 10, tenths % 10))
}

fn last_response(stream: &[u8]) -> Value {
    let text = String::from_utf8_lossy(stream);
    let data = text.rsplit("data: ").next().unwrap_or_default();
    serde_json::from_str::<Value>(data.trim())
        .map_or_else(|_| json!({}), |mut event| event["response"].take())
}
