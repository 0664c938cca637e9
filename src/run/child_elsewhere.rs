//! The command as a child where there are no Unix signals: started, and waited for.
//!
//! The console sends Ctrl-C to everybody on it; we only must not die of it.

use std::ffi::OsString;
use std::io;
use std::process::Command;

/// Bears with Ctrl-C from its first wait on.
#[derive(Debug)]
pub(super) struct Supervisor;

impl Supervisor {
    /// Nothing is to be prepared.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    /// Runs the command with these variables set; its exit code.
    pub(super) async fn run(
        &mut self,
        command: &[OsString],
        variables: &[(OsString, OsString)],
    ) -> io::Result<u8> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let pairs = variables.iter().map(|(name, value)| (name, value));
        let mut child = Command::new(program).args(arguments).envs(pairs).spawn()?;
        let mut waiting = tokio::task::spawn_blocking(move || child.wait());
        loop {
            tokio::select! {
                ended = &mut waiting => {
                    let code = ended.map_err(io::Error::other)??.code().unwrap_or(1);
                    return Ok(u8::try_from(code).unwrap_or(u8::MAX));
                }
                _ = tokio::signal::ctrl_c() => {}
            }
        }
    }

    /// Ends when somebody wants us to end, now that the child has.
    pub(super) async fn told_to_end(self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
