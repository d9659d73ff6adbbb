//! From applied to durable and back: submitting a twin's record, hearing how it ended, loading it again.

use std::sync::Arc;

use super::{
    activation::{Activation, BACKOFF_MAX, Flight, Ledger, Phase, Read},
    contain::{asked, tell},
    hold::RESERVED_KEYS,
    install::arm,
    restore::{Restored, restore},
    shard::{Core, Note, Shard},
};
use crate::{
    model::{Key, Outcome, Sealed, Timestamp, limits},
    store::{self, Commit, Committed, Ended, Epoch, Loaded},
    twin::{
        Failure, PageWrite, Persistence, Terms, Twin, journal,
        record::{self, Head, Section},
        ring,
    },
};

/// Most pages of a forgotten journal that one commit deletes.
const SWEPT_MAX: usize = 32;
/// Record buffers a shard keeps for reuse.
const BUFFERS_MAX: usize = 64;

impl<K: Twin> Core<K> {
    /// Hands a twin's record to the store if it changed, or a commit of nothing if the ownership is to be proven, and no
    /// commit is under way. Says so if the store refused in place.
    pub(super) fn submit(&mut self, shard: &Shard<K>, at: u32, now: Timestamp) -> Option<Failure> {
        let store = shard.shared.store.as_ref()?;
        let twin = self.table.get_mut(at)?;
        let wake_at = twin.state.wake_at();
        let Activation { key, revision, ledger: Some(ledger), busy: Some(busy), state, .. } = twin else { return None };
        if busy.flight.is_some() || !matches!(busy.phase, Phase::Live) || !busy.is_unsubmitted() {
            return None;
        }
        let slot = shard.shared.slots.of_key(key);
        let epoch = shard.shared.epoch(slot);
        let core = busy.dirty.then(|| {
            rotate::<K>(ledger, &mut busy.pages, state, *revision);
            let mut buffer = self.buffers.pop().unwrap_or_default();
            ledger.state_bytes = encode(state, ledger, *revision, epoch.0, now, &mut buffer);
            buffer
        });
        if core.is_some() {
            index(state, ledger);
        }
        let promised = ledger.rare().outbox.iter().map(|promise| promise.made_at).min();
        // What is left of a forgotten journal goes with the next commit, which follows this one; after a crash the twin
        // is woken for it.
        let unswept = core.is_some() && ledger.rare().journal.is_unswept();
        let to: Arc<dyn Committed> = shard.arc();
        let mut commit = Commit {
            address: Arc::clone(&ledger.address),
            slot,
            epoch,
            sequence: ledger.sequence + u64::from(core.is_some()),
            core,
            pages: std::mem::take(&mut busy.pages),
            wake_at: [wake_at, promised, unswept.then_some(now)].into_iter().flatten().min(),
            terms: ledger.terms.clone(),
            riders: busy.staged.drain(..).map(|(_, rider)| rider).collect(),
            token: u64::from(at),
            to,
        };
        if let Some(instant) = store.instant() {
            (busy.dirty, busy.unproven) = (unswept, false);
            self.counts.commits += 1;
            let result = instant.commit_now(&mut commit);
            self.buffers.extend(commit.core.take());
            return match result {
                Ok(()) => {
                    ledger.sequence = commit.sequence;
                    self.out.released.append(&mut commit.riders);
                    arm(shard, twin, wake_at);
                    if unswept {
                        return self.submit(shard, at, now);
                    }
                    twin.rest();
                    None
                }
                Err(error) => {
                    let sealed = error.sealed();
                    commit.riders.iter().for_each(|rider| rider.release(&sealed));
                    self.lost(shard, at, &error);
                    Option::from(&sealed)
                }
            };
        }
        // Before the store takes it: it may tell the outcome before `commit` returns.
        busy.flight = Some(Flight {
            mark: busy.mark,
            epoch: commit.epoch.0,
            core: commit.core.is_some(),
            pages: !commit.pages.is_empty(),
        });
        if !commit.pages.is_empty() {
            // What is being read may lie before these pages or behind them; it is read again when they are durable.
            busy.read = Read::No;
        }
        let was_dirty = std::mem::replace(&mut busy.dirty, unswept);
        let was_unproven = std::mem::take(&mut busy.unproven);
        self.counts.commits += 1;
        match store.commit(commit) {
            Ok(()) => {
                if was_dirty {
                    arm(shard, twin, wake_at);
                }
            }
            Err(refused) if !refused.may_try_again() => {
                self.counts.commits -= 1;
                let store::Refused { commit, why } = refused;
                let sealed = why.sealed();
                commit.riders.iter().for_each(|rider| rider.release(&sealed));
                self.lost(shard, at, &why);
                return Option::from(&sealed);
            }
            Err(store::Refused { commit, .. }) => {
                self.counts.commits -= 1;
                let Commit { core, pages, riders, .. } = *commit;
                let mark = busy.mark;
                busy.flight = None;
                (busy.dirty, busy.unproven) = (was_dirty, was_unproven);
                busy.pages = pages;
                busy.staged = riders.into_iter().map(|rider| (mark, rider)).collect();
                tracing::trace!(kind = K::KIND, %key, "the store's queue is full; the commit goes with the next outcome");
                self.buffers.extend(core);
                self.stuck.push(at);
            }
        }
        None
    }

    /// Takes the outcome of a commit if that neither runs a turn nor ends the activation; hands it back otherwise.
    pub(super) fn ended_at_once(&mut self, shard: &Shard<K>, ended: Ended, now: Timestamp) -> Option<Ended> {
        let busy = u32::try_from(ended.token).ok().and_then(|at| self.table.get(at)?.busy.as_ref());
        if ended.back.is_none() && (ended.result.is_err() || !busy.is_some_and(|busy| busy.is_open())) {
            return Some(ended);
        }
        self.ended(shard, ended, now);
        None
    }

    /// Takes the outcome of a commit.
    pub(super) fn ended(&mut self, shard: &Shard<K>, ended: Ended, now: Timestamp) {
        let Ok(at) = u32::try_from(ended.token) else { return };
        if let Some(buffer) = ended.buffer
            && self.buffers.len() < BUFFERS_MAX
        {
            self.buffers.push(buffer);
        }
        if let Some(back) = ended.back {
            // It is under way still.
            self.back.push(*back);
            return;
        }
        let take = |core: &mut Self| match ended.result {
            Ok(()) => core.sealed(shard, at, now),
            Err(error) => core.lost(shard, at, &error),
        };
        self.contained(shard, at, take).ok();
    }

    /// A commit is durable: what it covered leaves, what came later goes with the next one.
    fn sealed(&mut self, shard: &Shard<K>, at: u32, now: Timestamp) {
        let Some(twin) = self.table.get_mut(at) else { return };
        let (Some(busy), Some(ledger)) = (&mut twin.busy, &mut twin.ledger) else { return };
        let Some(flight) = busy.flight.take() else { return };
        ledger.sequence += u64::from(flight.core);
        if matches!(busy.phase, Phase::Ending) {
            busy.phase = Phase::Loading { attempts: 0 };
            let address = Arc::clone(&ledger.address);
            if !self.is_still_ours(shard, at) {
                return;
            }
            self.load(shard, at, address, false);
            return;
        }
        let covered = busy.staged.iter().take_while(|(mark, _)| *mark <= flight.mark).count();
        // What is dirty again without a decision (a settled promise, an observed page) does not hold a reply back.
        self.out.released.extend(busy.staged.drain(..covered).map(|(_, rider)| rider));
        self.submit(shard, at, now);
        self.resume(shard, at, now);
        if let Some(twin) = self.table.get_mut(at) {
            // The index may have been read past this time while the commit was under way.
            let next = twin.state.wake_at();
            arm(shard, twin, next);
            twin.rest();
        }
    }

    /// A commit did not end well: the activation ends, the next one reads the truth from the store.
    fn lost(&mut self, shard: &Shard<K>, at: u32, error: &store::Error) {
        self.counts.commit_failures += 1;
        self.counts.commits_fenced += u64::from(matches!(error, store::Error::Fenced { .. }));
        self.counts.commits_unknown += u64::from(error.outcome() == Outcome::Unknown);
        let Some(twin) = self.table.get_mut(at) else { return };
        let key = twin.key.clone();
        match error {
            store::Error::Sequence { .. } => {
                tracing::error!(kind = K::KIND, %key, %error, "the store contradicts this activation: a bug of the runtime; the activation ends");
            }
            store::Error::Fenced { .. }
            | store::Error::Busy(_)
            | store::Error::TooBig { .. }
            | store::Error::Unknown(_)
            | store::Error::Unavailable(_) => {
                tracing::warn!(kind = K::KIND, %key, %error, "a commit failed; the activation ends");
            }
        }
        let cause: Arc<str> = format!("an earlier commit of this twin failed: {error}").into();
        let flight = twin.busy.as_mut().and_then(|busy| busy.flight.take());
        if let Some(busy) = &mut twin.busy {
            busy.lose_staged(&Sealed::Lost { outcome: Outcome::NotApplied, cause: Arc::clone(&cause) });
            if shard.shared.cluster.is_none() {
                busy.refuse_waiting(&Failure::Lost { outcome: Outcome::NotApplied, cause: Arc::clone(&cause) });
            }
        }
        if !self.is_still_ours(shard, at) {
            return;
        }
        self.send_waiting_on(at);
        // What woke it, and what it had promised before, is in the record still, and nobody else remembers it.
        let until = shard.shared.clock.now();
        shard.shared.wakes.again(until.after(shard.shared.config.backoff_min), K::KIND, &key);
        let claim = error.outcome() == Outcome::Unknown || matches!(error, store::Error::Fenced { .. });
        let Some(twin) = self.table.get_mut(at) else { return };
        let seen = twin.ledger.as_ref().map_or(0, |ledger| ledger.sequence);
        if !claim {
            self.table.remove(at);
            self.saw(shard, &key, seen);
            return;
        }
        // One claim ends the commits of all twins that were under way: each of them needs an epoch above its own
        // commit's, not above the present one, or they would fence each other for ever.
        let slot = shard.shared.slots.of_key(&key);
        let above = flight.map_or_else(|| shard.shared.epoch(slot).0, |flight| flight.epoch);
        // It is only a place holder until the load; the outcome of the commit is told, whatever comes here.
        if let Ok(state) = asked(|| K::create(&key)) {
            twin.state = state;
        }
        twin.revision = 0;
        if let Some(ledger) = &mut twin.ledger {
            **ledger = Ledger::new(Arc::clone(&ledger.address), seen);
        }
        twin.busy().phase = Phase::Backoff { until, cause, attempts: 0, above: Some(above) };
        if shard.shared.epoch(slot).0 <= above {
            shard.shared.reclaim(slot, Epoch(above));
        }
    }

    /// Takes a twin's record as it was read, and lets its turns begin.
    pub(super) fn loaded(
        &mut self,
        shard: &Shard<K>,
        at: u32,
        epoch: Epoch,
        result: Result<Loaded, store::Error>,
        now: Timestamp,
    ) {
        if !self.is_still_ours(shard, at) {
            return;
        }
        let Some(twin) = self.table.get_mut(at) else { return };
        let Some(attempts) = twin.busy.as_ref().and_then(|busy| match busy.phase {
            Phase::Loading { attempts } => Some(attempts),
            Phase::Live | Phase::Ending | Phase::Backoff { .. } => None,
        }) else {
            return;
        };
        let seen = twin.ledger.as_ref().map_or(0, |ledger| ledger.sequence);
        if shard.shared.cluster.is_some()
            && shard.shared.epoch(shard.shared.slots.of_key(&twin.key)) != epoch
            && let Some(ledger) = &twin.ledger
        {
            // Read under an epoch that is over: somebody else may have written since.
            let address = Arc::clone(&ledger.address);
            return self.load(shard, at, address, false);
        }
        let revived = result.map_err(|error| (error.to_string(), false)).and_then(|loaded| {
            let restored = asked(|| restore(&twin.key, seen, loaded));
            let restored = restored.map_err(|panic| (format!("reading its record panicked: {panic}"), false))?;
            restored.map_err(|e| (e.to_string(), e.is_backwards()))
        });
        match revived {
            Ok(Restored::Whole(stored)) => {
                twin.take(*stored);
                twin.busy().phase = Phase::Live;
                self.begun(shard, at, now);
            }
            Ok(Restored::NeedsRing) => {
                let address = twin.ledger.as_ref().map(|ledger| Arc::clone(&ledger.address));
                if let Some(address) = address {
                    self.load(shard, at, address, true);
                }
            }
            Err((cause, backwards)) => {
                self.counts.activation_failures += 1;
                self.counts.backwards += u64::from(backwards);
                let wait = shard.shared.config.backoff_min * 2_u32.saturating_pow(attempts.min(9));
                let until = now.after(wait.min(BACKOFF_MAX));
                let cause: Arc<str> = cause.into();
                if backwards {
                    tracing::error!(kind = K::KIND, key = %twin.key, %cause, attempts, "a twin's record is older than one that was durable; it is left as it is and the twin stays out of memory");
                } else {
                    tracing::warn!(kind = K::KIND, key = %twin.key, %cause, attempts, "a twin cannot be activated; it is tried again");
                }
                // Whatever it was to be woken for is not forgotten.
                shard.shared.wakes.again(until, K::KIND, &twin.key);
                let busy = twin.busy();
                busy.refuse_waiting(&Failure::Backoff { until, cause: Arc::clone(&cause) });
                busy.phase = Phase::Backoff { until, cause, attempts: attempts + 1, above: None };
            }
        }
    }

    /// What an activation begins with: promises to send, a time to wake up at, messages that waited.
    pub(super) fn begun(&mut self, shard: &Shard<K>, at: u32, now: Timestamp) {
        self.redeliver(shard, at, now);
        let Some(twin) = self.table.get_mut(at) else { return };
        if twin.ledger.as_ref().is_some_and(|ledger| ledger.rare().journal.is_unswept()) {
            twin.busy().dirty = true;
            self.submit(shard, at, now);
        }
        let Some(twin) = self.table.get_mut(at) else { return };
        let next = twin.state.wake_at();
        arm(shard, twin, next);
        self.resume(shard, at, now);
        if next.is_some_and(|due| due <= now) {
            self.wake(shard, at, now);
        }
        if let Some(twin) = self.table.get_mut(at) {
            twin.rest();
        }
    }

    /// Gives what waited its turns, as long as nothing holds it back again and the hold of the lock is not too long.
    pub(super) fn resume(&mut self, shard: &Shard<K>, at: u32, now: Timestamp) {
        let Some(twin) = self.table.get_mut(at) else { return };
        let key = twin.key.clone();
        let Some(busy) = &mut twin.busy else { return };
        if matches!(busy.read, Read::Asked(_)) {
            return;
        }
        let mut waiting = std::mem::take(&mut busy.waiting);
        while let Some(call) = waiting.pop_front() {
            if self.resumes_left == 0 {
                // Enough for one hold of the lock: the others go on with the next batch.
                waiting.push_front(call);
                shard.inbox.note([Note::Resume(at)]);
                break;
            }
            self.resumes_left -= 1;
            self.deliver(shard, at, call, now);
            if let Some(busy) = self.table.get_mut(at).and_then(|twin| twin.busy.as_mut())
                && matches!(busy.read, Read::Done(_))
            {
                // The message they were read for had no use for them; they are not the next one's.
                busy.read = Read::No;
            }
            if self.table.get(at).is_none() {
                // Its turn panicked and ended the activation; the others have a new one.
                for call in waiting {
                    self.receive(shard, Key::hash_of(&key), &key, call, now);
                }
                return;
            }
            let held =
                self.table.get(at).and_then(|twin| twin.busy.as_ref()).is_some_and(|busy| !busy.waiting.is_empty());
            if held {
                break;
            }
        }
        if waiting.is_empty() {
            return;
        }
        if let Some(twin) = self.table.get_mut(at) {
            twin.busy().waiting.append(&mut waiting);
        }
    }

    /// Saves the observed pages of one twin that changed; answers how many KiB that will write.
    pub(super) fn save(&mut self, shard: &Shard<K>, at: u32, bytes_max: usize, now: Timestamp) -> usize {
        let Some(twin) = self.table.get_mut(at) else { return 0 };
        if twin
            .busy
            .as_ref()
            .is_some_and(|busy| !matches!(busy.phase, Phase::Live) || busy.flight.is_some() || !busy.pages.is_empty())
        {
            return 0;
        }
        let pages = twin.state.save(now, bytes_max);
        let bytes: usize = pages.iter().map(|page| page.value.as_ref().map_or(0, Vec::len)).sum();
        if !pages.is_empty() {
            if let Some(ledger) = &mut twin.ledger {
                ledger.wrote(&pages, shard.shared.config.page_cache_bytes_max);
            }
            twin.busy().pages = pages;
            self.submit(shard, at, now);
        }
        bytes.div_ceil(1024)
    }

    /// Whether something is to be handed to the store again.
    pub(super) fn is_stuck(&self) -> bool {
        !self.stuck.is_empty() || !self.back.is_empty()
    }

    /// Tries again what the store was too busy for.
    pub(super) fn unstick(&mut self, shard: &Shard<K>, now: Timestamp) {
        for commit in std::mem::take(&mut self.back) {
            self.hand_in_again(shard, commit);
        }
        for at in std::mem::take(&mut self.stuck) {
            self.contained(shard, at, |core| core.submit(shard, at, now)).ok();
        }
    }
}

impl<K: Twin> Core<K> {
    /// Hands in a commit that came back, as it was.
    fn hand_in_again(&mut self, shard: &Shard<K>, commit: Commit) {
        let Some(store) = &shard.shared.store else { return };
        let at = u32::try_from(commit.token).ok();
        let Err(refused) = store.commit(commit) else { return };
        let again = refused.may_try_again();
        let store::Refused { commit, why } = refused;
        if again {
            self.back.push(*commit);
            return;
        }
        let sealed = why.sealed();
        commit.riders.iter().for_each(|rider| tell(|| rider.release(&sealed)));
        if let Some(at) = at {
            self.contained(shard, at, |core| core.lost(shard, at, &why)).ok();
        }
    }
}

/// Moves the older parts of ring and journal to pages when their share of the core is full.
fn rotate<K: Twin>(ledger: &mut Ledger, pages: &mut Vec<PageWrite>, state: &K, revision: u64) {
    let mut put = |page: PageWrite| {
        pages.retain(|staged| staged.name != page.name);
        pages.push(page);
    };
    if !ledger.rare().ring.is_empty()
        && let Some(page) = ledger.rare_mut().ring.page()
    {
        put(PageWrite { name: ring::PAGE.into(), value: Some(page) });
    }
    if K::JOURNAL {
        let base = || {
            let mut bytes = Vec::new();
            K::Persistence::encode(state, &mut bytes);
            bytes
        };
        if let Some(journal::Rotated { writes }) =
            ledger.rare_mut().journal.rotate(revision, base, K::Persistence::SHAPE)
        {
            writes.into_iter().for_each(&mut put);
        }
        if ledger.rare().journal.is_unswept() {
            let room = limits::COMMIT_KEYS_MAX.saturating_sub(RESERVED_KEYS + pages.len());
            pages.extend(ledger.rare_mut().journal.sweep(room.min(SWEPT_MAX)));
        }
    }
}

/// Brings the search terms in the ledger up to date.
fn index<K: Twin>(state: &K, ledger: &mut Ledger) {
    let mut terms = Terms::default();
    state.index(&mut terms);
    if *terms.as_slice() != *ledger.terms {
        ledger.terms = terms.as_slice().into();
    }
}

/// Encodes the core record; answers the bytes of the state in it.
fn encode<K: Twin>(state: &K, ledger: &Ledger, revision: u64, epoch: u64, now: Timestamp, out: &mut Vec<u8>) -> usize {
    let head = Head { shape: K::Persistence::SHAPE, epoch, sequence: ledger.sequence + 1, revision, written_at: now };
    let mut state_bytes = 0;
    record::encode(&head, out, |body| {
        body.section(Section::State, |out| {
            let before = out.len();
            K::Persistence::encode(state, out);
            state_bytes = out.len() - before;
        });
        let rare = ledger.rare();
        if !rare.outbox.is_unused() {
            body.section(Section::Outbox, |out| rare.outbox.encode(out));
        }
        if !rare.ring.is_empty() {
            body.section(Section::Ring, |out| rare.ring.encode_core(out));
        }
        if K::JOURNAL {
            body.section(Section::Journal, |out| rare.journal.encode(out));
        }
    });
    state_bytes
}
