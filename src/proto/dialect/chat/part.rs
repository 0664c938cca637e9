//! Parts of a chat message's content as parts of an input item's (protocol §5.1).

use crate::proto::dialect::chat::only;
use crate::proto::transcript::plan::Reason;
use crate::proto::wire::json;
use crate::proto::wire::object::{Fields, Object};

/// A part of a system, developer or tool message: text.
pub(super) fn text(part: &str) -> Result<String, Reason> {
    let fields = read(part)?;
    if fields.string("type").as_deref() != Some("text") {
        return Err(UNKNOWN);
    }
    only(&fields, &["type", "text"], UNKNOWN)?;
    one("input_text", "text", &fields)
}

/// A part of a user's message.
pub(super) fn user(part: &str) -> Result<String, Reason> {
    let fields = read(part)?;
    match fields.string("type").as_deref() {
        Some("text") => text(part),
        Some("image_url") => {
            only(&fields, &["type", "image_url"], UNKNOWN)?;
            let image = Fields::read(fields.value("image_url").ok_or(UNKNOWN)?).map_err(|_| UNKNOWN)?;
            only(&image, &["url", "detail"], UNKNOWN)?;
            let mut item = Object::default();
            item.text("type", "input_image")
                .raw("image_url", image.value("url").ok_or(UNKNOWN)?)
                // Required on Responses; Chat's default.
                .raw("detail", image.value("detail").unwrap_or(r#""auto""#));
            Ok(item.finish())
        }
        Some("file") => {
            only(&fields, &["type", "file"], UNKNOWN)?;
            let file = Fields::read(fields.value("file").ok_or(UNKNOWN)?).map_err(|_| UNKNOWN)?;
            only(&file, &["file_id", "file_data", "filename"], UNKNOWN)?;
            let mut item = Object::default();
            item.text("type", "input_file");
            for (name, value) in file.iter() {
                item.raw(name, value);
            }
            Ok(item.finish())
        }
        _ => Err(UNKNOWN),
    }
}

/// A part of an assistant's message: text or a refusal, with what SDKs add to them.
pub(super) fn assistant(part: &str) -> Result<String, Reason> {
    let fields = read(part)?;
    only(&fields, &["type", "text", "refusal", "role", "annotations", "tool_calls"], UNKNOWN)?;
    match fields.string("type").as_deref() {
        Some("text") => one("output_text", "text", &fields),
        Some("refusal") => one("refusal", "refusal", &fields),
        _ => Err(UNKNOWN),
    }
}

const UNKNOWN: Reason = Reason::Field("content");

fn read(part: &str) -> Result<Fields<'_>, Reason> {
    Fields::read(part).map_err(|error| match error {
        json::JsonError::DuplicateKey => Reason::Undigestable,
        _ => UNKNOWN,
    })
}

fn one(kind: &str, member: &str, fields: &Fields<'_>) -> Result<String, Reason> {
    let value = fields.value(member).ok_or(UNKNOWN)?;
    Ok(Object::default().text("type", kind).raw(member, value).finish())
}
