//! The fault × moment matrix: every fault at every moment, over lanes and with one turn in flight, for JSON and for SSE, for
//! first turns and for turns that continue. One table (`matrix/rows`) is played here and printed as `docs/recovery.md`.
//!
//! What the ladder is, by itself, is `proto::session::recovery`'s and tested there.

#[path = "matrix/elsewhere.rs"]
mod elsewhere;
#[path = "matrix/page.rs"]
mod page;
#[path = "matrix/play.rs"]
mod play;
#[path = "matrix/rows.rs"]
mod rows;
#[path = "matrix/table.rs"]
mod table;

use table::Family;

use crate::support::Width;

/// Names the families in the order of the page, and plays each, over lanes and with one turn in flight.
macro_rules! families {
    ($($name:ident: $family:path;)+) => {
        /// The whole table.
        fn table() -> Vec<Family> {
            vec![$($family()),+]
        }

        $(mod $name {
            use super::*;

            #[tokio::test]
            async fn over_lanes() {
                play::family(&$family(), Width::Lanes).await;
            }

            #[tokio::test]
            async fn one_in_flight() {
                play::family(&$family(), Width::Single).await;
            }
        })+
    };
}

families! {
    refused_upgrades: rows::refused::upgrades;
    dead_addresses: rows::refused::addresses;
    lost_connections: rows::lost::losses;
    aged_connections: rows::lost::age;
    errors: rows::errors::errors;
    not_found: rows::errors::not_found;
    bad_endings: rows::errors::endings;
    refused_lanes: rows::errors::lanes_refused;
    garbage: rows::frames::garbage;
    unknown_frames: rows::frames::unknown;
    huge_frames: rows::frames::huge;
    silence: rows::quiet::quiet;
    full_sockets: rows::quiet::full;
}
