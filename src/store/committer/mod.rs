//! One thread that writes, syncs and answers for an embedded ordered database.
//!
//! ```text
//! submitters ─▶ bounded channel ─▶ a round: take what waits ─▶ check and write each ─▶ sync once ─▶ riders ─▶ ended
//! ```
//!
//! It is the only writer and the only one who syncs, so checks need no lock and nothing is answered before the sync
//! that covers it. A round takes what waits and does not linger. Long jobs (a blob, a sweep) advance one step a round.
//! After the first failure of the disk nothing is written any more: what that round had written is of unknown
//! outcome, everything later is refused.

mod answer;
mod hot;
mod long;
mod round;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use crossbeam_channel::{Receiver, TryRecvError};
use parking_lot::Mutex;

use self::{hot::Hot, long::Long, round::Entry};
use super::{Address, Commit, Done, Epoch, Error, Item, Slot, keyspace::Bytes};

/// Most commits in one round.
const ROUND_COMMITS_MAX: usize = 256;
/// Most bytes in one round, give or take its last commit.
const ROUND_BYTES_MAX: usize = 1024 * 1024;

/// A key's new value; `None` removes it.
pub(super) type Write = (Bytes, Option<Vec<u8>>);

/// The database under the committer. Errors are words for people; after the first one nothing more is written.
pub(super) trait Disk: Send + Sync + 'static {
    /// Reads a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String>;
    /// The first key that is not less than `from`.
    fn seek(&self, from: &[u8]) -> Result<Option<Bytes>, String>;
    /// Writes one key.
    fn insert(&self, key: &[u8], value: &[u8]) -> Result<(), String>;
    /// Writes all or nothing, the last write of a key winning, and empties `writes`.
    fn batch(&self, writes: &mut Vec<Write>) -> Result<(), String>;
    /// Makes everything written so far survive what the store's level says.
    fn sync(&self) -> Result<(), String>;
    /// Makes everything written so far as safe as it can be, whatever the level.
    fn finish(&self) -> Result<(), String>;
    /// The same as the last thing that is done.
    fn close(&self) -> Result<(), String> {
        self.finish()
    }
}

/// What the committer is asked to do.
pub(super) enum Job {
    Commit(Commit),
    Claim {
        slot: Slot,
        expected: Option<Epoch>,
        done: Done<Epoch>,
    },
    Item {
        item: Item,
        done: Done<()>,
    },
    /// Ends with the sync of its round.
    Barrier {
        done: Done<()>,
    },
    Blob {
        id: [u8; 16],
        value: Vec<u8>,
        done: Done<[u8; 16]>,
    },
    Sweep {
        keep: HashSet<[u8; 16]>,
        done: Done<u64>,
    },
}

/// What the committer shares with the store in front of it.
#[derive(Default)]
pub(super) struct Shared {
    /// Why nothing is written any more.
    pub(super) failed: OnceLock<Arc<str>>,
    pub(super) commits: AtomicU64,
    pub(super) flushes: AtomicU64,
    pub(super) flush_longest_us: AtomicU64,
    /// Blobs whose put has not been answered; a sweep leaves them alone.
    pub(super) unanswered: Mutex<HashSet<[u8; 16]>>,
    closing: Mutex<Closing>,
}

#[derive(Default)]
struct Closing {
    waiting: Vec<Done<()>>,
    over: Option<Result<(), Error>>,
}

impl Shared {
    /// Refuses if nothing is written any more.
    pub(super) fn healthy(&self) -> Result<(), Error> {
        self.failed.get().map_or(Ok(()), |cause| Err(Error::Unavailable(cause.clone())))
    }

    /// Has `done` called when the committer has ended, at once if it has.
    pub(super) fn when_over(&self, done: Done<()>) {
        let mut closing = self.closing.lock();
        match &closing.over {
            None => closing.waiting.push(done),
            Some(result) => {
                let result = result.clone();
                drop(closing);
                done(result);
            }
        }
    }

    fn fail(&self, cause: &str) -> Arc<str> {
        let cause =
            self.failed.get_or_init(|| format!("{cause}; make room or mend the disk, then restart the node").into());
        tracing::error!(%cause, "the store writes nothing any more");
        cause.clone()
    }
}

/// The committer; [`Committer::run`] is its thread.
pub(super) struct Committer<D> {
    disk: Arc<D>,
    jobs: Receiver<Job>,
    shared: Arc<Shared>,
    hot: Hot,
    epochs: HashMap<Slot, Epoch>,
    long: VecDeque<Long>,
    /// The core value being written.
    value: Vec<u8>,
    /// What this round's commits of several keys write, together, behind its commits of one key.
    batch: Vec<Write>,
    /// Whose writes are in the batch; later ones of the same twins must not overtake them.
    batched: HashSet<Arc<Address>, ahash::RandomState>,
}

impl<D: Disk> Committer<D> {
    pub(super) fn new(disk: Arc<D>, jobs: Receiver<Job>, shared: Arc<Shared>) -> Self {
        Self {
            disk,
            jobs,
            shared,
            hot: Hot::default(),
            epochs: HashMap::new(),
            long: VecDeque::new(),
            value: Vec::new(),
            batch: Vec::new(),
            batched: HashSet::default(),
        }
    }

    /// Works until every sender is gone and everything taken is answered.
    pub(super) fn run(mut self) {
        let mut round = Vec::with_capacity(ROUND_COMMITS_MAX);
        loop {
            let first = if self.long.is_empty() {
                self.jobs.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                self.jobs.try_recv()
            };
            match first {
                Ok(job) => self.take(job, &mut round),
                Err(TryRecvError::Disconnected) if self.long.is_empty() => break,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
            }
            self.round(&mut round);
        }
        let result =
            self.shared.healthy().and_then(|()| self.disk.close().map_err(|cause| Error::Unknown(cause.into())));
        let Self { disk, shared, .. } = self;
        // Whoever hears of the end may open the directory again.
        drop(disk);
        let mut closing = shared.closing.lock();
        closing.over = Some(result.clone());
        let waiting = std::mem::take(&mut closing.waiting);
        drop(closing);
        for done in waiting {
            done(result.clone());
        }
    }

    /// Fills a round with what waits.
    fn take(&mut self, first: Job, round: &mut Vec<Entry>) {
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Commit(commit) => {
                    bytes += commit.bytes();
                    round.push(Entry::Commit(commit));
                }
                Job::Claim { slot, expected, done } => round.push(Entry::Claim { slot, expected, done }),
                Job::Item { item: Item::Blob { id, value }, done } => {
                    self.long.push_back(Long::blob(id, value, Box::new(|result| done(result.map(|_| ())))));
                }
                Job::Barrier { done } => round.push(Entry::Barrier { done }),
                Job::Item { item, done } => {
                    bytes += long::bytes_of(&item);
                    round.push(Entry::Item { item, done });
                }
                Job::Blob { id, value, done } => self.long.push_back(Long::blob(id, value, done)),
                Job::Sweep { keep, done } => {
                    let young = self.shared.unanswered.lock().clone();
                    self.long.push_back(Long::sweep(keep, young, done));
                }
            }
            let full = round.len() >= ROUND_COMMITS_MAX || bytes >= ROUND_BYTES_MAX;
            next = if full { None } else { self.jobs.try_recv().ok() };
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a duration is measured, no time is read")]
    fn sync(&self) -> Result<(), String> {
        self.shared.flushes.fetch_add(1, Ordering::Relaxed);
        let began = std::time::Instant::now();
        let synced = self.disk.sync();
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.shared.flush_longest_us.fetch_max(took, Ordering::Relaxed);
        synced
    }
}
