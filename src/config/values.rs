//! Readers: one for each kind of value, from what was written to what is meant, with bounds.
//! Each reader knows its own description, so that `proxy.toml` and the checks cannot disagree.

use std::{fmt::Display, net::SocketAddr, path::PathBuf, time::Duration};

use hyper::{Uri, header::HeaderName};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};

use super::choice::AdminListen;
use super::file::Raw;
use super::identity;
use super::secret::{NamedKey, Secret};

pub(super) const KIB: u64 = 1024;
pub(super) const MIB: u64 = 1024 * KIB;
pub(super) const GIB: u64 = 1024 * MIB;

/// `true` or `false`.
pub(super) struct Flag;

impl Flag {
    pub(super) fn kind(&self) -> String {
        String::from("true or false")
    }

    pub(super) fn read(&self, raw: &Raw) -> Result<bool, String> {
        match raw {
            Raw::Boolean(value) => Ok(*value),
            Raw::Bare(text) => text.parse().map_err(|_| format!("`{text}` is not {}", self.kind())),
            other => Err(wrong_type(self.kind(), other)),
        }
    }
}

/// A whole number between two bounds, both allowed.
pub(super) struct Count(pub(super) usize, pub(super) usize);

impl Count {
    pub(super) fn kind(&self) -> String {
        format!("a number, {} to {}", self.0, self.1)
    }

    pub(super) fn read(&self, raw: &Raw) -> Result<usize, String> {
        let value = match raw {
            Raw::Integer(value) => *value,
            Raw::Bare(text) => text.parse().map_err(|_| format!("`{text}` is not {}", self.kind()))?,
            other => return Err(wrong_type(self.kind(), other)),
        };
        usize::try_from(value)
            .ok()
            .filter(|value| (self.0..=self.1).contains(value))
            .ok_or_else(|| format!("{value} is out of bounds: {}", self.kind()))
    }
}

/// A size in bytes between two bounds, both allowed.
pub(super) struct Size(pub(super) u64, pub(super) u64);

impl Size {
    pub(super) fn kind(&self) -> String {
        format!("a size, {} to {}", show_size(self.0), show_size(self.1))
    }

    pub(super) fn read(&self, raw: &Raw) -> Result<usize, String> {
        let text = text(raw, || self.kind())?;
        let value = parse_size(text)?;
        usize::try_from(value)
            .ok()
            .filter(|_| (self.0..=self.1).contains(&value))
            .ok_or_else(|| format!("{text} is out of bounds: {}", self.kind()))
    }
}

/// A length of time between two bounds, both allowed.
pub(super) struct Span(pub(super) Duration, pub(super) Duration);

impl Span {
    pub(super) fn kind(&self) -> String {
        format!("a time, {} to {}", show_duration(self.0), show_duration(self.1))
    }

    pub(super) fn read(&self, raw: &Raw) -> Result<Duration, String> {
        let text = text(raw, || self.kind())?;
        let value = parse_duration(text)?;
        if (self.0..=self.1).contains(&value) {
            Ok(value)
        } else {
            Err(format!("{text} is out of bounds: {}", self.kind()))
        }
    }
}

/// One word of a closed list.
pub(super) struct OneOf<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy> OneOf<T> {
    pub(super) fn kind(&self) -> String {
        self.0.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(" | ")
    }

    pub(super) fn read(&self, raw: &Raw) -> Result<T, String> {
        let text = text(raw, || self.kind())?;
        let found = self.0.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| format!("`{text}` is not one of {}", self.kind()))
    }
}

/// An IP address and a port to listen on.
pub(super) struct Address;

impl Address {
    pub(super) fn kind(&self) -> String {
        String::from("an IP address and a port; port 0 picks a free one")
    }

    pub(super) fn read(&self, raw: &Raw) -> Result<SocketAddr, String> {
        let text = text(raw, || self.kind())?;
        text.parse().map_err(|_| format!("`{text}` is not an address such as 127.0.0.1:8484 or [::1]:8484"))
    }
}

/// An address for the admin listener, or a word instead.
pub(super) struct AdminAddress;

impl AdminAddress {
    pub(super) fn kind(&self) -> String {
        String::from("\"auto\" | \"off\" | an IP address and a port; port 0 picks a free one")
    }

    pub(super) fn read(&self, raw: &Raw) -> Result<AdminListen, String> {
        match text(raw, || self.kind())? {
            "auto" => Ok(AdminListen::Auto),
            "off" => Ok(AdminListen::Off),
            text => text.parse().map(AdminListen::At).map_err(|_| {
                format!("`{text}` is neither `auto` nor `off` nor an address such as 127.0.0.1:8485")
            }),
        }
    }
}

/// A provider's base URL, as SDKs take it.
pub(super) struct BaseUrl;

impl BaseUrl {
    pub(super) fn kind(&self) -> String {
        String::from("an http or https URL")
    }

    /// Resolved: no trailing slash, and a bare origin means `/v1`. Messages do not quote the URL, which could
    /// carry a password.
    pub(super) fn read(&self, raw: &Raw) -> Result<Uri, String> {
        let text = text(raw, || self.kind())?;
        let uri: Uri = text.parse().map_err(|error| format!("not a URL: {error}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(String::from("must begin with http:// or https://"));
        }
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        if authority.contains('@') {
            return Err(String::from("must not hold a user name or password; clients send their own key"));
        }
        if uri.host().is_none_or(str::is_empty) || uri.query().is_some() || text.contains('#') {
            return Err(String::from(
                "must be scheme, host and path only, such as https://api.openai.com/v1",
            ));
        }
        let path = match uri.path().trim_end_matches('/') {
            "" => "/v1",
            path => path,
        };
        let scheme = uri.scheme_str().unwrap_or_default();
        format!("{scheme}://{authority}{path}").parse().map_err(|error| format!("not a URL: {error}"))
    }
}

/// What to log: levels, for everything or by module.
pub(super) struct Filter;

impl Filter {
    pub(super) fn kind(&self) -> String {
        String::from(
            "error, warn, info, debug, trace, or directives such as \"info,tailwire::upstream=debug\"",
        )
    }

    /// A bare word must be a level: the filter's own grammar would take a misspelt one for a module's name.
    pub(super) fn read(&self, raw: &Raw) -> Result<String, String> {
        let text = text(raw, || self.kind())?;
        let misspelt = |part: &&str| !part.contains('=') && part.trim().parse::<LevelFilter>().is_err();
        if let Some(part) = text.split(',').find(misspelt) {
            return Err(format!("`{part}` is not a level: {}", self.kind()));
        }
        EnvFilter::try_new(text).map_err(|error| format!("not a filter: {error}"))?;
        Ok(text.to_owned())
    }
}

/// Paths of files; each must be there, so that a misspelt one fails at start and not at the first connection.
pub(super) struct Files;

impl Files {
    pub(super) fn kind(&self) -> String {
        String::from("a list of paths, relative to the working directory")
    }

    pub(super) fn read(&self, raw: &Raw) -> Result<Vec<PathBuf>, String> {
        let paths = list(raw, || self.kind())?.into_iter().map(PathBuf::from);
        paths
            .map(|path| if path.is_file() { Ok(path) } else { Err(format!("no file at {}", path.display())) })
            .collect()
    }
}

/// The path of a file that must be there; an empty text is none.
pub(super) struct File;

impl File {
    pub(super) fn kind(&self) -> String {
        String::from("a path, relative to the working directory; empty is none")
    }

    pub(super) fn read(&self, raw: &Raw) -> Result<Option<PathBuf>, String> {
        let path = PathBuf::from(text(raw, || self.kind())?);
        match path.as_os_str().is_empty() {
            true => Ok(None),
            false if path.is_file() => Ok(Some(path)),
            false => Err(format!("no file at {}", path.display())),
        }
    }
}

/// The same for a file with a private key. Its name is one letter from a setting that holds keys themselves, so no message
/// quotes what was written.
pub(super) struct SecretFile;

impl SecretFile {
    pub(super) fn kind(&self) -> String {
        File.kind()
    }

    pub(super) fn read(&self, raw: &Raw) -> Result<Option<PathBuf>, String> {
        text(raw, || self.kind())?;
        File.read(raw).map_err(|_| String::from("no such file (keys of clients belong into client_keys)"))
    }
}

/// A provider's key. No message quotes it.
pub(super) struct Key;

impl Key {
    pub(super) fn kind(&self) -> String {
        String::from("a key; empty is none")
    }

    pub(super) fn read(&self, raw: &Raw) -> Result<Option<Secret>, String> {
        match text(raw, || self.kind())?.trim() {
            "" => Ok(None),
            key => Secret::upstream(key).map(Some),
        }
    }
}

/// Keys of clients. No message quotes them.
pub(super) struct ClientKeys;

impl ClientKeys {
    pub(super) fn kind(&self) -> String {
        String::from("a list of keys, each with or without a name before it")
    }

    pub(super) fn read(&self, raw: &Raw) -> Result<Vec<NamedKey>, String> {
        let keys = list(raw, || self.kind())?;
        let nth = |(n, text): (usize, &String)| {
            NamedKey::parse(text).map_err(|reason| format!("number {}: {reason}", n + 1))
        };
        keys.iter().enumerate().map(nth).collect()
    }
}

/// Names, each perhaps with a `*` at its end.
pub(super) struct Names;

impl Names {
    pub(super) fn kind(&self) -> String {
        String::from("a list of names")
    }

    pub(super) fn read(&self, raw: &Raw) -> Result<Vec<String>, String> {
        let names = list(raw, || self.kind())?;
        let misplaced =
            |name: &&String| name.strip_suffix('*').unwrap_or(name).contains('*') || name.is_empty();
        match names.iter().find(misplaced) {
            Some(name) => Err(format!("`{name}` is not a name: a `*` may stand at its end only")),
            None => Ok(names),
        }
    }
}

/// Names of HTTP headers.
pub(super) struct Headers;

impl Headers {
    pub(super) fn kind(&self) -> String {
        String::from("a list of header names")
    }

    pub(super) fn read(&self, raw: &Raw) -> Result<Vec<HeaderName>, String> {
        let names = list(raw, || self.kind())?;
        let read = |name: &String| {
            let header: HeaderName = name.parse().map_err(|_| format!("`{name}` is not a header's name"))?;
            if identity::is_essential(header.as_str()) {
                return Err(format!("`{name}` says who is asking, or what, to every provider"));
            }
            Ok(header)
        };
        names.iter().map(read).collect()
    }
}

/// Reads a size: a whole number and its unit, `B`, `KiB`, `MiB` or `GiB`. In bytes.
///
/// # Errors
/// No number, no such unit, or more than 64 bits hold.
pub fn parse_size(text: &str) -> Result<u64, String> {
    scaled(text, &[("B", 1), ("KiB", KIB), ("MiB", MIB), ("GiB", GIB)])
        .ok_or_else(|| format!("`{text}` is not a size such as 512B, 64KiB, 15MiB or 1GiB"))
}

/// Reads a length of time: a whole number and its unit, `ms`, `s`, `m` or `h`.
///
/// # Errors
/// No number, no such unit, or more than 64 bits of milliseconds hold.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    scaled(text, &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)])
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is not a time such as 40ms, 25s, 5m or 1h"))
}

/// Reads a link's speed: a whole number and its unit, `kbit/s`, `Mbit/s` or `Gbit/s`. In bits per second.
///
/// # Errors
/// No number, zero, no such unit, or more than 64 bits hold.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    scaled(text, &[("kbit/s", 1000), ("Mbit/s", 1_000_000), ("Gbit/s", 1_000_000_000)])
        .filter(|rate| *rate > 0)
        .ok_or_else(|| format!("`{text}` is not a speed such as 512kbit/s, 20Mbit/s or 1Gbit/s"))
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let scale = units.iter().find(|(name, _)| *name == unit.trim_start())?.1;
    number.parse::<u64>().ok()?.checked_mul(scale)
}

fn show_size(bytes: u64) -> String {
    show(bytes, &[("GiB", GIB), ("MiB", MIB), ("KiB", KIB)], "B")
}

fn show_duration(time: Duration) -> String {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    show(milliseconds, &[("h", 3_600_000), ("m", 60_000), ("s", 1000)], "ms")
}

fn show(value: u64, units: &[(&str, u64)], smallest: &str) -> String {
    let unit = units.iter().find(|(_, scale)| value > 0 && value.is_multiple_of(*scale));
    unit.map_or_else(|| format!("{value}{smallest}"), |(name, scale)| format!("{}{name}", value / scale))
}

fn text(raw: &Raw, kind: impl Fn() -> String) -> Result<&str, String> {
    match raw {
        Raw::Text(text) | Raw::Bare(text) => Ok(text),
        other => Err(wrong_type(kind(), other)),
    }
}

fn list(raw: &Raw, kind: impl Fn() -> String) -> Result<Vec<String>, String> {
    match raw {
        Raw::List(items) => Ok(items.clone()),
        Raw::Bare(text) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(items.map(str::to_owned).collect())
        }
        other => Err(wrong_type(kind(), other)),
    }
}

fn wrong_type(expected: impl Display, found: &Raw) -> String {
    format!("expected {expected}; found {}", found.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0B", Some(0)),
            ("512B", Some(512)),
            ("64KiB", Some(65_536)),
            ("15 MiB", Some(15_728_640)),
            ("1GiB", Some(1 << 30)),
            ("64", None),
            ("64MB", None),
            ("MiB", None),
            ("-1B", None),
            ("1.5MiB", None),
            ("99999999999999999999B", None),
            ("18446744073709551615KiB", None),
        ] {
            assert_eq!(parse_size(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn durations_and_rates() {
        assert_eq!(parse_duration("40ms"), Ok(Duration::from_millis(40)));
        assert_eq!(parse_duration("25s"), Ok(Duration::from_secs(25)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
        assert!(parse_duration("1d").unwrap_err().contains("`1d` is not a time such as"));
        assert_eq!(parse_rate("20Mbit/s"), Ok(20_000_000));
        assert!(parse_rate("0Mbit/s").is_err());
        assert!(parse_rate("20MB/s").is_err());
    }

    #[test]
    fn base_urls_resolve() {
        let read = |text: &str| BaseUrl.read(&Raw::Bare(text.to_owned())).map(|uri| uri.to_string());
        assert_eq!(read("https://api.openai.com").unwrap(), "https://api.openai.com/v1");
        assert_eq!(read("https://api.openai.com/").unwrap(), "https://api.openai.com/v1");
        assert_eq!(read("http://127.0.0.1:9/openai/v1/").unwrap(), "http://127.0.0.1:9/openai/v1");
        for text in ["api.openai.com", "/v1", "ftp://host/v1", "https://host/v1?a=b", "https://host/v1#a", ""]
        {
            assert!(read(text).is_err(), "{text}");
        }
        let error = read("https://name:hunter2@host/v1").unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn shown_as_written() {
        assert_eq!(show_size(15 * MIB), "15MiB");
        assert_eq!(show_size(1000), "1000B");
        assert_eq!(show_duration(Duration::from_secs(90)), "90s");
        assert_eq!(show_duration(Duration::ZERO), "0ms");
    }
}
