//! What every row needs, whoever takes part: pinned CPUs, client loops, rounds, a line of figures.
//! Knows nothing of twins; `benches/peers` uses it as it is.

pub(crate) mod drive;
pub(crate) mod machine;
pub(crate) mod report;
pub(crate) mod row;
