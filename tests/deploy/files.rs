//! What the files under `deploy` say about tailwire is true of it: settings, ports, versions, metrics, waits.
//!
//! Their own syntax is for the tools of `tests/deploy/run.sh`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A setting that is no row of the table: it names the settings file.
const NO_ROW: &str = "TAILWIRE_CONFIG";

#[test]
fn every_variable_named_is_a_setting() {
    let settings = read("proxy.toml");
    let known: BTreeSet<&str> = words(&settings, "TAILWIRE_").collect();
    let mut named = 0;
    for (path, text) in pages() {
        for variable in
            words(&text, "TAILWIRE_").filter(|name| *name != "TAILWIRE_LIMITS_" && *name != NO_ROW)
        {
            assert!(known.contains(variable), "{}: there is no {variable}", path.display());
            named += 1;
        }
    }
    assert!(named > 20, "only {named} found: the test looks in the wrong place");
}

/// As `key = value` in `proxy.toml`, `limits.key` or `timeouts.key` in a text.
#[test]
fn every_setting_named_is_there() {
    let settings = read("proxy.toml");
    for (path, text) in pages() {
        for section in ["limits.", "timeouts."] {
            for key in words(&text, section).filter(|key| *key != section) {
                let name = key.strip_prefix(section).unwrap();
                // Kubernetes has a `limits.memory` of its own, and there is a page of this name.
                let other = ["limits.memory", "limits.md"].contains(&key);
                let known = other || settings.contains(&format!("\n{name} = "));
                assert!(known, "{}: there is no {key}", path.display());
            }
        }
    }
}

#[test]
fn every_metric_named_is_documented() {
    let metrics = read("docs/metrics.md");
    for (path, text) in pages() {
        for metric in words(&text, "tailwire_") {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| metric.strip_suffix(suffix));
            let known = |name: &str| metrics.contains(&format!("`{name}`"));
            assert!(known(metric) || family.is_some_and(known), "{}: there is no {metric}", path.display());
        }
    }
}

#[test]
fn ports_and_versions_are_the_program_s() {
    let settings = read("proxy.toml");
    let listen =
        settings.lines().find_map(|line| line.strip_prefix("listen = \"")?.strip_suffix('"')).unwrap();
    let sockets = ["system", "user"].map(|kind| read(&format!("deploy/systemd/{kind}/tailwire.socket")));
    assert_eq!(sockets[0], sockets[1]);
    assert!(sockets[0].contains(&format!("\nListenStream={listen}\n")), "not {listen}");

    let version = env!("CARGO_PKG_VERSION");
    for (file, line) in [
        ("deploy/helm/tailwire/Chart.yaml", format!("\nversion: {version}\n")),
        ("deploy/helm/tailwire/Chart.yaml", format!("\nappVersion: {version}\n")),
        ("deploy/container/compose.yaml", format!(" image: tailwire:{version}\n")),
        ("deploy/kubernetes/sidecar.yaml", format!(" image: tailwire:{version}\n")),
    ] {
        assert!(read(file).contains(&line), "{file}: not {line}");
    }
}

/// The promises of the units that no linter asks for.
#[test]
fn the_units_wait_for_the_drain_and_know_the_exit_codes() {
    for kind in ["system", "user"] {
        let unit = read(&format!("deploy/systemd/{kind}/tailwire.service"));
        for line in [
            "Type=notify",
            "WatchdogSec=30s",
            "Restart=on-failure",
            // Exit codes 64 and 78: `src/cli.rs`.
            "RestartPreventExitStatus=64 78",
            // More than `timeouts.drain`.
            "TimeoutStopSec=45s",
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "MemoryMax=2G",
            "Also=tailwire.socket",
        ] {
            assert!(unit.lines().any(|each| each == line), "{kind}: no {line}");
        }
    }
    assert_eq!((tailwire::cli::USAGE, tailwire::cli::CONFIG), (64, 78));
    assert!(read("deploy/systemd/system/tailwire.service").contains("\nDynamicUser=yes\n"));
}

/// `docs/deploy.md` and all files under `deploy`, with their texts.
fn pages() -> Vec<(PathBuf, String)> {
    let mut pages = vec![(PathBuf::from("docs/deploy.md"), read("docs/deploy.md"))];
    let mut folders = vec![root().join("deploy")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                pages.push((path, text));
            }
        }
    }
    pages
}

/// The words of names that begin so.
fn words<'a>(text: &'a str, beginning: &'a str) -> impl Iterator<Item = &'a str> {
    let of_a_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
    text.match_indices(beginning).filter_map(move |(at, _)| {
        if text[..at].ends_with(|before| of_a_name(before) || before == '.') {
            return None;
        }
        let rest = &text[at + beginning.len()..];
        let end = rest.find(|character| !of_a_name(character)).unwrap_or(rest.len());
        Some(&text[at..at + beginning.len() + end])
    })
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
