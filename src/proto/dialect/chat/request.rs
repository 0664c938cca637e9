//! A Chat Completions request as the Responses request it means (protocol §5.1).
//!
//! Strings, schemas and arguments travel as spans of the client's bytes. The translation of a longer history begins with
//! the translation of the shorter one, byte for byte, so that the next turn is found by its bytes. Chat's own defaults are
//! spelled out where Responses has others: `store` and `strict` are false.

use std::borrow::Cow;

use crate::proto::dialect::chat::message::Items;
use crate::proto::dialect::chat::tool;
use crate::proto::transcript::plan::Reason;
use crate::proto::wire::json::{self, JsonError};
use crate::proto::wire::object::{Fields, Object, array};

/// The Responses request, and what of the chat request concerns the reply only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Translated {
    /// A body for `POST /v1/responses`.
    pub body: String,
    /// The model asked for.
    pub model: String,
    /// How the reply is to be written.
    pub framing: Framing,
}

/// What the client wants to see of the reply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Framing {
    /// `stream_options.include_usage`: one more chunk with the usage.
    pub include_usage: bool,
    /// `logprobs`.
    pub logprobs: bool,
}

/// `max_output_tokens` below this is an error on Responses, a short answer on Chat (OpenAI SDK types, 2026-08).
const FEWEST_TOKENS: u64 = 16;

/// A chat request, read as far as its messages.
#[derive(Debug)]
pub struct Chat<'a> {
    fields: Fields<'a>,
    model: String,
    messages: Vec<&'a str>,
    /// Bytes of all that is not a message.
    rest: usize,
}

impl<'a> Chat<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// The body is not a chat request: the provider's own Chat API is to answer.
    pub fn read(text: &'a str) -> Result<Self, Reason> {
        let fields = Fields::read(text).map_err(|error| match error {
            JsonError::DuplicateKey => Reason::DuplicateKey,
            _ => Reason::NotUnderstood,
        })?;
        let model = fields.string("model").ok_or(Reason::NotUnderstood)?.into_owned();
        let list = fields.value("messages").ok_or(Reason::NotUnderstood)?;
        let spans = json::elements(list).map_err(|_| Reason::NotUnderstood)?;
        let messages = spans.into_iter().map(|span| &list[span]).collect();
        Ok(Self { fields, model, messages, rest: text.len() - list.len() })
    }

    /// The model asked for.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The messages that all requests of a conversation begin with: instructions, and what was asked first.
    pub fn opening(&self) -> &[&'a str] {
        let asked = |message: &&str| {
            let role = Fields::read(message).ok().and_then(|message| message.string("role"));
            !matches!(role.as_deref(), Some("system" | "developer"))
        };
        let first = self.messages.iter().position(asked).map_or(self.messages.len(), |at| at + 1);
        &self.messages[..first]
    }

    /// The Responses request that it means.
    ///
    /// # Errors
    /// The field that has no counterpart: the provider's own Chat API is to answer.
    pub fn translate(self) -> Result<Translated, Reason> {
        if self.messages.is_empty() {
            return Err(Reason::Field("messages"));
        }
        let mut items = Items::default();
        for message in &self.messages {
            items.push(message)?;
        }
        let mut settings = Settings::default();
        for (name, value) in self.fields.iter() {
            settings.take(name, value)?;
        }
        let framing = settings.framing(&self.model)?;
        let items = items.finish();
        let mut body = Object::with_capacity(items.len() + self.rest + MOST_ADDED);
        body.raw("model", self.fields.value("model").unwrap_or("null"))
            .pieces("input", &["[", &items, "]"])
            .raw("store", "false");
        settings.write(&mut body);
        Ok(Translated { body: body.finish(), model: self.model, framing })
    }
}

/// Translates a body.
///
/// # Errors
/// See [`Chat::read`] and [`Chat::translate`].
pub fn translate(text: &str) -> Result<Translated, Reason> {
    Chat::read(text)?.translate()
}

/// Bytes that a translation adds to all but the messages, a few tools aside.
const MOST_ADDED: usize = 1 << 10;

/// Everything but the messages, as far as it was read.
#[derive(Debug, Default)]
struct Settings<'a> {
    /// Members that mean the same on both sides.
    same: Vec<(&'a str, &'a str)>,
    limits: Vec<&'a str>,
    effort: Option<&'a str>,
    verbosity: Option<&'a str>,
    format: Option<Cow<'a, str>>,
    tools: Vec<String>,
    choice: Option<Cow<'a, str>>,
    logprobs: bool,
    top_logprobs: Option<&'a str>,
    stream: bool,
    /// `stream_options` were given; Chat refuses them without `stream`.
    streamed: bool,
    include_usage: bool,
    obfuscation: Option<&'a str>,
}

impl<'a> Settings<'a> {
    fn take(&mut self, name: &'a str, value: &'a str) -> Result<(), Reason> {
        match name {
            "model" | "messages" => {}
            "stream" => {
                self.stream = flag("stream", value)?;
                self.same.push((name, value));
            }
            "temperature"
            | "top_p"
            | "parallel_tool_calls"
            | "metadata"
            | "user"
            | "safety_identifier"
            | "prompt_cache_key"
            | "prompt_cache_options"
            | "prompt_cache_retention"
            | "service_tier"
            | "moderation" => self.same.push((name, value)),
            "max_tokens" | "max_completion_tokens" => self.limits.push(limit(name, value)?),
            "reasoning_effort" => self.effort = Some(value),
            "verbosity" => self.verbosity = Some(value),
            "response_format" => self.format = Some(format(value)?),
            "tools" => self.tools = tool::tools(value)?,
            "tool_choice" => self.choice = Some(tool::choice(value)?),
            "logprobs" => self.logprobs = flag("logprobs", value)?,
            "top_logprobs" => self.top_logprobs = Some(value),
            "stream_options" => self.stream_options(value)?,
            _ => neutral(name, value)?,
        }
        Ok(())
    }

    fn stream_options(&mut self, value: &'a str) -> Result<(), Reason> {
        const NAME: Reason = Reason::Field("stream_options");
        self.streamed = true;
        for (name, value) in Fields::read(value).map_err(|_| NAME)?.iter() {
            match name {
                "include_usage" => self.include_usage = flag("stream_options", value)?,
                "include_obfuscation" => self.obfuscation = Some(value),
                _ => return Err(NAME),
            }
        }
        Ok(())
    }

    fn framing(&self, model: &str) -> Result<Framing, Reason> {
        if self.limits.len() > 1 {
            return Err(Reason::Field("max_tokens"));
        }
        if self.streamed && !self.stream {
            return Err(Reason::Field("stream_options"));
        }
        if self.logprobs && reasons(model) {
            return Err(Reason::Field("logprobs"));
        }
        if self.top_logprobs.is_some() && !self.logprobs {
            return Err(Reason::Field("top_logprobs"));
        }
        Ok(Framing { include_usage: self.include_usage, logprobs: self.logprobs })
    }

    fn write(&self, body: &mut Object) {
        for (name, value) in &self.same {
            body.raw(name, value);
        }
        body.raw_if("max_output_tokens", self.limits.first().copied());
        if let Some(effort) = self.effort {
            body.raw("reasoning", &Object::default().raw("effort", effort).finish());
        }
        let mut text = Object::default();
        text.raw_if("format", self.format.as_deref()).raw_if("verbosity", self.verbosity);
        if !text.is_empty() {
            body.raw("text", &text.finish());
        }
        if !self.tools.is_empty() {
            body.raw("tools", &array(&self.tools));
        }
        body.raw_if("tool_choice", self.choice.as_deref());
        if self.logprobs {
            body.raw("include", r#"["message.output_text.logprobs"]"#);
        }
        body.raw_if("top_logprobs", self.top_logprobs);
        if let Some(obfuscation) = self.obfuscation {
            let options = Object::default().raw("include_obfuscation", obfuscation).finish();
            body.raw("stream_options", &options);
        }
    }
}

/// Fields without a counterpart: as good as absent at their neutral value, else the provider's own Chat API answers.
fn neutral(name: &str, value: &str) -> Result<(), Reason> {
    let (name, neutral): (&'static str, &[&str]) = match name {
        "n" => ("n", &["1"]),
        "store" => ("store", &["false"]),
        "stop" => ("stop", &["[]"]),
        "seed" => ("seed", &[]),
        "frequency_penalty" => ("frequency_penalty", &["0", "0.0"]),
        "presence_penalty" => ("presence_penalty", &["0", "0.0"]),
        "logit_bias" => ("logit_bias", &["{}"]),
        "prediction" => ("prediction", &[]),
        "modalities" => ("modalities", &[r#"["text"]"#]),
        "audio" => ("audio", &[]),
        "functions" => ("functions", &[]),
        "function_call" => ("function_call", &[]),
        "web_search_options" => ("web_search_options", &[]),
        _ => ("other", &[]),
    };
    if neutral.contains(&value) { Ok(()) } else { Err(Reason::Field(name)) }
}

fn flag(name: &'static str, value: &str) -> Result<bool, Reason> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Reason::Field(name)),
    }
}

fn limit<'a>(name: &str, value: &'a str) -> Result<&'a str, Reason> {
    let name = if name == "max_tokens" { "max_tokens" } else { "max_completion_tokens" };
    let enough = value.parse::<u64>().is_ok_and(|tokens| tokens >= FEWEST_TOKENS);
    if enough { Ok(value) } else { Err(Reason::Field(name)) }
}

/// `response_format` as `text.format`: a schema's members stand beside `type`.
fn format(value: &str) -> Result<Cow<'_, str>, Reason> {
    const NAME: Reason = Reason::Field("response_format");
    let fields = Fields::read(value).map_err(|_| NAME)?;
    match fields.string("type").as_deref() {
        Some("text" | "json_object") if fields.iter().count() == 1 => Ok(value.into()),
        Some("json_schema") => {
            let schema = fields.value("json_schema").ok_or(NAME)?;
            let schema = Fields::read(schema).map_err(|_| NAME)?;
            let mut format = Object::default();
            format.text("type", "json_schema");
            for (name, value) in schema.iter() {
                match name {
                    "name" | "description" | "schema" | "strict" => format.raw(name, value),
                    _ => return Err(NAME),
                };
            }
            if schema.value("strict").is_none() {
                format.raw("strict", "false");
            }
            Ok(format.finish().into())
        }
        _ => Err(NAME),
    }
}

/// Whether a model may be one that reasons: Responses refuses its logprobs. All but the families known not to.
fn reasons(model: &str) -> bool {
    !["gpt-3.5", "gpt-4", "chatgpt-4o"].iter().any(|family| model.starts_with(family))
}

#[cfg(test)]
mod tests;
