//! Who is where, for people.

use super::{Node, NodeId, Presence, membership::Standing};
use crate::store::Slot;

/// Who is where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Every node, in order of their names.
    pub nodes: Vec<Placed>,
    /// Slots without a live owner.
    pub unowned: u16,
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

    /// Every node, and who owns how much.
    pub fn places(&self) -> Places {
        let state = self.state.lock();
        let mut nodes: Vec<_> = state
            .view
            .iter()
            .map(|(node, seen)| Placed { node: node.clone(), presence: seen.presence.clone(), owned: 0, wished: 0 })
            .collect();
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        let mut unowned = 0;
        for (slot, owner) in state.table.iter() {
            let owner = owner.filter(|owner| !owner.released);
            let owner = owner.filter(|owner| state.view.standing(&owner.node, owner.incarnation) == Standing::Live);
            match owner.and_then(|owner| nodes.iter_mut().find(|placed| placed.node == owner.node)) {
                Some(placed) => placed.owned += 1,
                None => unowned += 1,
            }
            if let Some(wished) = state.wishes.of(slot)
                && let Some(placed) = nodes.iter_mut().find(|placed| placed.node == *wished)
            {
                placed.wished += 1;
            }
        }
        Places { nodes, unowned }
    }
}
