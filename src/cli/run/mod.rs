//! `twin run`: one service as a child process, for people who type `dapr run`.
//!
//! So far it is what it reads, [`resources`], and the service's own door to its twin, [`proxy`].

pub mod proxy;
pub mod resources;
