//! A WebSocket server by hand: the handshake as text, frames as bytes, deflate by flate2. It shares no code with
//! the client under test, so it can judge it.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Reads a request's head; the lines in lower case.
pub(crate) async fn head(stream: &mut TcpStream) -> Vec<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().lines().map(str::to_owned).collect()
}

pub(crate) fn value<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    head.iter().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// Answers an upgrade with this extension line, if any; returns the request's head.
pub(crate) async fn accept(stream: &mut TcpStream, extension: Option<&str>) -> Vec<String> {
    let head = head(stream).await;
    let key = derive_accept_key(value(&head, "sec-websocket-key").unwrap().as_bytes());
    let extension =
        extension.map(|value| format!("sec-websocket-extensions: {value}\r\n")).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n{extension}\
         sec-websocket-accept: {key}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    head
}

/// One frame as it came, unmasked.
pub(crate) struct Frame {
    pub(crate) compressed: bool,
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
    /// Bytes it took on the wire.
    pub(crate) wire: usize,
}

pub(crate) async fn read(stream: &mut TcpStream) -> Frame {
    let first = stream.read_u8().await.unwrap();
    let second = stream.read_u8().await.unwrap();
    assert!(first & 0x80 != 0, "the client does not fragment");
    assert!(second & 0x80 != 0, "a client masks");
    let (length, extra) = match second & 0x7f {
        126 => (u64::from(stream.read_u16().await.unwrap()), 2),
        127 => (stream.read_u64().await.unwrap(), 8),
        short => (u64::from(short), 0),
    };
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).await.unwrap();
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.unwrap();
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    let wire = 6 + extra + payload.len();
    Frame { compressed: first & 0x40 != 0, opcode: first & 0x0f, payload, wire }
}

/// A whole frame of a server; `first` is FIN, RSV1 and opcode.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(u8::try_from(short).unwrap()),
        medium @ 126..65536 => {
            frame.push(126);
            frame.extend(u16::try_from(medium).unwrap().to_be_bytes());
        }
        long => {
            frame.push(127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// Compresses as RFC 7692 7.2.1 says: a sync flush without its last four bytes.
pub(crate) fn deflate(state: &mut Compress, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 1024);
    state.compress_vec(text, &mut out, FlushCompress::Sync).unwrap();
    assert!(out.ends_with(&[0, 0, 0xff, 0xff]));
    out.truncate(out.len() - 4);
    out
}

pub(crate) fn inflate(state: &mut Decompress, payload: &[u8], limit: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(limit);
    let tailed = [payload, &[0, 0, 0xff, 0xff]].concat();
    state.decompress_vec(&tailed, &mut out, FlushDecompress::Sync).unwrap();
    out
}

pub(crate) fn compressor() -> Compress {
    Compress::new(Compression::default(), false)
}

pub(crate) fn decompressor() -> Decompress {
    Decompress::new(false)
}
