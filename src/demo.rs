//! To be furnished.

use std::io;

use crate::cli::DemoArgs;

/// Runs the demonstration and prints its table.
///
/// # Errors
/// A port cannot be bound, or the figures cannot be written.
pub async fn run(_arguments: DemoArgs) -> io::Result<()> {
    Ok(())
}
