//! `twin run`: one service as a child process, with a door of its own to its twin, for people who type `dapr run`.
//!
//! ```text
//!             ┌──────────── twin run ────────────┐
//!  child ────▶│ own ports ── token ──▶ forwards  │────▶ node ── twin default/orders
//!    ▲        │ health ──▶ heartbeats            │────▶   │
//!    └────────│ signals, output ◀── commands     │◀───────┘
//!             └──────────────────────────────────┘
//! ```
//!
//! It knows nothing of what a node does with a call: [`proxy`] passes bytes on and only settles who speaks, and the rest
//! is the native API as anybody could use it. Start at `session.rs`: what happens from the first line to the exit code.
//! What Dapr's resource files say is read in [`resources`], which does no I/O.

mod channel;
mod child;
mod commands;
mod environment;
mod files;
mod flags;
mod foreign;
mod health;
mod instance;
mod node;
pub mod proxy;
mod register;
pub mod resources;
mod session;
mod signal;
mod sources;

pub use self::{
    flags::RunArgs,
    node::{OwnNode, Place},
    session::run,
};
