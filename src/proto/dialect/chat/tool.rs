//! Chat's tools and tool choices as Responses has them: what Chat nests stands flat (protocol §5.1).

use std::borrow::Cow;

use crate::proto::dialect::chat::only;
use crate::proto::transcript::plan::Reason;
use crate::proto::wire::json;
use crate::proto::wire::object::{Fields, Object, array};

/// The list of tools.
pub(super) fn tools(value: &str) -> Result<Vec<String>, Reason> {
    let spans = json::elements(value).map_err(|_| TOOLS)?;
    spans.into_iter().map(|span| tool(&value[span])).collect()
}

fn tool(value: &str) -> Result<String, Reason> {
    let fields = Fields::read(value).map_err(|_| TOOLS)?;
    let mut flat = Object::default();
    match fields.string("type").as_deref() {
        Some("function") => {
            let function = inner(&fields, "function", TOOLS)?;
            only(&function, &["name", "description", "parameters", "strict"], TOOLS)?;
            flat.text("type", "function")
                .raw("name", function.value("name").ok_or(TOOLS)?)
                .raw_if("description", function.value("description"))
                // Both required on Responses; what Chat takes their absence to mean.
                .raw("parameters", function.value("parameters").unwrap_or("null"))
                .raw("strict", function.value("strict").unwrap_or("false"));
        }
        Some("custom") => {
            let custom = inner(&fields, "custom", TOOLS)?;
            only(&custom, &["name", "description", "format"], TOOLS)?;
            flat.text("type", "custom")
                .raw("name", custom.value("name").ok_or(TOOLS)?)
                .raw_if("description", custom.value("description"));
            if let Some(format) = custom.value("format") {
                flat.raw("format", &grammar(format)?);
            }
        }
        _ => return Err(TOOLS),
    }
    Ok(flat.finish())
}

/// `{type: grammar, grammar: {syntax, definition}}` stands flat; `{type: text}` as it is.
fn grammar(value: &str) -> Result<Cow<'_, str>, Reason> {
    let fields = Fields::read(value).map_err(|_| TOOLS)?;
    match fields.string("type").as_deref() {
        Some("text") => Ok(value.into()),
        Some("grammar") => {
            let grammar = inner(&fields, "grammar", TOOLS)?;
            only(&grammar, &["syntax", "definition"], TOOLS)?;
            let mut flat = Object::default();
            flat.text("type", "grammar")
                .raw("syntax", grammar.value("syntax").ok_or(TOOLS)?)
                .raw("definition", grammar.value("definition").ok_or(TOOLS)?);
            Ok(flat.finish().into())
        }
        _ => Err(TOOLS),
    }
}

/// `tool_choice`: a word, a named tool, or the tools that are allowed.
pub(super) fn choice(value: &str) -> Result<Cow<'_, str>, Reason> {
    if value.starts_with('"') {
        return Ok(value.into());
    }
    let fields = Fields::read(value).map_err(|_| CHOICE)?;
    let mut flat = Object::default();
    match fields.string("type").as_deref() {
        Some("allowed_tools") => {
            let allowed = inner(&fields, "allowed_tools", CHOICE)?;
            only(&allowed, &["mode", "tools"], CHOICE)?;
            let tools = allowed.value("tools").ok_or(CHOICE)?;
            let spans = json::elements(tools).map_err(|_| CHOICE)?;
            let tools: Vec<String> =
                spans.into_iter().map(|span| named(&tools[span])).collect::<Result<_, _>>()?;
            flat.text("type", "allowed_tools")
                .raw("mode", allowed.value("mode").ok_or(CHOICE)?)
                .raw("tools", &array(&tools));
            Ok(flat.finish().into())
        }
        Some(_) => named(value).map(Cow::Owned),
        None => Err(CHOICE),
    }
}

/// A tool by its name.
fn named(value: &str) -> Result<String, Reason> {
    let fields = Fields::read(value).map_err(|_| CHOICE)?;
    let kind = match fields.string("type").as_deref() {
        Some("function") => "function",
        Some("custom") => "custom",
        _ => return Err(CHOICE),
    };
    let tool = inner(&fields, kind, CHOICE)?;
    only(&tool, &["name"], CHOICE)?;
    Ok(Object::default().text("type", kind).raw("name", tool.value("name").ok_or(CHOICE)?).finish())
}

/// The one member beside `type`, which is named as the type is.
fn inner<'a>(fields: &Fields<'a>, name: &str, reason: Reason) -> Result<Fields<'a>, Reason> {
    only(fields, &["type", name], reason.clone())?;
    Fields::read(fields.value(name).ok_or_else(|| reason.clone())?).map_err(|_| reason)
}

const TOOLS: Reason = Reason::Field("tools");
const CHOICE: Reason = Reason::Field("tool_choice");
