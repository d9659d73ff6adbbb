//! The baseline everybody would write first: actix and dashmap, one actor per id.

pub(crate) mod actor;
pub(crate) mod durable;
