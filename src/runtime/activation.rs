//! One twin's life in memory: its state, what is staged behind the commit watermark, and what it waits for.

use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock},
    time::Duration,
};

use super::{cache::Cache, contain::tell, dispatch::Deliveries};
use crate::{
    model::{Key, Rider, Sealed, Timestamp},
    store::{Address, SharedTerms},
    twin::{Delivery, Failure, PageWrite, Pages, Twin, journal::Tail, outbox::Outbox, ring::Ring},
};

/// Longest wait between two attempts at an activation.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Whether a back-off goes on; one that ends later than any could was set before the clock went back.
pub(super) fn goes_on(until: Timestamp, now: Timestamp) -> bool {
    until > now && until.since(now) <= BACKOFF_MAX
}

/// A twin in memory. What an idle twin does not need lies behind the two options.
pub(super) struct Activation<K: Twin> {
    pub(super) key: Key,
    /// Low half of the key's hash.
    pub(super) hash: u32,
    /// Last use, in seconds of the runtime's life.
    pub(super) used_s: u32,
    /// Changes applied.
    pub(super) revision: u64,
    /// What a durable twin's record holds beside the state.
    pub(super) ledger: Option<Box<Ledger>>,
    /// What goes on; `None` for an idle twin.
    pub(super) busy: Option<Box<Busy<K>>>,
    pub(super) state: K,
}

/// What a durable twin's record holds beside the state.
pub(super) struct Ledger {
    pub(super) address: Arc<Address>,
    /// Commits of the core record that are known to be durable; before a load, at least so many there must have been.
    pub(super) sequence: u64,
    pub(super) terms: SharedTerms,
    /// At most this large is the encoded state: exact after each encode, grown by each change since.
    pub(super) state_bytes: usize,
    /// The wake time that is armed already.
    pub(super) armed: Option<Timestamp>,
    /// Whether the shard's list of unsaved twins names this one.
    pub(super) listed: bool,
    rare: Option<Box<Rare>>,
}

/// What a record holds of a twin that sends, takes keyed requests or keeps a journal; and its pages that messages named.
#[derive(Default)]
pub(super) struct Rare {
    pub(super) outbox: Outbox,
    pub(super) ring: Ring,
    pub(super) journal: Tail,
    /// Promises on their way, and those whose delivery failed.
    pub(super) deliveries: Deliveries,
    /// Pages that messages named.
    pub(super) cache: Cache,
}

/// The rare part of a ledger that has none.
static NOTHING: LazyLock<Rare> = LazyLock::new(Rare::default);

/// A twin as its record has it.
pub(super) struct Stored<K> {
    pub(super) state: K,
    pub(super) revision: u64,
    pub(super) sequence: u64,
    pub(super) state_bytes: usize,
    pub(super) terms: SharedTerms,
    pub(super) rare: Rare,
}

/// What goes on with a twin that is not idle.
pub(super) struct Busy<K: Twin> {
    pub(super) phase: Phase,
    /// Messages that wait for a load, in order.
    pub(super) waiting: VecDeque<Arc<dyn Delivery<K>>>,
    /// Decisions staged so far. Not the revision: one that only sends or only writes pages makes none.
    pub(super) mark: u64,
    /// What leaves when everything up to the mark beside it is durable.
    pub(super) staged: Vec<(u64, Arc<dyn Rider>)>,
    /// The commit under way.
    pub(super) flight: Option<Flight>,
    /// Whether the core record differs from what was last submitted.
    pub(super) dirty: bool,
    /// Whether an answer is staged that rests on the store: the next commit proves the ownership, whatever else is in it.
    pub(super) unproven: bool,
    /// Pages of turns not submitted yet.
    pub(super) pages: Vec<PageWrite>,
    /// The pages that the first waiting message named.
    pub(super) read: Read,
}

/// Where the reading of a message's pages stands.
#[derive(Default)]
pub(super) enum Read {
    /// Nothing is read.
    #[default]
    No,
    /// Asked of the store, under this number.
    Asked(u64),
    /// There, for the message that is first.
    Done(Pages),
}

/// The one commit under way.
#[derive(Clone, Copy)]
pub(super) struct Flight {
    /// Everything up to this mark is in it.
    pub(super) mark: u64,
    /// The epoch it was submitted under.
    pub(super) epoch: u64,
    /// Whether it carries the core record.
    pub(super) core: bool,
    /// Whether it carries pages, which a read would not see yet.
    pub(super) pages: bool,
}

/// Where an activation stands.
pub(super) enum Phase {
    /// Takes turns.
    Live,
    /// Waits for its record.
    Loading {
        /// Failed attempts before this one.
        attempts: u32,
    },
    /// Ended by a panic while a commit was under way; loads again when that has an outcome.
    Ending,
    /// Could not be activated; messages are refused until then.
    Backoff {
        /// When the next message may try again.
        until: Timestamp,
        /// Why.
        cause: Arc<str>,
        /// Failed attempts.
        attempts: u32,
        /// The next attempt needs an epoch above this one.
        above: Option<u64>,
    },
}

impl<K: Twin> Busy<K> {
    pub(super) fn new(phase: Phase) -> Self {
        Self {
            phase,
            waiting: VecDeque::new(),
            mark: 0,
            staged: Vec::new(),
            flight: None,
            dirty: false,
            unproven: false,
            pages: Vec::new(),
            read: Read::No,
        }
    }

    /// Whether nothing goes on any more.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Live)
            && self.waiting.is_empty()
            && self.staged.is_empty()
            && self.flight.is_none()
            && !self.is_unsubmitted()
    }

    /// Whether something is to be submitted.
    pub(super) fn is_unsubmitted(&self) -> bool {
        self.dirty || self.unproven || !self.pages.is_empty()
    }

    /// Whether a new message may have its turn now.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Live) && self.waiting.is_empty()
    }

    /// Whether something is not settled that a drain waits for.
    pub(super) fn is_under_way(&self) -> bool {
        !self.is_idle() && !matches!(self.phase, Phase::Backoff { .. })
    }

    /// Tells everything staged that it was not applied.
    pub(super) fn lose_staged(&mut self, sealed: &Sealed) {
        for (_, rider) in self.staged.drain(..) {
            tell(|| rider.release(sealed));
        }
        self.pages.clear();
        (self.dirty, self.unproven) = (false, false);
        self.read = Read::No;
    }

    /// Refuses everything that waits.
    pub(super) fn refuse_waiting(&mut self, failure: &Failure) {
        for call in self.waiting.drain(..) {
            tell(|| call.fail(failure.clone()));
        }
    }
}

impl<K: Twin> Activation<K> {
    pub(super) fn new(key: &str, hash: u64, used_s: u32) -> Option<Self> {
        let key = Key::parse(key).ok()?;
        let state = K::create(&key);
        Some(Self { key, hash: low(hash), used_s, revision: 0, ledger: None, busy: None, state })
    }

    /// A twin that was stored, ready for its first turn.
    pub(super) fn stored(key: Key, hash: u64, used_s: u32, ledger: Ledger, stored: Stored<K>) -> Self {
        let Stored { state, revision, sequence, state_bytes, terms, rare } = stored;
        let mut ledger = Box::new(Ledger { sequence, terms, state_bytes, ..ledger });
        ledger.set_rare(rare);
        Self { key, hash: low(hash), used_s, revision, ledger: Some(ledger), busy: None, state }
    }

    /// Puts what was stored in place.
    pub(super) fn take(&mut self, stored: Stored<K>) {
        let Stored { state, revision, sequence, state_bytes, terms, rare } = stored;
        (self.state, self.revision) = (state, revision);
        if let Some(ledger) = &mut self.ledger {
            (ledger.sequence, ledger.state_bytes, ledger.terms) = (sequence, state_bytes, terms);
            ledger.set_rare(rare);
        }
    }

    pub(super) fn busy(&mut self) -> &mut Busy<K> {
        self.busy.get_or_insert_with(|| Box::new(Busy::new(Phase::Live)))
    }

    /// Whether a turn may run now and its reply leave at once if it changes nothing.
    pub(super) fn is_settled(&self) -> bool {
        self.busy.is_none()
    }

    /// Frees what an idle twin does not need.
    pub(super) fn rest(&mut self) {
        if self.busy.as_ref().is_some_and(|busy| busy.is_idle()) {
            self.busy = None;
        }
    }
}

#[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "the low half is wanted")]
fn low(hash: u64) -> u32 {
    hash as u32
}

impl Ledger {
    /// Of a twin of which so many commits are known.
    pub(super) fn new(address: Arc<Address>, sequence: u64) -> Self {
        Self {
            address,
            sequence,
            terms: SharedTerms::default(),
            state_bytes: 0,
            armed: None,
            listed: false,
            rare: None,
        }
    }

    /// What most twins have nothing of, to look at.
    pub(super) fn rare(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&NOTHING)
    }

    /// The same, to change.
    pub(super) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Whether every one of these pages is kept in memory.
    pub(super) fn knows(&mut self, names: &[String]) -> bool {
        self.rare.as_mut().is_some_and(|rare| rare.cache.has(names))
    }

    /// Brings the pages kept in memory up to date with what a turn wrote.
    pub(super) fn wrote(&mut self, pages: &[PageWrite], bytes_max: usize) {
        let Some(rare) = &mut self.rare else { return };
        for page in pages {
            if rare.cache.knows(&page.name) {
                rare.cache.put(&page.name, page.value.clone(), bytes_max);
            }
        }
    }

    /// Puts what was read in place.
    pub(super) fn set_rare(&mut self, rare: Rare) {
        let Rare { outbox, ring, journal, .. } = &rare;
        let used = !outbox.is_unused() || !ring.is_empty() || !journal.is_empty();
        self.rare = used.then(|| Box::new(rare));
    }

    /// Bytes of the ledger and of what it holds.
    pub(super) fn bytes(&self) -> usize {
        let held = |rare: &Rare| {
            size_of::<Rare>() + rare.outbox.bytes() + rare.ring.heap_bytes() + rare.journal.bytes() + rare.cache.bytes()
        };
        size_of::<Self>() + size_of::<Address>() + self.rare.as_deref().map_or(0, held)
    }
}
