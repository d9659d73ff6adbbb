//! All shards of one kind on this node.

use std::{
    any::TypeId,
    sync::{Arc, atomic::Ordering},
};

use super::{
    contain::asked,
    shard::{Core, Counts, Note, Shard},
    shared::Shared,
    turn::Inline,
};
use crate::{
    model::{Consistency, Header, Key},
    store::Slot,
    twin::{Call, Decide, Delivery, Failure, Handed, Message, Needs, Persistence, Rejection, Twin, Went},
};

/// The shards of one kind.
pub(super) struct Host<K: Twin> {
    pub(super) shards: Box<[Arc<Shard<K>>]>,
}

/// A message that was not taken, handed back.
#[derive(Debug, thiserror::Error)]
#[error("{failure}")]
pub struct Refused<M: std::fmt::Debug> {
    /// Why.
    #[source]
    pub failure: Failure,
    /// The message.
    pub message: Option<M>,
}

impl<K: Twin> Host<K> {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shards: (0..shared.shards_per_kind()).map(|_| Shard::new(Arc::clone(shared))).collect() }
    }

    /// Id hash → slot (4,096) → shard.
    pub(super) fn shard(&self, hash: u64) -> &Arc<Shard<K>> {
        self.shard_of(Slot::of(hash))
    }

    fn shard_of(&self, slot: Slot) -> &Arc<Shard<K>> {
        &self.shards[(usize::from(slot.0) * self.shards.len()) >> 12]
    }

    /// Asks: on this thread if the twin's shard is free, otherwise through its inbox.
    pub(super) fn ask<M>(&self, key: &str, message: M, header: Header, wire: fn(Call<M>) -> Call<M>) -> Inline<M>
    where
        M: Message<Twin = K>,
        K: Decide<M>,
    {
        let hash = Key::hash_of(key);
        let shard = self.shard(hash);
        if shard.shared.is_stopping() {
            return Inline::Now(Err(Failure::Stopping));
        }
        let code = |call: Call<M>| call.coded(shard.shared.codec());
        if !shard.shared.is_here(hash) {
            return match Key::parse(key) {
                Ok(key) => {
                    let is_stale_ok = header.consistency() == Consistency::StaleOk;
                    let call = Arc::new(code(Call::new(header, message)));
                    if is_stale_ok {
                        shard.shared.answer_stale(key, delivery(&call));
                    } else {
                        shard.shared.forward(hash, &key, delivery(&call));
                    }
                    Inline::Later(call)
                }
                Err(why) => Inline::Now(Err(Rejection::invalid(why.to_string()).into())),
            };
        }
        // Asked before the lock is taken: a message that panics here is its caller's own.
        let plain = header.request().is_none()
            && M::INLINE
            && message.needs() == Needs::Nothing
            && header.consistency() != Consistency::Strict;
        if M::INLINE
            && let now = shard.shared.clock.now()
            && let Some((mut core, found)) = shard.enter(hash, key, now)
            // Nobody hands the slot over under this lock.
            && shard.shared.is_here(hash)
        {
            if core.over {
                return Inline::Now(Err(Failure::Stopping));
            }
            let work = |core: &mut Core<K>| {
                let at = match found.map_or_else(|| core.admit(shard, hash, key, now), Ok) {
                    Ok(at) => at,
                    Err(failure) => return Inline::Now(Err(failure)),
                };
                let open = core.table.get(at).is_some_and(|twin| twin.busy.as_ref().is_none_or(|busy| busy.is_open()));
                if plain && open {
                    return core.run_inline(shard, at, message, header, now);
                }
                let call = Arc::new(wire(code(Call::new(header, message))));
                core.deliver(shard, at, delivery(&call), now);
                Inline::Later(call)
            };
            let contained = |core: &mut Core<K>| core.contained_by(shard, hash, key, work);
            let result = shard.hold(&mut core, now, contained).unwrap_or_else(|failure| Inline::Now(Err(failure)));
            let stuck = core.is_stuck();
            let mut out = core.take_out();
            drop(core);
            if stuck {
                // Nothing else would make the drain try again.
                shard.inbox.note([]);
            }
            if let Some(out) = &mut out {
                shard.perform(out);
            }
            return result;
        }
        let key = match Key::parse(key) {
            Ok(key) => key,
            Err(why) => return Inline::Now(Err(Rejection::invalid(why.to_string()).into())),
        };
        let call = Arc::new(wire(code(Call::new(header, message))));
        match shard.push(hash, key, delivery(&call)) {
            Ok(()) => Inline::Later(call),
            Err(_back) => Inline::Now(Err(shard.why_full("the shard's inbox"))),
        }
    }

    /// Tells: always through the inbox.
    pub(super) fn tell<M>(&self, key: &str, message: M, header: Header) -> Result<(), Refused<M>>
    where
        M: Message<Twin = K> + std::fmt::Debug,
        K: Decide<M>,
    {
        let hash = Key::hash_of(key);
        let shard = self.shard(hash);
        if shard.shared.is_stopping() {
            return Err(Refused { failure: Failure::Stopping, message: Some(message) });
        }
        let key = match Key::parse(key) {
            Ok(key) => key,
            Err(why) => {
                return Err(Refused { failure: Rejection::invalid(why.to_string()).into(), message: Some(message) });
            }
        };
        let call = Arc::new(Call::new(header, message).coded(shard.shared.codec()));
        if !shard.shared.is_here(hash) {
            shard.shared.forward(hash, &key, delivery(&call));
            return Ok(());
        }
        match shard.push(hash, key, delivery(&call)) {
            Ok(()) => Ok(()),
            Err(back) => {
                drop(back);
                Err(Refused { failure: shard.why_full("the shard's inbox"), message: call.into_message() })
            }
        }
    }
}

/// A call as inboxes hold it.
pub(super) fn delivery<M: Message>(call: &Arc<Call<M>>) -> Arc<dyn Delivery<M::Twin>> {
    let call: Arc<Call<M>> = Arc::clone(call);
    call
}

/// A host whose kind is erased.
pub(super) trait AnyHost: Send + Sync {
    fn kind(&self) -> TypeId;
    fn is_durable(&self) -> bool;
    fn post(&self, key: &Key, parcel: Handed);
    fn settle(&self, key: &Key, number: u64, went: Went);
    /// Wakes a twin whose wake entry was written with a record of this sequence; 0 if that is not known.
    fn wake(&self, key: &Key, sequence: u64);
    fn tick(&self, drain: bool);
    /// Lets the twins of a slot leave that may; answers how many may not yet.
    fn leave(&self, slot: Slot) -> usize;
    /// Ends the twins of a slot that another runtime has.
    fn lose(&self, slot: Slot);
    fn counts(&self) -> Counts;
    /// Twins with something under way or unsaved.
    fn unsettled(&self) -> usize;
    /// Messages that wait.
    fn pending(&self) -> usize;
}

impl<K: Twin> AnyHost for Host<K> {
    fn kind(&self) -> TypeId {
        TypeId::of::<K>()
    }

    fn is_durable(&self) -> bool {
        K::Persistence::DURABLE
    }

    fn post(&self, key: &Key, parcel: Handed) {
        let hash = Key::hash_of(key);
        self.shard(hash).post(hash, key, parcel);
    }

    fn settle(&self, key: &Key, number: u64, went: Went) {
        let hash = Key::hash_of(key);
        self.shard(hash).inbox.note([Note::Settled { hash, key: key.clone(), number, went }]);
    }

    fn wake(&self, key: &Key, sequence: u64) {
        let hash = Key::hash_of(key);
        self.shard(hash).shared.wakes.began();
        self.shard(hash).inbox.note([Note::Wake(hash, key.clone(), sequence)]);
    }

    fn tick(&self, drain: bool) {
        for shard in &self.shards {
            shard.inbox.note([Note::Tick { drain }]);
        }
    }

    fn leave(&self, slot: Slot) -> usize {
        let shard = self.shard_of(slot);
        shard.hold_now(|core, now| core.leave(shard, slot, now))
    }

    // At once: if the slot is owned again before that, nothing of its former life is there.
    fn lose(&self, slot: Slot) {
        let shard = self.shard_of(slot);
        shard.hold_now(|core, _| core.lose(shard, slot));
    }

    fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for shard in &self.shards {
            sum += shard.core.lock().counts();
            sum.facts_dropped += shard.facts_dropped.load(Ordering::Relaxed);
        }
        sum
    }

    fn unsettled(&self) -> usize {
        let busy = |shard: &Arc<Shard<K>>| {
            let core = shard.core.lock();
            (0..core.table.end())
                .filter_map(|at| core.table.get(at))
                .filter(|twin| {
                    twin.busy.as_ref().is_some_and(|busy| busy.is_under_way())
                        || (twin.ledger.is_some() && asked(|| twin.state.unsaved()).unwrap_or(false))
                })
                .count()
        };
        self.shards.iter().map(busy).sum()
    }

    fn pending(&self) -> usize {
        self.shards.iter().map(|shard| shard.inbox.pending()).sum()
    }
}
