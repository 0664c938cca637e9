//! What a chat reply has in common whether it comes whole or in chunks: its head, its usage, why it ended (protocol §5.2).

use crate::proto::wire::json;
use crate::proto::wire::object::{Fields, Object, array, quoted};

/// The members that every chunk and the whole reply repeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Head {
    id: String,
    /// JSON.
    created: String,
    model: String,
    tier: Option<String>,
}

impl Head {
    /// The head of the reply that a response object stands for.
    pub(super) fn of(response: &str) -> Self {
        let Ok(fields) = Fields::read(response) else { return Self::default() };
        let id = fields.string("id").unwrap_or_default();
        let whole = |time: &str| time.split('.').next().unwrap_or("0").to_owned();
        Self {
            id: format!("chatcmpl-{}", id.strip_prefix("resp_").unwrap_or(&id)),
            created: fields.value("created_at").map_or_else(|| "0".to_owned(), whole),
            model: fields.value("model").unwrap_or(r#""""#).to_owned(),
            tier: fields.value("service_tier").map(str::to_owned),
        }
    }

    /// The head of a reply whose response has not named itself.
    pub(super) fn standing_in(id: &str, model: &str) -> Self {
        Self { id: id.to_owned(), created: "0".to_owned(), model: quoted(model), tier: None }
    }

    /// Writes the members that come before `choices`.
    pub(super) fn begin(&self, kind: &str) -> Object {
        let mut object = Object::default();
        object
            .text("id", &self.id)
            .text("object", kind)
            .raw("created", &self.created)
            .raw("model", &self.model);
        object
    }

    /// Writes the members that come after them.
    pub(super) fn end(&self, object: &mut Object) -> String {
        object.raw_if("service_tier", self.tier.as_deref()).raw("system_fingerprint", "null").finish()
    }
}

/// `finish_reason`, as JSON: `tool_calls` if the answer has calls, else what the response's status says.
pub(super) fn finish_reason(response: &str, calls: bool) -> &'static str {
    let fields = Fields::read(response).ok();
    let incomplete = fields
        .as_ref()
        .filter(|fields| fields.string("status").as_deref() == Some("incomplete"))
        .and_then(|fields| Fields::read(fields.value("incomplete_details").unwrap_or("{}")).ok());
    match incomplete.map(|details| details.string("reason").unwrap_or_default().into_owned()).as_deref() {
        Some("content_filter") => r#""content_filter""#,
        Some(_) => r#""length""#,
        None if calls => r#""tool_calls""#,
        None => r#""stop""#,
    }
}

/// The usage in Chat's words; `None` if the response has none.
pub(super) fn usage(response: &str) -> Option<String> {
    let response = Fields::read(response).ok()?;
    let usage = Fields::read(response.value("usage")?).ok()?;
    let number = |key: &str| usage.value(key).unwrap_or("0");
    let detail =
        |group: &str, key: &str| Fields::read(usage.value(group)?).ok()?.value(key).map(str::to_owned);
    let zero = || "0".to_owned();
    let cached = detail("input_tokens_details", "cached_tokens").unwrap_or_else(zero);
    let written = detail("input_tokens_details", "cache_write_tokens");
    let reasoning = detail("output_tokens_details", "reasoning_tokens").unwrap_or_else(zero);
    let mut prompt = Object::default();
    prompt
        .raw("cached_tokens", &cached)
        .raw("audio_tokens", "0")
        .raw_if("cache_write_tokens", written.as_deref());
    let mut completion = Object::default();
    completion
        .raw("reasoning_tokens", &reasoning)
        .raw("audio_tokens", "0")
        .raw("accepted_prediction_tokens", "0")
        .raw("rejected_prediction_tokens", "0");
    let mut object = Object::default();
    object
        .raw("prompt_tokens", number("input_tokens"))
        .raw("completion_tokens", number("output_tokens"))
        .raw("total_tokens", number("total_tokens"))
        .raw("prompt_tokens_details", &prompt.finish())
        .raw("completion_tokens_details", &completion.finish());
    Some(object.finish())
}

/// A call as Chat shows it: its kind, `function` or `custom`, and the member of the item that says what it is called with.
pub(super) fn call_kind(item: &Fields<'_>) -> Option<(&'static str, &'static str)> {
    match item.string("type").as_deref() {
        Some("function_call") => Some(("function", "arguments")),
        Some("custom_tool_call") => Some(("custom", "input")),
        _ => None,
    }
}

/// What a message has been said to hold: a JSON array of parts; `None` if the item is no message.
pub(super) fn message_content<'a>(item: &Fields<'a>) -> Option<&'a str> {
    let content = item.value("content").unwrap_or("[]");
    (item.string("type").as_deref() == Some("message")).then_some(content)
}

/// A citation in Chat's form, its place counted from the start of the whole text; `None` for kinds Chat does not have.
pub(super) fn annotation(annotation: &str, shift: u64) -> Option<String> {
    let fields = Fields::read(annotation).ok()?;
    if fields.string("type").as_deref() != Some("url_citation") {
        return None;
    }
    let mut citation = Object::default();
    for (name, value) in fields.iter() {
        match name {
            "type" => {}
            "start_index" | "end_index" => {
                let at = value.parse::<u64>().ok()?.saturating_add(shift);
                citation.raw(name, &at.to_string());
            }
            _ => {
                citation.raw(name, value);
            }
        }
    }
    Some(Object::default().text("type", "url_citation").raw("url_citation", &citation.finish()).finish())
}

/// Token probabilities in Chat's form: each token with its bytes, which the stream leaves out.
pub(super) fn logprobs(list: &str) -> Option<String> {
    let tokens = json::elements(list).ok()?;
    if tokens.is_empty() {
        return None;
    }
    let tokens: Option<Vec<String>> = tokens.into_iter().map(|span| token(&list[span], true)).collect();
    Some(array(&tokens?))
}

fn token(token: &str, with_top: bool) -> Option<String> {
    let fields = Fields::read(token).ok()?;
    let text = fields.value("token").filter(|text| text.starts_with('"'))?;
    // Half a character has none.
    let spelled = || {
        let text = json::string(text)?;
        Some(array(&text.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>()))
    };
    let bytes = fields.value("bytes").map(str::to_owned).or_else(spelled);
    let mut object = Object::default();
    object
        .raw("token", text)
        .raw("bytes", bytes.as_deref().unwrap_or("null"))
        .raw("logprob", fields.value("logprob").unwrap_or("0"));
    if with_top {
        let top = fields.value("top_logprobs").unwrap_or("[]");
        let list = json::elements(top).ok()?;
        let list: Option<Vec<String>> = list.into_iter().map(|span| self::token(&top[span], false)).collect();
        object.raw("top_logprobs", &array(&list?));
    }
    Some(object.finish())
}
