//! Keys: what a text must be to be one, and the files that hold them. No message and no `Debug` shows one.
//!
//! Does not compare keys, and does not decide who must present which: `proxy::admission` does.

use std::fmt;
use std::path::Path;

use hyper::header::HeaderValue;

use super::{ConfigError, Place, Settings};

/// A text that is not to be seen.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// A client's key, and what the owner calls the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedKey {
    /// For messages; empty if the owner gave no name.
    pub name: String,
    /// The key.
    pub key: Secret,
}

/// All keys that are in force.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// Who may use the port. Empty: everybody who reaches it.
    pub clients: Vec<NamedKey>,
    /// What is sent to the provider in place of a client's own credential.
    pub upstream: Option<Secret>,
}

impl Secret {
    /// A key as a provider gave it: whatever a header can carry.
    ///
    /// # Errors
    /// What is wrong with it, without the text.
    pub fn upstream(text: &str) -> Result<Self, String> {
        let fits = text.len() <= LONGEST_UPSTREAM && HeaderValue::from_str(text).is_ok();
        if text.is_empty() || text.contains(char::is_whitespace) || !fits {
            return Err(format!("not a key: it must be one word of at most {LONGEST_UPSTREAM} characters"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text itself, for the one place that puts it into a header or a digest.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

impl NamedKey {
    /// Reads `KEY` or `NAME KEY`.
    ///
    /// # Errors
    /// What is wrong with it, without the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let (name, key) = match (words.next(), words.next(), words.next()) {
            (Some(key), None, _) => ("", key),
            (Some(name), Some(key), None) => (name, key),
            _ => return Err(String::from("must be written as KEY or NAME KEY")),
        };
        let printable = key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
        if !printable || !(SHORTEST..=LONGEST).contains(&key.len()) {
            return Err(format!(
                "a key must be {SHORTEST} to {LONGEST} printable ASCII characters without comma, so that nobody guesses it"
            ));
        }
        // Names are written into logs. In the wrong order of the two words, a key would be.
        if name.len() >= SHORTEST {
            return Err(format!("a name comes before its key, and is shorter than {SHORTEST} characters"));
        }
        Ok(Self { name: name.to_owned(), key: Secret(key.to_owned()) })
    }
}

impl Settings {
    /// The keys of the settings and of the files they name, which are read anew.
    ///
    /// # Errors
    /// A file cannot be read or holds no key, a line is no key, or a key is there twice.
    pub fn keys(&self) -> Result<Keys, ConfigError> {
        let mut clients: Vec<(NamedKey, Place)> =
            self.client_keys.iter().map(|key| (key.clone(), Place::Setting("client_keys"))).collect();
        if let Some(path) = &self.client_keys_file {
            clients.extend(client_keys(path)?);
        }
        for (n, (key, place)) in clients.iter().enumerate() {
            if let Some((_, first)) = clients[..n].iter().find(|(other, _)| other.key == key.key) {
                let message = format!("the same key as in {first}: two clients need two keys");
                return Err(ConfigError { place: place.clone(), message });
            }
        }
        let upstream = match &self.upstream_key_file {
            Some(path) => Some(upstream_key(path)?),
            None => self.upstream_key.clone(),
        };
        Ok(Keys { clients: clients.into_iter().map(|(key, _)| key).collect(), upstream })
    }

    /// The files that hold something secret; all may change while the program runs.
    pub fn secret_files(&self) -> impl Iterator<Item = &Path> {
        [&self.client_keys_file, &self.upstream_key_file, &self.tls_key, &self.client_key]
            .into_iter()
            .flatten()
            .map(AsRef::as_ref)
    }
}

/// Whether somebody else on this machine can read a file: everybody, or a group, unless root made it readable for one.
#[must_use]
pub fn is_exposed(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let Ok(metadata) = std::fs::metadata(path) else { return false };
        let (mode, roots) = (metadata.mode(), metadata.uid() == 0);
        mode & 0o004 != 0 || (mode & 0o040 != 0 && !roots)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

fn client_keys(path: &Path) -> Result<Vec<(NamedKey, Place)>, ConfigError> {
    let text = read(path)?;
    let mut keys = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = Place::Line(path.to_owned(), n + 1);
        match NamedKey::parse(line) {
            Ok(key) => keys.push((key, place)),
            Err(message) => return Err(ConfigError { place, message }),
        }
    }
    // An empty list would open the port to everybody.
    if keys.is_empty() || keys.len() > MOST_CLIENTS {
        let message = format!("must hold 1 to {MOST_CLIENTS} client keys, one a line");
        return Err(ConfigError { place: Place::File(path.to_owned()), message });
    }
    Ok(keys)
}

fn upstream_key(path: &Path) -> Result<Secret, ConfigError> {
    let text = read(path)?;
    Secret::upstream(text.trim())
        .map_err(|message| ConfigError { place: Place::File(path.to_owned()), message })
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let refuse = |message: String| ConfigError { place: Place::File(path.to_owned()), message };
    let length = std::fs::metadata(path).map_err(|error| refuse(format!("cannot be read: {error}")))?.len();
    if length > LARGEST_FILE {
        return Err(refuse(format!("a file of keys has at most {LARGEST_FILE} bytes")));
    }
    std::fs::read_to_string(path).map_err(|error| refuse(format!("cannot be read: {error}")))
}

/// Fewer characters than this are guessed: 16 of base64 are 96 bits.
const SHORTEST: usize = 16;
const LONGEST: usize = 512;
const LONGEST_UPSTREAM: usize = 8192;
const LARGEST_FILE: u64 = 1 << 20;
/// Every one of them is compared with each request's key.
const MOST_CLIENTS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show() {
        let key = NamedKey::parse("alice 0123456789abcdef").unwrap();
        assert_eq!(format!("{key:?} {}", key.key), "NamedKey { name: \"alice\", key: *** } ***");
        assert_eq!(key.key.expose(), "0123456789abcdef");
    }

    #[test]
    fn keys_are_words_that_nobody_guesses() {
        for text in [
            "",
            "short",
            "alice short",
            "a b 0123456789abcdef",
            "é123456789abcdef",
            "0123456789abcde,f",
            "0123456789abcdef a-name-that-is-long",
        ] {
            let error = NamedKey::parse(text).unwrap_err();
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
        assert_eq!(NamedKey::parse(" 0123456789abcdef ").unwrap().name, "");
        assert!(Secret::upstream("sk-1").is_ok());
        for text in ["", "sk 1", "sk-\n1", "sk-\u{7f}"] {
            assert!(Secret::upstream(text).is_err(), "{text:?}");
        }
    }
}
