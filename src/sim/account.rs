//! What the provider keeps beyond a connection: stored responses, their items, and the ids it has given out.
//!
//! Pure: ids come from a seed and a count, time from the caller. Lanes and connections are `rules.rs`'s.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use super::canon;
use super::compaction::{self, Essence};
use super::context::{Context, Digests, Item};
use super::cut;
use super::refusal::Refusal;
use super::reply::{self, Piece};
use super::request::{Request, Transport};
use super::script::Style;
use super::stream::{self, Emission, Ending, Saying, Telling};

/// A broken rule that the provider noticed. A correct proxy causes none, whatever it is put through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule: `duplicate`, `foreign id`, `stream`, `conversation`, `client event`.
    pub rule: &'static str,
    /// The id or field concerned; never content.
    pub about: String,
}

/// Everything the provider remembers for all its credentials.
#[derive(Debug)]
pub struct Account {
    seed: [u8; 32],
    minted: u64,
    stored: HashMap<String, Arc<Saved>>,
    oldest: VecDeque<String>,
    items: HashMap<String, (String, Arc<Item>)>,
    violations: Vec<Violation>,
}

impl Account {
    /// An empty store. The seed decides the random part of all ids.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            seed,
            minted: 0,
            stored: HashMap::new(),
            oldest: VecDeque::new(),
            items: HashMap::new(),
            violations: Vec::new(),
        }
    }

    /// Takes the violations noticed since the last call; at most 1000 are kept between calls.
    pub fn drain_violations(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.violations)
    }

    /// Puts a violation on record.
    pub(super) fn blame(&mut self, rule: &'static str, about: impl Into<String>) {
        if self.violations.len() < MOST_VIOLATIONS {
            self.violations.push(Violation { rule, about: about.into() });
        }
    }

    /// Answers an HTTP request at once, for worlds without sockets: the finished response object.
    ///
    /// # Errors
    /// The provider's 4xx.
    pub fn answer(&mut self, credential: &str, body: &Value, unix: u64) -> Result<Value, Refusal> {
        let body = body.as_object().cloned().unwrap_or_default();
        let request = Request::parse(body, Transport::Http)?;
        let mut turn = self.open(&request, credential, Style::default(), unix)?;
        let ending = loop {
            if let Some(ending) = turn.next(unix).ending {
                break ending;
            }
        };
        let response = turn.response().clone();
        self.keep(turn, ending);
        Ok(response)
    }

    /// Begins the response to an HTTP request, which can continue stored responses only.
    ///
    /// # Errors
    /// The provider's 4xx.
    pub(super) fn open(
        &mut self,
        request: &Request,
        credential: &str,
        style: Style,
        unix: u64,
    ) -> Result<Turn, Refusal> {
        let parent = match &request.previous {
            Some(id) => Some(self.parent(credential, id)?),
            None => None,
        };
        self.begin(request, credential, parent, style, unix)
    }

    /// Begins a response. `parent` is what its `previous_response_id` was found to name.
    ///
    /// # Errors
    /// The provider's 4xx when the effective context is not one a model could read.
    pub(super) fn begin(
        &mut self,
        request: &Request,
        credential: &str,
        parent: Option<Parent>,
        style: Style,
        unix: u64,
    ) -> Result<Turn, Refusal> {
        let input =
            request.items.iter().map(|item| self.item(credential, item)).collect::<Result<Vec<_>, _>>()?;
        let (base, cached) = parent.map_or_else(Default::default, |parent| {
            let size = if parent.on_connection { parent.saved.context.size() } else { 0 };
            (parent.saved.context.clone(), size)
        });
        let context = base.followed_by(&input);
        if let Err(refusal) = context.check() {
            if refusal.is_duplicate() {
                self.blame("duplicate", request.previous.as_deref().unwrap_or("full request"));
            }
            return Err(refusal);
        }
        let digests = context.digests();
        // A function of the context alone, so that both ways of sending it are billed alike.
        let tokens = context.size() / BYTES_PER_TOKEN + 1;
        let mut pieces = pieces(request, &context, &digests, tokens);
        let cut = cut::cut(&mut pieces, &request.stops, request.limit);
        let saying = Saying { pieces: &pieces, cut, logprobs: request.logprobs };
        let id = self.mint("resp", credential);
        let opening = stream::opening(&request.body, &id, &digests, unix);
        let held = tokens.saturating_sub(256) / 128 * 128;
        let mut mint = |prefix: &str| self.mint(prefix, credential);
        let telling = Telling::new(opening, &saying, style, (tokens, held), &mut mint);
        Ok(Turn {
            facts: Facts { response: id, digests, cached, fresh: context.size().saturating_sub(cached) },
            credential: credential.to_owned(),
            store: request.store,
            before: base.items().len(),
            context,
            input,
            telling,
        })
    }

    /// Remembers a response that has ended, in the store if it asked for that. Returns what a lane may keep.
    pub(super) fn keep(&mut self, turn: Turn, ending: Ending) -> Arc<Saved> {
        let output = turn.response()["output"].as_array().map_or_else(Vec::new, |items| {
            items.iter().map(|item| Arc::new(Item::new(item.clone(), |_| None))).collect()
        });
        let input = if turn.store { self.named(&turn) } else { turn.input.clone() };
        let response = if turn.store { turn.response().clone() } else { Value::Null };
        let saved = Arc::new(Saved {
            id: turn.facts.response,
            credential: turn.credential,
            context: turn.context.followed_by(&output),
            before: turn.before,
            input,
            response,
            continuable: matches!(ending, Ending::Completed | Ending::Incomplete),
        });
        if turn.store {
            for item in saved.input.iter().chain(&output) {
                if let Some(id) = item.value["id"].as_str() {
                    self.items.insert(id.to_owned(), (saved.credential.clone(), Arc::clone(item)));
                }
            }
            self.oldest.push_back(saved.id.clone());
            self.stored.insert(saved.id.clone(), Arc::clone(&saved));
            if self.oldest.len() > MOST_STORED
                && let Some(id) = self.oldest.pop_front()
            {
                self.forget(&id);
            }
        }
        saved
    }

    /// A turn's input as it is stored: every item has an id.
    fn named(&mut self, turn: &Turn) -> Vec<Arc<Item>> {
        let mut named = Vec::new();
        for item in &turn.input {
            let prefix = if canon::type_of(&item.value) == "message" { "msg" } else { "item" };
            named.push(match item.value["id"].is_string() {
                true => Arc::clone(item),
                false => Arc::new(item.with_id(&self.mint(prefix, &turn.credential))),
            });
        }
        named
    }

    /// A stored response that this credential may continue.
    ///
    /// # Errors
    /// `previous_response_not_found`; another credential's id is a violation besides.
    pub(super) fn parent(&mut self, credential: &str, id: &str) -> Result<Parent, Refusal> {
        let print = &credential[..FINGERPRINT.min(credential.len())];
        if id.strip_prefix("resp_").is_some_and(|rest| rest.len() == ID_DIGITS && !rest.starts_with(print)) {
            self.blame("foreign id", id);
        }
        self.stored(credential, id)
            .filter(|saved| saved.continuable)
            .map(|saved| Parent { saved, on_connection: false })
            .ok_or_else(|| Refusal::previous_not_found(id))
    }

    /// A stored response of this credential, in whichever state it ended.
    pub(super) fn stored(&self, credential: &str, id: &str) -> Option<Arc<Saved>> {
        self.stored.get(id).filter(|saved| saved.credential == credential).cloned()
    }

    /// Deletes a stored response of this credential and its items; false if there is none.
    pub(super) fn delete(&mut self, credential: &str, id: &str) -> bool {
        let known = self.stored(credential, id).is_some();
        if known {
            self.forget(id);
        }
        known
    }

    fn forget(&mut self, id: &str) {
        let Some(saved) = self.stored.remove(id) else { return };
        self.oldest.retain(|other| other != id);
        let mine: Vec<&str> = saved.response["output"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|item| item["id"].as_str())
            .collect();
        self.items.retain(|other, _| {
            !mine.contains(&other.as_str())
                && !saved.input.iter().any(|item| item.value["id"] == other.as_str())
        });
    }

    /// The context of a request that is not for a response.
    ///
    /// # Errors
    /// The provider's 4xx for a chain or an item that is not there.
    pub(super) fn context(&mut self, request: &Request, credential: &str) -> Result<Context, Refusal> {
        let base = match &request.previous {
            Some(id) => self.parent(credential, id)?.saved.context.clone(),
            None => Context::default(),
        };
        let input =
            request.items.iter().map(|item| self.item(credential, item)).collect::<Result<Vec<_>, _>>()?;
        Ok(base.followed_by(&input))
    }

    fn item(&self, credential: &str, given: &Value) -> Result<Arc<Item>, Refusal> {
        let known = |id: &str| {
            self.items.get(id).filter(|(owner, _)| owner == credential).map(|(_, item)| Arc::clone(item))
        };
        if canon::type_of(given) == "item_reference" {
            let id = given["id"].as_str().unwrap_or_default();
            return known(id).ok_or_else(|| Refusal::item_not_found(id));
        }
        let identity = |id: &str| known(id).map(|item| item.identity().to_owned());
        Ok(Arc::new(Item::new(given.clone(), identity)))
    }

    /// An id never given out before, opaque but for the owner's fingerprint.
    pub(super) fn mint(&mut self, prefix: &str, credential: &str) -> String {
        self.minted += 1;
        let random = canon::hex(&canon::sha256(&[&self.seed, &self.minted.to_be_bytes()]));
        let digits = ID_DIGITS - FINGERPRINT;
        format!("{prefix}_{}{}", &credential[..FINGERPRINT.min(credential.len())], &random[..digits])
    }
}

/// What a response says: after a compaction if one is due, and nothing else if it was only asked for that.
fn pieces(request: &Request, context: &Context, digests: &Digests, tokens: usize) -> Vec<Piece> {
    if !request.generate {
        return Vec::new();
    }
    let mut pieces = Vec::new();
    if compaction::is_due(request, tokens) {
        pieces.push(Piece::Compaction(Essence { digests: digests.clone(), covers: true }));
    }
    if !request.compacts {
        pieces.extend(reply::reply(context, digests, &request.body));
    }
    pieces
}

/// A response that has ended, with the context that continues from it.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) id: String,
    pub(super) credential: String,
    pub(super) context: Context,
    /// Its own input, without what the response it continued stood for.
    pub(super) input: Vec<Arc<Item>>,
    /// Items of the context before its own input.
    before: usize,
    /// The whole object; null unless stored.
    pub(super) response: Value,
    continuable: bool,
}

impl Saved {
    /// Everything that went in, a chain's earlier items included.
    pub(super) fn whole_input(&self) -> Vec<Arc<Item>> {
        self.context.items()[..self.before].iter().chain(&self.input).cloned().collect()
    }
}

/// A response about to be continued.
#[derive(Clone, Debug)]
pub(super) struct Parent {
    pub(super) saved: Arc<Saved>,
    /// Whether it was found in a lane, where its tokens are still at hand.
    pub(super) on_connection: bool,
}

/// What is known of a response once it has begun.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its id.
    pub response: String,
    /// The digests of its effective context.
    pub digests: Digests,
    /// Bytes of context that the connection held already.
    pub cached: usize,
    /// Bytes of context that had to be read anew.
    pub fresh: usize,
}

/// A response in the making.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) facts: Facts,
    credential: String,
    store: bool,
    context: Context,
    /// Items of the context before its own input.
    before: usize,
    input: Vec<Arc<Item>>,
    telling: Telling,
}

impl Turn {
    /// The next event.
    pub(super) fn next(&mut self, unix: u64) -> Emission {
        self.telling.next(unix)
    }

    /// Ends it as told.
    pub(super) fn spoil(&mut self, spoil: &Spoil) -> Emission {
        match spoil {
            Spoil::Failed { code, message } => self.telling.fail(code, message),
            Spoil::Incomplete(reason) => self.telling.leave_incomplete(reason),
        }
    }

    /// The response object as last told.
    pub(super) fn response(&self) -> &Value {
        self.telling.response()
    }
}

/// A premature end that still has a response object.
#[derive(Clone, Debug)]
pub enum Spoil {
    /// `response.failed`.
    Failed {
        /// `error.code`.
        code: &'static str,
        /// `error.message`.
        message: String,
    },
    /// `response.incomplete` with this reason.
    Incomplete(&'static str),
}

const MOST_STORED: usize = 1024;
const MOST_VIOLATIONS: usize = 1000;
const BYTES_PER_TOKEN: usize = 4;
/// Hexadecimal digits of an id that tell whose it is: enough to notice an id that crossed over to somebody else.
const FINGERPRINT: usize = 8;
const ID_DIGITS: usize = 48;
