//! Behaviour through the public door; one file per behaviour.

mod golden;
mod kinds;
mod runtime;
