//! The model's words as events: a text with its citation and probabilities, or a refusal.
//!
//! Calls, reasoning and the response around them are `stream.rs`'s.

use serde_json::{Value, json};

use super::super::canon;
use super::{LETTERS_PER_TOKEN, Moment, Writer};

impl Writer {
    pub(super) fn message(&mut self, id: &str, text: &str, commentary: bool, cited: bool) {
        let phase = if commentary { "commentary" } else { "final_answer" };
        let notes = if cited { json!([citation(text)]) } else { json!([]) };
        let top = self.logprobs;
        let part = |text: &str, notes: &Value| {
            json!({ "type": "output_text", "text": text, "annotations": notes,
                "logprobs": logprobs(text, top, true) })
        };
        let index = Some("content_index");
        let begun = message_item(id, phase, json!([]), "in_progress");
        self.item_event("output_item.added", id, None, json!({ "item": begun }), 0);
        self.item_event("content_part.added", id, index, json!({ "part": part("", &json!([])) }), 0);
        self.deltas("output_text.delta", id, index, text, Some(Moment::MidText));
        for (number, note) in notes.as_array().into_iter().flatten().enumerate() {
            let fields = json!({ "annotation_index": number, "annotation": note });
            self.item_event("output_text.annotation.added", id, index, fields, 0);
        }
        let said = json!({ "text": text, "logprobs": logprobs(text, top, false) });
        self.item_event("output_text.done", id, index, said, 0);
        self.item_event("content_part.done", id, index, json!({ "part": part(text, &notes) }), 0);
        self.finish(id, message_item(id, phase, json!([part(text, &notes)]), self.status), None);
    }

    pub(super) fn refusal(&mut self, id: &str, text: &str) {
        let part = |text: &str| json!({ "type": "refusal", "refusal": text });
        let (index, phase) = (Some("content_index"), "final_answer");
        let begun = message_item(id, phase, json!([]), "in_progress");
        self.item_event("output_item.added", id, None, json!({ "item": begun }), 0);
        self.item_event("content_part.added", id, index, json!({ "part": part("") }), 0);
        self.deltas("refusal.delta", id, index, text, Some(Moment::MidText));
        self.item_event("refusal.done", id, index, json!({ "refusal": text }), 0);
        self.item_event("content_part.done", id, index, json!({ "part": part(text) }), 0);
        self.finish(id, message_item(id, phase, json!([part(text)]), self.status), None);
    }
}

fn message_item(id: &str, phase: &str, content: Value, status: &str) -> Value {
    json!({ "type": "message", "id": id, "role": "assistant", "status": status, "phase": phase,
        "content": content })
}

/// A page that the first letters of a text are said to come from.
fn citation(text: &str) -> Value {
    json!({ "type": "url_citation", "url": "https://example.com/a?b=c&d=%20", "title": "A \"page\"",
        "start_index": 0, "end_index": text.chars().count().min(12) })
}

/// The probability of every token of a text, with `top` rivals; only the whole text tells their bytes too.
pub(super) fn logprobs(text: &str, top: Option<usize>, bytes: bool) -> Value {
    let Some(top) = top else { return json!([]) };
    let letters: Vec<char> = text.chars().collect();
    let told = |token: &str, logprob: f64| match bytes {
        true => json!({ "token": token, "logprob": logprob, "bytes": token.as_bytes() }),
        false => json!({ "token": token, "logprob": logprob }),
    };
    letters
        .chunks(LETTERS_PER_TOKEN)
        .map(|letters| {
            let token: String = letters.iter().collect();
            let chance = |index: usize| {
                let [byte, ..] = canon::sha256(&[token.as_bytes(), &index.to_be_bytes()]);
                // Sixty-fourths survive every way of writing a number.
                -(f64::from(byte) + 1.0) / 64.0
            };
            let mut whole = told(&token, chance(0));
            whole["top_logprobs"] = (0..top)
                .map(|index| match index {
                    0 => told(&token, chance(0)),
                    _ => told(&format!("{token}{index}"), chance(index) - 4.0),
                })
                .collect();
            whole
        })
        .collect()
}
