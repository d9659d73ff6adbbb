//! A store in memory: for tests, simulations and hosts that need no durability.
//!
//! A commit ends inline, on the submitter's thread, before [`Store::commit`] returns, unless a [`Fault`] holds it.
//! Twins are spread over locked shards by the hash of their address; the wake and term indexes have one lock of
//! their own that is taken only when a twin's wake time or terms change. Order of locks: shard, then index.

mod faults;
mod rows;

pub use faults::{Fault, Faults, LoadFault, Odds};

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use compact_str::CompactString;
use parking_lot::Mutex;

use self::rows::{Row, Rows};
use super::{
    Address, Commit, Done, Entry, Epoch, Error, Instant, Item, Level, Load, Loaded, Refused, Scan, Slot, Stats, Store,
    Walked, index::Index,
};
use crate::model::{Key, limits};

/// Number of locks over the twins.
const SHARDS: usize = 64;

/// Keeps everything in memory; see the module.
pub struct MemoryStore {
    shards: Box<[Mutex<Rows>]>,
    index: Mutex<Index>,
    blobs: Mutex<Blobs>,
    claims: Mutex<()>,
    /// Whether it has every slot, not one.
    shared: bool,
    closed: AtomicBool,
    faults: Option<Arc<Faults>>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Blobs {
    newest: u128,
    values: std::collections::BTreeMap<[u8; 16], Vec<u8>>,
}

#[derive(Default)]
struct Held {
    commits: Vec<Commit>,
    loads: Vec<(Load, Done<Loaded>)>,
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store without faults.
    pub fn new() -> Self {
        Self::build(None)
    }

    /// An empty store that runtimes of this process share: each owns some of all slots.
    pub fn shared() -> Self {
        Self { shared: true, ..Self::build(None) }
    }

    /// An empty store that asks `faults` at every commit and load, and remembers each twin's [`Self::chain`].
    pub fn with_faults(faults: Arc<Faults>) -> Self {
        Self::build(Some(faults))
    }

    fn build(faults: Option<Arc<Faults>>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(Rows::new(faults.is_some()))).collect(),
            index: Mutex::default(),
            blobs: Mutex::default(),
            claims: Mutex::new(()),
            shared: false,
            closed: AtomicBool::new(false),
            faults,
            held: Mutex::default(),
        }
    }

    /// How many core records there are.
    pub fn records(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Sequence and epoch of every core commit of a twin that took effect, in order; empty without
    /// [`Self::with_faults`].
    pub fn chain(&self, address: &Address) -> Vec<(u64, Epoch)> {
        let hash = rows::hash(address);
        self.shard(hash).lock().find(hash, address).map(|row| row.chain().to_vec()).unwrap_or_default()
    }

    /// How many commits are held.
    pub fn held(&self) -> usize {
        self.held.lock().commits.len()
    }

    /// Ends a held commit, counted from the oldest; `fault` says how, `None` lets it be done. `false` if there is none.
    ///
    /// A commit whose outcome was called unknown ([`Fault::UnknownLate`]) is only applied or, with any fault, lost.
    pub fn release(&self, nth: usize, fault: Option<Fault>) -> bool {
        let mut held = self.held.lock();
        if nth >= held.commits.len() {
            return false;
        }
        let commit = held.commits.remove(nth);
        drop(held);
        self.conclude(commit, fault.filter(|fault| *fault != Fault::Held));
        true
    }

    /// How many loads are held.
    pub fn held_loads(&self) -> usize {
        self.held.lock().loads.len()
    }

    /// Answers a held load, counted from the oldest, with what is stored by now. `false` if there is none.
    pub fn release_load(&self, nth: usize) -> bool {
        let mut held = self.held.lock();
        if nth >= held.loads.len() {
            return false;
        }
        let (load, done) = held.loads.remove(nth);
        drop(held);
        done(self.read(&load));
        true
    }

    /// Replaces a core record behind the store's back, as rot or a restored backup would; `None` removes it.
    /// The sequence that the store expects next follows `sequence`.
    pub fn tamper(&self, address: &Address, core: Option<Vec<u8>>, sequence: u64) {
        let hash = rows::hash(address);
        let mut shard = self.shard(hash).lock();
        let row = shard.entry(hash, &Arc::new(address.clone()));
        row.core = core;
        row.sequence = sequence;
    }

    fn shard(&self, hash: u64) -> &Mutex<Rows> {
        // hashbrown uses the lowest and the highest bits.
        let at = usize::try_from((hash >> 32) & 0xffff).unwrap_or_default() % SHARDS;
        &self.shards[at]
    }

    /// Applies a commit, or does what the fault says, and ends it.
    fn conclude(&self, mut commit: Commit, fault: Option<Fault>) {
        let result = match fault {
            None => self.apply(&mut commit),
            Some(Fault::Busy) => Err(Error::Busy("a fault")),
            Some(Fault::Unavailable | Fault::Full) => Err(Error::Unavailable("a fault".into())),
            Some(Fault::UnknownLost) => Err(Error::Unknown("a fault".into())),
            Some(Fault::UnknownApplied) => match self.apply(&mut commit) {
                Ok(()) => Err(Error::Unknown("a fault".into())),
                Err(error) => Err(error),
            },
            Some(Fault::Held) => {
                self.held.lock().commits.push(commit);
                return;
            }
            Some(Fault::UnknownLate) => {
                let early = Commit {
                    address: commit.address.clone(),
                    core: None,
                    pages: Vec::new(),
                    terms: commit.terms.clone(),
                    riders: std::mem::take(&mut commit.riders),
                    to: std::mem::replace(&mut commit.to, Arc::new(faults::Nobody)),
                    ..commit
                };
                self.held.lock().commits.push(commit);
                early.end(Err(Error::Unknown("a fault".into())));
                return;
            }
        };
        commit.end(result);
    }

    /// Checks and writes in one step; leaves a buffer to reuse in `commit.core`.
    fn apply(&self, commit: &mut Commit) -> Result<(), Error> {
        commit.check()?;
        let hash = rows::hash(&commit.address);
        let mut shard = self.shard(hash).lock();
        let owner = shard.epoch(commit.slot);
        let row = shard.entry(hash, &commit.address);
        if let Err(error) = commit.follows(owner, row.sequence) {
            shard.remove_unwritten(hash, &commit.address);
            return Err(error);
        }
        let before = row.bytes();
        row.write_pages(&mut commit.pages);
        if let Some(core) = commit.core.take() {
            if row.wake_at() != commit.wake_at || row.terms() != &*commit.terms {
                let (before, after) = (row.beside(), (commit.wake_at, &*commit.terms));
                self.index.lock().set(row.address(), before, after, commit.sequence);
                row.set_beside(commit.wake_at, commit.terms.clone());
            }
            commit.core = row.write_core(core);
            row.sequence = commit.sequence;
            row.remember(commit.sequence, commit.epoch);
        }
        let (after, written) = (row.bytes(), row.is_written());
        shard.resized(before, after);
        shard.commits += 1;
        if !written {
            shard.remove_unwritten(hash, &commit.address);
        }
        Ok(())
    }

    fn read(&self, load: &Load) -> Result<Loaded, Error> {
        let hash = rows::hash(&load.address);
        let shard = self.shard(hash).lock();
        load.follows(shard.epoch(self.slot_of(&load.address.key)))?;
        Ok(shard.find(hash, &load.address).map(|row| row.read(load)).unwrap_or_default())
    }

    fn find(&self, kind: &str, terms: &[CompactString], after: Option<&Key>, limit: usize) -> Walked {
        let candidates = match self.index.lock().narrow(kind, terms, after) {
            Some(keys) => keys,
            None => self.keys(kind, after),
        };
        let mut walked = Walked::default();
        for key in candidates {
            let address = Address { kind: kind.into(), key };
            let hash = rows::hash(&address);
            let Some(found) = self.shard(hash).lock().find(hash, &address).map(|row| row.terms().to_vec()) else {
                continue;
            };
            if !terms.iter().all(|wanted| super::matches(wanted, &found)) {
                continue;
            }
            if walked.entries.len() == limit {
                walked.more = true;
                break;
            }
            walked.entries.push(Entry::Found { key: address.key, terms: found });
        }
        walked
    }

    /// Every key of a kind after `after`, sorted: a walk over all twins, since no order is kept between them.
    fn keys(&self, kind: &str, after: Option<&Key>) -> Vec<Key> {
        let mut keys = Vec::new();
        for shard in &self.shards {
            keys.extend(shard.lock().iter().filter_map(|row| {
                let address = row.address();
                let wanted =
                    row.core.is_some() && address.kind == kind && after.is_none_or(|after| address.key > *after);
                wanted.then(|| address.key.clone())
            }));
        }
        keys.sort_unstable();
        keys
    }

    /// Everything, shard by shard and within it by address; `after` is the number of items already given.
    fn everything(&self, after: Option<Vec<u8>>, bytes: usize) -> Walked {
        let skip = after.and_then(|mark| mark.try_into().ok()).map_or(0, u64::from_le_bytes);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let mut walked = Walked::default();
        let (mut at, mut taken) = (0, 0);
        let mut give = |item: Item, size: usize| {
            at += 1;
            if at > skip && taken < bytes.max(1) {
                taken += size;
                walked.entries.push(Entry::Item(item));
            } else if at > skip {
                walked.more = true;
            }
        };
        for (slot, epoch) in self.shards[0].lock().epochs() {
            give(Item::Claimed { slot: slot.0, epoch: epoch.0 }, 16);
        }
        for shard in &self.shards {
            let shard = shard.lock();
            let mut rows: Vec<&Row> = shard.iter().collect();
            rows.sort_unstable_by_key(|row| row.address());
            for row in rows {
                row.items(&mut give);
            }
        }
        for (id, value) in &self.blobs.lock().values {
            give(Item::Blob { id: *id, value: value.clone() }, value.len() + 16);
        }
        let reached = u64::try_from(skip + walked.entries.len()).unwrap_or(u64::MAX);
        walked.mark = walked.more.then(|| reached.to_le_bytes().to_vec());
        walked
    }

    fn put(&self, item: Item) {
        match item {
            Item::Claimed { slot, epoch } => {
                let _one_at_a_time = self.claims.lock();
                for shard in &self.shards {
                    let mut shard = shard.lock();
                    let epoch = shard.epoch(Slot(slot)).max(Epoch(epoch));
                    shard.set_epoch(Slot(slot), epoch);
                }
            }
            Item::Core { kind, key, sequence, core, wake_at, terms } => {
                let address = Arc::new(Address { kind, key });
                let hash = rows::hash(&address);
                let mut shard = self.shard(hash).lock();
                let row = shard.entry(hash, &address);
                let before = row.bytes();
                self.index.lock().set(row.address(), row.beside(), (wake_at, &terms), sequence);
                row.set_beside(wake_at, terms.as_slice().into());
                row.write_core(core);
                row.sequence = sequence;
                let after = row.bytes();
                shard.resized(before, after);
            }
            Item::Page { kind, key, name, value } => {
                let address = Arc::new(Address { kind, key });
                let hash = rows::hash(&address);
                let mut shard = self.shard(hash).lock();
                let row = shard.entry(hash, &address);
                let before = row.bytes();
                row.write_pages(&mut vec![super::PageWrite { name, value: Some(value) }]);
                let after = row.bytes();
                shard.resized(before, after);
            }
            Item::Blob { id, value } => {
                self.blobs.lock().values.insert(id, value);
            }
        }
    }
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".into())
}

impl Instant for MemoryStore {
    fn load_now(&self, load: &Load) -> Result<Loaded, Error> {
        self.read(load)
    }

    fn commit_now(&self, commit: &mut Commit) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        self.apply(commit)
    }
}

impl Store for MemoryStore {
    fn level(&self) -> Level {
        Level::Buffered
    }

    fn slot_of(&self, key: &str) -> Slot {
        if self.shared { Slot::of(Key::hash_of(key)) } else { Slot::default() }
    }

    fn claim(&self, slot: Slot, expected: Option<Epoch>, done: Done<Epoch>) {
        let one_at_a_time = self.claims.lock();
        // Who closed it is gone; a new owner opens it, as it would open a directory again.
        self.closed.store(false, Ordering::Release);
        let owner = self.shards[0].lock().epoch(slot);
        let result = match expected {
            Some(ours) if ours != owner => Err(Error::Fenced { ours, owner }),
            Some(_) | None => {
                let next = Epoch(owner.0 + 1);
                for shard in &self.shards {
                    shard.lock().set_epoch(slot, next);
                }
                Ok(next)
            }
        };
        drop(one_at_a_time);
        done(result);
    }

    fn load(&self, load: Load, done: Done<Loaded>) {
        match self.faults.as_ref().and_then(|faults| faults.at_load()) {
            None => done(self.read(&load)),
            Some(LoadFault::Unavailable) => done(Err(Error::Unavailable("a fault".into()))),
            Some(LoadFault::Held) => self.held.lock().loads.push((load, done)),
        }
    }

    fn scan(&self, scan: Scan, done: Done<Walked>) {
        done(Ok(match scan {
            Scan::Wake { until, after, limit } => self.index.lock().wake(until, after, limit),
            Scan::Find { kind, terms, after, limit } => self.find(&kind, &terms, after.as_ref(), limit),
            Scan::All { after, bytes } => self.everything(after, bytes),
        }));
    }

    fn commit(&self, commit: Commit) -> Result<(), Refused> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Refused::new(commit, closed()));
        }
        match self.faults.as_ref().and_then(|faults| faults.at_commit()) {
            Some(Fault::Full) => return Err(Refused::new(commit, Error::Busy("a fault"))),
            fault => self.conclude(commit, fault),
        }
        Ok(())
    }

    fn instant(&self) -> Option<&dyn Instant> {
        // With faults, outcomes come late and out of place: the common way is the one to test.
        self.faults.is_none().then_some(self)
    }

    fn put_blob(&self, value: Vec<u8>, done: Done<[u8; 16]>) {
        if value.len() > limits::BLOB_BYTES_MAX {
            return done(Err(Error::TooBig { what: "blob", actual: value.len(), max: limits::BLOB_BYTES_MAX }));
        }
        let mut blobs = self.blobs.lock();
        let id = loop {
            blobs.newest += 1;
            let id = blobs.newest.to_be_bytes();
            if !blobs.values.contains_key(&id) {
                break id;
            }
        };
        blobs.values.insert(id, value);
        drop(blobs);
        done(Ok(id));
    }

    fn get_blob(&self, id: [u8; 16], done: Done<Option<Vec<u8>>>) {
        let found = self.blobs.lock().values.get(&id).cloned();
        done(Ok(found));
    }

    fn sweep_blobs(&self, keep: Vec<[u8; 16]>, done: Done<u64>) {
        let keep: std::collections::BTreeSet<_> = keep.into_iter().collect();
        let mut blobs = self.blobs.lock();
        let before = blobs.values.len();
        blobs.values.retain(|id, _| keep.contains(id));
        let removed = before - blobs.values.len();
        drop(blobs);
        done(Ok(u64::try_from(removed).unwrap_or(u64::MAX)));
    }

    fn put_item(&self, item: Item, done: Done<()>) {
        self.put(item);
        done(Ok(()));
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for shard in &self.shards {
            let shard = shard.lock();
            stats.bytes += u64::try_from(shard.bytes()).unwrap_or(u64::MAX);
            stats.commits += shard.commits;
        }
        stats.waiting = u64::try_from(self.held()).unwrap_or(u64::MAX);
        stats.bytes +=
            self.blobs.lock().values.values().map(|value| u64::try_from(value.len()).unwrap_or(0)).sum::<u64>();
        stats
    }

    fn close(&self, done: Done<()>) {
        self.closed.store(true, Ordering::Release);
        done(Ok(()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::store::{Committed, Ended, SharedTerms};

    struct Heard(mpsc::Sender<Ended>);

    impl Committed for Heard {
        fn ended(&self, commits: Vec<Ended>) {
            for ended in commits {
                self.0.send(ended).unwrap();
            }
        }
    }

    struct World {
        store: MemoryStore,
        faults: Arc<Faults>,
        address: Arc<Address>,
        to: Arc<Heard>,
        ended: mpsc::Receiver<Ended>,
    }

    fn world() -> World {
        let faults = Arc::new(Faults::none());
        let store = MemoryStore::with_faults(faults.clone());
        store.claim(Slot(0), None, Box::new(|epoch| assert_eq!(epoch, Ok(Epoch(1)))));
        let (send, ended) = mpsc::channel();
        let address = Arc::new(Address { kind: "thing".into(), key: Key::parse("a").unwrap() });
        World { store, faults, address, to: Arc::new(Heard(send)), ended }
    }

    impl World {
        fn commit(&self, sequence: u64, core: &[u8]) -> Result<(), Refused> {
            self.store.commit(Commit {
                address: self.address.clone(),
                slot: Slot(0),
                epoch: Epoch(1),
                sequence,
                core: Some(core.to_vec()),
                pages: Vec::new(),
                wake_at: None,
                terms: SharedTerms::default(),
                riders: Vec::new(),
                token: sequence,
                to: self.to.clone(),
            })
        }

        fn core(&self) -> Option<Vec<u8>> {
            let address = self.address.clone();
            self.store.read(&Load { address, core: true, pages: Vec::new(), prefix: None, under: None }).unwrap().core
        }
    }

    #[test]
    fn memory_keeps_the_contract() {
        crate::store::conformance::run(&|| Arc::new(MemoryStore::new()));
        crate::store::conformance::run(&|| Arc::new(MemoryStore::with_faults(Arc::new(Faults::none()))));
    }

    #[test]
    fn a_held_commit_takes_effect_when_it_is_released() {
        let world = world();
        world.faults.at_next_commit(Some(Fault::Held));
        world.commit(1, b"one").unwrap();
        assert_eq!((world.core(), world.ended.try_recv().is_err()), (None, true));
        assert!(world.store.release(0, None));
        assert_eq!(world.ended.try_recv().unwrap().result, Ok(()));
        assert_eq!(world.core().unwrap(), b"one");
        assert_eq!(world.store.chain(&world.address), [(1, Epoch(1))]);
    }

    #[test]
    fn each_fault_does_what_it_says() {
        for (fault, applied) in [
            (Fault::Busy, false),
            (Fault::Unavailable, false),
            (Fault::UnknownLost, false),
            (Fault::UnknownApplied, true),
            (Fault::UnknownLate, false),
        ] {
            let world = world();
            world.faults.at_next_commit(Some(fault));
            world.commit(1, b"one").unwrap();
            let result = world.ended.try_recv().unwrap().result;
            assert!(result.is_err(), "{fault:?}");
            assert_eq!(world.core().is_some(), applied, "{fault:?}");
        }
        let world = world();
        world.faults.at_next_commit(Some(Fault::Full));
        assert!(world.commit(1, b"one").unwrap_err().may_try_again());
        assert!(world.ended.try_recv().is_err());
    }

    #[test]
    fn a_late_commit_is_fenced_by_a_claim_in_between() {
        let world = world();
        world.faults.at_next_commit(Some(Fault::UnknownLate));
        world.commit(1, b"one").unwrap();
        world.store.claim(Slot(0), Some(Epoch(1)), Box::new(|epoch| assert_eq!(epoch, Ok(Epoch(2)))));
        assert!(world.store.release(0, None));
        assert_eq!(world.core(), None);
    }

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        let odds = Odds { busy: 100, held: 200, unknown_late: 50, ..Odds::default() };
        let draw = || {
            let faults = Faults::seeded(7, odds);
            (0..200).map(|_| faults.at_commit()).collect::<Vec<_>>()
        };
        assert_eq!(draw(), draw());
        assert!(draw().contains(&Some(Fault::Held)) && draw().contains(&None));
    }
}
