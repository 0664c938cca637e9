//! What goes wrong, and when: mishaps of the provider, its ways of writing, and restarts of either side.
//!
//! Paced by turns, not by the clock: a slow machine has as many mishaps in a turn as a fast one. Only a provider that has been
//! slow for long becomes another one sooner.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tailwire::sim::script::{Limits, Link, NotFound, Style, Trickle, Upgrade};
use tailwire::sim::{Fault, Mishap, Moment, Script};
use tokio::time::sleep;

use crate::World;
use crate::chance::Chance;
use crate::excuse::MARK;
use crate::proxy::{End, Life};
use crate::trouble::Trouble;

/// Until the run is over.
pub(crate) async fn run(world: Arc<World>) {
    let mut chance = Chance::new(world.plan.seed, 9_999_999);
    let (mut mishaps, mut manners, mut reloads, mut restarts) = (0, 0, 0, 0);
    let mut same_since = Instant::now();
    while !world.is_over() {
        let turns = world.tally.turns();
        if turns >= mishaps {
            mishaps = turns + chance.within(1, 2 * TURNS_A_MISHAP) as u64;
            queue(&world, &mut chance);
        }
        if turns >= manners || same_since.elapsed() >= LONGEST_MANNER {
            same_since = Instant::now();
            manners = turns + chance.within(50, 2 * TURNS_A_MANNER) as u64;
            let script = script(&mut chance);
            world.provider.provider().script(|now| *now = script);
        }
        if turns >= reloads {
            reloads = turns + chance.within(50, 2 * TURNS_A_RELOAD) as u64;
            world.proxy.lock().await.reload(&mut chance, &world.tally);
        }
        if turns >= restarts {
            if restarts > 0 {
                restart(&world, &mut chance).await;
            }
            restarts = turns + chance.within(TURNS_A_RESTART / 2, TURNS_A_RESTART) as u64;
        }
        sleep(TICK).await;
    }
    let provider = world.provider.provider();
    provider.calm();
    provider.script(|now| *now = Script { deflate: true, ..Script::default() });
}

fn queue(world: &World, chance: &mut Chance) {
    let provider = world.provider.provider();
    let mishap = mishap(chance);
    world.tally.count("mishaps queued", "all");
    provider.mishap(mishap);
}

fn mishap(chance: &mut Chance) -> Mishap {
    use Moment::{AfterCreated, AfterLastDelta, AfterSend, AfterTerminal, Idle, MidArguments, MidText};
    let anywhere = [AfterSend, AfterCreated, MidText, MidArguments, AfterLastDelta, AfterTerminal, Idle];
    let within = [AfterSend, AfterSend, AfterCreated, MidText, MidArguments, AfterLastDelta];
    let moment = chance.pick(&anywhere);
    let inside = chance.pick(&within);
    let skip = u32::try_from(chance.below(6)).unwrap_or_default();
    let mishap = match chance.below(27) {
        0 | 1 => Mishap::new(inside, Fault::Error(error(chance))),
        2 => Mishap::new(inside, Fault::ErrorWithoutLane(error(chance))),
        3 => Mishap::new(inside, Fault::TwoTerminals(error(chance))),
        4 | 5 => Mishap::new(AfterSend, Fault::NotFound(not_found(chance))).continued(true),
        6 => Mishap::new(inside, Fault::Failed("server_error")),
        7 => Mishap::new(inside, Fault::Incomplete("max_output_tokens")),
        8 | 9 => Mishap::new(moment, Fault::Close(chance.pick(&[1000, 1001, 1011, 1012, 1013]))),
        10 | 11 => Mishap::new(moment, Fault::Reset),
        // These two cost their turns a time-out each.
        12 if chance.once_in(2) => Mishap::new(inside, Fault::Silence),
        12 => Mishap::new(moment, Fault::IgnorePings),
        13 => Mishap::new(moment, Fault::HangUp),
        14 => Mishap::new(moment, Fault::Garbage("{\"type\":".to_owned())),
        15 => Mishap::new(moment, Fault::Binary(vec![0, 159, 146, 150])),
        16 => Mishap::new(chance.pick(&[AfterTerminal, Idle]), Fault::SpontaneousEvent),
        17 => Mishap::new(moment, Fault::PingFlood(200)),
        18 => Mishap::new(Moment::Upgrade, Fault::Upgrade(refused(chance))),
        19 => Mishap::new(Moment::Upgrade, Fault::Reset),
        // The size is learned for a proxy's whole life: seldom, or all goes over HTTP.
        20 if chance.once_in(10) => Mishap::new(AfterSend, Fault::Close(1009)),
        20 => Mishap::new(MidText, Fault::Close(1009)),
        21 => Mishap::new(inside, over_http(chance)).over_http(),
        22 | 23 => Mishap::new(moment, Fault::Trickle(trickle(chance))),
        24 => Mishap::new(Moment::Upgrade, Fault::HangUp),
        _ => Mishap::new(moment, Fault::Frame(unknown(chance))),
    };
    mishap.skip(skip)
}

/// Few pieces: each may wait long on a busy machine, and a pong that comes too late ends the socket.
fn trickle(chance: &mut Chance) -> Trickle {
    let piece = chance.within(1, 200);
    let pause = Duration::from_millis(chance.pick(&[0, 1, 5]));
    Trickle { bytes: piece * chance.within(1, 40), piece, pause }
}

/// An event of a kind nobody knows, now and then a large one.
fn unknown(chance: &mut Chance) -> serde_json::Value {
    let size = chance.pick(&[10, 10, 1000, 100_000]);
    json!({ "type": "response.soak_thing.delta", "padding": "x".repeat(size) })
}

fn over_http(chance: &mut Chance) -> Fault {
    match chance.below(6) {
        0 => Fault::Reset,
        5 => Fault::HangUp,
        1 => Fault::Close(1000),
        2 => Fault::Failed("server_error"),
        3 => Fault::Incomplete("max_output_tokens"),
        _ => Fault::Error(error(chance)),
    }
}

/// An error of the provider's, in one of its shapes; the mark in its message tells it from ours.
fn error(chance: &mut Chance) -> serde_json::Value {
    let number = chance.below(1_000_000);
    let message = format!("{MARK} {number}: slow down.");
    let (status, kind, code) = chance.pick(&[
        (429, "requests", "rate_limit_exceeded"),
        (503, "server_error", "server_is_overloaded"),
        (500, "server_error", "server_error"),
        (400, "invalid_request_error", "invalid_prompt"),
    ]);
    match chance.below(3) {
        0 => {
            json!({ "type": "error", "code": code, "message": message, "param": null, "sequence_number": 0 })
        }
        1 => {
            json!({ "type": "error", "status_code": status, "error": { "type": kind, "code": code, "message": message } })
        }
        _ => {
            json!({ "type": "error", "status": status, "error": { "type": kind, "code": code, "message": message,
            "param": null }, "headers": { "retry-after": 1 } })
        }
    }
}

fn not_found(chance: &mut Chance) -> NotFound {
    use NotFound::{Codeless, Failed, Flat, Headers, Nested, NoStatus, StatusCode};
    chance.pick(&[Nested, NoStatus, Flat, Codeless, StatusCode, Headers, Failed])
}

fn refused(chance: &mut Chance) -> Upgrade {
    match chance.below(6) {
        0 => Upgrade::Hang,
        1 => Upgrade::refuse(426),
        2 => Upgrade::refuse(401),
        3 => Upgrade::refuse(404),
        4 => Upgrade::refuse(429),
        _ => Upgrade::refuse(503),
    }
}

/// How the provider is for a while.
fn script(chance: &mut Chance) -> Script {
    let limits = match chance.below(8) {
        0 => Limits { lanes: Some(4), ..Limits::default() },
        1 => Limits { in_flight: 2, ..Limits::default() },
        2 => Limits { max_age: Duration::from_secs(3), ..Limits::default() },
        // More than goes on a shared socket: the provider that closes it for one turn's frame takes nobody else's.
        3 if chance.once_in(3) => Limits { max_frame: 300_000, ..Limits::default() },
        4 if chance.once_in(3) => Limits::one_in_flight(),
        _ => Limits::default(),
    };
    let mut switch = |once_in| chance.once_in(once_in);
    let style = Style {
        sparse: switch(4),
        empty_output: switch(8),
        future_event: switch(4),
        single_delta: switch(4),
        late_frames: switch(3),
        pretty: switch(5),
        whole_input_items: switch(2),
    };
    let deflate = !switch(3);
    let ping_every = switch(4).then(|| Duration::from_millis(200));
    Script {
        speed: chance.pick(&[0.0, 0.0, 0.0, 3000.0, 400.0]),
        link: Link { rtt: Duration::from_millis(chance.pick(&[0, 0, 2, 20])), ..Link::default() },
        limits,
        style,
        deflate,
        ping_every,
        ..Script::default()
    }
}

async fn restart(world: &World, chance: &mut Chance) {
    let pause = Duration::from_millis(chance.pick(&[0, 20, 300, 1000]));
    match chance.below(4) {
        remembers @ 0..=1 => {
            world.tally.count("restarts", if remembers == 0 { "provider, forgetting" } else { "provider" });
            world.troubles.begin(Trouble::ProviderDown);
            world.provider.go_down().await;
            sleep(pause).await;
            world.provider.come_back(remembers == 1, &world.tally).await;
            world.troubles.end(Trouble::ProviderDown);
        }
        drain => {
            let (end, trouble, name) = match drain {
                2 => (End::Drain, Trouble::Draining, "proxy, drained"),
                _ => (End::Kill, Trouble::Cut, "proxy, killed"),
            };
            world.tally.count("restarts", name);
            let life = Life::draw(chance);
            world.troubles.begin(trouble);
            let mut proxy = world.proxy.lock().await;
            proxy.stop(end, &world.tally, &world.provider).await;
            sleep(pause).await;
            proxy.start(&life).await;
            world.lives(&life);
            world.troubles.end(trouble);
        }
    }
}

const TURNS_A_MISHAP: usize = 4;
const TURNS_A_MANNER: usize = 200;
const LONGEST_MANNER: Duration = Duration::from_secs(40);
const TURNS_A_RELOAD: usize = 100;
const TURNS_A_RESTART: usize = 700;
const TICK: Duration = Duration::from_millis(2);
