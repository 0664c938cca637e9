//! What the model says: a pure function of the visible context, with a directive in the user's own words.
//!
//! Decides content only; how it is written as items and events is `stream.rs`'s.

use serde_json::{Value, json};

use super::canon::{self, Kind};
use super::compaction::Essence;
use super::context::{Context, Digests};

/// One piece of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    /// Hidden reasoning: its identity (64 hex digits) and its readable summary.
    Reasoning { identity: String, summary: String },
    /// An assistant's message; commentary stands before calls, everything else is the final answer.
    Message { text: String, commentary: bool, cited: bool },
    /// A message that says no.
    Refusal(String),
    /// What the context before it is replaced by.
    Compaction(Essence),
    /// A function call, or a freeform one, whose arguments are plain text.
    Call { call_id: String, name: String, arguments: String, custom: bool },
}

/// The answer to a context. `request` is consulted for the tools on offer, and for whether reasoning is wanted.
pub(super) fn reply(context: &Context, digests: &Digests, request: &Value) -> Vec<Piece> {
    let ordered = context.ordered();
    let latest = ordered.iter().rposition(|item| item.user_text().is_some());
    let since = latest.map_or(0, |position| position + 1);
    let tools = Tools::of(context, request);
    let directive = latest
        .and_then(|position| Directive::find(&ordered[position].user_text()?))
        .unwrap_or_else(|| Directive::absent(&tools, request));
    let rounds = ordered[since..]
        .chunk_by(|left, right| left.kind == right.kind)
        .filter(|run| run[0].kind == Kind::Output);
    let call = rounds.count() < directive.calls && request["tool_choice"] != "none";

    let mut pieces: Vec<Piece> = (0..directive.reasoning)
        .map(|index| {
            let identity = canon::hex(&canon::sha256(&[digests.context.as_bytes(), &index.to_be_bytes()]));
            let summary = prose(&format!("{identity}summary"), 60);
            Piece::Reasoning { identity, summary }
        })
        .collect();
    if directive.compact {
        // Asked for in words: a test need not fill a context for it. The words are gone with what it replaces.
        pieces.insert(0, Piece::Compaction(Essence { digests: digests.clone(), covers: true }));
    }
    if !call {
        pieces.extend(last_words(&directive, &digests.visible));
        return pieces;
    }
    if directive.commentary {
        let text = prose(&digests.visible, 48);
        pieces.push(Piece::Message { text, commentary: true, cited: false });
    }
    let custom = directive.custom || tools.function.is_none() && tools.custom.is_some();
    let name = if custom { tools.custom } else { tools.function }.unwrap_or_else(|| "shell".to_owned());
    pieces.extend((0..directive.parallel).map(|index| {
        let seed = canon::hex(&canon::sha256(&[digests.visible.as_bytes(), b"call", &index.to_be_bytes()]));
        let arguments = if custom { prose(&seed, directive.args) } else { arguments(&seed, directive.args) };
        Piece::Call { call_id: format!("call_{}", &seed[..24]), name: name.clone(), arguments, custom }
    }));
    pieces
}

/// What is said when no more calls are made.
fn last_words(directive: &Directive, seed: &str) -> Vec<Piece> {
    if directive.refuse {
        return vec![Piece::Refusal(prose(seed, directive.text))];
    }
    let message = |index: u32| {
        let text = if index == 0 {
            prose(seed, directive.text)
        } else {
            prose(&format!("{seed}{index}"), directive.text)
        };
        Piece::Message { text, commentary: index + 1 < directive.cite, cited: directive.cite > 0 }
    };
    (0..directive.cite.max(1)).map(message).collect()
}

/// The wish inside a user's message:
/// `[sim calls=12 parallel=1 reasoning=1 text=200 args=300 commentary=1 custom=1 compact=1 refuse=1 cite=1]`.
struct Directive {
    /// Rounds of tool calls in this user turn.
    calls: usize,
    /// Calls per round.
    parallel: u32,
    /// Reasoning items per response.
    reasoning: u32,
    /// Characters of the final text.
    text: usize,
    /// Characters of each call's arguments, at least.
    args: usize,
    commentary: bool,
    custom: bool,
    /// Begin the answer with a compaction item.
    compact: bool,
    /// End with a refusal in place of a text.
    refuse: bool,
    /// Messages of the final text, each with the citation of a page; 0 is one message without.
    cite: u32,
}

impl Directive {
    fn find(text: &str) -> Option<Self> {
        let (wishes, _) = text.split_once("[sim ")?.1.split_once(']')?;
        let wish = |name: &str, default: usize| {
            wishes
                .split_whitespace()
                .filter_map(|pair| pair.split_once('='))
                .find(|(key, _)| *key == name)
                .and_then(|(_, value)| value.parse::<usize>().ok())
                .unwrap_or(default)
                .min(MOST)
        };
        Some(Self {
            calls: wish("calls", 0),
            parallel: u32::try_from(wish("parallel", 1)).unwrap_or(1),
            reasoning: u32::try_from(wish("reasoning", 0)).unwrap_or(0),
            text: wish("text", 120),
            args: wish("args", 160),
            commentary: wish("commentary", 0) > 0,
            custom: wish("custom", 0) > 0,
            compact: wish("compact", 0) > 0,
            refuse: wish("refuse", 0) > 0,
            cite: u32::try_from(wish("cite", 0)).unwrap_or(0).min(MOST_MESSAGES),
        })
    }

    /// Two rounds if there are tools, and reasoning where the client asks to be given it.
    fn absent(tools: &Tools, request: &Value) -> Self {
        let calls = if tools.function.is_some() || tools.custom.is_some() { 2 } else { 0 };
        let wanted = request["include"]
            .as_array()
            .is_some_and(|include| include.iter().any(|name| name == "reasoning.encrypted_content"));
        Self {
            calls,
            parallel: 1,
            reasoning: u32::from(wanted),
            text: 120,
            args: 160,
            commentary: false,
            custom: false,
            compact: false,
            refuse: false,
            cite: 0,
        }
    }
}

/// The first tool of each kind that a request offers.
struct Tools {
    function: Option<String>,
    custom: Option<String>,
}

impl Tools {
    /// Tools stand in the request or, with newer agents, in an `additional_tools` item of the context.
    fn of(context: &Context, request: &Value) -> Self {
        let ordered = context.ordered();
        let offers: Vec<&Value> = std::iter::once(request)
            .chain(ordered.iter().map(|item| &item.value).filter(|item| item["type"] == "additional_tools"))
            .filter_map(|holder| holder["tools"].as_array())
            .flatten()
            .collect();
        let first = |kind: &str| {
            let tool = offers.iter().find(|tool| tool["type"] == kind)?;
            tool["name"].as_str().map(str::to_owned)
        };
        Self { function: first("function"), custom: first("custom") }
    }
}

/// Text of exactly `length` characters, with what breaks careless handling: accents, quotes, an emoji, line ends.
fn prose(seed: &str, length: usize) -> String {
    let mut text = String::with_capacity(length + length / 8);
    let mut block = 0_u64;
    let mut count = 0;
    while count < length {
        for byte in canon::sha256(&[seed.as_bytes(), &block.to_be_bytes()]) {
            for letter in WORDS[usize::from(byte) % WORDS.len()].chars() {
                if count < length {
                    text.push(letter);
                    count += 1;
                }
            }
        }
        block += 1;
    }
    text
}

/// A JSON object of about `length` bytes, written as no serialiser would write it.
fn arguments(seed: &str, length: usize) -> String {
    let filler = json!(prose(seed, length.saturating_sub(AWKWARD.len() + 20))).to_string();
    AWKWARD.replace("SEED", &seed[..8]).replace("\"FILLER\"", &filler)
}

/// Upper bound of every number in a directive: an answer stays in memory.
const MOST: usize = 1 << 20;
const MOST_MESSAGES: u32 = 8;

/// Spaces, escapes of every kind, floats that lose digits, an integer above 2^53, unsorted keys.
const AWKWARD: &str = r#"{"zeta": 10.0, "path":"caf\u00e8 ü \/tmp", "alpha" : [1, 2.50, 1e3],  "big": 12345678901234567, "none": null, "id":"SEED", "note": "FILLER"}"#;

const WORDS: [&str; 16] = [
    "the ",
    "server ",
    "reads ",
    "état ",
    "\"quoted\" ",
    "naïve ",
    "of ",
    "a ",
    "line\n",
    "tool ",
    "back\\slash ",
    "🦀 ",
    "and ",
    "then ",
    "überall ",
    "done. ",
];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sim::context::Item;

    fn answer(items: &[Value], request: &Value) -> Vec<Piece> {
        let items: Vec<_> = items.iter().map(|item| Arc::new(Item::new(item.clone(), |_| None))).collect();
        let context = Context::default().followed_by(&items);
        reply(&context, &context.digests(), request)
    }

    #[test]
    fn the_directive_counts_rounds_of_outputs() {
        let user = json!({"role": "user", "content": "go [sim calls=2 parallel=2 reasoning=1 text=7 args=300 commentary=1]"});
        let pieces = answer(std::slice::from_ref(&user), &json!({}));
        assert!(matches!(pieces[0], Piece::Reasoning { .. }), "{pieces:?}");
        assert!(matches!(pieces[1], Piece::Message { commentary: true, .. }), "{pieces:?}");
        assert_eq!(pieces.len(), 4);
        let Piece::Call { arguments, name, .. } = &pieces[3] else { panic!("{pieces:?}") };
        assert_eq!(name, "shell");
        assert!((250..400).contains(&arguments.len()), "{}", arguments.len());
        assert!(serde_json::from_str::<Value>(arguments).unwrap().is_object());

        let round = |id: &str| {
            [
                json!({"type": "function_call", "call_id": id, "name": "shell", "arguments": "{}"}),
                json!({"type": "function_call_output", "call_id": id, "output": "ok"}),
            ]
        };
        let mut items = vec![user];
        items.extend(round("a"));
        assert_eq!(answer(&items, &json!({})).len(), 4, "one round to go");
        items.extend(round("b"));
        let pieces = answer(&items, &json!({}));
        let Piece::Message { text, commentary: false, .. } = &pieces[1] else { panic!("{pieces:?}") };
        assert_eq!(text.chars().count(), 7);
    }

    #[test]
    fn without_a_directive_tools_decide() {
        let user = [json!({"role": "user", "content": "hello"})];
        assert!(matches!(answer(&user, &json!({}))[..], [Piece::Message { .. }]));
        let tools = json!({"tools": [{"type": "web_search"}, {"type": "function", "name": "read"}]});
        assert!(matches!(&answer(&user, &tools)[..], [Piece::Call { name, .. }] if name == "read"));
        let custom = json!({"tools": [{"type": "custom", "name": "exec"}], "include": ["reasoning.encrypted_content"]});
        assert!(
            matches!(&answer(&user, &custom)[1..], [Piece::Call { name, custom: true, .. }] if name == "exec")
        );
    }
}
