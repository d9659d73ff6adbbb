//! What a service may use: one module each, holding a part and, where it touches the world, a performer.
//!
//! [`register`] is the list; everything that follows from a capability (hosting, wire names, doors) reads it.

pub mod components;
pub mod configuration;
pub mod secrets;
pub mod state;
pub mod topics;

use crate::twin::part::{Part, PartKind, Request};

/// Takes every part and every request, one by one.
pub trait Registry {
    /// Takes a part.
    fn part<P: Part>(&mut self);
    /// Takes a request.
    fn request<R: Request>(&mut self);
}

/// Hands every capability to `registry`.
pub fn register(registry: &mut impl Registry) {
    components::register(registry);
    configuration::register(registry);
    secrets::register(registry);
    state::register(registry);
    topics::register(registry);
}

/// The parts, for service twins to host.
pub fn parts() -> Vec<PartKind> {
    struct Kinds(Vec<PartKind>);
    impl Registry for Kinds {
        fn part<P: Part>(&mut self) {
            self.0.push(PartKind::of::<P>());
        }

        fn request<R: Request>(&mut self) {}
    }
    let mut kinds = Kinds(Vec::new());
    register(&mut kinds);
    kinds.0
}
