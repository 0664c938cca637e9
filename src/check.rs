//! To be furnished.

use crate::config::Settings;

/// Says what works; whether all of it does.
pub async fn run(_settings: Settings) -> bool {
    true
}
