//! What the scripted agent works with: its instructions, its tools, its task, and what its tools answer.
//!
//! Depends on sizes alone: two runs with the same sizes send the same bytes, so that they can be compared.

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::text::Writer;
use crate::args::{DemoApi, DemoArgs};

/// The parts of an agent's requests.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    /// Resent with every call.
    pub(super) instructions: String,
    /// Resent with every call: a JSON array of function tools.
    pub(super) tools: Box<RawValue>,
    /// The same tools as Chat writes them.
    pub(super) chat_tools: Box<RawValue>,
    /// The user's words.
    pub(super) ask: String,
    /// The user's message, as an input item.
    pub(super) task: Box<RawValue>,
    /// Rounds of tool calls; one more turn ends the run.
    pub(super) calls: u32,
    sizes: (usize, usize),
}

impl Workload {
    /// The workload of these arguments. Turned-round bounds of the result's size are put right.
    pub(super) fn new(arguments: &DemoArgs) -> serde_json::Result<Self> {
        let calls = arguments.calls;
        let ask = format!(
            "The nightly build fails in two crates. Find out why, fix it, and prove the fix with a test. \
             [sim calls={calls} reasoning=1 args=220 text=600]"
        );
        let task = json!({ "role": "user", "content": [{ "type": "input_text", "text": ask }] });
        let tools = tools(arguments.tools);
        Ok(Self {
            instructions: Writer::new(1).instructions(arguments.instructions),
            chat_tools: to_raw_value(&nested(&tools))?,
            tools: to_raw_value(&tools)?,
            ask,
            task: to_raw_value(&task)?,
            calls,
            sizes: (
                arguments.result_min.min(arguments.result_max),
                arguments.result_max.max(arguments.result_min),
            ),
        })
    }

    /// What the tool answers to the call of a turn.
    pub(super) fn result(&self, turn: usize) -> String {
        let mut writer = Writer::new(1000 + turn as u64);
        let (least, most) = self.sizes;
        let size = least as u64 + writer.below((most - least) as u64 + 1);
        writer.result(usize::try_from(size).unwrap_or(least))
    }

    /// Bytes that every call repeats because nothing upstream keeps them, as JSON: tools, and instructions where they are no
    /// message.
    pub(super) fn floor(&self, api: DemoApi) -> usize {
        let instructions = match api {
            DemoApi::Responses => json!(self.instructions).to_string().len(),
            DemoApi::Chat => 0,
        };
        instructions + self.tools.get().len()
    }
}

/// Tools as Chat writes them: all but the type one level down.
fn nested(tools: &Value) -> Value {
    let nest = |tool: &Value| {
        let mut function = tool.clone();
        if let Some(members) = function.as_object_mut() {
            members.remove("type");
        }
        json!({ "type": "function", "function": function })
    };
    tools.as_array().map_or(&[][..], Vec::as_slice).iter().map(nest).collect()
}

/// Function tools, `size` bytes of JSON: as many as fit, the last one described at the length that is missing.
fn tools(size: usize) -> Value {
    let mut writer = Writer::new(2);
    let mut tools = Vec::new();
    loop {
        tools.push(tool(&mut writer, tools.len()));
        let length = Value::from(tools.clone()).to_string().len();
        if length >= size {
            break;
        }
    }
    if tools.len() > 1 {
        tools.pop();
    }
    let missing = size.saturating_sub(Value::from(tools.clone()).to_string().len());
    let mut more = String::new();
    while more.len() < missing {
        more.push(' ');
        more.push_str(&writer.sentence());
    }
    more.truncate(missing);
    if let Some(Value::String(description)) = tools.last_mut().map(|tool| &mut tool["description"]) {
        description.push_str(&more);
    }
    tools.into()
}

/// The tools every coding agent has, then others like them.
fn tool(writer: &mut Writer, number: usize) -> Value {
    let name = KNOWN.get(number).map_or_else(|| writer.name(), |name| (*name).to_owned());
    let described =
        |writer: &mut Writer, kind: &str| json!({ "type": kind, "description": writer.sentence() });
    let mut properties = json!({
        "path": described(writer, "string"),
        "timeout_ms": { "type": "integer", "minimum": 0, "maximum": 600_000, "description": writer.sentence() },
        "recursive": described(writer, "boolean"),
    });
    for _ in 0..1 + number % 3 {
        let kind = ["string", "integer", "boolean"][number % 3];
        properties[writer.name()] = described(writer, kind);
    }
    properties["edits"] = json!({
        "type": "array", "description": writer.sentence(),
        "items": { "type": "object", "required": ["old", "new"], "additionalProperties": false,
            "properties": { "old": { "type": "string" }, "new": described(writer, "string") } },
    });
    json!({
        "type": "function", "name": name, "strict": false,
        "description": format!("{} {}", writer.sentence(), writer.sentence()),
        "parameters": { "type": "object", "properties": properties, "required": ["path"], "additionalProperties": false },
    })
}

const KNOWN: [&str; 8] = [
    "run_command",
    "read_file",
    "apply_patch",
    "search_files",
    "list_directory",
    "write_file",
    "fetch_url",
    "update_plan",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_as_asked() {
        for size in [4000, 10_240, 30_000] {
            assert_eq!(tools(size).to_string().len(), size);
        }
        assert_eq!(tools(0).as_array().map(Vec::len), Some(1), "the agent needs a tool to call");
    }
}
