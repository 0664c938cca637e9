//! Reads recorded conversations: what real clients sent, turn by turn, and what they were answered.
//!
//! A capture is a folder of `NNN.request.json`, `NNN.headers.json` and `NNN.response.json` or `.sse`, each
//! perhaps packed as `.gz`. This file knows their form and where they lie. It parses no request body, and
//! does not know what a proxy should make of one: that is `table.rs`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde::Deserialize;

/// Anything that makes a stored capture unreadable; the text names the file.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// One recorded conversation.
pub(crate) struct Capture {
    /// The folder's name: client, version, dialect, mode.
    pub(crate) name: String,
    /// In the order of the requests.
    pub(crate) turns: Vec<Turn>,
}

/// One request and its answer.
pub(crate) struct Turn {
    /// The number in the file names, from 0.
    pub(crate) n: usize,
    pub(crate) method: String,
    /// As sent, with the query string.
    pub(crate) path: String,
    /// In the order sent; names in the client's own case.
    pub(crate) headers: Vec<(String, String)>,
    /// The client's own bytes; empty when the request had no body.
    pub(crate) body: Vec<u8>,
    /// `None` when nothing was answered.
    pub(crate) reply: Option<Reply>,
}

impl Turn {
    /// Is this a turn of the Responses dialect?
    pub(crate) fn is_responses(&self) -> bool {
        self.posts("/responses")
    }

    /// Is this a turn of Chat Completions?
    pub(crate) fn is_chat(&self) -> bool {
        self.posts("/chat/completions")
    }

    fn posts(&self, ending: &str) -> bool {
        let path = self.path.split('?').next().unwrap_or_default();
        self.method == "POST" && path.ends_with(ending)
    }
}

/// The answer, in the form the client asked for.
pub(crate) enum Reply {
    /// The body's bytes.
    Json(Vec<u8>),
    /// The stream's events in order.
    Sse(Vec<Event>),
}

/// One server-sent event.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Event {
    /// The `event:` field; empty in Chat streams, which have none.
    pub(crate) name: String,
    /// The `data:` lines, joined by newlines.
    pub(crate) data: String,
}

/// Every capture there is, by name: those stored beside this file and, where present, the whole collection.
pub(crate) fn captures() -> Result<Vec<Capture>> {
    let mut folders = BTreeMap::new();
    for root in roots() {
        for entry in fs::read_dir(&root)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                // The stored copy comes first and stays, so that a clone and a full checkout test the same.
                folders
                    .entry(entry.file_name().to_string_lossy().into_owned())
                    .or_insert_with(|| entry.path());
            }
        }
    }
    folders.into_iter().map(|(name, folder)| capture(name, &folder)).collect()
}

/// The folders that hold captures: the fixtures always, the collection beside the project if it is there.
pub(crate) fn roots() -> Vec<PathBuf> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut roots = vec![package.join("tests/fixtures/captures")];
    let collection = package.join("../shared/captures");
    if collection.is_dir() {
        roots.push(collection);
    } else {
        eprintln!("skipped: the full collection of captures is not beside this checkout; fixtures only");
    }
    roots
}

fn capture(name: String, folder: &Path) -> Result<Capture> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        if let Some(number) = file.strip_suffix(".headers.json") {
            numbers.push(number.to_owned());
        }
    }
    numbers.sort();
    let turns = numbers.iter().map(|number| turn(folder, number)).collect::<Result<_>>()?;
    Ok(Capture { name, turns })
}

fn turn(folder: &Path, number: &str) -> Result<Turn> {
    let read = |ending: &str| stored(&folder.join(format!("{number}.{ending}")));
    let meta = read("headers.json")?.ok_or("a turn without headers.json")?;
    let Meta { method, path, headers } =
        serde_json::from_slice(&meta).map_err(|e| format!("{}/{number}: {e}", folder.display()))?;
    let reply = match (read("response.json")?, read("response.sse")?) {
        (Some(body), _) => Some(Reply::Json(body)),
        (None, Some(stream)) => Some(Reply::Sse(events(&String::from_utf8(stream)?))),
        (None, None) => None,
    };
    let body = read("request.json")?.unwrap_or_default();
    Ok(Turn { n: number.parse()?, method, path, headers, body, reply })
}

/// What `headers.json` tells; its other members describe the recorder's connection.
#[derive(Deserialize)]
struct Meta {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
}

/// The bytes of a file, unpacked when only its `.gz` is there; `None` when neither is.
fn stored(path: &Path) -> Result<Option<Vec<u8>>> {
    let named = |e: std::io::Error| format!("{}: {e}", path.display());
    if path.exists() {
        return Ok(Some(fs::read(path).map_err(named)?));
    }
    let packed = path.with_added_extension("gz");
    if !packed.exists() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    GzDecoder::new(File::open(packed)?).read_to_end(&mut bytes).map_err(named)?;
    Ok(Some(bytes))
}

fn events(stream: &str) -> Vec<Event> {
    let mut events = Vec::new();
    let mut open: Option<Event> = None;
    for line in stream.lines().chain([""]) {
        if line.is_empty() {
            events.extend(open.take());
        } else if let Some(name) = line.strip_prefix("event:") {
            name.trim_start().clone_into(&mut open.get_or_insert_default().name);
        } else if let Some(data) = line.strip_prefix("data:") {
            let event = open.get_or_insert_default();
            if !event.data.is_empty() {
                event.data.push('\n');
            }
            event.data.push_str(data.strip_prefix(' ').unwrap_or(data));
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capture_loads() -> Result<()> {
        let captures = captures()?;
        assert!(captures.len() >= 5, "only {} captures found", captures.len());
        for capture in &captures {
            assert!(!capture.turns.is_empty(), "{} has no turns", capture.name);
            for turn in &capture.turns {
                let place = format!("{} turn {}", capture.name, turn.n);
                let length =
                    turn.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
                let told = length.map_or(Ok(0), |(_, value)| value.parse())?;
                assert_eq!(turn.body.len(), told, "{place}: the body is not as long as the client said");
                match turn.reply.as_ref() {
                    Some(Reply::Json(body)) => assert!(body.starts_with(b"{"), "{place}: no JSON reply"),
                    Some(Reply::Sse(events)) => assert!(events.len() > 2, "{place}: no stream"),
                    None => panic!("{place}: no reply"),
                }
            }
        }
        Ok(())
    }

    #[test]
    fn stream_events_keep_names_and_join_data_lines() {
        let told = events("event: a\ndata: {\"x\":\ndata: 1}\n\n: comment\n\ndata:[DONE]\n");
        let event = |name: &str, data: &str| Event { name: name.to_owned(), data: data.to_owned() };
        assert_eq!(told, [event("a", "{\"x\":\n1}"), event("", "[DONE]")]);
    }
}
