//! To be furnished.

use std::io;

use crate::{cli::SimArgs, config::Settings};

/// Runs the proxy until it is told to stop, then drains.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve(_settings: Settings) -> io::Result<()> {
    Ok(())
}

/// Runs the simulated provider until it is told to stop.
///
/// # Errors
/// The address cannot be bound.
pub async fn simulate(_arguments: SimArgs) -> io::Result<()> {
    Ok(())
}
