//! One WebSocket connection's rules: lanes, what they remember, the limits, and in which order turns advance.
//!
//! Pure: no socket, no clock. A driver (or a property test's world) hands in client frames and decides which
//! turn in flight advances next; a lane's memory changes only when a turn's last event is handed out.
//!
//! ```text
//!  receive ─▶ waiting ─▶ in flight, not begun ─▶ begun ─▶ … events … ─▶ ended
//!             (FIFO)         │ first advance: the parent is looked up here, and not before
//!                            └─▶ refused (one error frame)
//! ```

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value};

pub use super::account::{Account, Facts, Spoil, Violation};
use super::account::{Parent, Saved, Turn};
pub use super::context::Digests;
pub use super::refusal::Refusal;
use super::request::{Request, Transport};
use super::script::{Limits, Style};
pub use super::stream::{Emission, Ending};

/// Names a turn on its connection; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TurnId(u64);

/// What a frame turned out to be.
#[derive(Clone, Debug)]
pub struct Received {
    /// The turn it asks for; advance it once it is in [`Connection::in_flight`].
    pub turn: TurnId,
    /// Its lane; none for the default one.
    pub lane: Option<String>,
    /// The response it wants to continue.
    pub previous: Option<String>,
    /// Items in its input.
    pub items: usize,
    /// Digest of everything else it says.
    pub settings: String,
}

/// The provider's side of one connection.
#[derive(Debug)]
pub struct Connection {
    credential: String,
    opened: Instant,
    names: HashSet<String>,
    requests: usize,
    lanes: HashMap<Option<String>, Lane>,
    waiting: VecDeque<Pending>,
    in_flight: Vec<Pending>,
    next: u64,
}

#[derive(Debug, Default)]
struct Lane {
    latest: Option<Arc<Saved>>,
    busy: bool,
    /// A request has had its turn here.
    used: bool,
}

#[derive(Debug)]
struct Pending {
    id: TurnId,
    lane: Option<String>,
    previous: Option<String>,
    state: State,
}

#[derive(Debug)]
enum State {
    Asked(Box<Result<Request, Refusal>>),
    Begun(Box<Turn>),
}

impl Connection {
    /// A connection just opened by a credential (its SHA-256 as hexadecimal digits).
    #[must_use]
    pub fn new(now: Instant, credential: impl Into<String>) -> Self {
        Self {
            credential: credential.into(),
            opened: now,
            names: HashSet::new(),
            requests: 0,
            lanes: HashMap::new(),
            waiting: VecDeque::new(),
            in_flight: Vec::new(),
            next: 0,
        }
    }

    /// Takes in a client's text frame.
    ///
    /// # Errors
    /// The error frame for one that never reaches a lane. What is wrong with the request itself comes in its
    /// turn, as the first and only event of [`Self::advance`].
    pub fn receive(
        &mut self,
        now: Instant,
        limits: &Limits,
        account: &mut Account,
        text: &str,
    ) -> Result<Received, Value> {
        let Ok(Value::Object(body)) = serde_json::from_str(text) else {
            let refusal = Refusal::invalid("We could not parse the JSON body of your request.");
            return Err(refusal.frame(None));
        };
        let lane = body.get("stream_id").and_then(Value::as_str).map(str::to_owned);
        if let Err(refusal) = self.admit(now, limits, account, &body) {
            return Err(refusal.frame(lane.as_deref()));
        }
        let id = TurnId(self.next);
        self.next += 1;
        let request = Request::parse(body, Transport::WebSocket);
        let mut received = Received { turn: id, lane, previous: None, items: 0, settings: String::new() };
        if let Ok(request) = &request {
            for lapse in request.lapses(Transport::WebSocket) {
                account.blame(lapse, "response.create");
            }
            received.previous.clone_from(&request.previous);
            received.items = request.items.len();
            received.settings.clone_from(&request.settings);
        }
        self.waiting.push_back(Pending {
            id,
            lane: received.lane.clone(),
            previous: received.previous.clone(),
            state: State::Asked(Box::new(request)),
        });
        self.start(limits);
        Ok(received)
    }

    /// The turns being worked on, in the order they were started. Any of them may advance next.
    pub fn in_flight(&self) -> impl Iterator<Item = TurnId> {
        self.in_flight.iter().map(|pending| pending.id)
    }

    /// How many requests wait for their lane, or for one of the places in flight.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// What is known of a turn in flight, once it has begun.
    #[must_use]
    pub fn facts(&self, turn: TurnId) -> Option<&Facts> {
        match &self.in_flight.iter().find(|pending| pending.id == turn)?.state {
            State::Begun(turn) => Some(&turn.facts),
            State::Asked(_) => None,
        }
    }

    /// Hands out the next event of a turn in flight; none if it is not in flight. `unix` is the time in seconds.
    pub fn advance(
        &mut self,
        limits: &Limits,
        account: &mut Account,
        style: Style,
        unix: u64,
        turn: TurnId,
    ) -> Option<Emission> {
        let mut emission = match self.begun(limits, account, style, unix, turn)? {
            Ok(turn) => turn.next(unix),
            Err(refusal) => refused(&refusal),
        };
        self.finish(limits, account, turn, &mut emission);
        Some(emission)
    }

    /// Ends a turn in flight early, in a way that still has a response object; none if it is not in flight.
    pub fn spoil(
        &mut self,
        limits: &Limits,
        account: &mut Account,
        style: Style,
        unix: u64,
        (turn, spoil): (TurnId, &Spoil),
    ) -> Option<Emission> {
        let mut emission = match self.begun(limits, account, style, unix, turn)? {
            Ok(turn) => turn.spoil(spoil),
            Err(refusal) => refused(&refusal),
        };
        self.finish(limits, account, turn, &mut emission);
        Some(emission)
    }

    /// Ends a turn in flight without an event: the driver has sent an error of its own.
    pub fn abandon(&mut self, limits: &Limits, account: &mut Account, turn: TurnId) {
        self.end(limits, account, turn, Ending::Refused);
    }

    /// The checks made on arrival, before a frame has a place in a lane.
    fn admit(
        &mut self,
        now: Instant,
        limits: &Limits,
        account: &mut Account,
        body: &Map<String, Value>,
    ) -> Result<(), Refusal> {
        let kind = body.get("type").and_then(Value::as_str).unwrap_or_default();
        if kind != "response.create" {
            account.blame("client event", kind);
            let message = format!("Invalid value: '{kind}'. Supported values are: 'response.create'.");
            return Err(Refusal::named("invalid_value", "type", message));
        }
        let name = match body.get("stream_id").filter(|name| !name.is_null()) {
            None => None,
            Some(_) if limits.lanes.is_none() => {
                let message = "Unsupported parameter: stream_id";
                return Err(Refusal {
                    attributable: false,
                    ..Refusal::named("unsupported_parameter", "stream_id", message)
                });
            }
            Some(name) => Some(name.as_str().filter(|name| is_lane_name(name)).ok_or_else(|| Refusal {
                attributable: false,
                ..Refusal::named("invalid_stream_id", "stream_id", "Invalid stream_id.")
            })?),
        };
        if now.saturating_duration_since(self.opened) >= limits.max_age {
            let message = "Responses websocket connection limit reached (60 minutes). Create a new websocket connection to continue.";
            let refusal = Refusal::invalid(message);
            return Err(Refusal { code: Some("websocket_connection_limit_reached"), ..refusal });
        }
        self.requests += 1;
        if limits.requests.is_some_and(|most| self.requests > most) {
            let refusal = Refusal::invalid("This connection has reached its limit of requests.");
            return Err(Refusal { status: 429, code: Some("websocket_request_limit_reached"), ..refusal });
        }
        if let (Some(name), Some(most)) = (name, limits.lanes)
            && !self.names.contains(name)
        {
            if self.names.len() >= most {
                let message = format!("This connection has reached its limit of {most} distinct stream ids.");
                return Err(Refusal::named("websocket_stream_limit_reached", "stream_id", message));
            }
            self.names.insert(name.to_owned());
        }
        if self.waiting.len() >= MOST_WAITING {
            let refusal = Refusal::invalid("Too many requests are waiting on this connection.");
            return Err(Refusal { status: 429, ..refusal });
        }
        Ok(())
    }

    /// Moves waiting turns into flight, oldest first: FIFO within a lane, as many at once as the limit allows.
    fn start(&mut self, limits: &Limits) {
        let mut held: HashSet<Option<String>> = HashSet::new();
        let mut index = 0;
        while index < self.waiting.len() && self.in_flight.len() < limits.in_flight {
            let name = self.waiting[index].lane.clone();
            let free = !held.contains(&name) && self.lanes.get(&name).is_none_or(|lane| !lane.busy);
            if free && let Some(pending) = self.waiting.remove(index) {
                self.lanes.entry(name).or_default().busy = true;
                self.in_flight.push(pending);
            } else {
                held.insert(name);
                index += 1;
            }
        }
    }

    /// The turn, begun if it was not yet. Its parent must be there at this moment: a fork that comes too late,
    /// after its source lane has moved on, finds nothing (protocol 1.7).
    fn begun(
        &mut self,
        limits: &Limits,
        account: &mut Account,
        style: Style,
        unix: u64,
        turn: TurnId,
    ) -> Option<Result<&mut Turn, Refusal>> {
        let index = self.in_flight.iter().position(|pending| pending.id == turn)?;
        if let State::Asked(request) = &self.in_flight[index].state {
            let begun = request.as_ref().as_ref().map_err(Clone::clone).and_then(|request| {
                request.served(limits)?;
                let parent = match &request.previous {
                    Some(id) => Some(self.parent(account, &self.in_flight[index].lane, id)?),
                    None => None,
                };
                account.begin(request, &self.credential, parent, style, unix)
            });
            let lane = self.lanes.entry(self.in_flight[index].lane.clone()).or_default();
            lane.used = true;
            if self.in_flight[index].previous.is_none() {
                // A new chain takes the place of the old one, however it ends (protocol 1.5).
                lane.latest = None;
            }
            match begun {
                Ok(turn) => self.in_flight[index].state = State::Begun(Box::new(turn)),
                Err(refusal) => return Some(Err(refusal)),
            }
        }
        match &mut self.in_flight[index].state {
            State::Begun(turn) => Some(Ok(turn)),
            State::Asked(_) => None,
        }
    }

    /// What a lane's turn continues: the latest response of some lane, or a stored one. A fork is for a lane that is new
    /// (protocol 1.7); what the provider says to another is not known, so it is put on record.
    fn parent(&self, account: &mut Account, lane: &Option<String>, id: &str) -> Result<Parent, Refusal> {
        let holds = |lane: &&Lane| lane.latest.as_ref().is_some_and(|saved| saved.id == id);
        let own = self.lanes.get(lane);
        let held = own.filter(holds).or_else(|| self.lanes.values().find(holds));
        let Some(saved) = held.and_then(|lane| lane.latest.as_ref()) else {
            return account.parent(&self.credential, id);
        };
        if own.is_some_and(|own| own.used && !holds(&own)) && account.stored(&self.credential, id).is_none() {
            account.blame("fork onto a used lane", id);
        }
        Ok(Parent { saved: Arc::clone(saved), on_connection: true })
    }

    /// Puts the lane's name on an event, and ends the turn with its last one.
    fn finish(&mut self, limits: &Limits, account: &mut Account, turn: TurnId, emission: &mut Emission) {
        let lane =
            self.in_flight.iter().find(|pending| pending.id == turn).and_then(|found| found.lane.as_ref());
        if let Some(name) = lane {
            emission.frame["stream_id"] = name.as_str().into();
        }
        if let Some(ending) = emission.ending {
            self.end(limits, account, turn, ending);
        }
    }

    fn end(&mut self, limits: &Limits, account: &mut Account, turn: TurnId, ending: Ending) {
        let Some(index) = self.in_flight.iter().position(|pending| pending.id == turn) else { return };
        let pending = self.in_flight.remove(index);
        let lane = self.lanes.entry(pending.lane).or_default();
        lane.busy = false;
        let kept = match pending.state {
            State::Begun(turn) if ending != Ending::Refused => Some(account.keep(*turn, ending)),
            _ => None,
        };
        if ending == Ending::Completed {
            lane.latest = kept;
        } else if lane.latest.as_ref().is_some_and(|latest| Some(&latest.id) == pending.previous.as_ref()) {
            // A failed continuation takes the lane's memory with it; a failed fork leaves its parent's lane alone.
            lane.latest = None;
        }
        self.start(limits);
    }
}

fn refused(refusal: &Refusal) -> Emission {
    Emission { frame: refusal.frame(None), tokens: 0, moments: Vec::new(), ending: Some(Ending::Refused) }
}

fn is_lane_name(name: &str) -> bool {
    (1..=256).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// Frames a connection may have waiting. The real limit is not published; ours keeps the queue bounded.
const MOST_WAITING: usize = 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
