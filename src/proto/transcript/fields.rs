//! The table of top-level request fields: what each means to a turn on the socket (decisions 2.7 and 2.8).
//!
//! A field that is not in the table travels like any other, but a change of it breaks the chain: we cannot know what
//! it does.

/// What a top-level field is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The history itself.
    Input,
    /// Part of the scope: chains do not cross its values.
    Scope,
    /// Sent again each turn, may change freely: with `previous_response_id` only items carry over
    /// (protocol §1.4, official samples and SDKs, 2026-11).
    Free,
    /// Never sent: how the answer is framed is decided here (`stream` "should not be sent", OpenAI spec, 2026-08).
    Framing,
    /// Left out when false or null; anything else goes over HTTP, which alone serves it.
    HttpOnly,
    /// The client's own chaining.
    Anchor,
    /// A socket's envelope: a client that sends it means something we do not know.
    Envelope,
    /// Not in the table.
    Unknown,
}

/// Which of them a name is.
pub fn field(name: &str) -> Field {
    match name {
        "input" => Field::Input,
        "model" | "user" | "safety_identifier" | "store" => Field::Scope,
        "stream" => Field::Framing,
        "background" | "conversation" | "prompt" => Field::HttpOnly,
        "previous_response_id" => Field::Anchor,
        "type" | "stream_id" | "generate" => Field::Envelope,
        "access_programs"
        | "background_options"
        | "client_metadata"
        | "context_management"
        | "image"
        | "include"
        | "instructions"
        | "max_output_tokens"
        | "max_tool_calls"
        | "metadata"
        | "moderation"
        | "parallel_tool_calls"
        | "prompt_cache_key"
        | "prompt_cache_options"
        | "prompt_cache_retention"
        | "reasoning"
        | "service_tier"
        | "stream_options"
        | "temperature"
        | "text"
        | "tool_choice"
        | "tools"
        | "top_logprobs"
        | "top_p"
        | "truncation" => Field::Free,
        _ => Field::Unknown,
    }
}

/// The name of an HTTP-only or envelope field as a constant, for the reason shown.
pub fn constant(name: &str) -> &'static str {
    const NAMES: [&str; 6] = ["background", "conversation", "prompt", "type", "stream_id", "generate"];
    NAMES.into_iter().find(|known| *known == name).unwrap_or("other")
}

/// Hosted tools that act on the world: a turn that has one is never run twice (decisions 4).
pub fn acts(tool_type: &str) -> bool {
    ["mcp", "shell", "code_interpreter", "computer"].iter().any(|acting| tool_type.starts_with(acting))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        for (name, expected) in [
            ("input", Field::Input),
            ("store", Field::Scope),
            ("instructions", Field::Free),
            ("stream", Field::Framing),
            ("prompt", Field::HttpOnly),
            ("generate", Field::Envelope),
            ("x_new_switch", Field::Unknown),
            ("Input", Field::Unknown),
        ] {
            assert_eq!(field(name), expected, "{name}");
        }
        assert!(acts("mcp") && acts("computer_use_preview") && acts("shell") && !acts("function"));
    }
}
