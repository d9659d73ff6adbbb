//! Who owns what, and what one node should do about it.
//!
//! Pure. A node claims what is wished to it and has no living owner, and hands over what is wished to another. What
//! it plans may rest on a view that is behind; each action is a compare-and-set, so the worst is that it fails.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Incarnation, NodeId, Owner,
    membership::{Standing, View},
    placement::Wishes,
};
use crate::store::{Epoch, Slot};

/// The latest known owner of every slot.
#[derive(Clone, Debug, Default)]
pub struct Table {
    owners: Vec<Option<Owner>>,
    current: bool,
}

impl Table {
    /// Of `slots` slots, none known.
    pub fn new(slots: u16) -> Self {
        Self { owners: vec![None; usize::from(slots)], current: false }
    }

    /// Takes in a record; the higher epoch wins. Answers whether it was news.
    pub fn apply(&mut self, slot: Slot, owner: Owner) -> bool {
        let Some(known) = self.owners.get_mut(usize::from(slot.0)) else { return false };
        if known.as_ref().is_some_and(|known| known.epoch >= owner.epoch) {
            return false;
        }
        *known = Some(owner);
        true
    }

    /// The latest record of a slot.
    pub fn get(&self, slot: Slot) -> Option<&Owner> {
        self.owners.get(usize::from(slot.0))?.as_ref()
    }

    /// Whether a watch has shown everything that is there, and goes on.
    pub fn is_current(&self) -> bool {
        self.current
    }

    /// A watch has shown everything, or is broken.
    pub fn set_current(&mut self, current: bool) {
        self.current = current;
    }

    /// Every slot with its record.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, Option<&Owner>)> {
        (0..).map(Slot).zip(self.owners.iter().map(Option::as_ref))
    }

    /// Whoever owns something, with the latest life that does.
    pub fn owning(&self) -> BTreeMap<NodeId, Incarnation> {
        let mut owning: BTreeMap<NodeId, Incarnation> = BTreeMap::new();
        for owner in self.owners.iter().flatten().filter(|owner| !owner.released) {
            match owning.get_mut(&owner.node) {
                Some(life) => *life = owner.incarnation.max(*life),
                None => drop(owning.insert(owner.node.clone(), owner.incarnation)),
            }
        }
        owning
    }
}

/// One thing to do about a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Take it, if its record is still this one.
    Claim {
        /// The slot.
        slot: Slot,
        /// The epoch of its record.
        expected: Option<Epoch>,
    },
    /// It turns out to be ours: a claim of unknown outcome was done.
    Adopt {
        /// The slot.
        slot: Slot,
        /// Its epoch.
        epoch: Epoch,
    },
    /// Give it up for another node; for anybody if there is none.
    HandOver {
        /// The slot.
        slot: Slot,
        /// Who should take it.
        to: Option<NodeId>,
    },
}

/// What a plan rests on.
#[derive(Clone, Copy, Debug)]
pub struct Basis<'a> {
    /// Who is here.
    pub view: &'a View,
    /// Who owns what.
    pub table: &'a Table,
    /// Who should own what.
    pub wishes: &'a Wishes,
    /// The node that plans.
    pub me: &'a NodeId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Whether it gives everything away.
    pub leaving: bool,
    /// What it hosts, and under which epochs.
    pub held: &'a BTreeMap<Slot, Epoch>,
    /// Slots about which something is being done.
    pub busy: &'a BTreeSet<Slot>,
}

/// What to do now, at most `room` things. Nothing while a watch is not current.
pub fn plan(on: Basis<'_>, room: usize) -> Vec<Action> {
    if !on.view.is_current() || !on.table.is_current() {
        return Vec::new();
    }
    let slots = on.table.iter().filter(|(slot, _)| !on.busy.contains(slot));
    slots.filter_map(|(slot, owner)| judge(on, slot, owner)).take(room).collect()
}

fn judge(on: Basis<'_>, slot: Slot, owner: Option<&Owner>) -> Option<Action> {
    let wished = on.wishes.of(slot);
    let mine = |node: &NodeId| node == on.me;
    match owner {
        Some(owner) if !owner.released && mine(&owner.node) && owner.incarnation == on.incarnation => {
            if on.held.get(&slot) != Some(&owner.epoch) {
                return Some(Action::Adopt { slot, epoch: owner.epoch });
            }
            let to = wished.filter(|node| !mine(node)).cloned();
            (to.is_some() || on.leaving).then_some(Action::HandOver { slot, to })
        }
        _ if on.leaving || !wished.is_some_and(mine) => None,
        None => Some(Action::Claim { slot, expected: None }),
        Some(owner) => {
            let free = owner.released || on.view.standing(&owner.node, owner.incarnation) == Standing::Dead;
            free.then_some(Action::Claim { slot, expected: Some(owner.epoch) })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cluster::{Presence, Revision, State, engine::Sighting};

    const SLOTS: u16 = 64;

    fn id(name: &str) -> NodeId {
        NodeId::parse(name).unwrap()
    }

    fn owned(node: &str, incarnation: u64, epoch: u64) -> Owner {
        Owner { node: id(node), incarnation: Incarnation(incarnation), released: false, epoch: Epoch(epoch) }
    }

    struct World {
        view: View,
        table: Table,
        wishes: Wishes,
        held: BTreeMap<Slot, Epoch>,
        busy: BTreeSet<Slot>,
        leaving: bool,
    }

    impl World {
        fn of(nodes: &[(&str, u64, State)]) -> Self {
            let mut view = View::default();
            view.begin();
            for (at, (node, incarnation, state)) in (1..).zip(nodes) {
                let presence = Presence {
                    incarnation: Incarnation(*incarnation),
                    address: "a:1".into(),
                    http: "a:2".into(),
                    state: *state,
                    load: 0,
                };
                let seen = Sighting { node: id(node), presence: Some(presence), revision: Revision(at) };
                view.see(seen, Duration::ZERO);
            }
            view.complete();
            let mut wishes = Wishes::default();
            wishes.over(view.up(), SLOTS);
            let mut table = Table::new(SLOTS);
            table.set_current(true);
            Self { view, table, wishes, held: BTreeMap::new(), busy: BTreeSet::new(), leaving: false }
        }

        fn plan(&self, room: usize) -> Vec<Action> {
            let basis = Basis {
                view: &self.view,
                table: &self.table,
                wishes: &self.wishes,
                me: &id("me"),
                incarnation: Incarnation(1),
                leaving: self.leaving,
                held: &self.held,
                busy: &self.busy,
            };
            plan(basis, room)
        }

        fn slots(&self, room: usize) -> Vec<Slot> {
            let slot = |action: &Action| match action {
                Action::Claim { slot, .. } | Action::Adopt { slot, .. } | Action::HandOver { slot, .. } => *slot,
            };
            self.plan(room).iter().map(slot).collect()
        }

        fn wished_to(&self, node: &str) -> Vec<Slot> {
            (0..SLOTS).map(Slot).filter(|slot| self.wishes.of(*slot) == Some(&id(node))).collect()
        }
    }

    #[test]
    fn what_nobody_owned_is_claimed_by_the_one_it_is_wished_to() {
        let mut world = World::of(&[("me", 1, State::Up), ("other", 1, State::Up)]);
        let mine = world.wished_to("me");
        assert!(!mine.is_empty() && mine.len() < usize::from(SLOTS));
        assert_eq!(world.slots(99), mine);
        assert_eq!(world.plan(2).len(), 2);
        world.busy.insert(mine[0]);
        assert_eq!(world.plan(99).len(), mine.len() - 1);
        world.table.set_current(false);
        assert_eq!(world.plan(99), []);
    }

    #[test]
    fn a_slot_is_claimed_from_a_dead_or_released_owner_and_from_no_other() {
        let mut world = World::of(&[("me", 1, State::Up), ("dead", 4, State::Dead), ("lives", 1, State::Draining)]);
        world.table.apply(Slot(0), owned("dead", 4, 10));
        world.table.apply(Slot(1), owned("lives", 1, 11));
        world.table.apply(Slot(2), owned("nobody", 1, 12));
        world.table.apply(Slot(3), Owner { released: true, ..owned("lives", 1, 13) });
        world.table.apply(Slot(4), owned("lives", 2, 14));
        world.table.apply(Slot(5), owned("me", 0, 15));
        assert_eq!(world.slots(4), [Slot(0), Slot(3), Slot(5), Slot(6)]);
        assert_eq!(world.plan(1), [Action::Claim { slot: Slot(0), expected: Some(Epoch(10)) }]);
    }

    #[test]
    fn what_is_wished_to_another_is_handed_over_and_all_of_it_on_leaving() {
        let mut world = World::of(&[("me", 1, State::Up), ("other", 1, State::Up)]);
        for slot in (0..SLOTS).map(Slot) {
            world.table.apply(slot, owned("me", 1, 7));
            world.held.insert(slot, Epoch(7));
        }
        let theirs = world.wished_to("other");
        let planned: Vec<_> =
            theirs.iter().map(|slot| Action::HandOver { slot: *slot, to: Some(id("other")) }).collect();
        assert_eq!(world.plan(99), planned);
        let mut alone = World::of(&[("me", 1, State::Draining)]);
        (alone.table, alone.held, alone.leaving) = (world.table, world.held, true);
        assert_eq!(alone.plan(99).len(), usize::from(SLOTS));
        assert_eq!(alone.plan(1), [Action::HandOver { slot: Slot(0), to: None }]);
    }

    #[test]
    fn a_claim_of_unknown_outcome_that_was_done_is_adopted() {
        let mut world = World::of(&[("other", 1, State::Up)]);
        world.table.apply(Slot(9), owned("me", 1, 7));
        assert_eq!(world.plan(99), [Action::Adopt { slot: Slot(9), epoch: Epoch(7) }]);
        assert!(!world.table.apply(Slot(9), owned("other", 1, 6)), "the higher epoch wins");
    }
}
