//! Which variables SDKs read their base URL from, and what to do for tools that read none: both as data.
//!
//! Says nothing about which clients chain; that is measured elsewhere.

use std::fmt::Write;

/// A variable that some SDK reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Variable {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    /// Who reads it.
    readers: &'static str,
}

/// What its value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A base URL with `/v1`.
    BaseUrl,
    /// Scheme, host and port only.
    Origin,
}

/// The first that is set names the upstream, if the settings name none.
pub(super) const VARIABLES: &[Variable] = &[
    Variable {
        name: "OPENAI_BASE_URL",
        shape: Shape::BaseUrl,
        readers: "the OpenAI SDKs, their agents SDKs, LangChain, LiteLLM, Pydantic AI, the Vercel AI SDK from 5.0",
    },
    Variable {
        name: "OPENAI_API_BASE",
        shape: Shape::BaseUrl,
        readers: "LangChain, LiteLLM, LlamaIndex, aider, openai-python before 1.0",
    },
    Variable { name: "OPENAI_HOST", shape: Shape::Origin, readers: "goose; left as it is if it is set" },
];

/// A tool that reads its base URL elsewhere.
struct Tool {
    name: &'static str,
    /// What to type or write, a line each.
    how: &'static [&'static str],
}

/// `--listen 127.0.0.1:8484` gives files a port that they can name.
const TOOLS: &[Tool] = &[
    Tool {
        name: "Codex: a provider of its own on the command line; or, for good, as [model_providers.tailwire] in",
        how: &[
            "~/.codex/config.toml with the address of `--listen`",
            "tailwire run -- sh -c 'codex -c model_provider=tailwire -c model_providers.tailwire.name=tailwire \\",
            "  -c model_providers.tailwire.base_url=\"$OPENAI_BASE_URL\" -c model_providers.tailwire.wire_api=responses \\",
            "  -c model_providers.tailwire.env_key=OPENAI_API_KEY'",
        ],
    },
    Tool {
        name: "opencode: in opencode.json, which puts in the variable itself",
        how: &[r#"{ "provider": { "openai": { "options": { "baseURL": "{env:OPENAI_BASE_URL}" } } } }"#],
    },
    Tool {
        name: "pi: in ~/.pi/agent/models.json, with `tailwire run --listen 127.0.0.1:8484 -- pi`",
        how: &[r#"{ "providers": { "openai": { "baseUrl": "http://127.0.0.1:8484/v1" } } }"#],
    },
    Tool {
        name: "a program that sets base_url (baseURL, baseUrl) itself",
        how: &["leave that out, or set it to the value of OPENAI_BASE_URL"],
    },
    Tool {
        name: "a program in a container, or started by a daemon or an editor",
        how: &["it is not the command's child, and does not see its variables: use `tailwire serve`"],
    },
];

/// The end of `tailwire run --help`.
#[must_use]
pub fn help() -> String {
    let mut text = String::from("Set for COMMAND, and who reads it:\n");
    for Variable { name, readers, .. } in VARIABLES {
        let _ = writeln!(text, "  {name:15}  {readers}");
    }
    text.push_str(
        "  no_proxy, NO_PROXY  gain 127.0.0.1 and localhost if a proxy for plain HTTP is set\n\
         If nothing else names the upstream, the OPENAI_BASE_URL (or OPENAI_API_BASE) that was there before does.\n\n\
         Tools that do not read them:\n",
    );
    for Tool { name, how } in TOOLS {
        let _ = writeln!(text, "  {name}");
        for line in *how {
            let _ = writeln!(text, "      {line}");
        }
    }
    text.push_str(
        "\nExit code: COMMAND's own; 128 and the signal's number if a signal ended it; 127 if there is no such command, 126 \
         if it\ncannot be started; 64, 69 and 78 as for `serve`, before it was started.\n",
    );
    text
}
