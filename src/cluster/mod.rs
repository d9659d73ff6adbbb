//! Many nodes that share their twins: who is here, who owns what, and the way of a call to its owner.
//!
//! ```text
//!              Engine (the shared store: presence, ownership, each by compare-and-set)
//!                 ▲ renew, claim, release          │ watch
//!                 │                                ▼
//! Hosting ◀── own, disown, hand over ── Node ── View, Table, Wishes (pure) ── plan ─▶ Action
//! (the runtime) ── forward, claim again ──▶ │
//!                                           └── Links ◀─── one stream a direction ───▶ other nodes
//! ```
//!
//! The wish is rendezvous hashing over the nodes that are up; the truth is the ownership record of a slot, whose number
//! in the shared store is the epoch. **Safety rests on that epoch alone**, which the store checks in the step that
//! writes. Leases and clocks decide how fast a dead node is replaced, and whether an owner may answer from its memory.
//!
//! What is decided is pure ([`placement`], [`membership`], [`ownership`]); [`Node`] performs it over an [`Engine`] and
//! [`Links`]. Read `ownership.rs` first, then `node.rs`.

mod act;
mod counts;
pub mod engine;
pub mod link;
pub mod membership;
pub mod memory;
#[cfg(feature = "cluster")]
pub mod nats;
mod node;
pub mod ownership;
pub mod placement;
mod places;
mod router;
#[cfg(feature = "cluster")]
pub mod transport;
#[cfg(feature = "cluster")]
mod uptime;

use std::{fmt, time::Duration};

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

pub use counts::Counts;
pub use engine::{Engine, Soon};
pub use link::Links;
pub use node::{Node, Phase};
pub use places::{Placed, Places};
pub use router::Forwarded;
#[cfg(feature = "cluster")]
pub use uptime::SystemUptime;

use crate::store::{Epoch, Slot};

/// Longest name of a node, in bytes.
pub const NODE_ID_BYTES_MAX: usize = 64;

/// Name of a node: 1 to [`NODE_ID_BYTES_MAX`] letters, digits, `-` and `_`. Two processes never have one name at once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "CompactString", into = "CompactString")]
pub struct NodeId(CompactString);

/// The text is no name of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of a node has 1 to {NODE_ID_BYTES_MAX} letters, digits, '-' and '_'")]
pub struct InvalidNodeId;

impl NodeId {
    /// Parses a name.
    pub fn parse(text: &str) -> Result<Self, InvalidNodeId> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.is_empty() || text.len() > NODE_ID_BYTES_MAX || !text.bytes().all(plain) {
            return Err(InvalidNodeId);
        }
        Ok(Self(CompactString::new(text)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<CompactString> for NodeId {
    type Error = InvalidNodeId;
    fn try_from(text: CompactString) -> Result<Self, InvalidNodeId> {
        Self::parse(&text)
    }
}

impl From<NodeId> for CompactString {
    fn from(id: NodeId) -> Self {
        id.0
    }
}

/// One life of a node's name; a later one is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

/// Number of a presence record in the shared store; 0 is that of a record that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// Where a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It looks around and owns nothing yet.
    Joining,
    /// It takes slots.
    Up,
    /// It gives its slots away and then leaves.
    Draining,
    /// It, or another node, says that it is gone: whatever it owned may be taken.
    Dead,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Its life.
    pub incarnation: Incarnation,
    /// Where other nodes reach it, `host:port`.
    pub address: CompactString,
    /// Where clients reach it.
    pub http: CompactString,
    /// Where it stands.
    pub state: State,
    /// Slots it holds.
    pub load: u32,
}

/// Who owns a slot, or did last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The node.
    pub node: NodeId,
    /// Its life at the time.
    pub incarnation: Incarnation,
    /// Whether it has given the slot up.
    pub released: bool,
    /// Number of the record.
    pub epoch: Epoch,
}

/// Bounds and times of a node of a cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// Where other nodes reach it.
    pub address: CompactString,
    /// Where clients reach it.
    pub http: CompactString,
    /// Slots of the cluster; the same for every node, for ever.
    pub slots: u16,
    /// How long a presence counts that is not renewed.
    pub ttl: Duration,
    /// How often it is renewed.
    pub renew_every: Duration,
    /// What clocks may differ by over one `ttl`.
    pub margin: Duration,
    /// How long one request to the shared store may take.
    pub engine_timeout: Duration,
    /// First pause before something is tried again.
    pub retry_min: Duration,
    /// Longest pause before something is tried again.
    pub retry_max: Duration,
    /// Slots that move to or from this node at once.
    pub moves_max: usize,
    /// Deadline of a call that states none.
    pub call_timeout: Duration,
    /// Calls to other nodes that have no answer yet.
    pub calls_max: usize,
    /// Bytes of those calls.
    pub calls_bytes_max: usize,
    /// Whether a supervisor promises that an earlier process of this name is gone: its slots are then taken at once.
    pub alone: bool,
    /// Seed of the chance in pauses.
    pub seed: u64,
}

impl Config {
    /// What is usual.
    pub fn new(node: NodeId, address: &str, http: &str) -> Self {
        Self {
            node,
            address: address.into(),
            http: http.into(),
            slots: Slot::COUNT,
            ttl: Duration::from_secs(15),
            renew_every: Duration::from_secs(3),
            margin: Duration::from_secs(2),
            engine_timeout: Duration::from_secs(5),
            retry_min: Duration::from_millis(20),
            retry_max: Duration::from_secs(1),
            moves_max: 64,
            call_timeout: Duration::from_secs(30),
            calls_max: 65_536,
            calls_bytes_max: 64 * 1024 * 1024,
            alone: false,
            seed: rand::random(),
        }
    }
}

/// Time since this machine started, its sleep included, so that a lease does not outlive a suspended machine.
pub trait Uptime: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Duration;
}

/// What became of a call that another node sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Served {
    /// The encoded answer; final.
    Answer(Vec<u8>),
    /// This node does not own the slot: not applied, to be sent elsewhere.
    Elsewhere,
}

/// Takes what became of a call, exactly once, on any thread.
pub type ServedTo = Box<dyn FnOnce(Served) + Send>;

/// What hosts the twins of the slots that this node owns: the runtime.
pub trait Hosting: Send + Sync + 'static {
    /// Turns may begin, under this epoch.
    fn own(&self, slot: Slot, epoch: Epoch);

    /// The slot is another's: its activations end, callers are sent elsewhere.
    fn disown(&self, slot: Slot);

    /// Begins no new turns and saves what is under way; afterwards the slot may be released.
    fn hand_over(&self, slot: Slot) -> Soon<'_, ()>;

    /// Takes a call to a twin of a slot from another node.
    fn serve(&self, slot: Slot, call: Vec<u8>, done: ServedTo);

    /// Takes a call to this node from another one, whatever slots it owns.
    fn serve_node(&self, call: Vec<u8>, done: ServedTo);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_node_is_a_key_of_any_engine() {
        for name in ["a", "node-1", "Node_2", &"x".repeat(64)] {
            assert_eq!(NodeId::parse(name).unwrap().as_str(), name);
        }
        for name in ["", "a.b", "a b", "a*", "a/b", "ü", &"x".repeat(65)] {
            assert_eq!(NodeId::parse(name), Err(InvalidNodeId), "{name}");
        }
    }
}
