//! A store over another store.

use std::sync::Arc;

use super::{
    Commit, Done, Epoch, Error, Instant, Item, Level, Load, Loaded, Refused, Scan, Slot, Stats, Store, Walked,
};

/// A store that passes everything on but what it says otherwise: for counting, checking, failing on purpose.
///
/// Who changes [`Layer::load`] changes [`Layer::load_here`] too, since the runtime asks that first. The way in for
/// stores in memory ([`Store::instant`]) is shut, because it would lead around [`Layer::commit`].
#[expect(missing_docs, reason = "each is the method of the same name of Store")]
pub trait Layer: Send + Sync + 'static {
    /// The store below.
    fn below(&self) -> &dyn Store;

    fn claim(&self, slot: Slot, expected: Option<Epoch>, done: Done<Epoch>) {
        self.below().claim(slot, expected, done);
    }

    fn load(&self, load: Load, done: Done<Loaded>) {
        self.below().load(load, done);
    }

    fn load_here(&self, load: &Load) -> Option<Result<Loaded, Error>> {
        self.below().load_here(load)
    }

    fn barrier(&self, done: Done<()>) {
        self.below().barrier(done);
    }

    fn scan(&self, scan: Scan, done: Done<Walked>) {
        self.below().scan(scan, done);
    }

    fn commit(&self, commit: Commit) -> Result<(), Refused> {
        self.below().commit(commit)
    }

    fn instant(&self) -> Option<&dyn Instant> {
        None
    }

    fn stats(&self) -> Stats {
        self.below().stats()
    }

    fn close(&self, done: Done<()>) {
        self.below().close(done);
    }
}

impl<L: Layer> Store for L {
    fn level(&self) -> Level {
        self.below().level()
    }

    fn slot_of(&self, key: &str) -> Slot {
        self.below().slot_of(key)
    }

    fn claim(&self, slot: Slot, expected: Option<Epoch>, done: Done<Epoch>) {
        Layer::claim(self, slot, expected, done);
    }

    fn load(&self, load: Load, done: Done<Loaded>) {
        Layer::load(self, load, done);
    }

    fn load_here(&self, load: &Load) -> Option<Result<Loaded, Error>> {
        Layer::load_here(self, load)
    }

    fn barrier(&self, done: Done<()>) {
        Layer::barrier(self, done);
    }

    fn scan(&self, scan: Scan, done: Done<Walked>) {
        Layer::scan(self, scan, done);
    }

    fn commit(&self, commit: Commit) -> Result<(), Refused> {
        Layer::commit(self, commit)
    }

    fn put_blob(&self, value: Vec<u8>, done: Done<[u8; 16]>) {
        self.below().put_blob(value, done);
    }

    fn get_blob(&self, id: [u8; 16], done: Done<Option<Vec<u8>>>) {
        self.below().get_blob(id, done);
    }

    fn sweep_blobs(&self, keep: Vec<[u8; 16]>, done: Done<u64>) {
        self.below().sweep_blobs(keep, done);
    }

    fn put_item(&self, item: Item, done: Done<()>) {
        self.below().put_item(item, done);
    }

    fn instant(&self) -> Option<&dyn Instant> {
        Layer::instant(self)
    }

    fn stats(&self) -> Stats {
        Layer::stats(self)
    }

    fn failed(&self) -> Option<Arc<str>> {
        self.below().failed()
    }

    fn close(&self, done: Done<()>) {
        Layer::close(self, done);
    }
}
