//! The runtime's own inbox under loom's primitives, and models of those who use it.
//!
//! `sync` stands in for `src/runtime/sync.rs`; everything else of the inbox is the source that ships.

#[allow(dead_code, reason = "a model uses what it needs")]
#[path = "../../../src/runtime/inbox.rs"]
mod inbox;
pub mod models;
#[allow(dead_code, reason = "the same names as in the runtime, used or not")]
mod sync;
