//! Where one HTTP/1.1 request ends and the next begins, judged byte by byte beside hyper, which stays the parser:
//! what two readers could take for two different requests is spoilt, so that hyper refuses it.
//! It reads no socket, keeps no message and answers nothing.
//!
//! hyper takes three things that RFC 9112 lets a careful server refuse: `Content-Length` beside `Transfer-Encoding`
//! (6.3; it drops the one and says nothing), lines that end with a bare LF (2.2), and the same in trailers.

/// A connection's requests, as far as its bytes have come.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    /// Bytes of the HTTP/2 preface that the connection began with.
    preface: usize,
}

#[derive(Debug)]
enum State {
    Head(Head),
    /// A body of known length, so many bytes before its end.
    Length(u64),
    /// The size of a chunk, as far as read.
    Size(u64),
    /// What follows a chunk's size on its line.
    SizeRest(u64),
    Chunk(u64),
    /// The line's end after a chunk, so many bytes of it to come.
    ChunkEnd(u8),
    /// The trailers; whether a line begins here, and whether a CR was the last byte.
    Trailers {
        fresh: bool,
        cr: bool,
    },
    /// Not HTTP/1.1 requests any more: HTTP/2, a tunnel, or something that hyper refuses without us.
    Opaque,
    /// Spoilt; hyper will say 400.
    Spoilt,
}

/// A request's head up to here.
#[derive(Debug, Default)]
struct Head {
    /// The current line's first bytes, enough for the names and values that matter.
    line: Vec<u8>,
    cr: bool,
    /// Lines that are over, the request line among them.
    lines: usize,
    length: Option<u64>,
    sized: bool,
    chunked: bool,
}

impl Framing {
    pub(super) fn new() -> Self {
        Self { state: State::Head(Head::default()), preface: 0 }
    }

    /// Follows `bytes`; changes one of them to NUL, which is allowed nowhere in a head, if they could be read in two ways.
    pub(super) fn follow(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let left = (bytes.len() - at) as u64;
            match &mut self.state {
                State::Opaque | State::Spoilt => return,
                State::Length(rest) | State::Chunk(rest) if *rest > left => {
                    *rest -= left;
                    return;
                }
                State::Length(rest) | State::Chunk(rest) => {
                    // No more than `left`, which is a length in memory.
                    at += usize::try_from(*rest).unwrap_or_default();
                    self.state = match self.state {
                        State::Chunk(_) => State::ChunkEnd(2),
                        _ => State::Head(Head::default()),
                    };
                }
                _ => {
                    self.preface(bytes[at]);
                    if !self.step(bytes[at]) {
                        bytes[at] = 0;
                        self.state = State::Spoilt;
                    }
                    at += 1;
                }
            }
        }
    }

    /// Whether everything that came belongs to requests that came whole.
    pub(super) fn at_rest(&self) -> bool {
        matches!(&self.state, State::Head(head) if head.lines == 0 && head.line.is_empty())
    }

    /// Whether the requests are HTTP/1.1 ones still.
    pub(super) fn is_opaque(&self) -> bool {
        matches!(self.state, State::Opaque)
    }

    /// What comes from now on is somebody else's.
    pub(super) fn end(&mut self) {
        self.state = State::Opaque;
    }

    fn preface(&mut self, byte: u8) {
        if PREFACE.get(self.preface) == Some(&byte) {
            self.preface += 1;
        } else {
            self.preface = usize::MAX;
        }
        if self.preface == PREFACE.len() {
            self.state = State::Opaque;
        }
    }

    /// One byte outside of a body's data; false if it must not be.
    fn step(&mut self, byte: u8) -> bool {
        match &mut self.state {
            State::Head(head) => {
                let end = match head.step(byte) {
                    Ok(end) => end,
                    Err(Ambiguous) => return false,
                };
                if let Some(body) = end {
                    self.state = body;
                }
            }
            State::Size(size) => match (byte as char).to_digit(16) {
                // One that overflows is refused by hyper.
                Some(digit) => *size = size.saturating_mul(16).saturating_add(digit.into()),
                None => self.state = State::SizeRest(*size),
            },
            State::SizeRest(size) if byte == b'\n' => {
                self.state = match *size {
                    0 => State::Trailers { fresh: true, cr: false },
                    size => State::Chunk(size),
                };
            }
            State::ChunkEnd(1) => self.state = State::Size(0),
            State::ChunkEnd(left) => *left -= 1,
            State::Trailers { fresh, cr } => match (byte, *cr) {
                (b'\n', false) => return false,
                (b'\n', true) if *fresh => self.state = State::Head(Head::default()),
                (b'\n', true) => (*fresh, *cr) = (true, false),
                (b'\r', _) => *cr = true,
                _ => (*fresh, *cr) = (false, false),
            },
            _ => {}
        }
        true
    }
}

/// Two readers could differ over it.
struct Ambiguous;

impl Head {
    /// One byte; the body that follows if the head ends with it.
    fn step(&mut self, byte: u8) -> Result<Option<State>, Ambiguous> {
        match (byte, self.cr) {
            (b'\n', false) => Err(Ambiguous),
            (b'\n', true) => self.line(),
            (_, true) => Err(Ambiguous),
            (b'\r', false) => {
                self.cr = true;
                Ok(None)
            }
            (byte, false) => {
                if self.line.len() <= LINE {
                    self.line.push(byte);
                }
                Ok(None)
            }
        }
    }

    fn line(&mut self) -> Result<Option<State>, Ambiguous> {
        self.cr = false;
        if self.line.is_empty() {
            // Empty lines before a request are ignored (RFC 9112 2.2).
            return if self.lines == 0 { Ok(None) } else { self.body().map(Some) };
        }
        if self.lines > 0 {
            self.field()?;
        }
        self.lines += 1;
        self.line.clear();
        Ok(None)
    }

    fn field(&mut self) -> Result<(), Ambiguous> {
        let Some(colon) = self.line.iter().position(|byte| *byte == b':') else { return Ok(()) };
        let (name, value) = (&self.line[..colon], &self.line[colon + 1..]);
        if name.eq_ignore_ascii_case(b"content-length") {
            // Its end was not kept: what hyper makes of it could be another number.
            if self.line.len() > LINE {
                return Err(Ambiguous);
            }
            self.sized = true;
            // What is no number, and two that differ, hyper refuses.
            self.length = str::from_utf8(value).ok().and_then(|value| value.trim().parse().ok());
        }
        self.chunked |= name.eq_ignore_ascii_case(b"transfer-encoding");
        Ok(())
    }

    fn body(&self) -> Result<State, Ambiguous> {
        match (self.sized, self.chunked) {
            (true, true) => Err(Ambiguous),
            (false, true) => Ok(State::Size(0)),
            (false, false) => Ok(State::Head(Self::default())),
            (true, false) => Ok(match self.length {
                Some(0) => State::Head(Self::default()),
                Some(length) => State::Length(length),
                None => State::Opaque,
            }),
        }
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a line that are kept, but for one that tells that there were more: `Transfer-Encoding`, and a length with room
/// for white space.
const LINE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the text survives, however it is cut; and whether it ends between two requests.
    fn follow(text: &str) -> (bool, bool) {
        let mut answers = Vec::new();
        for size in [1, 3, 7, text.len()] {
            let mut framing = Framing::new();
            let mut bytes = text.as_bytes().to_vec();
            bytes.chunks_mut(size).for_each(|piece| framing.follow(piece));
            answers.push((bytes == text.as_bytes(), framing.at_rest()));
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{text:?}: {answers:?}");
        answers[0]
    }

    #[test]
    fn what_has_one_meaning_is_left_alone() {
        for text in [
            "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\n\n\r\0\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length:\t 0 \r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n4;a=\"b\"\r\n\n\n\r\n\r\n0a \r\n0123456789\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: 1\r\ny: 2\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(follow(text), (true, true), "{text:?}");
        }
        for text in [
            "GET / HTTP/1.1\r\nhost: a\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nabc",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
        ] {
            assert_eq!(follow(text), (true, false), "{text:?}");
        }
    }

    #[test]
    fn what_has_two_meanings_is_spoilt() {
        for text in [
            "GET / HTTP/1.1\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\rb: c\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: identity\r\ncontent-length: 4\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: 1\ny: 2\r\n\r\n",
        ] {
            assert!(!follow(text).0, "{text:?}");
        }
        for (lead, judged) in [(240, true), (241, false), (300, false)] {
            for filler in ["0", " "] {
                let length = filler.repeat(lead);
                let text = format!("POST / HTTP/1.1\r\ncontent-length:{length}4\r\n\r\nabcd");
                assert_eq!(follow(&text), (judged, judged), "{lead} of {filler:?}");
            }
        }
    }

    #[test]
    fn what_is_not_http_1_is_not_judged() {
        assert!(follow(&format!("{}\n\n", str::from_utf8(PREFACE).unwrap())).0);
        let mut framing = Framing::new();
        framing.end();
        let mut frames = *b"\n\n";
        framing.follow(&mut frames);
        assert_eq!((&frames, framing.is_opaque()), (b"\n\n", true));
    }
}
