//! A shard's bounded inbox and the wake-up of whoever drains it.
//!
//! Three lanes in one lock, bounded by count and bytes. `pending` counts what was pushed and has not had its turn; the
//! inline door is open only while it is zero, so one caller's messages cannot overtake each other. Notes (a commit
//! ended, a load came back) are the runtime's own, bypass every bound and are never refused.
//!
//! No wake-up is lost: the drain registers its waker, then takes; `scheduled` turns false only inside an empty take,
//! under the same lock in which a push reads it.

use std::task::Waker;

use super::sync::{AtomicUsize, AtomicWaker, Mutex, MutexGuard, Ordering};

/// How much may wait in one shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Messages in one lane.
    pub(crate) items_max: usize,
    /// Bytes in all lanes.
    pub(crate) bytes_max: usize,
}

/// How many lanes; 0 is the most urgent, the last is shed first.
pub(crate) const LANES: usize = 3;

/// Waiting messages `T` and notes `N`.
pub(crate) struct Inbox<T, N> {
    pending: AtomicUsize,
    queue: Mutex<Queue<T, N>>,
    waker: AtomicWaker,
    bounds: Bounds,
}

struct Queue<T, N> {
    lanes: [Vec<T>; LANES],
    notes: Vec<N>,
    bytes: usize,
    scheduled: bool,
    closed: bool,
}

/// What a drain took, in order within each lane.
pub(crate) struct Taken<T, N> {
    /// The lanes, most urgent first.
    pub(crate) lanes: [Vec<T>; LANES],
    /// The runtime's own.
    pub(crate) notes: Vec<N>,
}

impl<T, N> Default for Taken<T, N> {
    fn default() -> Self {
        Self { lanes: [Vec::new(), Vec::new(), Vec::new()], notes: Vec::new() }
    }
}

impl<T, N> Inbox<T, N> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let lanes = [Vec::new(), Vec::new(), Vec::new()];
        let queue = Queue { lanes, notes: Vec::new(), bytes: 0, scheduled: false, closed: false };
        Self { pending: AtomicUsize::new(0), queue: Mutex::new(queue), waker: AtomicWaker::new(), bounds }
    }

    /// Messages pushed that have not had their turn.
    pub(crate) fn pending(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    /// The inline door: the shard's lock, if nothing waits and nobody holds it.
    pub(crate) fn enter<'a, C>(&self, core: &'a Mutex<C>) -> Option<MutexGuard<'a, C>> {
        if self.pending() == 0 { core.try_lock() } else { None }
    }

    /// Queues a message; hands it back if its lane or the byte bound is full, or after [`Self::close`]. The last lane
    /// may fill half of each.
    pub(crate) fn push(&self, lane: usize, bytes: usize, item: T) -> Result<(), T> {
        let share = if lane + 1 == LANES { 2 } else { 1 };
        // Before the push, so that the door is closed by the time the caller goes on.
        self.pending.fetch_add(1, Ordering::AcqRel);
        let mut queue = self.queue.lock();
        let full = queue.closed
            || queue.lanes[lane].len() >= self.bounds.items_max / share
            || queue.bytes.saturating_add(bytes) > self.bounds.bytes_max / share;
        if full {
            drop(queue);
            self.pending.fetch_sub(1, Ordering::AcqRel);
            return Err(item);
        }
        queue.lanes[lane].push(item);
        queue.bytes += bytes;
        let wake = !std::mem::replace(&mut queue.scheduled, true);
        drop(queue);
        if wake {
            self.waker.wake();
        }
        Ok(())
    }

    /// Adds notes; never refused.
    pub(crate) fn note(&self, notes: impl IntoIterator<Item = N>) {
        let mut queue = self.queue.lock();
        queue.notes.extend(notes);
        let wake = !std::mem::replace(&mut queue.scheduled, true);
        drop(queue);
        if wake {
            self.waker.wake();
        }
    }

    /// Registers who is woken by the next push. Call before [`Self::take`], every time.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Takes everything into `into`, which must be empty; says whether there was anything.
    pub(crate) fn take(&self, into: &mut Taken<T, N>) -> bool {
        let mut queue = self.queue.lock();
        let any = !queue.notes.is_empty() || queue.lanes.iter().any(|lane| !lane.is_empty());
        if !any {
            queue.scheduled = false;
            return false;
        }
        std::mem::swap(&mut queue.lanes, &mut into.lanes);
        std::mem::swap(&mut queue.notes, &mut into.notes);
        queue.bytes = 0;
        true
    }

    /// Takes no more messages; hands back those nobody took.
    pub(crate) fn close(&self) -> Vec<T> {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.lanes.iter_mut().flat_map(|lane| lane.drain(..)).collect()
    }

    /// Counts `turns` taken messages as had.
    pub(crate) fn finished(&self, turns: usize) {
        if turns > 0 {
            self.pending.fetch_sub(turns, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { items_max: 4, bytes_max: 100 };

    #[test]
    fn a_full_lane_hands_the_message_back_and_leaves_the_door_as_it_was() {
        let inbox: Inbox<u8, ()> = Inbox::new(BOUNDS);
        for n in 0..4 {
            inbox.push(0, 1, n).unwrap();
        }
        assert_eq!((inbox.push(0, 1, 9), inbox.pending()), (Err(9), 4));
        assert_eq!(inbox.push(1, 97, 9), Err(9), "bytes are bounded over all lanes");
    }

    #[test]
    fn the_last_lane_fills_half() {
        let inbox: Inbox<u8, ()> = Inbox::new(BOUNDS);
        inbox.push(2, 1, 0).unwrap();
        inbox.push(2, 1, 1).unwrap();
        assert_eq!(inbox.push(2, 1, 2), Err(2));
        inbox.push(0, 1, 2).unwrap();
    }

    #[test]
    fn a_closed_inbox_hands_back_what_it_has_and_what_comes() {
        let inbox: Inbox<u8, ()> = Inbox::new(BOUNDS);
        inbox.push(1, 1, 7).unwrap();
        assert_eq!((inbox.close(), inbox.push(0, 1, 8)), (vec![7], Err(8)));
    }

    #[test]
    fn pending_falls_only_when_turns_are_had() {
        let inbox: Inbox<u8, u8> = Inbox::new(BOUNDS);
        inbox.push(1, 1, 7).unwrap();
        inbox.note([1]);
        let mut taken = Taken::default();
        assert!(inbox.take(&mut taken));
        assert_eq!((&taken.lanes[1], &taken.notes, inbox.pending()), (&vec![7], &vec![1], 1));
        inbox.finished(1);
        assert_eq!(inbox.pending(), 0);
    }
}
