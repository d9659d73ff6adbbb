//! Every microservice gets one durable **twin**.
#[cfg(feature = "server")]
pub mod app;
#[cfg(feature = "cli")]
pub mod cli;
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
pub mod twin;
