//! `/events`: how things stand first, then every turn, then how things stand again; and an end.

use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::support::{admin, looked_at};
use crate::world::World;

/// A follower that reads event by event.
struct Follower {
    body: Incoming,
    text: String,
}

impl Follower {
    async fn of(world: &World) -> Self {
        let response = admin(world).open(Method::GET, "/events", "".into()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        Self { body: response.into_body(), text: String::new() }
    }

    /// The next event; none at the end of the stream.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let Some((name, data)) = event.split_once('\n') else {
                    assert!(event.starts_with(':'), "{event}");
                    continue;
                };
                let name = name.strip_prefix("event: ").unwrap().to_owned();
                return Some((name, serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap()));
            }
            let frame = tokio::time::timeout(std::time::Duration::from_secs(60), self.body.frame());
            let data = frame.await.expect("an event or an end")?.unwrap().into_data().unwrap();
            self.text.push_str(std::str::from_utf8(&data).unwrap());
        }
    }

    async fn next_of(&mut self, wanted: &str) -> Value {
        loop {
            let (name, data) = self.next().await.expect("the stream goes on");
            if name == wanted {
                return data;
            }
        }
    }
}

#[tokio::test]
async fn a_follower_sees_what_there_is_and_then_what_happens() {
    let world = looked_at(|_| (), |_| ()).await;
    Agent::new(world.proxied()).run("before [sim text=9]").await;
    let mut follower = Follower::of(&world).await;
    let (name, snapshot) = follower.next().await.unwrap();
    assert_eq!((&*name, snapshot["turns"].as_array().unwrap().len()), ("snapshot", 1));
    assert_eq!(snapshot["stats"]["turns"]["full"], 1);
    Agent::new(world.proxied()).set(&json!({"stream": true})).run("after [sim text=9]").await;
    let turn = follower.next_of("turn").await;
    assert_eq!((&turn["number"], &turn["form"]), (&json!(2), &json!("sse")));
    let stats = follower.next_of("stats").await;
    assert_eq!(stats["turns"]["full"], 2);
}

#[tokio::test]
async fn a_stop_ends_the_stream_and_waits_for_nobody() {
    let world = looked_at(|_| (), |_| ()).await;
    let mut follower = Follower::of(&world).await;
    follower.next_of("snapshot").await;
    let (addr, proxy) = (world.proxy.admin_addr().unwrap(), world.proxy);
    proxy.stop().await;
    while follower.next().await.is_some() {}
    assert!(tokio::net::TcpStream::connect(addr).await.is_err(), "the listener is gone");
}
