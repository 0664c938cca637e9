//! The heart's one face: where a turn goes (`begin`), what became of it (`settle`, `end`, `abandon`), and what happened to
//! the sockets. Holds the index of heads, the connections and the gates; its driver keeps it behind one short lock.
//!
//! Never opens a socket: a [`Ticket`] says that one is wanted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::proto::digest::{Digest, Key};
use crate::proto::id::{ConnectionId, HeadId, LaneId, TurnId};
use crate::proto::session::Limits;
use crate::proto::session::connection::Connection;
use crate::proto::transcript::echo::Echo;
use crate::proto::transcript::frame;
use crate::proto::transcript::index::{Continuation, Index, Past, Place};
use crate::proto::transcript::plan::{Grade, Reason};
use crate::proto::transcript::prefix::Prefix;
use crate::proto::transcript::request::Request;

pub mod gate;
mod seat;
mod socket;

use gate::Gates;

/// Scopes remembered as serving no stored responses; past it all are forgotten, which costs one not-found each.
const MAX_UNSTORED: usize = 4096;

/// A client that leaves after so long a silence may have been waiting for a response that will never be continued.
const DOUBT: Duration = Duration::from_secs(5);

/// What the driver wants of a turn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Send the whole history, for this reason.
    pub full: Option<Reason>,
    /// On a socket of its own, newly opened.
    pub new_socket: bool,
    /// On this socket, if it can.
    pub prefer: Option<ConnectionId>,
}

/// Where a turn goes.
#[derive(Debug, Clone)]
pub enum Placement {
    /// Over a socket.
    Wire(Ticket),
    /// Over plain HTTP. With a connection: it is to be opened in the background, to see whether sockets work again.
    Http(Reason, Option<ConnectionId>),
}

/// A place on a socket.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// The turn's number.
    pub turn: TurnId,
    /// The socket.
    pub connection: ConnectionId,
    /// True if the socket is yet to be opened.
    pub open: bool,
    /// The lane.
    pub lane: LaneId,
    /// What to send.
    pub plan: Plan,
}

/// What a frame carries.
#[derive(Debug, Clone)]
pub enum Plan {
    /// The new items only.
    Delta {
        /// The response continued.
        previous: Arc<str>,
        /// Index of the first new item.
        new_from: usize,
        /// How exact it is.
        grade: Grade,
    },
    /// The whole history; `previous` only if the client named it itself.
    Full {
        /// Why.
        reason: Reason,
        /// The client's own anchor.
        previous: Option<Arc<str>>,
    },
}

#[derive(Debug)]
struct Turn {
    account: Digest,
    connection: ConnectionId,
    past: Past,
    /// The head it continues.
    continues: Option<HeadId>,
    /// Continues a stored response away from its lane: a not-found there is remembered.
    elsewhere: bool,
    scope: Digest,
}

/// See the module.
#[derive(Debug)]
pub struct Core {
    key: Key,
    limits: Limits,
    /// `reasoning = "strict"`: only exact continuations.
    strict: bool,
    /// The provider has no lanes: one turn at a time on sockets opened from now on.
    degraded: bool,
    index: Index,
    connections: BTreeMap<ConnectionId, Connection>,
    turns: HashMap<TurnId, Turn>,
    gates: Gates,
    unstored: HashSet<Digest>,
    next: u64,
}

impl Core {
    /// A heart with nothing in it. `key` must be random per process; `index` is the cache's size in bytes.
    pub fn new(key: Key, limits: Limits, strict: bool, index: usize) -> Self {
        Self {
            key,
            limits,
            strict,
            degraded: false,
            index: Index::new(index),
            connections: BTreeMap::new(),
            turns: HashMap::new(),
            gates: Gates::default(),
            unstored: HashSet::new(),
            next: 0,
        }
    }

    /// The digest key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The index of heads, to look at.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Sockets, opening and open.
    pub fn sockets(&self) -> usize {
        self.connections.len()
    }

    /// Turns on the wire.
    pub fn turns(&self) -> usize {
        self.turns.len()
    }

    /// Prefixes to find a request of this account by its bytes.
    pub fn prefixes(&self, account: &Digest) -> Vec<Prefix> {
        self.index.prefixes(account)
    }

    // ---- a turn

    /// Decides where a turn goes and reserves the place.
    pub fn begin(&mut self, now: Instant, account: &Digest, request: &Request, wish: &Wish) -> Placement {
        if request.anchor.is_some() {
            return match wish.full {
                None => self.begin_anchored(now, account, request),
                // Without its anchor it would say something else.
                Some(_) => Placement::Http(Reason::ClientAnchor, None),
            };
        }
        let (reason, home, past) = match &wish.full {
            Some(reason) => (reason.clone(), wish.prefer, Past::default()),
            None => match self.index.continuations(&self.key, request) {
                Err(reason) => (
                    reason,
                    self.index.home(request).and_then(|head| self.connection_of(head)),
                    Past::default(),
                ),
                Ok(found) => match self.continue_one(now, account, request, &found) {
                    Ok(ticket) => return Placement::Wire(ticket),
                    Err((reason, home, past)) => (reason, home, past),
                },
            },
        };
        let size = frame::size(request, None);
        if size > self.limits.frame {
            return Placement::Http(Reason::TooLarge, None);
        }
        let Some(seat) = self.full_seat(now, account, home, size, wish.new_socket) else {
            return self.nowhere(now, account);
        };
        let plan = Plan::Full { reason, previous: None };
        Placement::Wire(self.ticket(now, account, request, seat, plan, past, false))
    }

    /// Tries the continuations in order; the best one's reason if none can be had.
    fn continue_one(
        &mut self,
        now: Instant,
        account: &Digest,
        request: &Request,
        found: &[Continuation],
    ) -> Result<Ticket, (Reason, Option<ConnectionId>, Past)> {
        let mut refused = None;
        for continuation in found {
            let home = self.connection_of(continuation.head);
            let branchy = self.index.head(continuation.head).is_some_and(|head| head.branchy);
            let mut past = Past::branching(branchy);
            if self.strict && continuation.grade == Grade::Visible {
                refused.get_or_insert((Reason::ReasoningDropped, home, past));
                continue;
            }
            let size = frame::size(request, Some(continuation.new_from));
            if size > self.limits.frame {
                continue;
            }
            match self.delta_seat(now, account, request, continuation.head, size) {
                Ok((seat, elsewhere)) => {
                    let Some(previous) = self.index.head(continuation.head).map(|head| head.response.clone())
                    else {
                        continue;
                    };
                    let past = self.index.past(continuation.head, continuation.held.clone());
                    let grade = continuation.grade;
                    let plan = Plan::Delta { previous, new_from: continuation.new_from, grade };
                    return Ok(self.ticket(now, account, request, seat, plan, past, elsewhere));
                }
                Err(reason) => {
                    if reason == Reason::LaneAdvanced {
                        self.index.set_branchy(continuation.head);
                        past.branchy = true;
                    }
                    refused.get_or_insert((reason, home, past));
                }
            }
        }
        Err(refused.unwrap_or_else(|| (Reason::TooLarge, None, Past::default())))
    }

    /// No socket has a place, and none may be opened: because none is to be had, or because there are enough.
    fn nowhere(&mut self, now: Instant, account: &Digest) -> Placement {
        let room = self.has_room(account);
        match self.gates.check(now, account, room) {
            Some(probe) => Placement::Http(Reason::NoSocket, probe.then(|| self.open(now, *account))),
            None => Placement::Http(Reason::Busy, None),
        }
    }

    /// The client chains by itself: over the lane that holds the response, with the input as it is, or not at all.
    fn begin_anchored(&mut self, now: Instant, account: &Digest, request: &Request) -> Placement {
        let elsewhere = Placement::Http(Reason::ClientAnchor, None);
        let Some(anchor) = request.anchor.as_deref() else { return elsewhere };
        if frame::size(request, None) > self.limits.frame {
            return elsewhere;
        }
        let Some(head) = self.index.by_response(account, anchor) else { return elsewhere };
        if !request.store || !self.index.head(head).is_some_and(|head| head.is_in(&request.scope)) {
            return elsewhere;
        }
        let Ok(seat) = self.held_seat(now, head) else { return elsewhere };
        let plan = Plan::Full { reason: Reason::ClientAnchor, previous: Some(anchor.into()) };
        Placement::Wire(self.ticket(now, account, request, seat, plan, Past::anchored(), false))
    }

    /// A completed turn: its response becomes a head, and its lane holds it. Without an echo it is only an ending.
    ///
    /// Returns the socket to look at: it may be due to close.
    pub fn settle(
        &mut self,
        now: Instant,
        id: TurnId,
        request: &Request,
        response: &str,
        echo: Option<Echo>,
    ) -> Option<ConnectionId> {
        let turn = self.turns.remove(&id)?;
        let head =
            echo.and_then(|echo| self.index.insert(turn.account, request, response.into(), echo, turn.past));
        let connection = self.connections.get_mut(&turn.connection)?;
        let lane = connection.handle_settled(now, id, head).filter(|_| !connection.is_closed());
        if let Some((head, lane)) = head.zip(lane) {
            self.index.set_place(head, Place::Lane(turn.connection, lane));
        }
        Some(turn.connection)
    }

    /// A turn that ended in any way that cannot be continued. `not_found`: the response it continued was not there.
    pub fn end(&mut self, now: Instant, id: TurnId, not_found: bool) -> Option<ConnectionId> {
        let turn = self.turns.remove(&id)?;
        if not_found && turn.elsewhere {
            self.unstore(turn.scope);
        }
        self.connections.get_mut(&turn.connection)?.handle_settled(now, id, None);
        Some(turn.connection)
    }

    /// The provider refused what this turn asked of the response it continues: nothing is asked of that again.
    pub fn disown(&mut self, id: TurnId) {
        if let Some(head) = self.turns.get(&id).and_then(|turn| turn.continues) {
            self.index.remove(head);
        }
    }

    /// The client of a turn is gone, or the turn moved on to another try.
    pub fn abandon(&mut self, now: Instant, id: TurnId) -> Option<ConnectionId> {
        let unheard = |turn: &Turn| self.connections.get(&turn.connection)?.unheard_for(now, id);
        if self.turns.get(&id).and_then(unheard).is_some_and(|silence| silence >= DOUBT) {
            // Its SDK will ask again, and must not wait for the same again (F27).
            self.disown(id);
        }
        let turn = self.turns.remove(&id)?;
        let connection = self.connections.get_mut(&turn.connection)?;
        if let Some((lane, head)) = connection.handle_abandoned(now, id) {
            self.index.set_place(head, Place::Lane(turn.connection, lane));
        }
        connection.handle_settled(now, id, None);
        Some(turn.connection)
    }

    /// The client deleted a response: it is not continued any more.
    pub fn forget(&mut self, account: &Digest, response: &str) {
        if let Some(head) = self.index.by_response(account, response) {
            self.index.remove(head);
        }
    }

    /// Ids of this scope are continued on their own lane only.
    fn unstore(&mut self, scope: Digest) {
        if self.unstored.len() >= MAX_UNSTORED {
            self.unstored.clear();
        }
        self.unstored.insert(scope);
    }

    fn open(&mut self, now: Instant, account: Digest) -> ConnectionId {
        let id = ConnectionId(self.next);
        self.next += 1;
        let lanes = if self.degraded { 0 } else { self.limits.lanes };
        self.connections.insert(id, Connection::new(now, id, account, &self.limits, lanes));
        id
    }

    fn connection_of(&self, head: HeadId) -> Option<ConnectionId> {
        match self.index.head(head)?.place {
            Place::Lane(connection, _) => Some(connection),
            Place::Gone(_) => None,
        }
    }
}
