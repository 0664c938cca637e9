//! The driver of one socket: opens it, then carries bytes and time to the heart and the heart's wishes to the socket.
//!
//! Decides nothing. One task owns the socket, so that reading goes on whatever the turns do: pings are answered, late
//! frames are seen, a dead peer is noticed.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::HeaderMap;
use tokio::sync::{Notify, mpsc};

use crate::proto::core::gate::Refusal;
use crate::proto::fault::Fault;
use crate::proto::id::{ConnectionId, TurnId};
use crate::proto::session::connection::{Action, Verdict};
use crate::proto::wire::event::Event;
use crate::upstream::dial::ConnectError;
use crate::upstream::inbox::{Backlog, Outlet};
use crate::upstream::pool::{Outlets, Pool};
use crate::upstream::socket::{Outgoing, Received, Socket};

/// Wait for the close frame to go out; then the socket is dropped as it is.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

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

/// Opens the socket, drives it, and leaves nothing behind.
pub(super) async fn run(
    pool: Arc<Pool>,
    id: ConnectionId,
    headers: HeaderMap,
    mut commands: mpsc::Receiver<Command>,
    relief: Arc<Notify>,
) {
    let last = match pool.dial(&headers).await {
        Ok(opened) => {
            pool.metrics().sockets_opened.increment();
            pool.core().opened(Instant::now(), id);
            tracing::debug!(connection = %id, compression = opened.socket.compression(), "socket open");
            let mut driver = Driver {
                pool: &pool,
                id,
                socket: opened.socket,
                relief,
                outbox: VecDeque::new(),
                writing: None,
                waiting: VecDeque::new(),
                outlets: Outlets::new(),
                paused: false,
                lagging: false,
            };
            driver.drive(&mut commands).await
        }
        Err(error) => {
            refused(&pool, id, &error);
            Fault::Connect
        }
    };
    while pool.core().poll_action(id).is_some() {}
    pool.closed(id);
    commands.close();
    while let Some(command) = commands.recv().await {
        if let Command::Create { outlet, .. } = command {
            outlet.fail(last.clone());
        }
    }
}

fn refused(pool: &Pool, id: ConnectionId, error: &ConnectError) {
    let refusal = match error {
        ConnectError::Refused(refusal) => Refusal::of_status(refusal.status.as_u16()),
        _ => Refusal::Failure,
    };
    pool.metrics().sockets_refused.increment();
    tracing::info!(connection = %id, %error, "no socket; turns go over HTTP");
    pool.core().refused(Instant::now(), id, refusal);
}

struct Driver<'a> {
    pool: &'a Pool,
    id: ConnectionId,
    socket: Socket,
    relief: Arc<Notify>,
    outbox: VecDeque<Outgoing>,
    /// The turn whose frame is being written, and the socket's byte count before it.
    writing: Option<(TurnId, u64)>,
    /// Frames behind it; as many as the socket has turns in flight.
    waiting: VecDeque<(TurnId, Bytes)>,
    outlets: Outlets,
    /// Not reading: only readers at their bound are left.
    paused: bool,
    lagging: bool,
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
                Step::Timeout => {
                    let now = Instant::now();
                    let mut core = self.pool.core();
                    if self.paused {
                        core.heard(now, self.id);
                    }
                    core.timeout(now, self.id);
                }
            }
            self.write_next();
        }
    }

    async fn step(&mut self, commands: &mut mpsc::Receiver<Command>) -> Step {
        let deadline = self.pool.core().poll_timeout(self.id);
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
            let action = self.pool.core().poll_action(self.id)?;
            match action {
                Action::Ping => self.outbox.push_back(Outgoing::Ping),
                Action::Fault(turn, fault) => {
                    if let Some(outlet) = self.outlets.remove(&turn) {
                        outlet.fail(fault);
                    }
                }
                Action::Close => {
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
        let mut core = self.pool.core();
        loop {
            match core.poll_action(self.id)? {
                fault @ Action::Fault(..) => return Some(fault),
                Action::Ping | Action::Close => {}
            }
        }
    }

    fn lost(&mut self, fault: &Fault) {
        self.pool.metrics().sockets_lost.increment();
        let mut core = self.pool.core();
        core.lost(self.id, fault);
    }

    /// One frame at a time, so that what each weighs on the wire can be told.
    fn write_next(&mut self) {
        while self.writing.is_none() {
            let Some((turn, frame)) = self.waiting.pop_front() else { return };
            if !self.pool.core().sending(Instant::now(), self.id, turn) {
                if let Some(outlet) = self.outlets.remove(&turn) {
                    // Mostly nobody listens; but an unattributable error may have struck while the frame was queued.
                    outlet.fail(Fault::SocketLost(None));
                }
                continue;
            }
            self.writing = Some((turn, self.socket.bytes_written()));
            if let Some(outlet) = self.outlets.get(&turn) {
                // From here on it may have reached the provider.
                outlet.sent(1);
            }
            self.outbox.push_back(Outgoing::Text(frame));
        }
    }

    fn written(&mut self) {
        if let Some((turn, before)) = self.writing.take()
            && let Some(outlet) = self.outlets.get(&turn)
        {
            outlet.sent(self.socket.bytes_written() - before);
        }
    }

    fn receive(&mut self, received: Received) {
        let now = Instant::now();
        match received {
            Received::Text(text) => match Event::parse(text) {
                Ok(event) => self.deliver(now, event),
                Err(_) => self.pool.core().garbage(self.id),
            },
            Received::Binary => self.pool.core().garbage(self.id),
            Received::Ping | Received::Pong => self.pool.core().heard(now, self.id),
            Received::Closed { code: Some(1009), .. } | Received::TooLarge => self.lost(&Fault::TooBig),
            Received::Closed { code, .. } => self.lost(&Fault::SocketLost(code)),
            Received::Lost(error) => {
                tracing::debug!(connection = %self.id, error, "socket lost");
                self.lost(&Fault::SocketLost(None));
            }
        }
    }

    fn deliver(&mut self, now: Instant, event: Event) {
        let Verdict::Deliver(turn) = self.pool.core().event(now, self.id, &event) else { return };
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
            self.pool.core().lag(self.id, true);
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
            self.pool.metrics().turns_lagging.increment();
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
            self.pool.core().lag(self.id, false);
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
