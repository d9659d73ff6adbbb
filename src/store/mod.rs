//! Durable bytes: what a twin's records and pages rest on.
//!
//! A [`Store`] keeps, for each twin, one core record and any number of pages. One [`Commit`] is one twin's keys under
//! one slot and epoch, all or nothing; the store refuses a stale epoch and a wrong sequence in the same atomic step as
//! the write. Grouping many commits into one flush is the store's own business; each is answered for itself. What the
//! bytes mean, what an `ETag` is and who may write are not its business.
//!
//! No call blocks: each takes a completion. [`conformance`] is the executable form of this contract.

mod committer;
pub mod conformance;
mod index;
mod keyspace;
mod layer;
pub mod memory;
#[cfg(feature = "cluster")]
pub mod nats;
pub mod sled;
mod told;
pub mod transfer;

pub use layer::Layer;

use std::{sync::Arc, time::Duration};

use compact_str::CompactString;

use crate::{
    metrics::Sizes,
    model::{Key, Outcome, Rider, Sealed, Timestamp, limits},
};

/// Fencing number of an ownership; only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// A part of the id space that is owned as a whole; embedded stores have one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

impl Slot {
    /// Parts of the id space of a store that many nodes share.
    pub const COUNT: u16 = 4096;

    /// The slot of a key's hash ([`Key::hash_of`]): its highest twelve bits.
    pub fn of(hash: u64) -> Self {
        Self(u16::try_from(hash >> 52).expect("twelve bits"))
    }
}

/// What a commit survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing is promised.
    Buffered,
    /// The death of the process.
    Flushed,
    /// The loss of power.
    Fsync,
}

/// One twin: its kind and its key within the kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Name of the kind.
    pub kind: CompactString,
    /// Key within the kind.
    pub key: Key,
}

/// Called exactly once with the result, on any thread.
pub type Done<T> = Box<dyn FnOnce(Result<T, Error>) + Send>;

/// Why a store did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another owner has a higher epoch; this one must claim again.
    #[error("fenced: epoch {ours:?} is no longer the owner's, {owner:?} is")]
    Fenced {
        /// The epoch of the commit.
        ours: Epoch,
        /// The epoch in force.
        owner: Epoch,
    },
    /// Too much is waiting; the same commit may be handed in again.
    #[error("busy: {0}")]
    Busy(&'static str),
    /// The commit contradicts the record: a bug of the runtime, never of a caller.
    #[error("sequence {given} does not follow {found}")]
    Sequence {
        /// In the commit.
        given: u64,
        /// In the store.
        found: u64,
    },
    /// A bound of the commit is crossed.
    #[error("too big: {what} is {actual}, at most {max}")]
    TooBig {
        /// Which bound.
        what: &'static str,
        /// What was given.
        actual: usize,
        /// The bound.
        max: usize,
    },
    /// It may or may not have happened.
    #[error("outcome unknown: {0}")]
    Unknown(Arc<str>),
    /// The store cannot do it, and did not.
    #[error("unavailable: {0}")]
    Unavailable(Arc<str>),
}

impl Error {
    /// What is certain.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Unknown(_) => Outcome::Unknown,
            Self::Fenced { .. }
            | Self::Busy(_)
            | Self::Sequence { .. }
            | Self::TooBig { .. }
            | Self::Unavailable(_) => Outcome::NotApplied,
        }
    }

    /// The error as a rider hears it.
    pub fn sealed(&self) -> Sealed {
        Sealed::Lost { outcome: self.outcome(), cause: self.to_string().into() }
    }
}

/// One page to write or delete.
pub use crate::twin::PageWrite;

/// A twin's search terms, sorted, shared by its activation and its commits. No terms cost nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedTerms(Option<Arc<[CompactString]>>);

impl From<&[CompactString]> for SharedTerms {
    fn from(terms: &[CompactString]) -> Self {
        Self((!terms.is_empty()).then(|| terms.into()))
    }
}

impl FromIterator<CompactString> for SharedTerms {
    fn from_iter<T: IntoIterator<Item = CompactString>>(terms: T) -> Self {
        Self::from(&*terms.into_iter().collect::<Vec<_>>())
    }
}

impl std::ops::Deref for SharedTerms {
    type Target = [CompactString];
    fn deref(&self) -> &[CompactString] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// One twin's keys, all or nothing.
pub struct Commit {
    /// The twin.
    pub address: Arc<Address>,
    /// Its slot.
    pub slot: Slot,
    /// The epoch under which it is owned.
    pub epoch: Epoch,
    /// With a core: one more than the record's sequence (1 for the first). With pages only: the record's sequence.
    pub sequence: u64,
    /// The framed core record.
    pub core: Option<Vec<u8>>,
    /// Pages written or deleted with it.
    pub pages: Vec<PageWrite>,
    /// When the twin wants to be woken; replaces what the last core commit said. Ignored without a core.
    pub wake_at: Option<Timestamp>,
    /// The twin's search terms, sorted; replace what the last core commit said. Ignored without a core.
    pub terms: SharedTerms,
    /// Replies and events that leave with the outcome, straight from the store's thread.
    pub riders: Vec<Arc<dyn Rider>>,
    /// The submitter's own number.
    pub token: u64,
    /// Who hears of it.
    pub to: Arc<dyn Committed>,
}

impl Commit {
    /// Bytes that will be written.
    pub fn bytes(&self) -> usize {
        self.core.as_ref().map_or(0, Vec::len)
            + self.pages.iter().map(|page| page.name.len() + page.value.as_ref().map_or(0, Vec::len)).sum::<usize>()
    }

    /// Checks the bounds that every store keeps; a store does this before anything else.
    pub fn check(&self) -> Result<(), Error> {
        let within = |what, actual, max| if actual > max { Err(Error::TooBig { what, actual, max }) } else { Ok(()) };
        within("core record", self.core.as_ref().map_or(0, Vec::len), limits::RECORD_BYTES_MAX)?;
        within("number of terms", self.terms.len(), limits::TERMS_MAX)?;
        within("terms", self.terms.iter().map(CompactString::len).sum(), limits::TERMS_BYTES_MAX)?;
        if self.pages.is_empty() {
            return Ok(());
        }
        within("number of keys", self.pages.len() + usize::from(self.core.is_some()), limits::COMMIT_KEYS_MAX)?;
        within("commit", self.bytes(), limits::COMMIT_BYTES_MAX)?;
        for page in &self.pages {
            within("page name", page.name.len(), limits::PAGE_NAME_BYTES_MAX)?;
            within("page", page.value.as_ref().map_or(0, Vec::len), limits::PAGE_BYTES_MAX)?;
        }
        Ok(())
    }

    /// Checks epoch and sequence against what is in force; a store does this in the same step as the write.
    pub fn follows(&self, owner: Epoch, found: u64) -> Result<(), Error> {
        if self.epoch != owner {
            return Err(Error::Fenced { ours: self.epoch, owner });
        }
        if self.sequence != found + u64::from(self.core.is_some()) {
            return Err(Error::Sequence { given: self.sequence, found });
        }
        Ok(())
    }

    /// Lets the riders go and tells the submitter: the last thing a store does with a commit it answers alone.
    pub fn end(mut self, result: Result<(), Error>) {
        self.release(&result);
        let to = self.to.clone();
        to.ended(vec![self.ended(result)]);
    }

    /// How it ended, for its submitter; its riders were released before.
    pub fn ended(self, result: Result<(), Error>) -> Ended {
        let token = self.token;
        if may_try_again(&result) {
            return Ended { token, result, buffer: None, back: Some(Box::new(self)) };
        }
        Ended { token, result, buffer: self.core, back: None }
    }

    /// Lets the riders go, unless the same commit is to be handed in again.
    pub fn release(&mut self, result: &Result<(), Error>) {
        if self.riders.is_empty() || may_try_again(result) {
            return;
        }
        let sealed = result.as_ref().map_or_else(Error::sealed, |()| Sealed::Durable);
        for rider in self.riders.drain(..) {
            rider.release(&sealed);
        }
    }
}

impl std::fmt::Debug for Commit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Commit({}:{} sequence {}, {} bytes, {} pages)",
            self.address.kind,
            self.address.key,
            self.sequence,
            self.bytes(),
            self.pages.len()
        )
    }
}

/// A commit that was not taken: nobody is told of it but the one who handed it in.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct Refused {
    /// The commit, as it was.
    pub commit: Box<Commit>,
    /// [`Error::Busy`] if there may be room later; anything else is final: the store takes no commit any more.
    #[source]
    pub why: Error,
}

impl Refused {
    /// Hands a commit back.
    pub fn new(commit: Commit, why: Error) -> Self {
        Self { commit: Box::new(commit), why }
    }

    /// Whether the same commit may be taken later.
    pub fn may_try_again(&self) -> bool {
        matches!(self.why, Error::Busy(_))
    }
}

fn may_try_again(result: &Result<(), Error>) -> bool {
    matches!(result, Err(Error::Busy(_)))
}

/// How one commit ended; carries the buffer back for reuse.
#[derive(Debug)]
pub struct Ended {
    /// The submitter's number.
    pub token: u64,
    /// The outcome.
    pub result: Result<(), Error>,
    /// The core's buffer, emptied or not.
    pub buffer: Option<Vec<u8>>,
    /// After [`Error::Busy`]: the commit, riders and all, to be handed in again as it is. A layer that put itself in the
    /// place of [`Commit::to`] takes itself out again.
    pub back: Option<Box<Commit>>,
}

/// Hears how commits ended, many at a time.
///
/// A store may call this (and release the riders) from a thread of its own or, before [`Store::commit`] returns, from
/// the submitter's, and holds no lock of its own meanwhile. An implementation waits for no lock that a submitter may
/// hold and does not block; it may hand in further commits.
pub trait Committed: Send + Sync {
    /// Takes the outcomes; but for commits that come back, their riders have been released already.
    fn ended(&self, commits: Vec<Ended>);
}

/// What to read of one twin.
#[derive(Clone, Debug)]
pub struct Load {
    /// The twin.
    pub address: Arc<Address>,
    /// Whether to read the core.
    pub core: bool,
    /// Pages by name.
    pub pages: Vec<CompactString>,
    /// Every page whose name starts so, up to `limit`, after `after`.
    pub prefix: Option<Prefix>,
    /// Read as the owner of the twin's slot: refused with [`Error::Fenced`] unless this epoch is in force. `None` reads
    /// what is there, for looks at the past and reads that may be stale.
    pub under: Option<Epoch>,
}

impl Load {
    /// Checks the epoch against the one in force.
    pub(crate) fn follows(&self, owner: Epoch) -> Result<(), Error> {
        match self.under {
            Some(ours) if ours != owner => Err(Error::Fenced { ours, owner }),
            Some(_) | None => Ok(()),
        }
    }
}

/// A run of pages in name order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Start of the names.
    pub prefix: CompactString,
    /// Only names greater than this.
    pub after: Option<CompactString>,
    /// Most pages.
    pub limit: usize,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The framed core record.
    pub core: Option<Vec<u8>>,
    /// The pages found, in name order.
    pub pages: Vec<(CompactString, Vec<u8>)>,
}

/// A page of an ordered walk; each reads on after the last entry of the one before.
#[derive(Clone, Debug)]
pub enum Scan {
    /// The wake index in time order, up to and including `until`.
    Wake {
        /// Latest time of interest.
        until: Timestamp,
        /// Read on after this entry.
        after: Option<(Timestamp, Address)>,
        /// Most entries.
        limit: usize,
    },
    /// Twins of a kind that have every one of these terms (all twins of the kind if none), in key order.
    /// A term ending in `*` matches every term that starts so.
    Find {
        /// The kind.
        kind: CompactString,
        /// Terms, all of which must hold.
        terms: Vec<CompactString>,
        /// Read on after this key.
        after: Option<Key>,
        /// Most twins.
        limit: usize,
    },
    /// Everything stored, in an order of the store's own, for an export.
    All {
        /// Read on after this mark.
        after: Option<Vec<u8>>,
        /// About how many bytes.
        bytes: usize,
    },
}

/// One entry of a walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A twin wants to be woken.
    Wake {
        /// When.
        at: Timestamp,
        /// Who.
        address: Address,
        /// The sequence of the record that said so.
        sequence: u64,
    },
    /// A twin that was found, with all its terms.
    Found {
        /// Who.
        key: Key,
        /// Its search terms.
        terms: Vec<CompactString>,
    },
    /// One stored thing, whole.
    Item(Item),
}

/// One stored thing as an export carries it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Item {
    /// Which epoch a slot had reached: it goes on from there.
    Claimed {
        /// The slot.
        slot: u16,
        /// Its epoch.
        epoch: u64,
    },
    /// A core record with what lies beside it.
    Core {
        /// Kind.
        kind: CompactString,
        /// Key.
        key: Key,
        /// Commits of this record.
        sequence: u64,
        /// Framed bytes.
        core: Vec<u8>,
        /// Wake time.
        wake_at: Option<Timestamp>,
        /// Search terms.
        terms: Vec<CompactString>,
    },
    /// A page.
    Page {
        /// Kind.
        kind: CompactString,
        /// Key.
        key: Key,
        /// Name.
        name: CompactString,
        /// Bytes.
        value: Vec<u8>,
    },
    /// A blob.
    Blob {
        /// Its id.
        id: [u8; 16],
        /// Bytes.
        value: Vec<u8>,
    },
}

/// A part of a walk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// What was found.
    pub entries: Vec<Entry>,
    /// Whether there is more.
    pub more: bool,
    /// For [`Scan::All`]: where to read on.
    pub mark: Option<Vec<u8>>,
}

/// What is known of a store's size and pace; for metrics and readiness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes on disk (or in memory).
    pub bytes: u64,
    /// Commits waiting.
    pub waiting: u64,
    /// Commits since start.
    pub commits: u64,
    /// Flushes since start.
    pub flushes: u64,
    /// The longest flush since start, syncing included.
    pub flush_longest: Duration,
    /// Of a store that other nodes share: what its servers did.
    pub shared: Option<SharedStats>,
}

/// What is known of the servers of a shared store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedStats {
    /// Commits of each batch.
    pub batches: Sizes,
    /// How long each batch took, in microseconds.
    pub took_us: Sizes,
    /// Messages that the copy farthest behind lacks, when it was looked last.
    pub lag: u64,
    /// Copies that were not current then.
    pub copies_behind: u64,
}

/// A store in memory: it neither waits nor queues, so a shard calls it under its lock.
pub trait Instant: Send + Sync {
    /// Reads one twin.
    fn load_now(&self, load: &Load) -> Result<Loaded, Error>;

    /// Commits; what may be used again is left in place. Neither releases riders nor tells [`Commit::to`].
    fn commit_now(&self, commit: &mut Commit) -> Result<(), Error>;
}

/// Durable bytes. Object-safe; no call blocks.
pub trait Store: Send + Sync + 'static {
    /// What a commit survives.
    fn level(&self) -> Level;

    /// The slot of a key: the only one, or, in a store that many nodes share, [`Slot::of`] its hash.
    fn slot_of(&self, key: &str) -> Slot {
        let _ = key;
        Slot::default()
    }

    /// Takes ownership of a slot: a new epoch, higher than any before, durable when answered. `expected` must be the
    /// epoch in force, or `None` to take it over whatever it is.
    fn claim(&self, slot: Slot, expected: Option<Epoch>, done: Done<Epoch>);

    /// Reads one twin. May complete before it returns. Sees every commit of this store that has ended, and may see one that has not:
    /// what it shows beyond those is certain only after a [`Store::barrier`].
    fn load(&self, load: Load, done: Done<Loaded>);

    /// Reads one twin on the calling thread, which may be a host's own, if that is likely to take microseconds; `None`
    /// says that [`Store::load`] is the way.
    fn load_here(&self, load: &Load) -> Option<Result<Loaded, Error>> {
        let _ = load;
        None
    }

    /// Completes when everything that a load has shown so far is as durable as commits are.
    fn barrier(&self, done: Done<()>) {
        done(Ok(()));
    }

    /// Reads a part of an ordered walk. In a store that many nodes share, wakes and searches see the slots claimed here.
    fn scan(&self, scan: Scan, done: Done<Walked>);

    /// Hands in a commit; hands it back if the queue is full or the store is closed, and says which. Once taken,
    /// [`Committed::ended`] is called exactly once.
    fn commit(&self, commit: Commit) -> Result<(), Refused>;

    /// Writes a blob under a fresh id, durable when answered; [`Error::TooBig`] above 4 MiB.
    fn put_blob(&self, value: Vec<u8>, done: Done<[u8; 16]>);

    /// Reads a blob.
    fn get_blob(&self, id: [u8; 16], done: Done<Option<Vec<u8>>>);

    /// Removes every blob not named in `keep` and older than this call; answers how many.
    fn sweep_blobs(&self, keep: Vec<[u8; 16]>, done: Done<u64>);

    /// Puts an exported thing in place, as it was; for imports into an empty store. Epochs go on from an exported one
    /// unless many nodes share the store: there they are numbers of its log.
    fn put_item(&self, item: Item, done: Done<()>);

    /// The way in for a store that does everything in place; most have none.
    fn instant(&self) -> Option<&dyn Instant> {
        None
    }

    /// Size and pace.
    fn stats(&self) -> Stats;

    /// Why nothing is written any more, once that is so: for good, until the store is opened again. Cheap to ask.
    fn failed(&self) -> Option<Arc<str>> {
        None
    }

    /// Makes everything taken so far durable and stops the store's threads; later commits are handed back for good.
    fn close(&self, done: Done<()>);
}

/// Whether one of a twin's terms is the wanted one, or starts as the wanted one does before its trailing `*`.
pub(crate) fn matches(wanted: &str, terms: &[CompactString]) -> bool {
    match wanted.strip_suffix('*') {
        Some(start) => terms.iter().any(|term| term.starts_with(start)),
        None => terms.iter().any(|term| term == wanted),
    }
}
