//! The command as a child: in the foreground with our terminal, waited for until it ends, with the signals that were meant
//! for it.
//!
//! What the terminal sends (Ctrl-C, Ctrl-\, Ctrl-Z) goes to the whole foreground group, so the child has it already, and we only
//! must not die of it. What somebody sends to our process alone (`kill`, a supervisor) is handed on. If the child stops,
//! we stop too, so that the shell notices; continued, we go on together. Decides nothing about the proxy.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::process::Command;

use rustix::process::{Pid, Signal, WaitOptions, getpgrp, getpid, kill_process, waitpid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Signals that would end us, or that programs are told things by.
const HEARD: [Signal; 7] =
    [Signal::INT, Signal::QUIT, Signal::TSTP, Signal::TERM, Signal::HUP, Signal::USR1, Signal::USR2];

/// Those that the terminal sends to everybody in the foreground.
const OF_THE_TERMINAL: [Signal; 3] = [Signal::INT, Signal::QUIT, Signal::TSTP];

/// Signals that wait to be looked at; one more of a kind that waits says nothing new.
const WAITING: usize = 16;

/// Hears signals from its creation on, so that none falls between the child and us.
#[derive(Debug)]
pub(super) struct Supervisor {
    signals: mpsc::Receiver<Signal>,
    _listeners: JoinSet<()>,
}

impl Supervisor {
    /// Starts to listen.
    pub(super) fn listen() -> io::Result<Self> {
        let (sender, signals) = mpsc::channel(WAITING);
        let mut listeners = JoinSet::new();
        let ignored = ignored();
        // Who was started to ignore a signal (`nohup`) hands that on: a handler of ours would end it in the child.
        let heard = HEARD.into_iter().filter(|signal| ignored & bit(*signal) == 0);
        for kind in heard.chain([Signal::CHILD]) {
            let mut stream = signal(SignalKind::from_raw(kind.as_raw()))?;
            let sender = sender.clone();
            listeners.spawn(async move {
                while stream.recv().await.is_some() {
                    // A full queue is being looked at; the child's state is looked at each time.
                    let _ = sender.try_send(kind);
                }
            });
        }
        Ok(Self { signals, _listeners: listeners })
    }

    /// Runs the command with these variables set; its exit code.
    pub(super) async fn run(
        &mut self,
        command: &[OsString],
        variables: &[(OsString, OsString)],
    ) -> io::Result<u8> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let pairs = variables.iter().map(|(name, value)| (name, value));
        let child = Command::new(program).args(arguments).envs(pairs).spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::Other)?;
        loop {
            if let Some(exit) = look(pid)? {
                return Ok(exit);
            }
            match self.signals.recv().await {
                Some(Signal::CHILD) | None => {}
                Some(signal) if OF_THE_TERMINAL.contains(&signal) && in_foreground() => {}
                // It has not been waited for, so the number is still its own.
                Some(signal) => kill_process(pid, signal)?,
            }
        }
    }

    /// Ends when somebody wants us to end, now that the child has.
    pub(super) async fn told_to_end(mut self) {
        let ends = [Signal::INT, Signal::QUIT, Signal::TERM, Signal::HUP];
        while let Some(signal) = self.signals.recv().await {
            if ends.contains(&signal) {
                return;
            }
        }
        std::future::pending().await
    }
}

/// The child's exit code, if it has ended. If it has stopped, we stop with it.
fn look(pid: Pid) -> io::Result<Option<u8>> {
    let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
    while let Some((_, status)) = waitpid(Some(pid), options)? {
        if let Some(code) = status.exit_status() {
            return Ok(Some(u8::try_from(code & 0xff).unwrap_or(u8::MAX)));
        }
        if let Some(signal) = status.terminating_signal() {
            return Ok(Some(u8::try_from(128 + signal).unwrap_or(u8::MAX)));
        }
        if status.stopped() && has_terminal() {
            kill_process(getpid(), Signal::STOP)?;
            // Here we were continued, perhaps alone.
            kill_process(pid, Signal::CONT)?;
        }
    }
    Ok(None)
}

/// Only a terminal's shell continues what has stopped.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Whether our group has the terminal, so that what it sends came to the child as well.
fn in_foreground() -> bool {
    let Ok(terminal) = File::open("/dev/tty") else { return false };
    rustix::termios::tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp())
}

/// The signals that we were started to ignore, a bit each. Known on Linux only.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

fn bit(signal: Signal) -> u64 {
    1 << (signal.as_raw() - 1)
}
