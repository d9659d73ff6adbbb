//! A shard: a lock, a table of activations and an inbox. Who may run a turn, and when.
//!
//! One lock orders everything that happens to a twin, so activation and passivation cannot race. It is held for one
//! turn or one bounded batch, never across a load, a commit or an await, and never two of them at once: what a batch
//! caused (replies, loads, posts) is collected in [`Out`] and performed after unlocking.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    sync::{Arc, Weak, atomic::AtomicU64},
};

use super::{
    Door,
    activation::Activation,
    contain::tell,
    inbox::{Bounds, Inbox},
    shared::Shared,
    sync::{Mutex, MutexGuard},
    table::Table,
    witness::Witness,
};
use crate::{
    model::{Key, Outcome, Rider, Sealed, Timestamp},
    store::{self, Commit, Committed, Ended, Epoch, Load, Loaded},
    twin::{Delivery, Failure, Handed, Twin, Went},
};

/// A message with its target, as the inbox holds it.
pub(super) struct Item<K: Twin> {
    pub(super) hash: u64,
    pub(super) key: Key,
    pub(super) call: Arc<dyn Delivery<K>>,
}

/// What the runtime tells a shard.
pub(super) enum Note {
    /// A commit has an outcome.
    Ended(Ended),
    /// A load came back for the activation at this index; it was asked for under this epoch.
    Loaded(u32, Epoch, Result<Loaded, store::Error>),
    /// The pages that a message of the activation at this index named, with the number they were asked under.
    Read(u32, u64, Result<Loaded, store::Error>),
    /// The activation at this index has messages left that wait for nothing but their turns.
    Resume(u32),
    /// A twin wants to be activated now; its wake entry was written with a record of this sequence (0: not known).
    Wake(u64, Key, u64),
    /// How the delivery of a promise went.
    Settled { hash: u64, key: Key, number: u64, went: Went },
    /// Time for passivation and saves; `drain` means all of them, now.
    Tick { drain: bool },
}

/// One part of a kind's twins on this node.
#[repr(align(128))]
pub(super) struct Shard<K: Twin> {
    pub(super) inbox: Inbox<Item<K>, Note>,
    pub(super) core: Mutex<Core<K>>,
    pub(super) shared: Arc<Shared>,
    /// Observations whose facts did not fit the record.
    pub(super) facts_dropped: AtomicU64,
    this: Weak<Self>,
}

/// What the lock guards.
pub(super) struct Core<K: Twin> {
    pub(super) table: Table<K>,
    pub(super) out: Out<K>,
    /// Room to encode what is only measured.
    pub(super) scratch: Vec<u8>,
    /// Buffers for records, back from the store.
    pub(super) buffers: Vec<Vec<u8>>,
    /// Twins whose commit found the store's queue full.
    pub(super) stuck: Vec<u32>,
    /// Commits that the store was too busy for, to be handed in again as they are.
    pub(super) back: Vec<Commit>,
    /// Twins with observed pages to save, with the time to do it.
    pub(super) unsaved: VecDeque<(Timestamp, u32)>,
    /// Turns of messages that waited, left in this hold of the lock.
    pub(super) resumes_left: usize,
    /// Number of the newest read of pages: an answer to an older one finds nobody.
    pub(super) reads: u64,
    /// Where the passivation sweep goes on.
    pub(super) sweep: u32,
    pub(super) witness: Witness,
    /// Asks whose answer ended their twin's activation.
    pub(super) given_up: Vec<(Key, u64)>,
    /// Whether the runtime has stopped and nothing would be answered any more.
    pub(super) over: bool,
    pub(super) counts: Counts,
}

/// What is done after unlocking.
pub(super) struct Out<K: Twin> {
    pub(super) released: Vec<Arc<dyn Rider>>,
    pub(super) failed: Vec<(Arc<dyn Delivery<K>>, Failure)>,
    pub(super) loads: Vec<(u32, Epoch, Load)>,
    /// Messages for twins that another runtime has.
    pub(super) elsewhere: Vec<(u64, Key, Arc<dyn Delivery<K>>)>,
    /// Pages to read for the first waiting message.
    pub(super) reads: Vec<(u32, u64, Load)>,
}

/// What a shard counts; sums over shards become metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Twins in memory.
    pub resident: u64,
    /// Their bytes, estimated.
    pub resident_bytes: u64,
    /// Twins brought to memory.
    pub activations: u64,
    /// Activations that failed.
    pub activation_failures: u64,
    /// Activations refused because the record was older than one seen before.
    pub backwards: u64,
    /// Twins that left memory.
    pub passivations: u64,
    /// Turns.
    pub turns: u64,
    /// Turns that ran on their caller's thread.
    pub inline_turns: u64,
    /// Turns that ended in a refusal.
    pub rejections: u64,
    /// Turns that panicked.
    pub panics: u64,
    /// Messages refused for want of room.
    pub shed: u64,
    /// Messages whose deadline passed before their turn.
    pub expired: u64,
    /// Commits handed to the store.
    pub commits: u64,
    /// Commits that did not end well.
    pub commit_failures: u64,
    /// Those of them that the store refused because another owns the twin.
    pub commits_fenced: u64,
    /// Those of them of which nobody knows whether they were done.
    pub commits_unknown: u64,
    /// Observations whose facts were dropped because the record was full.
    pub facts_dropped: u64,
    /// Deliveries of promised messages that failed and are tried again.
    pub delivery_failures: u64,
    /// Promised messages that their target refused as too old to tell whether it had them; they are dropped.
    pub effects_dropped: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.resident += other.resident;
        self.resident_bytes += other.resident_bytes;
        self.activations += other.activations;
        self.activation_failures += other.activation_failures;
        self.backwards += other.backwards;
        self.passivations += other.passivations;
        self.turns += other.turns;
        self.inline_turns += other.inline_turns;
        self.rejections += other.rejections;
        self.panics += other.panics;
        self.shed += other.shed;
        self.expired += other.expired;
        self.commits += other.commits;
        self.commit_failures += other.commit_failures;
        self.commits_fenced += other.commits_fenced;
        self.commits_unknown += other.commits_unknown;
        self.facts_dropped += other.facts_dropped;
        self.delivery_failures += other.delivery_failures;
        self.effects_dropped += other.effects_dropped;
    }
}

thread_local! {
    /// Address of the shard whose lock this thread holds; 0 for none.
    static HELD: Cell<usize> = const { Cell::new(0) };
    /// Parcels for the held shard, posted while its lock is held.
    static LOCAL: RefCell<VecDeque<(u64, Key, Handed)>> = const { RefCell::new(VecDeque::new()) };
}

/// Longest run of turns within one hold of the lock that answer each other inside the shard.
const LOCAL_STEPS_MAX: usize = 64;
/// Turns of messages that waited (for a load, for pages) within one hold of the lock.
const RESUMES_MAX: usize = 64;

impl<K: Twin> Shard<K> {
    pub(super) fn new(shared: Arc<Shared>) -> Arc<Self> {
        let bounds = Bounds { items_max: shared.config.inbox_items_max, bytes_max: shared.config.inbox_bytes_max };
        Arc::new_cyclic(|this| Self {
            inbox: Inbox::new(bounds),
            core: Mutex::new(Core::new(!shared.slots.is_one())),
            shared,
            facts_dropped: AtomicU64::new(0),
            this: this.clone(),
        })
    }

    pub(super) fn arc(&self) -> Arc<Self> {
        self.this.upgrade().expect("a method runs on a shard that somebody holds")
    }

    /// The inline door: the lock, if nothing waits and nobody holds it.
    pub(super) fn door(&self) -> Option<MutexGuard<'_, Core<K>>> {
        let is_open = match &self.shared.config.door {
            Door::Open => true,
            Door::Closed => false,
            Door::Scripted(open) => self.inbox.pending() == 0 && open(),
        };
        if is_open { self.inbox.enter(&self.core) } else { None }
    }

    /// The lock for what the store answered, on the thread that heard of it: messages that wait do not matter to it.
    fn side_door(&self) -> Option<MutexGuard<'_, Core<K>>> {
        let is_open = match &self.shared.config.door {
            Door::Open => true,
            Door::Closed => false,
            Door::Scripted(open) => open(),
        };
        if is_open { self.core.try_lock() } else { None }
    }

    /// Queues a message.
    pub(super) fn push(&self, hash: u64, key: Key, call: Arc<dyn Delivery<K>>) -> Result<(), Arc<dyn Delivery<K>>> {
        let (lane, bytes) = (call.lane().index(), call.bytes());
        self.inbox.push(lane, bytes, Item { hash, key, call }).map_err(|item| item.call)
    }

    /// Takes a parcel: in place if this thread holds this shard's lock, otherwise through the inbox.
    pub(super) fn post(&self, hash: u64, key: &Key, parcel: Handed) {
        if !self.shared.is_here(hash) {
            if let Some(call) = parcel.open::<K>() {
                self.shared.forward(hash, key, call);
            }
            return;
        }
        if HELD.get() == self.address() {
            LOCAL.with_borrow_mut(|local| local.push_back((hash, key.clone(), parcel)));
            return;
        }
        let Some(call) = parcel.open::<K>() else { return };
        if let Err(call) = self.push(hash, key.clone(), call) {
            call.fail(self.why_full("the target's inbox"));
        }
    }

    /// Why the inbox did not take a message.
    pub(super) fn why_full(&self, what: &'static str) -> Failure {
        if self.shared.is_closed() { Failure::Stopping } else { Failure::Overloaded { what: what.into() } }
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Runs `work` under the lock that `core` is, then what its turns posted to this very shard.
    pub(super) fn hold<R>(&self, core: &mut Core<K>, now: Timestamp, work: impl FnOnce(&mut Core<K>) -> R) -> R {
        let held = Held { shard: self, outer: HELD.replace(self.address()) };
        core.resumes_left = RESUMES_MAX;
        let result = work(core);
        for _ in 0..LOCAL_STEPS_MAX {
            let Some((hash, key, parcel)) = LOCAL.with_borrow_mut(VecDeque::pop_front) else { break };
            if let Some(call) = parcel.open::<K>() {
                core.receive(self, hash, &key, call, now);
                core.release_posts();
            }
        }
        drop(held);
        result
    }

    /// Waits for the lock, works under it and performs what that caused.
    pub(super) fn hold_now<R>(&self, work: impl FnOnce(&mut Core<K>, Timestamp) -> R) -> R {
        let now = self.shared.clock.now();
        let mut core = self.core.lock();
        let result = self.hold(&mut core, now, |core| work(core, now));
        let stuck = core.is_stuck();
        let mut out = core.take_out();
        drop(core);
        if stuck {
            self.inbox.note([]);
        }
        if let Some(out) = &mut out {
            self.perform(out);
        }
        result
    }

    /// Performs what a batch caused; call after unlocking.
    pub(super) fn perform(&self, out: &mut Out<K>) {
        loop {
            for rider in out.released.drain(..) {
                tell(|| rider.release(&Sealed::Durable));
            }
            for (call, failure) in out.failed.drain(..) {
                tell(|| call.fail(failure));
            }
            for (hash, key, call) in out.elsewhere.drain(..) {
                self.shared.forward(hash, &key, call);
            }
            let here = self.read(out);
            if here.is_empty() {
                return;
            }
            // What was read here goes on here, if nobody else has the lock.
            let Some(mut core) = self.side_door() else { return self.inbox.note(here) };
            let now = self.shared.clock.now();
            self.hold(&mut core, now, |core| here.into_iter().for_each(|note| core.note(self, note, now)));
            let stuck = core.is_stuck();
            std::mem::swap(&mut core.out, out);
            drop(core);
            if stuck {
                self.inbox.note([]);
            }
        }
    }

    /// Asks for what is to be read; answers what was read at once.
    fn read(&self, out: &mut Out<K>) -> Vec<Note> {
        let mut here = Vec::new();
        let Some(store) = &self.shared.store else { return here };
        for (at, epoch, load) in out.loads.drain(..) {
            if let Some(loaded) = store.load_here(&load) {
                here.push(Note::Loaded(at, epoch, loaded));
                continue;
            }
            let shard = self.arc();
            store.load(load, Box::new(move |loaded| shard.inbox.note([Note::Loaded(at, epoch, loaded)])));
        }
        for (at, number, load) in out.reads.drain(..) {
            if let Some(read) = store.load_here(&load) {
                here.push(Note::Read(at, number, read));
                continue;
            }
            let shard = self.arc();
            store.load(load, Box::new(move |read| shard.inbox.note([Note::Read(at, number, read)])));
        }
        here
    }
}

/// A hold of a shard's lock by this thread. However it ends, later posts take the inbox, and so does what is left of
/// those that were made in it.
struct Held<'a, K: Twin> {
    shard: &'a Shard<K>,
    outer: usize,
}

impl<K: Twin> Drop for Held<'_, K> {
    fn drop(&mut self) {
        HELD.set(self.outer);
        if LOCAL.with_borrow(VecDeque::is_empty) {
            return;
        }
        for (hash, key, parcel) in LOCAL.with_borrow_mut(std::mem::take) {
            tell(|| self.shard.post(hash, &key, parcel));
        }
    }
}

impl<K: Twin> Committed for Shard<K> {
    fn ended(&self, commits: Vec<Ended>) {
        let Some(mut core) = self.side_door() else { return self.inbox.note(commits.into_iter().map(Note::Ended)) };
        let now = self.shared.clock.now();
        let later: Vec<_> = commits.into_iter().filter_map(|ended| core.ended_at_once(self, ended, now)).collect();
        let stuck = core.is_stuck();
        let mut out = core.take_out();
        drop(core);
        if stuck || !later.is_empty() {
            self.inbox.note(later.into_iter().map(Note::Ended));
        }
        if let Some(out) = &mut out {
            self.perform(out);
        }
    }
}

impl<K: Twin> Default for Out<K> {
    fn default() -> Self {
        Self { released: Vec::new(), failed: Vec::new(), loads: Vec::new(), elsewhere: Vec::new(), reads: Vec::new() }
    }
}

impl<K: Twin> Out<K> {
    pub(super) fn is_empty(&self) -> bool {
        self.released.is_empty()
            && self.failed.is_empty()
            && self.loads.is_empty()
            && self.elsewhere.is_empty()
            && self.reads.is_empty()
    }
}

impl<K: Twin> Core<K> {
    fn new(slotted: bool) -> Self {
        Self {
            table: Table::new(slotted),
            out: Out::default(),
            scratch: Vec::new(),
            buffers: Vec::new(),
            stuck: Vec::new(),
            back: Vec::new(),
            unsaved: VecDeque::new(),
            resumes_left: 0,
            reads: 0,
            sweep: 0,
            witness: Witness::default(),
            given_up: Vec::new(),
            over: false,
            counts: Counts::default(),
        }
    }

    /// The end of all activations: what waits or is staged is told that nothing of it was done. What the store took
    /// is the store's to answer.
    pub(super) fn end(&mut self, shard: &Shard<K>) {
        self.over = true;
        self.unstick(shard, shard.shared.clock.now());
        let cause: Arc<str> = "the runtime stopped before this was committed".into();
        let lost = Sealed::Lost { outcome: Outcome::NotApplied, cause };
        for commit in self.back.drain(..) {
            commit.riders.iter().for_each(|rider| tell(|| rider.release(&lost)));
        }
        for at in 0..self.table.end() {
            if let Some(busy) = self.table.get_mut(at).and_then(|twin| twin.busy.as_mut()) {
                busy.lose_staged(&lost);
                busy.refuse_waiting(&Failure::Stopping);
            }
        }
    }

    /// Does what the runtime tells the shard.
    pub(super) fn note(&mut self, shard: &Shard<K>, note: Note, now: Timestamp) {
        match note {
            Note::Ended(ended) => self.ended(shard, ended, now),
            Note::Loaded(at, epoch, loaded) => {
                shard.shared.wakes.ended();
                self.contained(shard, at, |core| core.loaded(shard, at, epoch, loaded, now)).ok();
            }
            Note::Read(at, number, read) => {
                self.contained(shard, at, |core| core.pages_read(shard, at, number, read, now)).ok();
            }
            Note::Resume(at) => {
                self.contained(shard, at, |core| core.resume(shard, at, now)).ok();
            }
            Note::Wake(hash, key, sequence) => {
                self.wake_contained(shard, hash, &key, sequence, now);
                shard.shared.wakes.ended();
            }
            Note::Settled { hash, key, number, went } => {
                let settle = |core: &mut Self| core.settled(shard, hash, &key, number, &went, now);
                self.contained_by(shard, hash, &key, settle).ok();
            }
            Note::Tick { drain } => self.tick(shard, drain, now),
        }
    }

    /// What is to be done after unlocking, if anything.
    pub(super) fn take_out(&mut self) -> Option<Out<K>> {
        (!self.out.is_empty()).then(|| std::mem::take(&mut self.out))
    }

    /// Lets replies go that only post further messages, so that twins of one shard answer each other within one hold.
    fn release_posts(&mut self) {
        for rider in self.out.released.drain(..) {
            tell(|| rider.release(&Sealed::Durable));
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let resident = u64::try_from(self.table.len()).unwrap_or(u64::MAX);
        let each = u64::try_from(size_of::<Activation<K>>() + 16).unwrap_or(u64::MAX);
        Counts { resident, resident_bytes: self.counts.resident_bytes.max(resident * each), ..self.counts }
    }
}
