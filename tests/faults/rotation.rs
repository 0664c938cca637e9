//! Sockets that grow old or stand idle, a provider that starts anew, a proxy that goes down: one full resend each, and
//! nobody's answer is cut.

use http_body_util::BodyExt;
use tailwire::sim::ledger::Book;
use tailwire::sim::script::Limits;
use tailwire::sim::{self, Provider, Script};
use tokio::net::TcpListener;

use crate::support::{Agent, Version, Width, World, ms, open, request, script, until, within};

#[tokio::test]
async fn an_aged_socket_is_replaced() {
    for width in [Width::Lanes, Width::Single] {
        for stream in [false, true] {
            let about = format!("{width:?} {stream}");
            let world = World::start(width, |_| {}).await;
            let mut agent = Agent::new("key", "agent", stream);
            agent.turn(&world, "text=20", &about).await;
            // As old as this turn makes it, by the provider's clock; a new one is younger.
            let begun = std::time::Instant::now();
            let mut plan = agent.turn(&world, "text=20", &about).await;
            world.sim.provider.script(|script| script.limits.max_age = ms(250).max(begun.elapsed() * 4));
            while plan == "delta" {
                plan = within(&about, agent.turn(&world, "text=20", &about)).await;
            }
            world.sim.provider.script(|script| script.limits.max_age = Limits::default().max_age);
            assert_eq!(plan, "full; recovered", "{about}");
            assert_eq!(world.rungs(), [0, 1, 0], "{about}");
            assert_eq!(agent.turn(&world, "text=20", &about).await, "delta", "{about}");
            let ledger = world.sim.provider.ledger();
            assert!(
                ledger.wait(|book| (book.upgrades_granted, book.sockets_open) == (2, 1)).await,
                "{about}"
            );
            world.assert_lawful();
        }
    }
}

#[tokio::test]
async fn where_every_socket_is_too_old_turns_go_over_http() {
    let world = World::start(Width::Lanes, |_| {}).await;
    let mut agent = Agent::new("key", "agent", true);
    agent.turn(&world, "text=20", "young").await;
    world.sim.provider.script(|script| script.limits.max_age = ms(0));
    assert_eq!(agent.turn(&world, "text=20", "old").await, "http; recovered");
    assert_eq!(world.rungs(), [0, 1, 1]);
    world.sim.provider.script(|script| script.limits.max_age = Limits::default().max_age);
    assert!(agent.turn(&world, "text=20", "young").await.starts_with("full; "));
    assert_eq!(agent.turn(&world, "text=20", "young").await, "delta");
    world.assert_lawful();
}

/// A turn in mid-answer, read by a task.
async fn under_way(world: &World, agent: &Agent) -> tokio::task::JoinHandle<String> {
    let known = world.sim.provider.ledger().read(|book| book.turns.len());
    world.sim.provider.script(|script| script.speed = 100.0);
    let addr = world.proxy.addr;
    let (response, _) = open(Version::Http1, addr, request(addr, &agent.key, &agent.body())).await;
    let reading = tokio::spawn(async {
        let body = response.await.unwrap().into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.into()).unwrap()
    });
    let told = |book: &Book| book.turns.get(known).is_some_and(|turn| turn.tokens > 0);
    assert!(world.sim.provider.ledger().wait(told).await);
    world.sim.provider.script(|script| script.speed = 0.0);
    reading
}

#[tokio::test]
async fn a_turn_under_way_on_an_aged_socket_is_finished() {
    let world = World::start(Width::Lanes, |_| {}).await;
    let mut agent = Agent::new("key", "agent", true);
    agent.turn(&world, "text=20", "before").await;
    let mut neighbour = Agent::new("key", "neighbour", true);
    neighbour.ask("text=20000");
    let reading = under_way(&world, &neighbour).await;
    world.sim.provider.script(|script| script.limits.max_age = ms(0));
    assert_eq!(agent.turn(&world, "text=20", "old").await, "http; recovered");
    let body = within("the neighbour", reading).await.unwrap();
    let response = neighbour.assert_stream(&world, &body, "the neighbour").await;
    neighbour.take(&response);
    assert!(world.sim.provider.ledger().wait(|book| book.sockets_open == 0).await, "closed when it was done");
    world.sim.provider.script(|script| script.limits.max_age = Limits::default().max_age);
    let after = neighbour.turn(&world, "text=20", "after").await;
    assert!(after.starts_with("full; socket-"), "{after}");
    world.assert_lawful();
}

#[tokio::test]
async fn an_idle_socket_is_closed() {
    for width in [Width::Lanes, Width::Single] {
        let world = World::start(width, |settings| settings.timeouts.idle_socket = ms(100)).await;
        let mut agent = Agent::new("key", "agent", false);
        agent.turn(&world, "text=20", "busy").await;
        assert!(world.sim.provider.ledger().wait(|book| book.sockets_open == 0).await);
        until("the proxy knows", || world.proxy.sockets() == 0).await;
        assert_eq!(agent.turn(&world, "text=20", "idle").await, "full; socket-lost");
        let mut stored = Agent::new("key", "stored", false);
        stored.store = true;
        stored.turn(&world, "text=20", "busy").await;
        until("the proxy knows", || world.proxy.sockets() == 0).await;
        assert_eq!(stored.turn(&world, "text=20", "idle").await, "delta", "a stored response lives on");
        assert_eq!(world.rungs(), [0, 0, 0]);
        world.assert_lawful();
    }
}

#[tokio::test]
async fn a_drain_lets_turns_end_and_closes_idle_sockets() {
    let world = World::start(Width::Single, |_| {}).await;
    let mut idle = Agent::new("key", "idle", false);
    idle.turn(&world, "text=20", "before").await;
    let mut agent = Agent::new("key", "agent", true);
    agent.ask("text=20000");
    let reading = under_way(&world, &agent).await;
    assert_eq!(world.proxy.sockets(), 2);
    let World { proxy, sim, reference } = world;
    within("the drain", proxy.stop()).await;
    let body = within("the answer", reading).await.unwrap();
    assert!(body.contains("event: response.completed\n"));
    assert!(sim.provider.ledger().wait(|book| book.sockets_open == 0).await);
    sim.provider.ledger().read(|book| assert_eq!(book.violations, []));
    drop(reference);
}

#[tokio::test]
async fn a_provider_that_starts_anew_costs_one_full_resend() {
    for (store, plan, rungs) in
        [(false, "full; socket-lost", [0, 0, 0]), (true, "full; not-found", [1, 0, 0])]
    {
        let world = World::start(Width::Lanes, |_| {}).await;
        let mut agent = Agent::new("key", "agent", true);
        agent.store = store;
        agent.turn(&world, "text=20", "before").await;
        let addr = world.sim.addr;
        let World { proxy, sim, reference } = world;
        sim.stop().await.unwrap();
        until("the proxy knows", || proxy.sockets() == 0).await;
        let second = Provider::new(script(Width::Lanes));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let listener = TcpListener::bind(addr).await.unwrap();
        let serving = tokio::spawn(sim::serve(listener, second.clone(), async { drop(stopped.await) }));
        let spare = sim::Running::start(Script::default()).await.unwrap();
        let world = World { proxy, sim: spare, reference };
        assert_eq!(agent.turn(&world, "text=20", "anew").await, plan);
        assert_eq!(world.rungs(), rungs);
        assert_eq!(agent.turn(&world, "text=20", "anew").await, "delta");
        second.ledger().read(|book| assert_eq!((&*book.violations, book.upgrades_granted), (&[][..], 1)));
        drop(stop);
        serving.await.unwrap();
    }
}
