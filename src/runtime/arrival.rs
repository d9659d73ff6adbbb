//! How a message reaches its twin: an activation is found or begun, and takes it in order.

use std::sync::Arc;

use super::{
    activation::{Activation, Busy, Ledger, Phase, goes_on},
    shard::{Core, Shard},
};
use crate::{
    model::{Key, Timestamp, limits},
    store::{Address, Epoch, Load, Prefix},
    twin::{Delivery, Failure, Persistence, Rejection, Twin, ring},
};

/// Messages that may wait for one twin's load.
const WAITING_MAX: usize = 4096;

impl<K: Twin> Core<K> {
    /// Finds a twin, or begins its activation.
    pub(super) fn admit(&mut self, shard: &Shard<K>, hash: u64, key: &str, now: Timestamp) -> Result<u32, Failure> {
        if let Some(at) = self.table.find(hash, key) {
            return Ok(at);
        }
        let Some(mut twin) = Activation::<K>::new(key, hash, shard.shared.life_s(now)) else {
            let why = crate::model::Key::check(key).err().map_or_else(String::new, |why| why.to_string());
            return Err(Failure::Rejected(Rejection::invalid(why)));
        };
        self.counts.activations += 1;
        if !K::Persistence::DURABLE {
            return Ok(self.table.insert(hash, twin));
        }
        let address = Arc::new(Address { kind: K::KIND.into(), key: twin.key.clone() });
        let seen = self.witness.of(key);
        twin.ledger = Some(Box::new(Ledger::new(Arc::clone(&address), seen)));
        if let Some(instant) = shard.shared.store.as_ref().and_then(|store| store.instant()) {
            let loaded = instant.load_now(&Load {
                address,
                core: true,
                pages: Vec::new(),
                prefix: observed::<K>(),
                under: None,
            });
            if seen == 0 && loaded.as_ref().is_ok_and(|loaded| loaded.core.is_none() && loaded.pages.is_empty()) {
                return Ok(self.table.insert(hash, twin));
            }
            twin.busy = Some(Box::new(Busy::new(Phase::Loading { attempts: 0 })));
            let at = self.table.insert(hash, twin);
            self.loaded(shard, at, shard.shared.epoch(shard.shared.slots.of(hash)), loaded, now);
            return Ok(at);
        }
        twin.busy = Some(Box::new(Busy::new(Phase::Loading { attempts: 0 })));
        let at = self.table.insert(hash, twin);
        self.load(shard, at, address, false);
        Ok(at)
    }

    /// Asks for a twin's record.
    pub(super) fn load(&mut self, shard: &Shard<K>, at: u32, address: Arc<Address>, with_ring: bool) {
        let pages = if with_ring { vec![ring::PAGE.into()] } else { Vec::new() };
        shard.shared.wakes.began();
        let slot = shard.shared.slots.of_key(&address.key);
        let (epoch, under) = (shard.shared.epoch(slot), shard.shared.under(slot));
        self.out.loads.push((at, epoch, Load { address, core: true, pages, prefix: observed::<K>(), under }));
    }

    /// Takes a message that came through the inbox.
    pub(super) fn receive(
        &mut self,
        shard: &Shard<K>,
        hash: u64,
        key: &str,
        call: Arc<dyn Delivery<K>>,
        now: Timestamp,
    ) {
        if !shard.shared.is_here(hash)
            && let Ok(key) = Key::parse(key)
        {
            self.out.elsewhere.push((hash, key, call));
            return;
        }
        match self.contained_by(shard, hash, key, |core| core.admit(shard, hash, key, now)) {
            Ok(Ok(at)) => self.deliver(shard, at, call, now),
            Ok(Err(failure)) | Err(failure) => self.out.failed.push((call, failure)),
        }
    }

    /// Gives a message its turn, or its place behind what the twin waits for.
    pub(super) fn deliver(&mut self, shard: &Shard<K>, at: u32, call: Arc<dyn Delivery<K>>, now: Timestamp) {
        let Some(twin) = self.table.get_mut(at) else { return };
        twin.used_s = shard.shared.life_s(now);
        if let Some(busy) = &mut twin.busy {
            match &busy.phase {
                Phase::Live if busy.waiting.is_empty() => {}
                Phase::Live | Phase::Loading { .. } | Phase::Ending => {
                    if busy.waiting.len() >= WAITING_MAX {
                        self.counts.shed += 1;
                        self.out
                            .failed
                            .push((call, Failure::Overloaded { what: "the queue of a twin that is loading".into() }));
                    } else {
                        busy.waiting.push_back(call);
                    }
                    return;
                }
                Phase::Backoff { until, cause, attempts, above } => {
                    let slot = shard.shared.slots.of_key(&twin.key);
                    let unclaimed = above.filter(|epoch| shard.shared.epoch(slot).0 <= *epoch);
                    if let Some(epoch) = unclaimed {
                        shard.shared.reclaim(slot, Epoch(epoch));
                    }
                    if goes_on(*until, now) || unclaimed.is_some() {
                        self.out.failed.push((call, Failure::Backoff { until: *until, cause: Arc::clone(cause) }));
                        return;
                    }
                    busy.phase = Phase::Loading { attempts: *attempts };
                    busy.waiting.push_back(call);
                    let address = twin.ledger.as_ref().map(|ledger| Arc::clone(&ledger.address));
                    if let Some(address) = address {
                        self.load(shard, at, address, false);
                    }
                    return;
                }
            }
        }
        self.run_contained(shard, at, call, now);
    }
}

/// The observed pages of a kind that has them.
pub(super) fn observed<K: Twin>() -> Option<Prefix> {
    K::OBSERVED.map(|prefix| Prefix { prefix: prefix.into(), after: None, limit: limits::COMMIT_KEYS_MAX })
}
