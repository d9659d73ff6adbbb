//! The store of a cluster against real nats-servers, which the tests start on loopback and end.
//!
//! They need a `nats-server` of 2.15 or later: `./scripts/test cluster` installs one and names it in `NATS_SERVER`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "the environment names the server; real time passes")]
#![expect(clippy::print_stderr, reason = "a long test says how far it is")]

mod consistency;
mod contract;
#[cfg(feature = "demo")]
mod demo;
mod drain;
mod fence;
mod fleet;
mod kills;
#[allow(dead_code, reason = "shared with the tests of the runtime, which use more of it")]
#[path = "../it/kinds.rs"]
mod kinds;
mod late;
mod nodes;
mod servers;
mod transfer;
mod world;
