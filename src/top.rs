//! `tailwire top`: how a running proxy stands, live in a terminal, or once as text where there is none.
//!
//! Reads the proxy's admin listener, and knows no more than that says; changes nothing. What is asked is in `top/feed.rs`,
//! what is shown in `top/view.rs`, how in `top/screen.rs` and `top/plain.rs`.

mod feed;
mod plain;
mod screen;
#[cfg(test)]
mod tests;
mod view;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::feed::Source;
use self::view::View;
use crate::args::TopArgs;

/// Between two looks at the keys, and for a last one: how long leaving may take.
const KEYS: Duration = Duration::from_millis(100);
/// The screen is drawn this often although nothing was heard: ages grow.
const REDRAW: Duration = Duration::from_secs(1);

/// Shows the proxy until `q` is pressed; or once.
///
/// # Errors
/// There is no admin listener, or no output.
pub async fn run(arguments: TopArgs) -> io::Result<()> {
    let source = Source::parse(&arguments.admin)?;
    let (stats, turns) = source.snapshot().await.map_err(|error| unreachable(&source, &error))?;
    let mut view = View::new(source.to_string());
    view.take(feed::Update::Snapshot(Box::new(stats), turns), Instant::now());
    if arguments.once || !io::stdout().is_terminal() {
        let text = plain::text(&view, Instant::now());
        // A reader that closes early, such as `head`, is not an error.
        return match io::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        };
    }
    watch(source, view).await
}

fn unreachable(source: &Source, error: &io::Error) -> io::Error {
    let words =
        format!("no admin listener at {source}: {error} (the proxy's `admin_listen` says where it is)");
    io::Error::new(error.kind(), words)
}

/// The live screen.
async fn watch(source: Source, mut view: View) -> io::Result<()> {
    let (news, mut heard) = mpsc::channel(feed::WAITING);
    let follower = tokio::spawn(feed::follow(source, news));
    let mut keys = keys();
    let mut ticks = interval(REDRAW);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = std::pin::pin!(told_to_end());
    // Restored also if drawing panics.
    let mut terminal = ratatui::try_init()?;
    let drawn = loop {
        if let Err(error) = terminal.draw(|frame| screen::draw(frame, &view, Instant::now())) {
            break Err(error);
        }
        tokio::select! {
            Some(update) = heard.recv() => view.take(update, Instant::now()),
            key = keys.recv() => match key {
                Some(Key::Leave) | None => break Ok(()),
                Some(Key::Look) => {}
            },
            () = &mut told => break Ok(()),
            _ = ticks.tick() => {}
        }
    };
    follower.abort();
    ratatui::try_restore()?;
    drawn
}

/// What a key, or another sign of the terminal, means.
enum Key {
    Leave,
    /// Draw anew: the size is another.
    Look,
}

/// The keys, read by a thread of its own that ends soon after nobody listens any more.
fn keys() -> mpsc::Receiver<Key> {
    let (press, pressed) = mpsc::channel(16);
    std::thread::spawn(move || {
        while !press.is_closed() {
            let key = match event::poll(KEYS) {
                Ok(false) => continue,
                Ok(true) => event::read().ok().and_then(meaning),
                // No terminal any more.
                Err(_) => Some(Key::Leave),
            };
            if let Some(key) = key
                && press.blocking_send(key).is_err()
            {
                break;
            }
        }
    });
    pressed
}

fn meaning(event: Event) -> Option<Key> {
    match event {
        Event::Key(key) if key.kind == KeyEventKind::Press => {
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            let leaves = match key.code {
                KeyCode::Char('c' | 'd') => control,
                KeyCode::Char('q') | KeyCode::Esc => true,
                _ => false,
            };
            leaves.then_some(Key::Leave)
        }
        Event::Resize(..) => Some(Key::Look),
        _ => None,
    }
}

/// SIGTERM or SIGHUP, so that the terminal is put back.
async fn told_to_end() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let (Ok(mut terminate), Ok(mut hangup)) =
            (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
        {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = hangup.recv() => return,
            }
        }
    }
    std::future::pending().await
}
