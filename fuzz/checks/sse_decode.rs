//! The SSE decoder: pieces of any size give what the whole gives, and what was decoded can be written and read again.

use tailwire::proto::wire::sse::{Decoder, encode};

/// The first byte is the size of a piece, the rest is the stream.
pub fn check(data: &[u8]) {
    let Some((size, stream)) = data.split_first() else { return };
    let whole = Decoder::default().push(stream);
    let mut decoder = Decoder::default();
    let mut pieces = Vec::new();
    let mut failed = false;
    for piece in stream.chunks(usize::from(*size).max(1)) {
        match decoder.push(piece) {
            Ok(frames) => pieces.extend(frames),
            Err(_) => {
                failed = true;
                break;
            }
        }
    }
    let Ok(frames) = whole else { return assert!(failed, "only the whole is undecodable") };
    assert!(!failed, "only the pieces are undecodable");
    assert_eq!(frames, pieces);
    let mut written = Vec::new();
    for frame in &frames {
        encode(&frame.name, &frame.data, &mut written);
    }
    assert_eq!(Decoder::default().push(&written).as_deref(), Ok(&frames[..]));
}
