//! Server-sent events as the Responses API writes them: `event:` line, one `data:` line, blank line; and a decoder that
//! takes the bytes in pieces of any size.
//!
//! Does not look inside the data.

use std::mem;

/// One event, as decoded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frame {
    /// The `event:` field; empty if there was none.
    pub name: String,
    /// The `data:` lines, joined by line breaks.
    pub data: String,
}

/// Appends one event. `data` that spans lines becomes several `data:` lines, as the standard has it; a name cannot span
/// lines, and loses its line breaks.
pub fn encode(name: &str, data: &str, out: &mut Vec<u8>) {
    out.reserve(name.len() + data.len() + 16);
    if !name.is_empty() {
        out.extend_from_slice(b"event: ");
        // What stood after a break would be read as a field, or as an event, of its own.
        name.split(['\r', '\n']).for_each(|part| out.extend_from_slice(part.as_bytes()));
        out.push(b'\n');
    }
    for line in data.split('\n') {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
    out.push(b'\n');
}

/// Bytes an unfinished event may hold before the decoder gives it up.
pub const MAX_EVENT: usize = 64 << 20;

/// Decodes a stream that arrives in pieces. Lines end with LF, CR LF or CR; comments and unknown fields are skipped.
#[derive(Debug, Default)]
pub struct Decoder {
    line: Vec<u8>,
    after_cr: bool,
    frame: Frame,
    has_data: bool,
}

/// An event larger than [`MAX_EVENT`], or bytes that are not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undecodable;

impl Decoder {
    /// Takes the next piece and returns the events it completed.
    pub fn push(&mut self, piece: &[u8]) -> Result<Vec<Frame>, Undecodable> {
        let mut frames = Vec::new();
        for &byte in piece {
            let lf_of_crlf = mem::take(&mut self.after_cr) && byte == b'\n';
            if lf_of_crlf {
                continue;
            }
            if byte == b'\n' || byte == b'\r' {
                self.after_cr = byte == b'\r';
                frames.extend(self.end_line()?);
                continue;
            }
            self.line.push(byte);
            if self.line.len() + self.frame.data.len() > MAX_EVENT {
                return Err(Undecodable);
            }
        }
        Ok(frames)
    }

    fn end_line(&mut self) -> Result<Option<Frame>, Undecodable> {
        let line = String::from_utf8(mem::take(&mut self.line)).map_err(|_| Undecodable)?;
        if line.is_empty() {
            let frame = mem::take(&mut self.frame);
            return Ok(mem::take(&mut self.has_data).then_some(frame));
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.frame.name),
            "data" => {
                if mem::replace(&mut self.has_data, true) {
                    self.frame.data.push('\n');
                }
                self.frame.data.push_str(value);
            }
            _ => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_encoded_comes_back_at_every_border(
            frames in prop::collection::vec(("[a-z._]{0,12}", "[^\r]{0,40}"), 0..6),
            cut in 1usize..7,
        ) {
            let mut bytes = Vec::new();
            for (name, data) in &frames {
                encode(name, data, &mut bytes);
            }
            let mut decoder = Decoder::default();
            let mut back = Vec::new();
            for piece in bytes.chunks(cut) {
                back.extend(decoder.push(piece).expect("decodable"));
            }
            let sent: Vec<Frame> =
                frames.into_iter().map(|(name, data)| Frame { name, data }).collect();
            prop_assert_eq!(back, sent);
        }
    }

    #[test]
    fn a_name_cannot_write_an_event_of_its_own() {
        let mut out = Vec::new();
        encode("response.a\r\n\ndata: forged\n\n", "1", &mut out);
        let frames = Decoder::default().push(&out).expect("decodable");
        assert_eq!(frames, [Frame { name: "response.adata: forged".into(), data: "1".into() }]);
    }

    #[test]
    fn every_line_ending_comments_and_missing_spaces() {
        let mut decoder = Decoder::default();
        let frames = decoder.push(b": ping\r\nevent:a\rdata:1\r\n\r\ndata\n\nid: 3\n\n").unwrap();
        assert_eq!(
            frames,
            [
                Frame { name: "a".into(), data: "1".into() },
                Frame { name: String::new(), data: String::new() }
            ]
        );
        assert_eq!(decoder.push(b"data: \xff\n"), Err(Undecodable));
    }
}
