//! Every microservice gets one durable **twin**.
#[cfg(feature = "cli")]
pub mod cli;
pub mod metrics;
pub mod model;
pub mod runtime;
#[cfg(feature = "server")]
pub mod server;
pub mod store;
pub mod twin;
