//! The two questions put to every attempt. Was the context right? It is if the provider's digests of it are those of the
//! client's own full request, posted to a second provider that nothing happens to. And if there was no answer: would a
//! client without a proxy have been without one, too?
//!
//! Explains from the provider's own books: which tries of this very turn it saw, over which connections, and what was done
//! to those. What nothing explains is a lost turn.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request};
use serde_json::Value;
use tailwire::sim::ledger::{Outcome as Ended, Record};
use tailwire::sim::{self, Transport};

use crate::World;
use crate::chat::{Ask, Chat};
use crate::client::{self, Answer, Line, Manner, Outcome};
use crate::lore::Items;
use crate::provider::Try;
use crate::trouble::Trouble;

/// What a direct client would have been given.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    sim: Value,
    output: Value,
    /// Digest of the settings: by it the tries of a turn are known.
    pub(crate) settings: String,
    pub(crate) credential: String,
}

/// An attempt without a right answer, and what is known about it.
pub(crate) struct Case<'a> {
    pub(crate) ask: &'a Ask,
    pub(crate) chat: &'a Chat,
    pub(crate) key: &'a str,
    pub(crate) settings: &'a str,
    pub(crate) credential: &'a str,
    /// Tries of this turn that earlier attempts account for.
    pub(crate) before: usize,
    pub(crate) manner: Manner,
    pub(crate) from: Instant,
    pub(crate) to: Instant,
}

/// What the second provider makes of a body.
pub(crate) async fn direct(world: &World, line: &mut Option<Line>, key: &str, body: &Value) -> Expected {
    let text = Bytes::from(body.to_string());
    let outcome = ask_reference(world, line, Method::POST, "", key, text).await;
    let Outcome::Done(answer) = outcome else {
        panic!("the reference refuses a request of the soak's own: {outcome:?}");
    };
    let id = answer.response["id"].as_str().unwrap_or_default().to_owned();
    if body["store"] != false {
        // Nobody will continue it, and it would only take room.
        drop(ask_reference(world, line, Method::DELETE, &format!("/{id}"), key, Bytes::new()).await);
    }
    let record = world.reference.provider.ledger().read(|book| {
        let mut newest = book.turns.iter().rev();
        newest.find(|record| record.response.as_deref() == Some(&*id)).cloned()
    });
    let record = record.expect("the reference writes down what it answers");
    let Answer { mut response, .. } = answer;
    Expected {
        sim: response["sim"].take(),
        output: response["output"].take(),
        settings: record.settings,
        credential: record.credential,
    }
}

async fn ask_reference(
    world: &World,
    line: &mut Option<Line>,
    method: Method,
    path: &str,
    key: &str,
    body: Bytes,
) -> Outcome {
    let addr = world.reference.addr;
    let request = || {
        Request::builder()
            .method(method.clone())
            .uri(format!("http://{addr}/v1/responses{path}"))
            .header("host", "reference")
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json")
            .body(Full::new(body.clone()))
            .expect("a request")
    };
    let outcome = client::attempt(line, addr, request(), Manner::default()).await;
    match outcome {
        // It was kept too long, and closed at the other end meanwhile.
        Outcome::Unreachable(_) => client::attempt(line, addr, request(), Manner::default()).await,
        outcome => outcome,
    }
}

/// Judges a completed answer; the story of what is wrong with it, if anything.
pub(crate) async fn right(
    world: &World,
    line: &mut Option<Line>,
    key: &str,
    (answer, expected): (&Answer, &Expected),
) -> Result<(), String> {
    let response = &answer.response;
    let id = response["id"].as_str().unwrap_or_default();
    let output = response["output"].as_array().into_iter().flatten();
    let output: Items = output.map(|item| Arc::new(item.clone())).collect();
    let mut expected = expected.clone();
    let mut wrong = Vec::new();
    if response["sim"]["visible"] != expected.sim["visible"] {
        wrong.push(format!("visible context {} is not {}", response["sim"], expected.sim));
    }
    if !output.is_empty() {
        world.lore.outputs.put(id, output.clone());
    }
    let Some(record) = world.provider.record(id) else {
        world.tally.count("judged by digests alone", "its book is closed");
        return if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) };
    };
    let mut exact = true;
    if answer.plan.contains("visible") {
        match loose(world, line, key, &record).await {
            Ok(Some(full)) => expected = full,
            Ok(None) => {
                world.tally.count("judged by digests alone", "its history is forgotten");
                exact = false;
            }
            Err(why) => wrong.push(why),
        }
    }
    if exact && response["sim"]["context"] != expected.sim["context"] {
        wrong.push(format!("context {} is not {}", response["sim"], expected.sim));
    } else if exact && !output.is_empty() && bare(&response["output"]) != bare(&expected.output) {
        wrong.push(difference(&bare(&response["output"]), &bare(&expected.output)));
    }
    if record.settings != expected.settings {
        wrong.push("other settings".to_owned());
    }
    if record.credential != expected.credential {
        wrong.push("another credential".to_owned());
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{}; {record:?}", wrong.join("; "))) }
}

/// What a direct client would be given who had left nothing out: with exactly the reasoning of the chain continued.
async fn loose(
    world: &World,
    line: &mut Option<Line>,
    key: &str,
    record: &Record,
) -> Result<Option<Expected>, String> {
    let Some(body) = world.lore.bodies.find(&record.settings) else { return Ok(None) };
    let Some(context) = upstream(world, line, key, record).await else { return Ok(None) };
    let thoughts = |items: &Items| -> HashSet<String> {
        items.iter().filter_map(|item| thought(&item["encrypted_content"]).map(str::to_owned)).collect()
    };
    if !thoughts(&body.items).is_subset(&thoughts(&context)) {
        return Err("reasoning that the client sent is not in the context".to_owned());
    }
    Ok(Some(direct(world, line, key, &body.with(&context)).await))
}

/// The context of a response, rebuilt along the chain of responses that the provider says it continued. None if
/// something in it is no longer known.
async fn upstream(world: &World, line: &mut Option<Line>, key: &str, last: &Record) -> Option<Items> {
    let mut chain = vec![last.clone()];
    let mut context = Items::new();
    while let Some(previous) = &chain.last()?.previous {
        if let Some(known) = world.lore.contexts.find(previous) {
            context = known;
            break;
        }
        chain.push(world.provider.record(previous)?);
    }
    for record in chain.iter().rev() {
        let body = world.lore.bodies.find(&record.settings)?;
        if let Some(previous) = &record.previous {
            let said = match world.lore.outputs.find(previous) {
                Some(said) => said,
                // Its client left; the model says the same to the same context.
                None => {
                    let asked = world.lore.bodies.find(&world.provider.record(previous)?.settings)?;
                    let again = direct(world, line, key, &asked.with(&context)).await;
                    again.output.as_array()?.iter().map(|item| Arc::new(item.clone())).collect()
                }
            };
            context.extend(said);
            context.extend_from_slice(&body.items[body.items.len().checked_sub(record.items)?..]);
        } else {
            context = body.items.clone();
        }
        world.lore.contexts.put(record.response.as_deref()?, context.clone());
    }
    Some(context)
}

impl Case<'_> {
    /// Why a direct client would have been without an answer as well; or the story of a lost turn.
    pub(crate) async fn explain(&self, world: &World, outcome: &Outcome) -> Result<&'static str, String> {
        let tries = world.provider.tries(self.settings);
        let tries = &tries[self.before.min(tries.len())..];
        let met = |what| world.troubles.met(what, self.from, self.to);
        let why = match outcome {
            Outcome::Left => Some("left by the client"),
            Outcome::Unreachable(_) if met(Trouble::Cut) => Some("proxy killed"),
            Outcome::Unreachable(_) if met(Trouble::Draining) => Some("proxy draining"),
            Outcome::Unreachable(_) => None,
            Outcome::Hung(_) => http_struck(tries).then_some("fault over http"),
            Outcome::Done(answer) => ended(tries, &answer.response),
            Outcome::Broken { code, message, begun, .. } => {
                if met(Trouble::Cut) {
                    Some("proxy killed")
                } else if met(Trouble::ProviderDown) {
                    Some("provider down")
                } else {
                    self.broken(tries, code, message, begun)
                }
            }
            Outcome::Refused { code, message, plan, .. } => {
                let told = self.refused(world, tries, code, message, plan);
                match told {
                    None if code.starts_with("tailwire_upstream") && met(Trouble::ProviderDown) => {
                        Some("provider down")
                    }
                    None if met(Trouble::Cut) => Some("proxy killed"),
                    None if self.is_forgotten(world, message).await => Some("forgotten by the provider"),
                    told => told,
                }
            }
        };
        why.ok_or_else(|| self.story(outcome, tries))
    }

    /// A stream that had begun. After its first byte a direct client's is lost with its connection as well.
    fn broken(&self, tries: &[Try], code: &str, message: &str, begun: &str) -> Option<&'static str> {
        if code == "tailwire_slow_reader" {
            return self.manner.pause.map(|_| "read too slowly");
        }
        if message.contains(MARK) {
            return refused_there(tries).then_some("provider's error");
        }
        let strikes = &tries.last()?.strikes;
        let fatal: Vec<_> = strikes.iter().filter(|struck| breaks(&struck.fault)).collect();
        if fatal.iter().any(|struck| struck.response.as_deref() == Some(begun)) {
            return Some("stream broken with its connection");
        }
        (!fatal.is_empty()).then_some("stream broken with its shared connection")
    }

    /// A status. Ours stands for a loss of transport: one such before the first byte must have been recovered from.
    /// A frame that its socket's peer never read is on no book; of that one the plan tells.
    fn refused(
        &self,
        world: &World,
        tries: &[Try],
        code: &str,
        message: &str,
        plan: &str,
    ) -> Option<&'static str> {
        if message.contains(MARK) {
            return refused_there(tries).then_some("provider's error");
        }
        if !code.starts_with("tailwire_upstream") {
            return None;
        }
        let struck =
            tries.iter().filter(|seen| seen.strikes.iter().any(|struck| breaks(&struck.fault))).count();
        let once = self.ask.acts || self.ask.anchor.is_some();
        // One the provider took too long to begin (it may work on two at a time) was given up, and is no strike either.
        let overdue = self.to - self.from >= FIRST_EVENT;
        let unread = usize::from(plan.contains("recovered") && (tries.len() == 1 || overdue));
        if struck + unread >= 2 || http_struck(tries) {
            return Some("transport lost more than once");
        }
        // Its one frame may have been written to a socket that was never read again.
        let from = self.from.checked_sub(DEAFNESS).unwrap_or(self.from);
        let around = world.provider.struck(self.credential, from, self.to);
        let around = around.iter().filter(|fault| breaks(fault)).count();
        if tries.is_empty() && plan.contains("recovered") && around >= 2 {
            return Some("transport lost more than once");
        }
        let lost = struck + around >= 1;
        (once && lost).then_some("transport lost, not to be run twice")
    }

    /// An id the client itself named is not known to the provider: asked directly, it says the same.
    async fn is_forgotten(&self, world: &World, message: &str) -> bool {
        if !message.contains("not found") || !(self.ask.refers || self.ask.anchor.is_some()) {
            return false;
        }
        let mut line = None;
        for id in &self.chat.taken {
            let request = Request::get(format!("http://{}/v1/responses/{id}", world.provider.addr))
                .header("host", "provider")
                .header("authorization", format!("Bearer {}", self.key))
                .body(Full::default())
                .expect("a request");
            let outcome = client::attempt(&mut line, world.provider.addr, request, Manner::default()).await;
            if !matches!(outcome, Outcome::Done(_)) {
                return true;
            }
        }
        false
    }

    fn story(&self, outcome: &Outcome, tries: &[Try]) -> String {
        let mut told = format!("{outcome:?}");
        told.truncate(told.char_indices().map(|(at, _)| at).take(1200).last().unwrap_or_default());
        let tries: Vec<String> = tries.iter().map(brief).collect();
        format!(
            "{told}\nafter {:?}, {:?}, acts {}, anchor {:?}\ntries {tries:#?}",
            self.to - self.from,
            self.manner,
            self.ask.acts,
            self.ask.anchor
        )
    }
}

fn brief(seen: &Try) -> String {
    let Try { record, strikes } = seen;
    let strikes: Vec<&str> = strikes.iter().map(|struck| &*struck.fault).collect();
    format!(
        "{:?} on connection {} lane {:?}, continues {:?}, response {:?}, {:?} after {} tokens; strikes there {strikes:?}",
        record.transport,
        record.connection,
        record.stream_id,
        record.previous,
        record.response,
        record.outcome,
        record.tokens
    )
}

/// A response that failed or was left incomplete: so the provider ended it.
fn ended(tries: &[Try], response: &Value) -> Option<&'static str> {
    let (wanted, told) = match response["status"].as_str() {
        Some("failed") => (sim::rules::Ending::Failed, "provider's failed"),
        Some("incomplete") => (sim::rules::Ending::Incomplete, "provider's incomplete"),
        _ => return None,
    };
    tries.iter().any(|seen| seen.record.outcome == Ended::Ended(wanted)).then_some(told)
}

/// The provider told an error; where it told it twice, its book has the second ending.
fn refused_there(tries: &[Try]) -> bool {
    use sim::rules::Ending::{Failed, Refused};
    tries.iter().any(|seen| [Ended::Ended(Refused), Ended::Ended(Failed)].contains(&seen.record.outcome))
}

/// Over HTTP the client has its own connection's fate, with or without a proxy.
fn http_struck(tries: &[Try]) -> bool {
    let http = tries.iter().filter(|seen| seen.record.transport == Transport::Http);
    http.flat_map(|seen| &seen.strikes).any(|struck| breaks(&struck.fault))
}

/// Whether a fault ends or garbles its whole connection. A fault this list does not know is taken to.
fn breaks(fault: &str) -> bool {
    !["Error", "TwoTerminals", "NotFound", "Failed", "Incomplete", "PingFlood", "Upgrade"].contains(&fault)
}

/// An output without the ids that every run mints anew, and of each blob only whose copy it is.
fn bare(output: &Value) -> Value {
    let mut items = output.clone();
    for item in items.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        item.remove("id");
        if let Some(blob) = item.get_mut("encrypted_content") {
            *blob = thought(blob).into();
        }
    }
    items
}

/// Copies of a blob differ, but not in their beginning, which is the thought's identity.
fn thought(blob: &Value) -> Option<&str> {
    blob.as_str()?.get(..104)
}

/// The first item that two outputs do not share.
fn difference(one: &Value, other: &Value) -> String {
    let items = |output: &Value| output.as_array().cloned().unwrap_or_default();
    let (one, other) = (items(one), items(other));
    let at = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
    format!("output {at} is {:.400?}, not {:.400?}", one.get(at), other.get(at))
}

/// How long the proxies of a run wait for a turn's first event (`proxy.rs`).
const FIRST_EVENT: Duration = Duration::from_secs(6);
/// How long a socket may have been deaf before that is noticed.
const DEAFNESS: Duration = Duration::from_secs(15);
/// Stands in the message of every error that the chaos has the provider give.
pub(crate) const MARK: &str = "soak mishap";
