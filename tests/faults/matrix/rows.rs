//! The table's rows, by kind of fault. What a cell may say is `table.rs`'s.

#[path = "rows/errors.rs"]
pub(crate) mod errors;
#[path = "rows/frames.rs"]
pub(crate) mod frames;
#[path = "rows/lost.rs"]
pub(crate) mod lost;
#[path = "rows/quiet.rs"]
pub(crate) mod quiet;
#[path = "rows/refused.rs"]
pub(crate) mod refused;
