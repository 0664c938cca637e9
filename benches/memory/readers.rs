//! Clients that stop reading: a thousand of them, and one with 200 MB before it, alone and beside a neighbour.

use std::time::Duration;

use tailwire::sim::Script;
use tailwire::sim::script::{Limits, Link, Style};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::{self, Stalled};
use crate::house::House;
use crate::report::{Line, Scale};

const KIB: u64 = 1;
const MIB: u64 = 1 << 10;
/// `limits.all_buffers` and `limits.turn_buffer` as they are set here, which is their default.
const ALL: u64 = 256 * MIB;
const TURN: u64 = 16 * MIB;
/// What else a reader that stalls may hold: hyper's write buffer, a piece on its way there and the event after the last,
/// its head and its body's state.
const READER: u64 = 256 * KIB + 64 * KIB + 64 * KIB + 64 * KIB;
/// Turns of one credential that share a socket.
const LANES: usize = 16;

fn script() -> Script {
    Script { style: Style { single_delta: true, ..Style::default() }, ..Script::default() }
}

fn completed(answer: &client::Answer) -> bool {
    !answer.broken && answer.last_event() == "response.completed"
}

fn given_up(answer: &client::Answer) -> bool {
    answer.broken && answer.ends_with("tailwire_slow_reader")
}

/// So many clients, sixteen to a socket, each with about 1.6 MB to come; then a tenth reads on and the others leave.
pub(crate) async fn slow(scale: Scale) -> Line {
    let readers = scale.of(1000);
    let house = House::start(script(), &[]).await;
    let body = client::turn(true, &[client::user("much [sim calls=1 parallel=10 args=40000]")]);
    let mut asking = JoinSet::new();
    for n in 0..readers {
        let (addr, body) = (house.addr, body.clone());
        asking.spawn(async move { Stalled::ask(addr, &format!("key-{}", n / LANES), body).await });
    }
    let mut stalled = asking.join_all().await;
    house.standstill().await;
    let held = house.settled().await;
    let told = house.sim.provider.ledger().read(|book| book.traffic().1) / 1024 / 1024;

    let mut resuming = JoinSet::new();
    for reader in stalled.drain(..readers.div_ceil(10)) {
        resuming.spawn(reader.resume());
    }
    let resumed = resuming.join_all().await;
    drop(stalled);
    let (whole, ended) = (
        resumed.iter().filter(|answer| completed(answer)).count(),
        resumed.iter().filter(|answer| given_up(answer)).count(),
    );
    let next = client::post(house.addr, "key-0", client::turn(false, &[client::user("hi")])).await;
    let (weighed, took) = house.weigh().await;
    let bound = weighed.before + ALL + readers as u64 * READER;
    Line::new("slow-readers", weighed, took)
        .check(
            weighed.peak <= bound,
            format!(
                "{readers} readers, {told} MB told by the provider, {} MiB held at the standstill; the bound is {} MiB",
                held / 1024,
                bound / 1024
            ),
        )
        .check(
            whole + ended == resumed.len(),
            format!("of {} that read on {whole} got all, {ended} the slow-reader fault", resumed.len()),
        )
        .check(next.status == 200, format!("the next turn is served ({})", next.plan))
}

/// 200 MB to a client that stops. Alone it is waited for; beside a neighbour it loses its turn.
pub(crate) async fn stalled(scale: Scale, beside: bool) -> Line {
    let house = House::start(script(), &[]).await;
    let provider = &house.sim.provider;
    let calls = scale.of(50).max(8);
    let body =
        client::turn(true, &[client::user(&format!("much [sim calls=1 parallel={calls} args=1000000]"))]);
    let mut neighbour = client::Line::open(house.addr).await;
    // Both requests are under way before the first is answered, and they are worked on one after the other.
    provider.script(|script| {
        script.limits = Limits { in_flight: 1, ..Limits::default() };
        script.link = Link { rtt: Duration::from_millis(500), ..Link::default() };
    });
    let started = tokio::spawn(Stalled::ask(house.addr, "warm", body));
    let mut spoken = None;
    if beside {
        sleep(Duration::from_millis(100)).await;
        let body = client::turn(false, &[client::user("a little [sim text=20]")]);
        spoken = Some(neighbour.post("warm", body).await);
    }
    let reader = started.await.expect("a head");
    house.standstill().await;
    let held = house.settled().await;
    let answer = reader.resume().await;
    let told = provider.ledger().read(|book| book.traffic().1) / 1024 / 1024;
    let (weighed, took) = house.weigh().await;
    let name = if beside { "stalled-beside" } else { "stalled-alone" };
    let line = Line::new(name, weighed, took).check(
        // The last event holds all calls again, a little longer for what JSON escapes.
        held <= weighed.before + TURN + calls as u64 * MIB * 5 / 4 + 8 * MIB,
        format!(
            "{} MiB held at the standstill, of {told} MB; turn_buffer is 16 MiB, the last event {calls} MB",
            held / 1024
        ),
    );
    match spoken {
        Some(spoken) => line
            .check(spoken.status == 200, format!("the neighbour was served meanwhile ({})", spoken.plan))
            .check(given_up(&answer), "the reader lost its turn: tailwire_slow_reader, then a broken end"),
        None => line.check(
            completed(&answer),
            format!("the reader was waited for and got all {} MB", answer.body.len() >> 20),
        ),
    }
}
