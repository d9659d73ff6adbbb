//! Behaviour through the public door; one file per behaviour.

mod ahead;
#[cfg(all(feature = "server", feature = "cli"))]
mod api;
#[cfg(all(feature = "server", feature = "cli"))]
mod api_world;
#[cfg(all(feature = "dapr", feature = "cli"))]
mod applications;
#[cfg(all(feature = "server", feature = "cli"))]
mod bad_input;
#[cfg(all(feature = "server", feature = "cli"))]
mod capabilities;
#[cfg(all(feature = "server", feature = "cli"))]
mod cli;
#[cfg(all(feature = "server", feature = "cli"))]
mod cli_capabilities;
#[cfg(all(feature = "server", feature = "cli"))]
mod clock;
#[cfg(all(feature = "dapr", feature = "cli"))]
mod configuration;
#[cfg(all(feature = "dapr", feature = "cli"))]
mod connection;
mod consistency;
#[cfg(feature = "demo")]
mod demo;
#[cfg(all(feature = "server", feature = "cli"))]
mod described;
#[cfg(all(unix, feature = "server", feature = "cli"))]
mod disk;
#[cfg(all(unix, feature = "server", feature = "cli"))]
mod drain;
#[cfg(all(feature = "dapr", feature = "cli"))]
mod endpoints;
#[cfg(all(feature = "server", feature = "cli"))]
mod follow;
mod full;
mod golden;
#[cfg(all(feature = "server", feature = "cli", feature = "dapr"))]
mod growth;
#[cfg(all(feature = "server", feature = "cli"))]
mod import;
#[cfg(all(feature = "dapr", feature = "cli"))]
mod invocation;
mod isolation;
#[cfg(all(feature = "server", feature = "cli"))]
mod keys;
mod kinds;
#[cfg(all(feature = "server", feature = "cli"))]
mod otlp;
mod overdue;
mod pages;
mod panics;
#[cfg(all(feature = "server", feature = "cli"))]
mod process;
#[cfg(all(target_os = "linux", feature = "server", feature = "cli"))]
mod proxy;
mod reads;
mod records;
mod remote;
#[cfg(all(unix, feature = "server", feature = "cli"))]
mod run;
mod runtime;
#[cfg(all(unix, feature = "server", feature = "cli"))]
mod saturation;
#[cfg(all(unix, feature = "dapr", feature = "cli"))]
mod scan;
#[cfg(all(feature = "dapr", feature = "cli"))]
mod secrets;
#[cfg(all(feature = "dapr", feature = "cli"))]
mod state;
mod store_crash;
mod store_open;
mod store_pace;
#[cfg(all(feature = "dapr", feature = "cli"))]
mod subscriptions;
#[cfg(all(feature = "dapr", feature = "cli"))]
mod topics;
