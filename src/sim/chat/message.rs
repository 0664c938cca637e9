//! Chat messages as the items of a context, and the order that Chat insists on: every call answered at once.

use serde_json::{Value, json};

use crate::sim::refusal::Refusal;

/// The items of a conversation.
///
/// # Errors
/// The provider's 400 for the first message that is wrong.
pub(super) fn items(messages: &[Value]) -> Result<Vec<Value>, Refusal> {
    if messages.is_empty() {
        let message = "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.";
        return Err(Refusal::named("empty_array", "messages", message));
    }
    let mut reader = Reader::default();
    for (index, message) in messages.iter().enumerate() {
        reader.message(index, message)?;
    }
    reader.all_answered()?;
    Ok(reader.items)
}

#[derive(Default)]
struct Reader {
    items: Vec<Value>,
    /// Ids of the calls that still need an answer.
    open: Vec<Value>,
    /// Ids of freeform calls.
    freeform: Vec<Value>,
}

impl Reader {
    fn message(&mut self, index: usize, message: &Value) -> Result<(), Refusal> {
        let role = message["role"].as_str().unwrap_or_default();
        if role != "tool" {
            self.all_answered()?;
        }
        match role {
            "system" | "developer" => self.said(index, message, &["text"]),
            "user" => self.said(index, message, &["text", "image_url", "input_audio", "file"]),
            "assistant" => self.assistant(index, message),
            "tool" => self.result(index, message),
            // The legacy form of a result: it has no call that it could be matched with.
            "function" => self.said(index, message, &["text"]),
            _ => Err(Refusal::named(
                "invalid_value",
                "messages",
                format!(
                    "Invalid value: '{role}'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and 'developer'."
                ),
            )),
        }
    }

    fn said(&mut self, index: usize, message: &Value, kinds: &[&str]) -> Result<(), Refusal> {
        let content = parts(index, &message["content"], kinds)?;
        let mut item = json!({ "type": "message", "role": message["role"], "content": content });
        if !message["name"].is_null() {
            item["name"] = message["name"].clone();
        }
        self.items.push(item);
        Ok(())
    }

    fn assistant(&mut self, index: usize, message: &Value) -> Result<(), Refusal> {
        let calls = message["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
        let mut said = match &message["content"] {
            Value::String(text) if text.is_empty() && !calls.is_empty() => Vec::new(),
            Value::String(text) => vec![json!({ "type": "output_text", "text": text })],
            Value::Null => Vec::new(),
            content => parts(index, content, &["text", "refusal"])?.as_array().cloned().unwrap_or_default(),
        };
        if let Some(refusal) = message["refusal"].as_str() {
            said.push(json!({ "type": "refusal", "refusal": refusal }));
        }
        if !message["function_call"].is_null() {
            said.push(json!({ "type": "function_call", "function_call": message["function_call"] }));
        }
        if said.is_empty() && calls.is_empty() {
            return Err(no_content());
        }
        if !said.is_empty() {
            self.items.push(json!({ "type": "message", "role": "assistant", "content": said }));
        }
        for call in calls {
            self.call(index, call)?;
        }
        Ok(())
    }

    fn call(&mut self, index: usize, call: &Value) -> Result<(), Refusal> {
        let id = &call["id"];
        let custom = call["type"] == "custom";
        let (kind, said) = if custom { ("custom", "input") } else { ("function", "arguments") };
        let whole = call["type"] == kind
            && [id, &call[kind]["name"], &call[kind][said]].iter().all(|text| text.is_string());
        if !whole {
            return Err(invalid(format!("Invalid value for 'messages[{index}].tool_calls'.")));
        }
        self.open.push(id.clone());
        if custom {
            self.freeform.push(id.clone());
        }
        let item = if custom { "custom_tool_call" } else { "function_call" };
        self.items
            .push(json!({ "type": item, "call_id": id, "name": call[kind]["name"], said: call[kind][said] }));
        Ok(())
    }

    fn result(&mut self, index: usize, message: &Value) -> Result<(), Refusal> {
        let id = &message["tool_call_id"];
        if !id.is_string() {
            let message = format!("Missing required parameter: 'messages[{index}].tool_call_id'.");
            return Err(Refusal::named("missing_required_parameter", "messages", message));
        }
        let Some(at) = self.open.iter().position(|open| open == id) else {
            return Err(invalid(
                "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.",
            ));
        };
        self.open.remove(at);
        let output = parts(index, &message["content"], &["text"])?;
        let kind =
            if self.freeform.contains(id) { "custom_tool_call_output" } else { "function_call_output" };
        self.items.push(json!({ "type": kind, "call_id": id, "output": output }));
        Ok(())
    }

    fn all_answered(&self) -> Result<(), Refusal> {
        if self.open.is_empty() {
            return Ok(());
        }
        let ids: Vec<&str> = self.open.iter().filter_map(Value::as_str).collect();
        Err(invalid(format!(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The following tool_call_ids did not have response messages: {}",
            ids.join(", ")
        )))
    }
}

/// Content: text as it is, parts by the names that the other API has for them.
fn parts(index: usize, content: &Value, kinds: &[&str]) -> Result<Value, Refusal> {
    if content.is_string() {
        return Ok(content.clone());
    }
    let parts = content.as_array().filter(|parts| !parts.is_empty()).ok_or_else(no_content)?;
    let part = |part: &Value| {
        let kind = part["type"].as_str().unwrap_or_default();
        if !kinds.contains(&kind) {
            let message = format!(
                "Invalid value: '{kind}' in 'messages[{index}].content'. Supported values are: {kinds:?}."
            );
            return Err(Refusal::named("invalid_value", "messages", message));
        }
        let spoken = kinds.contains(&"refusal");
        Ok(match kind {
            "text" if spoken => json!({ "type": "output_text", "text": part["text"] }),
            "text" => json!({ "type": "input_text", "text": part["text"] }),
            "image_url" => {
                let detail = part["image_url"]["detail"].as_str().unwrap_or("auto");
                json!({ "type": "input_image", "image_url": part["image_url"]["url"], "detail": detail })
            }
            "file" => {
                let mut file = part["file"].clone();
                file["type"] = "input_file".into();
                file
            }
            _ => part.clone(),
        })
    };
    parts.iter().map(part).collect()
}

fn no_content() -> Refusal {
    invalid("Invalid value for 'content': expected a string, got null.")
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal { param: Some("messages"), ..Refusal::invalid(message) }
}
