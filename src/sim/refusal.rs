//! What the provider says no with: one error, in the shapes of both transports.
//!
//! Holds the wording only; when to refuse is decided where the rule is.

use serde_json::{Value, json};

/// An error of the provider, before it takes the form of a frame or of an HTTP reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status, also the frame's `status`.
    pub status: u16,
    /// `error.type`.
    pub kind: &'static str,
    /// `error.code`, where the provider gives one.
    pub code: Option<&'static str>,
    /// `error.message`.
    pub message: String,
    /// `error.param`, the field at fault.
    pub param: Option<&'static str>,
    /// Whether an error frame may carry the lane's name; an invalid name is not repeated (protocol 1.8).
    pub attributable: bool,
}

impl Refusal {
    /// A 400 of type `invalid_request_error`.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self {
            status: 400,
            kind: "invalid_request_error",
            code: None,
            message: message.into(),
            param: None,
            attributable: true,
        }
    }

    /// The same with a code and the field at fault.
    pub(super) fn named(code: &'static str, param: &'static str, message: impl Into<String>) -> Self {
        Self { code: Some(code), param: Some(param), ..Self::invalid(message) }
    }

    /// The `previous_response_id` names nothing that this request may continue.
    pub(super) fn previous_not_found(id: &str) -> Self {
        Self::named(
            "previous_response_not_found",
            "previous_response_id",
            format!("Previous response with id '{id}' not found."),
        )
    }

    /// An `item_reference` names nothing stored for this credential.
    pub(super) fn item_not_found(id: &str) -> Self {
        let message =
            format!("Item with id '{id}' not found. Items are not persisted when `store` is set to false.");
        Self { status: 404, param: Some("input"), ..Self::invalid(message) }
    }

    /// A call in the context has no output.
    pub(super) fn no_output_for_call(id: &str) -> Self {
        Self {
            param: Some("input"),
            ..Self::invalid(format!("No tool output found for function call {id}."))
        }
    }

    /// An output in the context has no call.
    pub(super) fn no_call_for_output(id: &str) -> Self {
        let message = format!("No tool call found for function call output with call_id {id}.");
        Self { param: Some("input"), ..Self::invalid(message) }
    }

    /// The same call, output or reasoning is in the context twice.
    pub(super) fn duplicate(id: &str) -> Self {
        let message = format!(
            "Duplicate item found with id {id}. Remove duplicate items from your input and try again."
        );
        Self::named("duplicate_item", "input", message)
    }

    /// Whether this is [`Self::duplicate`]: the mark of a suffix that overlaps its chain.
    pub(super) fn is_duplicate(&self) -> bool {
        self.code == Some("duplicate_item")
    }

    /// A field that does not belong on this transport.
    pub(super) fn unknown_parameter(name: &'static str) -> Self {
        Self::named("unknown_parameter", name, format!("Unknown parameter: '{name}'."))
    }

    /// The model is served on Chat Completions only. The sentence is one seen of OpenAI's API (2025-05); `param` and `code`
    /// beside it are assumed.
    pub(super) fn not_on_responses(model: &str) -> Self {
        let message = format!("The requested model '{model}' is not supported with the Responses API.");
        Self::named("unsupported_model", "model", message)
    }

    /// A number is too small.
    pub(super) fn below_minimum(name: &'static str, least: u64, given: impl std::fmt::Display) -> Self {
        let message = format!(
            "Invalid '{name}': integer below minimum value. Expected a value >= {least}, but got {given} instead."
        );
        Self::named("integer_below_min_value", name, message)
    }

    /// The error object of an HTTP reply: `{"error": {…}}`.
    pub(super) fn body(&self) -> Value {
        json!({ "error": {
            "message": self.message, "type": self.kind, "param": self.param, "code": self.code,
        } })
    }

    /// The error frame, with the lane's name where it can be attributed to one.
    pub(super) fn frame(&self, stream_id: Option<&str>) -> Value {
        let mut frame = json!({ "type": "error", "status": self.status, "error": self.body()["error"] });
        if let Some(name) = stream_id.filter(|_| self.attributable) {
            frame["stream_id"] = name.into();
        }
        frame
    }
}
