//! Seeded clusters in virtual time: the real protocol over a shared store in memory, a toy host, and everything that can
//! go wrong between them.

mod check;
mod host;
mod net;
mod world;

pub use world::{Fence, run};
