//! permessage-deflate (RFC 7692): what we offer, and whether an answer is one to the offer.
//! It only reads and writes the header; the compressing is the socket's.

use hyper::HeaderMap;
use hyper::header::{HeaderValue, SEC_WEBSOCKET_EXTENSIONS};

/// What to offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Nothing.
    Off,
    /// Both sides keep their window from message to message: the fewest bytes, 375 KB a socket (measured 2026-11).
    #[default]
    Takeover,
    /// We start each message afresh, with deflate state shared by all sockets: 60 KB a socket.
    Pooled,
}

impl Compression {
    /// The header's value. `client_max_window_bits` is not offered, so that no server narrows our window: it is
    /// what lets a resent prefix shrink to a reference.
    pub(super) const fn offer(self) -> Option<HeaderValue> {
        match self {
            Self::Off => None,
            Self::Takeover => Some(HeaderValue::from_static("permessage-deflate")),
            Self::Pooled => Some(HeaderValue::from_static("permessage-deflate; client_no_context_takeover")),
        }
    }

    /// The extension agreed on, normalised; `None` if the server wants none.
    ///
    /// # Errors
    /// A sentence about the first thing in the answer that was not offered: the connection must then fail (RFC 7692
    /// 5.1 and 7.1).
    pub(super) fn agreed(self, headers: &HeaderMap) -> Result<Option<String>, String> {
        let mut answers = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter();
        let Some(answer) = answers.next() else { return Ok(None) };
        let answer = answer.to_str().map_err(|_| "the extension header is not text".to_owned())?;
        if answers.next().is_some() || answer.contains(',') {
            return Err("more than one extension was accepted".to_owned());
        }
        let mut parts = answer.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        if self == Self::Off || !name.eq_ignore_ascii_case("permessage-deflate") {
            return Err("an extension was accepted that was not offered".to_owned());
        }
        let mut agreed = "permessage-deflate".to_owned();
        let mut seen = Vec::new();
        // We may reset our window whether or not the server repeats that we said so.
        if self == Self::Pooled {
            agreed.push_str("; client_no_context_takeover");
        }
        for part in parts {
            let (parameter, value) = match part.split_once('=') {
                Some((parameter, value)) => (parameter.trim(), Some(value.trim().trim_matches('"'))),
                None => (part, None),
            };
            let parameter = parameter.to_ascii_lowercase();
            if seen.contains(&parameter) {
                return Err("an extension parameter was repeated".to_owned());
            }
            match (parameter.as_str(), value) {
                ("server_no_context_takeover", None) => agreed.push_str("; server_no_context_takeover"),
                ("client_no_context_takeover", None) if self == Self::Pooled => {}
                ("client_no_context_takeover", None) => agreed.push_str("; client_no_context_takeover"),
                ("server_max_window_bits", Some(bits)) if WINDOW_BITS.contains(&bits) => {
                    agreed.push_str("; server_max_window_bits=");
                    agreed.push_str(bits);
                }
                _ => return Err("an extension parameter was accepted that was not offered".to_owned()),
            }
            seen.push(parameter);
        }
        Ok(Some(agreed))
    }
}

/// Legal values of `server_max_window_bits` (RFC 7692 7.1.2.1).
const WINDOW_BITS: [&str; 8] = ["8", "9", "10", "11", "12", "13", "14", "15"];

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(offer: Compression, answers: &[&str]) -> Result<Option<String>, String> {
        let mut headers = HeaderMap::new();
        for answer in answers {
            headers.append(SEC_WEBSOCKET_EXTENSIONS, answer.parse().unwrap());
        }
        offer.agreed(&headers)
    }

    #[test]
    fn what_was_offered_may_be_accepted() {
        use Compression::{Off, Pooled, Takeover};
        for (offer, answer, extension) in [
            (Takeover, "permessage-deflate", "permessage-deflate"),
            (
                Takeover,
                "Permessage-Deflate;server_no_context_takeover ; client_no_context_takeover",
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            ),
            (
                Takeover,
                "permessage-deflate; server_max_window_bits=\"12\"",
                "permessage-deflate; server_max_window_bits=12",
            ),
            (Pooled, "permessage-deflate", "permessage-deflate; client_no_context_takeover"),
            (
                Pooled,
                "permessage-deflate; client_no_context_takeover",
                "permessage-deflate; client_no_context_takeover",
            ),
        ] {
            assert_eq!(agreed(offer, &[answer]), Ok(Some(extension.to_owned())), "{answer}");
        }
        assert_eq!(agreed(Off, &[]), Ok(None));
        assert_eq!(agreed(Takeover, &[]), Ok(None));
    }

    #[test]
    fn what_was_not_offered_fails() {
        for answers in [
            &["x-webkit-deflate-frame"][..],
            &["permessage-deflate, permessage-deflate"],
            &["permessage-deflate", "permessage-deflate"],
            &["permessage-deflate; client_max_window_bits=15"],
            &["permessage-deflate; server_max_window_bits"],
            &["permessage-deflate; server_max_window_bits=16"],
            &["permessage-deflate; server_no_context_takeover=1"],
            &["permessage-deflate; server_no_context_takeover; server_no_context_takeover"],
            &["permessage-deflate; mystery"],
        ] {
            assert!(agreed(Compression::Takeover, answers).is_err(), "{answers:?}");
        }
        assert!(agreed(Compression::Off, &["permessage-deflate"]).is_err());
    }
}
