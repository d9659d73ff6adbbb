//! A store of one's own: it counts what goes to the store below it, and the conformance suite says whether it is one.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use service_twin::store::{
    Commit, Done, Epoch, Item, Level, Load, Loaded, Refused, Scan, Slot, Stats, Store, Walked, conformance,
    memory::MemoryStore,
};

/// Counts commits and their bytes on the way to another store.
struct Counted {
    below: Arc<dyn Store>,
    commits: AtomicU64,
    bytes: Arc<AtomicU64>,
}

impl Counted {
    fn new(below: Arc<dyn Store>, bytes: Arc<AtomicU64>) -> Self {
        Self { below, commits: AtomicU64::new(0), bytes }
    }
}

impl Store for Counted {
    fn level(&self) -> Level {
        self.below.level()
    }

    fn claim(&self, slot: Slot, expected: Option<Epoch>, done: Done<Epoch>) {
        self.below.claim(slot, expected, done);
    }

    fn load(&self, load: Load, done: Done<Loaded>) {
        self.below.load(load, done);
    }

    fn scan(&self, scan: Scan, done: Done<Walked>) {
        self.below.scan(scan, done);
    }

    /// A commit that was taken ends exactly once; one that is handed back never happened.
    fn commit(&self, commit: Commit) -> Result<(), Refused> {
        let bytes = u64::try_from(commit.bytes()).unwrap_or(u64::MAX);
        self.below.commit(commit)?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn put_blob(&self, value: Vec<u8>, done: Done<[u8; 16]>) {
        self.below.put_blob(value, done);
    }

    fn get_blob(&self, id: [u8; 16], done: Done<Option<Vec<u8>>>) {
        self.below.get_blob(id, done);
    }

    fn sweep_blobs(&self, keep: Vec<[u8; 16]>, done: Done<u64>) {
        self.below.sweep_blobs(keep, done);
    }

    fn put_item(&self, item: Item, done: Done<()>) {
        self.below.put_item(item, done);
    }

    fn stats(&self) -> Stats {
        Stats { commits: self.commits.load(Ordering::Relaxed), ..self.below.stats() }
    }

    fn close(&self, done: Done<()>) {
        self.below.close(done);
    }
}

fn main() {
    let bytes = Arc::new(AtomicU64::new(0));
    // The suite asks for an empty store several times and panics at the first promise that is not kept.
    conformance::run(&|| Arc::new(Counted::new(Arc::new(MemoryStore::new()), Arc::clone(&bytes))));
    println!("it is a store; the suite wrote {} bytes through it", bytes.load(Ordering::Relaxed));
}
