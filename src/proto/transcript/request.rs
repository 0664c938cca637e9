//! A client's request as spans of its own bytes: its settings, and its history as a chain of digests.
//!
//! Two ways lead to the same answer: the whole body is parsed and digested; or its first bytes are found, by hash, to
//! be an earlier request's up to the end of its last item, and only what follows is read (decisions 2.6).

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::proto::digest::{Digest, Hasher, Key};
use crate::proto::transcript::fields::{Field, acts, constant, field};
use crate::proto::transcript::plan::Reason;
use crate::proto::transcript::prefix::{self, Prefix, Step, Tail, find_prefix};
use crate::proto::wire::item::{self, InputItem, ModelItem, ReasoningKey};
use crate::proto::wire::json::{self, JsonError, Member};

/// A parsed request.
#[derive(Debug, Clone)]
pub struct Request {
    pub(crate) text: Text,
    pub(crate) members: Vec<Member>,
    pub(crate) input: Range<usize>,
    /// True if the client wants SSE.
    pub stream: bool,
    /// `store`, absent or null meaning true (protocol §1.3).
    pub store: bool,
    /// True if it carries hosted tools that act.
    pub acts: bool,
    /// The client's own `previous_response_id`.
    pub anchor: Option<String>,
    /// Upstream, credential, identity headers, store, model, user: nothing crosses it.
    pub scope: Digest,
    /// Digest of all top-level fields that are not in the table.
    pub unknown: Digest,
    /// Digest of instructions and tools as they are written. Of two heads alike it tells the one of the same agent (F12).
    pub variant: Digest,
    /// The history; `None` if it cannot be digested.
    pub chain: Option<Chain>,
}

/// Items at the end of a request that are most likely the echo and what is new.
const PREPARED: usize = 64;

/// The body, known to be UTF-8.
#[derive(Debug, Clone)]
pub(crate) struct Text(Bytes);

impl Text {
    fn new(body: Bytes) -> Option<Self> {
        std::str::from_utf8(&body).ok()?;
        Some(Self(body))
    }

    pub(crate) fn as_str(&self) -> &str {
        // Checked in `new`, the only constructor.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The items of a request, as far as they had to be read.
#[derive(Debug, Clone)]
pub struct Chain {
    /// Number of items.
    pub items: usize,
    /// Index of the first item that was read; those before it are an earlier request's, byte for byte.
    pub first: usize,
    pub(crate) spans: Vec<Range<usize>>,
    /// The items as model output, once somebody asked; by span.
    models: Vec<OnceLock<Result<ModelItem, JsonError>>>,
    /// The visible chain from `first` on: after how many items, and its digest there. Starts with what was known.
    pub steps: Vec<Step>,
    /// Reasoning items of the whole request: after how many visible items, and which.
    pub reasoning: Arc<[(u32, ReasoningKey)]>,
    /// By which a later request finds this one by its bytes.
    pub prefix: Option<Prefix>,
}

impl Request {
    /// Reads a body. `account` stands for upstream, credential and identity; `known` are prefixes worth trying.
    ///
    /// # Errors
    /// The reason why this request goes over HTTP unchanged.
    pub fn parse(key: &Key, account: &Digest, body: Bytes, known: &[Prefix]) -> Result<Self, Reason> {
        let text = Text::new(body).ok_or(Reason::NotUnderstood)?;
        if let Some((prefix, hasher)) = find_prefix(key, text.as_str().as_bytes(), known)
            && let Some(request) = Self::resume(key, account, &text, prefix, hasher)
        {
            return request;
        }
        Self::whole(key, account, text)
    }

    fn whole(key: &Key, account: &Digest, text: Text) -> Result<Self, Reason> {
        let members = json::members(text.as_str()).map_err(|_| Reason::NotUnderstood)?;
        let mut request = Self::settings(key, account, text, members)?;
        let input = &request.text.as_str()[request.input.clone()];
        let seed = Step { items: 0, visible: 0, digest: seed(key, &request.scope) };
        let mut reader = Reader::new(key, seed);
        let read = if input.starts_with('"') {
            item::text_digest(key, input).map(|digest| reader.visible(1, &digest))
        } else {
            let spans = json::elements(input).map_err(|_| Reason::NotUnderstood)?;
            let at = request.input.start;
            reader.spans.extend(spans.into_iter().map(|span| at + span.start..at + span.end));
            reader.read(request.text.as_str(), 0)
        };
        request.chain = match read {
            Ok(()) => {
                let hasher = key.hasher("prefix");
                Some(reader.finish(&request, 0, Vec::new(), (hasher, 0)))
            }
            Err(_) => None,
        };
        Ok(request)
    }

    /// Reads on after a known prefix; `None` sends the body the long way.
    fn resume(
        key: &Key,
        account: &Digest,
        text: &Text,
        prefix: &Prefix,
        hasher: Hasher,
    ) -> Option<Result<Self, Reason>> {
        // Without new items it continues nothing that ends there: it may go on from an earlier point.
        let tail = Tail::read(text.as_str(), prefix.len).filter(|tail| !tail.items.is_empty())?;
        let input = prefix.input_start..tail.input_end;
        // Grown by a few items a turn it would otherwise never be too long.
        if prefix.items + tail.items.len() > json::MAX_PARTS {
            return None;
        }
        let mut members: Vec<Member> = prefix.members.to_vec();
        members.push(Member { key: "input".into(), value: input });
        members.extend(tail.members);
        // What is wrong with the settings (a repeated key, say) the long way finds as well, and names.
        let mut request = Self::settings(key, account, text.clone(), members).ok()?;
        if request.scope != prefix.scope {
            return None;
        }
        let mut reader = Reader::new(key, prefix.step);
        reader.spans = tail.items;
        reader.read(request.text.as_str(), prefix.items).ok()?;
        let reasoning = prefix.reasoning.to_vec();
        request.chain = Some(reader.finish(&request, prefix.items, reasoning, (hasher, prefix.len)));
        Some(Ok(request))
    }

    fn settings(key: &Key, account: &Digest, text: Text, members: Vec<Member>) -> Result<Self, Reason> {
        if json::has_duplicate(&members) {
            return Err(Reason::DuplicateKey);
        }
        let body = text.as_str();
        let value = |name: &str| {
            json::find(&members, name).map(|m| &body[m.value.clone()]).filter(|value| *value != "null")
        };
        let input = json::find(&members, "input").ok_or(Reason::NotUnderstood)?.value.clone();
        if !body[input.clone()].starts_with(['[', '"']) {
            return Err(Reason::NotUnderstood);
        }
        for member in &members {
            let absent = matches!(&body[member.value.clone()], "null" | "false");
            match field(&member.key) {
                Field::Envelope => return Err(Reason::Field(constant(&member.key))),
                Field::HttpOnly if !absent => return Err(Reason::Field(constant(&member.key))),
                _ => {}
            }
        }
        let flag = |name: &str, default: bool| match value(name) {
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            None => Ok(default),
            Some(_) => Err(Reason::NotUnderstood),
        };
        let (stream, store) = (flag("stream", false)?, flag("store", true)?);
        let anchor = match value("previous_response_id") {
            Some(id) => Some(json::string(id).ok_or(Reason::NotUnderstood)?.into_owned()),
            None => None,
        };
        let scope = scope(key, account, store, &value)?;
        let unknown = unknown(key, body, &members)?;
        let mut variant = key.hasher("variant");
        for name in ["instructions", "tools"] {
            variant.field(value(name).unwrap_or_default().as_bytes());
        }
        let variant = variant.finish();
        let acts = value("tools").is_some_and(has_acting_tool);
        Ok(Self { stream, store, acts, anchor, scope, unknown, variant, input, members, text, chain: None })
    }

    /// The text of item `index`; `None` for one that was not read.
    pub fn item(&self, index: usize) -> Option<&str> {
        let chain = self.chain.as_ref()?;
        let span = chain.spans.get(index.checked_sub(chain.first)?)?;
        Some(&self.text.as_str()[span.clone()])
    }

    /// Item `index` as model output or its echo; `None` for one that was not read.
    pub fn model_item(&self, key: &Key, index: usize) -> Option<&Result<ModelItem, JsonError>> {
        let chain = self.chain.as_ref()?;
        let model = chain.models.get(index.checked_sub(chain.first)?)?;
        let text = self.item(index)?;
        Some(model.get_or_init(|| item::model_item(key, text)))
    }

    /// Looks at the items that a continuation will ask about, so that they need not be read while others wait.
    pub fn prepare(&self, key: &Key) {
        for index in self.items().saturating_sub(PREPARED)..self.items() {
            self.model_item(key, index);
        }
    }

    /// Number of items, where they could be read; a text is one.
    pub fn items(&self) -> usize {
        self.chain.as_ref().map_or(0, |chain| chain.items)
    }

    /// The body.
    pub fn body(&self) -> &str {
        self.text.as_str()
    }

    /// Size of the body in bytes.
    pub fn len(&self) -> usize {
        self.text.0.len()
    }

    /// True for a body of no bytes (never parsed successfully).
    pub fn is_empty(&self) -> bool {
        self.text.0.is_empty()
    }

    /// Lets go of the body: from here on only what the index keeps of a request can be asked.
    pub fn forget_body(&mut self) {
        self.text = Text(Bytes::new());
        self.members = Vec::new();
        if let Some(chain) = &mut self.chain {
            (chain.spans, chain.models) = (Vec::new(), Vec::new());
        }
    }

    /// The value of a top-level field as the client wrote it.
    pub fn value(&self, name: &str) -> Option<&str> {
        json::find(&self.members, name).map(|member| &self.text.as_str()[member.value.clone()])
    }
}

/// Walks the items of a request along the visible chain.
struct Reader<'a> {
    key: &'a Key,
    spans: Vec<Range<usize>>,
    steps: Vec<Step>,
    reasoning: Vec<(u32, ReasoningKey)>,
}

impl<'a> Reader<'a> {
    fn new(key: &'a Key, from: Step) -> Self {
        Self { key, spans: Vec::new(), steps: vec![from], reasoning: Vec::new() }
    }

    fn read(&mut self, text: &str, first: usize) -> Result<(), JsonError> {
        for n in 0..self.spans.len() {
            match item::input_digest(self.key, &text[self.spans[n].clone()])? {
                InputItem::Visible(digest) => self.visible(first + n + 1, &digest),
                InputItem::Reasoning(key) => self.reasoning.push((self.last().visible, key)),
            }
        }
        Ok(())
    }

    fn visible(&mut self, items: usize, digest: &Digest) {
        let last = self.last();
        let mut hasher = self.key.hasher("step");
        hasher.field(last.digest.as_bytes()).field(digest.as_bytes());
        self.steps.push(Step { items, visible: last.visible + 1, digest: hasher.finish() });
    }

    fn last(&self) -> Step {
        self.steps[self.steps.len() - 1]
    }

    fn finish(
        self,
        request: &Request,
        first: usize,
        mut reasoning: Vec<(u32, ReasoningKey)>,
        (mut hasher, hashed): (Hasher, usize),
    ) -> Chain {
        let last = self.last();
        reasoning.extend(&self.reasoning);
        let reasoning: Arc<[_]> = reasoning.into();
        let bytes = request.text.as_str().as_bytes();
        let text_input = bytes[request.input.start] == b'"';
        let items = if text_input { 1 } else { first + self.spans.len() };
        let prefix = self.spans.last().filter(|span| bytes[span.end - 1] == b'}').map(|span| {
            hasher.raw(&bytes[hashed..span.end]);
            let before = request.members.iter().take_while(|member| &*member.key != "input").cloned();
            Prefix {
                len: span.end,
                digest: hasher.finish(),
                tag: prefix::tag(self.key, &bytes[..span.end]),
                scope: request.scope,
                step: Step { items, ..last },
                items,
                input_start: request.input.start,
                members: before.collect(),
                reasoning: reasoning.clone(),
            }
        });
        let models = self.spans.iter().map(|_| OnceLock::new()).collect();
        Chain { items, first, models, spans: self.spans, steps: self.steps, reasoning, prefix }
    }
}

fn seed(key: &Key, scope: &Digest) -> Digest {
    let mut hasher = key.hasher("seed");
    hasher.field(scope.as_bytes());
    hasher.finish()
}

fn scope<'a>(
    key: &Key,
    account: &Digest,
    store: bool,
    value: &impl Fn(&str) -> Option<&'a str>,
) -> Result<Digest, Reason> {
    let mut hasher = key.hasher("scope");
    hasher.field(account.as_bytes()).field(&[u8::from(store)]);
    for name in ["model", "user", "safety_identifier"] {
        let mut out = Vec::new();
        json::canonical(value(name).unwrap_or("null"), json::Numbers::Exact, false, &mut out)
            .map_err(|_| Reason::NotUnderstood)?;
        hasher.field(&out);
    }
    Ok(hasher.finish())
}

fn unknown(key: &Key, body: &str, members: &[Member]) -> Result<Digest, Reason> {
    let mut fields: Vec<&Member> = members.iter().filter(|m| field(&m.key) == Field::Unknown).collect();
    fields.sort_by(|a, b| a.key.cmp(&b.key));
    let mut hasher = key.hasher("unknown");
    for member in fields {
        let mut out = Vec::new();
        json::canonical(&body[member.value.clone()], json::Numbers::Exact, false, &mut out)
            .map_err(|_| Reason::NotUnderstood)?;
        hasher.field(member.key.as_bytes()).field(&out);
    }
    Ok(hasher.finish())
}

fn has_acting_tool(tools: &str) -> bool {
    let Ok(tools_spans) = json::elements(tools) else { return false };
    tools_spans.into_iter().any(|span| {
        let tool = &tools[span];
        json::members(tool).ok().is_some_and(|members| {
            json::find(&members, "type")
                .and_then(|member| json::string(&tool[member.value.clone()]))
                .is_some_and(|kind| acts(&kind))
        })
    })
}

#[cfg(test)]
mod tests;
