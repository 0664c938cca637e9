//! A text that must not be seen: kept out of every log line, error message and debug print.
//! Does not wipe memory and does not compare: comparing in constant time belongs to whoever checks a key.

use std::fmt;

/// A key. `Debug` and `Display` print `[hidden]`; the text comes out only through [`Secret::reveal`].
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a key.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The key itself. Only for the header that carries it and the check that compares it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[hidden]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[hidden]")
    }
}
