//! Twins leave with their slot: handed over in good order, or lost to another runtime.

use super::{
    activation::{Phase, Read},
    passivation::SAVE_BYTES_MAX,
    shard::{Core, Shard},
};
use crate::{
    model::{Key, Outcome, Sealed, Timestamp},
    store::Slot,
    twin::{Persistence, Twin},
};

impl<K: Twin> Core<K> {
    /// Lets those twins of a slot leave of which nothing is under way, and saves the unsaved; answers how many stay.
    pub(super) fn leave(&mut self, shard: &Shard<K>, slot: Slot, now: Timestamp) -> usize {
        let twins = self.table.of_slot(slot);
        let still_here = |core: &mut Self, at: u32| {
            core.send_waiting_on(at);
            let Some(twin) = core.table.get_mut(at) else { return false };
            twin.rest();
            if K::Persistence::DURABLE && twin.is_settled() && twin.state.unsaved() {
                core.save(shard, at, SAVE_BYTES_MAX, now);
                return true;
            }
            let waits = |phase: &Phase| matches!(phase, Phase::Backoff { .. });
            if !twin.busy.as_ref().is_none_or(|busy| waits(&busy.phase)) {
                return true;
            }
            core.remove(shard, at);
            false
        };
        let stays = |at: &&u32| self.contained(shard, **at, |core| still_here(core, **at)).unwrap_or(true);
        let stay = twins.iter().filter(stays).count();
        if stay < twins.len() {
            self.unlist_gone();
        }
        stay
    }

    /// Ends the activations of a slot that was lost. What the store is writing or reading for one is waited for.
    pub(super) fn lose(&mut self, shard: &Shard<K>, slot: Slot) {
        for at in self.table.of_slot(slot) {
            self.contained(shard, at, |core| core.lose_one(shard, at)).ok();
        }
        self.unlist_gone();
    }

    fn lose_one(&mut self, shard: &Shard<K>, at: u32) {
        self.send_waiting_on(at);
        let Some(twin) = self.table.get_mut(at) else { return };
        if let Some(busy) = &mut twin.busy {
            let cause = "another node took over this twin before this was committed".into();
            busy.lose_staged(&Sealed::Lost { outcome: Outcome::NotApplied, cause });
            if busy.flight.is_some() {
                busy.phase = Phase::Ending;
                return;
            }
            if matches!(busy.phase, Phase::Loading { .. }) {
                return;
            }
        }
        self.remove(shard, at);
    }

    /// Whether an activation may go on, as far as its slot is concerned: if another runtime has it, it ends here.
    pub(super) fn is_still_ours(&mut self, shard: &Shard<K>, at: u32) -> bool {
        if shard.shared.cluster.is_none() {
            return true;
        }
        let Some(twin) = self.table.get(at) else { return false };
        let slot = shard.shared.slots.of_key(&twin.key);
        if shard.shared.epoch(slot).0 != 0 {
            return true;
        }
        self.send_waiting_on(at);
        self.remove(shard, at);
        self.unlist_gone();
        false
    }

    /// What waits for a twin goes on to wherever its slot is, if there are others.
    pub(super) fn send_waiting_on(&mut self, at: u32) {
        let Some(twin) = self.table.get_mut(at) else { return };
        let Some(busy) = &mut twin.busy else { return };
        if busy.waiting.is_empty() {
            return;
        }
        busy.read = Read::No;
        let key = &twin.key;
        let waiting = busy.waiting.drain(..).map(|call| (Key::hash_of(key), key.clone(), call));
        self.out.elsewhere.extend(waiting);
    }

    /// Strikes twins that left off the list of the unsaved, before another one gets their place.
    fn unlist_gone(&mut self) {
        self.unsaved.retain(|(_, listed)| self.table.get(*listed).is_some());
    }

    fn remove(&mut self, shard: &Shard<K>, at: u32) {
        if let Some(gone) = self.table.remove(at)
            && let Some(ledger) = &gone.ledger
        {
            self.saw(shard, &gone.key, ledger.sequence);
        }
        self.counts.passivations += 1;
    }
}
