//! Names with several addresses, and IPv6: socket and HTTP take the same one that answers.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request};
use serde_json::json;
use tailwire::app;
use tailwire::sim::{self, Script};
use tailwire::upstream::connector::{Connector, Lookup};
use tailwire::upstream::extension::Compression;
use tailwire::upstream::handshake::Dialer;
use tailwire::upstream::http::Client;
use tailwire::upstream::origin::Upstream;
use tailwire::upstream::tls::Tls;
use tokio::net::TcpListener;

use crate::http::Client as Plain;
use crate::world::settings_for;

/// An address of this machine's where nobody listens, and no test ever binds the port it had.
async fn deserted(ip: &str) -> Option<SocketAddr> {
    TcpListener::bind(format!("{ip}:0")).await.ok()?.local_addr().ok()
}

#[tokio::test]
async fn socket_and_http_take_whichever_address_answers() {
    let sim = sim::Running::start(Script::default()).await.unwrap();
    let mut worlds = vec![
        vec![deserted("127.0.0.2").await.unwrap(), sim.addr],
        vec![sim.addr, deserted("127.0.0.2").await.unwrap()],
    ];
    // Where there is IPv6: preferred, and nobody there.
    if let Some(sixth) = deserted("[::1]").await {
        worlds.push(vec![sixth, sim.addr]);
        worlds.push(vec![sixth, deserted("127.0.0.2").await.unwrap(), sixth, sim.addr]);
    }
    let upstream = Upstream::parse("http://twofold.invalid/v1").unwrap();
    for addresses in worlds {
        let named = addresses.clone();
        let lookup = Lookup::new(move |host, port| {
            assert_eq!((host.as_str(), port), ("twofold.invalid", 80));
            let addresses = named.clone();
            Box::pin(async move { Ok(addresses) })
        });
        let connector = Connector::new(Tls::new(&[]).unwrap()).with_lookup(lookup);
        let connector = connector.with_timeout(Duration::from_secs(30));
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer sk-planted-a".parse().unwrap());
        let dialer = Dialer::over(connector.clone());
        let opened = dialer.open(&upstream.target("/v1/responses"), &headers, Compression::Off).await;
        assert!(opened.is_ok(), "{addresses:?} {:?}", opened.err());
        let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
        let mut request = Request::get(upstream.map("/v1/models")).body(body).unwrap();
        request.headers_mut().extend(headers);
        let sent = Client::over(connector).send(request).await;
        assert_eq!(sent.unwrap().status(), 200, "{addresses:?}");
    }
}

#[tokio::test]
async fn ipv6_is_listened_on_and_gone_to() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        eprintln!("not tried: there is no IPv6 here");
        return;
    };
    let addr = listener.local_addr().unwrap();
    let sim = sim::Running::start(Script::default()).await.unwrap();
    let sim_addr = sim.addr;
    // The simulated provider listens on IPv4 only.
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut onward = tokio::net::TcpStream::connect(sim_addr).await.unwrap();
                // Either side may end as it likes.
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
            });
        }
    });
    let mut settings = settings_for(&format!("http://{addr}/v1"));
    settings.listen = "[::1]:0".parse().unwrap();
    let proxy = app::Running::start(settings).await.unwrap();
    assert!(proxy.base_url().starts_with("http://[::1]:"), "{}", proxy.base_url());
    let client = Plain::new(proxy.addr);
    let body = json!({"model": "gpt-sim", "input": "hello [sim text=9]"});
    assert_eq!(client.ask(&body).await.told().plan, "full");
    assert_eq!(client.with("x-tailwire-mode", "http").ask(&body).await.told().plan, "http");
    proxy.stop().await;
}
