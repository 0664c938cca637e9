//! What a response said, as the client will repeat it, and whether it did (`clients.md` A.4, rules 1–8).
//!
//! Compared as a set: clients reorder a message and its calls. A compaction item alone keeps its place: what stands before
//! it is not read any more. Decides nothing about sockets.

use crate::proto::digest::{Digest, Key};
use crate::proto::transcript::plan::Reason;
use crate::proto::transcript::request::Request;
use crate::proto::wire::event::{Event, EventKind};
use crate::proto::wire::item::{self, ModelItem, ReasoningKey};
use crate::proto::wire::json;

/// One thing a response said.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Text { text: Digest, ids: Vec<Digest> },
    Call { call: Digest, call_id: Digest },
    Reasoning { keys: Vec<ReasoningKey>, ids: Vec<ReasoningKey>, think: Digest },
    Compaction { blobs: Vec<Digest>, ids: Vec<Digest> },
    Other { whole: Digest, ids: Vec<Digest>, call_id: Option<Digest> },
}

impl Said {
    fn new(key: &Key, text: &str) -> Option<Self> {
        Some(match item::model_item(key, text).ok()? {
            ModelItem::Text { text, id, .. } => Self::Text { text, ids: id.into_iter().collect() },
            ModelItem::Call { call, call_id } => Self::Call { call, call_id },
            ModelItem::Reasoning { key, id, think } => {
                let ids: Vec<_> = id.into_iter().collect();
                Self::Reasoning { keys: vec![key], ids, think }
            }
            ModelItem::Compaction { blob, id } => {
                Self::Compaction { blobs: vec![blob], ids: id.into_iter().collect() }
            }
            ModelItem::Other { whole, id, call_id } => {
                Self::Other { whole, ids: id.into_iter().collect(), call_id }
            }
            // Outputs of hosted tools have an `_output` type of their own: whole, like any unknown item.
            ModelItem::Output { .. } | ModelItem::Reference { .. } | ModelItem::Foreign => return None,
        })
    }

    /// Takes in another copy of the same item; false if it says something else.
    fn merge(&mut self, other: Self) -> bool {
        match (self, other) {
            (Self::Text { text, ids }, Self::Text { text: t, ids: more }) if *text == t => ids.extend(more),
            (Self::Call { call, .. }, Self::Call { call: c, .. }) if *call == c => {}
            (Self::Reasoning { keys, ids, .. }, Self::Reasoning { keys: k, ids: more, .. }) => {
                keys.extend(k);
                ids.extend(more);
            }
            // Its copies may differ in bytes, as those of reasoning do (protocol §1.16).
            (Self::Compaction { blobs, ids }, Self::Compaction { blobs: b, ids: more }) => {
                blobs.extend(b);
                ids.extend(more);
            }
            (Self::Other { whole, ids, .. }, Self::Other { whole: w, ids: more, .. }) if *whole == w => {
                ids.extend(more);
            }
            _ => return false,
        }
        true
    }

    fn call_id(&self) -> Option<Digest> {
        match self {
            Self::Call { call_id, .. } => Some(*call_id),
            Self::Other { call_id, .. } => *call_id,
            Self::Text { .. } | Self::Reasoning { .. } | Self::Compaction { .. } => None,
        }
    }

    fn is_thought(&self) -> bool {
        matches!(self, Self::Reasoning { .. })
    }
}

/// The signature of what a response said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Echo {
    said: Vec<Said>,
}

/// Reasoning of a response that its echo may still name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thought {
    /// All keys of the item.
    pub keys: Box<[ReasoningKey]>,
    /// It may stand from this item of the request on: a compaction item comes before it.
    pub from: Option<usize>,
    /// It may stand up to this item of the request: a compaction item comes after it.
    pub to: Option<usize>,
}

/// How a request repeats a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// Index of the first new item.
    pub new_from: usize,
    /// The response's reasoning that no visible item stands for, in order.
    pub thoughts: Vec<Thought>,
}

impl Echo {
    /// Checks that from item `from` on the request repeats this response and then says something new.
    ///
    /// # Errors
    /// The first rule it breaks.
    pub fn follow(&self, key: &Key, request: &Request, from: usize) -> Result<Followed, Reason> {
        if from == request.items() {
            return Err(Reason::NothingNew);
        }
        let mut taken: Vec<Option<usize>> = vec![None; self.said.len()];
        let mut at = from;
        while at < request.items() {
            match self.take(key, request, at, &mut taken)? {
                true => at += 1,
                false => break,
            }
        }
        if at == request.items() {
            return Err(Reason::NothingNew);
        }
        let unsaid = self.said.iter().zip(&taken).any(|(said, at)| at.is_none() && !said.is_thought());
        if unsaid {
            return Err(Reason::EchoMissing);
        }
        self.answered(key, request, at)?;
        Ok(Followed { new_from: at, thoughts: self.thoughts(&taken) })
    }

    /// The reasoning that nothing was taken for, and where it may stand.
    fn thoughts(&self, taken: &[Option<usize>]) -> Vec<Thought> {
        let border = |n: usize| taken[n].filter(|_| matches!(self.said[n], Said::Compaction { .. }));
        let open = self.said.iter().enumerate().filter(|(n, _)| taken[*n].is_none());
        let thoughts = open.filter_map(|(n, said)| match said {
            Said::Reasoning { keys, ids, .. } => Some(Thought {
                keys: keys.iter().chain(ids).copied().collect(),
                from: (0..n).filter_map(border).max().map(|at| at + 1),
                to: (n + 1..taken.len()).filter_map(border).min(),
            }),
            _ => None,
        });
        thoughts.collect()
    }

    /// Takes item `at` as part of the echo: true if it is, false if the new items begin here.
    fn take(
        &self,
        key: &Key,
        request: &Request,
        at: usize,
        taken: &mut [Option<usize>],
    ) -> Result<bool, Reason> {
        let view = view(key, request, at)?;
        let find = |wanted: &dyn Fn(&Said) -> bool| {
            self.said.iter().enumerate().position(|(n, said)| taken[n].is_none() && wanted(said))
        };
        let found = match view {
            // Which reasoning it is, and whether it may stand here, is checked for the whole request at once.
            ModelItem::Reasoning { .. } => return Ok(true),
            ModelItem::Output { .. } | ModelItem::Foreign => return Ok(false),
            ModelItem::Text { text, think, .. } => {
                find(&|said| matches!(said, Said::Text { text: t, .. } if t == text)).or_else(|| {
                    find(&|said| matches!(said, Said::Reasoning { think: t, .. } if *think && t == text))
                })
            }
            ModelItem::Call { call, .. } => {
                find(&|said| matches!(said, Said::Call { call: c, .. } if c == call))
            }
            ModelItem::Compaction { blob, .. } => {
                find(&|said| matches!(said, Said::Compaction { blobs, .. } if blobs.contains(blob)))
            }
            ModelItem::Reference { id, key } => find(&|said| match said {
                Said::Text { ids, .. } | Said::Compaction { ids, .. } | Said::Other { ids, .. } => {
                    id.is_some_and(|id| ids.contains(&id))
                }
                Said::Reasoning { ids, .. } => key.is_some_and(|key| ids.contains(&key)),
                Said::Call { .. } => false,
            }),
            ModelItem::Other { whole, .. } => {
                let found = find(&|said| matches!(said, Said::Other { whole: w, .. } if w == whole));
                if found.is_none() {
                    return Ok(false);
                }
                found
            }
        };
        let n = found.ok_or(Reason::EchoChanged)?;
        self.in_order(n, taken)?;
        taken[n] = Some(at);
        Ok(true)
    }

    /// Whether what was said as number `n` may come now, after what was taken before.
    fn in_order(&self, n: usize, taken: &[Option<usize>]) -> Result<(), Reason> {
        let all = || self.said.iter().zip(taken).enumerate();
        let (thought, border) = (Said::is_thought, |said: &Said| matches!(said, Said::Compaction { .. }));
        if thought(&self.said[n]) && all().skip(n + 1).any(|(_, (said, at))| thought(said) && at.is_some()) {
            // Reasoning keeps its order, also where a reference stands for it.
            return Err(Reason::ReasoningAdded);
        }
        // Across a compaction item, and for that item itself, all that was said before must have come, and nothing after.
        let misplaced = |(m, (said, at)): (usize, (&Said, &Option<usize>))| {
            let crosses = border(&self.said[n]) || border(said);
            crosses && ((m > n && at.is_some()) || (m < n && at.is_none() && !thought(said)))
        };
        if all().any(misplaced) { Err(Reason::EchoChanged) } else { Ok(()) }
    }

    /// The new items hold nothing in the model's name, and an output for every call of the response.
    fn answered(&self, key: &Key, request: &Request, from: usize) -> Result<(), Reason> {
        let mut outputs = Vec::new();
        for at in from..request.items() {
            match view(key, request, at)? {
                ModelItem::Output { call_id } => outputs.extend(*call_id),
                ModelItem::Foreign | ModelItem::Other { call_id: None, .. } => {}
                ModelItem::Reasoning { .. } => return Err(Reason::ReasoningAdded),
                ModelItem::Text { .. }
                | ModelItem::Call { .. }
                | ModelItem::Reference { .. }
                | ModelItem::Compaction { .. }
                | ModelItem::Other { call_id: Some(_), .. } => return Err(Reason::EchoChanged),
            }
        }
        let unanswered = self.said.iter().filter_map(Said::call_id).any(|call| !outputs.contains(&call));
        if unanswered { Err(Reason::CallUnanswered) } else { Ok(()) }
    }

    /// Bytes it weighs in a cache.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.said.len() * (size_of::<Said>() + 96)
    }
}

fn view<'a>(key: &Key, request: &'a Request, at: usize) -> Result<&'a ModelItem, Reason> {
    request.model_item(key, at).and_then(|item| item.as_ref().ok()).ok_or(Reason::Undigestable)
}

/// Items of one response that are remembered; a longer one is not continued.
const MAX_SAID: usize = 1 << 14;

/// Collects what a response says while it streams.
#[derive(Debug, Default)]
pub struct Listener {
    /// `output_item.done`, by output index.
    done: Vec<(u64, Said)>,
    unreadable: bool,
}

impl Listener {
    /// Takes the next event of the response.
    pub fn hear(&mut self, key: &Key, event: &Event) {
        if event.kind() != EventKind::ItemDone {
            return;
        }
        let said = event.value("item").and_then(|item| Said::new(key, item));
        match (said, event.number("output_index")) {
            (Some(said), Some(index)) if self.done.len() < MAX_SAID => self.done.push((index, said)),
            _ => self.unreadable = true,
        }
    }

    /// The signature, once the terminal event's `output` is known (protocol §1.16: it may be empty).
    ///
    /// `None` if the two accounts of the output differ: then we do not know what the client will repeat (F19).
    pub fn finish(mut self, key: &Key, output: Option<&str>) -> Option<Echo> {
        if self.unreadable {
            return None;
        }
        self.done.sort_by_key(|(index, _)| *index);
        let mut said: Vec<Said> = self.done.into_iter().map(|(_, said)| said).collect();
        let output = output.unwrap_or("[]");
        let mut last = Vec::new();
        for span in json::elements(output).ok()? {
            last.push(Said::new(key, &output[span])?);
        }
        if last.is_empty() {
            return Some(Echo { said });
        }
        if said.is_empty() {
            return Some(Echo { said: last });
        }
        let agree =
            said.len() == last.len() && said.iter_mut().zip(last).all(|(said, last)| said.merge(last));
        agree.then_some(Echo { said })
    }
}

#[cfg(test)]
mod tests;
