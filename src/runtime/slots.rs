//! Which parts of the id space this runtime owns, and under which epochs.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    model::Key,
    store::{Epoch, Slot},
};

/// Set beside an epoch while no turn may begin under it.
const SHUT: u64 = 1 << 63;
/// Set beside both while the slot is handed over: it does not open again before it is given up.
const LEAVING: u64 = 1 << 62;
/// What is beside an epoch.
const MARKS: u64 = SHUT | LEAVING;

/// The epochs of all slots, 0 for one that is not owned. A store that nobody shares has one slot.
pub(super) struct Slots(Box<[AtomicU64]>);

impl Slots {
    /// Of a store that nobody shares, or that many do.
    pub(super) fn new(shared: bool) -> Self {
        Self((0..if shared { Slot::COUNT } else { 1 }).map(|_| AtomicU64::new(0)).collect())
    }

    /// Whether all ids are in the one slot.
    pub(super) fn is_one(&self) -> bool {
        self.0.len() == 1
    }

    /// The slot of an id by its hash.
    pub(super) fn of(&self, hash: u64) -> Slot {
        if self.is_one() { Slot(0) } else { Slot::of(hash) }
    }

    /// The slot of an id.
    pub(super) fn of_key(&self, key: &Key) -> Slot {
        if self.is_one() { Slot(0) } else { Slot::of(Key::hash_of(key)) }
    }

    fn at(&self, slot: Slot) -> &AtomicU64 {
        &self.0[usize::from(slot.0)]
    }

    /// The epoch to commit under; 0 if the slot is not owned.
    pub(super) fn epoch(&self, slot: Slot) -> Epoch {
        Epoch(self.at(slot).load(Ordering::Acquire) & !MARKS)
    }

    /// Whether turns may begin.
    pub(super) fn is_open(&self, slot: Slot) -> bool {
        let epoch = self.at(slot).load(Ordering::Acquire);
        epoch != 0 && epoch & MARKS == 0
    }

    /// Lets turns begin under an epoch, unless a later one is known already or the slot is being handed over; then only
    /// what is under way may be committed under it.
    pub(super) fn open(&self, slot: Slot, epoch: Epoch) {
        let leaving = |known: u64| if known & LEAVING == 0 { 0 } else { MARKS };
        let later = |known: u64| (known & !MARKS <= epoch.0).then_some(epoch.0 | leaving(known));
        // An earlier epoch than the known one changes nothing.
        self.at(slot).fetch_update(Ordering::AcqRel, Ordering::Acquire, later).ok();
    }

    /// Lets no turn begin; what is under way may still be committed.
    pub(super) fn shut(&self, slot: Slot) {
        let shut = |known: u64| (known != 0).then_some(known | SHUT);
        self.at(slot).fetch_update(Ordering::AcqRel, Ordering::Acquire, shut).ok();
    }

    /// The slot is handed over from now on.
    pub(super) fn leave(&self, slot: Slot) {
        let leave = |known: u64| (known != 0).then_some(known | MARKS);
        self.at(slot).fetch_update(Ordering::AcqRel, Ordering::Acquire, leave).ok();
    }

    /// The slot is not owned any more.
    pub(super) fn clear(&self, slot: Slot) {
        self.at(slot).store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_open_under_the_newest_epoch_until_it_is_shut() {
        let slots = Slots::new(true);
        let slot = slots.of(u64::MAX);
        assert_eq!(slot, Slot(4095));
        assert!(!slots.is_open(slot));
        slots.open(slot, Epoch(7));
        slots.open(slot, Epoch(6));
        assert!(slots.is_open(slot) && slots.epoch(slot) == Epoch(7));
        slots.shut(slot);
        assert!(!slots.is_open(slot) && slots.epoch(slot) == Epoch(7));
        slots.open(slot, Epoch(9));
        assert!(slots.is_open(slot) && !slots.is_open(Slot(0)));
        slots.leave(slot);
        slots.open(slot, Epoch(10));
        assert!(!slots.is_open(slot) && slots.epoch(slot) == Epoch(10), "whoever leaves does not come back");
        slots.clear(slot);
        slots.shut(slot);
        assert!(!slots.is_open(slot) && slots.epoch(slot) == Epoch(0));
    }

    #[test]
    fn a_store_that_nobody_shares_has_one_slot() {
        let slots = Slots::new(false);
        assert_eq!(slots.of(u64::MAX), Slot(0));
    }
}
