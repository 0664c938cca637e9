//! What follows from sockets that cannot be had: the latch, the backoff, degrading; and turns that must not run twice.
//!
//! What the struck turn's client sees is the matrix's.

use serde_json::json;
use tailwire::config::ProfileName;
use tailwire::sim::ledger::Book;
use tailwire::sim::script::{Limits, Upgrade};
use tailwire::sim::{Fault, Mishap, Moment, Running};

use crate::support::{Agent, PATIENCE, Width, World, ms, script, within};

fn asked(world: &World) -> u64 {
    world.sim.provider.ledger().read(|book: &Book| book.upgrades_asked)
}

#[tokio::test]
async fn a_latch_ends_and_the_provider_s_own_answer_is_the_client_s() {
    let world = World::start(Width::Lanes, |settings| settings.timeouts.http_latch = ms(200)).await;
    world.sim.provider.mishap(Mishap::new(Moment::Upgrade, Fault::Upgrade(Upgrade::refuse(426))));
    let denied = json!({"type": "error", "status": 403,
        "error": {"type": "invalid_request_error", "code": "unsupported_country", "message": "No."}});
    world.sim.provider.mishap(Mishap::new(Moment::AfterSend, Fault::Error(denied)).over_http());
    let mut agent = Agent::new("key", "agent", false);
    agent.ask("text=20");
    let answer = agent.send(&world).await;
    assert_eq!(
        (answer.status, &*answer.code(), &*answer.plan()),
        (403, "unsupported_country", "http; no-socket")
    );
    let mut plan = agent.finish(&world, "latched").await;
    while plan == "http; no-socket" {
        plan = within("the latch's end", agent.turn(&world, "text=20", "latched")).await;
    }
    assert_eq!(asked(&world), 2);
    assert_eq!(agent.turn(&world, "text=20", "after").await, "delta");
}

#[tokio::test]
async fn after_a_failure_sockets_are_tried_in_the_background() {
    for fault in [Upgrade::refuse(503), Upgrade::Hang] {
        let world = World::start(Width::Lanes, |settings| {
            settings.timeouts.connect = ms(100);
            settings.timeouts.backoff_min = ms(20);
            settings.timeouts.backoff_max = ms(60);
        })
        .await;
        world.sim.provider.script(|script| script.upgrade = fault.clone());
        let mut agent = Agent::new("key", "agent", true);
        let started = std::time::Instant::now();
        agent.turn(&world, "text=20", "down").await;
        while asked(&world) < 4 {
            assert_eq!(agent.clone().turn(&world, "text=20", "down").await, "http; no-socket");
            assert!(started.elapsed() < PATIENCE);
        }
        world.sim.provider.script(|script| script.upgrade = Upgrade::Accept);
        while agent.clone().turn(&world, "text=20", "up").await == "http; no-socket" {
            assert!(started.elapsed() < PATIENCE);
        }
        agent.turn(&world, "text=20", "up").await;
        assert_eq!(agent.turn(&world, "text=20", "up").await, "delta");
        world.assert_lawful();
    }
}

#[tokio::test]
async fn no_turn_waits_for_a_handshake_in_the_background() {
    let world = World::start(Width::Lanes, |settings| {
        // A turn that waited for a handshake would wait for longer than anybody here does.
        settings.timeouts.connect = 10 * PATIENCE;
        settings.timeouts.backoff_min = ms(20);
        settings.timeouts.backoff_max = ms(60);
    })
    .await;
    world.sim.provider.script(|script| script.upgrade = Upgrade::refuse(503));
    let mut agent = Agent::new("key", "agent", true);
    agent.turn(&world, "text=20", "refused").await;
    world.sim.provider.script(|script| script.upgrade = Upgrade::Hang);
    let mut beside = async || {
        let turn = within("beside a handshake", agent.turn(&world, "text=20", "hanging"));
        assert_eq!(turn.await, "http; no-socket");
    };
    while asked(&world) < 2 {
        beside().await;
    }
    for _ in 0..5 {
        beside().await;
    }
    assert_eq!(asked(&world), 2, "one at a time");
}

#[tokio::test]
async fn a_provider_without_lanes_costs_one_repeat() {
    for stream in [false, true] {
        let sim = Running::start(script(Width::Single)).await.unwrap();
        let base = sim.base_url();
        let world =
            World::before(sim, &base, Width::Single, |settings| settings.profile = ProfileName::Openai).await;
        let mut agent = Agent::new("key", "agent", stream);
        assert_eq!(agent.turn(&world, "text=20", "refused").await, "full; recovered");
        assert_eq!(agent.turn(&world, "text=20", "degraded").await, "delta");
        let mut other = Agent::new("other", "other", stream);
        assert_eq!(other.turn(&world, "text=20", "degraded").await, "full; first-turn");
        assert_eq!(world.rungs(), [0, 1, 0]);
        world.assert_lawful();
    }
}

#[tokio::test]
async fn tools_that_act_are_never_run_twice() {
    let said = |code| Fault::Error(json!({ "type": "error", "status": 400, "error": { "code": code } }));
    let repeated =
        json!({ "message": "Duplicate item found with id rs_1.", "param": "input", "code": "repeated" });
    let rows = [
        (Moment::MidText, said("websocket_stream_limit_reached"), 400, "websocket_stream_limit_reached"),
        (
            Moment::MidText,
            Fault::Error(json!({ "type": "error", "status": 400, "error": repeated })),
            400,
            "repeated",
        ),
        (Moment::AfterSend, Fault::Reset, 502, "tailwire_upstream_interrupted"),
        (Moment::MidText, Fault::Close(1011), 502, "tailwire_upstream_interrupted"),
        (Moment::AfterSend, Fault::Binary(vec![1]), 502, "tailwire_upstream_interrupted"),
        (Moment::AfterSend, Fault::Silence, 504, "tailwire_upstream_silent"),
        (Moment::MidText, Fault::Close(1009), 502, "tailwire_upstream_interrupted"),
    ];
    for width in [Width::Lanes, Width::Single] {
        let world = World::start(width, |settings| settings.timeouts.first_event = ms(300)).await;
        for (number, (moment, fault, status, code)) in rows.iter().enumerate() {
            let about = format!("{moment:?} {fault:?} {width:?}");
            let mut agent = Agent::new(format!("key-{number}"), "agent", false);
            agent.tools = json!([{"type": "mcp", "server_label": "tickets"}]);
            agent.turn(&world, "text=20", &about).await;
            let turns = world.sim.provider.ledger().read(|book| book.turns.len());
            world.sim.provider.mishap(Mishap::new(*moment, fault.clone()));
            agent.ask("text=20");
            let answer = agent.send(&world).await;
            assert_eq!((answer.status, &*answer.code()), (*status, *code), "{about}");
            assert_eq!(world.sim.provider.ledger().read(|book| book.turns.len()), turns + 1, "{about}");
            agent.finish(&world, &about).await;
        }
        // What was not run may be sent again.
        assert_eq!(world.rungs(), [0, 0, 0]);
        let mut agent = Agent::new("not-found", "agent", false);
        agent.tools = json!([{"type": "mcp", "server_label": "tickets"}]);
        agent.turn(&world, "text=20", "not found").await;
        let lost = Fault::NotFound(tailwire::sim::script::NotFound::Nested);
        world.sim.provider.mishap(Mishap::new(Moment::AfterSend, lost));
        assert_eq!(agent.turn(&world, "text=20", "not found").await, "full; not-found");
    }
}

/// A frame of a finished turn may come late, and under a name that a new turn has now.
#[tokio::test]
async fn an_event_before_the_opening_leaves_the_ladder_as_it_was() {
    for (width, stream) in [(Width::Lanes, false), (Width::Lanes, true), (Width::Single, true)] {
        let about = format!("{width:?} {stream}");
        let world = World::start(width, |_| {}).await;
        let mut agent = Agent::new("key", "agent", stream);
        agent.turn(&world, "text=20", &about).await;
        let stray = Fault::Frame(json!({ "type": "response.future_thing.delta" }));
        let lost = Fault::NotFound(tailwire::sim::script::NotFound::Nested);
        for fault in [stray, lost] {
            world.sim.provider.mishap(Mishap::new(Moment::AfterSend, fault));
        }
        assert_eq!(agent.turn(&world, "text=20", &about).await, "full; not-found", "{about}");
        assert_eq!(world.rungs(), [1, 0, 0], "{about}");
        world.assert_lawful();
        // Nor is it shown: the answer opens with its own first event.
        let late = json!({ "type": "response.output_text.delta", "output_index": 0, "content_index": 0,
            "item_id": "msg_late", "delta": "what another turn said" });
        world.sim.provider.mishap(Mishap::new(Moment::AfterSend, Fault::Frame(late)));
        agent.ask("text=20");
        let answer = agent.send(&world).await;
        agent.take(&world.assert_right(&agent, &answer, &about).await);
        assert!(!answer.body.contains("another turn"), "{about}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_frame_too_big_goes_over_http_and_its_size_is_learned() {
    for width in [Width::Lanes, Width::Single] {
        let world = World::start(width, |settings| settings.limits.own_socket_frame = 4 << 10).await;
        world.sim.provider.script(|script| script.limits = Limits { max_frame: 20_000, ..script.limits });
        let mut small = Agent::new("key", "small", true);
        small.turn(&world, "text=20", "small").await;
        let mut large = Agent::new("key", "large", false);
        large.instructions = "x".repeat(30_000);
        for (plan, sockets) in [("http; too-large", 2), ("http; too-large", 2)] {
            assert_eq!(large.turn(&world, "text=20", "large").await, plan);
            assert_eq!(world.sim.provider.ledger().read(|book| book.upgrades_granted), sockets);
        }
        assert_eq!(
            small.turn(&world, "text=20", "small").await,
            "delta",
            "a socket of its own: nobody else is hurt"
        );
    }
}

#[tokio::test]
async fn neighbours_in_flight_when_a_socket_is_lost() {
    for stream in [false, true] {
        let world = World::start(Width::Lanes, |_| {}).await;
        world.sim.provider.mishap(Mishap::new(Moment::AfterCreated, Fault::Silence).times(2));
        let agents: Vec<Agent> = ["one", "two"].map(|name| Agent::new("key", name, stream)).into();
        let turns = agents.into_iter().map(|mut agent| {
            let world = &world;
            async move {
                agent.ask("text=30");
                let answer = agent.send(world).await;
                if stream {
                    assert_eq!((&*answer.code(), answer.broken), ("tailwire_socket_lost", true));
                    agent.finish(world, "again").await;
                } else {
                    let response = world.assert_right(&agent, &answer, "repeated").await;
                    agent.take(&response);
                }
                assert_eq!(agent.turn(world, "text=20", "next").await, "delta");
            }
        });
        let fall = async {
            let created = |book: &Book| book.turns.iter().filter(|turn| turn.response.is_some()).count();
            assert!(world.sim.provider.ledger().wait(|book| created(book) == 2).await);
            world.sim.provider.mishap(Mishap::new(Moment::AfterSend, Fault::Close(1011)));
            let mut third = Agent::new("key", "three", false);
            third.turn(&world, "text=20", "third").await;
        };
        futures_util::future::join(futures_util::future::join_all(turns), fall).await;
        world.assert_lawful();
    }
}
