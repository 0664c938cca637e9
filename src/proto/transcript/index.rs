//! The heads: which input was answered by which response, found again by digest. Bounded in bytes, least recently used
//! out first.
//!
//! A head holds digests and ids, never content. A child does not remove its parent: clients fork (`clients.md` 2.3).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use lru::LruCache;

use crate::proto::digest::{Digest, Key};
use crate::proto::id::{ConnectionId, HeadId, LaneId};
use crate::proto::transcript::echo::{Echo, Followed};
use crate::proto::transcript::plan::{Grade, Reason};
use crate::proto::transcript::prefix::{Prefix, Step};
use crate::proto::transcript::request::Request;
use crate::proto::wire::item::ReasoningKey;

/// Prefixes offered to one request's fast path; older ones go the long way.
const MAX_PREFIXES: usize = 256;

/// Heads with one and the same input that one request is compared with, newest first.
const MAX_CANDIDATES: usize = 16;

/// Reasoning that upstream holds in a chain: its keys, and between which visible items a client may repeat it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    keys: Box<[ReasoningKey]>,
    from: u32,
    to: u32,
}

/// Where the provider holds a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// As the latest response of this lane.
    Lane(ConnectionId, LaneId),
    /// In no lane any more, and why.
    Gone(Reason),
}

/// A completed response and the input it answered.
#[derive(Debug, Clone)]
pub struct Head {
    /// Upstream, credential and identity: whose it is.
    pub account: Digest,
    /// The response's id.
    pub response: Arc<str>,
    /// True if the provider stores it, so that it may be continued away from its lane.
    pub stored: bool,
    /// True if this conversation has been seen to branch.
    pub branchy: bool,
    /// Where it can be continued.
    pub place: Place,
    scope: Digest,
    unknown: Digest,
    variant: Digest,
    /// It continued another: a conversation that goes on, not a single call.
    grown: bool,
    step: Step,
    root: Option<Digest>,
    echo: Echo,
    held: Arc<[Held]>,
    prefix: Option<Prefix>,
}

impl Head {
    /// The scope it belongs to.
    pub fn scope(&self) -> Digest {
        self.scope
    }

    /// True if it belongs to this scope.
    pub fn is_in(&self, scope: &Digest) -> bool {
        self.scope == *scope
    }

    /// True if it continued another.
    pub fn has_grown(&self) -> bool {
        self.grown
    }

    fn weight(&self) -> usize {
        let held: usize = self.held.iter().map(|held| size_of::<Held>() + held.keys.len() * 16).sum();
        let prefix = self.prefix.as_ref().map_or(0, Prefix::weight);
        size_of::<Self>() + self.response.len() + self.echo.weight() + held + prefix + 256
    }
}

/// A head that a request continues.
#[derive(Debug, Clone)]
pub struct Continuation {
    /// The head.
    pub head: HeadId,
    /// Index of the first new item.
    pub new_from: usize,
    /// How exact the continuation is.
    pub grade: Grade,
    /// What upstream will hold of reasoning: the head's, and its response's.
    pub held: Arc<[Held]>,
}

/// All heads of this process.
#[derive(Debug)]
pub struct Index {
    heads: LruCache<HeadId, Head>,
    by_step: HashMap<Digest, Vec<HeadId>>,
    by_account: HashMap<Digest, BTreeSet<HeadId>>,
    by_response: HashMap<(Digest, Arc<str>), HeadId>,
    /// Conversations by their first visible item: how many heads, and the newest.
    roots: HashMap<Digest, (usize, HeadId)>,
    weight: usize,
    capacity: usize,
    next: u64,
}

impl Index {
    /// An index of at most `capacity` bytes; what is evicted costs one full resend.
    pub fn new(capacity: usize) -> Self {
        Self {
            heads: LruCache::unbounded(),
            by_step: HashMap::new(),
            by_account: HashMap::new(),
            by_response: HashMap::new(),
            roots: HashMap::new(),
            weight: 0,
            capacity,
            next: 0,
        }
    }

    /// A head by its id.
    pub fn head(&self, id: HeadId) -> Option<&Head> {
        self.heads.peek(&id)
    }

    /// The head of a response, for a client that names it itself.
    pub fn by_response(&self, account: &Digest, response: &str) -> Option<HeadId> {
        self.by_response.get(&(*account, Arc::from(response))).copied()
    }

    /// Number of heads.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Bytes held, as far as they are counted.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// The newest prefixes of an account, to find a request by its bytes.
    pub fn prefixes(&self, account: &Digest) -> Vec<Prefix> {
        let Some(ids) = self.by_account.get(account) else { return Vec::new() };
        let newest = ids.iter().rev().take(MAX_PREFIXES);
        newest.filter_map(|id| self.heads.peek(id)?.prefix.clone()).collect()
    }

    /// Records a completed response. `held` is the reasoning upstream holds up to the request's end.
    pub fn insert(
        &mut self,
        account: Digest,
        request: &Request,
        response: Arc<str>,
        echo: Echo,
        past: Past,
    ) -> Option<HeadId> {
        let chain = request.chain.as_ref()?;
        let step = *chain.steps.last()?;
        // A provider may give one id to several responses (xAI, protocol §4): it then names the last of them only.
        if let Some(older) = self.by_response.get(&(account, response.clone())) {
            self.remove(*older);
        }
        let first = || chain.steps.iter().find(|step| step.visible == 1).map(|step| step.digest);
        let root = past.root.or_else(first).filter(|_| !past.anchored);
        let grown = past.held.is_some();
        let held = past.held.unwrap_or_else(|| sent(&chain.reasoning));
        let head = Head {
            account,
            response: response.clone(),
            stored: request.store,
            branchy: past.branchy,
            place: Place::Gone(Reason::SocketLost),
            scope: request.scope,
            unknown: request.unknown,
            variant: request.variant,
            grown,
            step,
            root,
            echo,
            held,
            prefix: chain.prefix.clone().filter(|_| !past.anchored),
        };
        let id = HeadId(self.next);
        self.next += 1;
        self.weight += head.weight();
        if !past.anchored {
            self.by_step.entry(step.digest).or_default().push(id);
        }
        self.by_account.entry(account).or_default().insert(id);
        self.by_response.insert((account, response), id);
        if let Some(root) = root {
            let (count, newest) = self.roots.entry(root).or_insert((0, id));
            *count += 1;
            *newest = id;
        }
        self.heads.put(id, head);
        while self.weight > self.capacity {
            let Some((oldest, _)) = self.heads.peek_lru() else { break };
            let oldest = *oldest;
            self.remove(oldest);
        }
        Some(id)
    }

    /// Forgets a head.
    pub fn remove(&mut self, id: HeadId) -> Option<Head> {
        let head = self.heads.pop(&id)?;
        self.weight -= head.weight();
        if let Some(ids) = self.by_step.get_mut(&head.step.digest) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_step.remove(&head.step.digest);
            }
        }
        if let Some(ids) = self.by_account.get_mut(&head.account) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_account.remove(&head.account);
            }
        }
        let named = (head.account, head.response.clone());
        if self.by_response.get(&named) == Some(&id) {
            self.by_response.remove(&named);
        }
        if let Some(root) = head.root
            && let Some((count, _)) = self.roots.get_mut(&root)
        {
            *count -= 1;
            if *count == 0 {
                self.roots.remove(&root);
            }
        }
        Some(head)
    }

    /// Marks a head's conversation as one that branches.
    pub fn set_branchy(&mut self, id: HeadId) {
        if let Some(head) = self.heads.get_mut(&id) {
            head.branchy = true;
        }
    }

    /// Records where a head is held.
    pub fn set_place(&mut self, id: HeadId, place: Place) {
        if let Some(head) = self.heads.peek_mut(&id) {
            head.place = place;
        }
    }

    /// The newest head of the conversation that starts like this request.
    pub fn home(&self, request: &Request) -> Option<HeadId> {
        let steps = &request.chain.as_ref()?.steps;
        let first = steps.iter().find(|step| step.visible == 1)?;
        self.roots.get(&first.digest).map(|(_, newest)| *newest)
    }

    /// What a head passes on to its child.
    pub fn past(&mut self, id: HeadId, held: Arc<[Held]>) -> Past {
        let head = self.heads.get(&id);
        Past {
            root: head.and_then(|head| head.root),
            branchy: head.is_some_and(|head| head.branchy),
            anchored: false,
            held: Some(held),
        }
    }

    /// The heads that a request continues, best first: longest, then exact, then of the same instructions, then newest.
    ///
    /// # Errors
    /// If there is none, the most telling reason.
    pub fn continuations(&self, key: &Key, request: &Request) -> Result<Vec<Continuation>, Reason> {
        let chain = request.chain.as_ref().ok_or(Reason::Undigestable)?;
        let mut reason = None;
        for step in chain.steps.iter().rev().filter(|step| step.visible > 0) {
            let Some(ids) = self.by_step.get(&step.digest) else { continue };
            let mut found = Vec::new();
            for id in ids.iter().rev().take(MAX_CANDIDATES) {
                let Some(head) = self.heads.peek(id).filter(|head| head.scope == request.scope) else {
                    continue;
                };
                match continuation(key, request, *id, head, *step) {
                    Ok(continuation) => found.push((continuation, head.variant != request.variant)),
                    Err(why) => reason = reason.or(Some(why)),
                }
            }
            if !found.is_empty() {
                found.sort_by_key(|(found, other)| (found.grade, *other, std::cmp::Reverse(found.head)));
                return Ok(found.into_iter().map(|(found, _)| found).collect());
            }
        }
        let known = chain.first > 0
            || chain.steps.iter().any(|step| step.visible == 1 && self.roots.contains_key(&step.digest));
        let fallback = if known { Reason::HistoryChanged } else { Reason::FirstTurn };
        // A head whose whole input is this request says only that it is a repetition.
        Err(reason.filter(|reason| *reason != Reason::NothingNew || known).unwrap_or(fallback))
    }
}

/// What a new head has from its parent.
#[derive(Debug, Clone, Default)]
pub struct Past {
    /// The conversation has been seen to branch.
    pub branchy: bool,
    /// The client chained by itself: what it sent is not the whole history, so the head is known by its id only.
    pub anchored: bool,
    root: Option<Digest>,
    held: Option<Arc<[Held]>>,
}

impl Past {
    /// Of a conversation sent anew that has (or has not) been seen to branch.
    pub fn branching(branchy: bool) -> Self {
        Self { branchy, ..Self::default() }
    }

    /// Of a turn whose client chains by itself.
    pub fn anchored() -> Self {
        Self { anchored: true, ..Self::default() }
    }
}

fn continuation(
    key: &Key,
    request: &Request,
    id: HeadId,
    head: &Head,
    step: Step,
) -> Result<Continuation, Reason> {
    let Followed { new_from, thoughts } = head.echo.follow(key, request, step.items)?;
    if head.unknown != request.unknown {
        return Err(Reason::FieldChanged);
    }
    let to = visible_at(request, new_from);
    let mut held: Vec<Held> = head.held.to_vec();
    held.extend(thoughts.into_iter().map(|thought| Held {
        keys: thought.keys,
        from: thought.from.map_or(step.visible, |items| visible_at(request, items)),
        to: thought.to.map_or(to, |items| visible_at(request, items)),
    }));
    let grade = grade(request, &held, to)?;
    Ok(Continuation { head: id, new_from, grade, held: held.into() })
}

/// Visible items among the first `items` of the request.
fn visible_at(request: &Request, items: usize) -> u32 {
    let steps = request.chain.as_ref().map_or(&[][..], |chain| &chain.steps);
    steps.iter().rev().find(|step| step.items <= items).map_or(0, |step| step.visible)
}

/// Reasoning in the request must be, in order and in place, among what upstream holds (decisions 2.4).
fn grade(request: &Request, held: &[Held], visible: u32) -> Result<Grade, Reason> {
    let sent = request.chain.as_ref().map_or(&[][..], |chain| &chain.reasoning);
    let mut open = held.iter();
    let mut matched = 0;
    for (at, key) in sent.iter().take_while(|(at, _)| *at <= visible) {
        let fits = |held: &Held| held.keys.contains(key) && (held.from..=held.to).contains(at);
        if !open.any(fits) {
            return Err(Reason::ReasoningAdded);
        }
        matched += 1;
    }
    Ok(if matched == held.len() { Grade::Exact } else { Grade::Visible })
}

/// What upstream holds after a request sent in full: the reasoning the client sent, where it sent it.
fn sent(reasoning: &[(u32, ReasoningKey)]) -> Arc<[Held]> {
    reasoning.iter().map(|(at, key)| Held { keys: Box::new([*key]), from: *at, to: *at }).collect()
}

#[cfg(test)]
mod tests;
