//! There was no answer: would a client without a proxy have been without one, too?
//!
//! Explains from the provider's own books: which tries of this very turn it saw, over which connections, and what was done
//! to those (`losses.rs`). What nothing explains is a lost turn. In words:
//! - No connection, or none that lived: only while the proxy was drained or killed, or just after, on a kept connection.
//! - Nothing more comes: never explained.
//! - A response failed or incomplete: the provider ended a try of this turn so, under this response.
//! - The provider's own error: it told one in a try of this turn.
//! - A stream that breaks: its own transport was lost by the book; or the provider was down, or the proxy killed, and the
//!   break says nothing else. A slow reader's: this client did read slowly.
//! - A status of the proxy's for a loss of transport, nothing having gone down: of two transports, or of one if the turn
//!   must not be run twice, or of the client's bytes over HTTP; or the provider was down.
//! - Something is not found: the request itself names it, and the provider says so to a direct request, too.

use std::time::Instant;

use http_body_util::Full;
use hyper::Request;
use serde_json::Value;
use tailwire::sim;
use tailwire::sim::ledger::Outcome as Ended;

use crate::World;
use crate::chat::{Ask, Chat};
use crate::client::{self, Manner, Outcome};
use crate::losses::{DEAFNESS, NOTICE, Span, Try, losses, lost_over_http};
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
        // A connection kept from before may have ended unread.
        let kept = self.from.checked_sub(NOTICE).unwrap_or(self.from);
        let near = |what| world.troubles.met(what, kept, self.to);
        // A runtime that is torn down drops a turn's socket before the turn.
        let mute = |code: &str| code.is_empty() || code.starts_with("tailwire_upstream");
        // Every socket goes with either side; its streams hear that, and nothing else.
        let cut = |code: &str| mute(code) || code == "tailwire_socket_lost";
        let why = match outcome {
            Outcome::Left => Some("left by the client"),
            Outcome::Unreachable(_) if near(Trouble::Cut) => Some("proxy killed"),
            Outcome::Unreachable(_) if near(Trouble::Draining) => Some("proxy draining"),
            Outcome::Unreachable(_) | Outcome::Hung(_) => None,
            Outcome::Done(answer) => ended(tries, &answer.response),
            Outcome::Broken { code, message, begun, .. } => match self.broken(tries, code, message, begun) {
                None if cut(code) && met(Trouble::Cut) => Some("proxy killed"),
                None if cut(code) && met(Trouble::ProviderDown) && !tries.is_empty() => Some("provider down"),
                told => told,
            },
            Outcome::Refused { code, message, plan, .. } => {
                match self.refused(world, tries, code, message, plan) {
                    None if code.starts_with("tailwire_upstream") && met(Trouble::ProviderDown) => {
                        Some("provider down")
                    }
                    None if mute(code) && met(Trouble::Cut) => Some("proxy killed"),
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
        // A response that nobody asked for may have begun it.
        let own = tries.iter().find(|seen| seen.record.response.as_deref() == Some(begun));
        let seen = own.or_else(|| tries.last())?;
        let fault = seen.broken(self.span())?;
        if fault.settings.as_deref() == Some(self.settings) {
            return Some("stream broken with its connection");
        }
        Some("stream broken with its shared connection")
    }

    fn span(&self) -> Span {
        Span { from: self.from, to: self.to }
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
        if lost_over_http(tries, self.span()) {
            return Some("transport lost over http");
        }
        let around = world.provider.struck(self.credential, self.long_before(), self.to);
        let made = if plan.contains("recovered") { 2 } else { 1 };
        let lost = losses((tries, &around), self.span(), FIRST_EVENT, made);
        let once = self.ask.acts || self.ask.anchor.is_some();
        if lost >= 2 {
            return Some("transport lost more than once");
        }
        (once && lost == 1).then_some("transport lost, not to be run twice")
    }

    /// When a socket may have gone deaf that this attempt met.
    fn long_before(&self) -> Instant {
        self.from.checked_sub(DEAFNESS).unwrap_or(self.from)
    }

    /// An id the client itself named is not known to the provider: asked directly, it says the same.
    async fn is_forgotten(&self, world: &World, message: &str) -> bool {
        // The id stands in the message between quotes, and in the request.
        let named = message.split('\'').nth(1).unwrap_or_default();
        let body = std::str::from_utf8(&self.ask.body).unwrap_or_default();
        if !message.contains("not found") || named.is_empty() || !body.contains(named) {
            return false;
        }
        let anchor = self.ask.anchor.as_slice();
        let mut line = None;
        // An item cannot be asked for; it is there as long as its response.
        for id in if self.ask.refers { &self.chat.taken } else { anchor } {
            let request = Request::get(format!("http://{}/v1/responses/{id}", world.provider.addr))
                .header("host", "provider")
                .header("authorization", format!("Bearer {}", self.key))
                .body(Full::default())
                .expect("a request");
            let outcome = client::attempt(&mut line, world.provider.addr, request, Manner::default()).await;
            if matches!(outcome, Outcome::Refused { status: 404, .. }) {
                return true;
            }
        }
        false
    }

    fn story(&self, world: &World, outcome: &Outcome, tries: &[Try]) -> String {
        let mut told = format!("{outcome:?}");
        told.truncate(told.char_indices().map(|(at, _)| at).take(1200).last().unwrap_or_default());
        let tries: Vec<String> = tries.iter().map(brief).collect();
        let around: Vec<String> = world
            .provider
            .struck(self.credential, self.long_before(), self.to)
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
    let own = |seen: &&Try| seen.record.response.as_deref().is_none_or(|id| response["id"] == id);
    let mut ended = tries.iter().filter(own).map(|seen| seen.record.outcome);
    ended.any(|outcome| outcome == Ended::Ended(wanted)).then_some(told)
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

/// Stands in the message of every error that the chaos has the provider give.
pub(crate) const MARK: &str = "soak mishap";
