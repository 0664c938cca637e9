//! What the matrix is made of: families of faults, each with one cell per moment, and what a cell says. Plain data; who
//! plays it is `play.rs` and `elsewhere.rs`, who prints it `page.rs`.

use tailwire::config::Settings;
use tailwire::sim::{Fault, Moment};

use crate::support::Width;

/// Every moment at which something can go wrong, in the order of a turn.
pub(crate) const MOMENTS: [Moment; 8] = [
    Moment::Upgrade,
    Moment::AfterSend,
    Moment::AfterCreated,
    Moment::MidText,
    Moment::MidArguments,
    Moment::AfterLastDelta,
    Moment::AfterTerminal,
    Moment::Idle,
];

/// Faults that belong together.
pub(crate) struct Family {
    pub(crate) title: &'static str,
    pub(crate) rows: Vec<Row>,
}

/// One fault.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) strike: Strike,
    pub(crate) cells: [Cell; 8],
    pub(crate) turns: Turns,
    pub(crate) tune: fn(&mut Settings),
    /// Upgrades the struck turn asks for, where that is its moment: a server that cannot take the compression offer is
    /// asked once more without it.
    pub(crate) handshakes: u32,
    /// A header of the provider's that an error's status carries down.
    pub(crate) header: Option<(&'static str, &'static str)>,
    /// An event of the fault's, and whether an SSE client is shown it.
    pub(crate) event: Option<(&'static str, bool)>,
    /// It waits, or leaves a proxy changed: each of its cells is played against a proxy of its own.
    pub(crate) apart: bool,
    /// Sentences added to the instructions of the struck turn and those that follow.
    pub(crate) weight: usize,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, fault: Fault, cells: impl Fn(Moment) -> Cell) -> Self {
        Self {
            name: name.into(),
            strike: Strike::Provider(fault),
            cells: MOMENTS.map(cells),
            turns: Turns::Both,
            tune: |_| {},
            handshakes: 1,
            header: None,
            event: None,
            apart: false,
            weight: 0,
        }
    }

    pub(crate) fn apart(self) -> Self {
        Self { apart: true, ..self }
    }

    pub(crate) fn tuned(self, tune: fn(&mut Settings)) -> Self {
        Self { tune, ..self }
    }

    pub(crate) fn cell(&self, moment: Moment) -> &Cell {
        MOMENTS.iter().zip(&self.cells).find(|(at, _)| **at == moment).map(|(_, cell)| cell).unwrap()
    }
}

/// Who does it.
#[derive(Clone, Debug)]
pub(crate) enum Strike {
    /// The simulated provider.
    Provider(Fault),
    /// The address the proxy is given.
    Address(Address),
    /// More conversations than one socket has lane names.
    Names,
    /// More turns at once than one socket takes.
    InFlight,
}

/// An address where no provider is to be had.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Address {
    /// A name that no resolver can be asked for.
    NoName,
    /// A port where nobody listens.
    Refused,
    /// A listener that takes no more connections.
    Full,
    /// A listener that takes connections and says nothing: the TLS handshake hangs.
    MuteTls,
}

/// With which turns a row can be played.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Turns {
    /// First turns, and turns that continue.
    Both,
    /// Only turns that continue, for this reason.
    Deltas(&'static str),
    /// Only first turns, for this reason.
    Firsts(&'static str),
}

/// A fault at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell {
    /// It cannot happen, for this reason.
    Never(&'static str),
    /// It leads to this.
    Played(Outcome),
    /// The same, over lanes and with one turn in flight.
    ByWidth(Outcome, Outcome),
}

impl Cell {
    pub(crate) fn outcome(&self, width: Width) -> Option<Outcome> {
        match *self {
            Self::Never(_) => None,
            Self::Played(outcome) => Some(outcome),
            Self::ByWidth(lanes, single) => Some(if width == Width::Lanes { lanes } else { single }),
        }
    }
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What a client sees that asked for JSON.
    pub(crate) json: Seen,
    /// What a client sees that asked for a stream.
    pub(crate) sse: Seen,
    pub(crate) socket: Socket,
    /// How the conversation's next turn travels after an answer. See [`Self::next_after`].
    next: Next,
}

impl Outcome {
    pub(crate) const fn new(json: Seen, sse: Seen, socket: Socket) -> Self {
        Self { json, sse, socket, next: Next::Delta }
    }

    pub(crate) const fn next(self, next: Next) -> Self {
        Self { next, ..self }
    }

    pub(crate) fn seen(&self, stream: bool) -> Seen {
        if stream { self.sse } else { self.json }
    }

    /// How the conversation's next turn travels. A client repeats what failed, as every SDK does; that goes in full, and
    /// what follows continues it, if there is anything to be had at all.
    pub(crate) fn next_after(&self, stream: bool) -> Next {
        match self.seen(stream) {
            Seen::Right(_) => self.next,
            _ if self.next == Next::Again => Next::Again,
            _ => Next::Delta,
        }
    }
}

/// What a client sees of the turn that is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The right answer, by this rung.
    Right(Rung),
    /// A status with an error's code.
    Status(u16, &'static str),
    /// The same after the last rung: the provider cannot be reached over HTTP either.
    Down(u16, &'static str),
    /// A response that ended with this status of its own.
    Ended(&'static str),
    /// A stream that ends with the flat error of this code.
    Error(&'static str),
    /// The same, and the body is broken off.
    Broken(&'static str),
}

impl Seen {
    /// The turn's `x-tailwire`: that of its last try. A client that sees an error is told how the turn set out.
    pub(crate) fn plan(self, moment: Moment, delta: bool) -> String {
        match self {
            Self::Right(Rung::Same) => "full; not-found".to_owned(),
            Self::Right(Rung::New) => "full; recovered".to_owned(),
            Self::Right(Rung::Http(reason)) => format!("http; {reason}"),
            Self::Down(..) => "http; no-socket".to_owned(),
            // It has a socket yet to be opened: the one it had was lost.
            _ if delta && moment == Moment::Upgrade => "full; socket-lost".to_owned(),
            _ if delta => "delta".to_owned(),
            _ => "full; first-turn".to_owned(),
        }
    }

    /// How often the turn was repeated: in full on the same socket, on a new one, over HTTP.
    pub(crate) fn rungs(self) -> [u64; 3] {
        match self {
            Self::Right(Rung::Same) => [1, 0, 0],
            Self::Right(Rung::New) => [0, 1, 0],
            Self::Right(Rung::Http(_)) | Self::Down(..) => [0, 0, 1],
            _ => [0, 0, 0],
        }
    }
}

/// The rung by which a turn was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rung {
    /// None was needed.
    None,
    /// In full, on the same socket.
    Same,
    /// In full, on a new socket.
    New,
    /// The client's bytes over HTTP, for this reason.
    Http(&'static str),
}

/// What becomes of the socket on which it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Socket {
    /// The conversation stays on it, on its lane.
    Kept,
    /// The conversation stays on it, on another lane.
    LaneGone,
    /// No turn uses it any more.
    Lost,
    /// There was none.
    None,
}

/// How a turn travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Delta,
    /// In full, for this reason.
    Full(&'static str),
    /// In full, as a conversation whose last answer is held on no socket.
    Anew,
    /// Over HTTP, for this reason.
    Http(&'static str),
    /// Over HTTP, to the same end.
    Again,
}

impl Next {
    /// As `x-tailwire` tells it.
    pub(crate) fn plan(self) -> String {
        match self {
            Self::Delta => "delta".to_owned(),
            Self::Full(reason) => format!("full; {reason}"),
            Self::Anew => "full".to_owned(),
            Self::Http(reason) => format!("http; {reason}"),
            Self::Again => "http; no-socket".to_owned(),
        }
    }

    /// Whether a turn went this way.
    pub(crate) fn is(self, plan: &str) -> bool {
        if self == Self::Anew { plan.starts_with("full; ") } else { plan == self.plan() }
    }
}

// What many cells share.

pub(crate) const CLEAN: Seen = Seen::Right(Rung::None);
pub(crate) const SAME: Seen = Seen::Right(Rung::Same);
pub(crate) const NEW: Seen = Seen::Right(Rung::New);
pub(crate) const HTTP: Seen = Seen::Right(Rung::Http("no-socket"));

/// Nothing comes of it.
pub(crate) const NOTHING: Cell = Cell::Played(Outcome::new(CLEAN, CLEAN, Socket::Kept));
/// The socket is given up while nobody waits on it.
pub(crate) const AT_REST: Cell =
    Cell::Played(Outcome::new(CLEAN, CLEAN, Socket::Lost).next(Next::Full("socket-lost")));
/// The socket is given up before the turn's first event.
pub(crate) const UNHEARD: Cell = Cell::Played(Outcome::new(NEW, NEW, Socket::Lost));
/// No socket was had.
pub(crate) const REFUSED: Cell =
    Cell::Played(Outcome::new(HTTP, HTTP, Socket::None).next(Next::Http("no-socket")));

/// The socket is given up within the answer: a stream breaks with this code.
pub(crate) const fn broken(code: &'static str) -> Cell {
    Cell::Played(Outcome::new(NEW, Seen::Broken(code), Socket::Lost))
}

/// The socket is given up whenever it happens.
pub(crate) fn lost(upgrade: Cell, code: &'static str) -> impl Fn(Moment) -> Cell {
    move |moment| match moment {
        Moment::Upgrade => upgrade,
        Moment::AfterSend => UNHEARD,
        Moment::AfterTerminal | Moment::Idle => AT_REST,
        _ => broken(code),
    }
}

/// Nothing comes of it whenever it happens.
pub(crate) fn harmless(upgrade: Cell) -> impl Fn(Moment) -> Cell {
    move |moment| if moment == Moment::Upgrade { upgrade } else { NOTHING }
}
