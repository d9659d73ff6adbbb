//! Dapr's resource files, as one service sees them: text in, [`Resources`] out; no I/O, no secret is looked up, nothing is
//! judged that only a node can judge.
//!
//! `Component`, `Subscription`, `Configuration`, `Resiliency` and `HTTPEndpoint` are read; other kinds are noted and left
//! out, and so is what names other services in its `scopes`. Start at [`read()`]; [`choose`] then says what a component of
//! Dapr's is here.

mod access;
mod builtin;
mod callers;
mod field;
mod model;
mod read;

pub use self::{
    access::{Grant, grants},
    builtin::{Unsupported, choose},
    callers::{Caller, callers},
    model::{Bulk, Component, Endpoint, Kind, Policy, PolicyKind, Resources, Rule, Subscription, Value},
    read::{Invalid, read},
};
