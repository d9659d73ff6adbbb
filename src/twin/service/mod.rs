//! The service twin: the durable counterpart of one service.
//!
//! Its core (attributes, instances, features, commands, health) is committed before a reply leaves. What it observed
//! (`observed`) is folded from telemetry, saved page by page now and then, and no input to a decision unless the
//! fact is put into a [`Change`].

mod core;
pub mod json;
pub mod message;
pub mod view;

pub use self::core::{Change, Service};
pub use json::Json;
