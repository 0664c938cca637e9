//! Every bound of `[limits]` met by more than it allows, at a size that a test can afford: what is held stays within
//! it, the consequence is the one `proxy.toml` names, and afterwards everything has been given back.
//!
//! What it weighs is `benches/memory`'s to say; how slow readers are treated otherwise, `slow.rs`'s.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::HeaderValue;
use hyper::{Request, Response, body::Incoming};
use tailwire::config::{Compression, Settings};
use tailwire::sim::ledger::{Book, Outcome};
use tailwire::sim::script::Link;
use tokio::task::{JoinHandle, JoinSet};

use crate::support::{Agent, Answer, Version, Width, World, ms, open, request, until, within};

const KIB: usize = 1 << 10;

/// A client that has read the head of its answer and stops there, at a window of 64 KiB.
async fn stalled(addr: SocketAddr, agent: Agent) -> (Response<Incoming>, JoinHandle<()>) {
    let (response, connection) = open(Version::H2c, addr, request(addr, &agent.key, &agent.body())).await;
    (within("a head", response).await.unwrap(), connection)
}

#[tokio::test]
async fn f75_many_slow_readers_together_stay_within_all_buffers() {
    const READERS: usize = 12;
    const ALL: usize = 512 * KIB;
    /// The largest event, which each may have beyond: the last, of ten calls. An answer of 800 kB is more than HTTP/2 holds for a
    /// stream whose window is shut.
    const EVENT: usize = 280 * KIB;
    let tune = |settings: &mut Settings| {
        settings.limits.lag = ALL;
        settings.limits.turn_buffer = ALL;
        settings.limits.all_buffers = ALL;
        settings.limits.turns = READERS + 4;
        // On a busy machine megabytes take their time.
        settings.timeouts.pong = ms(60_000);
        settings.compression = Compression::Off;
    };
    let world = World::start(Width::Lanes, tune).await;
    world.sim.provider.script(|script| script.style.single_delta = true);
    let mut asking = JoinSet::new();
    for n in 0..READERS {
        let mut agent = Agent::new(format!("key-{}", n / 6), "slow", true);
        agent.ask("calls=1 parallel=10 args=20000");
        asking.spawn(stalled(world.proxy.addr, agent));
    }
    let readers = within("heads", asking.join_all()).await;
    until("half of it used", || world.proxy.buffered() > ALL / 2).await;
    let mut bystander = Agent::new("bystander", "bystander", true);
    let mut most = 0;
    for _ in 0..10 {
        bystander.turn(&world, "text=40", "one that keeps up is served").await;
        most = most.max(world.proxy.buffered());
    }
    println!("{most} bytes waited, for {READERS} readers");
    assert!(most <= ALL + READERS * EVENT, "{most}");

    let mut reading = JoinSet::new();
    for (response, connection) in readers {
        reading.spawn(async move { (Answer::read(response).await, connection).0 });
    }
    let answers = within("the rest", reading.join_all()).await;
    for answer in &answers {
        let whole = !answer.broken && answer.response()["status"] == "completed";
        let ended = answer.broken && answer.code() == "tailwire_slow_reader";
        let (code, bytes) = (answer.code(), answer.body.len());
        assert!(whole || ended, "all of it, or the named fault: {code:?} after {bytes}, {}", answer.broken);
    }
    let ended = answers.iter().filter(|answer| answer.broken).count() as u64;
    assert_eq!(ended, world.proxy.metrics().turns_lagging.value());
    until("nothing is kept", || world.proxy.buffered() == 0).await;
    world.assert_lawful();
}

/// An agent whose body is about this long.
fn heavy(key: &str, bytes: usize) -> Agent {
    let mut agent = Agent::new(key, "heavy", false);
    agent.instructions = "x".repeat(bytes);
    agent.ask("text=9");
    agent
}

#[tokio::test]
async fn f59_bodies_together_stay_within_all_bodies() {
    const ALL: usize = 300 * KIB;
    let tune = |settings: &mut Settings| {
        settings.limits.body = 200 * KIB;
        settings.limits.all_bodies = ALL;
    };
    for http in [false, true] {
        let world = World::start(Width::Lanes, tune).await;
        // The first has been sent up and is not answered yet, over a socket or over HTTP.
        world.sim.provider.script(|script| script.link = Link { rtt: ms(60_000), ..Link::default() });
        let addr = world.proxy.addr;
        let held = heavy("one", 150 * KIB);
        let mut first = request(addr, &held.key, &held.body());
        if http {
            first.headers_mut().insert("x-tailwire-mode", HeaderValue::from_static("http"));
        }
        let (answer, connection) = open(Version::Http1, addr, first).await;
        let answer = tokio::spawn(answer);
        until("the first is held", || world.proxy.bodies() >= 150 * KIB).await;
        let refused = heavy("two", 160 * KIB).send(&world).await;
        assert_eq!((refused.status, &*refused.code()), (503, "tailwire_overloaded"), "http: {http}");
        assert_eq!(refused.headers["retry-after"], "1");
        assert!((150 * KIB..ALL).contains(&world.proxy.bodies()), "what was refused is given back");
        // It is a client that left: all of it comes back, and there is room again.
        answer.abort();
        connection.abort();
        until("all given back", || world.proxy.bodies() == 0).await;
        world.sim.provider.script(|script| script.link = Link::default());
        heavy("two", 160 * KIB).finish(&world, "afterwards").await;
        assert_eq!(world.proxy.bodies(), 0);
    }
}

#[tokio::test]
async fn f59_a_stream_that_has_begun_holds_no_body() {
    let world = World::start(Width::Lanes, |_| ()).await;
    world.sim.provider.script(|script| script.speed = 5.0);
    let mut agent = heavy("key", 200 * KIB);
    agent.stream = true;
    agent.ask("text=4000");
    let (response, connection) =
        open(Version::Http1, world.proxy.addr, request(world.proxy.addr, &agent.key, &agent.body())).await;
    let response = within("a head", response).await.unwrap();
    assert_eq!(world.proxy.bodies(), 0, "while it streams");
    world.sim.provider.script(|script| script.speed = 0.0);
    let answer = within("the rest", Answer::read(response)).await;
    let said = world.assert_right(&agent, &answer, "the same answer").await;
    agent.take(&said);
    drop(connection);
    assert_eq!(agent.turn(&world, "text=9", "and it is continued").await, "delta");
}

#[tokio::test]
async fn f59_an_encoded_body_counts_with_what_it_becomes() {
    let tune = |settings: &mut Settings| {
        settings.limits.body = 200 * KIB;
        settings.limits.all_bodies = 200 * KIB;
    };
    let world = World::start(Width::Lanes, tune).await;
    // A few hundred bytes as received; decoded it is as long as may be, but not beside its original.
    let longest = 200 * KIB - heavy("key", 0).body().to_string().len();
    let packed = |bytes: usize| {
        let body = heavy("key", bytes).body().to_string();
        zstd::encode_all(body.as_bytes(), 3).unwrap()
    };
    let send = |packed: Vec<u8>| async {
        let request = Request::post("/v1/responses")
            .header("host", "proxy")
            .header("authorization", "Bearer key")
            .header("content-type", "application/json")
            .header("content-encoding", "zstd")
            .body(Full::new(Bytes::from(packed)))
            .unwrap();
        let (response, _connection) = open(Version::Http1, world.proxy.addr, request).await;
        Answer::read(within("an answer", response).await.unwrap()).await
    };
    let refused = send(packed(longest)).await;
    let served = send(packed(longest - 2 * KIB)).await;
    assert_eq!((served.status, refused.status), (200, 503), "{served:?} {refused:?}");
    assert_eq!(world.proxy.bodies(), 0);
}

/// `n`'s first turn, of a conversation of its own.
fn conversation(n: usize) -> Agent {
    let mut agent = Agent::new("key", "conversation", n.is_multiple_of(2));
    agent.instructions = format!("Be brief, {n}.");
    agent.ask(&format!("text=9 n={n}"));
    agent
}

#[tokio::test]
async fn f76_past_the_index_the_least_recently_used_is_forgotten() {
    let world = World::start(Width::Lanes, |settings| settings.limits.index = 16 * KIB).await;
    let mut agents = Vec::new();
    for n in 0..60 {
        let mut agent = Agent::new("key", "conversation", n % 2 == 0);
        agent.ask(&format!("text={}", 9 + n));
        assert_eq!(agent.finish(&world, "first").await, "full; first-turn", "{n}");
        agents.push(agent);
    }
    let mut newest = agents.pop().unwrap();
    assert_eq!(newest.turn(&world, "text=9", "the newest").await, "delta");
    assert_eq!(agents[0].turn(&world, "text=9", "the oldest").await, "full; first-turn");
    world.sim.provider.ledger().read(|book| assert_eq!(book.upgrades_granted, 2, "32 lanes each"));
}

#[tokio::test]
async fn past_the_cap_on_all_sockets_every_further_credential_is_served_over_http() {
    let tune = |settings: &mut Settings| {
        settings.limits.sockets = 4;
        settings.limits.sockets_per_credential = 2;
    };
    let world = World::start(Width::Lanes, tune).await;
    let mut plans = Vec::new();
    for n in 0..40 {
        let mut agent = Agent::new(format!("key-{n}"), "one of many", n % 2 == 0);
        plans.push(agent.turn(&world, "text=9", "one of many").await);
        assert!(world.proxy.sockets() <= 4);
    }
    assert!(plans[..4].iter().all(|plan| plan == "full; first-turn"), "{plans:?}");
    assert!(plans[4..].iter().all(|plan| plan == "http; busy"), "{plans:?}");
    world.assert_lawful();
}

#[tokio::test]
async fn scopes_behind_one_credential_share_its_sockets() {
    let world = World::start(Width::Lanes, |settings| settings.limits.sockets_per_credential = 2).await;
    for n in 0..100 {
        let mut agent = conversation(n);
        agent.tools = serde_json::json!([]);
        assert!(agent.finish(&world, "one of many").await.starts_with("full; "), "{n}");
        assert!(world.proxy.sockets() <= 2);
    }
    world.sim.provider.ledger().read(|book| assert_eq!(book.upgrades_granted, 2));
    world.assert_lawful();
}

#[tokio::test]
async fn a_turn_past_their_number_is_told_to_try_again() {
    let world = World::start(Width::Lanes, |settings| settings.limits.turns = 1).await;
    world.sim.provider.script(|script| script.speed = 5.0);
    let mut slow = Agent::new("key", "slow", true);
    slow.ask("text=4000");
    let (response, connection) =
        open(Version::Http1, world.proxy.addr, request(world.proxy.addr, &slow.key, &slow.body())).await;
    let response = within("a head", response).await.unwrap();
    let refused = Agent::new("other", "other", true).send(&world).await;
    assert_eq!((refused.status, &*refused.code()), (503, "tailwire_overloaded"));
    assert_eq!(refused.headers["retry-after"], "1");
    world.sim.provider.script(|script| script.speed = 0.0);
    let answer = within("the rest", Answer::read(response)).await;
    world.assert_right(&slow, &answer, "the one that was first").await;
    drop(connection);
    Agent::new("other", "other", true).turn(&world, "text=9", "there is room again").await;
}

#[tokio::test]
async fn a_message_larger_than_the_limit_ends_its_socket_and_the_turn_goes_over_http() {
    let world = World::start(Width::Lanes, |settings| settings.limits.message = 20 * KIB).await;
    let mut agent = Agent::new("key", "agent", false);
    agent.turn(&world, "text=20", "before").await;
    let plan = agent.turn(&world, "text=30000", "a large answer").await;
    assert!(plan.starts_with("http; "), "{plan}");
    assert_eq!(world.proxy.metrics().sockets_lost.value(), 1);
    let gone = |book: &Book| book.sockets_open == 0 && book.count(Outcome::Running) == 0;
    until("the socket is gone", || world.sim.provider.ledger().read(gone)).await;
}
