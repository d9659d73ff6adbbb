//! What a service may use: one module each, holding a part and, where it touches the world, a performer.
//!
//! [`register`] is the list; everything that follows from a capability (hosting, wire names, doors) reads it.

pub mod components;
pub mod configuration;
pub mod egress;
pub mod endpoints;
pub mod invocation;
pub mod secrets;
pub mod state;
pub mod topics;

use crate::twin::{
    Rejection,
    part::{Part, PartKind, Request},
};

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
    egress::register(registry);
    endpoints::register(registry);
    invocation::register(registry);
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

/// Refuses a text that is empty, too long, or has control characters.
fn check_text(what: &str, text: &str, bytes_max: usize) -> Result<(), Rejection> {
    if !text.is_empty() && text.len() <= bytes_max && !text.contains(char::is_control) {
        return Ok(());
    }
    Err(Rejection::invalid(format!("{what} has 1 to {bytes_max} bytes and no control characters")))
}

/// The same of a name that stands alone in a path.
fn check_name(what: &str, name: &str, bytes_max: usize) -> Result<(), Rejection> {
    check_text(what, name, bytes_max)?;
    if name.contains('/') { Err(Rejection::invalid(format!("{what} has no '/'"))) } else { Ok(()) }
}
