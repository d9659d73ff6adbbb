//! What is known after a call, and who waits to hear it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What a failed call did; there is no third possibility besides success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// Certainly nothing happened.
    NotApplied,
    /// The effect may have happened, once.
    Unknown,
}

/// How the commit ended that covers a staged reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// Durable at the store's level.
    Durable,
    /// The commit did not take effect; the cause is for people.
    Lost {
        /// What the store knows about it.
        outcome: Outcome,
        /// Why, in words.
        cause: Arc<str>,
    },
}

/// Something held back until a commit has an outcome: a reply, a rejection, an event, a permit.
///
/// A store calls this from its own thread, so an implementation only records the outcome and wakes its waiter.
pub trait Rider: Send + Sync {
    /// Lets it go with the outcome of the commit that covers it.
    fn release(&self, sealed: &Sealed);
}
