//! The socket's events as REST would have sent them: our lane names out, the client's `previous_response_id` back in,
//! numbers from 0, set-up events that a sparse socket left out supplied (protocol §1.16), `output` rebuilt if empty.
//!
//! Everything else passes as it came, known or not. Writes SSE or one JSON body; decides nothing about tries.

use std::borrow::Cow;

use crate::proto::dialect::setup::{Setup, Supplied};
use crate::proto::fault::Fault;
use crate::proto::wire::error::ProviderError;
use crate::proto::wire::event::{Event, EventKind};
use crate::proto::wire::json::{self, Member};
use crate::proto::wire::object::{Object, array, quoted};
use crate::proto::wire::sse;

/// Finished items of one response that are kept, in bytes, as many as a message may have by default. Past it an output
/// that the terminal event leaves out stays out of a stream, whose client has heard all of it; a JSON body cannot be made.
const MAX_DONE_BYTES: usize = 64 << 20;

/// Turns the events of one response into what its client reads.
#[derive(Debug)]
pub struct Restorer {
    /// The client's own `previous_response_id`, as JSON.
    previous: String,
    /// Items as they were done, by output index: the output, should the terminal event have none.
    done: Vec<(u64, String)>,
    /// Their bytes; past [`MAX_DONE_BYTES`] none are kept.
    done_bytes: usize,
    setup: Setup,
    /// The next `sequence_number`.
    next: u64,
}

impl Restorer {
    /// For a client that sent this `previous_response_id`.
    pub fn new(previous: Option<&str>) -> Self {
        let previous = previous.map_or_else(|| "null".to_owned(), quoted);
        Self { previous, done: Vec::new(), done_bytes: 0, setup: Setup::default(), next: 0 }
    }

    /// Takes note of an event for a client that reads JSON.
    pub fn hear(&mut self, event: &Event) {
        if event.kind() == EventKind::ItemDone
            && let (Some(index), Some(item)) = (event.number("output_index"), event.value("item"))
        {
            self.done_bytes = self.done_bytes.saturating_add(item.len());
            if self.is_incomplete() {
                self.done.clear();
            } else {
                self.done.push((index, item.to_owned()));
            }
        }
    }

    /// True if more was said than is kept: what the terminal event leaves out cannot be put back.
    pub fn is_incomplete(&self) -> bool {
        self.done_bytes > MAX_DONE_BYTES
    }

    /// Appends an event, and what should have come before it, as SSE.
    pub fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        let output = if event.kind().is_terminal() { self.output(event) } else { None };
        for supplied in self.setup.before(event, output.as_deref()) {
            match supplied {
                Supplied::Event { name, members } => self.write_supplied(name, &members, out),
                Supplied::Held(held) => self.write_one(&held, out),
            }
        }
        if self.setup.holds(event) {
            return;
        }
        self.hear(event);
        self.write_one(event, out);
    }

    /// The JSON body: the response of the terminal event. Of an item that was finished it lacks none, even if the event does:
    /// this client has seen nothing else (F19). `None` if it has no response, or an output that cannot be put back.
    pub fn body(&self, event: &Event) -> Option<String> {
        self.output(event)?;
        Some(self.response(event.value("response")?, self.done.len().max(1)))
    }

    /// The terminal event's `output` as the client will see it.
    pub fn output<'a>(&self, event: &'a Event) -> Option<Cow<'a, str>> {
        let response = event.value("response")?;
        let members = json::members(response).ok()?;
        let said = json::find(&members, "output").map(|member| &response[member.value.clone()]);
        match said {
            Some(output) if json::elements(output).is_ok_and(|items| !items.is_empty()) => {
                Some(output.into())
            }
            _ if self.is_incomplete() => None,
            _ => Some(self.rebuilt().into()),
        }
    }

    /// Appends the flat `error` event SSE clients know (protocol §2.4), for an error that came in mid-stream.
    pub fn write_error(&mut self, error: &ProviderError, out: &mut Vec<u8>) {
        for held in self.setup.flush() {
            self.write_one(&held, out);
        }
        let body = json::members(&error.body).unwrap_or_default();
        let object = json::find(&body, "error").map_or("{}", |member| &error.body[member.value.clone()]);
        let members = json::members(object).unwrap_or_default();
        let raw =
            |key: &str| json::find(&members, key).map_or("null", |member| &object[member.value.clone()]);
        let code = match raw("code") {
            "null" => raw("type"),
            code => code,
        };
        self.write_flat(code, raw("message"), raw("param"), out);
    }

    /// Appends the flat `error` event for a fault of the connection.
    pub fn write_fault(&mut self, fault: &Fault, out: &mut Vec<u8>) {
        let code = quoted(&format!("tailwire_{}", fault.name().replace('-', "_")));
        self.write_flat(&code, &quoted(fault.sentence()), "null", out);
    }

    fn write_flat(&mut self, code: &str, message: &str, param: &str, out: &mut Vec<u8>) {
        let sequence = self.number();
        let data = format!(
            r#"{{"type":"error","code":{code},"message":{message},"param":{param},"sequence_number":{sequence}}}"#
        );
        sse::encode("error", &one_line(&data), out);
    }

    fn write_supplied(&mut self, name: &str, members: &str, out: &mut Vec<u8>) {
        let sequence = self.number();
        let data = format!(r#"{{"type":{},"sequence_number":{sequence},{members}}}"#, quoted(name));
        let members = json::members(&data).unwrap_or_default();
        sse::encode(name, &one_line(&self.restored(&data, &members, sequence, false)), out);
    }

    fn write_one(&mut self, event: &Event, out: &mut Vec<u8>) {
        let sequence = self.number();
        let data = self.restored(event.text(), event.members(), sequence, event.kind().is_terminal());
        sse::encode(event.name(), &one_line(&data), out);
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn restored(&self, text: &str, members: &[Member], sequence: u64, terminal: bool) -> String {
        let mut data = Object::with_capacity(text.len() + 32);
        let mut numbered = false;
        for member in members {
            let value = &text[member.value.clone()];
            match &*member.key {
                "stream_id" => {}
                "sequence_number" => {
                    numbered = true;
                    data.raw("sequence_number", &sequence.to_string());
                }
                "response" => {
                    data.raw("response", &self.response(value, usize::from(terminal)));
                }
                key => {
                    data.raw(key, value);
                }
            }
        }
        if !numbered {
            data.raw("sequence_number", &sequence.to_string());
        }
        data.finish()
    }

    /// A response object with the client's own anchor, its output rebuilt if it has fewer items than `least`; 0 leaves it.
    fn response(&self, response: &str, least: usize) -> String {
        let Ok(members) = json::members(response) else { return response.to_owned() };
        let short =
            |output: &str| output == "null" || json::elements(output).is_ok_and(|items| items.len() < least);
        let mut object = Object::with_capacity(response.len() + 64);
        let mut has_output = false;
        for member in &members {
            let value = &response[member.value.clone()];
            match &*member.key {
                "previous_response_id" => {
                    object.raw("previous_response_id", &self.previous);
                }
                "output" => {
                    has_output = true;
                    if least > 0 && short(value) && !self.done.is_empty() {
                        object.raw("output", &self.rebuilt());
                    } else {
                        object.raw("output", value);
                    }
                }
                key => {
                    object.raw(key, value);
                }
            }
        }
        if least > 0 && !has_output && !self.is_incomplete() {
            object.raw("output", &self.rebuilt());
        }
        object.finish()
    }

    fn rebuilt(&self) -> String {
        let mut done: Vec<&(u64, String)> = self.done.iter().collect();
        done.sort_by_key(|(index, _)| *index);
        array(&done.iter().map(|(_, item)| item).collect::<Vec<_>>())
    }
}

/// JSON without line breaks: a pretty-printed frame would break an SSE relay (protocol §2.2).
fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(['\n', '\r']) {
        return text.into();
    }
    // Inside a JSON string a line break is always escaped, so every raw one is mere space.
    text.replace(['\n', '\r'], "").into()
}

#[cfg(test)]
mod tests;
