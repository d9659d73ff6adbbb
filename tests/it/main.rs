//! Behaviour through the public door; one file per behaviour.

#[cfg(all(feature = "server", feature = "cli"))]
mod api;
#[cfg(all(feature = "server", feature = "cli"))]
mod api_world;
#[cfg(all(feature = "server", feature = "cli"))]
mod cli;
#[cfg(feature = "demo")]
mod demo;
mod golden;
#[cfg(all(feature = "server", feature = "cli"))]
mod keys;
mod kinds;
#[cfg(all(feature = "server", feature = "cli"))]
mod otlp;
mod runtime;
mod store_crash;
mod store_open;
mod store_pace;
