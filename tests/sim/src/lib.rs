//! A seeded world around the real runtime: virtual time, a faulty store, random clients, crashes and restarts.
//!
//! Everything runs on one thread over tokio's paused clock, so a seed always gives the same run. `world` drives,
//! `history` remembers what callers were told, `check` compares that with what is there when all is healed.

pub mod book;
pub mod check;
pub mod client;
pub mod cluster;
pub mod disk;
pub mod history;
pub mod scene;
pub mod tally;
pub mod world;
