//! Undoes the `Content-Encoding` of a request body, never past a byte limit (a compressed bomb stops there), nor past the
//! room that all bodies share.
//! It decodes whole buffers only and reads no socket.

use std::io::{ErrorKind, Read};

use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use hyper::HeaderMap;
use hyper::header::CONTENT_ENCODING;

use crate::downstream::room::Claim;

/// One content coding we can undo (RFC 9110 8.4.1, RFC 7932, RFC 8878).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// `gzip`, `x-gzip`; several members in a row are one body.
    Gzip,
    /// `deflate`: zlib as the standard says, or the raw stream some clients send.
    Deflate,
    /// `br`.
    Brotli,
    /// `zstd`; several frames in a row are one body.
    Zstd,
}

impl Coding {
    /// The registered name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// What is wrong with an encoded body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A coding we do not know, or more layers than any honest client uses.
    #[error("content encoding {0:?} is not supported")]
    Unsupported(String),
    /// The bytes are not what the header says, or end too early.
    #[error("the body is not valid {0}")]
    Corrupt(&'static str),
    /// There is no room for it among the bodies that are held.
    #[error("there is no room for the decoded body")]
    NoRoom,
    /// The decoded body would be longer than the limit.
    #[error("the decoded body is larger than the limit")]
    TooLarge,
}

/// The codings of a request in the order they were applied; `identity` is left out.
///
/// # Errors
/// [`DecodeError::Unsupported`] for an unknown name, a value that is not text, or more than four layers.
pub fn listed(headers: &HeaderMap) -> Result<Vec<Coding>, DecodeError> {
    let mut codings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        let value = value.to_str().map_err(|_| DecodeError::Unsupported("not text".into()))?;
        for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            codings.push(match name.to_ascii_lowercase().as_str() {
                "identity" => continue,
                "gzip" | "x-gzip" => Coding::Gzip,
                "deflate" => Coding::Deflate,
                "br" => Coding::Brotli,
                "zstd" => Coding::Zstd,
                _ => return Err(DecodeError::Unsupported(name.chars().take(40).collect())),
            });
        }
    }
    // Each layer costs a pass over up to `limit` bytes.
    if codings.len() > MAX_LAYERS {
        return Err(DecodeError::Unsupported(format!("{} layers", codings.len())));
    }
    Ok(codings)
}

/// Undoes `codings`, the last applied first. An empty body stays empty whatever the header says. `claim` is for the body as
/// it came; what it becomes is claimed besides, before it is there.
///
/// # Errors
/// [`DecodeError::Corrupt`], [`DecodeError::TooLarge`] (more than `limit` bytes after any layer), [`DecodeError::NoRoom`].
pub fn decode(
    mut body: Bytes,
    codings: &[Coding],
    limit: usize,
    claim: &mut Claim,
) -> Result<Bytes, DecodeError> {
    if body.is_empty() {
        return Ok(body);
    }
    let original = claim.bytes();
    for (nth, &coding) in codings.iter().rev().enumerate() {
        let before = original + if nth > 0 { body.len() } else { 0 };
        let bounds = &mut Bounds { limit, claim, before };
        body = match coding {
            Coding::Gzip => drain(MultiGzDecoder::new(&*body), coding, &body, bounds),
            Coding::Deflate => deflate(&body, bounds),
            Coding::Brotli => {
                drain(brotli_decompressor::Decompressor::new(&*body, BUFFER), coding, &body, bounds)
            }
            Coding::Zstd => zstd::stream::read::Decoder::with_buffer(&*body)
                .and_then(|mut decoder| {
                    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                    Ok(decoder)
                })
                .map_err(|_| DecodeError::Corrupt(coding.name()))
                .and_then(|decoder| drain(decoder, coding, &body, bounds)),
        }?;
    }
    Ok(body)
}

/// What one layer may become.
struct Bounds<'a> {
    limit: usize,
    claim: &'a mut Claim,
    /// Bytes that are claimed beside it.
    before: usize,
}

/// `deflate` means zlib, but clients have always sent raw streams too; the two-byte zlib header tells them apart,
/// and a raw stream that happens to look like one is tried again as raw.
fn deflate(body: &[u8], bounds: &mut Bounds<'_>) -> Result<Bytes, DecodeError> {
    let zlib = matches!(body, [first, second, ..]
        if first & 0x0f == 8 && (u16::from(*first) << 8 | u16::from(*second)) % 31 == 0);
    if zlib {
        match drain(ZlibDecoder::new(body), Coding::Deflate, body, bounds) {
            Err(DecodeError::Corrupt(_)) => {}
            done => return done,
        }
    }
    drain(DeflateDecoder::new(body), Coding::Deflate, body, bounds)
}

/// Reads a decoder to its end, at most one byte past the limit, in steps that are claimed before they are taken.
fn drain(
    mut decoder: impl Read,
    coding: Coding,
    encoded: &[u8],
    bounds: &mut Bounds<'_>,
) -> Result<Bytes, DecodeError> {
    let Bounds { limit, before, .. } = *bounds;
    let mut decoded = Vec::new();
    let mut step = encoded.len().saturating_mul(USUAL_RATIO).clamp(BUFFER, FIRST_STEP);
    loop {
        // One byte more tells a body that fits from one that does not.
        step = step.min(limit.saturating_add(1) - decoded.len());
        while !bounds.claim.set(before + decoded.len() + step) {
            if step <= LAST_STEP {
                return Err(DecodeError::NoRoom);
            }
            step = (step / 2).max(LAST_STEP);
        }
        decoded.reserve_exact(step);
        match decoder.by_ref().take(step as u64).read_to_end(&mut decoded) {
            Ok(_) if decoded.len() > limit => return Err(DecodeError::TooLarge),
            Ok(read) if read < step => break,
            Ok(_) => step = decoded.len(),
            Err(error) if error.kind() == ErrorKind::OutOfMemory => return Err(DecodeError::TooLarge),
            Err(_) => return Err(DecodeError::Corrupt(coding.name())),
        }
    }
    decoded.shrink_to_fit();
    Ok(decoded.into())
}

const MAX_LAYERS: usize = 4;
/// Bytes the brotli decoder reads at a time.
const BUFFER: usize = 16 * 1024;
/// JSON shrinks four- to sixfold (measured on transcripts); reserving that much saves most of the regrowth.
const USUAL_RATIO: usize = 5;
/// Bytes that are taken first, at most; then each step doubles what there is.
const FIRST_STEP: usize = 1 << 20;
/// The shortest step where there is little room left.
const LAST_STEP: usize = 1024;
/// At most 64 MiB of history per zstd frame; RFC 9659 allows a client 8 MiB.
const ZSTD_WINDOW_LOG: u32 = 26;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use hyper::header::HeaderValue;

    use super::*;
    use crate::downstream::room::Room;

    fn decode(body: Bytes, codings: &[Coding], limit: usize) -> Result<Bytes, DecodeError> {
        super::decode(body, codings, limit, &mut Claim::new(&Room::new(usize::MAX)))
    }

    const TEXT: &[u8] =
        br#"{"input":"the quick brown fox jumps over the lazy dog, and over the lazy dog again"}"#;
    /// `hello hello hello hello` in brotli, from the reference encoder.
    const BROTLI: &[u8] = &[
        0x1b, 0x16, 0x00, 0xf8, 0x8d, 0x94, 0x6e, 0xde, 0x44, 0x55, 0x86, 0x96, 0x6c, 0x20, 0x6f, 0x21, 0x4f,
        0x1c, 0xe0, 0x38,
    ];
    /// 4 MiB of zeros in brotli, from the reference encoder.
    const BROTLI_ZEROS: &[u8] =
        &[0x9b, 0xff, 0xff, 0x3f, 0xf8, 0x27, 0x00, 0xe2, 0xb1, 0x40, 0x20, 0xf7, 0xfe, 0x07];

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn raw(text: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(text, 3).unwrap()
    }

    fn codings(values: &[&str]) -> Result<Vec<Coding>, DecodeError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_ENCODING, HeaderValue::from_str(value).unwrap());
        }
        listed(&headers)
    }

    #[test]
    fn header_lists_are_read_in_order() {
        assert_eq!(codings(&[]), Ok(vec![]));
        assert_eq!(codings(&["identity"]), Ok(vec![]));
        assert_eq!(codings(&["GZIP , , br"]), Ok(vec![Coding::Gzip, Coding::Brotli]));
        assert_eq!(codings(&["deflate", "zstd"]), Ok(vec![Coding::Deflate, Coding::Zstd]));
        assert_eq!(codings(&["snappy"]), Err(DecodeError::Unsupported("snappy".into())));
        assert!(matches!(codings(&["gzip,gzip,gzip,gzip,gzip"]), Err(DecodeError::Unsupported(_))));
    }

    #[test]
    fn every_coding_is_undone() {
        let two_members = [gzip(&TEXT[..20]), gzip(&TEXT[20..])].concat();
        let two_frames = [zstd(&TEXT[..20]), zstd(&TEXT[20..])].concat();
        for (coding, body) in [
            (Coding::Gzip, gzip(TEXT)),
            (Coding::Gzip, two_members),
            (Coding::Deflate, zlib(TEXT)),
            (Coding::Deflate, raw(TEXT)),
            (Coding::Zstd, zstd(TEXT)),
            (Coding::Zstd, two_frames),
        ] {
            assert_eq!(decode(body.into(), &[coding], 1000).unwrap(), TEXT, "{coding:?}");
        }
        let layered = zstd(&gzip(TEXT));
        assert_eq!(decode(layered.into(), &[Coding::Gzip, Coding::Zstd], 1000).unwrap(), TEXT);
        assert_eq!(decode(Bytes::new(), &[Coding::Gzip], 1000).unwrap(), "");
    }

    #[test]
    fn a_cut_or_foreign_body_is_corrupt() {
        for (coding, body) in [
            (Coding::Gzip, gzip(TEXT)),
            (Coding::Deflate, zlib(TEXT)),
            (Coding::Deflate, raw(TEXT)),
            (Coding::Brotli, BROTLI.to_vec()),
            (Coding::Zstd, zstd(TEXT)),
        ] {
            let cut = Bytes::from(body).slice(..8);
            assert_eq!(decode(cut, &[coding], 1000), Err(DecodeError::Corrupt(coding.name())), "{coding:?}");
            let foreign = Bytes::from_static(b"{\"input\": 1}");
            assert_eq!(
                decode(foreign, &[coding], 1000),
                Err(DecodeError::Corrupt(coding.name())),
                "{coding:?}"
            );
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let zeros = vec![0; 4 << 20];
        for (coding, body) in [
            (Coding::Gzip, gzip(&zeros)),
            (Coding::Deflate, raw(&zeros)),
            (Coding::Brotli, BROTLI_ZEROS.to_vec()),
            (Coding::Zstd, zstd(&zeros)),
        ] {
            assert!(body.len() < 8192);
            assert_eq!(decode(body.clone().into(), &[coding], 1 << 20), Err(DecodeError::TooLarge));
            assert_eq!(decode(body.into(), &[coding], 4 << 20).unwrap().len(), 4 << 20);
        }
        assert_eq!(decode(TEXT.into(), &[], 10).unwrap(), TEXT);
    }

    #[test]
    fn a_bomb_stops_where_there_is_no_more_room() {
        let zeros = vec![0; 4 << 20];
        for (coding, body) in [
            (Coding::Gzip, gzip(&zeros)),
            (Coding::Deflate, raw(&zeros)),
            (Coding::Brotli, BROTLI_ZEROS.to_vec()),
            (Coding::Zstd, zstd(&zeros)),
        ] {
            for (most, expected) in [(4 << 20, Err(DecodeError::NoRoom)), ((4 << 20) + 1, Ok(4 << 20))] {
                let room = Room::new(most);
                let mut claim = Claim::new(&room);
                let decoded = super::decode(body.clone().into(), &[coding], 4 << 20, &mut claim);
                assert_eq!(decoded.map(|body| body.len()), expected, "{coding:?}");
            }
        }
    }

    #[test]
    fn brotli_is_undone() {
        let body = Bytes::from_static(BROTLI);
        assert_eq!(decode(body, &[Coding::Brotli], 100).unwrap(), "hello hello hello hello");
    }
}
