//! `/events`: how things stand, then every turn as it ends, and how things stand once a second while anything changes; as
//! server-sent events. A follower that reads too slowly is told how many turns it missed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::admin::Admin;
use crate::admin::stats::{Stats, TurnRow};
use crate::downstream::body::{self, Body};
use crate::downstream::listen::{Connection, Stage};
use crate::telemetry::turns::Turn;

/// Between two looks at how things stand.
const TICK: Duration = Duration::from_secs(1);
/// Looks without a change after which a comment shows that the stream is alive.
const QUIET: u32 = 15;

/// The stream of one follower. It ends when the listener drains.
pub(super) fn stream(admin: Arc<Admin>, connection: Connection) -> Body {
    let (turns, news) = admin.proxy.journal().follow();
    let stats = admin.stats();
    let turns: Vec<TurnRow> = turns.iter().map(|turn| TurnRow::of(turn)).collect();
    let first = event("snapshot", &serde_json::json!({ "stats": stats, "turns": turns }));
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let follower = Follower { admin, connection, news, ticks, first: Some(first), last: stats, quiet: 0 };
    body::stream(futures_util::stream::unfold(follower, |mut follower| async {
        let piece = follower.next().await?;
        Some((Ok(piece), follower))
    }))
}

struct Follower {
    admin: Arc<Admin>,
    connection: Connection,
    news: Receiver<Arc<Turn>>,
    ticks: Interval,
    first: Option<Bytes>,
    last: Stats,
    quiet: u32,
}

impl Follower {
    /// The next piece of the stream; none at its end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            tokio::select! {
                () = self.connection.reached(Stage::Draining) => return None,
                heard = self.news.recv() => match heard {
                    Ok(turn) => return Some(event("turn", &TurnRow::of(&turn))),
                    Err(RecvError::Lagged(turns)) => {
                        return Some(event("missed", &serde_json::json!({ "turns": turns })));
                    }
                    Err(RecvError::Closed) => return None,
                },
                _ = self.ticks.tick() => {
                    if let Some(piece) = self.look() {
                        return Some(piece);
                    }
                }
            }
        }
    }

    fn look(&mut self) -> Option<Bytes> {
        let stats = self.admin.stats();
        if !stats.differs_from(&self.last) {
            self.quiet += 1;
            return self.quiet.is_multiple_of(QUIET).then(|| Bytes::from_static(b": still here\n\n"));
        }
        self.quiet = 0;
        let piece = event("stats", &stats);
        self.last = stats;
        Some(piece)
    }
}

fn event(name: &str, data: &impl Serialize) -> Bytes {
    // JSON has no line break of its own.
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n").into()
}
