//! One writer for each stream: what waits becomes one atomic batch, and one batch at a time is in flight.
//!
//! The servers refuse a second write in flight that checks the same ownership, so writing more at once gains nothing.
//! The first message of each slot carries the check of its epoch; the whole batch is stored or nothing of it.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    Inner,
    names::{Beside, EPOCH, GONE},
    table::Known,
    wire::{Failure, Outgoing},
};
use crate::store::{Address, Commit, Epoch, Error, Slot, told::Told};

/// Most messages in one batch.
const BATCH_MESSAGES_MAX: usize = 200;
/// Most bytes in one batch.
const BATCH_BYTES_MAX: usize = 512 * 1024;
/// Seconds after which a deleted page leaves no trace.
const GONE_S: &str = "3600";

const _: () = assert!(crate::model::limits::COMMIT_KEYS_MAX <= BATCH_MESSAGES_MAX, "a commit fits a batch");
const _: () = assert!(crate::model::limits::COMMIT_BYTES_MAX <= BATCH_BYTES_MAX, "a commit fits a batch");

pub(super) struct Writer {
    inner: Arc<Inner>,
    place: u16,
    jobs: mpsc::Receiver<Commit>,
    /// Taken, but not for the last batch.
    held: Option<Commit>,
}

impl Writer {
    pub(super) fn new(inner: Arc<Inner>, place: u16, jobs: mpsc::Receiver<Commit>) -> Self {
        Self { inner, place, jobs, held: None }
    }

    /// Works until every sender is gone and everything taken is answered.
    pub(super) async fn run(mut self) {
        loop {
            let first = match self.held.take() {
                Some(held) => held,
                None => match self.jobs.recv().await {
                    Some(first) => first,
                    None => return,
                },
            };
            let batch = self.gather(first);
            let taken = u64::try_from(batch.len()).unwrap_or(u64::MAX);
            let mut told = Told::default();
            let ready = self.admit(batch, &mut told).await;
            self.write(ready, &mut told).await;
            self.inner.waiting.fetch_sub(taken, Ordering::Relaxed);
            told.tell();
        }
    }

    /// Takes what waits and fits one batch; no twin is in it twice.
    fn gather(&mut self, first: Commit) -> Vec<Commit> {
        let mut twins: HashSet<Arc<Address>, ahash::RandomState> = HashSet::default();
        let (mut messages, mut bytes) = (0, 0);
        let mut batch = Vec::new();
        let mut next = Some(first);
        while let Some(commit) = next {
            messages += messages_of(&commit);
            bytes += commit.bytes();
            let fits = messages <= BATCH_MESSAGES_MAX && bytes <= BATCH_BYTES_MAX;
            if !batch.is_empty() && (!fits || twins.contains(&commit.address)) {
                self.held = Some(commit);
                break;
            }
            twins.insert(commit.address.clone());
            batch.push(commit);
            next = self.jobs.try_recv().ok();
        }
        batch
    }

    /// Answers what fails by itself; the rest may be written together.
    async fn admit(&self, batch: Vec<Commit>, told: &mut Told) -> Vec<Commit> {
        let mut ready = Vec::with_capacity(batch.len());
        for commit in batch {
            match self.check(&commit).await {
                Ok(()) => ready.push(commit),
                Err(error) => told.add(commit, Err(error)),
            }
        }
        ready
    }

    async fn check(&self, commit: &Commit) -> Result<(), Error> {
        commit.check()?;
        let (slot, epoch) = (commit.slot, commit.epoch);
        let allowed = self.inner.table.lock().allows(slot, epoch);
        if let Some(allowed) = allowed {
            allowed?;
        } else {
            let owner = Epoch(self.inner.read_own(slot).await?.map_or(0, |own| own.sequence));
            return Err(if owner == epoch {
                Error::Unavailable("this store has not claimed the slot, or has given it up".into())
            } else {
                Error::Fenced { ours: epoch, owner }
            });
        }
        let known = self.inner.table.lock().sequence(slot, &commit.address);
        let found = match known {
            Known::Sequence(found) => found,
            Known::Nothing => self.inner.read_sequence(slot, epoch, &commit.address).await?,
        };
        commit.follows(epoch, found)
    }

    async fn write(&self, mut ready: Vec<Commit>, told: &mut Told) {
        let mut delays = self.inner.wire.delays();
        while !ready.is_empty() {
            let failure = match self.timed(self.messages(&ready)).await {
                Ok(sequence) => return self.written(ready, sequence, told),
                Err(failure) => failure,
            };
            let error = match failure {
                Failure::Unknown(why) => {
                    // It may still land. Nothing of these slots is written until a claim has put an end to that.
                    let mut table = self.inner.table.lock();
                    for commit in &ready {
                        table.block(commit.slot, commit.epoch);
                    }
                    drop(table);
                    Some(Error::Unknown(why.into()))
                }
                failure @ Failure::Never(_) => Some(failure.into_error()),
                Failure::WrongSequence => match self.without_lost(&mut ready, told).await {
                    Ok(true) => continue,
                    Ok(false) => None,
                    Err(error) => Some(error),
                },
                Failure::InFlight | Failure::Later(_) => None,
            };
            let error = match (error, delays.next()) {
                (None, Some(delay)) => {
                    tokio::time::sleep(delay).await;
                    continue;
                }
                (None, None) => failure_of_patience(),
                (Some(error), _) => error,
            };
            for commit in ready.drain(..) {
                told.add(commit, Err(error.clone()));
            }
        }
    }

    /// Answers the commits of slots that are not ours any more; `false` if there are none.
    async fn without_lost(&self, ready: &mut Vec<Commit>, told: &mut Told) -> Result<bool, Error> {
        let slots: HashSet<(Slot, Epoch)> = ready.iter().map(|commit| (commit.slot, commit.epoch)).collect();
        let mut any = false;
        for (slot, ours) in slots {
            let owner = Epoch(self.inner.read_own(slot).await?.map_or(0, |own| own.sequence));
            if owner == ours {
                continue;
            }
            any = true;
            self.inner.table.lock().lost(slot, ours);
            let (lost, kept) = ready.drain(..).partition(|commit| (commit.slot, commit.epoch) == (slot, ours));
            *ready = kept;
            let lost: Vec<Commit> = lost;
            for commit in lost {
                told.add(commit, Err(Error::Fenced { ours, owner }));
            }
        }
        Ok(any)
    }

    fn written(&self, ready: Vec<Commit>, sequence: u64, told: &mut Told) {
        self.inner.acknowledged(self.place, sequence);
        let commits = u64::try_from(ready.len()).unwrap_or(0);
        self.inner.commits.fetch_add(commits, Ordering::Relaxed);
        self.inner.batch_sizes.add(commits);
        let mut table = self.inner.table.lock();
        for commit in ready.iter().filter(|commit| commit.core.is_some()) {
            table.put(commit.slot, commit.epoch, &commit.address, beside(commit), sequence);
        }
        drop(table);
        for commit in ready {
            told.add(commit, Ok(()));
        }
    }

    fn messages(&self, ready: &[Commit]) -> Vec<Outgoing> {
        let names = &self.inner.names;
        let mut checked = HashSet::new();
        let mut messages = Vec::new();
        for commit in ready {
            let (slot, address) = (commit.slot, &*commit.address);
            let first = messages.len();
            if let Some(core) = &commit.core {
                let mut message = Outgoing::new(names.core(slot, address), Bytes::copy_from_slice(core));
                message.headers = beside(commit).headers();
                messages.push(message);
            }
            for page in &commit.pages {
                let value = page.value.as_deref().map(Bytes::copy_from_slice);
                let mut message =
                    Outgoing::new(names.page(slot, address, &page.name), value.clone().unwrap_or_default());
                if value.is_none() {
                    message.headers.insert(GONE, "1");
                    message.headers.insert(async_nats::header::NATS_MESSAGE_TTL, GONE_S);
                }
                messages.push(message);
            }
            if messages.len() == first {
                messages.push(Outgoing::new(names.pulse(slot), Bytes::new()));
            }
            for message in &mut messages[first..] {
                message.headers.insert(EPOCH, commit.epoch.0.to_string());
            }
            if checked.insert(slot) {
                messages[first].expect(commit.epoch.0, &names.own(slot));
            }
        }
        messages
    }

    #[expect(clippy::disallowed_methods, reason = "a duration is measured, no time is read")]
    async fn timed(&self, messages: Vec<Outgoing>) -> Result<u64, Failure> {
        self.inner.batches.fetch_add(1, Ordering::Relaxed);
        let began = std::time::Instant::now();
        let stored = self.inner.wire.store_all(messages).await;
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.inner.batch_longest_us.fetch_max(took, Ordering::Relaxed);
        self.inner.batch_us.add(took);
        stored
    }
}

fn failure_of_patience() -> Error {
    Error::Unavailable("the servers took no batch for too long".into())
}

fn beside(commit: &Commit) -> Beside {
    Beside { sequence: commit.sequence, wake_at: commit.wake_at, terms: commit.terms.clone() }
}

/// What a commit is in a batch; a commit of nothing is a message that proves the ownership.
fn messages_of(commit: &Commit) -> usize {
    (commit.pages.len() + usize::from(commit.core.is_some())).max(1)
}
