//! `twin run`: one service as a child process, for people who type `dapr run`.
//!
//! So far it is what it reads: [`resources`].

pub mod resources;
