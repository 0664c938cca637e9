//! The page of limits: it names every setting that is one, at its default, and tests that are there.

use crate::report;
use crate::source::read;

const PAGE: &str = "docs/limits.md";

#[test]
fn every_limit_is_on_its_page_with_a_test_that_exists() {
    let (page, settings) = (read(PAGE), read("proxy.toml"));
    let mut offences = Vec::new();
    let mut section = "";
    for line in settings.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        }
        if let (Some((key, value)), "limits" | "timeouts") = (line.split_once(" = "), section) {
            let row = format!("| `{section}.{key}` | {} |", value.trim_matches('"'));
            if !page.contains(&row) {
                offences.push(format!("no row {row}"));
            }
        }
    }
    assert_eq!(section, "log", "all sections were read");
    for row in page.lines().filter(|line| line.starts_with("| ") && !line.ends_with("| Test |")) {
        offences.extend(untested(row));
    }
    report("docs/limits.md names every limit", &offences);
}

/// What a row's last cell names and is not there; a row without a test says why.
fn untested(row: &str) -> Vec<String> {
    let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
    let (mut code, mut missing) = (String::new(), Vec::new());
    for name in cell.split('`').skip(1).step_by(2) {
        if name.contains('/') {
            code = read(name);
        } else if !code.contains(&format!("fn {name}(")) {
            missing.push(format!("no test {name}"));
        }
    }
    if code.is_empty() && !cell.starts_with("none: ") {
        missing.push(format!("neither a test nor a reason: {row}"));
    }
    missing
}
