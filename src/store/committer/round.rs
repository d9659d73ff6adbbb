//! One round: check and write each, sync once, answer all.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
};

use compact_str::CompactString;

use super::{
    Committer, Disk,
    answer::{self, Results},
    hot::Known,
    long::Step,
};
use crate::{
    model::Timestamp,
    store::{Address, Commit, Done, Epoch, Error, Item, PageWrite, SharedTerms, Slot, keyspace},
};

/// One thing that a round answers.
pub(super) enum Entry {
    Commit(Commit),
    Claim { slot: Slot, expected: Option<Epoch>, done: Done<Epoch> },
    Item { item: Item, done: Done<()> },
    Barrier { done: Done<()> },
    Blob { id: [u8; 16], done: Done<[u8; 16]> },
    Sweep { removed: u64, done: Done<u64> },
}

/// Why an entry was not written.
pub(super) enum Refusal {
    /// It may not be; nothing happened.
    Not(Error),
    /// The disk failed in the middle of it.
    Disk(String),
}

impl From<String> for Refusal {
    fn from(cause: String) -> Self {
        Self::Disk(cause)
    }
}

/// How far a round came before it was synced.
struct Written {
    /// One result for each entry that was looked at.
    results: Results,
    /// Why the disk failed, if it did.
    failure: Option<String>,
}

impl<D: Disk> Committer<D> {
    /// Writes, syncs and answers `round`, and leaves it empty.
    pub(super) fn round(&mut self, round: &mut Vec<Entry>) {
        if let Err(error) = self.shared.healthy() {
            self.long.drain(..).for_each(|long| long.refuse(error.clone()));
            let results = round.iter().map(|_| Err(error.clone())).collect();
            answer::tell(&self.shared, round, results);
            return;
        }
        let mut written = Written { results: Vec::with_capacity(round.len()), failure: None };
        let done = catch_unwind(AssertUnwindSafe(|| self.write_all(round, &mut written)));
        if done.is_err() {
            written.failure.get_or_insert_with(|| "the database panicked".to_owned());
        }
        if let Some(cause) = &written.failure {
            let cause = self.shared.fail(cause);
            for result in &mut written.results {
                if result.is_ok() {
                    *result = Err(Error::Unknown(cause.clone()));
                }
            }
            // The entry at which it failed may be written in part; those behind it are not.
            if written.results.len() < round.len() {
                written.results.push(Err(Error::Unknown(cause.clone())));
            }
            written.results.resize(round.len(), Err(Error::Unavailable(cause)));
        }
        answer::tell(&self.shared, round, written.results);
    }

    fn write_all(&mut self, round: &mut Vec<Entry>, written: &mut Written) {
        for entry in round.iter_mut() {
            match self.write(entry) {
                Ok(epoch) => written.results.push(Ok(epoch)),
                Err(Refusal::Not(error)) => written.results.push(Err(error)),
                Err(Refusal::Disk(cause)) => {
                    written.failure = Some(cause);
                    return;
                }
            }
        }
        // One batch for all: sled seals each batch apart, which costs more than what is in it.
        if !self.batch.is_empty()
            && let Err(cause) = self.disk.batch(&mut self.batch)
        {
            written.failure = Some(cause);
            return;
        }
        self.batched.clear();
        if let Some(long) = self.long.pop_front() {
            match self.step(long) {
                Ok(Step::Again(long)) => self.long.push_back(long),
                Ok(Step::Over(entry)) => {
                    round.push(entry);
                    written.results.push(Ok(None));
                }
                Err((long, cause)) => {
                    long.refuse(Error::Unknown(cause.as_str().into()));
                    written.failure = Some(cause);
                    return;
                }
            }
        }
        if written.results.iter().any(Result::is_ok)
            && let Err(cause) = self.sync()
        {
            written.failure = Some(cause);
        }
    }

    fn write(&mut self, entry: &mut Entry) -> Result<Option<Epoch>, Refusal> {
        match entry {
            Entry::Commit(commit) => self.write_commit(commit).map(|()| None),
            Entry::Claim { slot, expected, .. } => self.write_claim(*slot, *expected).map(Some),
            Entry::Item { item, .. } => self.write_item(item).map(|()| None),
            Entry::Barrier { .. } | Entry::Blob { .. } | Entry::Sweep { .. } => Ok(None),
        }
    }

    fn write_commit(&mut self, commit: &mut Commit) -> Result<(), Refusal> {
        commit.check().map_err(Refusal::Not)?;
        let owner = self.epoch(commit.slot)?;
        let mut known = self.known(&commit.address)?;
        let follows = commit.follows(owner, known.sequence);
        if follows.is_ok() {
            let start = self.batch.len();
            for PageWrite { name, value } in commit.pages.drain(..) {
                self.batch.push((keyspace::page(&commit.address.kind, &commit.address.key, &name), value));
            }
            match &commit.core {
                Some(core) => {
                    let Commit { address, sequence, wake_at, terms, .. } = &*commit;
                    self.write_core(start, address, &mut known, *sequence, *wake_at, terms, core)?;
                }
                None => self.write_pages(start, &commit.address)?,
            }
            self.shared.commits.fetch_add(1, Ordering::Relaxed);
        }
        self.hot.put(commit.address.clone(), known);
        follows.map_err(Refusal::Not)
    }

    /// Writes a core record with what its indexes need: alone, or with the round's batch if it belongs to the writes
    /// from `start` on or to earlier ones of its twin.
    #[expect(clippy::too_many_arguments, reason = "the parts of a commit and of an item")]
    fn write_core(
        &mut self,
        start: usize,
        address: &Arc<Address>,
        known: &mut Known,
        sequence: u64,
        wake_at: Option<Timestamp>,
        terms: &SharedTerms,
        core: &[u8],
    ) -> Result<(), String> {
        if known.wake_at != wake_at {
            self.batch.extend(known.wake_at.map(|at| (keyspace::wake(at, address), None)));
            let entry = wake_at.map(|at| (keyspace::wake(at, address), Some(sequence.to_le_bytes().to_vec())));
            self.batch.extend(entry);
            known.wake_at = wake_at;
        }
        if known.terms != *terms {
            let key = |term: &CompactString| keyspace::term(&address.kind, term, &address.key);
            let gone = known.terms.iter().filter(|term| !terms.contains(term));
            self.batch.extend(gone.map(|term| (key(term), None)));
            let new = terms.iter().filter(|term| !known.terms.contains(term));
            self.batch.extend(new.map(|term| (key(term), Some(Vec::new()))));
            known.terms = terms.clone();
        }
        known.sequence = sequence;
        keyspace::CoreValue::encode(&mut self.value, sequence, wake_at, terms, core);
        let key = keyspace::core(&address.kind, &address.key);
        if self.batch.len() == start && !self.batched.contains(address) {
            return self.disk.insert(&key, &self.value);
        }
        self.batch.push((key, Some(self.value.clone())));
        self.batched.insert(address.clone());
        Ok(())
    }

    /// Writes the pages of a commit without a core, which are those from `start` on.
    fn write_pages(&mut self, start: usize, address: &Arc<Address>) -> Result<(), String> {
        if let [(key, Some(value))] = &self.batch[start..]
            && !self.batched.contains(address)
        {
            self.disk.insert(key, value)?;
            self.batch.truncate(start);
        } else if self.batch.len() > start {
            self.batched.insert(address.clone());
        }
        Ok(())
    }

    fn write_claim(&mut self, slot: Slot, expected: Option<Epoch>) -> Result<Epoch, Refusal> {
        let owner = self.epoch(slot)?;
        if let Some(ours) = expected.filter(|ours| *ours != owner) {
            return Err(Refusal::Not(Error::Fenced { ours, owner }));
        }
        let next = Epoch(owner.0 + 1);
        self.write_epoch(slot, next)?;
        Ok(next)
    }

    fn write_epoch(&mut self, slot: Slot, epoch: Epoch) -> Result<(), Refusal> {
        self.disk.insert(&keyspace::epoch(slot), &epoch.0.to_le_bytes())?;
        self.epochs.insert(slot, epoch);
        Ok(())
    }

    fn write_item(&mut self, item: &mut Item) -> Result<(), Refusal> {
        match item {
            Item::Claimed { slot, epoch } => {
                let epoch = self.epoch(Slot(*slot))?.max(Epoch(*epoch));
                self.write_epoch(Slot(*slot), epoch)
            }
            Item::Core { kind, key, sequence, core, wake_at, terms } => {
                let address = Arc::new(Address { kind: kind.clone(), key: key.clone() });
                let mut known = self.known(&address)?;
                let terms = terms.as_slice().into();
                self.write_core(self.batch.len(), &address, &mut known, *sequence, *wake_at, &terms, core)?;
                self.hot.put(address, known);
                Ok(())
            }
            Item::Page { kind, key, name, value } => {
                self.disk.insert(&keyspace::page(kind, key, name), value)?;
                Ok(())
            }
            Item::Blob { .. } => unreachable!("a blob is a long job"),
        }
    }

    fn epoch(&mut self, slot: Slot) -> Result<Epoch, Refusal> {
        if let Some(epoch) = self.epochs.get(&slot) {
            return Ok(*epoch);
        }
        let bytes = self.disk.get(&keyspace::epoch(slot))?;
        let epoch = keyspace::epoch_value(bytes.as_deref())
            .ok_or_else(|| Refusal::Not(Error::Unavailable(format!("the epoch of {slot:?} does not read").into())))?;
        self.epochs.insert(slot, epoch);
        Ok(epoch)
    }

    /// What is stored of a twin: from memory if it was written lately.
    fn known(&mut self, address: &Address) -> Result<Known, Refusal> {
        if let Some(known) = self.hot.take(address) {
            return Ok(known);
        }
        let Some(bytes) = self.disk.get(&keyspace::core(&address.kind, &address.key))? else {
            return Ok(Known::default());
        };
        let value = keyspace::CoreValue::decode(&bytes).ok_or_else(|| {
            let what = format!("the record of {}:{} does not read", address.kind, address.key);
            Refusal::Not(Error::Unavailable(what.into()))
        })?;
        Ok(Known { sequence: value.sequence, wake_at: value.wake_at, terms: value.terms().as_slice().into() })
    }
}
