//! The house rules that a machine can check, each with its reason in the failure's message. Reads the source as
//! text. Does not judge style: rustfmt and clippy do; and does not compile anything.

#[path = "tidy/dependencies.rs"]
mod dependencies;
#[path = "tidy/failures.rs"]
mod failures;
#[path = "tidy/limits.rs"]
mod limits;
#[path = "tidy/source.rs"]
mod source;

use std::{fmt::Display, fs};

use serde_json::Value;

use self::{
    dependencies::{licensed, packages},
    source::{line_of, read, root, sources},
};

/// The floors, from the ground up. A room imports itself and the floors below it.
const FLOORS: &[&[&str]] = &[
    &["proto"],
    &["config", "telemetry"],
    &["downstream", "upstream", "sim"],
    &["proxy"],
    &["admin"],
    &["args"],
    &["app", "check", "demo", "explain", "run", "top", "cli"],
];

/// What the heart must not know: it is pure, so that every decision can be tested without a socket or a clock.
const FORBIDDEN_IN_PROTO: &[&str] = &[
    "tokio",
    "hyper",
    "yawc",
    "tracing",
    "std::net",
    "std::fs",
    "Instant::now",
    "SystemTime",
    "rand",
    "getrandom",
    "async",
    "await",
];

#[test]
fn no_floor_looks_up_or_next_door() {
    let mut offences = Vec::new();
    for source in sources(&["src"]) {
        let Some(room) = source.room() else { continue };
        let Some(floor) = floor(room) else {
            offences.push(format!("{}: `{room}` stands on no floor; add it to FLOORS", source.path));
            continue;
        };
        let top = floor == FLOORS.len() - 1;
        for (line, other) in source.rooms_named() {
            let below = self::floor(&other).is_some_and(|other| other < floor || (top && other == floor));
            let oracle = room == "sim" && other == "proto";
            if other != room && (!below || oracle) {
                offences.push(format!("{}:{line}: `{room}` names `{other}`", source.path));
            }
        }
        offences.extend(source.climbs());
    }
    report(
        "a room imports itself and the floors below, never upward, never next door; \
         and `sim` not even `proto`: an oracle that shares our code shares our mistakes",
        &offences,
    );
}

#[test]
fn the_heart_is_pure() {
    let mut offences = Vec::new();
    for source in sources(&["src"]).iter().filter(|source| source.room() == Some("proto")) {
        for word in FORBIDDEN_IN_PROTO {
            offences.extend(source.lines_with(word).map(|line| format!("{}:{line}: {word}", source.path)));
        }
    }
    report("`proto` does no I/O, reads no clock, draws no chance, logs nothing, awaits nothing", &offences);
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let mut offences = Vec::new();
    for source in sources(&["src", "tests", "benches", "fuzz"]) {
        let lines = source.body.lines().count();
        if lines > 400 && !source.is_test {
            offences.push(format!(
                "{}: {lines} lines without its tests; the border is in the wrong place",
                source.path
            ));
        }
        if !source.text.starts_with("//! ") {
            offences.push(format!("{}: no `//!` header", source.path));
        }
    }
    report("a file is at most 400 lines and begins with what it is for and what it does not do", &offences);
}

#[test]
fn words_stay_in_their_rooms() {
    let mut offences = Vec::new();
    for source in sources(&["src"]) {
        let room = source.room().unwrap_or("main");
        let mut forbid = |words: &[&str], why: &str| {
            for word in words {
                offences.extend(
                    source.lines_with(word).map(|line| format!("{}:{line}: {word}: {why}", source.path)),
                );
            }
        };
        if room != "sim" && source.path != "src/upstream/socket.rs" {
            forbid(&["yawc"], "hidden in src/upstream/socket.rs, so that replacing it touches one file");
        }
        if floor(room) != Some(FLOORS.len() - 1) {
            forbid(
                &["print!", "println!", "eprint!", "eprintln!"],
                "stdout is the commands'; logs go through tracing",
            );
        }
        // When a file was changed is compared with itself only; when a turn began is shown to people.
        let shown = ["src/app/files.rs", "src/telemetry/turns.rs", "src/proxy/record.rs"];
        if room != "sim" && !shown.contains(&source.path.as_str()) {
            forbid(
                &["SystemTime", "UNIX_EPOCH"],
                "a clock that people set decides nothing; time is an `Instant`",
            );
        }
        forbid(&["dbg!", "todo!", "unimplemented!"], "unfinished");
        if room != "main" {
            forbid(&["unsafe"], "the one exception configures the allocator, in src/main.rs");
        }
    }
    report("some words belong to one room", &offences);
}

#[test]
fn every_exception_has_its_reason() {
    let mut offences = Vec::new();
    for source in sources(&["src", "tests", "benches", "fuzz"]) {
        for opening in ["#[allow(", "#![allow(", "#[expect(", "#![expect("] {
            for (at, _) in source.code.match_indices(opening) {
                let attribute = source.code[at..].split(']').next().unwrap_or_default();
                if !attribute.contains("reason") {
                    offences.push(format!("{}:{}: {opening}…", source.path, line_of(&source.code, at)));
                }
            }
        }
    }
    let manifest = read("Cargo.toml");
    let mut section = "";
    let mut above = "";
    for line in manifest.lines() {
        section = if line.starts_with('[') { line } else { section };
        let dependency = section.ends_with("dependencies]") && line.contains('=');
        if dependency && !above.starts_with('#') {
            offences.push(format!("Cargo.toml: {line}"));
        }
        above = line;
    }
    report(
        "a lint that is switched off carries `reason = \"…\"`; a dependency, a comment above it",
        &offences,
    );
}

#[test]
fn paths_named_in_documents_exist() {
    let mut offences = Vec::new();
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "SECURITY.md"] {
        let Ok(text) = fs::read_to_string(root().join(document)) else { continue };
        let quoted = text.split('`').skip(1).step_by(2);
        for path in quoted.filter(|path| path.starts_with("src/") || path.starts_with("tests/")) {
            // A room is named by its folder, which a room of one file does not have.
            let exists = [path, &format!("{path}.rs")].iter().any(|path| root().join(path).exists());
            if !exists && !path.contains(['*', '<']) {
                offences.push(format!("{document}: {path}"));
            }
        }
    }
    report("a path that a document names exists", &offences);
}

#[test]
fn the_settings_file_is_in_step() {
    let same = read("proxy.toml") == tailwire::config::sample();
    assert!(same, "proxy.toml is what `tailwire config` prints: run `cargo run -- config > proxy.toml`");
}

#[test]
fn json_keeps_its_features_off() {
    let sorted = serde_json::from_str::<Value>(r#"{"b":1,"a":2}"#).map(|value| value.to_string());
    assert_eq!(sorted.ok().as_deref(), Some(r#"{"a":2,"b":1}"#), "serde_json is built with `preserve_order`");
    let huge = serde_json::from_str::<Value>("1e400");
    assert!(huge.is_err(), "serde_json is built with `arbitrary_precision`: numbers would compare as texts");
}

#[test]
fn dependencies_obey_deny_toml() {
    let rules: toml::Table = read("deny.toml").parse().expect("deny.toml is TOML");
    let texts = |list: &toml::Value| -> Vec<String> {
        let items = list.as_array().into_iter().flatten();
        let name = |item: &toml::Value| item.get("crate").unwrap_or(item).as_str().map(str::to_owned);
        items.filter_map(name).collect()
    };
    let allowed = texts(&rules["licenses"]["allow"]);
    let exceptions = rules["licenses"]["exceptions"].as_array().expect("a list");
    let banned = texts(&rules["bans"]["deny"]);
    // One registry, the one every lock file of this toolchain names; a second one, a path or a checkout would differ.
    let lock = read("Cargo.lock");
    let registry =
        lock.lines().find_map(|line| line.strip_prefix("source = ")).expect("a source").trim_matches('"');
    assert!(registry.starts_with("registry+"), "{registry}");

    let mut offences = Vec::new();
    let mut tls_versions = Vec::new();
    for package in packages() {
        let field = |name: &str| package[name].as_str().unwrap_or_default().to_owned();
        let (name, licence, source) = (field("name"), field("license"), field("source"));
        let excepted = |licence: &str| {
            let mine = exceptions.iter().filter(|exception| exception["crate"].as_str() == Some(&name));
            mine.flat_map(|exception| texts(&exception["allow"])).any(|other| other == licence)
        };
        let accept = |licence: &str| allowed.iter().any(|other| other == licence) || excepted(licence);
        if !licensed(&licence, &accept) {
            offences.push(format!("{name}: licence `{licence}`"));
        }
        if name != "tailwire" && source != registry {
            offences.push(format!("{name}: comes from `{source}`"));
        }
        if banned.contains(&name) {
            offences.push(format!("{name}: banned"));
        }
        if name == "rustls" {
            tls_versions.push(field("version"));
        }
    }
    if tls_versions.len() != 1 {
        offences.push(format!("rustls: {tls_versions:?}"));
    }
    report("licences, sources and bans of deny.toml; one TLS stack", &offences);
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn report(rule: &str, offences: &[impl Display]) {
    let list: String = offences.iter().map(|offence| format!("\n  {offence}")).collect();
    assert!(offences.is_empty(), "The rule: {rule}. Broken by:{list}");
}
