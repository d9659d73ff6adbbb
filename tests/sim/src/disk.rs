//! The store as one life of the runtime sees it: the memory store behind a door that also refuses claims and scans, and
//! that watches the runtime keep its side of the contract.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};
use service_twin::{
    store::{
        Address, Commit, Committed, Done, Ended, Epoch, Error, Instant, Layer, Load, Loaded, Refused, Scan, Slot,
        Store, Walked, memory::MemoryStore,
    },
    twin::Twin,
};

use crate::book::Book;

/// The memory store for one life; closing it leaves the memory store open for the next.
pub struct Disk {
    inner: Arc<MemoryStore>,
    flying: Arc<Mutex<HashSet<Address>>>,
    chance: Mutex<(StdRng, u16)>,
    loads: AtomicU64,
    claims: AtomicU64,
}

impl Disk {
    /// A door whose claims and scans fail so often in a thousand. The first claim never does.
    pub fn new(inner: Arc<MemoryStore>, seed: u64, odds: u16) -> Self {
        Self {
            inner,
            flying: Arc::default(),
            chance: Mutex::new((StdRng::seed_from_u64(seed), odds)),
            loads: AtomicU64::new(0),
            claims: AtomicU64::new(0),
        }
    }

    /// From now on claims and scans fail so often in a thousand.
    pub fn set_odds(&self, odds: u16) {
        self.chance.lock().1 = odds;
    }

    /// How many loads were asked for.
    pub fn loads(&self) -> u64 {
        self.loads.load(Ordering::Relaxed)
    }

    /// How many claims were granted.
    pub fn claims(&self) -> u64 {
        self.claims.load(Ordering::Relaxed)
    }

    fn fails(&self) -> bool {
        let mut chance = self.chance.lock();
        let odds = chance.1;
        odds > 0 && chance.0.random_range(0..1000) < odds
    }
}

struct Watched {
    inner: Arc<dyn Committed>,
    address: Address,
    flying: Arc<Mutex<HashSet<Address>>>,
}

impl Committed for Watched {
    fn ended(&self, mut commits: Vec<Ended>) {
        assert!(self.flying.lock().remove(&self.address), "a commit ends once");
        for ended in &commits {
            if let Err(error @ (Error::Sequence { .. } | Error::TooBig { .. })) = &ended.result {
                panic!("{}: the runtime's own bug: {error}", self.address.key);
            }
        }
        for back in commits.iter_mut().filter_map(|ended| ended.back.as_mut()) {
            back.to = Arc::clone(&self.inner);
        }
        self.inner.ended(commits);
    }
}

impl Layer for Disk {
    fn below(&self) -> &dyn Store {
        &*self.inner
    }

    fn claim(&self, slot: Slot, expected: Option<Epoch>, done: Done<Epoch>) {
        if self.fails() {
            return done(Err(Error::Unavailable("a claim fault".into())));
        }
        self.claims.fetch_add(1, Ordering::Relaxed);
        self.inner.claim(slot, expected, done);
    }

    fn load(&self, load: Load, done: Done<Loaded>) {
        self.loads.fetch_add(1, Ordering::Relaxed);
        self.inner.load(load, done);
    }

    fn load_here(&self, load: &Load) -> Option<Result<Loaded, Error>> {
        // A scenario without odds holds loads by itself.
        let mut chance = self.chance.lock();
        if chance.1 == 0 || !chance.0.random_bool(0.5) {
            return None;
        }
        drop(chance);
        self.loads.fetch_add(1, Ordering::Relaxed);
        Some(self.inner.load_now(load))
    }

    fn scan(&self, scan: Scan, done: Done<Walked>) {
        if self.fails() {
            return done(Err(Error::Unavailable("a scan fault".into())));
        }
        self.inner.scan(scan, done);
    }

    fn commit(&self, commit: Commit) -> Result<(), Refused> {
        let bytes = commit.core.as_ref().map_or(0, Vec::len);
        assert!(bytes <= Book::RECORD_BYTES_MAX, "{}: a record of {bytes} bytes", commit.address.key);
        let address = Address::clone(&commit.address);
        assert!(self.flying.lock().insert(address.clone()), "{}: a second commit in flight", address.key);
        let to = Arc::clone(&commit.to);
        let watched = Watched { inner: Arc::clone(&to), address: address.clone(), flying: Arc::clone(&self.flying) };
        self.inner.commit(Commit { to: Arc::new(watched), ..commit }).map_err(|back| {
            self.flying.lock().remove(&address);
            Refused::new(Commit { to, ..*back.commit }, back.why)
        })
    }

    fn instant(&self) -> Option<&dyn Instant> {
        self.inner.instant()
    }

    fn close(&self, done: Done<()>) {
        done(Ok(()));
    }
}
