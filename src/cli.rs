//! The command line: flags into plain structs, commands to the rooms that do them, results to exit codes.
//! Does no work of its own.
//!
//! Exit codes follow BSD's sysexits: 0 after a drain, 64 bad usage, 65 and 66 for what `explain` cannot read, 69 cannot bind
//! or reach, 78 bad configuration.

mod pages;

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory, Parser, Subcommand};

use crate::{
    app,
    args::{CheckArgs, DemoArgs, ExplainArgs, RunArgs, ServeArgs, SimArgs, TopArgs},
    check,
    config::{self, LogFormat, Settings},
    demo,
    explain::{self, ExplainError},
    run::{self, RunError},
    telemetry, top,
};

/// `EX_USAGE`: the command line makes no sense.
pub const USAGE: u8 = 64;
/// As shells have it: there is no such command.
pub const NOT_FOUND: u8 = 127;
/// As shells have it: the command cannot be started.
pub const NOT_EXECUTABLE: u8 = 126;
/// `EX_DATAERR`: a file that holds something else than was asked for.
pub const DATA: u8 = 65;
/// `EX_NOINPUT`: a file that cannot be read.
pub const NO_INPUT: u8 = 66;
/// `EX_UNAVAILABLE`: an address cannot be bound, or what was asked for cannot be reached.
pub const UNAVAILABLE: u8 = 69;
/// `EX_CONFIG`: the settings cannot be used.
pub const CONFIG: u8 = 78;

/// A transparent proxy: full-history REST in, the tail over one WebSocket, plain REST out.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy (the default).
    Serve(ServeArgs),
    /// A simulated provider, the proxy and a scripted agent in one run: the same calls direct and through the
    /// proxy, and a table of what each cost. Needs no key and no network.
    Demo(DemoArgs),
    /// The simulated provider alone, to try an agent without a key.
    Sim(SimArgs),
    /// Read the configuration, connect upstream, and say in plain words what works.
    Check(CheckArgs),
    /// Run a command with a proxy of its own: `tailwire run -- python agent.py`. The terminal, signals and exit code are the
    /// command's; a short summary follows on stderr.
    #[command(after_help = run::help())]
    Run(RunArgs),
    /// Watch a running proxy: what it saves, its sockets and its last turns; from its admin listener.
    Top(TopArgs),
    /// Why one request does or does not continue another, in words; exits with 0 if it does, with 1 if not.
    Explain(ExplainArgs),
    /// Print every setting with its default: the shipped `proxy.toml`.
    Config,
    /// Print the completions of a shell: `tailwire completions bash > /etc/bash_completion.d/tailwire`.
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print a manual page: of tailwire, or of one of its commands.
    Man {
        /// The command
        command: Option<String>,
    },
}

/// Parses a command line, program name first.
///
/// # Errors
/// Bad usage; or a request for help or the version, which [`answer`] prints.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let line = CommandLine::try_parse_from(arguments)?;
    Ok(line.command.unwrap_or(Command::Serve(line.serve)))
}

/// Prints the help, the version or the complaint, and exits with 0 or 64.
#[must_use]
pub fn answer(error: &clap::Error) -> ExitCode {
    // Nowhere to complain to when the terminal is gone.
    let _unheard = error.print();
    ExitCode::from(if error.use_stderr() { USAGE } else { 0 })
}

/// Does what was asked, to its end, and says how it ended.
pub async fn run(command: Command) -> ExitCode {
    match command {
        Command::Serve(arguments) => match settings(&arguments) {
            Ok(settings) => exit(app::serve(settings).await),
            Err(code) => code,
        },
        Command::Check(arguments) => match settings(&arguments) {
            Ok(settings) => ExitCode::from(if check::run(settings).await { 0 } else { UNAVAILABLE }),
            Err(code) => code,
        },
        Command::Demo(arguments) => exit(demo::run(arguments).await),
        Command::Run(arguments) => ended(run::run(arguments).await),
        Command::Top(arguments) => exit(top::run(arguments).await),
        Command::Explain(arguments) => explained(explain::run(&arguments)),
        Command::Sim(arguments) => exit(app::simulate(arguments).await),
        Command::Config => print(config::sample().as_bytes()),
        Command::Completions { shell } => print(&pages::completions(CommandLine::command(), shell)),
        Command::Man { command } => match pages::manual(CommandLine::command(), command.as_deref()) {
            Ok(page) => print(&page),
            Err(error) => answer(&error),
        },
    }
}

/// The command's exit code, or why there is none.
fn ended(result: Result<u8, RunError>) -> ExitCode {
    let error = match result {
        Ok(code) => return ExitCode::from(code),
        Err(error) => error,
    };
    complain(&error);
    ExitCode::from(match error {
        RunError::Config(_) | RunError::Files(_) => CONFIG,
        RunError::Start(_) | RunError::Output { .. } => UNAVAILABLE,
        RunError::Command { error, .. } if error.kind() == io::ErrorKind::NotFound => NOT_FOUND,
        RunError::Command { .. } => NOT_EXECUTABLE,
    })
}

/// 0 if the later request continues the earlier one, 1 if not.
fn explained(result: Result<bool, ExplainError>) -> ExitCode {
    let error = match result {
        Ok(continues) => return ExitCode::from(u8::from(!continues)),
        Err(error) => error,
    };
    complain(&error);
    ExitCode::from(match error {
        ExplainError::NoFile { .. } => NO_INPUT,
        ExplainError::NoData { .. } => DATA,
        ExplainError::Output(_) => UNAVAILABLE,
    })
}

/// The settings, with logging started as they say; or 78 after the complaint.
fn settings(arguments: &ServeArgs) -> Result<Settings, ExitCode> {
    let unusable = |error: &dyn std::error::Error| {
        complain(error);
        ExitCode::from(CONFIG)
    };
    let settings = arguments.settings(std::env::vars_os()).map_err(|error| unusable(&error))?;
    app::check_files(&settings).map_err(|error| unusable(&*error))?;
    telemetry::init(&settings.log.level, settings.log.format == LogFormat::Json);
    Ok(settings)
}

/// Complains that something the program needs is not to be had, and exits with 69.
#[must_use]
pub fn fail(error: &io::Error) -> ExitCode {
    complain(error);
    ExitCode::from(UNAVAILABLE)
}

fn exit(result: io::Result<()>) -> ExitCode {
    result.map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS)
}

/// Prints an answer. A reader that closes early, such as `head`, is not an error.
fn print(text: &[u8]) -> ExitCode {
    exit(io::stdout().write_all(text).or_else(broken_pipe))
}

fn complain(error: &dyn std::error::Error) {
    let _unheard = writeln!(io::stderr(), "tailwire: {error}");
}

fn broken_pipe(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::args::DemoCompression;

    fn parsed(line: &str) -> Result<Command, clap::Error> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_declaration_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_command() {
        for line in ["tailwire --listen 127.0.0.1:0", "tailwire serve --listen 127.0.0.1:0"] {
            let Ok(Command::Serve(arguments)) = parsed(line) else { panic!("{line}") };
            assert_eq!(arguments.listen.as_deref(), Some("127.0.0.1:0"));
        }
        assert!(matches!(parsed("tailwire"), Ok(Command::Serve(_))));
    }

    #[test]
    fn bad_usage_is_a_complaint_and_help_is_not() {
        for line in [
            "tailwire --lisen x",
            "tailwire serve --listen 8484",
            "tailwire --upstream ftp://host",
            "tailwire --profile opnai",
            "tailwire --log loud",
            "tailwire nonsense",
            "tailwire demo --calls 0",
            "tailwire demo --uplink 20MB/s",
            "tailwire sim --rtt 40",
        ] {
            assert!(parsed(line).unwrap_err().use_stderr(), "{line}");
        }
        for line in ["tailwire --help", "tailwire --version", "tailwire help demo"] {
            assert!(!parsed(line).unwrap_err().use_stderr(), "{line}");
        }
    }

    #[test]
    fn flags_become_settings() {
        let line = "tailwire --listen 0.0.0.0:1 --allow-remote --upstream http://[::1]:2 --profile azure --log debug";
        let Ok(Command::Serve(arguments)) = parsed(line) else { panic!("{line}") };
        let settings = arguments.settings([]).unwrap();
        assert_eq!(settings.listen.to_string(), "0.0.0.0:1");
        assert_eq!(settings.upstream.to_string(), "http://[::1]:2/v1");
        assert_eq!(settings.profile, config::ProfileName::Azure);
        assert_eq!(settings.log.level, "debug");

        let Ok(Command::Serve(arguments)) = parsed("tailwire --listen 0.0.0.0:1") else { panic!() };
        assert!(arguments.settings([]).unwrap_err().to_string().contains("allow_remote"));
    }

    #[test]
    fn demo_and_sim_have_defaults() {
        let Ok(Command::Demo(demo)) = parsed("tailwire demo --json out.json --no-stream") else { panic!() };
        assert_eq!((demo.calls, demo.instructions, demo.tools), (40, 8192, 10_240));
        assert_eq!((demo.result_min, demo.result_max), (1024, 8192));
        assert_eq!((demo.link.rtt, demo.link.uplink), (Duration::from_millis(40), 20_000_000));
        assert_eq!(demo.compression, DemoCompression::Both);
        assert!(demo.no_stream && demo.json.is_some());

        let Ok(Command::Sim(sim)) = parsed("tailwire sim --listen 127.0.0.1:0 --one-in-flight") else {
            panic!()
        };
        assert!(sim.one_in_flight && sim.listen.port() == 0);
    }
}
