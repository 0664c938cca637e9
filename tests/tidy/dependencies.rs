//! What the lock file holds, and whether a licence expression can be met. Knows no rule: the lists are deny.toml's.

use std::{iter::Peekable, process::Command};

use serde_json::Value;

use crate::source::root;

/// Every package of the lock file, or, where only this host's were ever downloaded, of this host.
pub(crate) fn packages() -> Vec<Value> {
    let cargo = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output();
        output.expect("cargo runs these tests, so it can be run")
    };
    let everything = ["metadata", "--format-version", "1", "--offline", "--locked"];
    let mut output = cargo(&everything);
    if !output.status.success() {
        let version = String::from_utf8(cargo(&["-vV"]).stdout).expect("cargo prints UTF-8");
        let host =
            version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo names its host");
        output = cargo(&[&everything[..], &["--filter-platform", host]].concat());
    }
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    metadata["packages"].as_array().expect("a list of packages").clone()
}

/// Whether an SPDX expression can be satisfied with licences that `accept` takes.
pub(crate) fn licensed(expression: &str, accept: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    either(&mut spaced.split_whitespace().peekable(), accept)
}

fn either<'text>(
    words: &mut Peekable<impl Iterator<Item = &'text str>>,
    accept: &dyn Fn(&str) -> bool,
) -> bool {
    let mut any = both(words, accept);
    while words.next_if_eq(&"OR").is_some() {
        any |= both(words, accept);
    }
    any
}

fn both<'text>(
    words: &mut Peekable<impl Iterator<Item = &'text str>>,
    accept: &dyn Fn(&str) -> bool,
) -> bool {
    let mut all = true;
    loop {
        all &= match words.next() {
            Some("(") => {
                let inner = either(words, accept);
                words.next_if_eq(&")").is_some() && inner
            }
            Some(licence) if words.next_if_eq(&"WITH").is_some() => {
                accept(&format!("{licence} WITH {}", words.next().unwrap_or_default()))
            }
            Some(licence) => accept(licence),
            None => false,
        };
        if words.next_if_eq(&"AND").is_none() {
            return all;
        }
    }
}

#[test]
fn licence_expressions_are_understood() {
    let accept = |licence: &str| ["MIT", "ISC", "A WITH e"].contains(&licence);
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("MIT AND GPL-3.0 OR ISC", true),
        ("MIT AND (GPL-3.0 OR ISC)", true),
        ("(MIT OR ISC) AND GPL-3.0", false),
        ("A WITH e", true),
        ("MIT WITH e", false),
    ] {
        assert_eq!(licensed(expression, &accept), expected, "{expression}");
    }
}
