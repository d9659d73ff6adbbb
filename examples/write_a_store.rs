//! A store of one's own: it counts what goes to the store below it, and the conformance suite says whether it is one.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use service_twin::store::{Commit, Layer, Refused, Stats, Store, conformance, memory::MemoryStore};

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

impl Layer for Counted {
    fn below(&self) -> &dyn Store {
        &*self.below
    }

    /// A commit that was taken ends exactly once; one that is handed back never happened.
    fn commit(&self, commit: Commit) -> Result<(), Refused> {
        let bytes = u64::try_from(commit.bytes()).unwrap_or(u64::MAX);
        self.below.commit(commit)?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn stats(&self) -> Stats {
        Stats { commits: self.commits.load(Ordering::Relaxed), ..self.below.stats() }
    }
}

fn main() {
    let bytes = Arc::new(AtomicU64::new(0));
    // The suite asks for an empty store several times and panics at the first promise that is not kept.
    conformance::run(&|| Arc::new(Counted::new(Arc::new(MemoryStore::new()), Arc::clone(&bytes))));
    println!("it is a store; the suite wrote {} bytes through it", bytes.load(Ordering::Relaxed));
}
