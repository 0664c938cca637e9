//! Forward proxies: both ways go through them, whatever they speak; what they refuse is told, and not gone around.

use std::process::Command;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::json;
use tailwire::app;
use tailwire::config::{Proxy, ProxyChoice};
use tailwire::sim::{self, Script};
use tokio::net::TcpListener;

use crate::agent::Agent;
use crate::forward::{Forward, Rules, Speaks, Verdict};
use crate::http::{Client, Reply};
use crate::world::settings_for;

/// The scanner of logs ends the test that lets this be seen.
const PASSWORD: &str = "sk-planted-proxy@1";
const ESCAPED: &str = "sk-planted-proxy%401";

fn through(url: &str) -> ProxyChoice {
    ProxyChoice::Through(Proxy::parse(url, "proxy").unwrap())
}

#[tokio::test]
async fn f44_socket_and_http_go_through_the_same_proxy() {
    let sim = sim::Running::start(Script::default()).await.unwrap();
    for (scheme, speaks, authenticates, upstream) in [
        // Nobody here knows that name: who did not leave it to the proxy could not go on.
        ("http", Speaks::Connect, false, "provider.invalid:8443"),
        ("http", Speaks::Connect, true, "provider.invalid:8443"),
        ("socks5h", Speaks::Socks, false, "provider.invalid:8443"),
        ("socks5h", Speaks::Socks, true, "provider.invalid:8443"),
        ("socks5", Speaks::Socks, true, "127.0.0.1:8443"),
        ("http", Speaks::Connect, false, "[::1]:8443"),
        ("socks5h", Speaks::Socks, false, "[::1]:8443"),
    ] {
        let credentials = authenticates.then_some(("user", PASSWORD));
        let rules = Rules { credentials, leads_to: Some(sim.addr), ..Rules::new(speaks) };
        let forward = Forward::start(rules).await;
        let credentials = if authenticates { format!("user:{ESCAPED}@") } else { String::new() };
        let mut settings = settings_for(&format!("http://{upstream}/v1"));
        settings.proxy = through(&format!("{scheme}://{credentials}{}", forward.addr));
        let proxy = app::Running::start(settings).await.unwrap();

        let before = sim.provider.ledger().read(|book| (book.connections_opened, book.upgrades_granted));
        let mut agent = Agent::new(Client::new(proxy.addr));
        let plans: Vec<_> = agent
            .run("work [sim calls=2 text=9]")
            .await
            .iter()
            .map(|turn| turn.told().plan.clone())
            .collect();
        assert_eq!(plans, ["full", "delta", "delta"], "{scheme} {upstream}");
        let http = Client::new(proxy.addr).with("x-tailwire-mode", "http");
        let reply = http.ask(&json!({"model": "gpt-sim", "input": "hello [sim text=9]"})).await;
        assert_eq!((reply.status.as_u16(), reply.told().plan.as_str()), (200, "http"));
        assert_eq!(
            Client::new(proxy.addr).get("/v1/models").await.status,
            200,
            "what passes through as well"
        );

        let after = sim.provider.ledger().read(|book| (book.connections_opened, book.upgrades_granted));
        let asked = forward.asked();
        assert!(asked.iter().all(|place| place == upstream), "{asked:?}");
        assert_eq!(after.0 - before.0, asked.len() as u64, "no connection but through the proxy");
        assert_eq!(after.1 - before.1, 1, "one of them is the socket");
        assert!(asked.len() >= 2, "and another is not");
        proxy.stop().await;
    }
    sim.provider.ledger().read(|book| assert_eq!(book.violations, []));
}

/// A turn and something that passes, before a proxy of these rules and an upstream that nobody may reach.
async fn refused(rules: Rules, url: impl Fn(&Forward) -> String) -> (Reply, Reply) {
    let provider = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let forward = Forward::start(rules).await;
    let mut settings = settings_for(&format!("http://{}/v1", provider.local_addr().unwrap()));
    settings.proxy = through(&url(&forward));
    settings.timeouts.connect =
        if rules.verdict == Verdict::Silence { Duration::from_millis(300) } else { Duration::from_secs(30) };
    let proxy = app::Running::start(settings).await.unwrap();
    let client = Client::new(proxy.addr);
    let turn = client.ask(&json!({"model": "gpt-sim", "input": "hello"})).await;
    let passed = client.get("/v1/models").await;
    assert!(provider.accept().now_or_never().is_none(), "the proxy was gone around");
    proxy.stop().await;
    (turn, passed)
}

#[tokio::test]
async fn f44_a_proxy_that_refuses_is_a_named_error_and_is_not_gone_around() {
    let right = Some(("user", PASSWORD));
    let (http, socks) = (Rules::new(Speaks::Connect), Rules::new(Speaks::Socks));
    let verdict = |rules: Rules, verdict: Verdict| Rules { verdict, ..rules };
    for (rules, scheme, credentials, said) in [
        (Rules { credentials: right, ..http }, "http", "", "asks for a user name and a password (407)"),
        (
            Rules { credentials: right, ..http },
            "http",
            "user:sk-planted-no@",
            "does not accept the user name and password (407)",
        ),
        (verdict(http, Verdict::Refuse(403)), "http", "", "with status 403 Forbidden"),
        (verdict(http, Verdict::Refuse(502)), "http", "", "with status 502 Bad Gateway"),
        (
            verdict(http, Verdict::Refuse(401)),
            "http",
            "u:sk-planted-no@",
            "does not accept the user name and password (401)",
        ),
        (verdict(http, Verdict::Refuse(302)), "http", "", "with status 302 Found"),
        (verdict(http, Verdict::Babble), "http", "", "does not speak HTTP"),
        (verdict(http, Verdict::HangUp), "http", "", "does not speak HTTP"),
        (http, "https", "", "no trusted TLS session"),
        (Rules { credentials: right, ..socks }, "socks5h", "", "SOCKS error"),
        (
            Rules { credentials: right, ..socks },
            "socks5h",
            "user:sk-planted-no@",
            "SOCKS error: credentials not accepted",
        ),
        (verdict(socks, Verdict::Refuse(2)), "socks5h", "", "SOCKS error: connection not allowed"),
        (verdict(socks, Verdict::Refuse(5)), "socks5", "", "SOCKS error: connection refused"),
        (verdict(socks, Verdict::Babble), "socks5h", "", "SOCKS error"),
        (verdict(socks, Verdict::HangUp), "socks5", "", "SOCKS error"),
    ] {
        let (turn, passed) =
            refused(rules, |forward| format!("{scheme}://{credentials}{}", forward.addr)).await;
        for reply in [turn, passed] {
            let error = reply.json()["error"].clone();
            let message = error["message"].as_str().unwrap();
            assert_eq!(
                (reply.status.as_u16(), &error["code"]),
                (502, &json!("tailwire_proxy_failed")),
                "{rules:?}"
            );
            assert!(
                message.contains(said) && message.contains(&format!("the proxy {scheme}://127.0.0.1:")),
                "{message}"
            );
            assert!(!message.contains("planted") && !message.contains("user:"), "{message}");
        }
    }
    let silent = verdict(http, Verdict::Silence);
    for (rules, scheme) in [(silent, "http"), (verdict(socks, Verdict::Silence), "socks5"), (silent, "https")]
    {
        let (turn, passed) = refused(rules, |forward| format!("{scheme}://{}", forward.addr)).await;
        for reply in [turn, passed] {
            assert_eq!(
                (reply.status.as_u16(), &reply.json()["error"]["code"]),
                (504, &json!("tailwire_upstream_timeout")),
                "{scheme}"
            );
        }
    }
}

#[tokio::test]
async fn f44_a_proxy_that_is_away_or_unknown_is_a_named_error() {
    let deserted = TcpListener::bind("127.0.0.3:0").await.unwrap().local_addr().unwrap();
    for (url, said) in [
        (format!("http://{deserted}"), "it does not accept connections"),
        (format!("socks5h://{deserted}"), "it does not accept connections"),
        (String::from("http://proxy.invalid:3128"), "its name does not resolve"),
    ] {
        let (turn, passed) = refused(Rules::new(Speaks::Connect), |_| url.clone()).await;
        for reply in [turn, passed] {
            let error = reply.json()["error"].clone();
            assert_eq!((reply.status.as_u16(), &error["code"]), (502, &json!("tailwire_proxy_failed")));
            assert!(error["message"].as_str().unwrap().contains(said), "{error}");
        }
    }
}

/// What `tailwire check` prints, and how it ends.
fn check(upstream: &str, proxy: &str) -> (String, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailwire"));
    command.args(["check", "--upstream", upstream]).env_clear();
    let output = command.env("HTTP_PROXY", proxy).env("OPENAI_API_KEY", "sk-planted-a").output().unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(!report.contains("planted") && !String::from_utf8_lossy(&output.stderr).contains("planted"));
    (report, output.status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_names_the_proxy_and_what_it_refuses() {
    let sim = sim::Running::start(Script::default()).await.unwrap();
    let rules = Rules {
        credentials: Some(("user", PASSWORD)),
        leads_to: Some(sim.addr),
        ..Rules::new(Speaks::Connect)
    };
    let forward = Forward::start(rules).await;
    let upstream = "http://provider.invalid/v1";
    let (report, code) = check(upstream, &format!("http://user:{ESCAPED}@{}", forward.addr));
    assert!(report.contains("– name         left to the proxy\n"), "{report}");
    let leads = format!("✓ proxy        http://{} leads there, as HTTP_PROXY says\n", forward.addr);
    assert!(report.contains(&leads) && report.contains("✓ WebSocket"), "{report}");
    assert_eq!(code, Some(0), "{report}");
    let (report, code) = check(upstream, &format!("http://user:sk-planted-no@{}", forward.addr));
    let said = "✗ proxy        the proxy http://127.0.0.1:";
    assert!(report.contains(said) && report.contains("(407); look at `proxy`, HTTPS_PROXY"), "{report}");
    assert_eq!(code, Some(69), "{report}");
    let socks = Rules { verdict: Verdict::Refuse(5), ..Rules::new(Speaks::Socks) };
    let (report, code) =
        check("http://127.0.0.1:1/v1", &format!("socks5://{}", Forward::start(socks).await.addr));
    assert!(report.contains("✓ name         127.0.0.1 is an address\n"), "{report}");
    assert!(report.contains("SOCKS error: connection refused"), "{report}");
    assert_eq!(code, Some(69), "{report}");
}
