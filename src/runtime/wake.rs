//! The wake heap: who wants to be activated when.
//!
//! The store indexes the wake time of every record in time order; this heap holds the part that is near. An entry may
//! be early or stale, never late: the twin itself decides, when woken, whether anything is due.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use compact_str::CompactString;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::model::{Key, Timestamp};

/// Who is to be woken.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub(super) kind: CompactString,
    pub(super) key: Key,
    /// Of the record that the stored entry was written with; 0 for an entry that is not from the stored index.
    pub(super) sequence: u64,
    /// Whether it is another look after a while, not a time that a twin named.
    again: bool,
}

/// Wake-ups under way at once, each from its note to the end of its load; loads of messages count, too.
pub(super) const UNDER_WAY_MAX: usize = 1024;

/// Wake-ups by time.
#[derive(Default)]
pub(super) struct Wakes {
    heap: Mutex<Heap>,
    changed: Notify,
    under_way: AtomicUsize,
    from_start: AtomicBool,
}

#[derive(Default)]
struct Heap {
    entries: BinaryHeap<Reverse<(Timestamp, Due)>>,
    /// The stored index was read up to here; entries beyond are read later and need not be kept.
    horizon: Timestamp,
}

impl Wakes {
    /// Adds a wake-up, unless the stored index will be read for it anyway; says whether it was added.
    pub(super) fn arm(&self, at: Timestamp, kind: &str, key: &Key) -> bool {
        let wanted = at <= self.heap.lock().horizon;
        if wanted {
            self.found(at, kind, key, 0);
        }
        wanted
    }

    /// Adds a wake-up that is in no index: another look at something that did not succeed.
    pub(super) fn again(&self, at: Timestamp, kind: &str, key: &Key) {
        self.add(at, Due { kind: kind.into(), key: key.clone(), sequence: 0, again: true });
    }

    /// Adds an entry of the stored index.
    pub(super) fn found(&self, at: Timestamp, kind: &str, key: &Key, sequence: u64) {
        self.add(at, Due { kind: kind.into(), key: key.clone(), sequence, again: false });
    }

    /// The clock went back: what was to be looked at again after a while still is, after that while.
    pub(super) fn rewind(&self, by: Duration) {
        let mut heap = self.heap.lock();
        let entries = std::mem::take(&mut heap.entries).into_iter();
        heap.entries =
            entries.map(|Reverse((at, due))| Reverse((if due.again { at.before(by) } else { at }, due))).collect();
    }

    fn add(&self, at: Timestamp, due: Due) {
        let mut heap = self.heap.lock();
        let first = heap.entries.peek().is_none_or(|Reverse((first, _))| at < *first);
        heap.entries.push(Reverse((at, due)));
        drop(heap);
        if first {
            self.changed.notify_one();
        }
    }

    /// Everything due, at most `limit`.
    pub(super) fn due(&self, now: Timestamp, limit: usize) -> Vec<Due> {
        let mut heap = self.heap.lock();
        let mut due = Vec::new();
        while due.len() < limit && heap.entries.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            due.extend(heap.entries.pop().map(|Reverse((_, due))| due));
        }
        due
    }

    /// A wake-up was sent, or a load began.
    pub(super) fn began(&self) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
    }

    /// It was taken, or the load came back.
    pub(super) fn ended(&self) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many more wake-ups may be sent.
    pub(super) fn room(&self) -> usize {
        UNDER_WAY_MAX.saturating_sub(self.under_way.load(Ordering::Relaxed))
    }

    /// When the next entry is due.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.heap.lock().entries.peek().map(|Reverse((at, _))| *at)
    }

    /// Says up to when the stored index has been (or is now being) read into the heap.
    pub(super) fn set_horizon(&self, horizon: Timestamp) {
        self.heap.lock().horizon = horizon;
    }

    /// The stored index has more than it had: it is to be read from its start.
    pub(super) fn read_again(&self) {
        self.from_start.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Whether the stored index is to be read from its start; what was read of it before is forgotten then.
    pub(super) fn begins_again(&self) -> bool {
        let again = self.from_start.swap(false, Ordering::AcqRel);
        if again {
            let mut heap = self.heap.lock();
            heap.entries.retain(|Reverse((_, due))| due.sequence == 0);
            heap.horizon = Timestamp::ZERO;
        }
        again
    }

    /// How far the stored index has been read.
    pub(super) fn horizon(&self) -> Timestamp {
        self.heap.lock().horizon
    }

    /// Waits until an earlier entry than all before was added.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Entries in memory.
    pub(super) fn len(&self) -> usize {
        self.heap.lock().entries.len()
    }
}
