//! The life of a turn as `proxy::turn` and `proxy::relay` lead it, without tasks: read, place, send, hear, settle, and the
//! ladder's loop. At its end the client's answer is compared with the judge's.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use serde_json::Value;
use tailwire::proto::core::{Placement, Plan, Ticket, Wish};
use tailwire::proto::dialect::responses::Restorer;
use tailwire::proto::fault::Fault;
use tailwire::proto::id::{ConnectionId, TurnId};
use tailwire::proto::session::recovery::{self, Progress, Rung};
use tailwire::proto::transcript::echo::Listener;
use tailwire::proto::transcript::frame::{self, Envelope};
use tailwire::proto::transcript::plan::{Grade, Reason};
use tailwire::proto::transcript::request::Request;
use tailwire::proto::wire::error::{ErrorClass, ProviderError};
use tailwire::proto::wire::event::{Event, EventKind};

use crate::answer::{Outcome, check_fold};
use crate::client::Prepared;
use crate::direct::{self, Expected};
use crate::provider::Socket;
use crate::{Tally, World, credential};

/// What comes for a turn.
#[derive(Debug)]
pub(crate) enum Message {
    Event(Event),
    Fault(Fault),
}

/// A client's request under way.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) request: Prepared,
    pub(crate) settings: String,
    /// Something was done to it that may cost it its answer.
    pub(crate) disturbed: bool,
    /// The provider was made to say that what it continues is not there.
    pub(crate) bereft: bool,
    pub(crate) expected: Expected,
    parsed: Option<Rc<Request>>,
    progress: Progress,
    pub(crate) rungs: Vec<Rung>,
    attempt: Option<Attempt>,
    /// The next try, not yet placed: other turns may come between.
    next: Option<Wish>,
}

/// One try on the wire.
#[derive(Debug)]
struct Attempt {
    ticket: Ticket,
    inbox: VecDeque<Message>,
    restorer: Restorer,
    listener: Listener,
    sent: bool,
    /// The client has begun to read.
    relayed: bool,
    /// What the provider told, by name.
    told: Vec<String>,
    out: Vec<u8>,
}

impl Ask {
    pub(crate) fn plan(&self) -> Option<&Plan> {
        self.attempt.as_ref().map(|attempt| &attempt.ticket.plan)
    }

    pub(crate) fn is_on(&self, id: ConnectionId) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.ticket.connection == id)
    }

    pub(crate) fn sent(&mut self) {
        let attempt = self.attempt.as_mut().expect("a try");
        assert!(!attempt.sent, "sent once");
        attempt.sent = true;
    }

    pub(crate) fn deliver(&mut self, message: Message) {
        self.attempt.as_mut().expect("a try").inbox.push_back(message);
    }
}

impl Attempt {
    fn is_delta(&self) -> bool {
        matches!(self.ticket.plan, Plan::Delta { .. })
    }

    /// An error frame; or a failed response that says only that the one it continued is not there.
    fn error(&self, event: &Event) -> Option<ProviderError> {
        match event.kind() {
            EventKind::Error => Some(ProviderError::of_event(event)),
            EventKind::Ended => ProviderError::of_response(event)
                .filter(|error| self.is_delta() && error.class == ErrorClass::NotFound),
            _ => None,
        }
    }
}

impl World<'_> {
    /// The client of a turn in the heart.
    pub(crate) fn ask_of(&mut self, turn: TurnId) -> &mut Ask {
        let ask = self.turns.get(&turn).expect("a turn that has not ended");
        self.asks.get_mut(ask).expect("a client")
    }

    /// A client sends a request; its number.
    pub(crate) fn ask(&mut self, request: Prepared) -> usize {
        let number = self.next_ask;
        self.next_ask += 1;
        let expected = direct::expected(&mut self.direct, &credential(request.tenant), &request);
        self.repetitions |= matches!(expected, Expected::Refused(_));
        self.direct.drain_violations();
        let parsed = self.parse(&request);
        let once = parsed.as_ref().is_some_and(|parsed| parsed.acts) || request.anchor.is_some();
        let ask = Ask {
            settings: direct::settings(self.now, &request.body),
            disturbed: false,
            bereft: false,
            expected,
            progress: Progress { once, ..Progress::default() },
            rungs: Vec::new(),
            attempt: None,
            next: None,
            parsed: parsed.map(Rc::new),
            request,
        };
        let unread = ask.parsed.is_none();
        self.asks.insert(number, ask);
        if unread {
            self.http(number)
        } else {
            self.place(number, &Wish::default())
        }
        number
    }

    /// By what is known of this client, then the long way; both must lead to one answer.
    fn parse(&self, request: &Prepared) -> Option<Request> {
        let (key, account) = (self.core.key(), self.digest_of(request.tenant));
        let body = || Bytes::copy_from_slice(request.body.as_bytes());
        let known = self.core.prefixes(&account);
        let fast = Request::parse(key, &account, body(), &known);
        let slow = Request::parse(key, &account, body(), &[]);
        let (Ok(fast), Ok(slow)) = (&fast, slow.as_ref()) else {
            assert_eq!(fast.err(), slow.err(), "both ways refuse alike");
            return None;
        };
        assert_eq!((fast.scope, fast.unknown, fast.store), (slow.scope, slow.unknown, slow.store));
        let found = |request: &Request| {
            let found = self.core.index().continuations(key, request).ok()?;
            let found = found.iter().map(|found| (found.head, found.new_from, found.grade));
            Some(found.collect::<Vec<_>>())
        };
        let shortcut = fast.chain.as_ref().is_some_and(|chain| chain.first > 0);
        let Some(by_bytes) = found(fast) else { return Some(slow.clone()) };
        assert_eq!(Some(&by_bytes), found(slow).as_ref(), "by bytes or by items");
        let envelope = Envelope { stream_id: None, previous: None, new_from: Some(by_bytes[0].1) };
        assert!(!shortcut || frame::write(fast, envelope) == frame::write(slow, envelope), "one frame");
        Some(fast.clone())
    }

    fn place(&mut self, number: usize, wish: &Wish) {
        let ask = &self.asks[&number];
        let Prepared { tenant, scope, .. } = ask.request;
        let parsed = ask.parsed.clone().expect("it was read");
        let account = self.digest_of(tenant);
        let ticket = match self.core.begin(self.now, &account, &parsed, wish) {
            Placement::Wire(ticket) => ticket,
            Placement::Http(_, probe) => {
                if let Some(probe) = probe {
                    self.sockets.insert(probe, Socket::new(self.now, tenant));
                }
                return self.http(number);
            }
        };
        let (previous, new_from) = match &ticket.plan {
            Plan::Delta { previous, new_from, grade } => {
                assert_eq!(self.owners.get(&**previous), Some(&(tenant, scope)), "tenants never meet");
                assert!(!self.setup.strict || *grade == Grade::Exact, "strict");
                assert!(wish.full.is_none(), "in full, as wished");
                (Some(&**previous), Some(*new_from))
            }
            Plan::Full { previous, .. } => (previous.as_deref(), None),
        };
        let lane = ticket.lane.name();
        let frame = frame::write(&parsed, Envelope { stream_id: lane.as_deref(), previous, new_from });
        assert!(frame.len() <= self.core.limits().frame, "no frame above the limit");
        if ticket.open {
            self.sockets.insert(ticket.connection, Socket::new(self.now, tenant));
        }
        let socket = self.sockets.get_mut(&ticket.connection).expect("a socket that exists");
        assert_eq!(socket.tenant, tenant, "a credential's own socket");
        socket.submit(ticket.turn, frame);
        assert!(self.turns.insert(ticket.turn, number).is_none(), "a number of its own");
        let attempt = Attempt {
            inbox: VecDeque::new(),
            restorer: Restorer::new(parsed.anchor.as_deref()),
            listener: Listener::default(),
            sent: false,
            relayed: false,
            told: Vec::new(),
            out: Vec::new(),
            ticket,
        };
        self.asks.get_mut(&number).expect("a client").attempt = Some(attempt);
    }

    /// The client's own bytes over HTTP.
    fn http(&mut self, number: usize) {
        let request = &self.asks[&number].request;
        let body: Value = serde_json::from_str(&request.body).expect("a body");
        let answer = self.account.answer(&credential(request.tenant), &body, 1);
        Tally::count(&self.tally.http);
        let outcome = match answer {
            // Whoever names a response continues what it was, not what its client made of it.
            Ok(response) => Outcome::Response { response, done: Vec::new(), exact: request.anchor.is_none() },
            Err(refusal) => Outcome::Error(refusal.status),
        };
        self.finish(number, outcome);
    }

    /// A client goes away.
    pub(crate) fn leave(&mut self, number: usize) {
        let Some(ask) = self.asks.remove(&number) else { return };
        if let Some(attempt) = ask.attempt {
            self.turns.remove(&attempt.ticket.turn);
            let id = self.core.abandon(self.now, attempt.ticket.turn);
            self.look(id);
        }
    }

    /// The turn's task reads what has come; false if nothing has.
    pub(crate) fn read(&mut self, number: usize) -> bool {
        let next = self.asks.get_mut(&number).and_then(|ask| ask.next.take());
        let mut moved = next.is_some();
        if let Some(wish) = next {
            self.place(number, &wish);
        }
        while let Some(attempt) = self.asks.get_mut(&number).and_then(|ask| ask.attempt.as_mut()) {
            let Some(message) = attempt.inbox.pop_front() else { break };
            moved = true;
            match message {
                Message::Fault(fault) if attempt.relayed => {
                    attempt.restorer.write_fault(&fault, &mut attempt.out);
                    self.break_off(number, true);
                }
                Message::Fault(fault) => self.recover(number, &fault),
                Message::Event(event) => self.hear_one(number, &event),
            }
        }
        moved
    }

    fn hear_one(&mut self, number: usize, event: &Event) {
        let ask = self.asks.get_mut(&number).expect("a client");
        let attempt = ask.attempt.as_mut().expect("a try");
        if let Some(error) = attempt.error(event).filter(|_| !attempt.relayed) {
            return self.recover(number, &Fault::Provider(Box::new(error)));
        }
        if event.kind() == EventKind::Error {
            attempt.restorer.write_error(&ProviderError::of_event(event), &mut attempt.out);
            return self.break_off(number, false);
        }
        attempt.told.push(event.name().to_owned());
        attempt.listener.hear(self.core.key(), event);
        if ask.request.stream {
            attempt.relayed = true;
            attempt.restorer.write(event, &mut attempt.out);
        } else {
            attempt.restorer.hear(event);
        }
        if event.kind().is_terminal() {
            self.settle(number, event);
        }
    }

    /// The last event was read.
    fn settle(&mut self, number: usize, event: &Event) {
        let ask = self.asks.get_mut(&number).expect("a client");
        let Attempt { ticket, restorer, listener, told, out, .. } = ask.attempt.take().expect("a try");
        let (parsed, stream) = (ask.parsed.clone().expect("it was read"), ask.request.stream);
        let id = event.response_id().filter(|_| event.kind() == EventKind::Completed);
        self.turns.remove(&ticket.turn);
        let connection = match &id {
            Some(id) => {
                let echo = listener.finish(self.core.key(), restorer.output(event).as_deref());
                assert!(echo.is_some(), "what was said is understood");
                let Prepared { tenant, scope, .. } = self.asks[&number].request;
                self.owners.insert(id.clone(), (tenant, scope));
                self.core.settle(self.now, ticket.turn, &parsed, id, echo)
            }
            None => self.core.end(self.now, ticket.turn, false),
        };
        self.look(connection);
        let (response, done) = if stream {
            let story = direct::read(&out);
            self.check_story(&story, &told);
            (story.last["response"].clone(), story.done)
        } else {
            let body = restorer.body(event).expect("a body");
            (serde_json::from_str(&body).expect("JSON"), Vec::new())
        };
        check_fold(event, &response, id.is_some());
        let exact = match ticket.plan {
            Plan::Delta { grade, .. } => {
                let counter = if grade == Grade::Exact { &self.tally.exact } else { &self.tally.visible };
                Tally::count(counter);
                grade == Grade::Exact
            }
            Plan::Full { previous, .. } => {
                Tally::count(&self.tally.full);
                previous.is_none()
            }
        };
        self.finish(number, Outcome::Response { response, done, exact });
    }

    /// Nothing has gone down yet: the next try, or the client's error.
    fn recover(&mut self, number: usize, fault: &Fault) {
        let ask = self.asks.get_mut(&number).expect("a client");
        let attempt = ask.attempt.take().expect("a try");
        let (turn, connection) = (attempt.ticket.turn, attempt.ticket.connection);
        ask.progress.delta = attempt.is_delta();
        ask.progress.sent = attempt.sent;
        let missing = matches!(fault, Fault::Provider(error) if error.class == ErrorClass::NotFound);
        assert!(!missing || ask.bereft || ask.request.anchor.is_some(), "what is continued is there");
        let rung = recovery::next(fault, ask.progress);
        assert!(
            ask.rungs.last().is_none_or(|last| *last < rung),
            "the ladder descends: {:?} {rung:?}",
            ask.rungs
        );
        ask.rungs.push(rung);
        let wish = match rung {
            Rung::FullSame => {
                ask.progress.tried_same = true;
                Wish { full: Some(Reason::NotFound), prefer: Some(connection), ..Wish::default() }
            }
            Rung::FullNew => {
                ask.progress.tried_new = true;
                Wish { full: Some(Reason::Recovered), new_socket: true, prefer: None }
            }
            Rung::Http | Rung::Fail => Wish::default(),
        };
        ask.progress.rerun |= ask.progress.sent && !matches!(fault, Fault::Provider(_));
        self.turns.remove(&turn);
        let id = match fault {
            Fault::Provider(_) => self.core.end(self.now, turn, missing),
            _ => self.core.abandon(self.now, turn),
        };
        self.look(id);
        Tally::count(&self.tally.recovered);
        match (rung, fault) {
            (Rung::FullSame | Rung::FullNew, _) => {
                self.asks.get_mut(&number).expect("a client").next = Some(wish)
            }
            (Rung::Http, _) => self.http(number),
            (Rung::Fail, Fault::Provider(error)) => self.finish(number, Outcome::Error(error.status)),
            (Rung::Fail, _) => self.finish(number, Outcome::Error(502)),
        }
    }

    /// The stream ends with an error event, of the connection or of the provider.
    fn break_off(&mut self, number: usize, lost: bool) {
        let attempt = self.asks.get_mut(&number).and_then(|ask| ask.attempt.take()).expect("a try");
        let story = direct::read(&attempt.out);
        assert_eq!(story.last["type"], "error");
        self.turns.remove(&attempt.ticket.turn);
        let turn = attempt.ticket.turn;
        let id = if lost { self.core.abandon(self.now, turn) } else { self.core.end(self.now, turn, false) };
        self.look(id);
        self.finish(number, Outcome::Broken);
    }

    fn look(&mut self, id: Option<ConnectionId>) {
        if let Some(id) = id.filter(|_| !self.setup.lazy) {
            self.act(id);
        }
    }
}
