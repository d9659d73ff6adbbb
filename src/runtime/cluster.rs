//! What a runtime that shares its twins with others needs of them, and what they need of it.
//!
//! The id space is cut into [`Slot`]s. A runtime has turns of the twins in the slots it owns and forwards calls to all
//! others. Whether a slot is owned is the store's to say (its epoch); that a node *believes* to own it only decides
//! where calls go.

use std::time::Duration;

use compact_str::CompactString;
use serde::Serialize;

use crate::{
    cluster::{Counts, Forwarded},
    model::Timestamp,
    store::{Epoch, Slot},
};

/// What a node knows of its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClusterView {
    /// The node that says so.
    pub node: CompactString,
    /// Every node, itself included, in order of their names.
    pub nodes: Vec<NodeView>,
    /// Slots of the cluster.
    pub slots: u16,
    /// Slots without an owner that can be reached: calls to their twins wait.
    pub unowned: u16,
    /// Slots that are not where they shall be yet.
    pub misplaced: u16,
    /// Slots that the node that says so is taking or giving away at present.
    pub moving: usize,
    /// How long that node may answer from memory if its lease is not renewed, in milliseconds.
    pub lease_left_ms: u64,
    /// Calls of that node to others that have no answer yet.
    pub waiting: usize,
    /// Messages that the servers' copy farthest behind lacked when that node looked last, within half a minute.
    pub lag: u64,
    /// Copies on the servers that were not current then.
    pub copies_behind: u64,
}

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeView {
    /// Its name.
    pub node: CompactString,
    /// Where it stands: `joining`, `up`, `draining` or `dead`.
    pub state: CompactString,
    /// Where other nodes reach it.
    pub address: CompactString,
    /// Where clients reach it.
    pub http: CompactString,
    /// Slots that it owns.
    pub owned: u16,
    /// Slots that it is to own, as the nodes are now.
    pub wished: u16,
    /// How long ago its record changed, in milliseconds; it is renewed every few seconds.
    pub silent_ms: u64,
}

/// The other nodes, as the runtime of one sees them.
pub trait Cluster: Send + Sync + 'static {
    /// Takes an encoded call to the node that owns the slot, wherever it moves meanwhile; waits while nobody owns it, until
    /// the deadline. Nothing blocks. [`Failure::outcome`](crate::twin::Failure::outcome) says what is certain when no answer came.
    fn forward(&self, slot: Slot, call: Vec<u8>, deadline: Option<Timestamp>, done: Forwarded);

    /// Takes an encoded call to one node, by its name.
    fn call(&self, node: &str, call: Vec<u8>, within: Duration, done: Forwarded);

    /// Names of the other nodes that are up.
    fn others(&self) -> Vec<CompactString>;

    /// What this node knows of the cluster.
    fn view(&self) -> ClusterView;

    /// What this node counted of its part in the cluster.
    fn counts(&self) -> Counts {
        Counts::default()
    }

    /// Whether this node may answer from memory: its lease, by its own clock, has not run out.
    fn holds_lease(&self) -> bool;

    /// A commit under this epoch has an unknown outcome, or was fenced: the slot is to be claimed again, or given up
    /// if another node has it. The runtime learns of it by [`super::Runtime::own`] or [`super::Runtime::disown`].
    fn claim_again(&self, slot: Slot, epoch: Epoch);
}
