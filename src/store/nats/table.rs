//! The slots claimed here: their epochs, and what the headers of their core records say.

use std::collections::{HashMap, hash_map::Entry};

use super::names::Beside;
use crate::{
    model::{Key, Timestamp},
    store::{self, Address, Epoch, Error, Slot, Walked, index::Index},
};

/// A core record.
struct Row {
    beside: Beside,
    /// Sequence of the stream at which it was written, or a later one.
    at: u64,
}

struct Claimed {
    epoch: Epoch,
    /// Not after an unknown outcome: until the next claim, what is under way may still land.
    writable: bool,
    /// Whether the rows are all there are.
    loaded: bool,
    rows: HashMap<Address, Row, ahash::RandomState>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Table {
    slots: HashMap<Slot, Claimed>,
    index: Index,
}

/// What is known of a twin's sequence.
pub(super) enum Known {
    Sequence(u64),
    /// It is to be read.
    Nothing,
}

impl Table {
    /// A slot was claimed; what was known of it is read again.
    pub(super) fn claimed(&mut self, slot: Slot, epoch: Epoch) {
        if self.slots.get(&slot).is_some_and(|present| present.epoch >= epoch) {
            return;
        }
        self.forget(slot);
        let rows = HashMap::default();
        self.slots.insert(slot, Claimed { epoch, writable: true, loaded: false, rows });
    }

    /// Somebody else has a slot that was held under this epoch.
    pub(super) fn lost(&mut self, slot: Slot, epoch: Epoch) {
        if self.slots.get(&slot).is_some_and(|present| present.epoch <= epoch) {
            self.forget(slot);
        }
    }

    fn forget(&mut self, slot: Slot) {
        for (address, row) in self.slots.remove(&slot).into_iter().flat_map(|gone| gone.rows) {
            self.index.set(&address, (row.beside.wake_at, &row.beside.terms), (None, &[]), 0);
        }
    }

    /// The outcome of a write under this epoch is unknown.
    pub(super) fn block(&mut self, slot: Slot, epoch: Epoch) {
        if let Some(present) = self.slots.get_mut(&slot).filter(|present| present.epoch == epoch) {
            present.writable = false;
        }
    }

    /// Whether this store may use a slot under an epoch; `None` if it never claimed it.
    pub(super) fn allows(&self, slot: Slot, ours: Epoch) -> Option<Result<(), Error>> {
        let present = self.slots.get(&slot)?;
        Some(if present.epoch != ours {
            Err(Error::Fenced { ours, owner: present.epoch })
        } else if present.writable {
            Ok(())
        } else {
            Err(Error::Unavailable("a write had no answer: the slot must be claimed again".into()))
        })
    }

    /// The slots whose rows are not all there.
    pub(super) fn loading(&self) -> Vec<(Slot, Epoch)> {
        let loading = self.slots.iter().filter(|(_, claimed)| !claimed.loaded);
        loading.map(|(slot, claimed)| (*slot, claimed.epoch)).collect()
    }

    /// Whether this is still to be loaded.
    pub(super) fn is_loading(&self, slot: Slot, epoch: Epoch) -> bool {
        self.slots.get(&slot).is_some_and(|claimed| claimed.epoch == epoch && !claimed.loaded)
    }

    /// All rows of a slot are there.
    pub(super) fn loaded(&mut self, slot: Slot, epoch: Epoch) {
        if let Some(present) = self.slots.get_mut(&slot).filter(|present| present.epoch == epoch) {
            present.loaded = true;
        }
    }

    pub(super) fn sequence(&self, slot: Slot, address: &Address) -> Known {
        match self.slots.get(&slot).map(|claimed| (claimed.rows.get(address), claimed.loaded)) {
            Some((Some(row), _)) => Known::Sequence(row.beside.sequence),
            Some((None, true)) => Known::Sequence(0),
            Some((None, false)) | None => Known::Nothing,
        }
    }

    /// A core record as it is at a sequence of the stream; older news changes nothing.
    pub(super) fn put(&mut self, slot: Slot, epoch: Epoch, address: &Address, beside: Beside, at: u64) {
        let Some(claimed) = self.slots.get_mut(&slot).filter(|claimed| claimed.epoch == epoch) else { return };
        let before = match claimed.rows.entry(address.clone()) {
            Entry::Occupied(row) if row.get().at >= at => return,
            Entry::Occupied(mut row) => {
                let after = (beside.wake_at, &*beside.terms);
                let before = (row.get().beside.wake_at, &*row.get().beside.terms);
                self.index.set(address, before, after, beside.sequence);
                row.insert(Row { beside, at });
                return;
            }
            Entry::Vacant(row) => row,
        };
        self.index.set(address, (None, &[]), (beside.wake_at, &beside.terms), beside.sequence);
        before.insert(Row { beside, at });
    }

    /// The epoch under which a slot is held.
    pub(super) fn epoch(&self, slot: Slot) -> Option<Epoch> {
        self.slots.get(&slot).map(|claimed| claimed.epoch)
    }

    pub(super) fn wake(&self, until: Timestamp, after: Option<(Timestamp, Address)>, limit: usize) -> Walked {
        self.index.wake(until, after, limit)
    }

    pub(super) fn find(
        &self,
        kind: &str,
        terms: &[compact_str::CompactString],
        after: Option<&Key>,
        limit: usize,
    ) -> Walked {
        let keys = self.index.narrow(kind, terms, after).unwrap_or_else(|| self.keys(kind, after));
        let mut walked = Walked::default();
        for key in keys {
            let address = Address { kind: kind.into(), key };
            let claimed = self.slots.get(&Slot::of(Key::hash_of(&address.key)));
            let Some(row) = claimed.and_then(|claimed| claimed.rows.get(&address)) else { continue };
            if !terms.iter().all(|wanted| store::matches(wanted, &row.beside.terms)) {
                continue;
            }
            if walked.entries.len() == limit {
                walked.more = true;
                break;
            }
            walked.entries.push(store::Entry::Found { key: address.key, terms: row.beside.terms.to_vec() });
        }
        walked
    }

    /// Every key of a kind after `after`, sorted.
    fn keys(&self, kind: &str, after: Option<&Key>) -> Vec<Key> {
        let addresses = self.slots.values().flat_map(|claimed| claimed.rows.keys());
        let wanted = addresses.filter(|address| address.kind == kind && after.is_none_or(|after| address.key > *after));
        let mut keys: Vec<Key> = wanted.map(|address| address.key.clone()).collect();
        keys.sort_unstable();
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(key: &str) -> Address {
        Address { kind: "thing".into(), key: Key::parse(key).unwrap() }
    }

    fn beside(sequence: u64, wake: u64) -> Beside {
        let terms = [compact_str::CompactString::from("x=1")].into_iter().collect();
        Beside { sequence, wake_at: Some(Timestamp::from_unix_ms(wake)), terms }
    }

    fn wakes(table: &Table) -> usize {
        table.wake(Timestamp::from_unix_ms(u64::MAX), None, 9).entries.len()
    }

    #[test]
    fn older_news_of_a_record_changes_nothing() {
        let mut table = Table::default();
        let (slot, address) = (Slot::of(Key::hash_of("a")), address("a"));
        table.claimed(slot, Epoch(5));
        assert!(matches!(table.sequence(slot, &address), Known::Nothing));
        table.put(slot, Epoch(5), &address, beside(2, 20), 9);
        table.put(slot, Epoch(5), &address, beside(1, 10), 8);
        table.put(slot, Epoch(4), &address, beside(3, 30), 10);
        assert!(matches!(table.sequence(slot, &address), Known::Sequence(2)));
        assert_eq!(wakes(&table), 1);
        assert_eq!(table.find("thing", &["x=1".into()], None, 9).entries.len(), 1);
    }

    #[test]
    fn a_slot_that_is_lost_or_claimed_again_leaves_nothing_in_the_indexes() {
        let mut table = Table::default();
        let (slot, address) = (Slot::of(Key::hash_of("a")), address("a"));
        for end in [
            |table: &mut Table, slot| table.lost(slot, Epoch(5)),
            |table: &mut Table, slot| {
                table.claimed(slot, Epoch(6));
            },
        ] {
            table.claimed(slot, Epoch(5));
            table.put(slot, Epoch(5), &address, beside(2, 20), 9);
            assert_eq!(wakes(&table), 1);
            end(&mut table, slot);
            assert_eq!(wakes(&table), 0);
            table.lost(slot, Epoch(6));
        }
        assert!(table.allows(slot, Epoch(5)).is_none());
    }

    #[test]
    fn after_an_unknown_outcome_a_slot_waits_for_its_next_claim() {
        let mut table = Table::default();
        table.claimed(Slot(1), Epoch(5));
        assert_eq!(table.allows(Slot(1), Epoch(5)), Some(Ok(())));
        table.block(Slot(1), Epoch(5));
        assert!(matches!(table.allows(Slot(1), Epoch(5)), Some(Err(Error::Unavailable(_)))));
        table.claimed(Slot(1), Epoch(6));
        assert_eq!(table.allows(Slot(1), Epoch(6)), Some(Ok(())));
        assert!(matches!(table.allows(Slot(1), Epoch(5)), Some(Err(Error::Fenced { .. }))));
    }
}
