//! Sockets and lanes: who shares one, who gets another, and that nobody ever waits behind somebody else's turn.

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::json;
use tailwire::config::ProfileName;
use tailwire::sim::Transport;
use tailwire::sim::ledger::{Outcome, Record};
use tailwire::sim::rules::Ending;
use tailwire::sim::script::Limits;
use tokio::task::JoinSet;

use crate::agent::{Agent, Turn, assert_same_contexts};
use crate::world::World;

fn connections(records: &[Record]) -> BTreeSet<u64> {
    records.iter().map(|record| record.connection).collect()
}

fn all_turns(world: &World) -> Vec<Record> {
    world.ledger().read(|book| book.turns.iter().cloned().collect())
}

/// Agent `n`'s conversation, whoever it goes through.
async fn talk(mut agent: Agent, n: usize) -> Vec<Turn> {
    let mut turns = agent.run(&format!("conversation {n} [sim calls=2 reasoning=1 text=60 args=60]")).await;
    turns.extend(agent.run("and now [sim text=60]").await);
    turns
}

/// Starts so many conversations at once.
fn start(world: &World, conversations: std::ops::Range<usize>) -> JoinSet<(usize, Vec<Turn>)> {
    let mut running = JoinSet::new();
    for n in conversations {
        let agent = Agent::new(world.proxied());
        running.spawn(async move { (n, talk(agent, n).await) });
    }
    running
}

/// All have the contexts they would have had direct, and after their first turn deltas only.
async fn assert_all_right(world: &World, running: JoinSet<(usize, Vec<Turn>)>) {
    for (n, turns) in running.join_all().await {
        let direct = talk(Agent::new(world.direct()), n).await;
        assert_same_contexts(&direct, &turns);
        for turn in &turns[1..] {
            assert_eq!(turn.told().plan(), ("delta", "exact"), "conversation {n}");
        }
    }
    world.assert_lawful();
}

#[tokio::test]
async fn sixteen_share_a_socket_and_the_seventeenth_gets_another() {
    let world = World::plain().await;
    world.slow();
    let mut running = start(&world, 0..16);
    assert_eq!(connections(&world.in_flight(16).await).len(), 1);
    let agent = Agent::new(world.proxied());
    running.spawn(async move { (16, talk(agent, 16).await) });
    assert_eq!(connections(&world.in_flight(17).await).len(), 2);
    assert_eq!(world.proxy.sockets(), 2);
    world.fast();
    assert_all_right(&world, running).await;
    assert_eq!(world.ledger().read(|book| book.upgrades_granted), 2);
}

#[tokio::test]
async fn forty_conversations_at_once() {
    let world = World::plain().await;
    world.slow();
    let running = start(&world, 0..40);
    assert_eq!(connections(&world.in_flight(40).await).len(), 3);
    world.fast();
    assert_all_right(&world, running).await;
}

#[tokio::test]
async fn conversations_that_follow_one_another_stay_on_one_socket() {
    let world = World::plain().await;
    for n in 0..20 {
        assert_all_right(&world, start(&world, n..n + 1)).await;
    }
    assert_eq!(world.ledger().read(|book| book.upgrades_granted), 1);
}

/// Two children of one parent, both in flight at once.
async fn fork(world: &World, parent: &Agent) -> Vec<(Agent, Turn)> {
    world.slow();
    let mut running = JoinSet::new();
    for name in ["left", "right"] {
        let mut child = parent.clone();
        running.spawn(async move {
            let turn = child.run(&format!("go {name} [sim text=30]")).await.remove(0);
            (child, turn)
        });
    }
    world.in_flight(2).await;
    world.fast();
    let children = running.join_all().await;
    for (_, turn) in &children {
        let direct = world.direct().send(Method::POST, "/v1/responses", turn.request.clone()).await;
        assert_eq!(direct.response()["sim"], turn.response["sim"]);
    }
    world.assert_lawful();
    children
}

#[tokio::test]
async fn f16_both_children_of_a_stored_parent_are_deltas() {
    let world = World::plain().await;
    let mut parent = Agent::new(world.proxied()).set(&json!({"store": true}));
    parent.run("start [sim text=90]").await;
    for (_, turn) in fork(&world, &parent).await {
        assert_eq!(turn.told().plan(), ("delta", "exact"));
    }
}

#[tokio::test]
async fn f16_an_unstored_parent_that_was_forked_once_is_forked_in_lanes_of_their_own() {
    let world = World::plain().await;
    let mut parent = Agent::new(world.proxied());
    parent.run("start [sim text=90]").await;
    let children = fork(&world, &parent).await;
    let mut plans: Vec<_> = children.iter().map(|(_, turn)| turn.told().why).collect();
    plans.sort_unstable();
    assert_eq!(plans, ["exact", "lane-advanced"]);
    // A conversation that forked is expected to fork again: its head stays where it is.
    let (branching, _) = children.into_iter().find(|(_, turn)| turn.told().why == "lane-advanced").unwrap();
    for _ in 0..2 {
        for (_, turn) in fork(&world, &branching).await {
            assert_eq!(turn.told().plan(), ("delta", "exact"));
        }
    }
    assert_eq!(world.ledger().read(|book| book.upgrades_granted), 1);
}

#[tokio::test]
async fn f78_a_provider_with_one_in_flight_gets_a_socket_for_each_conversation() {
    let world = World::start(
        |settings| settings.profile = ProfileName::OpenResponses,
        |script| script.limits = Limits::one_in_flight(),
    )
    .await;
    world.slow();
    let running = start(&world, 0..5);
    assert_eq!(connections(&world.in_flight(5).await).len(), 5);
    world.fast();
    assert_all_right(&world, running).await;
    let turns = all_turns(&world);
    assert!(turns.iter().all(|turn| turn.stream_id.is_none()));
    assert_eq!(world.ledger().read(|book| book.upgrades_granted), 5);
}

#[tokio::test]
async fn a_provider_without_lanes_is_found_out_once_and_no_client_notices() {
    let world = World::start(|_| (), |script| script.limits = Limits::one_in_flight()).await;
    let first = talk(Agent::new(world.proxied()), 0).await;
    assert_eq!(first[0].told().plan(), ("full", "recovered"));
    assert!(first[1..].iter().all(|turn| turn.told().plan() == ("delta", "exact")));
    let refused = |record: &Record| record.outcome == Outcome::Ended(Ending::Refused);
    assert_eq!(all_turns(&world).iter().filter(|turn| refused(turn)).count(), 1);
    world.slow();
    let running = start(&world, 1..5);
    assert_eq!(connections(&world.in_flight(4).await).len(), 4);
    world.fast();
    assert_all_right(&world, running).await;
    assert_eq!(all_turns(&world).iter().filter(|turn| refused(turn)).count(), 1, "degraded once, for all");
    assert_same_contexts(&talk(Agent::new(world.direct()), 0).await, &first);
}

#[tokio::test]
async fn many_at_once_find_out_together_that_there_are_no_lanes() {
    let world = World::start(|_| (), |script| script.limits = Limits::one_in_flight()).await;
    assert_all_right(&world, start(&world, 0..6)).await;
    assert!(world.ledger().read(|book| book.upgrades_granted) <= 7);
}

#[tokio::test]
async fn a_large_frame_goes_on_a_socket_of_its_own() {
    let world = World::start(|settings| settings.limits.own_socket_frame = 64 << 10, |_| ()).await;
    world.slow();
    let running = start(&world, 0..2);
    world.in_flight(2).await;
    let mut large = Agent::new(world.proxied());
    let words = "x".repeat(100 << 10);
    let client = tokio::spawn(async move {
        large.history.push(json!({"role": "user", "content": words}));
        let mut turns = large.run("read it [sim text=30]").await;
        turns.extend(large.run("and? [sim text=30]").await);
        turns
    });
    let mut in_flight = world.in_flight(3).await;
    let alone = in_flight.pop().unwrap();
    assert!(alone.frame > 100 << 10);
    assert_eq!(connections(&in_flight).len(), 1);
    assert!(!connections(&in_flight).contains(&alone.connection));
    world.fast();
    assert_all_right(&world, running).await;
    let turns = client.await.unwrap();
    assert_eq!(turns[1].told().plan(), ("delta", "exact"));
    assert_eq!(world.record(turns[1].id()).connection, alone.connection);
}

#[tokio::test]
async fn f77_past_the_cap_on_sockets_turns_go_over_http() {
    let world = World::start(
        |settings| {
            settings.profile = ProfileName::OpenResponses;
            settings.limits.sockets_per_credential = 2;
        },
        |script| script.limits = Limits::one_in_flight(),
    )
    .await;
    world.slow();
    let running = start(&world, 0..2);
    world.in_flight(2).await;
    let mut third = Agent::new(world.proxied());
    let third = tokio::spawn(async move { third.run("hi [sim text=20]").await.remove(0) });
    let in_flight = world.in_flight(3).await;
    assert_eq!(in_flight.iter().filter(|turn| turn.transport == Transport::Http).count(), 1);
    world.fast();
    assert_eq!(third.await.unwrap().told().plan(), ("http", "busy"));
    assert_all_right(&world, running).await;
    assert_eq!(world.ledger().read(|book| book.upgrades_granted), 2);
}
