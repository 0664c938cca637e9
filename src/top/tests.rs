//! The screen and the text as golden pages, of a proxy made up here.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};

use super::feed::Update;
use super::view::View;
use super::*;
use crate::admin::stats::{Stats, TurnRow};

fn stats() -> Value {
    let level = |now: u64| json!({ "now": now, "most": 100 });
    json!({
        "version": "0.1.0", "upstream": "https://api.openai.com/v1", "profile": "openai",
        "started_unix_seconds": 1.0, "uptime_seconds": 7500.0, "draining": false,
        "turns": { "delta": 38, "full": 2, "http": 1 }, "reasons": { "first-turn": 2, "mode": 1 },
        "outcomes": { "completed": 40, "failed": 1, "abandoned": 0, "lagging": 0 },
        "bytes": { "received": 6_320_000, "sent": 643_200, "wire": 91_900 },
        "first_event_seconds": { "count": 41, "p50": 0.21, "p90": 0.48, "p99": 1.3 },
        "added_seconds": { "count": 41, "p50": 0.0004, "p90": 0.0011, "p99": 0.009 },
        "recoveries": { "full_same": 1, "full_new": 0, "http": 1 },
        "saved": 0.985, "saved_before_compression": 0.898,
        "requests": { "passed_through": 3, "refused": 0, "overloaded": 0 },
        "socket_events": { "opened": 2, "refused": 0, "lost": 1, "retired": 0 },
        "held": { "turns": level(1), "sockets": level(1), "bodies_bytes": level(0), "buffers_bytes": level(0), "index_bytes": level(9) },
        "sockets": [{ "number": 1, "state": "open", "since_seconds": 3900.0, "most_lanes": 32, "lanes": ["busy", "held", "free", "burnt"] }],
    })
}

fn turn(number: u64, plan: &str) -> TurnRow {
    let (reason, grade) = if plan == "delta" { (None, Some("exact")) } else { (Some("first-turn"), None) };
    let turn = json!({
        "number": number, "began_unix_seconds": 1.0, "api": "responses", "form": "sse", "plan": plan, "grade": grade,
        "reason": reason, "items_sent": 2, "items": 61, "received_bytes": 412_009, "sent_bytes": 1_874, "wire_bytes": 611,
        "rung": null, "recoveries": 0, "added_seconds": 0.0004, "first_event_seconds": 0.21, "duration_seconds": 2.5,
        "status": 200, "outcome": "completed",
    });
    serde_json::from_value(turn).unwrap()
}

fn view(now: Instant) -> View {
    let mut view = View::new("http://127.0.0.1:8485".to_owned());
    let stats: Stats = serde_json::from_value(stats()).unwrap();
    view.take(Update::Snapshot(Box::new(stats), vec![turn(40, "full")]), now);
    view.take(Update::Turn(Box::new(turn(41, "delta"))), now);
    view
}

fn page(view: &View, now: Instant, (width, height): (u16, u16)) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen::draw(frame, view, now)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

#[test]
fn the_text_says_it_all() {
    let now = Instant::now();
    let text = plain::text(&view(now), now + Duration::from_secs(30));
    println!("{text}");
    assert_eq!(text, TEXT);
}

#[test]
fn the_screen_says_it_all() {
    let now = Instant::now();
    let page = page(&view(now), now + Duration::from_secs(30), (112, 22)).join("\n");
    println!("{page}");
    assert_eq!(page, SCREEN);
}

#[test]
fn a_small_screen_shows_what_fits() {
    let now = Instant::now();
    for size in [(20, 4), (1, 1), (60, 14), (500, 3)] {
        let page = page(&view(now), now, size);
        assert!(size.0 < 20 || page[0].starts_with("tailwire 0.1.0 -> "), "{page:?}");
    }
}

#[test]
fn a_minute_later_nothing_counts_as_now_and_what_is_lost_is_said() {
    let now = Instant::now();
    let mut view = view(now);
    let recent =
        |view: &View, now| view.totals(now).into_iter().find(|(name, _)| *name == "last minute").unwrap().1;
    assert_eq!(recent(&view, now), "received 412.0 kB, on the wire 611 B");
    let later = now + Duration::from_secs(61);
    assert_eq!(recent(&view, later), "received 0 B, on the wire 0 B");
    assert_eq!(view.warning(), None);
    view.take(Update::Missed(3), later);
    assert!(view.warning().unwrap().starts_with("3 turns"));
    view.take(Update::Lost("it ended".to_owned()), later);
    assert!(page(&view, later, (112, 22)).last().unwrap().contains("it ended"));
    view.take(Update::Stats(Box::new(serde_json::from_value(stats()).unwrap())), later);
    assert!(view.warning().unwrap().starts_with("3 turns"));
}

const TEXT: &str = "\
tailwire 0.1.0 -> https://api.openai.com/v1 (openai), up 2 h 5 min

saved        98.5 % (89.8 % without compression)
bytes        received 6.32 MB, sent 643.2 kB, on the wire 91.9 kB
last minute  received 412.0 kB, on the wire 611 B
turns        41, 1 under way
plans        delta 38 (92.7 %), full 2 (4.9 %), http 1 (2.4 %)
reasons      first-turn 2, mode 1
first event  half 210 ms, nine of ten 480 ms, 99 of 100 1.3 s
added        half 0.4 ms, nine of ten 1.1 ms, 99 of 100 9.0 ms
trouble      failed 1, abandoned 0, lagging 0; recovered 2; sockets lost 1

socket  state  age        lanes  use
1       open   1 h 0 min  4/32   Bhfx
B busy, h held, f free, l left, x burnt

turn  api        plan   why         items  received  wire   first event  took   status  outcome
41    responses  delta  exact       2/61   412.0 kB  611 B  210 ms       2.5 s  200     completed
40    responses  full   first-turn  2/61   412.0 kB  611 B  210 ms       2.5 s  200     completed
";

const SCREEN: &str = "\
tailwire 0.1.0 -> https://api.openai.com/v1 (openai), up 2 h 5 min
██████████████████████████████████████████████████98.5 % saved ███████████████████████████████████████████████
────────────────────────────────────────────────────────────────────────────────────────────────────────────────
saved        98.5 % (89.8 % without compression)
bytes        received 6.32 MB, sent 643.2 kB, on the wire 91.9 kB
last minute  received 412.0 kB, on the wire 611 B
turns        41, 1 under way
plans        delta 38 (92.7 %), full 2 (4.9 %), http 1 (2.4 %)
reasons      first-turn 2, mode 1
first event  half 210 ms, nine of ten 480 ms, 99 of 100 1.3 s
added        half 0.4 ms, nine of ten 1.1 ms, 99 of 100 9.0 ms
trouble      failed 1, abandoned 0, lagging 0; recovered 2; sockets lost 1
────────────────────────────────────────────────────────────────────────────────────────────────────────────────
socket state    age          lanes  use
1      open     1 h 0 min    4/32   Bhfx
 B busy, h held, f free, l left, x burnt ───────────────────────────────────────────────────────────────────────
turn   api       plan  why              items     received  wire      first event took     status outcome
41     responses delta exact            2/61      412.0 kB  611 B     210 ms      2.5 s    200    completed
40     responses full  first-turn       2/61      412.0 kB  611 B     210 ms      2.5 s    200    completed


q leaves";
