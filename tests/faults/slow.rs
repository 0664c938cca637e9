//! Clients that stop reading. What waits for them is bounded; a socket of their own waits with them; on a shared one
//! they lose their turn, and nobody else loses anything.

use std::net::SocketAddr;

use hyper::Response;
use hyper::body::Incoming;
use tailwire::config::{Compression, Settings};
use tailwire::sim::ledger::{Book, Outcome};
use tailwire::sim::rules::Ending;
use tailwire::sim::script::Limits;
use tailwire::telemetry::turns;
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

use crate::support::{Agent, Answer, Version, Width, World, exchange, ms, request, until, within};

const KIB: usize = 1 << 10;
const LAG: usize = 16 * KIB;
/// About 18 MB of events, none larger than half a MB but the last: more than all kernels' buffers hold.
const LARGE: &str = "calls=1 parallel=10 args=400000";
const LARGEST: usize = 500_000;
/// More than one event, so that only a backlog reaches it.
const TURN: usize = 1 << 20;
/// Less than any request's frame, and more than a ping's.
const REQUEST: u64 = 100;

async fn world() -> World {
    world_with(|_| ()).await
}

async fn world_with(tune: impl FnOnce(&mut Settings)) -> World {
    let small = |settings: &mut Settings| {
        settings.limits.lag = LAG;
        settings.limits.turn_buffer = TURN;
        settings.limits.all_buffers = 4 << 20;
        settings.compression = Compression::Off;
        // On a busy machine megabytes take their time.
        settings.timeouts.pong = ms(60_000);
        settings.timeouts.abandon_grace = ms(60_000);
        tune(settings);
    };
    let world = World::start(Width::Lanes, small).await;
    world.sim.provider.script(|script| script.style.single_delta = true);
    world
}

/// A client with a small window that has read the head of its answer, and stops there.
async fn stalled(version: Version, addr: SocketAddr, agent: &Agent) -> (Response<Incoming>, JoinHandle<()>) {
    let socket = TcpSocket::new_v4().unwrap();
    if version == Version::Http1 {
        socket.set_recv_buffer_size(8 * KIB as u32).unwrap();
    }
    let stream = socket.connect(addr).await.unwrap();
    let (response, connection) = exchange(version, stream, request(addr, &agent.key, &agent.body())).await;
    (within("a head", response).await.unwrap(), connection)
}

/// Bytes the provider has written; waits until that is no longer changing while others are served.
async fn standstill(world: &World) -> u64 {
    let written = || world.sim.provider.ledger().read(|book| book.connections[0].written());
    let mut bystander = Agent::new("bystander", "bystander", true);
    loop {
        let before = written();
        for _ in 0..5 {
            bystander.turn(world, "text=400", "bystander").await;
        }
        if written() == before {
            return before;
        }
    }
}

#[tokio::test]
async fn alone_on_its_socket_a_slow_reader_is_waited_for() {
    // HTTP/1.1 fills the kernel's buffers too, and empties them slowly through a small window.
    let version = Version::H2c;
    let world = world().await;
    let mut agent = Agent::new("key", "agent", true);
    agent.turn(&world, "text=20", "before").await;
    agent.ask(LARGE);
    let (response, _connection) = stalled(version, world.proxy.addr, &agent).await;
    until("a backlog", || world.proxy.buffered() > LAG).await;
    Agent::new("key", "other", false).turn(&world, "text=20", "its socket takes no new turns").await;
    world.sim.provider.ledger().read(|book| {
        let others: Vec<u64> = book.turns.iter().skip(2).map(|turn| turn.connection).collect();
        assert!(!others.is_empty() && !others.contains(&book.turns[1].connection), "{others:?}");
    });
    let written = standstill(&world).await;
    let buffered = world.proxy.buffered();
    println!("the provider wrote {written} bytes, {buffered} wait in the proxy");
    assert!((LAG..=TURN + LARGEST).contains(&buffered), "{buffered}");
    world.sim.provider.ledger().read(|book| assert_eq!(book.turns[1].outcome, Outcome::Running));

    let answer = within("the rest", Answer::read(response)).await;
    let response = world.assert_right(&agent, &answer, "slow").await;
    agent.take(&response);
    assert_eq!(world.proxy.buffered(), 0);
    world
        .sim
        .provider
        .ledger()
        .read(|book| assert!(book.connections[0].written() > written + LARGEST as u64));
    assert_eq!(agent.turn(&world, "text=20", "after").await, "delta");
    assert_eq!(world.proxy.metrics().turns_lagging.value(), 0);
    world.assert_lawful();
}

#[tokio::test]
async fn a_slow_reader_that_leaves_frees_everything() {
    let world = world().await;
    let mut agent = Agent::new("key", "agent", true);
    agent.turn(&world, "text=20", "before").await;
    let mut slow = agent.clone();
    slow.ask(LARGE);
    let (response, connection) = stalled(Version::Http1, world.proxy.addr, &slow).await;
    until("a backlog", || world.proxy.buffered() > LAG).await;
    connection.abort();
    drop(response);
    let gone = |book: &Book| book.sockets_open == 0 && book.turns[1].outcome == Outcome::Cancelled;
    until("the provider notices", || world.sim.provider.ledger().read(gone)).await;
    until("nothing is kept", || world.proxy.buffered() == 0 && world.proxy.sockets() == 0).await;
    assert!(agent.turn(&world, "text=20", "after").await.starts_with("full; "));
}

/// A slow reader and a neighbour on one socket, the neighbour's turn behind the other's at the provider.
async fn shared(world: &World) -> (Response<Incoming>, JoinHandle<()>, Agent) {
    let provider = &world.sim.provider;
    let mut neighbour = Agent::new("key", "neighbour", false);
    neighbour.turn(world, "text=20", "before").await;
    let mut slow = Agent::new("key", "slow", true);
    slow.turn(world, "text=20", "before").await;
    // Both requests are there before the first is answered, and they are worked on one after the other.
    provider.script(|script| {
        script.limits = Limits { in_flight: 1, ..Limits::default() };
        script.held = true;
    });
    slow.ask(LARGE);
    neighbour.ask("text=4");
    let read = || provider.ledger().read(|book| book.connections[0].read());
    let before = read();
    let stalling = stalled(Version::Http1, world.proxy.addr, &slow);
    let answering = async {
        until("the slow one's request", || read() > before + REQUEST).await;
        let before = read();
        let released = async {
            until("the neighbour's request", || read() > before + REQUEST).await;
            provider.script(|script| script.held = false);
        };
        futures_util::future::join(neighbour.send(world), released).await.0
    };
    let ((response, connection), answer) = futures_util::future::join(stalling, answering).await;
    let said = world.assert_right(&neighbour, &answer, "the neighbour").await;
    neighbour.take(&said);
    (response, connection, neighbour)
}

#[tokio::test]
async fn beside_a_neighbour_a_slow_reader_loses_its_turn() {
    let world = world().await;
    let (response, _connection, mut neighbour) = shared(&world).await;
    assert_eq!(world.proxy.metrics().turns_lagging.value(), 1);
    let ended = |book: &Book| book.turns[2].outcome == Outcome::Ended(Ending::Completed);
    until("the socket was read on", || world.sim.provider.ledger().read(ended)).await;
    assert_eq!(neighbour.turn(&world, "text=20", "after").await, "delta", "the socket takes new turns");
    let answer = within("the rest", Answer::read(response)).await;
    let turns = world.proxy.journal().turns();
    let lagging = turns.iter().filter(|turn| turn.outcome == turns::Outcome::Lagging);
    assert_eq!(lagging.count(), 1, "and is on record as what it was");
    assert_eq!((&*answer.code(), answer.broken), ("tailwire_slow_reader", true));
    until("nothing is kept", || world.proxy.buffered() == 0).await;
    assert_eq!(neighbour.turn(&world, "text=20", "after").await, "delta");
    world.sim.provider.ledger().read(|book| assert_eq!(book.upgrades_granted, 1));
    world.assert_lawful();
}

#[tokio::test]
async fn a_reader_too_slow_even_for_its_error_is_let_go_when_it_leaves() {
    let world = world().await;
    let (response, connection, mut neighbour) = shared(&world).await;
    connection.abort();
    drop(response);
    until("nothing is kept", || world.proxy.buffered() == 0).await;
    assert_eq!(neighbour.turn(&world, "text=20", "after").await, "delta");
    world.assert_lawful();
}

/// A client that stops reading and never leaves: its answer still comes, alone on its socket.
#[tokio::test]
async fn a_reader_that_takes_nothing_for_too_long_is_given_up() {
    for version in [Version::Http1, Version::H2c] {
        let world = world_with(|settings| settings.timeouts.stalled_client = ms(300)).await;
        let mut agent = Agent::new("key", "agent", true);
        agent.turn(&world, "text=20", "before").await;
        let mut slow = agent.clone();
        slow.ask(LARGE);
        let (response, _connection) = stalled(version, world.proxy.addr, &slow).await;
        let gone = |book: &Book| book.sockets_open == 0 && book.turns[1].outcome == Outcome::Cancelled;
        until("given up", || world.sim.provider.ledger().read(gone)).await;
        until("nothing is kept", || world.proxy.buffered() == 0 && world.proxy.sockets() == 0).await;
        assert_eq!(world.proxy.metrics().turns_abandoned.value(), 1, "as if it had left");
        let answer = within("the rest", Answer::read(response)).await;
        assert!(answer.broken, "{version:?}: never a clean end");
        assert!(agent.turn(&world, "text=20", "after").await.starts_with("full; "), "{version:?}");
        world.assert_lawful();
    }
}

/// Its answer has all come, and holds a lane of a socket that others use.
#[tokio::test]
async fn a_whole_answer_that_nobody_takes_is_dropped_and_its_socket_goes_on() {
    // A machine may be so busy that the limit strikes before all of it has come: then with more of it.
    for limit in [2_000, 8_000, 32_000].map(ms) {
        let world = world_with(|settings| {
            settings.timeouts.stalled_client = limit;
            settings.limits.lag = 64 << 20;
            settings.limits.turn_buffer = 64 << 20;
            settings.limits.all_buffers = 1 << 30;
        })
        .await;
        let mut neighbour = Agent::new("key", "neighbour", false);
        neighbour.turn(&world, "text=20", "before").await;
        let mut slow = Agent::new("key", "slow", true);
        slow.ask("calls=1 parallel=10 args=20000");
        let (_response, _connection) = stalled(Version::H2c, world.proxy.addr, &slow).await;
        until("it is given up", || world.proxy.metrics().turns_abandoned.value() == 1).await;
        until("nothing is kept", || world.proxy.buffered() == 0).await;
        let told = |book: &Book| book.turns[1].outcome == Outcome::Ended(Ending::Completed);
        if !world.sim.provider.ledger().read(told) || world.proxy.sockets() == 0 {
            continue;
        }
        assert_eq!(neighbour.turn(&world, "text=20", "after").await, "delta");
        world.sim.provider.ledger().read(|book| assert_eq!(book.upgrades_granted, 1));
        world.assert_lawful();
        return;
    }
    panic!("a whole answer did not come, or cost its socket, however long the limit");
}
