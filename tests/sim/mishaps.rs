//! What goes wrong on purpose: every fault at its moment, and what it leaves behind.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tailwire::sim::script::NotFound;
use tailwire::sim::{Fault, Mishap, Moment};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::peer::{Client, id, is_terminal, kind, start};

#[tokio::test]
async fn mishaps_that_end_a_turn_leave_the_connection() {
    let error =
        json!({"type": "error", "status": 503, "error": {"code": "server_is_overloaded", "message": "busy"}});
    let table = [
        (Moment::AfterSend, Fault::Error(error.clone()), 1, "error"),
        (Moment::AfterCreated, Fault::Error(error.clone()), 2, "error"),
        (Moment::AfterCreated, Fault::Failed("server_error"), 2, "response.failed"),
        (Moment::AfterSend, Fault::Failed("rate_limit_exceeded"), 1, "response.failed"),
        (Moment::AfterCreated, Fault::Incomplete("max_output_tokens"), 2, "response.incomplete"),
        (Moment::AfterSend, Fault::NotFound(NotFound::Nested), 1, "error"),
        (Moment::AfterSend, Fault::NotFound(NotFound::Flat), 1, "error"),
        (Moment::AfterSend, Fault::NotFound(NotFound::Codeless), 1, "error"),
        (Moment::AfterSend, Fault::NotFound(NotFound::StatusCode), 1, "error"),
        (Moment::AfterSend, Fault::NotFound(NotFound::Headers), 1, "error"),
        (Moment::AfterSend, Fault::NotFound(NotFound::Failed), 1, "response.failed"),
    ];
    let sim = start().await;
    let mut client = Client::connect(&sim).await;
    for (moment, fault, length, last) in table {
        sim.provider.mishap(Mishap::new(moment, fault.clone()).continued(true));
        let first = client.run(&json!({"input": "x", "stream_id": "a"})).await;
        client.ask(&json!({"input": "y", "stream_id": "a", "previous_response_id": id(&first)})).await;
        let events = client.events().await;
        assert_eq!(events.len(), length, "{fault:?}: {events:?}");
        assert_eq!(kind(events.last().unwrap()), last, "{fault:?}");
        assert_eq!(events.last().unwrap()["stream_id"], "a", "{fault:?}");
        let after =
            client.run(&json!({"input": "y", "stream_id": "a", "previous_response_id": id(&first)})).await;
        assert_eq!(after["error"]["code"], "previous_response_not_found", "evicted by {fault:?}");
    }
    sim.provider.mishap(Mishap::new(Moment::MidText, Fault::TwoTerminals(error.clone())));
    client.ask(&json!({"input": "x", "stream_id": "a"})).await;
    assert_eq!(kind(client.events().await.last().unwrap()), "error");
    assert_eq!(kind(&client.event().await), "response.failed");
    sim.provider.mishap(Mishap::new(Moment::AfterLastDelta, Fault::ErrorWithoutLane(error)));
    let last = client.run(&json!({"input": "x", "stream_id": "a"})).await;
    assert_eq!(last["stream_id"], Value::Null);
}

#[tokio::test]
async fn mishaps_that_end_the_connection() {
    let table = [
        (Moment::AfterSend, Fault::Close(1011), Some(CloseCode::Error)),
        (Moment::AfterCreated, Fault::Reset, None),
        (Moment::MidText, Fault::Close(1012), Some(CloseCode::Restart)),
        (Moment::AfterTerminal, Fault::Close(1000), Some(CloseCode::Normal)),
        (Moment::Idle, Fault::Close(1001), Some(CloseCode::Away)),
        (Moment::Idle, Fault::Reset, None),
        (Moment::MidText, Fault::HangUp, None),
    ];
    let sim = start().await;
    for (moment, fault, code) in table {
        let mut client = Client::connect(&sim).await;
        sim.provider.mishap(Mishap::new(moment, fault.clone()));
        client.ask(&json!({"input": "x"})).await;
        assert_eq!(client.end().await, code, "{moment:?} {fault:?}");
    }
    assert!(sim.provider.ledger().wait(|book| book.sockets_open == 0).await);
}

#[tokio::test]
async fn an_idle_mishap_spares_a_connection_that_has_not_served_a_turn() {
    let sim = start().await;
    let mut client = Client::connect(&sim).await;
    sim.provider.mishap(Mishap::new(Moment::Idle, Fault::Garbage("not json".to_owned())));
    // Once this ping is answered the connection has been told of the mishap.
    client.socket.send(Message::Ping(Default::default())).await.unwrap();
    let answer = client.socket.next().await.unwrap().unwrap();
    assert!(matches!(answer, Message::Pong(_)), "{answer:?}");
    client.run(&json!({"input": "x"})).await;
    assert_eq!(client.socket.next().await.unwrap().unwrap(), Message::text("not json"));
}

#[tokio::test]
async fn a_mishap_is_on_record_with_whose_it_was() {
    let sim = start().await;
    let mut client = Client::connect(&sim).await;
    sim.provider.mishap(Mishap::new(Moment::AfterSend, Fault::PingFlood(1)));
    sim.provider.mishap(Mishap::new(Moment::MidText, Fault::PingFlood(1)));
    sim.provider.mishap(Mishap::new(Moment::Idle, Fault::PingFlood(1)));
    let last = client.run(&json!({"input": "x"})).await;
    assert!(sim.provider.ledger().wait(|book| book.struck.len() == 3).await);
    sim.provider.ledger().read(|book| {
        let turn = &book.turns[0];
        assert!(book.struck.iter().all(|struck| struck.credential == turn.credential));
        assert!(book.struck.iter().all(|struck| struck.connection == turn.connection));
        let turns: Vec<_> = book.struck.iter().map(|struck| struck.settings.as_ref()).collect();
        assert_eq!(turns, [Some(&turn.settings), Some(&turn.settings), None]);
        let responses: Vec<_> = book.struck.iter().map(|struck| struck.response.as_deref()).collect();
        assert_eq!(responses, [None, Some(id(&last)), None]);
    });
}

#[tokio::test]
async fn mishaps_that_disturb_without_ending_anything() {
    let sim = start().await;
    let mut client = Client::connect(&sim).await;
    sim.provider.mishap(Mishap::new(Moment::AfterCreated, Fault::Garbage("not json".to_owned())));
    sim.provider.mishap(Mishap::new(Moment::MidText, Fault::Binary(vec![1, 2])));
    sim.provider.mishap(Mishap::new(Moment::AfterLastDelta, Fault::PingFlood(3)));
    client.ask(&json!({"input": "x"})).await;
    let (mut garbage, mut binary, mut pings) = (0, 0, 0);
    loop {
        match client.socket.next().await.unwrap().unwrap() {
            Message::Text(text) => match serde_json::from_str::<Value>(text.as_str()) {
                Ok(event) if is_terminal(&event) => break,
                Ok(_) => {}
                Err(_) => garbage += 1,
            },
            Message::Binary(_) => binary += 1,
            Message::Ping(_) => pings += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((garbage, binary, pings), (1, 1, 3));
    sim.provider.mishap(Mishap::new(Moment::Idle, Fault::SpontaneousEvent));
    assert_eq!(kind(&client.event().await), "response.created");
    assert!(sim.provider.ledger().wait(|book| book.pongs == 3 && book.mishaps == 4).await);
}

#[tokio::test]
async fn a_connection_that_ignores_pings_still_ends_with_the_provider() {
    let sim = start().await;
    let mut client = Client::connect(&sim).await;
    sim.provider.mishap(Mishap::new(Moment::AfterCreated, Fault::IgnorePings));
    client.ask(&json!({"input": "x"})).await;
    assert_eq!(kind(&client.event().await), "response.created");
    assert!(sim.provider.ledger().wait(|book| book.mishaps == 1).await);
    sim.stop().await.unwrap();
    assert_eq!(client.end().await, None);
}
