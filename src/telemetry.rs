//! What tailwire says about itself: log lines on stderr, counters, and a record of each turn.
//! Never a key, a header's value or message content; stdout belongs to the commands.

pub mod histogram;
pub mod metrics;
pub mod summary;
pub mod turns;
pub mod words;

use std::any::Any;
use std::io::IsTerminal;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, filter_fn},
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Starts logging on stderr, panics included. `filter` is `log.level` of the settings, already checked; `json` writes one object a
/// line. A second call in the same process changes nothing.
pub fn init(filter: &str, json: bool) {
    let colour = std::io::stderr().is_terminal();
    let _already_started = subscriber(filter, json, colour, std::io::stderr).try_init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, what = fixed_words(panic.payload()), "a defect of tailwire; please report it");
    }));
}

/// What a panic says, if it says it in words of the source. What it puts together at run time may quote a message: std's
/// own complaint about a bad index quotes the text.
fn fixed_words(payload: &dyn Any) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("(withheld: it may quote what was under way)")
}

/// [`init`] with another place for the lines, for whoever has the proxy in a process of its own. False if logging was
/// started before, which then goes on as it was.
pub fn init_to<W>(filter: &str, json: bool, writer: W) -> bool
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    subscriber(filter, json, false, writer).try_init().is_ok()
}

fn subscriber<W>(filter: &str, json: bool, colour: bool, writer: W) -> impl Subscriber + Send + Sync + 'static
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(writer).with_ansi(colour && !json);
    let lines = if json { lines.json().boxed() } else { lines.boxed() };
    let filter = EnvFilter::new(filter).and(filter_fn(ours_or_urgent));
    tracing_subscriber::registry().with(lines.with_filter(filter))
}

/// Libraries are heard from `warn` up only: below it some of them print headers, and so credentials.
fn ours_or_urgent(metadata: &Metadata<'_>) -> bool {
    let root = metadata.target().split("::").next();
    root == Some(env!("CARGO_CRATE_NAME")) || *metadata.level() <= Level::WARN
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(filter: &str, json: bool) -> String {
        let page = Page::default();
        let writer = page.clone();
        tracing::subscriber::with_default(subscriber(filter, json, false, move || writer.clone()), || {
            tracing::info!(turn = 7, "ours at info");
            tracing::debug!("ours at debug");
            tracing::debug!(target: "hyper::proto", "a library's header dump");
            tracing::warn!(target: "hyper::proto", "a library's warning");
        });
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_panic_quotes_nothing() {
        let words = |work: fn()| fixed_words(&*std::panic::catch_unwind(work).unwrap_err());
        assert_eq!(words(|| panic!("impossible")), "impossible");
        let quoting = words(|| {
            let _ = "sk-planted é".split_at(12);
        });
        assert!(quoting.starts_with("(withheld"), "{quoting}");
    }

    #[test]
    fn libraries_speak_only_in_warnings() {
        for filter in ["trace", "info,hyper=trace,tailwire=debug"] {
            let text = written(filter, false);
            assert!(text.contains("ours at debug") && text.contains("a library's warning"), "{text}");
            assert!(!text.contains("header dump"), "{text}");
        }
    }

    #[test]
    fn the_filter_holds_and_json_is_one_object_a_line() {
        let text = written("info", true);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["fields"]["turn"], 7);
        assert_eq!(lines[0]["level"], "INFO");
        assert_eq!(written("off", false), "");
    }
}
