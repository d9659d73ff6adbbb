//! Every microservice gets one durable **twin**: a virtual actor, keyed by its service id, that mirrors the service,
//! steers it and serves it.
//!
//! ```text
//! bytes ─▶ server ─▶ message ─▶ runtime ─▶ shard ─▶ twin: decide ─▶ apply ─┬─▶ next message
//!                                                   (pure)    (pure)       └─▶ commit (store) ─▶ reply, effects
//! ```
//!
//! | layer | module | |
//! |---|---|---|
//! | 0 | [`model`] | words that two layers exchange |
//! | 1 | [`twin`] | what a twin is; [`twin::service`] is the service twin |
//! | 2 | [`store`] | durable bytes: memory, sled, NATS JetStream (feature `cluster`) |
//! | 2 | `token` | API keys as Biscuits: made, narrowed, read (feature `server` or `cli`) |
//! | 3 | [`capability`] | what a service may use |
//! | 3 | [`cluster`] | many nodes that share their twins (feature `cluster`: over NATS JetStream and gRPC) |
//! | 3 | `wire` | how connections of HTTP are served |
//! | 4 | [`runtime`] | the virtual actors |
//! | 5 | `server`, `cli` | the node's doors, the command line (features of the same names) |
//! | 6 | `config`, `app` | putting a node together |
//!
//! A host embeds the [`runtime::Runtime`] with kinds of its own or with [`twin::service::Service`]:
//!
//! ```
//! # use std::sync::Arc;
//! use service_twin::{runtime::Runtime, store::memory::MemoryStore, twin::service::Service};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = Runtime::builder().store(Arc::new(MemoryStore::new())).kind::<Service>().start()?;
//! # Ok(())
//! # }
//! ```
//!
//! The examples go on from there: `one_twin`, `ingest`, `own_kind`, `write_a_store`.

#[cfg(feature = "server")]
pub mod app;
pub mod bus;
pub mod capability;
#[cfg(feature = "cli")]
pub mod cli;
pub mod cluster;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
pub mod metrics;
pub mod model;
pub mod runtime;
#[cfg(feature = "server")]
pub mod server;
pub mod store;
#[cfg(any(feature = "server", feature = "cli"))]
pub mod token;
pub mod twin;
#[cfg(any(feature = "server", feature = "cli"))]
mod wire;

/// The programs of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
