//! The low form: what was written under each key, and where. Refuses unknown names, judges no value.
//!
//! TOML is read as a tree with positions rather than through serde, because only positions on *keys* let an
//! unknown one be reported by its line and its nearest neighbour.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    ConfigError,
    settings::{self, Row},
};

/// Where a setting was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: the default holds.
    Default,
    /// In this file, as a whole.
    File(PathBuf),
    /// In this file, at this line, counted from 1.
    Line(PathBuf, usize),
    /// In the environment variable of this name.
    Variable(String),
    /// In a flag.
    CommandLine,
    /// Under this key, wherever that was written.
    Setting(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::Line(path, line) => write!(formatter, "{} line {line}", path.display()),
            Self::Variable(name) => formatter.write_str(name),
            Self::CommandLine => formatter.write_str("command line"),
            Self::Setting(key) => formatter.write_str(key),
        }
    }
}

/// A value as written. Has no `Debug`: it may be a key.
#[derive(Clone)]
pub(super) enum Raw {
    Boolean(bool),
    Integer(i64),
    Text(String),
    List(Vec<String>),
    /// From a variable or a flag, which have no types: the setting's own reader decides what it is.
    Bare(String),
    /// A kind no setting has; named for the message.
    Other(&'static str),
}

/// Every key that was written, with its value and place.
#[derive(Default)]
pub(super) struct Written(BTreeMap<&'static str, (Raw, Place)>);

impl Written {
    /// Reads the text of the settings file at `path`.
    pub(super) fn read_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let line = |offset: usize| 1 + text[..offset].matches('\n').count();
        // The error's own Display quotes the offending line, which may hold a key.
        let document = DeTable::parse(text).map_err(|error| ConfigError {
            place: Place::Line(path.to_owned(), line(error.span().map_or(0, |span| span.start))),
            message: format!("not TOML: {}", error.message()),
        })?;
        let mut leaves = Vec::new();
        flatten("", document.get_ref(), &mut leaves);
        leaves.sort_by_key(|leaf| leaf.offset);
        for leaf in leaves {
            let place = Place::Line(path.to_owned(), line(leaf.offset));
            let Some(row) = settings::rows().find(|row| row.key == leaf.key) else {
                return Err(ConfigError { place, message: unknown_key(&leaf.key) });
            };
            self.set(row.key, Raw::from(leaf.value), place);
        }
        Ok(())
    }

    /// Reads the `TAILWIRE_*` variables; returns the file that `TAILWIRE_CONFIG` names.
    pub(super) fn read_environment(
        &mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Option<PathBuf>, ConfigError> {
        let mut file = None;
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with("TAILWIRE_")) else { continue };
            if value.is_empty() || set_by_kubernetes(name) {
                continue;
            }
            if name == "TAILWIRE_CONFIG" {
                file = Some(PathBuf::from(value));
                continue;
            }
            let place = Place::Variable(name.to_owned());
            let Some(row) = settings::rows().find(|row| row.variable() == name) else {
                return Err(ConfigError { place, message: unknown_variable(name) });
            };
            let Ok(text) = value.into_string() else {
                return Err(ConfigError { place, message: String::from("not UTF-8") });
            };
            self.set(row.key, Raw::Bare(text), place);
        }
        Ok(file)
    }

    /// Writes one key over whatever stood there.
    pub(super) fn set(&mut self, key: &'static str, raw: Raw, place: Place) {
        self.0.insert(key, (raw, place));
    }

    /// Writes everything in `upper` over this.
    pub(super) fn overlay(&mut self, upper: Self) {
        self.0.extend(upper.0);
    }

    /// Where `key` was written.
    pub(super) fn place(&self, key: &str) -> Place {
        self.0.get(key).map_or(Place::Default, |(_, place)| place.clone())
    }

    /// The value under `key`, or the default's text, through the setting's reader.
    pub(super) fn value<T>(
        &self,
        key: &str,
        default: &str,
        read: impl Fn(&Raw) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let result = match self.0.get(key) {
            Some((raw, _)) => read(raw),
            None => read(&Raw::from_default(default)),
        };
        result.map_err(|message| ConfigError { place: self.place(key), message: format!("{key}: {message}") })
    }
}

impl Raw {
    /// What kind of thing this is, for "expected …, found …".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Boolean(_) => "a boolean",
            Self::Integer(_) => "a number",
            Self::Text(_) | Self::Bare(_) => "a text",
            Self::List(_) => "a list",
            Self::Other(kind) => kind,
        }
    }

    fn from_default(text: &str) -> Self {
        let assignment = format!("value = {text}");
        DeTable::parse(&assignment)
            .ok()
            .and_then(|table| table.get_ref().values().next().map(|value| Self::from(value.get_ref())))
            .unwrap_or(Self::Other("a default that is not TOML"))
    }
}

impl From<&DeValue<'_>> for Raw {
    fn from(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::Boolean(value) => Self::Boolean(*value),
            DeValue::Integer(value) => i64::from_str_radix(value.as_str(), value.radix())
                .map_or(Self::Other("a number beyond 64 bits"), Self::Integer),
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Array(items) => items
                .iter()
                .map(|item| item.get_ref().as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .map_or(Self::Other("a list of things that are not texts"), Self::List),
            DeValue::Float(_) => Self::Other("a fraction"),
            DeValue::Datetime(_) => Self::Other("a date"),
            DeValue::Table(_) => Self::Other("a table"),
        }
    }
}

struct Leaf<'document> {
    key: String,
    offset: usize,
    value: &'document DeValue<'document>,
}

/// Lists every value under its dotted key. An empty table is nothing written, unless its name is not a section's.
fn flatten<'document>(prefix: &str, table: &'document DeTable<'document>, leaves: &mut Vec<Leaf<'document>>) {
    for (name, value) in table {
        let key = format!("{prefix}{}", name.get_ref());
        let value: &Spanned<DeValue<'_>> = value;
        match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() => flatten(&format!("{key}."), inner, leaves),
            DeValue::Table(_) if settings::sections().iter().any(|section| section.name == key) => {}
            value => leaves.push(Leaf { key, offset: name.span().start, value }),
        }
    }
}

fn unknown_key(key: &str) -> String {
    if settings::sections().iter().any(|section| section.name == key) {
        return format!("`{key}` is a section: write `[{key}]` and its settings below it");
    }
    format!("unknown key `{key}`; the nearest is `{}`", nearest(key, |row| row.key.to_owned()))
}

fn unknown_variable(name: &str) -> String {
    format!("unknown variable; the nearest is `{}`", nearest(name, Row::variable))
}

/// The setting whose name takes the fewest edits. A right name in the wrong section is one edit away.
fn nearest(written: &str, name: impl Fn(&Row) -> String) -> String {
    let last = |text: &str| text.rsplit('.').next().unwrap_or_default().to_owned();
    settings::rows()
        .map(&name)
        .min_by_key(|known| distance(written, known).min(1 + distance(&last(written), &last(known))))
        .unwrap_or_default()
}

/// Levenshtein's edit distance, in characters.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, from) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, to) in right.iter().enumerate() {
            let change = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = change.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

/// A Kubernetes service named `tailwire` puts these into every pod beside it; nobody wrote them.
fn set_by_kubernetes(name: &str) -> bool {
    name == "TAILWIRE_PORT" || name.starts_with("TAILWIRE_PORT_") || name.starts_with("TAILWIRE_SERVICE_")
}
