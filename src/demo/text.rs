//! Text as a coding agent meets it: listings, compiler errors, test runs, logs, searches, patches. Made from a seed, so
//! that every run says the same.
//!
//! Composed from words, numbers and hashes rather than repeated, because a demonstration whose text is easier to
//! compress than real text would flatter the compression. A test below holds it to what real sources reach.

/// Writes text from a seed. ASCII only, so that a byte is a character.
#[derive(Debug)]
pub(super) struct Writer {
    state: u64,
}

impl Writer {
    /// A writer whose text depends on the seed alone.
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66_D1CE_4E5B }
    }

    /// What a tool printed: exactly `size` bytes, of one of six kinds.
    pub(super) fn result(mut self, size: usize) -> String {
        let (path, kind, first) = (self.path(), self.below(7), self.below(400) + 1);
        let mut text = if kind == 6 { self.patch_head(first) } else { String::new() };
        for line in first.. {
            if text.len() >= size {
                break;
            }
            text += &match kind {
                0 | 1 => format!("{line:>6}\t{}", self.code()),
                2 => self.compiler(&path),
                3 => self.test(),
                4 => self.log(line),
                5 => self.found(),
                _ => self.patched(),
            };
            text.push('\n');
        }
        text.truncate(size);
        text
    }

    /// What an agent is told to be: headings and rules, exactly `size` bytes.
    pub(super) fn instructions(mut self, size: usize) -> String {
        let mut text =
            String::from("You are a coding agent working in a shared repository. Follow these rules.\n");
        while text.len() < size {
            if self.below(6) == 0 {
                text += &format!("\n## {} and {}\n", capital(self.pick(NOUNS)), self.pick(NOUNS));
            }
            text += &format!("- {}\n", self.sentence());
        }
        text.truncate(size);
        text
    }

    /// A sentence of advice, without a line break.
    pub(super) fn sentence(&mut self) -> String {
        let (when, verb, adverb) = (self.pick(OCCASIONS), self.pick(VERBS), self.pick(ADVERBS));
        let (noun, other, name) = (self.pick(NOUNS), self.pick(NOUNS), self.name());
        match self.below(4) {
            0 => format!("{when}, {verb} the {noun} {adverb} and mention the {other} in your summary."),
            1 => format!("Never {verb} a {noun} that `{name}` depends on unless the user asked for it."),
            2 => format!("{when}, prefer the {noun} over the {other}; {verb} it {adverb}."),
            _ => format!("If the {noun} is unclear, {verb} `{name}` first, {adverb}, then the {other}."),
        }
    }

    /// A name as programmers make them, of two or three words.
    pub(super) fn name(&mut self) -> String {
        let (verb, noun, other) = (self.pick(VERBS), self.pick(NOUNS), self.pick(NOUNS));
        if self.below(3) == 0 { format!("{verb}_{noun}_{other}") } else { format!("{verb}_{noun}") }
    }

    /// A number from 0 to below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn code(&mut self) -> String {
        let (name, kind, field, other) = (self.name(), self.kind(), self.pick(NOUNS), self.pick(NOUNS));
        let (verb, number) = (self.pick(VERBS), self.below(4096));
        let code = match self.below(12) {
            0 => format!("pub fn {name}(&mut self, {field}: &{kind}) -> Result<{other}::Id, Error> {{"),
            1 => format!("let {field} = self.{other}.{verb}(&{name})?;"),
            2 => format!("if {field}.len() > {number} || {other}.is_empty() {{"),
            3 => format!("return Err(Error::{kind} {{ {field}: {name}.into(), limit: {number} }});"),
            4 => String::from("}"),
            5 => format!("// The {field} must outlive the {other}: {verb} it before the next {name}."),
            6 => format!("tracing::debug!({field} = %{name}, \"{verb} {other}\");"),
            7 => format!("Some({kind}::{field}({verb})) if {verb} != {number} => {other}.push({name}),"),
            8 => format!("for ({field}, {other}) in self.{name}.iter().filter(|it| it.{verb}()) {{"),
            9 => format!("assert_eq!({kind}::{verb}(\"{name}\"), Ok({number}));"),
            10 => String::new(),
            _ => {
                format!("self.{field}.insert({name}, {kind} {{ {other}: {number}, ..Default::default() }});")
            }
        };
        let indent = ["", "    ", "        ", "            "];
        format!("{}{code}", self.pick(&indent))
    }

    fn compiler(&mut self, path: &str) -> String {
        let (name, kind, other, noun) = (self.name(), self.kind(), self.kind(), self.pick(NOUNS));
        let (line, column, code) = (self.below(900) + 1, self.below(70) + 5, self.below(700) + 100);
        let at = format!("  --> {path}:{line}:{column}");
        match self.below(4) {
            0 => format!(
                "error[E0{code}]: mismatched types\n{at}\n   |\n{line} |     self.{noun}.{name}(&{kind}::default())\n   |     \
                 ^^^^ expected `{kind}`, found `{other}`\n"
            ),
            1 => format!(
                "warning: unused variable: `{noun}`\n{at}\n   = help: if this is intentional, prefix it with an underscore: \
                 `_{noun}`\n"
            ),
            2 => format!(
                "error[E0{code}]: no method named `{name}` found for struct `{kind}` in the current scope\n{at}\n   = note: the \
                 trait `{other}` defines an item `{name}`\n"
            ),
            _ => format!("   Compiling {noun}-{name} v0.{}.{} (/workspace/{noun})", code % 30, line % 12),
        }
    }

    fn test(&mut self) -> String {
        let (module, name) = (self.pick(NOUNS), self.name());
        if self.below(9) > 0 {
            return format!("test {module}::tests::{name} ... ok");
        }
        let (path, line, left, right) =
            (self.path(), self.below(900), self.below(99_999), self.below(99_999));
        format!(
            "test {module}::tests::{name} ... FAILED\n---- {module}::tests::{name} stdout ----\nthread '{name}' panicked at \
             {path}:{line}:9:\nassertion `left == right` failed\n  left: {left}\n right: {right}"
        )
    }

    fn log(&mut self, second: u64) -> String {
        let level = self.pick(&["DEBUG", "INFO", "INFO", "INFO", "WARN", "ERROR"]);
        let (module, name, verb, noun) = (self.pick(NOUNS), self.name(), self.pick(VERBS), self.pick(NOUNS));
        let (id, spent, micros) = (self.next(), self.below(90_000), self.below(1_000_000));
        let (minute, second) = (second / 60 % 60, second % 60);
        format!(
            "2026-11-20T14:{minute:02}:{second:02}.{micros:06}Z {level:>5} app::{module}: {name} could not {verb} {noun} \
             request={id:016x} elapsed_us={spent}"
        )
    }

    fn found(&mut self) -> String {
        let (path, line, name, kind) = (self.path(), self.below(900) + 1, self.name(), self.kind());
        let (noun, number) = (self.pick(NOUNS), self.below(512));
        match self.below(3) {
            0 => format!("{path}:{line}:    use crate::{noun}::{{{kind}, {name}}};"),
            1 => format!("{path}:{line}:        let {noun} = {kind}::{name}({number})?;"),
            _ => format!("{path}:{line}:/// Returns the {noun} of `{name}`, or `None` past {number}."),
        }
    }

    fn patch_head(&mut self, line: u64) -> String {
        let (path, before, after) = (self.path(), self.next() >> 36, self.next() >> 36);
        format!(
            "diff --git a/{path} b/{path}\nindex {before:07x}..{after:07x} 100644\n@@ -{line},9 +{line},11 @@\n"
        )
    }

    fn patched(&mut self) -> String {
        if self.below(12) == 0 {
            let line = self.below(900) + 1;
            return self.patch_head(line);
        }
        let (sign, name) = (self.pick(&[" ", " ", "+", "-"]), self.name());
        let (noun, verb, number) = (self.pick(NOUNS), self.pick(VERBS), self.below(2048));
        match self.below(3) {
            0 => format!("{sign}        self.{noun}.{verb}({name}, {number});"),
            1 => format!("{sign}    const {}: usize = {number};", name.to_uppercase()),
            _ => format!("{sign}    let {name} = {noun}.{verb}(|it| it.{noun} < {number});"),
        }
    }

    fn kind(&mut self) -> String {
        capital(self.pick(VERBS)) + &capital(self.pick(NOUNS))
    }

    fn path(&mut self) -> String {
        format!("src/{}/{}.rs", self.pick(NOUNS), self.name())
    }

    fn pick(&mut self, words: &[&'static str]) -> &'static str {
        words[usize::try_from(self.below(words.len() as u64)).unwrap_or(0)]
    }

    /// `SplitMix64`: enough for variety, the same everywhere.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

fn capital(word: &str) -> String {
    word[..1].to_uppercase() + &word[1..]
}

const NOUNS: &[&str] = &[
    "account",
    "archive",
    "backlog",
    "batch",
    "buffer",
    "cache",
    "catalog",
    "channel",
    "checkout",
    "cluster",
    "column",
    "config",
    "cursor",
    "deadline",
    "digest",
    "document",
    "endpoint",
    "entry",
    "event",
    "fixture",
    "gateway",
    "handle",
    "header",
    "index",
    "invoice",
    "journal",
    "ledger",
    "lease",
    "manifest",
    "migration",
    "mirror",
    "offset",
    "order",
    "page",
    "parser",
    "payload",
    "pipeline",
    "policy",
    "queue",
    "quota",
    "record",
    "region",
    "replica",
    "report",
    "schema",
    "segment",
    "session",
    "shard",
    "snapshot",
    "stream",
    "tenant",
    "ticket",
    "token",
    "transfer",
    "vault",
    "window",
    "worker",
];
const VERBS: &[&str] = &[
    "acquire", "append", "apply", "attach", "build", "cancel", "check", "close", "collect", "commit",
    "compact", "decode", "drain", "encode", "evict", "expire", "fetch", "flush", "handle", "insert", "load",
    "lookup", "merge", "parse", "poll", "publish", "read", "rebuild", "refresh", "release", "render",
    "replay", "resolve", "restore", "retry", "rotate", "schedule", "split", "submit", "sync", "update",
    "validate", "verify", "write",
];
const ADVERBS: &[&str] = &[
    "before anything else",
    "in one step",
    "with its tests",
    "only once",
    "without touching other files",
    "as the existing code does",
    "and keep the diff small",
    "after reading the callers",
    "in the same style",
    "from the repository root",
];
const OCCASIONS: &[&str] = &[
    "When a test fails",
    "Before you edit a file",
    "After every change",
    "When a command needs the network",
    "If the build breaks",
    "When two rules disagree",
    "Before you answer",
    "While a long command runs",
    "When you are unsure",
    "If a file is generated",
];

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn deflated(text: &str) -> usize {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap().len()
    }

    #[test]
    fn the_same_seed_says_the_same_in_exactly_the_size_asked_for() {
        for size in [1, 100, 4096, 70_000] {
            let text = Writer::new(7).result(size);
            assert_eq!((text.len(), &text), (size, &Writer::new(7).result(size)));
            assert!(text.is_ascii());
            assert_eq!(Writer::new(7).instructions(size).len(), size);
        }
        assert_ne!(Writer::new(7).result(500), Writer::new(8).result(500));
    }

    #[test]
    fn it_is_no_easier_to_compress_than_real_sources() {
        let made: String = (0..40).map(|seed| Writer::new(seed).result(4600)).collect();
        let shrinks = made.len() as f64 / deflated(&made) as f64;
        // 40 random pieces of 4.6 kB of the sources of tokio and clap shrink 3.9 times, of this project 3.4 times, logs of
        // a package manager 7 to 11 times (zlib 6, 2026-11).
        assert!((3.0..3.8).contains(&shrinks), "made text shrinks {shrinks:.2} times");
    }
}
