//! The store of a cluster against real nats-servers, which the tests start on loopback and end.
//!
//! They need a `nats-server` of 2.15 or later: `./scripts/test cluster` installs one and names it in `NATS_SERVER`.

mod contract;
mod fence;
mod fleet;
mod kills;
mod nodes;
mod servers;
mod world;
