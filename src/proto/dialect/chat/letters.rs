//! JSON strings measured and cut as they are written, escapes and all: what the model said travels in its own letters.
//!
//! Lengths are counted in UTF-16 units. Half a character may be a piece of its own, and two halves make the whole.

use std::borrow::Cow;

/// A length of text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Length {
    /// UTF-16 units.
    pub(super) units: usize,
    /// Characters; two halves are one.
    pub(super) chars: u64,
}

/// What stands between the quotes of a JSON string; nothing, if the value is none.
pub(super) fn letters(value: Option<&str>) -> &str {
    value.and_then(|value| value.strip_prefix('"')?.strip_suffix('"')).unwrap_or_default()
}

/// How long letters are.
pub(super) fn length(letters: &str) -> Length {
    Letters(letters).fold(Length::default(), |length, letter| Length {
        units: length.units + letter.units,
        chars: length.chars + u64::from(!letter.is_second_half()),
    })
}

/// What follows the first so many units.
pub(super) fn after(letters: &str, mut units: usize) -> Cow<'_, str> {
    let mut rest = Letters(letters);
    while units > 0 {
        let Some(letter) = rest.next() else { break };
        if letter.units > units {
            let mut halves = [0; 2];
            for char in letter.text.chars() {
                char.encode_utf16(&mut halves);
            }
            return format!("\\u{:04x}{}", halves[1], rest.0).into();
        }
        units -= letter.units;
    }
    rest.0.into()
}

/// Goes through letters one by one.
struct Letters<'a>(&'a str);

/// A character as it is, or an escape.
struct Letter<'a> {
    text: &'a str,
    units: usize,
}

impl Letter<'_> {
    fn is_second_half(&self) -> bool {
        matches!(self.text.as_bytes(), [b'\\', b'u', b'd' | b'D', b'c'..=b'f' | b'C'..=b'F', _, _])
    }
}

impl<'a> Iterator for Letters<'a> {
    type Item = Letter<'a>;

    fn next(&mut self) -> Option<Letter<'a>> {
        let first = self.0.chars().next()?;
        let (bytes, units) = match first {
            '\\' if self.0[1..].starts_with('u') => (6, 1),
            '\\' => (2, 1),
            char => (char.len_utf8(), char.len_utf16()),
        };
        let (text, rest) = self.0.split_at_checked(bytes).unwrap_or((self.0, ""));
        self.0 = rest;
        Some(Letter { text, units })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_it_is_written_and_wherever_it_is_cut() {
        for (text, units, chars) in [
            ("", 0, 0),
            ("aé", 2, 2),
            (r"\n\u00e9\\", 3, 3),
            ("😀x", 3, 2),
            (r"\ud83d\ude00x", 3, 2),
            (r"\ude00", 1, 0),
            (r"\uDEADx\ud83d", 3, 2),
        ] {
            assert_eq!(length(text), Length { units, chars }, "{text}");
            for at in 0..=units + 1 {
                assert_eq!(length(&after(text, at)).units, units.saturating_sub(at), "{text} after {at}");
            }
        }
        assert_eq!((after("a😀b", 1), after("a😀b", 2)), ("😀b".into(), r"\ude00b".into()));
        assert_eq!((letters(Some(r#""a\"""#)), letters(Some("7")), letters(None)), (r#"a\""#, "", ""));
    }
}
