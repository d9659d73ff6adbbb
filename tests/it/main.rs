//! Behaviour through the public door; one file per behaviour.

mod golden;
mod kinds;
mod runtime;
mod store_crash;
mod store_open;
mod store_pace;
