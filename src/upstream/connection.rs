//! The driver of one socket: opens it, then carries bytes and time to the heart and the heart's wishes to the socket.
//!
//! Decides nothing. One task owns the socket, so that reading goes on whatever the turns do: pings are answered, late
//! frames are seen, a dead peer is noticed.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use crate::proto::core::gate::Refusal;
use crate::proto::fault::Fault;
use crate::proto::id::{ConnectionId, TurnId};
use crate::proto::session::connection::{Action, Verdict};
use crate::proto::wire::event::{Event, EventKind};
use crate::upstream::dial::ConnectError;
use crate::upstream::handshake::Opened;
use crate::upstream::heart::Heart;
use crate::upstream::inbox::{Backlog, Outlet};
use crate::upstream::socket::{Outgoing, Received, Socket};

/// Wait for the close frame to go out; then the socket is dropped as it is.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// A frame that takes longer to write than this has kept its ping, and the peer's pong, waiting.
const SLOW_WRITE: Duration = Duration::from_secs(1);

/// What turns ask of a socket's task.
#[derive(Debug)]
pub enum Command {
    /// Send this frame; events and faults go to the outlet.
    Create {
        /// Whose.
        turn: TurnId,
        /// `response.create`.
        frame: Bytes,
        /// Where its answer goes.
        outlet: Outlet,
    },
    /// Look again at what the heart wants.
    Wake,
}

/// Opens the socket and drives it to its end; returns the fault that turns still in the queue are to hear of.
pub(super) async fn run(
    heart: &Heart,
    id: ConnectionId,
    dial: impl Future<Output = Result<Opened, ConnectError>>,
    commands: &mut mpsc::Receiver<Command>,
    relief: Arc<Notify>,
) -> Fault {
    let socket = match dial.await {
        Ok(opened) => opened.socket,
        Err(error) => {
            refused(heart, id, &error);
            return Fault::Connect;
        }
    };
    heart.metrics.sockets_opened.increment();
    heart.lock().opened(Instant::now(), id);
    tracing::debug!(connection = %id, compression = socket.compression(), "socket open");
    let mut driver = Driver {
        heart,
        id,
        socket,
        relief,
        outbox: VecDeque::new(),
        writing: None,
        moved: 0,
        waiting: VecDeque::new(),
        outlets: HashMap::new(),
        paused: false,
        lagging: false,
        faulted: false,
    };
    driver.drive(commands).await
}

fn refused(heart: &Heart, id: ConnectionId, error: &ConnectError) {
    let refusal = match error {
        ConnectError::Refused(refusal) => Refusal::of_status(refusal.status.as_u16()),
        _ => Refusal::Failure,
    };
    heart.metrics.sockets_refused.increment();
    tracing::info!(connection = %id, %error, "no socket; turns go over HTTP");
    let mut core = heart.lock();
    core.refused(Instant::now(), id, refusal);
    // Its turns are all still in the queue, and hear of it there.
    while core.poll_action(id).is_some() {}
}

struct Driver<'a> {
    heart: &'a Heart,
    id: ConnectionId,
    socket: Socket,
    relief: Arc<Notify>,
    outbox: VecDeque<Outgoing>,
    /// The turn whose frame is being written, and the socket's byte count before it.
    writing: Option<(TurnId, u64, Instant)>,
    /// Bytes written when the clock last struck.
    moved: u64,
    /// Frames behind it; as many as the socket has turns in flight.
    waiting: VecDeque<(TurnId, Bytes)>,
    outlets: HashMap<TurnId, Outlet>,
    /// Not reading: only readers at their bound are left.
    paused: bool,
    lagging: bool,
    /// It ended under a turn, or by itself; else it was closed on purpose.
    faulted: bool,
}

enum Step {
    Command(Option<Command>),
    Received(Received),
    Written(Result<(), String>),
    Relief,
    Timeout,
}

impl Driver<'_> {
    /// Runs until the socket is over; the fault that turns still in the queue should hear of.
    async fn drive(&mut self, commands: &mut mpsc::Receiver<Command>) -> Fault {
        loop {
            if let Some(end) = self.act().await {
                return end;
            }
            match self.step(commands).await {
                Step::Command(Some(Command::Create { turn, frame, outlet })) => {
                    // Placed just before the others reached their bound: it must not wait for their readers.
                    self.paused = false;
                    self.outlets.insert(turn, outlet);
                    self.waiting.push_back((turn, frame));
                }
                Step::Command(Some(Command::Wake)) => {}
                // The pool is gone.
                Step::Command(None) => self.lost(&Fault::ShuttingDown),
                Step::Received(received) => self.receive(received),
                Step::Written(Ok(())) => self.written(),
                Step::Written(Err(error)) => {
                    tracing::debug!(connection = %self.id, error, "write failed");
                    self.lost(&Fault::SocketLost(None));
                }
                Step::Relief => self.relieve(),
                Step::Timeout => self.timeout(),
            }
            self.write_next();
        }
    }

    async fn step(&mut self, commands: &mut mpsc::Receiver<Command>) -> Step {
        let deadline = self.heart.lock().poll_timeout(self.id);
        let (socket, outbox) = (&mut self.socket, &mut self.outbox);
        let (writing, paused) = (self.writing.is_some() || !outbox.is_empty(), self.paused);
        let io = poll_fn(|cx| {
            if writing && let Poll::Ready(written) = socket.poll_send(cx, outbox) {
                return Poll::Ready(Step::Written(written));
            }
            if paused {
                return Poll::Pending;
            }
            socket.poll_receive(cx).map(Step::Received)
        });
        tokio::select! {
            command = commands.recv() => Step::Command(command),
            step = io => step,
            () = self.relief.notified() => Step::Relief,
            () = sleep_until(deadline) => Step::Timeout,
        }
    }

    /// Carries out what the heart wants; the last fault once the socket is to end.
    async fn act(&mut self) -> Option<Fault> {
        loop {
            let action = self.heart.lock().poll_action(self.id)?;
            match action {
                Action::Ping => self.outbox.push_back(Outgoing::Ping),
                Action::Fault(turn, fault) => {
                    self.faulted = true;
                    if let Some(outlet) = self.outlets.remove(&turn) {
                        outlet.fail(fault);
                    }
                }
                Action::Close => {
                    let metrics = &self.heart.metrics;
                    let ended = if self.faulted { &metrics.sockets_lost } else { &metrics.sockets_retired };
                    ended.increment();
                    self.close().await;
                    return Some(Fault::SocketLost(None));
                }
            }
        }
    }

    async fn close(&mut self) {
        while let Some(Action::Fault(turn, fault)) = self.next_fault() {
            if let Some(outlet) = self.outlets.remove(&turn) {
                outlet.fail(fault);
            }
        }
        self.outbox.clear();
        self.outbox.push_back(Outgoing::Close(1000, ""));
        let (socket, outbox) = (&mut self.socket, &mut self.outbox);
        let _ = tokio::time::timeout(CLOSE_WAIT, poll_fn(|cx| socket.poll_send(cx, outbox))).await;
    }

    fn next_fault(&self) -> Option<Action> {
        let mut core = self.heart.lock();
        loop {
            match core.poll_action(self.id)? {
                fault @ Action::Fault(..) => return Some(fault),
                Action::Ping | Action::Close => {}
            }
        }
    }

    fn lost(&mut self, fault: &Fault) {
        self.faulted = true;
        let mut core = self.heart.lock();
        core.lost(self.id, fault);
    }

    /// One frame at a time, so that what each weighs on the wire can be told.
    fn write_next(&mut self) {
        while self.writing.is_none() {
            let Some((turn, frame)) = self.waiting.pop_front() else { return };
            if !self.heart.lock().sending(Instant::now(), self.id, turn) {
                if let Some(outlet) = self.outlets.remove(&turn) {
                    // Mostly nobody listens; but an unattributable error may have struck while the frame was queued.
                    outlet.fail(Fault::SocketLost(None));
                }
                continue;
            }
            self.writing = Some((turn, self.socket.bytes_written(), Instant::now()));
            if let Some(outlet) = self.outlets.get(&turn) {
                // From here on it may have reached the provider.
                outlet.sent(1);
            }
            self.outbox.push_back(Outgoing::Text(frame));
        }
    }

    /// Time passed. While we do not read, or are still writing, silence is no sign of death.
    fn timeout(&mut self) {
        let now = Instant::now();
        let moved = self.socket.bytes_written() > self.moved;
        self.moved = self.socket.bytes_written();
        let mut core = self.heart.lock();
        if self.paused || (self.writing.is_some() && moved) {
            core.excused(now, self.id);
        }
        core.timeout(now, self.id);
    }

    fn written(&mut self) {
        let Some((turn, before, since)) = self.writing.take() else { return };
        let now = Instant::now();
        if let Some(outlet) = self.outlets.get(&turn) {
            outlet.sent(self.socket.bytes_written() - before);
        }
        self.heart.lock().written(now, self.id, turn, now.saturating_duration_since(since) >= SLOW_WRITE);
    }

    fn receive(&mut self, received: Received) {
        let now = Instant::now();
        match received {
            Received::Text(text) => match Event::parse(text) {
                Ok(event) => self.deliver(now, event),
                Err(_) => self.heart.lock().garbage(self.id),
            },
            Received::Binary => self.heart.lock().garbage(self.id),
            Received::Ping | Received::Pong => self.heart.lock().heard(now, self.id),
            Received::Closed { code: Some(1009), .. } => {
                self.faulted = true;
                self.heart.lock().refused_size(self.id);
            }
            Received::TooLarge => {
                self.faulted = true;
                self.heart.lock().too_large(self.id);
            }
            Received::Closed { code, .. } => self.lost(&Fault::SocketLost(code)),
            Received::Lost(error) => {
                tracing::debug!(connection = %self.id, error, "socket lost");
                self.lost(&Fault::SocketLost(None));
            }
        }
    }

    fn deliver(&mut self, now: Instant, event: Event) {
        // Read before the lock is taken: a lifecycle event may carry instructions and tools.
        let named = if event.kind() == EventKind::Created { event.response_id() } else { None };
        let verdict = {
            let mut core = self.heart.lock();
            named.iter().for_each(|response| core.named(self.id, response));
            core.event(now, self.id, &event)
        };
        let Verdict::Deliver(turn) = verdict else { return };
        // A turn's outlet goes when its last event has been pushed; the reader's end lives on.
        let terminal = event.kind().is_terminal();
        let Some(outlet) = self.outlets.get(&turn) else { return };
        let backlog = outlet.push(event);
        if terminal {
            self.outlets.remove(&turn);
        } else if backlog != Backlog::Fine {
            self.fell_behind(turn, backlog);
        }
    }

    /// A socket has no flow control per lane: at the bound it is not read any more, if that harms nobody else; else the
    /// one that lags ends.
    fn fell_behind(&mut self, turn: TurnId, backlog: Backlog) {
        if !self.lagging {
            self.lagging = true;
            self.heart.lock().lag(self.id, true);
        }
        if backlog != Backlog::Full {
            return;
        }
        let others_wait =
            self.outlets.iter().any(|(id, outlet)| *id != turn && outlet.backlog() != Backlog::Full);
        if !others_wait {
            self.paused = true;
            return;
        }
        if let Some(outlet) = self.outlets.remove(&turn) {
            self.heart.metrics.turns_lagging.increment();
            outlet.fail(Fault::SlowReader);
            self.relieve();
        }
    }

    /// A reader caught up, left, or was given up.
    fn relieve(&mut self) {
        self.outlets.retain(|_, outlet| !outlet.is_orphaned());
        let worst = |level: Backlog| self.outlets.values().any(|outlet| outlet.backlog() == level);
        let (full, lagging) = (worst(Backlog::Full), worst(Backlog::Full) || worst(Backlog::Lagging));
        self.paused &= full;
        if self.lagging && !lagging {
            self.lagging = false;
            self.heart.lock().lag(self.id, false);
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
