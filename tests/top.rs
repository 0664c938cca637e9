//! `tailwire top`: the real binary beside a real proxy, as text and in a terminal. Needs `python3` for the latter.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

use tailwire::app;
use tailwire::config::{AdminListen, Settings};
use tailwire::sim::{Running, Script};

/// A proxy that has served a conversation of three turns, and where it is looked at.
async fn served() -> (Running, app::Running, String) {
    let sim = Running::start(Script::default()).await.unwrap();
    let settings = Settings {
        listen: ([127, 0, 0, 1], 0).into(),
        admin_listen: AdminListen::At(([127, 0, 0, 1], 0).into()),
        upstream: sim.base_url().parse().unwrap(),
        ..Settings::default()
    };
    let proxy = app::Running::start(settings).await.unwrap();
    let script = format!("{}/tests/run/agent.py", env!("CARGO_MANIFEST_DIR"));
    let arguments = ["3", "json"].map(str::to_owned);
    let mut command = Command::new("python3");
    command.arg(script).args(arguments).env("OPENAI_BASE_URL", proxy.base_url());
    let agent = finish(command).await;
    assert!(agent.status.success(), "{agent:?}");
    let admin = proxy.admin_addr().unwrap().to_string();
    (sim, proxy, admin)
}

async fn tool(program: &str, arguments: Vec<String>) -> Output {
    let mut command = Command::new(program);
    command.args(arguments);
    finish(command).await
}

async fn finish(mut command: Command) -> Output {
    command.stdin(std::process::Stdio::null());
    let ended = tokio::task::spawn_blocking(move || command.output().unwrap());
    tokio::time::timeout(std::time::Duration::from_secs(120), ended).await.expect("it ends").unwrap()
}

const TAILWIRE: &str = env!("CARGO_BIN_EXE_tailwire");

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_it_is_text_once() {
    let (sim, proxy, admin) = served().await;
    let output = tool(TAILWIRE, vec!["top".to_owned(), format!("http://{admin}/")]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{text}");
    let bytes = proxy.summary().bytes;
    let saved = tailwire::telemetry::words::share(bytes.saved());
    for words in [
        format!("-> {}", sim.base_url()),
        format!("saved        {saved} ("),
        "turns        3, 0 under way".to_owned(),
        "plans        delta 2 (66.7 %), full 1 (33.3 %), http 0 (0.0 %)".to_owned(),
        "reasons      first-turn 1".to_owned(),
    ] {
        assert!(text.contains(&words), "{words}: {text}");
    }
    let turns: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("turn ")).skip(1).collect();
    assert_eq!(turns.len(), 3, "{text}");
    assert!(
        turns[0].starts_with("3 ") && turns[0].contains(" delta ") && turns[2].contains(" first-turn "),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_terminal_it_is_a_screen_that_q_leaves() {
    let (_sim, _proxy, admin) = served().await;
    let script = format!("{}/tests/run/terminal.py", env!("CARGO_MANIFEST_DIR"));
    let output = tool("python3", vec![script, "top".to_owned(), TAILWIRE.to_owned(), admin]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let seen: serde_json::Value = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!((&seen["end"], &seen["cooked"]), (&"exit 0".into(), &true.into()), "{seen}");
    let screen = seen["screen"].as_str().unwrap();
    // The other screen was entered and left, so that what stood there before is back.
    assert!(screen.contains("\u{1b}[?1049h") && screen.contains("\u{1b}[?1049l"), "{screen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_listens_it_says_so() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (address, complaint) in
        [(&*nobody, "no admin listener at http://"), ("8485", "no address of an admin listener")]
    {
        let output = tool(TAILWIRE, vec!["top".to_owned(), address.to_owned()]).await;
        let complained = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(69), "{complained}");
        assert!(complained.contains(complaint) && output.stdout.is_empty(), "{complained}");
    }
}
