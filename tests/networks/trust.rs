//! TLS on the way up, with a proxy or without: private authorities by file and by variable, certificates of ours, and the real
//! binary refusing what it cannot use.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::json;
use tailwire::app;
use tailwire::config::{Proxy, ProxyChoice};
use tailwire::sim::{self, Script};

use crate::agent::Agent;
use crate::authority::{Asks, Authority, Shown, front, shaken, text};
use crate::forward::{Forward, Rules, Speaks};
use crate::http::Client;
use crate::world::settings_for;

const NAME: &str = "provider.invalid";

/// Turns over the socket and over HTTP, and what passes through.
async fn works(client: Client) {
    let mut agent = Agent::new(client.clone());
    let turns = agent.run("work [sim calls=1 text=9]").await;
    let plans: Vec<_> = turns.iter().map(|turn| turn.told().plan.clone()).collect();
    assert_eq!(plans, ["full", "delta"]);
    let reply =
        client.clone().with("x-tailwire-mode", "http").ask(&json!({"model": "gpt-sim", "input": "a"})).await;
    assert_eq!(reply.told().plan, "http");
    assert_eq!(client.get("/v1/models").await.status, 200);
}

#[tokio::test]
async fn f44_f45_tls_is_the_providers_own_through_any_proxy_and_only_it_sees_the_certificate() {
    let sim = sim::Running::start(Script::default()).await.unwrap();
    let authority = Authority::new();
    let (fronted, shown) = front(authority.server(NAME, Asks::Firmly), sim.addr).await;
    let (certificate, key) = authority.files("client.test");
    for (scheme, speaks) in
        [("http", Speaks::Connect), ("https", Speaks::Connect), ("socks5h", Speaks::Socks)]
    {
        let rules = Rules { leads_to: Some(fronted), ..Rules::new(speaks) };
        let to_proxy = Shown::default();
        let forward = if scheme == "https" {
            let (acceptor, book) = (authority.server("localhost", Asks::Politely), to_proxy.clone());
            Forward::start_over(rules, move |stream| shaken(acceptor.clone(), stream, book.clone())).await
        } else {
            Forward::start(rules).await
        };
        let mut settings = settings_for(&format!("https://{NAME}/v1"));
        let url = format!("{scheme}://localhost:{}", forward.addr.port());
        settings.proxy = ProxyChoice::Through(Proxy::parse(&url, "proxy").unwrap());
        settings.extra_ca_files = vec![authority.file.clone()];
        settings.client_certificate = Some(certificate.clone());
        settings.client_key = Some(key.clone());
        let proxy = app::Running::start(settings).await.unwrap();
        works(Client::new(proxy.addr)).await;
        assert!(forward.asked().iter().all(|place| place == &format!("{NAME}:443")), "{:?}", forward.asked());
        let to_proxy = to_proxy.lock().unwrap().clone();
        assert_eq!(to_proxy.len(), if scheme == "https" { forward.asked().len() } else { 0 });
        assert!(to_proxy.iter().all(|shown| !shown), "the proxy was shown what is the provider's");
        proxy.stop().await;
    }
    assert!(shown.lock().unwrap().iter().all(|shown| *shown));
    sim.provider.ledger().read(|book| assert_eq!(book.violations, []));
}

#[tokio::test]
async fn without_its_certificate_the_provider_is_not_reached() {
    let sim = sim::Running::start(Script::default()).await.unwrap();
    let authority = Authority::new();
    let (fronted, _) = front(authority.server("localhost", Asks::Firmly), sim.addr).await;
    let mut settings = settings_for(&format!("https://localhost:{}/v1", fronted.port()));
    settings.extra_ca_files = vec![authority.file.clone()];
    let proxy = app::Running::start(settings).await.unwrap();
    let reply = Client::new(proxy.addr).ask(&json!({"model": "gpt-sim", "input": "a"})).await;
    assert_eq!(reply.status, 502);
    sim.provider.ledger().read(|book| assert_eq!(book.http_requests, 0));
    proxy.stop().await;
}

/// A process that does not outlive its test.
pub(crate) struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The real binary with these variables and no others, and the line that it prints.
pub(crate) fn program(arguments: &[&str], variables: &[(&str, &str)]) -> (Program, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailwire"));
    command.arg("serve").args(arguments).env_clear().envs(variables.iter().copied());
    let mut child = Program(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let out = child.0.stdout.take().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    (child, line.trim_end().to_owned())
}

impl Program {
    /// Asks it to end, and waits until it has.
    pub(crate) fn end(&mut self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.0.wait().unwrap().success());
    }
}

/// Where the platform's store is a folder of files.
#[cfg(all(unix, not(target_vendor = "apple")))]
#[tokio::test]
async fn f45_ssl_cert_file_names_whom_to_trust_instead_of_the_systems() {
    let sim = sim::Running::start(Script::default()).await.unwrap();
    let authority = Authority::new();
    let stranger = Authority::new();
    let (fronted, _) = front(authority.server("localhost", Asks::Never), sim.addr).await;
    let upstream = format!("https://localhost:{}/v1", fronted.port());
    let (own, other) = (text(&authority.file), text(&stranger.file));
    for (variables, trusted) in [
        (&[][..], false),
        (&[("SSL_CERT_FILE", own.as_str())], true),
        (&[("SSL_CERT_FILE", "/nowhere/authority.pem")], false),
        (&[("SSL_CERT_FILE", "/nowhere/authority.pem"), ("TAILWIRE_EXTRA_CA_FILES", &own)], true),
        (&[("SSL_CERT_FILE", &own), ("TAILWIRE_EXTRA_CA_FILES", &other)], true),
        (&[("SSL_CERT_FILE", &other)], false),
    ] {
        let (_program, line) = program(&["--listen", "127.0.0.1:0", "--upstream", &upstream], variables);
        let addr = line.split("http://").nth(1).and_then(|rest| rest.split("/v1").next()).unwrap();
        let client = Client::new(addr.parse().unwrap());
        if trusted {
            works(client).await;
        } else {
            let reply = client.get("/v1/models").await;
            assert_eq!(reply.status, 502, "{variables:?}");
            assert!(String::from_utf8_lossy(&reply.body).contains("certificate"), "{:?}", reply.body);
        }
    }
}

/// How the program ends with these variables. By the command that ends in any case.
fn refusal(variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailwire"));
    command.args(["check", "--upstream", "https://127.0.0.1:1/v1"]).env_clear();
    command.envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn f44_what_cannot_be_used_ends_the_program_at_its_start() {
    let authority = Authority::new();
    let ((certificate, key), (other, other_key)) = (authority.files("a.test"), authority.files("b.test"));
    let as_text = |path: PathBuf| text(&path);
    let (certificate, key, other, other_key) =
        (as_text(certificate), as_text(key), as_text(other), as_text(other_key));
    let (certificate_name, key_name) = ("TAILWIRE_CLIENT_CERTIFICATE", "TAILWIRE_CLIENT_KEY");
    for (variables, said) in [
        (vec![("HTTPS_PROXY", "http://user:hunter2/@proxy:1")], "HTTPS_PROXY: a proxy is written like"),
        (vec![("https_proxy", "socks4://user:hunter2@proxy:1")], "https_proxy: a proxy's URL begins with"),
        (vec![("ALL_PROXY", "socks://user:hunter2@proxy:1")], "ALL_PROXY: a proxy's URL begins with"),
        (vec![("TAILWIRE_PROXY", "hunter2://proxy")], "TAILWIRE_PROXY: proxy: a proxy's URL begins with"),
        (vec![(certificate_name, &certificate)], "its private key is missing: set client_key"),
        (vec![(key_name, &key)], "its certificate is missing: set client_certificate"),
        (vec![(certificate_name, &certificate), (key_name, &other_key)], "it is not the key of"),
        (vec![(certificate_name, &other), (key_name, &key)], "it is not the key of"),
        (vec![(certificate_name, &key), (key_name, &key)], "a.test.key: it holds no certificate"),
        (
            vec![(certificate_name, &certificate), (key_name, &certificate)],
            "not a PEM file of an unencrypted",
        ),
        (vec![(certificate_name, "/nowhere.pem"), (key_name, &key)], "no file at /nowhere.pem"),
        (vec![("TAILWIRE_LISTEN", "unix:")], "a unix socket has a path"),
    ] {
        let output = refusal(&variables);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{variables:?}: {complaint}");
        assert!(complaint.contains(said) && !complaint.contains("hunter2"), "{variables:?}: {complaint}");
        assert!(output.stdout.is_empty());
    }
    // A flag is not quoted either.
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailwire"));
    let output = command.args(["check", "--proxy", "ftp://user:hunter2@proxy"]).env_clear().output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{complaint}");
    assert!(complaint.contains("proxy's URL begins with") && !complaint.contains("hunter2"), "{complaint}");
}
