//! What the admin listener says: once from `/stats` and `/turns`, live from `/events`, found again when it was lost.
//!
//! Plain HTTP to one address; understands what it hears, and shows nothing.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};

use crate::admin::stats::{Stats, TurnRow};
use crate::proto::wire::sse::{Decoder, Frame};

/// Updates that wait to be drawn; a full queue makes the listener wait, which then says how many turns were missed.
pub(super) const WAITING: usize = 64;
/// For a connection and the head of an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before a lost listener is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// The listener says something every 15 s; after so long a silence it is lost.
const SILENCE: Duration = Duration::from_secs(45);
/// A snapshot is at most so long.
const MOST: usize = 64 << 20;

/// Something new.
#[derive(Debug)]
pub(super) enum Update {
    /// Everything anew.
    Snapshot(Box<Stats>, Vec<TurnRow>),
    /// How things stand.
    Stats(Box<Stats>),
    /// A turn is over.
    Turn(Box<TurnRow>),
    /// So many turns were too fast to be told.
    Missed(u64),
    /// The listener is gone, and why.
    Lost(String),
}

/// An admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// Host and port.
    authority: String,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

#[derive(Deserialize)]
struct Turns {
    turns: Vec<TurnRow>,
}

#[derive(Deserialize)]
struct Snapshot {
    stats: Stats,
    turns: Vec<TurnRow>,
}

#[derive(Deserialize)]
struct Missed {
    turns: u64,
}

impl Source {
    /// Reads `HOST:PORT`, or the URL that a browser would be given.
    pub(super) fn parse(text: &str) -> io::Result<Self> {
        let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let is_address = !authority.contains('/')
            && authority
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !is_address {
            let words = format!("`{text}` is no address of an admin listener, such as 127.0.0.1:8485");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
        }
        Ok(Self { authority: authority.to_owned() })
    }

    /// How things stand, and the last turns.
    pub(super) async fn snapshot(&self) -> io::Result<(Stats, Vec<TurnRow>)> {
        let Turns { turns } = self.read("/turns").await?;
        Ok((self.read("/stats").await?, turns))
    }

    async fn read<T: for<'de> Deserialize<'de>>(&self, path: &str) -> io::Result<T> {
        let body = Limited::new(self.ask(path).await?.into_body(), MOST);
        let bytes = timeout(PATIENCE, body.collect()).await?.map_err(io::Error::other)?.to_bytes();
        Ok(serde_json::from_slice(&bytes)?)
    }

    async fn ask(&self, path: &str) -> io::Result<Response<Incoming>> {
        let answer = async {
            let stream = TcpStream::connect(&self.authority).await?;
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
            // Ends with the answer's body, or when that is dropped.
            tokio::spawn(connection);
            let request = Request::get(path).header(HOST, &self.authority).body(Empty::<Bytes>::new());
            sender.send_request(request.map_err(io::Error::other)?).await.map_err(io::Error::other)
        };
        let answer = timeout(PATIENCE, answer).await??;
        if answer.status() != StatusCode::OK {
            return Err(io::Error::other(format!("{path} is answered with {}", answer.status())));
        }
        Ok(answer)
    }

    /// Hears `/events` to their end.
    async fn hear(&self, news: &Sender<Update>) -> io::Result<()> {
        let mut body = self.ask("/events").await?.into_body();
        let mut decoder = Decoder::default();
        while let Some(frame) = timeout(SILENCE, body.frame()).await? {
            let Ok(piece) = frame.map_err(io::Error::other)?.into_data() else { continue };
            let frames = decoder.push(&piece).map_err(|_| io::Error::other("no events came"))?;
            for frame in frames {
                let Some(update) = update(&frame)? else { continue };
                // Nobody listens: the screen is closed.
                if news.send(update).await.is_err() {
                    return Ok(());
                }
            }
        }
        Err(io::Error::other("it ended"))
    }
}

/// Follows a listener, and finds it again, until nobody wants to know.
pub(super) async fn follow(source: Source, news: Sender<Update>) {
    while !news.is_closed() {
        if let Err(error) = source.hear(&news).await {
            // If nobody listens the loop ends.
            let _unheard = news.send(Update::Lost(error.to_string())).await;
        }
        sleep(AGAIN).await;
    }
}

fn update(frame: &Frame) -> io::Result<Option<Update>> {
    let data = &*frame.data;
    Ok(Some(match &*frame.name {
        "snapshot" => {
            let Snapshot { stats, turns } = serde_json::from_str(data)?;
            Update::Snapshot(Box::new(stats), turns)
        }
        "stats" => Update::Stats(Box::new(serde_json::from_str(data)?)),
        "turn" => Update::Turn(Box::new(serde_json::from_str(data)?)),
        "missed" => Update::Missed(serde_json::from_str::<Missed>(data)?.turns),
        // What a newer proxy says besides.
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_urls() {
        for text in ["127.0.0.1:8485", "http://127.0.0.1:8485/", "http://127.0.0.1:8485"] {
            assert_eq!(Source::parse(text).unwrap().authority, "127.0.0.1:8485");
        }
        for text in ["8485", "127.0.0.1", "https://a:1", "a:1/stats", ":1", "a:99999"] {
            assert!(Source::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_not_known_is_no_update() {
        let frame = |name: &str, data: &str| Frame { name: name.to_owned(), data: data.to_owned() };
        assert!(update(&frame("weather", "{}")).unwrap().is_none());
        assert!(matches!(update(&frame("missed", r#"{"turns":3}"#)), Ok(Some(Update::Missed(3)))));
        assert!(update(&frame("stats", "{}")).is_err());
    }
}
