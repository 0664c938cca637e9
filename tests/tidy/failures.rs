//! Every known failure of other projects is accounted for: by a test whose name begins with its number, or by a line of
//! docs/decisions.md. `just failures` prints the same list for people; what a test shows is not judged here.

use std::collections::BTreeSet;

use crate::source::{read, sources};

/// Numbers that test names begin with: `f22_f23_…`.
fn numbers(name: &str) -> impl Iterator<Item = u32> + '_ {
    name.split('_').map_while(|part| {
        let digits = part.strip_prefix('f').filter(|digits| digits.len() == 2)?;
        digits.parse().ok()
    })
}

/// Names of the tests of a file.
fn tests(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut marked = false;
    for line in code.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")
            && marked
        {
            names.extend(rest.split(['(', '<']).next().map(str::to_owned));
        }
        if line.starts_with("#[") {
            marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        } else if !line.is_empty() {
            marked = false;
        }
    }
    names
}

#[test]
fn every_known_failure_has_a_test_or_a_reason() {
    let catalogue = read("tests/failures/catalogue.tsv");
    let listed: Vec<u32> =
        catalogue.lines().map(|line| line.split('\t').next().unwrap().parse().unwrap()).collect();
    assert_eq!(listed, (1..=83).collect::<Vec<u32>>());
    let names: BTreeSet<String> =
        sources(&["src", "tests"]).iter().flat_map(|source| tests(&source.code)).collect();
    let mut shown: BTreeSet<u32> = names.iter().flat_map(|name| numbers(name)).collect();
    let decisions = read("docs/decisions.md");
    let reasons = decisions.lines().filter_map(|line| line.strip_prefix("**F")?.split_once("** "));
    for (number, reason) in reasons.filter_map(|(number, reason)| Some((number.parse().ok()?, reason))) {
        shown.insert(number);
        let quoted = reason.split('`').skip(1).step_by(2);
        for name in quoted.filter(|name| numbers(name).next().is_some()) {
            assert!(names.contains(name), "F{number}: its reason names `{name}`, which is no test");
        }
    }
    let missing: Vec<u32> = listed.into_iter().filter(|number| !shown.contains(number)).collect();
    assert!(missing.is_empty(), "neither a test nor a reason: {missing:?}");
}
