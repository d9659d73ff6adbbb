//! A stored twin comes to life on its caller's thread: read and decoded before it has a place in the table, so that
//! nobody waits for it and nothing is handed over.

use std::sync::Arc;

use super::{
    activation::{Activation, Ledger},
    arrival::observed,
    contain::asked,
    restore::{Restored, restore},
    shard::{Core, Shard},
    sync::MutexGuard,
};
use crate::{
    model::{Key, Timestamp},
    store::{Address, Load},
    twin::{Persistence, Twin},
};

impl<K: Twin> Shard<K> {
    /// The inline door, and the twin's place if it is in memory or could be brought there at once.
    pub(super) fn enter(&self, hash: u64, key: &str, now: Timestamp) -> Option<(MutexGuard<'_, Core<K>>, Option<u32>)> {
        let core = self.door()?;
        if let Some(at) = core.table.find(hash, key) {
            return Some((core, Some(at)));
        }
        Some((self.ahead(core, hash, key, now)?, None))
    }

    /// Brings a twin to memory that the table has not, if the store reads it at once; lets the lock go meanwhile. `None` if
    /// the door was shut when it came back. Whatever cannot be done here is left to the usual way.
    fn ahead<'a>(
        &'a self,
        core: MutexGuard<'a, Core<K>>,
        hash: u64,
        key: &str,
        now: Timestamp,
    ) -> Option<MutexGuard<'a, Core<K>>> {
        let Some(store) = self.shared.store.as_ref().filter(|_| K::Persistence::DURABLE && !self.shared.is_instant())
        else {
            return Some(core);
        };
        let Ok(key) = Key::parse(key) else { return Some(core) };
        let (removals, seen) = (core.table.removals(), core.witness.of(&key));
        drop(core);
        let address = Arc::new(Address { kind: K::KIND.into(), key: key.clone() });
        let load = Load {
            address: Arc::clone(&address),
            core: true,
            pages: Vec::new(),
            prefix: observed::<K>(),
            under: self.shared.under(self.shared.slots.of(hash)),
        };
        let read = store.load_here(&load).and_then(Result::ok);
        // A panic comes again the usual way, where it is told.
        let restored = read.and_then(|loaded| asked(|| restore::<K>(&key, seen, loaded)).ok()?.ok());
        let mut core = self.door()?;
        // Who was there meanwhile, and left, may have written; after the end nobody comes any more.
        if let Some(Restored::Whole(stored)) = restored
            && !core.over
            && self.shared.is_here(hash)
            && core.table.removals() == removals
            && core.table.find(hash, &key).is_none()
        {
            let ledger = Ledger::new(address, seen);
            let twin = Activation::stored(key, hash, self.shared.life_s(now), ledger, *stored);
            core.counts.activations += 1;
            let at = core.table.insert(hash, twin);
            // Whoever panics here has no activation afterwards, and its message takes the usual way.
            self.hold(&mut core, now, |core| core.contained(self, at, |core| core.begun(self, at, now)).ok());
        }
        Some(core)
    }
}
