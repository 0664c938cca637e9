//! The policy as tables: who is let in, as whom, and with which credential.

use hyper::Request;
use hyper::header::HeaderName;

use super::*;
use crate::config::{NamedKey, Secret};

const ALICE: &str = "sk-planted-alice-0123";
const BOB: &str = "sk-planted-bob-456789";

fn admission(clients: &[&str], upstream: bool, profile: &str) -> Admission {
    let clients = clients.iter().map(|key| NamedKey::parse(key).unwrap()).collect();
    let upstream = upstream.then(|| Secret::upstream("sk-planted-upstream").unwrap());
    let profile = Profile::named(profile).unwrap();
    Admission::new(Key::new([7; 32]), &profile, &Keys { clients, upstream })
}

/// The headers as "name: value" lines; one of `:authority` is the URI's.
fn request(headers: &[&str]) -> Request<()> {
    let mut request = Request::new(());
    for line in headers {
        let (name, value) = line.split_once(": ").unwrap();
        match name {
            ":authority" => *request.uri_mut() = format!("http://{value}/v1/responses").parse().unwrap(),
            name => {
                let name: HeaderName = name.parse().unwrap();
                request.headers_mut().append(name, value.parse().unwrap());
            }
        }
    }
    request
}

/// What goes up, or the status and the header named.
fn outcome(admission: &Admission, headers: &[&str]) -> Result<Vec<String>, (u16, &'static str)> {
    let mut request = request(headers);
    admission.admit(&mut request).map_err(|problem| (problem.status.as_u16(), problem.param.unwrap()))?;
    let line = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
    let mut lines: Vec<_> = request.headers().iter().map(line).collect();
    lines.sort();
    Ok(lines)
}

#[test]
fn without_keys_everything_passes_as_it_came() {
    let open = admission(&[], false, "openai");
    for headers in [
        &["authorization: Bearer own", "host: evil.test", "origin: https://evil.test"][..],
        &["api-key: own"],
        &[],
    ] {
        assert_eq!(outcome(&open, headers).unwrap(), headers);
        let mut request = request(headers);
        open.admit(&mut request).unwrap();
        assert_eq!(request.extensions().get::<Guest>(), None);
    }
    assert!(outcome(&open, &["x-tailwire-key: stray"]).unwrap().is_empty(), "it is addressed to us");
}

#[test]
fn on_loopback_the_key_goes_to_local_requests_only() {
    let guarded = admission(&[], true, "openai");
    for headers in [
        &["host: localhost"][..],
        &["host: LocalHost:8484"],
        &["host: localhost.:1"],
        &["host: app.localhost:8484"],
        &["host: 127.0.0.1:8484"],
        &["host: 127.8.9.10"],
        &["host: [::1]:8484"],
        &[":authority: 127.0.0.1:8484"],
        &[":authority: localhost", "host: localhost"],
        &["host: localhost", "origin: http://localhost:3000"],
        &["host: localhost", "origin: https://[::1]"],
        &["host: localhost", "origin: http://127.0.0.1:1", "sec-fetch-site: cross-site"],
        &["host: localhost", "sec-fetch-site: none"],
        &["host: localhost", "sec-fetch-site: same-origin"],
        &["host: localhost", "sec-fetch-site: same-site"],
    ] {
        let up = outcome(&guarded, headers).unwrap_or_else(|refused| panic!("{headers:?} {refused:?}"));
        assert!(up.contains(&"authorization: Bearer sk-planted-upstream".to_owned()), "{headers:?}");
    }
    for (headers, shown) in [
        (&[][..], "host"),
        (&["host: evil.test"], "host"),
        (&["host: localhost.evil.test"], "host"),
        (&["host: evillocalhost"], "host"),
        (&["host: 127.0.0.1.evil.test"], "host"),
        (&["host: 128.0.0.1"], "host"),
        (&["host: 0.0.0.0:8484"], "host"),
        (&["host: 2130706433"], "host"),
        (&["host: [::2]"], "host"),
        (&["host: evil@localhost"], "host"),
        (&["host: localhost/x"], "host"),
        (&["host: "], "host"),
        (&["host: localhost", "host: evil.test"], "host"),
        (&[":authority: evil.test", "host: localhost"], "host"),
        (&[":authority: localhost", "host: evil.test"], "host"),
        (&["host: localhost", "origin: https://evil.test"], "origin"),
        (&["host: localhost", "origin: http://localhost.evil.test"], "origin"),
        (&["host: localhost", "origin: null"], "origin"),
        (&["host: localhost", "origin: chrome-extension://abc"], "origin"),
        (&["host: localhost", "origin: file://localhost"], "origin"),
        (&["host: localhost", "origin: localhost"], "origin"),
        (&["host: localhost", "origin: http://localhost", "origin: http://evil.test"], "origin"),
        (&["host: localhost", "sec-fetch-site: cross-site"], "sec-fetch-site"),
        (&["host: localhost", "sec-fetch-site: else"], "sec-fetch-site"),
    ] {
        assert_eq!(outcome(&guarded, headers), Err((403, shown)), "{headers:?}");
    }
}

#[test]
fn an_upstream_key_replaces_whatever_came() {
    let came = ["host: localhost", "authorization: Bearer unused", "api-key: a", "x-api-key: b", "x-kept: c"];
    let up = outcome(&admission(&[], true, "openai"), &came).unwrap();
    assert_eq!(up, ["authorization: Bearer sk-planted-upstream", "host: localhost", "x-kept: c"]);
    let up = outcome(&admission(&[], true, "azure"), &came).unwrap();
    assert_eq!(up, ["api-key: sk-planted-upstream", "host: localhost", "x-kept: c"]);
}

#[test]
fn a_client_key_is_wherever_sdks_put_one() {
    let keyed = admission(&[&format!("alice {ALICE}"), BOB], true, "openai");
    for header in
        ["authorization: Bearer ", "authorization: bEARER  ", "api-key: ", "x-api-key: ", "x-tailwire-key: "]
    {
        let header = format!("{header}{ALICE}");
        // With its key a client may be anywhere.
        let up = outcome(&keyed, &[&header, "host: proxy.test", "origin: https://app.test"]).unwrap();
        assert_eq!(
            up,
            ["authorization: Bearer sk-planted-upstream", "host: proxy.test", "origin: https://app.test"],
            "{header}"
        );
    }
    assert!(outcome(&keyed, &["authorization: Bearer stale", &format!("api-key: {BOB}")]).is_ok());
    for headers in [
        &[][..],
        &["host: localhost"],
        &["authorization: Bearer sk-planted-alice-012"],
        &["authorization: Bearer sk-planted-alice-01234"],
        &["authorization: Bearer "],
        &["authorization: Basic sk-planted-alice-0123"],
        &["authorization: Bearer alice"],
        &["cookie: sk-planted-alice-0123"],
    ] {
        assert_eq!(outcome(&keyed, headers), Err((401, "authorization")), "{headers:?}");
    }
}

#[test]
fn without_an_upstream_key_the_client_s_own_credential_goes_up() {
    let keyed = admission(&[ALICE], false, "openai");
    let mine = format!("x-tailwire-key: {ALICE}");
    let up = outcome(&keyed, &[&mine, "authorization: Bearer own", "api-key: own"]).unwrap();
    assert_eq!(up, ["api-key: own", "authorization: Bearer own"]);
    // Else a client key would go to the provider.
    let misplaced = format!("authorization: Bearer {ALICE}");
    assert_eq!(outcome(&keyed, &[&misplaced]), Err((401, "x-tailwire-key")));
}

#[test]
fn each_client_is_somebody_and_the_same_one_wherever_its_key_stands() {
    let guest = |admission: &Admission, headers: &[&str]| {
        let mut request = request(headers);
        admission.admit(&mut request).unwrap();
        *request.extensions().get::<Guest>().unwrap()
    };
    let keyed = admission(&[ALICE, BOB], true, "openai");
    let alice = guest(&keyed, &[&format!("authorization: Bearer {ALICE}")]);
    assert_eq!(alice, guest(&keyed, &[&format!("x-tailwire-key: {ALICE}"), "authorization: Bearer other"]));
    assert_ne!(alice, guest(&keyed, &[&format!("authorization: Bearer {BOB}")]));

    let local = admission(&[], true, "openai");
    let one = guest(&local, &["host: localhost", "authorization: Bearer one"]);
    assert_ne!(one, guest(&local, &["host: localhost", "authorization: Bearer two"]));
    assert_ne!(one, guest(&local, &["host: localhost"]));
}

#[test]
fn new_keys_hold_from_the_next_request_on() {
    let admission = admission(&[ALICE], true, "openai");
    let (alice, bob) = (format!("api-key: {ALICE}"), format!("api-key: {BOB}"));
    let keys = Keys {
        clients: vec![NamedKey::parse(BOB).unwrap()],
        upstream: Some(Secret::upstream("sk-planted-next").unwrap()),
    };
    admission.replace(&keys);
    assert_eq!(outcome(&admission, &[&alice]), Err((401, "authorization")));
    assert_eq!(outcome(&admission, &[&bob]).unwrap(), ["authorization: Bearer sk-planted-next"]);
}

#[test]
fn nothing_of_it_shows() {
    let keyed = admission(&[ALICE], true, "openai");
    let problem = keyed.admit(&mut request(&["authorization: Bearer wrong"])).unwrap_err();
    let shown = format!("{keyed:?} {problem:?} {}", problem.body());
    assert!(!shown.contains("planted") && !shown.contains("wrong"), "{shown}");
}
