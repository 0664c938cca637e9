//! The source as the rules see it: files, the code without comments and literals, the paths it names. Blanks by
//! the shape of tokens and does not parse: macros and cfgs are text like any other.

use std::{fs, path::Path};

pub(crate) struct Source {
    /// Relative to the root.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text without comments and literals, line for line.
    pub(crate) code: String,
    /// The code above the unit tests.
    pub(crate) body: String,
    /// All of it is tests.
    pub(crate) is_test: bool,
}

impl Source {
    pub(crate) fn new(path: String, text: String) -> Self {
        let code = code(&text);
        let body = code.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned();
        let is_test = path.starts_with("tests/") || path.ends_with("/tests.rs");
        Self { path, text, code, body, is_test }
    }

    /// The top-level module; none for the roots, `lib.rs` and `main.rs`.
    pub(crate) fn room(&self) -> Option<&str> {
        let module = self.path.strip_prefix("src/")?.split(['/', '.']).next()?;
        Some(module).filter(|module| !["lib", "main"].contains(module))
    }

    /// The rooms that `crate::` paths lead to, with their lines.
    pub(crate) fn rooms_named(&self) -> Vec<(usize, String)> {
        let mut rooms = Vec::new();
        for (at, _) in self.code.match_indices("crate::") {
            let rest = &self.code[at + "crate::".len()..];
            let line = line_of(&self.code, at);
            let Some(group) = rest.strip_prefix('{') else {
                rooms.push((line, identifier(rest)));
                continue;
            };
            let mut depth = 0;
            let mut fresh = true;
            for (index, letter) in group.char_indices() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => fresh = true,
                    letter if fresh && is_word(letter) => {
                        fresh = false;
                        rooms.push((line, identifier(&group[index..])));
                    }
                    _ => {}
                }
            }
        }
        rooms
    }

    /// Paths that leave the room by `super`, which `rooms_named` would not see.
    pub(crate) fn climbs(&self) -> Vec<String> {
        let depth = self.path.split('/').count() - 1;
        let root = "super::".repeat(depth);
        let found = self.body.match_indices(&root);
        found
            .map(|(at, _)| {
                format!(
                    "{}:{}: climbs to the root by `super`; write `crate::`",
                    self.path,
                    line_of(&self.body, at)
                )
            })
            .collect()
    }

    /// Lines above the unit tests that hold `word` as a word of the code.
    pub(crate) fn lines_with(&self, word: &str) -> impl Iterator<Item = usize> {
        let body = if self.is_test { "" } else { &self.body };
        let alone = |at: usize| {
            let longer = word.ends_with(is_word) && body[at + word.len()..].starts_with(is_word);
            !longer && !body[..at].ends_with(is_word)
        };
        let found: Vec<usize> = body.match_indices(word).map(|(at, _)| at).filter(|at| alone(*at)).collect();
        found.into_iter().map(|at| line_of(body, at))
    }
}

pub(crate) fn sources(folders: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut waiting: Vec<_> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "node_modules" && name != ".venv")
            {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(root()).expect("it was found below the root");
                let relative = relative.to_string_lossy().replace('\\', "/");
                found.push(Source::new(relative.clone(), read(&relative)));
            }
        }
    }
    found.sort_by(|left, right| left.path.cmp(&right.path));
    found
}

/// Blanks comments, strings and characters; keeps every line break.
pub(crate) fn code(text: &str) -> String {
    let mut seen = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let literal = if seen.ends_with(is_word) { None } else { raw_string(rest) };
        let length = literal.or_else(|| comment(rest)).or_else(|| quoted(rest)).unwrap_or_default();
        if length == 0 {
            seen.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            seen.extend(rest[..length].chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    seen
}

fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    text.strip_prefix("/*").map(|inner| inner.find("*/").map_or(text.len(), |at| at + 4))
}

fn raw_string(text: &str) -> Option<usize> {
    let inner = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = inner.len() - inner.trim_start_matches('#').len();
    let inner = inner[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    inner.find(&close).map(|at| text.len() - inner.len() + at + close.len())
}

/// The length of a string or character literal. A quote that begins a lifetime is neither.
fn quoted(text: &str) -> Option<usize> {
    let quote = text.chars().next().filter(|first| ['"', '\''].contains(first))?;
    if quote == '\'' && !text[1..].starts_with('\\') && text[1..].chars().nth(1) != Some('\'') {
        return None;
    }
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            letter if letter == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|letter| is_word(*letter)).collect()
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

pub(crate) fn line_of(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_reader_of_source_sees_code_only() {
    let text = "a::b // tokio\n/* async */ \"tokio \\\" async\" r#\"rand \"# 'x' '\\'' <'a> b\"hyper\" crate::{c::d, e}";
    let seen = code(text);
    for word in ["tokio", "async", "rand", "hyper", "x"] {
        assert!(!seen.contains(word), "{word} in {seen}");
    }
    assert_eq!(seen.lines().count(), 2);
    let source =
        Source::new(String::from("src/proxy/turn.rs"), format!("{text}\nuse super::super::upstream;"));
    assert_eq!(source.rooms_named(), [(2, String::from("c")), (2, String::from("e"))]);
    assert_eq!(source.climbs(), ["src/proxy/turn.rs:3: climbs to the root by `super`; write `crate::`"]);
    assert_eq!(source.room(), Some("proxy"));
}
