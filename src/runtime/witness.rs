//! What proves that a record was newer once: the sequences this process has seen of twins that left memory.
//!
//! A table of fixed size; a twin whose place is taken by another is forgotten. While a twin is in memory, its own
//! ledger is the witness.

use std::sync::Arc;

use super::{
    activation::Phase,
    shard::{Core, Shard},
};
use crate::{
    model::{Outcome, Sealed},
    twin::{Failure, Twin},
};

/// Twins of one kind that left memory and whose sequence is still known, at most.
const REMEMBERED_MAX: usize = 65_536;

/// Newest sequences by twin.
#[derive(Default)]
pub(super) struct Witness {
    /// Keyed hash of the twin's key, and the sequence; empty until the first twin leaves.
    places: Vec<(u64, u64)>,
    /// Keyed anew in each process: nobody can choose keys that are taken for each other.
    hasher: ahash::RandomState,
}

impl Witness {
    /// Remembers that a record of this sequence was durable; `shards` share the bound.
    pub(super) fn saw(&mut self, key: &str, sequence: u64, shards: usize) {
        if sequence == 0 {
            return;
        }
        if self.places.is_empty() {
            self.places.resize((REMEMBERED_MAX / shards.max(1)).max(1), (0, 0));
        }
        let (hash, at) = self.place(key);
        let known = self.of(key);
        self.places[at] = (hash, sequence.max(known));
    }

    /// The newest sequence known of a twin; 0 if none is.
    pub(super) fn of(&self, key: &str) -> u64 {
        if self.places.is_empty() {
            return 0;
        }
        let (hash, at) = self.place(key);
        let (found, sequence) = self.places[at];
        if found == hash { sequence } else { 0 }
    }

    fn place(&self, key: &str) -> (u64, usize) {
        let hash = self.hasher.hash_one(key);
        let places = u64::try_from(self.places.len()).unwrap_or(u64::MAX);
        (hash, usize::try_from(hash % places).unwrap_or(0))
    }
}

impl<K: Twin> Core<K> {
    /// Remembers the sequence of a twin that leaves memory.
    pub(super) fn saw(&mut self, shard: &Shard<K>, key: &str, sequence: u64) {
        self.witness.saw(key, sequence, shard.shared.shards_per_kind());
    }

    /// Takes note that the wake index was written with a record of this sequence. A twin in memory whose record is
    /// older was read before anything could tell: it ends, and its next load is refused.
    pub(super) fn woken_by(&mut self, shard: &Shard<K>, hash: u64, key: &str, sequence: u64) {
        let Some(at) = self.table.find(hash, key) else { return self.saw(shard, key, sequence) };
        let Some(twin) = self.table.get_mut(at) else { return };
        let Some(ledger) = &mut twin.ledger else { return };
        let flies = twin.busy.as_ref().and_then(|busy| busy.flight).is_some_and(|flight| flight.core);
        if ledger.sequence + u64::from(flies) >= sequence {
            return;
        }
        ledger.sequence = sequence;
        let address = Arc::clone(&ledger.address);
        if !matches!(twin.busy().phase, Phase::Live) {
            // Its load compares.
            return;
        }
        tracing::error!(kind = K::KIND, %key, sequence, "a twin in memory is older than its wake entry; its activation ends");
        let cause: Arc<str> = "the record of this twin went backwards".into();
        twin.state = K::create(key);
        let busy = twin.busy();
        busy.lose_staged(&Sealed::Lost { outcome: Outcome::NotApplied, cause: Arc::clone(&cause) });
        busy.refuse_waiting(&Failure::Lost { outcome: Outcome::NotApplied, cause });
        if busy.flight.is_some() {
            busy.phase = Phase::Ending;
        } else {
            busy.phase = Phase::Loading { attempts: 0 };
            self.load(shard, at, address, false);
        }
    }
}
