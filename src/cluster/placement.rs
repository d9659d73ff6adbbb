//! Which node should own a slot: rendezvous hashing, so that a node that comes or goes moves its own share alone.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::NodeId;
use crate::store::Slot;

/// The node that should own a slot: the one of the highest score; `None` without nodes. The order does not matter.
pub fn wish<'a>(slot: Slot, nodes: impl IntoIterator<Item = &'a NodeId>) -> Option<&'a NodeId> {
    nodes.into_iter().max_by_key(|node| (score(slot, node), *node))
}

/// XXH3-64 of the node's name, seeded by the slot; the same for ever, since every node computes it for itself.
fn score(slot: Slot, node: &NodeId) -> u64 {
    xxh3_64_with_seed(node.as_str().as_bytes(), u64::from(slot.0))
}

/// The wish for every slot, kept until the nodes change.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    nodes: Vec<NodeId>,
    of: Vec<Option<NodeId>>,
}

impl Wishes {
    /// Computes them for `slots` slots, unless the nodes are the same.
    pub fn over<'a>(&mut self, nodes: impl Iterator<Item = &'a NodeId> + Clone, slots: u16) {
        if self.of.len() == usize::from(slots) && self.nodes.iter().eq(nodes.clone()) {
            return;
        }
        self.nodes = nodes.cloned().collect();
        self.of = (0..slots).map(|slot| wish(Slot(slot), &self.nodes).cloned()).collect();
    }

    /// The node that should own a slot.
    pub fn of(&self, slot: Slot) -> Option<&NodeId> {
        self.of.get(usize::from(slot.0))?.as_ref()
    }

    /// The nodes they were computed over.
    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    const SLOTS: u16 = 4096;

    fn nodes() -> impl Strategy<Value = BTreeSet<NodeId>> {
        proptest::collection::btree_set("[a-z0-9-]{1,12}", 1..12)
            .prop_map(|names| names.iter().map(|name| NodeId::parse(name).unwrap()).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_node_that_comes_takes_its_share_and_moves_nothing_else(nodes in nodes(), new in "[A-Z]{1,12}") {
            let new = NodeId::parse(&new).unwrap();
            let mut more = nodes.clone();
            more.insert(new.clone());
            let mut taken = 0;
            for slot in (0..SLOTS).map(Slot) {
                let (before, after) = (wish(slot, &nodes), wish(slot, &more));
                if before != after {
                    prop_assert_eq!(after, Some(&new));
                    taken += 1;
                }
            }
            let share = usize::from(SLOTS) / more.len();
            prop_assert!(taken > share / 2 && taken < share * 2, "{} of a share of {}", taken, share);
        }

        #[test]
        fn every_node_has_about_its_share(nodes in nodes()) {
            let mut of: BTreeMap<&NodeId, usize> = BTreeMap::new();
            for slot in (0..SLOTS).map(Slot) {
                *of.entry(wish(slot, &nodes).unwrap()).or_default() += 1;
            }
            let share = usize::from(SLOTS) / nodes.len();
            for node in &nodes {
                let own = of.get(node).copied().unwrap_or_default();
                prop_assert!(own > share / 2 && own < share * 2, "{} has {} of a share of {}", node, own, share);
            }
        }

        #[test]
        fn the_order_of_the_nodes_does_not_matter(nodes in nodes(), slot in 0..SLOTS) {
            let slot = Slot(slot);
            prop_assert_eq!(wish(slot, nodes.iter().rev()), wish(slot, nodes.iter()));
        }
    }

    #[test]
    fn wishes_never_change_from_release_to_release() {
        let nodes: Vec<NodeId> =
            ["node-1", "node-2", "node-3"].iter().map(|name| NodeId::parse(name).unwrap()).collect();
        let wished: Vec<&str> =
            [0, 1, 2, 3, 100, 4095].iter().map(|slot| wish(Slot(*slot), &nodes).unwrap().as_str()).collect();
        assert_eq!(wished, GOLDEN);
        let mut wishes = Wishes::default();
        assert_eq!(wishes.of(Slot(0)), None);
        wishes.over(nodes.iter(), SLOTS);
        assert_eq!(wishes.of(Slot(4095)).unwrap().as_str(), GOLDEN[5]);
        wishes.over(nodes[..1].iter(), SLOTS);
        assert_eq!(wishes.of(Slot(4095)), Some(&nodes[0]));
    }

    const GOLDEN: [&str; 6] = ["node-3", "node-3", "node-1", "node-1", "node-2", "node-3"];
}
