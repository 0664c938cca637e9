//! A world with an admin listener, and a client of it.

use std::time::Duration;

use tailwire::config::{AdminListen, Settings};
use tailwire::sim::Script;

use crate::http::Client;
use crate::reader::Scrape;
use crate::world::World;

/// A world whose proxy has an admin listener, on a port of the system's choice.
pub(crate) async fn looked_at(
    settings: impl FnOnce(&mut Settings),
    script: impl FnOnce(&mut Script),
) -> World {
    let chosen = |chosen: &mut Settings| {
        chosen.admin_listen = AdminListen::At(([127, 0, 0, 1], 0).into());
        settings(chosen);
    };
    World::start(chosen, script).await
}

pub(crate) fn admin(world: &World) -> Client {
    Client::new(world.proxy.admin_addr().unwrap())
}

/// What `/metrics` says, in the form that is the stricter.
pub(crate) async fn scrape(client: &Client) -> Scrape {
    let reply = client.clone().with("accept", "application/openmetrics-text").get("/metrics").await;
    assert_eq!(reply.status, 200);
    assert!(reply.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"));
    Scrape::read(std::str::from_utf8(&reply.body).unwrap())
}

/// Waits, without an end of its own, for what must come; a minute is not a wait but a failure.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("{what}"));
}
