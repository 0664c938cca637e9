//! The report against the simulated provider, and against nobody.

use std::time::Duration;

use super::*;
use crate::sim::script::{Limits as SimLimits, Upgrade};
use crate::sim::{self, Script};

const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(120);

async fn report(upstream: &str, key: Option<&str>, patience: Duration) -> Vec<Finding> {
    let mut settings = Settings { upstream: upstream.parse().unwrap(), ..Settings::default() };
    settings.timeouts.connect = patience;
    let mut findings = Vec::new();
    examine(&settings, key, &mut |finding| findings.push(finding)).await;
    findings
}

async fn report_on(script: Script, key: Option<&str>) -> Vec<Finding> {
    // Only what is never answered is to be given up: a busy machine may be slow with the rest.
    let patience = if matches!(script.upgrade, Upgrade::Hang) { SHORT } else { LONG };
    let provider = sim::Running::start(script).await.unwrap();
    let findings = report(&provider.base_url(), key, patience).await;
    let generated =
        provider.provider.ledger().read(|book| book.turns.iter().map(|turn| turn.tokens).sum::<u64>());
    assert_eq!(generated, 0, "a check costs nothing");
    provider.stop().await.unwrap();
    findings
}

/// Marks in the order of the report, such as `✓✓✓–✓✓✓✓✓`.
fn marks(findings: &[Finding]) -> String {
    findings.iter().filter_map(|finding| finding.to_string().chars().next()).collect()
}

fn words<'a>(findings: &'a [Finding], topic: &str) -> &'a str {
    findings.iter().find(|finding| finding.topic == topic).map_or("", |finding| &finding.words)
}

fn good() -> Script {
    Script { deflate: true, ..Script::default() }
}

#[tokio::test]
async fn all_is_well() {
    let findings = report_on(good(), Some("sk-test")).await;
    assert_eq!(marks(&findings), "✓✓✓–✓✓✓✓✓", "{findings:#?}");
    assert_eq!(words(&findings, "compression"), "permessage-deflate");
    assert!(!format!("{findings:?}").contains("sk-test"));
}

#[tokio::test]
async fn what_is_not_granted_is_no_failure() {
    let script = Script { limits: SimLimits::one_in_flight(), ..Script::default() };
    let findings = report_on(script, Some("sk-test")).await;
    assert_eq!(marks(&findings), "✓✓✓–✓✓✓––", "{findings:#?}");
    assert!(words(&findings, "compression").contains("not granted"));
    assert!(words(&findings, "lanes").contains("Unsupported parameter: stream_id"));
}

#[tokio::test]
async fn without_a_key_nothing_is_blamed() {
    let findings = report_on(good(), None).await;
    assert_eq!(marks(&findings), "✓✓✓–✓––––", "{findings:#?}");
}

#[tokio::test]
async fn a_refused_upgrade_is_quoted() {
    let findings = report_on(Script { upgrade: Upgrade::refuse(426), ..good() }, Some("sk-test")).await;
    assert_eq!(marks(&findings), "✓✓✓–✓✓✗––", "{findings:#?}");
    let said = words(&findings, "WebSocket");
    assert!(said.contains("426") && said.contains("The WebSocket upgrade was refused."), "{said}");
    assert!(said.contains("nothing is saved"), "{said}");
}

#[tokio::test]
async fn a_silent_upgrade_is_not_waited_for() {
    let findings = report_on(Script { upgrade: Upgrade::Hang, ..good() }, Some("sk-test")).await;
    assert_eq!(marks(&findings), "✓✓✓–✓✓✗––", "{findings:#?}");
    assert!(words(&findings, "WebSocket").contains("took too long"));
}

#[tokio::test]
async fn nobody_there() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let findings = report(&format!("http://{address}/v1"), Some("sk-test"), LONG).await;
    assert_eq!(marks(&findings), "✓✓✗–––––", "{findings:#?}");
    assert!(words(&findings, "TCP").contains("firewalls"));
}

#[tokio::test]
async fn plain_http_behind_an_https_address_is_a_matter_of_tls() {
    let provider = sim::Running::start(good()).await.unwrap();
    let findings = report(&format!("https://{}/v1", provider.addr), Some("sk-test"), LONG).await;
    assert_eq!(marks(&findings), "✓✓✓✗–––––", "{findings:#?}");
    assert!(words(&findings, "TLS").contains("extra_ca_files"));
}

#[test]
fn answers_are_judged_by_the_lane_they_name() {
    for (event, mark) in [
        (r#"{"type":"error","stream_id":"tailwire-check","error":{"message":"no model"}}"#, Mark::Works),
        (r#"{"type":"response.created","stream_id":"tailwire-check"}"#, Mark::Works),
        (r#"{"type":"error","error":{"message":"Unsupported parameter: stream_id"}}"#, Mark::Open),
        (r#"{"type":"error","message":"model not found"}"#, Mark::Open),
    ] {
        assert_eq!(steps::judge(&serde_json::from_str(event).unwrap()).mark, mark, "{event}");
    }
}
