//! What a runtime that shares its twins with others needs of them, and what they need of it.
//!
//! The id space is cut into [`Slot`]s. A runtime has turns of the twins in the slots it owns and forwards calls to all
//! others. Whether a slot is owned is the store's to say (its epoch); that a node *believes* to own it only decides
//! where calls go.

use std::time::Duration;

use compact_str::CompactString;

use crate::{
    model::Timestamp,
    store::{Epoch, Slot},
    twin::Failure,
};

/// Called exactly once, on any thread, with the encoded answer of the slot's owner, or why there is none.
pub type Forwarded = Box<dyn FnOnce(Result<Vec<u8>, Failure>) + Send>;

/// The other nodes, as the runtime of one sees them.
pub trait Cluster: Send + Sync + 'static {
    /// Takes an encoded call to the node that owns the slot, wherever it moves meanwhile; waits while nobody owns it, until
    /// the deadline. Nothing blocks. [`Failure::outcome`] says what is certain when no answer came.
    fn forward(&self, slot: Slot, call: Vec<u8>, deadline: Option<Timestamp>, done: Forwarded);

    /// Takes an encoded call to one node, by its name.
    fn call(&self, node: &str, call: Vec<u8>, within: Duration, done: Forwarded);

    /// Names of the other nodes that are up.
    fn others(&self) -> Vec<CompactString>;

    /// Whether this node may answer from memory: its lease, by its own clock, has not run out.
    fn holds_lease(&self) -> bool;

    /// A commit under this epoch has an unknown outcome, or was fenced: the slot is to be claimed again, or given up
    /// if another node has it. The runtime learns of it by [`super::Runtime::own`] or [`super::Runtime::disown`].
    fn claim_again(&self, slot: Slot, epoch: Epoch);
}

/// What became of a call that another node sent.
#[derive(Debug)]
pub enum Served {
    /// The encoded answer; final.
    Answer(Vec<u8>),
    /// This node does not own the slot: not applied, to be sent elsewhere.
    Elsewhere,
}
