//! A shard's bounded inbox and the wake-up of whoever drains it.
//!
//! Three lanes in one lock, bounded by count and bytes. `pending` counts what was pushed and has not had its turn; the
//! inline door is open only while it is zero, so one caller's messages cannot overtake each other. Notes (a commit
//! ended, a load came back) are the runtime's own, bypass every bound and are never refused.
//!
//! What the drain took and has not used up still counts: a lane is taken only when nothing is left of what it gave before,
//! so at most twice the bounds is held, however slow the turns are.
//!
//! No wake-up is lost: the drain registers its waker, then takes; `scheduled` turns false only when a take leaves nothing
//! behind, under the same lock in which a push reads it.

use std::{collections::VecDeque, task::Waker};

use super::sync::{AtomicUsize, AtomicWaker, DOOR_TRIES, Mutex, MutexGuard, Ordering, pause};

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
    lanes: [VecDeque<T>; LANES],
    notes: VecDeque<N>,
    bytes: [usize; LANES],
    scheduled: bool,
    closed: bool,
}

/// What a drain took, in order within each lane.
pub(crate) struct Taken<T, N> {
    /// The lanes, most urgent first.
    pub(crate) lanes: [VecDeque<T>; LANES],
    /// The runtime's own.
    pub(crate) notes: VecDeque<N>,
}

impl<T, N> Default for Taken<T, N> {
    fn default() -> Self {
        Self { lanes: [VecDeque::new(), VecDeque::new(), VecDeque::new()], notes: VecDeque::new() }
    }
}

impl<T, N> Inbox<T, N> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let lanes = [VecDeque::new(), VecDeque::new(), VecDeque::new()];
        let queue = Queue { lanes, notes: VecDeque::new(), bytes: [0; LANES], scheduled: false, closed: false };
        Self { pending: AtomicUsize::new(0), queue: Mutex::new(queue), waker: AtomicWaker::new(), bounds }
    }

    /// Messages pushed that have not had their turn.
    pub(crate) fn pending(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    /// The inline door: the shard's lock, if nothing waits and whoever holds it lets go at once. Waiting a little for
    /// a turn in progress costs a tenth of what a hand-over does.
    pub(crate) fn enter<'a, C>(&self, core: &'a Mutex<C>) -> Option<MutexGuard<'a, C>> {
        for _ in 0..DOOR_TRIES {
            if self.pending() != 0 {
                return None;
            }
            if let Some(guard) = core.try_lock() {
                return Some(guard);
            }
            pause();
        }
        None
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
            || queue.bytes.iter().sum::<usize>().saturating_add(bytes) > self.bounds.bytes_max / share;
        if full {
            drop(queue);
            self.pending.fetch_sub(1, Ordering::AcqRel);
            return Err(item);
        }
        queue.lanes[lane].push_back(item);
        queue.bytes[lane] += bytes;
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

    /// Takes every note, and the lanes of which nothing is left in `into`; says whether there was anything.
    pub(crate) fn take(&self, into: &mut Taken<T, N>) -> bool {
        let mut queue = self.queue.lock();
        let queue = &mut *queue;
        let mut any = !queue.notes.is_empty();
        into.notes.append(&mut queue.notes);
        for ((lane, bytes), into) in queue.lanes.iter_mut().zip(&mut queue.bytes).zip(&mut into.lanes) {
            if into.is_empty() && !lane.is_empty() {
                std::mem::swap(lane, into);
                *bytes = 0;
                any = true;
            }
        }
        if !any {
            // What is left in a lane is behind something that its drain still has to do, and will look again after that.
            queue.scheduled = queue.lanes.iter().any(|lane| !lane.is_empty());
        }
        any
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
        assert_eq!((&taken.lanes[1], &taken.notes, inbox.pending()), (&VecDeque::from([7]), &VecDeque::from([1]), 1));
        inbox.finished(1);
        assert_eq!(inbox.pending(), 0);
    }

    #[test]
    fn what_was_taken_and_not_used_up_keeps_its_lane_waiting_and_the_others_go_on() {
        let inbox: Inbox<u8, u8> = Inbox::new(BOUNDS);
        let mut taken = Taken::default();
        inbox.push(2, 1, 0).unwrap();
        assert!(inbox.take(&mut taken));
        inbox.push(2, 1, 1).unwrap();
        inbox.push(2, 1, 2).unwrap();
        inbox.push(0, 98, 3).unwrap();
        assert!(inbox.take(&mut taken), "a more urgent lane is not held up");
        assert_eq!((&taken.lanes[0], &taken.lanes[2]), (&VecDeque::from([3]), &VecDeque::from([0])));
        assert!(!inbox.take(&mut taken));
        assert_eq!(inbox.push(2, 1, 9), Err(9), "the bound holds while the drain is behind");
        inbox.push(0, 98, 4).unwrap();
        taken.lanes.iter_mut().for_each(VecDeque::clear);
        assert!(inbox.take(&mut taken));
        assert_eq!((&taken.lanes[0], &taken.lanes[2]), (&VecDeque::from([4]), &VecDeque::from([1, 2])));
        inbox.push(2, 1, 5).unwrap();
    }
}
