//! There was no answer: would a client without a proxy have been without one, too?
//!
//! Explains from the provider's own books: which tries of this very turn it saw, over which connections, and what was done
//! to those. What nothing explains is a lost turn; the rules are at the head of `main.rs`.

use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::Request;
use serde_json::Value;
use tailwire::sim::ledger::Outcome as Ended;
use tailwire::sim::{self, Transport};

use crate::World;
use crate::chat::{Ask, Chat};
use crate::client::{self, Manner, Outcome};
use crate::provider::Try;
use crate::proxy::FIRST_EVENT;
use crate::trouble::Trouble;

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
        why.ok_or_else(|| self.story(world, outcome, tries))
    }

    /// A stream that had begun. After its first byte a direct client's is lost with its connection as well.
    fn broken(&self, tries: &[Try], code: &str, message: &str, begun: &str) -> Option<&'static str> {
        if code == "tailwire_slow_reader" {
            return self.manner.pause.map(|_| "read too slowly");
        }
        if message.contains(MARK) {
            return told_there(tries).then_some("provider's error");
        }
        let strikes = &tries.last()?.strikes;
        let fatal: Vec<_> = strikes.iter().filter(|struck| breaks(&struck.fault)).collect();
        if fatal.iter().any(|struck| struck.response.as_deref() == Some(begun)) {
            return Some("stream broken with its connection");
        }
        (!fatal.is_empty()).then_some("stream broken with its shared connection")
    }

    /// A status. Ours stands for a loss of transport: one such before the first byte must have been recovered from.
    fn refused(
        &self,
        world: &World,
        tries: &[Try],
        code: &str,
        message: &str,
        plan: &str,
    ) -> Option<&'static str> {
        if message.contains(MARK) {
            return told_there(tries).then_some("provider's error");
        }
        if !code.starts_with("tailwire_upstream") {
            return None;
        }
        if http_struck(tries) {
            return Some("transport lost over http");
        }
        let lost = self.losses(world, tries, plan.contains("recovered"));
        let once = self.ask.acts || self.ask.anchor.is_some();
        if lost >= 2 {
            return Some("transport lost more than once");
        }
        (once && lost == 1).then_some("transport lost, not to be run twice")
    }

    /// Losses of transport under this turn before its first byte, as the provider's book has them.
    fn losses(&self, world: &World, tries: &[Try], recovered: bool) -> usize {
        let here = |seen: &Try| {
            let fatal = seen.strikes.iter().filter(|struck| breaks(&struck.fault));
            let (asked, unasked): (Vec<_>, Vec<_>) = fatal.partition(|struck| struck.fault != UNASKED);
            usize::from(!asked.is_empty()) + usize::from(unasked.iter().any(|struck| struck.at >= self.from))
        };
        let struck: usize = tries.iter().map(here).sum();
        // One that the provider took too long to begin (it may work on two at a time) was given up.
        let overdue = usize::from(self.to - self.from >= FIRST_EVENT);
        // A frame may have been written to a socket that was never read again, or have met a limit: then the book has it
        // under another connection, and not as a try of this turn.
        let from = self.from.checked_sub(DEAFNESS).unwrap_or(self.from);
        let around = world.provider.struck(self.credential, from, self.to);
        let mut elsewhere: Vec<u64> = around
            .iter()
            .filter(|struck| breaks(&struck.fault) && struck.fault != UNASKED)
            .map(|struck| struck.connection)
            .filter(|number| tries.iter().all(|seen| seen.record.connection != *number))
            .collect();
        elsewhere.sort_unstable();
        elsewhere.dedup();
        let made = if recovered { 2 } else { 1 };
        struck + overdue + elsewhere.len().min(made - tries.len().min(made))
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

    fn story(&self, world: &World, outcome: &Outcome, tries: &[Try]) -> String {
        let mut told = format!("{outcome:?}");
        told.truncate(told.char_indices().map(|(at, _)| at).take(1200).last().unwrap_or_default());
        let tries: Vec<String> = tries.iter().map(brief).collect();
        let from = self.from.checked_sub(DEAFNESS).unwrap_or(self.from);
        let around: Vec<String> = world
            .provider
            .struck(self.credential, from, self.to)
            .iter()
            .map(|struck| format!("{} on {}, {:?} ago", struck.fault, struck.connection, self.to - struck.at))
            .collect();
        format!(
            "{told}\nafter {:?}, {:?}, acts {}, anchor {:?}\ntries {tries:#?}\naround {around:?}",
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

/// The provider told an error of its own in a try. Of two it may have told only the first so far, which ends nothing on
/// its book.
fn told_there(tries: &[Try]) -> bool {
    use sim::rules::Ending::{Failed, Refused};
    tries.iter().any(|seen| {
        let told = seen.strikes.iter().filter(|struck| struck.fault == "TwoTerminals");
        [Ended::Ended(Refused), Ended::Ended(Failed)].contains(&seen.record.outcome)
            || told.clone().any(|struck| struck.response == seen.record.response)
    })
}

/// Over HTTP the client has its own connection's fate, with or without a proxy.
fn http_struck(tries: &[Try]) -> bool {
    let http = tries.iter().filter(|seen| seen.record.transport == Transport::Http);
    http.flat_map(|seen| &seen.strikes).any(|struck| breaks(&struck.fault))
}

/// Whether a fault ends or garbles its whole connection. A fault this list does not know is taken to.
fn breaks(fault: &str) -> bool {
    !["Error", "TwoTerminals", "NotFound", "Failed", "Incomplete", "PingFlood", "Upgrade", "Frame", "Trickle"]
        .contains(&fault)
}

/// The fault that opens a response nobody asked for.
const UNASKED: &str = "SpontaneousEvent";
/// How long a socket may have been deaf before that is noticed: a ping and its pong, and a margin.
const DEAFNESS: Duration = Duration::from_secs(30);
/// Stands in the message of every error that the chaos has the provider give.
pub(crate) const MARK: &str = "soak mishap";
