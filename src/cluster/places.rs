//! Who is where, for people.

use std::{sync::atomic::Ordering, time::Duration};

use super::{Counts, Node, NodeId, Presence, membership::Standing};
use crate::store::Slot;

/// Who is where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Every node, in order of their names.
    pub nodes: Vec<Placed>,
    /// Slots without a live owner.
    pub unowned: u16,
    /// Slots whose owner is not the node that they are wished to.
    pub misplaced: u16,
    /// Slots that this node is taking or giving away.
    pub moving: usize,
}

/// A node and its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The node.
    pub node: NodeId,
    /// What it says of itself.
    pub presence: Presence,
    /// Slots that it owns.
    pub owned: u16,
    /// Slots that it is to own.
    pub wished: u16,
    /// How long ago its record changed; it is renewed every few seconds.
    pub silence: Duration,
}

impl Node {
    /// This node's name.
    pub fn id(&self) -> &NodeId {
        &self.config.node
    }

    /// Whether this node hosts a slot.
    pub fn hosts(&self, slot: Slot) -> bool {
        self.state.lock().held.contains_key(&slot)
    }

    /// How long this node may answer from memory, if its lease is not renewed.
    pub fn lease_left(&self) -> Duration {
        Duration::from_micros(self.lease_us.load(Ordering::Acquire)).saturating_sub(self.uptime.now())
    }

    /// What was counted since the start.
    pub fn counts(&self) -> Counts {
        self.counts.read()
    }

    /// Calls to other nodes that have no answer yet.
    pub fn waiting(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Every node, and who owns how much.
    pub fn places(&self) -> Places {
        let state = self.state.lock();
        let now = self.uptime.now();
        let mut nodes: Vec<_> = state
            .view
            .iter()
            .map(|(node, seen)| {
                let silence = state.view.silence(node, now).unwrap_or_default();
                Placed { node: node.clone(), presence: seen.presence.clone(), owned: 0, wished: 0, silence }
            })
            .collect();
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        let (mut unowned, mut misplaced) = (0, 0);
        for (slot, owner) in state.table.iter() {
            let owner = owner.filter(|owner| !owner.released);
            let owner = owner.filter(|owner| state.view.standing(&owner.node, owner.incarnation) == Standing::Live);
            match owner.and_then(|owner| nodes.iter_mut().find(|placed| placed.node == owner.node)) {
                Some(placed) => placed.owned += 1,
                None => unowned += 1,
            }
            misplaced += u16::from(owner.map(|owner| &owner.node) != state.wishes.of(slot));
            if let Some(wished) = state.wishes.of(slot)
                && let Some(placed) = nodes.iter_mut().find(|placed| placed.node == *wished)
            {
                placed.wished += 1;
            }
        }
        Places { nodes, unowned, misplaced, moving: state.busy.len() }
    }
}
