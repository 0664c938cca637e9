//! `tailwire run -- COMMAND…`: a proxy of the command's own on a free port, the command in the foreground as if nothing
//! stood around it, and a short summary at its end.
//!
//! Stdin, stdout and the terminal are the command's alone; a word of ours goes to stderr before it begins or after it has
//! ended, never between. How a child is waited for is in `run/child.rs`, what is told at the end in `run/summary.rs`.

#[cfg(unix)]
mod child;
#[cfg(not(unix))]
#[path = "run/child_elsewhere.rs"]
mod child;
mod environment;
mod summary;
mod tools;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Mutex;

use tokio::time::Instant;

use self::child::Supervisor;
use self::summary::Story;
pub use self::tools::help;
use crate::app;
use crate::args::{RunArgs, ServeArgs};
use crate::config::{AdminListen, ConfigError, LogFormat, Settings};
use crate::telemetry;

/// Why the command was not run, or its story not written.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file that the settings name cannot be used.
    #[error("{0}")]
    Files(Box<dyn std::error::Error>),
    /// The address cannot be bound, or the signals not be heard.
    #[error(transparent)]
    Start(#[from] io::Error),
    /// The log or the summary cannot be written there.
    #[error("{}: {error}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// There is no such command, or it cannot be started.
    #[error("{}: {error}", command.display())]
    Command {
        /// What was to be run.
        command: OsString,
        /// Why it was not.
        error: io::Error,
    },
}

/// Runs the command to its end and returns its exit code; 128 and the signal's number if a signal ended it.
///
/// # Errors
/// The command was not run.
pub async fn run(arguments: RunArgs) -> Result<u8, RunError> {
    let environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let settings = settings(&arguments, &environment)?;
    app::check_files(&settings).map_err(RunError::Files)?;
    log(&arguments, &settings)?;
    // Now, not after an hour's work: a file that cannot be written.
    let json =
        arguments.json.as_deref().map(|path| File::create(path).map_err(unwritable(path))).transpose()?;
    let upstream = settings.upstream.to_string();
    let proxy = app::Running::start(settings).await?;
    let variables = environment::variables(&environment, &proxy.base_url());
    let mut supervisor = Supervisor::listen()?;
    let began = Instant::now();
    let ended = supervisor.run(&arguments.command, &variables).await;
    let seconds = began.elapsed().as_secs_f64();
    let summary = proxy.close(supervisor.told_to_end()).await;
    let exit = match ended {
        Ok(exit) => exit,
        Err(error) => return Err(RunError::Command { command: arguments.command[0].clone(), error }),
    };
    let story = Story { command_exit: exit, seconds, upstream, summary };
    if !arguments.quiet {
        // Nowhere to tell it when the terminal is gone.
        let _unheard = io::stderr().write_all(story.text().as_bytes());
    }
    if let (Some(mut file), Some(path)) = (json, &arguments.json)
        && let Err(error) = file.write_all(story.json().as_bytes())
    {
        // The command's exit code is what the caller asked for; it is not lost for this.
        let _unheard = writeln!(io::stderr(), "tailwire: {}: {error}", path.display());
    }
    Ok(exit)
}

/// The settings as for `serve`, but on a free port, and with the upstream that the environment names for others.
fn settings(arguments: &RunArgs, environment: &[(OsString, OsString)]) -> Result<Settings, ConfigError> {
    let mut flags = ServeArgs {
        config: arguments.config.clone(),
        listen: Some(arguments.listen.clone().unwrap_or_else(|| "127.0.0.1:0".to_owned())),
        upstream: arguments.upstream.clone(),
        profile: arguments.profile.clone(),
        admin: arguments.admin.clone(),
        ..ServeArgs::default()
    };
    let mut settings = flags.settings(environment.iter().cloned())?;
    // A command whose environment names its provider is to reach that one, and no other is to be sent its key.
    let is_default = settings.upstream == Settings::default().upstream;
    if is_default
        && flags.upstream.is_none()
        && let Some(upstream) = environment::upstream(environment)
    {
        flags.upstream = Some(upstream);
        settings = flags.settings(environment.iter().cloned())?;
    }
    if arguments.admin.is_none() && matches!(settings.admin_listen, AdminListen::At(_)) {
        // The settings' own address is the service's; two commands at once must not be in each other's way.
        settings.admin_listen = AdminListen::Auto;
    }
    Ok(settings)
}

/// Logs go to a file or nowhere: the terminal is the command's.
fn log(arguments: &RunArgs, settings: &Settings) -> Result<(), RunError> {
    let Some(path) = &arguments.log else {
        // A defect's own words might quote a message, and would disturb the command.
        std::panic::set_hook(Box::new(|_| {}));
        return Ok(());
    };
    let file = File::options().create(true).append(true).open(path).map_err(unwritable(path))?;
    telemetry::init_to(&settings.log.level, settings.log.format == LogFormat::Json, Mutex::new(file));
    Ok(())
}

fn unwritable(path: &std::path::Path) -> impl FnOnce(io::Error) -> RunError {
    let path = path.to_owned();
    move |error| RunError::Output { path, error }
}
