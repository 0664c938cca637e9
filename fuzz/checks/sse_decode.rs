//! The SSE decoder: it reads what a naive reading of the standard reads, in pieces of any size, and what was decoded can be
//! written and read again.

use tailwire::proto::wire::sse::{Decoder, Frame, encode};

/// The first byte is the size of a piece, the rest is the stream.
pub(crate) fn check(data: &[u8]) {
    let Some((size, stream)) = data.split_first() else { return };
    let mut decoder = Decoder::default();
    let mut pieces = Some(Vec::new());
    for piece in stream.chunks(usize::from(*size).max(1)) {
        let frames = decoder.push(piece);
        pieces = pieces.zip(frames.ok()).map(|(all, frames)| [all, frames].concat());
        if pieces.is_none() {
            break;
        }
    }
    assert_eq!(pieces, naive(stream), "pieces of {size}, and a naive reading");
    assert_eq!(Decoder::default().push(stream).ok(), pieces, "the whole, and pieces of {size}");
    let frames = pieces.unwrap_or_default();
    let mut written = Vec::new();
    for frame in &frames {
        encode(&frame.name, &frame.data, &mut written);
    }
    assert_eq!(Decoder::default().push(&written).as_deref(), Ok(&frames[..]), "written, and read again");
}

/// The whole as text with one kind of line's end, in blocks. What has no blank line after it is not there yet.
fn naive(stream: &[u8]) -> Option<Vec<Frame>> {
    let ended = stream.iter().rposition(|byte| matches!(byte, b'\r' | b'\n')).map_or(0, |at| at + 1);
    let text = std::str::from_utf8(&stream[..ended]).ok()?.replace("\r\n", "\n").replace('\r', "\n");
    let blocks = text.rsplit_once("\n\n").map(|(blocks, _)| blocks);
    // A stream may begin with its blank line.
    let frames = blocks.into_iter().flat_map(|blocks| blocks.split("\n\n")).filter_map(|block| {
        let fields = |wanted: &str| -> Vec<String> {
            let pairs = block.lines().map(|line| line.split_once(':').unwrap_or((line, "")));
            let wanted = pairs.filter(|(name, _)| *name == wanted);
            wanted.map(|(_, value)| value.strip_prefix(' ').unwrap_or(value).to_owned()).collect()
        };
        let (mut names, data) = (fields("event"), fields("data"));
        let name = names.pop().unwrap_or_default();
        (!data.is_empty()).then(|| Frame { name, data: data.join("\n") })
    });
    Some(frames.collect())
}
