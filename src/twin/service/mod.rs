//! The service twin: the durable counterpart of one service.
//!
//! Its core (attributes, instances, features, commands, health) is committed before a reply leaves. What it observed
//! ([`observed`]) is folded from telemetry, saved page by page now and then, and no input to a decision unless the
//! fact is put into a [`Change`].
//!
//! Start with [`message`] (what it can be told), [`view`] (what it shows) and [`Change`] (what can happen to it).

pub mod access;
mod attributes;
mod command;
mod core;
mod draft;
mod event;
mod feature;
mod health;
mod inbox;
mod index;
mod instance;
pub mod json;
pub mod limits;
pub mod message;
mod meter;
pub mod observed;
pub mod parts;
pub mod schema;
pub mod settings;
pub mod view;

#[cfg(test)]
mod tests;

pub use self::{
    command::{Command, CommandEnd, Run},
    core::{Alert, Change, Core, Health, Schema, Service},
    feature::{Acknowledgement, Feature},
    instance::{Farewell, Instance, UNNAMED},
    json::Json,
    settings::Settings,
};
use draft::Draft;
