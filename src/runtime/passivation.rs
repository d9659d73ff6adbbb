//! Twins leave memory: idle, nothing staged, last pages saved. It happens under the shard's lock, so nothing slips in.

use std::sync::atomic::Ordering;

use super::{
    activation::Activation,
    shard::{Core, Shard},
};
use crate::{
    model::{Timestamp, limits},
    twin::{Persistence, Twin},
};

/// The sweep visits every twin of a shard once in so many ticks.
const TICKS_PER_SWEEP: u32 = 16;
/// Most twins visited in one hold of the lock.
const SWEEP_MAX: u32 = 4096;
/// What one save of observed pages may write, so that it fits a commit beside the core.
pub(super) const SAVE_BYTES_MAX: usize = limits::COMMIT_BYTES_MAX - 2 * limits::RECORD_BYTES_MAX;

impl<K: Twin> Core<K> {
    /// Saves what is due and passivates what is idle; with `drain`, saves everything.
    pub(super) fn tick(&mut self, shard: &Shard<K>, drain: bool, now: Timestamp) {
        // What cannot be saved stays: a twin that left could not be read again.
        if shard.shared.is_closed() || (shard.shared.unwritable().is_some() && !drain) {
            return;
        }
        self.save_due(shard, drain, now);
        self.sweep(shard, now);
    }

    fn save_due(&mut self, shard: &Shard<K>, drain: bool, now: Timestamp) {
        for _ in 0..self.unsaved.len() {
            let Some((due, at)) = self.unsaved.pop_front() else { break };
            // Later than any interval: set before the clock went back.
            let waits = due > now && due.since(now) <= shard.shared.config.save_every * 2;
            if waits && !drain {
                self.unsaved.push_front((due, at));
                break;
            }
            let budget = &shard.shared.save_budget_kib;
            if !drain && budget.load(Ordering::Relaxed) == 0 {
                self.unsaved.push_front((due, at));
                break;
            }
            let spent = self.contained(shard, at, |core| core.save(shard, at, SAVE_BYTES_MAX, now)).unwrap_or(0);
            let spent = u32::try_from(spent).unwrap_or(u32::MAX);
            // Other shards spend from it at the same time: never below zero, and a little too much at most.
            let _was =
                budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(spent)));
            let list = |core: &mut Self| {
                let Some(twin) = core.table.get_mut(at) else { return };
                let Some(ledger) = &mut twin.ledger else { return };
                ledger.listed = twin.state.unsaved();
                if ledger.listed {
                    // Busy with a commit, or more to save than one commit takes: soon again.
                    core.unsaved.push_back((now, at));
                }
            };
            self.contained(shard, at, list).ok();
        }
    }

    fn sweep(&mut self, shard: &Shard<K>, now: Timestamp) {
        let end = self.table.end();
        if end == 0 {
            return;
        }
        let idle_s = u32::try_from(shard.shared.config.idle_after.as_secs()).unwrap_or(u32::MAX);
        let life_s = shard.shared.life_s(now);
        let shards = u64::try_from(shard.shared.shards_per_kind()).unwrap_or(1);
        let share = u64::try_from(shard.shared.config.resident_bytes_max).unwrap_or(u64::MAX) / shards.max(1);
        let crowded = self.counts.resident_bytes > share;
        let mut bytes = 0_u64;
        let visits = (end.div_ceil(TICKS_PER_SWEEP)).clamp(1, SWEEP_MAX.max(end / TICKS_PER_SWEEP));
        for _ in 0..visits {
            if self.sweep >= end {
                self.sweep = 0;
            }
            let at = self.sweep;
            self.sweep += 1;
            let leaves = |idle_for: u32| idle_for >= idle_s || (crowded && idle_for >= 1);
            let visit = |core: &mut Self| {
                let Some(twin) = core.table.get(at) else { return 0 };
                let leave = leaves(life_s.saturating_sub(twin.used_s));
                let bytes = resident_bytes(twin);
                if leave {
                    core.passivate(shard, at, now);
                }
                bytes
            };
            bytes += u64::try_from(self.contained(shard, at, visit).unwrap_or(0)).unwrap_or(u64::MAX);
        }
        // Scaled from the part visited: exact after one sweep of twins that do not change.
        self.counts.resident_bytes = bytes * u64::from(end) / u64::from(visits);
    }

    /// Lets an idle twin leave, if nothing of it is under way or unsaved.
    fn passivate(&mut self, shard: &Shard<K>, at: u32, now: Timestamp) {
        let Some(twin) = self.table.get(at) else { return };
        // A promise on its way comes back to this activation, and one that fails is tried less and less often by it.
        let awaits = twin.ledger.as_ref().is_some_and(|ledger| !ledger.rare().deliveries.is_empty());
        if awaits || !twin.is_settled() {
            return;
        }
        if K::Persistence::DURABLE && twin.state.unsaved() {
            self.save(shard, at, SAVE_BYTES_MAX, now);
            return;
        }
        if self.unsaved.iter().any(|(_, listed)| *listed == at) {
            return;
        }
        if let Some(gone) = self.table.remove(at)
            && let Some(ledger) = &gone.ledger
        {
            self.saw(shard, &gone.key, ledger.sequence);
        }
        self.counts.passivations += 1;
    }
}

fn resident_bytes<K: Twin>(twin: &Activation<K>) -> usize {
    const INDEX: usize = 16;
    size_of::<Activation<K>>()
        + INDEX
        + twin.state.heap_bytes()
        + twin.ledger.as_ref().map_or(0, |ledger| ledger.bytes())
}
