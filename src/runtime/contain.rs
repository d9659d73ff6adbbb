//! A kind's code may panic wherever it is called: that ends the one activation it worked on and nothing else.
//!
//! Every entrance to a shard goes through here: each note and each message of a drain, each turn of the inline door, each
//! twin that a tick looks at. What a panic left half done is never gone on with: the activation is dropped, or waits for
//! the commit that is under way and loads again.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{
    activation::{BACKOFF_MAX, Phase},
    shard::{Core, Shard},
};
use crate::{
    model::{Key, Outcome, Rider, Sealed, Timestamp},
    twin::{Delivery, Failure, Persistence, Twin},
};

impl<K: Twin> Core<K> {
    /// Works on the activation at this index.
    pub(super) fn contained<R>(
        &mut self,
        shard: &Shard<K>,
        at: u32,
        work: impl FnOnce(&mut Self) -> R,
    ) -> Result<R, Failure> {
        catch_unwind(AssertUnwindSafe(|| work(self))).map_err(|panic| self.panicked(shard, at, &*panic))
    }

    /// Works on a twin that may have no activation yet.
    pub(super) fn contained_by<R>(
        &mut self,
        shard: &Shard<K>,
        hash: u64,
        key: &str,
        work: impl FnOnce(&mut Self) -> R,
    ) -> Result<R, Failure> {
        catch_unwind(AssertUnwindSafe(|| work(self))).map_err(|panic| {
            if let Some(at) = self.table.find(hash, key) {
                return self.panicked(shard, at, &*panic);
            }
            self.counts.panics += 1;
            let message = text_of(&*panic);
            tracing::error!(kind = K::KIND, key, %message, "a twin panicked before it had an activation");
            Failure::Panicked { message }
        })
    }

    /// Wakes a twin, or tries again later what cannot even be created.
    pub(super) fn wake_contained(&mut self, shard: &Shard<K>, hash: u64, key: &Key, sequence: u64, now: Timestamp) {
        if !shard.shared.is_here(hash) {
            return;
        }
        let woken = self.contained_by(shard, hash, key, |core| {
            if sequence > 0 {
                core.woken_by(shard, hash, key, sequence);
            }
            // A twin that is not in memory is woken by its load.
            if let Ok(at) = core.admit(shard, hash, key, now) {
                core.wake(shard, at, now);
            }
        });
        if woken.is_err() && K::Persistence::DURABLE && self.table.find(hash, key).is_none() {
            shard.shared.wakes.again(now.after(BACKOFF_MAX), K::KIND, key);
        }
    }

    /// One turn of a message; if it panics anywhere, its caller hears of it whatever it waits for.
    pub(super) fn run_contained(&mut self, shard: &Shard<K>, at: u32, call: Arc<dyn Delivery<K>>, now: Timestamp) {
        let kept = Arc::clone(&call);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.run(shard, at, call, now))) {
            if let Some(busy) = self.table.get_mut(at).and_then(|twin| twin.busy.as_mut()) {
                let own = address(&kept);
                busy.staged.retain(|(_, rider)| address(rider) != own);
                busy.waiting.retain(|waiting| address(waiting) != own);
            }
            if let (Some(number), Some(twin)) = (kept.header().settles(), self.table.get(at)) {
                let key = twin.key.clone();
                self.could_not_take(&key, number);
            }
            let failure = self.panicked(shard, at, &*panic);
            self.out.failed.push((kept, failure));
        }
    }

    /// Drops an activation that panicked; what was staged is lost, what is under way is waited for.
    fn panicked(&mut self, shard: &Shard<K>, at: u32, panic: &(dyn Any + Send)) -> Failure {
        self.counts.panics += 1;
        let message = text_of(panic);
        let failure = Failure::Panicked { message: Arc::clone(&message) };
        let Some(twin) = self.table.get_mut(at) else { return failure };
        tracing::error!(kind = K::KIND, key = %twin.key, %message, "a twin panicked; its activation ends");
        let key = twin.key.clone();
        if let Some(busy) = &mut twin.busy {
            if matches!(busy.phase, Phase::Loading { .. } | Phase::Backoff { .. }) {
                // Its state only holds the place; what it waits for decides.
                return failure;
            }
            let cause = "a later turn of this twin panicked".into();
            busy.lose_staged(&Sealed::Lost { outcome: Outcome::NotApplied, cause });
            busy.phase = Phase::Ending;
            if busy.flight.is_some() {
                if let Ok(state) = asked(|| K::create(&key)) {
                    twin.state = state;
                }
                return failure;
            }
        }
        let Some(mut gone) = self.table.remove(at) else { return failure };
        if let Some(busy) = &mut gone.busy {
            busy.refuse_waiting(&failure);
        }
        if let Some(ledger) = &gone.ledger {
            self.saw(shard, &key, ledger.sequence);
            // Its reminders and promises are in the record still, and nobody else remembers them.
            let soon = shard.shared.clock.now().after(shard.shared.config.backoff_min);
            shard.shared.wakes.again(soon, K::KIND, &key);
        }
        failure
    }
}

/// Tells somebody outside how something ended: wakers and the conversion of an answer are foreign code too.
pub(super) fn tell(what: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(what)) {
        tracing::error!(message = %text_of(&*panic), "whoever waited for a twin panicked on hearing of it");
    }
}

/// Asks a twin something whose answer may be missing.
pub(super) fn asked<R>(what: impl FnOnce() -> R) -> Result<R, Arc<str>> {
    catch_unwind(AssertUnwindSafe(what)).map_err(|panic| text_of(&*panic))
}

/// What a panic said.
fn text_of(panic: &(dyn Any + Send)) -> Arc<str> {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").into()
}

/// Which object it is, whatever it is seen as.
fn address<T: Rider + ?Sized>(rider: &Arc<T>) -> usize {
    Arc::as_ptr(rider).addr()
}
