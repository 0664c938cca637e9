//! Sockets that grow old, stand idle or die unnoticed, a provider or a proxy that starts anew, a key that changes: one
//! full resend each, and nobody's answer is cut.

use http_body_util::BodyExt;
use tailwire::app;
use tailwire::config::Settings;
use tailwire::sim::ledger::{Book, Outcome};
use tailwire::sim::rules::Ending;
use tailwire::sim::script::Limits;
use tailwire::sim::{self, Provider, Script};
use tokio::net::TcpListener;

use crate::support::{Agent, Version, Width, World, ms, open, request, script, until, within};
use crate::wire::{Death, Wire};

/// Turns until one is a delta again: how many went in full over a socket, and how many over HTTP.
async fn recover(world: &World, agent: &mut Agent, about: &str) -> (u64, u64) {
    let metrics = world.proxy.metrics();
    let before = (metrics.turns_full.value(), metrics.turns_http.value());
    let recovered = async { while agent.turn(world, "text=20", about).await != "delta" {} };
    within(about, recovered).await;
    (metrics.turns_full.value() - before.0, metrics.turns_http.value() - before.1)
}

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

#[tokio::test]
async fn a_proxy_that_starts_anew_costs_one_full_resend() {
    for width in [Width::Lanes, Width::Single] {
        for store in [false, true] {
            let about = format!("{width:?} {store}");
            let world = World::start(width, |_| {}).await;
            let mut agent = Agent::new("key", "agent", true);
            agent.store = store;
            agent.turn(&world, "text=20", &about).await;
            assert_eq!(agent.turn(&world, "text=20", &about).await, "delta", "{about}");

            let World { proxy, sim, reference } = world;
            let mut settings = Settings {
                // The port its clients know.
                listen: proxy.addr.into(),
                admin_listen: tailwire::config::AdminListen::Off,
                upstream: sim.base_url().parse().unwrap(),
                ..Settings::default()
            };
            if width == Width::Single {
                settings.profile = tailwire::config::ProfileName::Azure;
            }
            within("the drain", proxy.stop()).await;
            assert!(sim.provider.ledger().wait(|book| book.sockets_open == 0).await, "{about}");
            let proxy = app::Running::start(settings).await.unwrap();
            let world = World { proxy, sim, reference };
            assert_eq!(agent.turn(&world, "text=20", &about).await, "full; first-turn", "{about}");
            assert_eq!(agent.turn(&world, "text=20", &about).await, "delta", "{about}");
            assert_eq!(world.rungs(), [0, 0, 0], "{about}");
            world.assert_lawful();
        }
    }
}

#[tokio::test]
async fn a_provider_that_was_away_costs_one_full_resend() {
    for store in [false, true] {
        let about = format!("store {store}");
        let soon = |settings: &mut Settings| settings.timeouts.backoff_min = ms(1);
        let world = World::start(Width::Lanes, soon).await;
        let mut agent = Agent::new("key", "agent", true);
        agent.store = store;
        agent.turn(&world, "text=20", &about).await;
        let addr = world.sim.addr;
        let World { proxy, sim, reference } = world;
        sim.stop().await.unwrap();
        let spare = sim::Running::start(Script::default()).await.unwrap();
        let world = World { proxy, sim: spare, reference };
        let mut asking = agent.clone();
        asking.ask("text=20");
        // What a direct client would see, as a status.
        assert_eq!(asking.send(&world).await.status, 502, "{about}");

        let second = Provider::new(script(Width::Lanes));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let listener = TcpListener::bind(addr).await.unwrap();
        let serving = tokio::spawn(sim::serve(listener, second.clone(), async { drop(stopped.await) }));
        let (full, _) = recover(&world, &mut agent, &about).await;
        // Over HTTP until a handshake has succeeded; a stored response may be asked for before it is known to be gone.
        assert_eq!((full, world.rungs()[1]), (1, 0), "{about}");
        second.ledger().read(|book| assert_eq!(book.violations, []));
        drop(stop);
        serving.await.unwrap();
    }
}

#[tokio::test]
async fn f40_a_socket_that_grows_old_is_left_turn_by_turn_and_nobody_is_cut() {
    for width in [Width::Lanes, Width::Single] {
        let about = format!("{width:?}");
        let World { proxy, sim, reference } = World::start(width, |_| {}).await;
        let settings = Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            admin_listen: tailwire::config::AdminListen::Off,
            upstream: sim.base_url().parse().unwrap(),
            profile: tailwire::config::ProfileName::Openai,
            ..Settings::default()
        };
        let settings = match width {
            Width::Lanes => settings,
            Width::Single => Settings { profile: tailwire::config::ProfileName::Azure, ..settings },
        };
        within("the first proxy", proxy.stop()).await;
        let aged = |limits: &mut tailwire::proto::session::Limits| {
            (limits.rotate_after, limits.jitter) = (ms(2_000), ms(0));
        };
        let proxy = app::Running::start_within(settings, aged).await.unwrap();
        let world = World { proxy, sim, reference };
        let ledger = world.sim.provider.ledger();

        let mut reader = Agent::new("key", "reader", true);
        reader.ask("text=4000");
        let reading = under_way(&world, &reader).await;
        // Slow again, and still under way when the others have moved.
        world.sim.provider.script(|script| script.speed = 20.0);
        let mut agents =
            [("one", false), ("two", true)].map(|(name, stream)| Agent::new("key", name, stream));
        for agent in &mut agents {
            agent.turn(&world, "text=4", &about).await;
        }
        let old: Vec<u64> = ledger.read(|book| book.turns.iter().map(|turn| turn.connection).collect());
        let mut moved = [0; 2];
        let moving = async {
            while moved != [1, 1] {
                for (agent, moved) in agents.iter_mut().zip(&mut moved) {
                    match &*agent.turn(&world, "text=4", &about).await {
                        "delta" => {}
                        "full; socket-aged" | "full; socket-lost" => *moved += 1,
                        plan => panic!("{about}: {plan}"),
                    }
                }
            }
        };
        within(&about, moving).await;
        if width == Width::Lanes {
            ledger.read(|book| {
                assert_eq!(book.turns[0].outcome, Outcome::Running, "{about}: the reader is still served");
                assert_eq!((old[0], old[1]), (old[1], old[2]), "{about}: all on one socket");
                assert_eq!(book.sockets_open, 2, "{about}");
            });
        }
        world.sim.provider.script(|script| script.speed = 0.0);
        let body = within(&about, reading).await.unwrap();
        let response = reader.assert_stream(&world, &body, &about).await;
        reader.take(&response);
        ledger.read(|book| assert_eq!(book.turns[0].outcome, Outcome::Ended(Ending::Completed), "{about}"));
        let (full, http) = recover(&world, &mut reader, &about).await;
        assert!(full <= 1 && http == 0, "{about}: {full} in full, {http} over HTTP");
        assert_eq!(world.rungs(), [0, 0, 0], "{about}");
        world.assert_lawful();
    }
}

#[tokio::test]
async fn f38_a_new_key_never_meets_the_old_ones_socket() {
    for width in [Width::Lanes, Width::Single] {
        for store in [false, true] {
            let about = format!("{width:?} {store}");
            let world = World::start(width, |settings| settings.timeouts.idle_socket = ms(400)).await;
            let ledger = world.sim.provider.ledger();
            let mut agent = Agent::new("old", "agent", true);
            agent.store = store;
            agent.turn(&world, "text=20", &about).await;
            agent.turn(&world, "text=20", &about).await;
            agent.key = "new".to_owned();
            assert_eq!(agent.turn(&world, "text=20", &about).await, "full; first-turn", "{about}");
            let next = agent.turn(&world, "text=20", &about).await;
            assert!(next == "delta" || next == "full; socket-lost", "{about}: {next}");
            ledger.read(|book| {
                let (old, new) = (&book.turns[1], &book.turns[2]);
                assert!(old.credential != new.credential && old.connection != new.connection, "{about}");
                assert_eq!(new.previous, None, "{about}: the whole history");
            });
            assert!(ledger.wait(|book| book.sockets_open == 0).await, "{about}: both are closed when idle");
            until(&about, || world.proxy.sockets() == 0).await;
            assert_eq!(world.rungs(), [0, 0, 0], "{about}");
            // An id of another key would be a violation.
            world.assert_lawful();
        }
    }
}

#[tokio::test]
async fn f47_a_socket_that_died_in_a_long_gap_costs_each_conversation_one_resend() {
    for death in [Death::Silent, Death::Reset] {
        for width in [Width::Lanes, Width::Single] {
            for stream in [true, false] {
                let about = format!("{death:?} {width:?} {stream}");
                let sim = sim::Running::start(script(width)).await.unwrap();
                let wire = Wire::before(sim.addr).await;
                let tune = |settings: &mut Settings| {
                    // Silence is noticed by the ping alone; a reset must be noticed without.
                    if death == Death::Silent {
                        settings.timeouts.ping = ms(300);
                        settings.timeouts.pong = ms(300);
                    }
                };
                let world = World::before(sim, &wire.base_url(), width, tune).await;
                let mut agents = ["one", "two"].map(|name| Agent::new("key", name, stream));
                for agent in &mut agents {
                    agent.turn(&world, "text=20", &about).await;
                    assert_eq!(agent.turn(&world, "text=20", &about).await, "delta", "{about}");
                }
                wire.die(death);
                let mut resent = Vec::new();
                for agent in &mut agents {
                    resent.push(recover(&world, agent, &about).await);
                }
                assert_eq!(resent, [(1, 0), (1, 0)], "{about}");
                let [same, new, http] = world.rungs();
                let most = if width == Width::Lanes { 1 } else { 2 };
                assert!(same == 0 && http == 0 && new <= most, "{about}: {:?}", world.rungs());
                let known = world.sim.provider.ledger().read(|book| {
                    let done =
                        |turn: &&sim::ledger::Record| turn.outcome == Outcome::Ended(Ending::Completed);
                    book.turns.iter().filter(done).count()
                });
                assert_eq!(known, 8, "{about}: nothing was generated twice");
                world.assert_lawful();
            }
        }
    }
}
