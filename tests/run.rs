//! `tailwire run`: the real binary around real commands, in front of the simulated provider. Needs `sh` and `python3`; the
//! agent for Node is played where there is a `node`.
//!
//! What the summary says is compared with what the provider itself has counted.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tailwire::sim::{Running, Script};

const TAILWIRE: &str = env!("CARGO_BIN_EXE_tailwire");

/// No wait is longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// How something ended, and what it wrote.
#[derive(Debug)]
struct Ended {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("{self:?}"))
    }
}

/// A command with nothing of this process's environment but the way to its programs.
fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    // The usual admin port may be somebody's.
    command.env("TAILWIRE_ADMIN_LISTEN", "off");
    command.current_dir(env!("CARGO_TARGET_TMPDIR")).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn tailwire(arguments: &[&str]) -> Command {
    command(TAILWIRE, arguments)
}

fn finish(command: &mut Command) -> Ended {
    wait(command.spawn().unwrap())
}

/// Waits for an end, and takes what is written until then.
fn wait(mut child: Child) -> Ended {
    let (tell, told) = mpsc::sync_channel(1);
    let pid = Pid::from_child(&child);
    std::thread::spawn(move || {
        let read = |pipe: Option<Box<dyn Read + Send>>| {
            std::thread::spawn(move || {
                let mut text = String::new();
                pipe.map(|mut pipe| pipe.read_to_string(&mut text));
                text
            })
        };
        let stdout = read(child.stdout.take().map(|pipe| Box::new(pipe) as _));
        let stderr = read(child.stderr.take().map(|pipe| Box::new(pipe) as _));
        let status = child.wait().unwrap();
        let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
        let _nobody_waits = tell.send(Ended { status, stdout, stderr });
    });
    told.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let _gone = kill_process(pid, Signal::KILL);
        panic!("no end within {PATIENCE:?}")
    })
}

/// A path for a file of one test.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("run-{}-{name}", std::process::id()))
}

fn script(name: &str) -> String {
    format!("{}/tests/run/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn streams_and_exit_code_are_the_commands() {
    let shell = "cat; echo out; echo err >&2; exit 7";
    let mut child = tailwire(&["run", "--", "sh", "-c", shell]).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"in\n").unwrap();
    let ended = wait(child);
    assert_eq!((ended.code(), &*ended.stdout), (7, "in\nout\n"));
    let ours = ended.stderr.strip_prefix("err\n").unwrap();
    assert!(ours.starts_with("tailwire: no turn came through") && ours.lines().count() == 1, "{ours}");

    let quiet = finish(&mut tailwire(&["run", "-q", "--", "sh", "-c", "kill -KILL $$"]));
    assert_eq!((quiet.code(), &*quiet.stderr), (128 + 9, ""));
}

#[test]
fn what_is_not_run_has_its_own_exit_codes() {
    let plain = file("plain");
    std::fs::write(&plain, "text").unwrap();
    let plain = plain.to_str().unwrap();
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let occupied = occupied.local_addr().unwrap().to_string();
    for (arguments, code, complaint) in [
        (&["run"][..], 64, "<COMMAND>"),
        (&["run", "--jsn", "x", "true"], 64, "--jsn"),
        (&["run", "--", "no-such-command"], 127, "tailwire: no-such-command: "),
        (&["run", "--", plain], 126, "ermission denied"),
        (&["run", "--config", "/nowhere/proxy.toml", "--", "true"], 78, "cannot be read"),
        (&["run", "--listen", &occupied, "--", "true"], 69, "tailwire: "),
        (&["run", "--json", "/nowhere/run.json", "--", "true"], 69, "/nowhere/run.json: "),
        (&["run", "--log", "/nowhere/run.log", "--", "true"], 69, "/nowhere/run.log: "),
    ] {
        let ended = finish(&mut tailwire(arguments));
        assert_eq!(ended.code(), code, "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(complaint) && ended.stdout.is_empty(), "{arguments:?}: {ended:?}");
    }
    // What the environment names instead of an upstream is bad configuration, and the command is not started.
    let ended = finish(tailwire(&["run", "--", "echo", "ran"]).env("OPENAI_BASE_URL", "ftp://x"));
    assert_eq!((ended.code(), &*ended.stdout), (78, ""), "{}", ended.stderr);
    std::fs::remove_file(plain).unwrap();
}

/// What a ping is on the wire, at most. A machine that rests for 5 s in mid-conversation has one sent with the next turn.
const PING: u64 = 16;

/// The bytes that the provider counted: JSON of the requests, and on the wire, with the pings there; and its requests.
fn counted(sim: &Running) -> (u64, u64, u64, usize) {
    sim.provider.ledger().read(|book| {
        let turns = book.turns.iter();
        let (frames, wire) =
            turns.fold((0, 0), |(frames, wire), turn| (frames + turn.frame as u64, wire + turn.wire));
        assert_eq!(book.violations, []);
        (frames, wire, book.pings, book.turns.len())
    })
}

/// An agent through `tailwire run`: its summary is the agent's and the provider's own count, to the byte.
async fn agent(program: &str, name: &str, mode: &str, by_environment: bool) {
    const TURNS: u64 = 6;
    let sim = Running::start(Script { deflate: true, ..Script::default() }).await.unwrap();
    let (json, log) = (file(&format!("{name}-{mode}.json")), file(&format!("{name}-{mode}.log")));
    let (json_name, log_name) = (json.to_str().unwrap(), log.to_str().unwrap());
    let (script, turns, url) = (script(name), TURNS.to_string(), sim.base_url());
    let mut arguments = vec!["run", "--json", json_name, "--log", log_name];
    if !by_environment {
        arguments.extend(["--upstream", &url]);
    }
    arguments.extend(["--", program, &script, &turns, mode]);
    let mut command = tailwire(&arguments);
    if by_environment {
        command.env("OPENAI_BASE_URL", &url);
    }
    let ended = tokio::task::spawn_blocking(move || finish(&mut command)).await.unwrap();
    assert_eq!(ended.code(), 0, "{ended:?}");
    let said: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    let told: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let (frames, wire, pings, turns) = counted(&sim);

    assert_eq!(turns as u64, TURNS);
    assert_eq!(told["turns"], serde_json::json!({ "delta": TURNS - 1, "full": 1, "http": 0 }), "{told}");
    assert_eq!(told["reasons"], serde_json::json!({ "first-turn": 1 }));
    let (bytes, told_wire) = (&told["bytes"], told["bytes"]["wire"].as_u64().unwrap());
    assert_eq!((&bytes["received"], &bytes["sent"]), (&said["sent"], &frames.into()), "{name} {mode}");
    assert!(
        (told_wire..=told_wire + pings * PING).contains(&wire),
        "{name} {mode}: {told_wire} {wire} {pings}"
    );
    assert_eq!(told["command_exit"], 0);
    assert_eq!(told["first_event_seconds"]["count"], TURNS);
    assert!(wire < frames && frames < said["sent"].as_u64().unwrap());

    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!(lines[0], "tailwire: 6 turns, 83.3 % as deltas; in full: 1 first-turn", "{}", ended.stderr);
    assert!(
        lines[1].starts_with("tailwire: received ") && lines[2].starts_with("tailwire: first event after ")
    );
    assert_eq!(lines.len(), 3, "the log does not come to the terminal: {}", ended.stderr);
    let log_text = std::fs::read_to_string(&log).unwrap();
    assert!(log_text.lines().filter(|line| line.contains("plan=\"delta\"")).count() >= 5, "{log_text}");
    assert!(!log_text.contains("sk-agent") && !log_text.contains("Begin, please"));
    std::fs::remove_file(json).unwrap();
    std::fs::remove_file(log).unwrap();
    sim.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_summary_of_a_python_agent_is_the_providers_own_count() {
    agent("python3", "agent.py", "json", false).await;
    agent("python3", "agent.py", "stream", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_summary_of_a_node_agent_is_the_providers_own_count() {
    if Command::new("node").arg("--version").output().is_err() {
        eprintln!("skipped: there is no node on this machine");
        return;
    }
    agent("node", "agent.mjs", "json", true).await;
    agent("node", "agent.mjs", "stream", false).await;
}

/// Says that it is ready, then how it was told to end.
const TOLD: &str = "
import os, signal, sys
def told(number, frame):
    os.write(1, signal.Signals(number).name.encode())
    os._exit(5)
for name in sys.argv[1:]:
    signal.signal(getattr(signal, name), told)
print('ready', flush=True)
while True:
    signal.pause()
";

#[test]
fn signals_that_are_sent_to_us_alone_reach_the_command() {
    for (name, signal) in [
        ("SIGTERM", Signal::TERM),
        ("SIGHUP", Signal::HUP),
        ("SIGUSR1", Signal::USR1),
        ("SIGUSR2", Signal::USR2),
        // Without a terminal nobody else can have sent it to the command.
        ("SIGINT", Signal::INT),
        ("SIGQUIT", Signal::QUIT),
    ] {
        // What is started in the background is told to ignore the last two, and what it starts inherits that.
        let lead = "import os, signal, sys; os.setsid(); \
            [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGQUIT)]; \
            os.execv(sys.argv[1], sys.argv[1:])";
        let arguments = ["-c", lead, TAILWIRE, "run", "-q", "--", "python3", "-c", TOLD, name];
        let mut child = command("python3", &arguments).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        kill_process(Pid::from_child(&child), signal).unwrap();
        let ended = wait(child);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!((ended.code(), rest.trim()), (5, name), "{ended:?}");
    }
}

#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let look = "import signal; print(*(signal.getsignal(n) == signal.SIG_IGN for n in (signal.SIGHUP, signal.SIGTERM)))";
    for (program, seen) in [("nohup", "True False\n"), ("env", "False False\n")] {
        let mut command = command(program, &[TAILWIRE, "run", "-q", "--", "python3", "-c", look]);
        assert_eq!(finish(&mut command).stdout, seen, "{program}");
    }
}

fn scene(name: &str) -> Value {
    let ended = finish(&mut command("python3", &[&script("terminal.py"), name, TAILWIRE]));
    serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"))
}

#[test]
fn the_terminal_its_size_and_its_keys_are_the_commands() {
    let seen = scene("session");
    let screen = seen["screen"].as_str().unwrap();
    for line in [
        "child [True, True, True] (33, 77) True",
        "size (40, 100)",
        // Each key once, and none of them ended us.
        "heard SIGWINCH,SIGINT,SIGQUIT",
        "bye end",
    ] {
        assert!(screen.lines().any(|seen| seen.ends_with(line)), "{line}: {screen}");
    }
    // Ctrl-Z stopped the job as its shell sees it, and it went on.
    assert_eq!((&seen["stopped"], &seen["end"]), (&"stopped".into(), &"exit 9".into()), "{screen}");
}

#[test]
fn ctrl_c_ends_the_command_and_then_us() {
    let seen = scene("interrupted");
    assert_eq!(seen["end"], "exit 130", "{seen}");
    assert!(seen["screen"].as_str().unwrap().contains("tailwire: no turn came through"), "{seen}");
}

#[test]
fn the_help_names_tools_that_do_not_read_the_variable() {
    let ended = finish(&mut tailwire(&["run", "--help"]));
    for word in ["OPENAI_BASE_URL", "OPENAI_API_BASE", "Codex", "model_providers", "opencode", "pi:", "127"] {
        assert!(ended.stdout.contains(word), "{word}: {}", ended.stdout);
    }
    assert_eq!(ended.code(), 0);
}
