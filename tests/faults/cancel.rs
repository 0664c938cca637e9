//! Clients that leave before their answer is complete: generation stops where nobody else listens, and goes on only as
//! long as somebody does. Whatever becomes of the turn, its conversation continues from a right context.

use std::pin::pin;

use futures_util::future::{Either, select};
use http_body_util::BodyExt;
use tailwire::sim::ledger::{Book, Outcome};
use tailwire::sim::{Fault, Mishap, Moment};

use crate::support::{Agent, Version, Width, World, ms, open, request, until, within};

/// How far the turn had come when its client left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    BeforeTheFirstEvent,
    AmongEvents,
    WaitingForJson,
}

/// Sends the agent's turn and leaves at that point: HTTP/1.1 by closing the connection, HTTP/2 by a reset stream.
async fn leave(world: &World, agent: &Agent, version: Version, when: When) {
    let provider = &world.sim.provider;
    let known = provider.ledger().read(|book| book.turns.len());
    if when == When::BeforeTheFirstEvent {
        provider.mishap(Mishap::new(Moment::AfterSend, Fault::Silence));
    }
    let addr = world.proxy.addr;
    let (response, connection) = open(version, addr, request(addr, &agent.key, &agent.body())).await;
    let arrived = async {
        let under_way = |book: &Book| match book.turns.get(known) {
            Some(turn) => turn.tokens > 0 || when == When::BeforeTheFirstEvent && book.mishaps > 0,
            None => false,
        };
        assert!(provider.ledger().wait(under_way).await);
    };
    if when == When::AmongEvents {
        let mut response = within("a head", response).await.unwrap();
        arrived.await;
        assert!(response.body_mut().frame().await.unwrap().is_ok());
    } else {
        let (response, arrived) = (pin!(response), pin!(arrived));
        let early = select(response, arrived).await;
        assert!(matches!(early, Either::Right(_)), "{when:?}: answered");
    }
    // With HTTP/2 the dropped stream was reset; its connection stays, and would carry on.
    if version == Version::Http1 {
        connection.abort();
    }
}

const SLOWLY: f64 = 100.0;

#[tokio::test]
async fn alone_on_its_socket_generation_stops_at_once() {
    for width in [Width::Lanes, Width::Single] {
        for version in [Version::Http1, Version::H2c] {
            for when in [When::BeforeTheFirstEvent, When::AmongEvents, When::WaitingForJson] {
                let about = format!("{when:?} {version:?} {width:?}");
                let world = World::start(width, |_| {}).await;
                let mut agent = Agent::new("key", "agent", when != When::WaitingForJson);
                agent.turn(&world, "text=20", &about).await;
                world.sim.provider.script(|script| script.speed = SLOWLY);
                let mut leaver = agent.clone();
                leaver.ask("text=200000");
                leave(&world, &leaver, version, when).await;
                let gone =
                    |book: &Book| book.sockets_open == 0 && book.turns[1].outcome == Outcome::Cancelled;
                assert!(world.sim.provider.ledger().wait(gone).await, "{about}");
                let tokens = world.sim.provider.ledger().read(|book| book.turns[1].tokens);
                println!("{about:<40} {tokens} tokens of 50000");
                assert!(tokens < 2_000, "{about}: {tokens} tokens");
                assert_eq!(world.proxy.metrics().turns_abandoned.value(), 1, "{about}");
                world.sim.provider.script(|script| script.speed = 0.0);
                until(&about, || world.proxy.sockets() == 0).await;
                assert_eq!(agent.turn(&world, "text=20", &about).await, "full; lane-advanced", "{about}");
                assert_eq!(agent.turn(&world, "text=20", &about).await, "delta", "{about}");
                world.assert_lawful();
            }
        }
    }
}

/// A neighbour in mid-answer, and somebody on the same socket who leaves.
async fn with_a_neighbour(world: &World, wish: &str) -> (Agent, tokio::task::JoinHandle<String>, Agent) {
    let mut leaver = Agent::new("key", "leaver", true);
    leaver.turn(world, "text=20", "before").await;
    world.sim.provider.script(|script| script.speed = SLOWLY);
    let mut neighbour = Agent::new("key", "neighbour", true);
    neighbour.ask("text=4000");
    let addr = world.proxy.addr;
    let (response, _) = open(Version::Http1, addr, request(addr, &neighbour.key, &neighbour.body())).await;
    let reading = tokio::spawn(async {
        String::from_utf8(response.await.unwrap().into_body().collect().await.unwrap().to_bytes().into())
            .unwrap()
    });
    assert!(world.sim.provider.ledger().wait(|book| book.turns.len() == 2 && book.turns[1].tokens > 0).await);
    let mut leaving = leaver.clone();
    leaving.ask(wish);
    leave(world, &leaving, Version::Http1, When::AmongEvents).await;
    (neighbour, reading, leaver)
}

async fn assert_complete(world: &World, neighbour: &mut Agent, reading: tokio::task::JoinHandle<String>) {
    let body = within("the neighbour's answer", reading).await.unwrap();
    let response = neighbour.assert_stream(world, &body, "the neighbour").await;
    neighbour.take(&response);
}

#[tokio::test]
async fn beside_a_neighbour_the_socket_is_given_up_after_the_grace() {
    let world = World::start(Width::Lanes, |settings| settings.timeouts.abandon_grace = ms(100)).await;
    let (mut neighbour, reading, mut leaver) = with_a_neighbour(&world, "text=400000").await;
    let ledger = world.sim.provider.ledger();
    // Newcomers find no place on that socket once the grace is over.
    let mut newcomers = 0;
    while ledger.read(|book| book.upgrades_granted) == 1 {
        newcomers += 1;
        assert!(newcomers < 25, "the socket still takes new turns");
        Agent::new("key", "newcomer", false).turn(&world, "text=4", "newcomer").await;
    }
    ledger.read(|book| {
        assert_eq!((book.turns[1].outcome, book.turns[2].outcome), (Outcome::Running, Outcome::Running))
    });
    world.sim.provider.script(|script| script.speed = 0.0);
    assert_complete(&world, &mut neighbour, reading).await;
    let gone = |book: &Book| book.sockets_open == 1 && book.turns[2].outcome == Outcome::Cancelled;
    assert!(ledger.wait(gone).await);
    assert!(ledger.read(|book| book.turns[2].tokens < 50_000));
    assert!(neighbour.turn(&world, "text=20", "neighbour").await.starts_with("full; socket-"));
    assert!(leaver.turn(&world, "text=20", "leaver").await.starts_with("full; "));
    assert_eq!(neighbour.turn(&world, "text=20", "neighbour").await, "delta");
    assert_eq!(leaver.turn(&world, "text=20", "leaver").await, "delta");
    world.assert_lawful();
}

#[tokio::test]
async fn an_abandoned_turn_that_ends_within_the_grace_costs_nobody_anything() {
    let world = World::start(Width::Lanes, |_| {}).await;
    let (mut neighbour, reading, mut leaver) = with_a_neighbour(&world, "text=400").await;
    world.sim.provider.script(|script| script.speed = 0.0);
    assert_complete(&world, &mut neighbour, reading).await;
    let ledger = world.sim.provider.ledger();
    assert!(ledger.wait(|book| matches!(book.turns[2].outcome, Outcome::Ended(_))).await);
    assert_eq!(neighbour.turn(&world, "text=20", "neighbour").await, "delta");
    assert!(leaver.turn(&world, "text=20", "leaver").await.starts_with("full; "));
    assert_eq!(leaver.turn(&world, "text=20", "leaver").await, "delta");
    ledger.read(|book| assert_eq!((book.upgrades_granted, book.sockets_open), (1, 1)));
    assert_eq!(world.proxy.buffered(), 0, "what nobody reads is not kept");
    world.assert_lawful();
}
