//! The actix actor that drains a shard's inbox, in bounded batches, and yields in between.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use actix::{Actor, Addr, ArbiterHandle, AsyncContext, Context, WrapFuture};

use super::{
    inbox::{LANES, Taken},
    shard::{Item, Note, Out, Shard},
};
use crate::twin::{Failure, Twin};

/// Turns within one hold of the lock.
const BATCH_TURNS_MAX: usize = 64;
/// Notes within one hold of the lock.
const BATCH_NOTES_MAX: usize = 256;
/// Holds before the drain lets its neighbours run.
const BATCHES_MAX: usize = 8;
/// One turn in so many goes to the least urgent lane although others wait.
const LAST_LANE_SHARE: usize = 8;
/// How soon a commit is tried again that found the store's queue full.
const UNSTICK_AFTER: Duration = Duration::from_millis(1);

/// Drains one shard.
pub(super) struct Drain<K: Twin> {
    shard: Arc<Shard<K>>,
}

impl<K: Twin> Drain<K> {
    /// Starts draining a shard on an arbiter; the address keeps the actor alive.
    pub(super) fn start_in(arbiter: &ArbiterHandle, shard: Arc<Shard<K>>) -> Addr<Self> {
        Self::start_in_arbiter(arbiter, |_| Self { shard })
    }
}

impl<K: Twin> Actor for Drain<K> {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let work = Work { shard: Arc::clone(&self.shard), taken: Taken::default(), out: Out::default(), retry: None };
        context.spawn(work.into_actor(self));
    }
}

/// The actor's one future.
struct Work<K: Twin> {
    shard: Arc<Shard<K>>,
    taken: Taken<Item<K>, Note>,
    out: Out<K>,
    retry: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<K: Twin> Future for Work<K> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Some(retry) = &mut this.retry
            && retry.as_mut().poll(context).is_ready()
        {
            this.retry = None;
            let now = this.shard.shared.clock.now();
            let mut core = this.shard.core.lock();
            core.unstick(&this.shard, now);
            std::mem::swap(&mut core.out, &mut this.out);
            drop(core);
            this.shard.perform(&mut this.out);
        }
        for _ in 0..BATCHES_MAX {
            // Registered before each look, so that a push in between wakes us.
            this.shard.inbox.register(context.waker());
            this.shard.inbox.take(&mut this.taken);
            if this.taken.notes.is_empty() && this.taken.lanes.iter().all(VecDeque::is_empty) {
                if this.shard.shared.is_closed() {
                    this.end();
                    return Poll::Ready(());
                }
                return this.pause(context);
            }
            this.batch();
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<K: Twin> Work<K> {
    /// One hold of the lock.
    fn batch(&mut self) {
        let shard = Arc::clone(&self.shard);
        let now = shard.shared.clock.now();
        let mut core = shard.core.lock();
        let mut turns = 0;
        shard.hold(&mut core, now, |core| {
            let notes = self.taken.notes.len().min(BATCH_NOTES_MAX);
            for note in self.taken.notes.drain(..notes) {
                core.note(&shard, note, now);
            }
            while turns < BATCH_TURNS_MAX {
                let Some(item) = next(&mut self.taken.lanes, turns) else { break };
                core.receive(&shard, item.hash, &item.key, item.call, now);
                turns += 1;
            }
            if core.is_stuck() {
                core.unstick(&shard, now);
            }
        });
        std::mem::swap(&mut core.out, &mut self.out);
        drop(core);
        // The door opens again only now, and replies leave after that.
        shard.inbox.finished(turns);
        shard.perform(&mut self.out);
    }

    /// The last hold of the lock: whoever still waits hears that nothing was done.
    fn end(&mut self) {
        let shard = Arc::clone(&self.shard);
        let mut core = shard.core.lock();
        let left = shard.inbox.close();
        shard.inbox.finished(left.len());
        core.out.failed.extend(left.into_iter().map(|item| (item.call, Failure::Stopping)));
        core.end(&shard);
        std::mem::swap(&mut core.out, &mut self.out);
        drop(core);
        // Nobody would take what is read.
        self.out.loads.clear();
        self.out.reads.clear();
        shard.perform(&mut self.out);
    }

    fn pause(&mut self, context: &mut TaskContext<'_>) -> Poll<()> {
        if self.retry.is_none() && self.shard.core.lock().is_stuck() {
            let mut retry = Box::pin(tokio::time::sleep(UNSTICK_AFTER));
            if retry.as_mut().poll(context).is_ready() {
                context.waker().wake_by_ref();
            } else {
                self.retry = Some(retry);
            }
        }
        Poll::Pending
    }
}

/// The next message: urgent lanes first, with a share for the last.
fn next<K: Twin>(lanes: &mut [VecDeque<Item<K>>; LANES], turn: usize) -> Option<Item<K>> {
    if turn % LAST_LANE_SHARE == LAST_LANE_SHARE - 1
        && let Some(item) = lanes[LANES - 1].pop_front()
    {
        return Some(item);
    }
    lanes.iter_mut().find_map(VecDeque::pop_front)
}
