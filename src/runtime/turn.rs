//! The heart: the next message of a twin, decided, applied, and its reply staged behind the commit watermark.

use std::{
    any::{Any, TypeId},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{
    activation::{Activation, Busy, Ledger, Phase, Read},
    dispatch::EffectRider,
    events::EventRider,
    shard::{Core, Shard},
};
use crate::{
    model::{Header, Outcome, Rider, Sealed, Timestamp, limits},
    store::{self, Address, Load, Loaded, Prefix},
    twin::{
        Answer, Call, Changes, Decide, Decision, Delivery, Effect, EffectBody, Failure, Message, More, Needs, Pages,
        Persistence, Rejection, Ruling, Turn, Twin, journal, ring,
    },
};

/// Messages that may wait for one twin's load.
const WAITING_MAX: usize = 4096;

/// How a call through the inline door went.
pub(super) enum Inline<M: Message> {
    /// Its answer depends on nothing that is not durable.
    Now(Answer<M::Reply>),
    /// It waits for a load or a commit.
    Later(Arc<Call<M>>),
}

/// Whether a turn's result may leave at once.
enum Leave {
    Now,
    WhenDurable,
}

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
        twin.ledger = Some(Box::new(Ledger::new(Arc::clone(&address))));
        twin.busy = Some(Box::new(Busy::new(Phase::Loading { attempts: 0 })));
        let at = self.table.insert(hash, twin);
        self.load(at, address, false);
        Ok(at)
    }

    /// Asks for a twin's record.
    pub(super) fn load(&mut self, at: u32, address: Arc<Address>, with_ring: bool) {
        let prefix =
            K::OBSERVED.map(|prefix| Prefix { prefix: prefix.into(), after: None, limit: limits::COMMIT_KEYS_MAX });
        let pages = if with_ring { vec![ring::PAGE.into()] } else { Vec::new() };
        self.out.loads.push((at, Load { address, core: true, pages, prefix }));
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
        match self.admit(shard, hash, key, now) {
            Ok(at) => self.deliver(shard, at, call, now),
            Err(failure) => self.out.failed.push((call, failure)),
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
                            .push((call, Failure::Overloaded { what: "the queue of a twin that is loading" }));
                    } else {
                        busy.waiting.push_back(call);
                    }
                    return;
                }
                Phase::Backoff { until, cause, attempts, above } => {
                    let unclaimed = above.is_some_and(|epoch| shard.shared.epoch().0 <= epoch);
                    if unclaimed {
                        shard.shared.reclaim();
                    }
                    if now < *until || unclaimed {
                        self.out.failed.push((call, Failure::Backoff { until: *until, cause: Arc::clone(cause) }));
                        return;
                    }
                    busy.phase = Phase::Loading { attempts: *attempts };
                    busy.waiting.push_back(call);
                    let address = twin.ledger.as_ref().map(|ledger| Arc::clone(&ledger.address));
                    if let Some(address) = address {
                        self.load(at, address, false);
                    }
                    return;
                }
            }
        }
        self.run(shard, at, call, now);
    }

    /// One turn of a message whose type is erased.
    fn run(&mut self, shard: &Shard<K>, at: u32, call: Arc<dyn Delivery<K>>, now: Timestamp) {
        let Some(twin) = self.table.get_mut(at) else { return };
        if let Some(failure) = barred::<K>(call.header(), twin, now) {
            self.counts.expired += u64::from(failure == Failure::Expired);
            self.out.failed.push((call, failure));
            return;
        }
        if let Some(result) = recall(twin, &*call) {
            match result {
                Ok(()) => self.leave_or_stage(shard, at, call, Leave::WhenDurable, now),
                Err(failure) => {
                    call.refuse(failure);
                    self.leave_or_stage(shard, at, call, Leave::WhenDurable, now);
                }
            }
            return;
        }
        let pages = match named(twin, &*call) {
            Named::Nothing => None,
            Named::Here(pages) => Some(pages),
            Named::Elsewhere(load) => {
                let busy = twin.busy();
                busy.waiting.push_front(call);
                if let Some(load) = load {
                    busy.read = Read::Asked;
                    self.out.reads.push((at, load));
                }
                return;
            }
        };
        self.counts.turns += 1;
        let turn = Turn::new(now, &twin.key, twin.revision, call.header());
        let turn = pages.as_ref().map_or(turn, |pages| turn.with_pages(pages));
        let ruled = catch_unwind(AssertUnwindSafe(|| call.rule(&twin.state, &turn)));
        let leave = match ruled {
            Ok(Ruling::Rejected) => {
                self.counts.rejections += 1;
                Leave::Now
            }
            Ok(Ruling::Decided { changes, more }) => {
                match refused::<K>(twin, &changes, more.as_deref()) {
                    Some(Hold::Reject(rejection)) => {
                        self.counts.rejections += 1;
                        call.refuse(rejection.into());
                        self.leave_or_stage(shard, at, call, Leave::Now, now);
                        return;
                    }
                    Some(Hold::Wait) => {
                        twin.busy().waiting.push_front(call);
                        return;
                    }
                    None => {}
                }
                let applied = catch_unwind(AssertUnwindSafe(|| {
                    install(shard, twin, &changes, more, call.header(), now, |state, turn| call.observe(state, turn))
                }));
                match applied {
                    Ok(leave) => {
                        if matches!(leave, Leave::WhenDurable) {
                            keep(twin, &*call);
                        }
                        leave
                    }
                    Err(panic) => return self.panicked(at, &panic, |failure, out| out.failed.push((call, failure))),
                }
            }
            Err(panic) => return self.panicked(at, &panic, |failure, out| out.failed.push((call, failure))),
        };
        self.note_unsaved(shard, at, now);
        self.leave_or_stage(shard, at, call, leave, now);
    }

    /// One turn on the caller's thread, its type known: no allocation if nothing has to wait.
    pub(super) fn run_inline<M>(
        &mut self,
        shard: &Shard<K>,
        at: u32,
        message: M,
        header: Header,
        now: Timestamp,
    ) -> Inline<M>
    where
        M: Message<Twin = K>,
        K: Decide<M>,
    {
        let Some(twin) = self.table.get_mut(at) else { return Inline::Now(Err(Failure::Stopping)) };
        twin.used_s = shard.shared.life_s(now);
        if let Some(failure) = barred::<K>(&header, twin, now) {
            self.counts.expired += u64::from(failure == Failure::Expired);
            return Inline::Now(Err(failure));
        }
        self.counts.turns += 1;
        self.counts.inline_turns += 1;
        let turn = Turn::new(now, &twin.key, twin.revision, &header);
        let ruled = catch_unwind(AssertUnwindSafe(|| twin.state.decide(&message, &turn)));
        let (answer, leave) = match ruled {
            Ok(Err(rejection)) => {
                self.counts.rejections += 1;
                (Err(Failure::Rejected(rejection)), Leave::Now)
            }
            Ok(Ok(Decision { changes, reply, more })) => match refused::<K>(twin, &changes, more.as_deref()) {
                Some(Hold::Reject(rejection)) => {
                    self.counts.rejections += 1;
                    (Err(Failure::Rejected(rejection)), Leave::Now)
                }
                Some(Hold::Wait) => {
                    let call = Arc::new(Call::new(header, message));
                    twin.busy().waiting.push_front(Arc::clone(&call) as Arc<dyn Delivery<K>>);
                    return Inline::Later(call);
                }
                None => {
                    let applied = catch_unwind(AssertUnwindSafe(|| {
                        install(shard, twin, &changes, more, &header, now, |state, turn| state.observe(&message, turn))
                    }));
                    match applied {
                        Ok(leave) => (Ok(reply), leave),
                        Err(panic) => return self.panicked(at, &panic, |failure, _| Inline::Now(Err(failure))),
                    }
                }
            },
            Err(panic) => return self.panicked(at, &panic, |failure, _| Inline::Now(Err(failure))),
        };
        if matches!(leave, Leave::Now) && twin.is_settled() {
            if K::OBSERVED.is_some() {
                self.note_unsaved(shard, at, now);
            }
            return Inline::Now(answer);
        }
        self.note_unsaved(shard, at, now);
        let call = Arc::new(Call::decided(header, message, answer));
        self.leave_or_stage(shard, at, Arc::clone(&call) as Arc<dyn Delivery<K>>, leave, now);
        Inline::Later(call)
    }

    /// Wakes a live twin whose time has come.
    pub(super) fn wake(&mut self, shard: &Shard<K>, at: u32, now: Timestamp) {
        let Some(twin) = self.table.get_mut(at) else { return };
        if let Some(busy) = &mut twin.busy {
            match &busy.phase {
                Phase::Live => {}
                // Its load looks at the wake time by itself.
                Phase::Loading { .. } | Phase::Ending => return,
                Phase::Backoff { until, attempts, above, .. } => {
                    if above.is_some_and(|epoch| shard.shared.epoch().0 <= epoch) {
                        shard.shared.reclaim();
                        shard.shared.wakes.arm(now.after(shard.shared.config.backoff_min), K::KIND, &twin.key);
                    } else if now >= *until {
                        busy.phase = Phase::Loading { attempts: *attempts };
                        let address = twin.ledger.as_ref().map(|ledger| Arc::clone(&ledger.address));
                        if let Some(address) = address {
                            self.load(at, address, false);
                        }
                    }
                    return;
                }
            }
        }
        if let Some(ledger) = &mut twin.ledger {
            ledger.armed = None;
        }
        self.redeliver(shard, at, now);
        let Some(twin) = self.table.get_mut(at) else { return };
        if twin.state.wake_at().is_some_and(|due| due <= now) {
            let header = Header::default().with_principal(crate::model::Principal::Runtime);
            let woken = catch_unwind(AssertUnwindSafe(|| {
                let Decision { changes, more, .. } =
                    twin.state.wake(&Turn::new(now, &twin.key, twin.revision, &header));
                match refused::<K>(twin, &changes, more.as_deref()) {
                    Some(Hold::Reject(_) | Hold::Wait) => Leave::Now,
                    None => install(shard, twin, &changes, more, &header, now, |_, _| Changes::new()),
                }
            }));
            self.counts.turns += 1;
            if let Err(panic) = woken {
                return self.panicked(at, &panic, |_, _| ());
            }
        }
        self.submit(shard, at, now);
        if let Some(twin) = self.table.get_mut(at) {
            // A twin that did not move its wake time on is asked again, but not at once.
            let next = twin.state.wake_at().map(|due| due.max(now.after(shard.shared.config.backoff_min)));
            arm(shard, twin, next);
            twin.rest();
        }
    }

    /// Takes the pages that the first waiting message named, and lets it have its turn.
    pub(super) fn pages_read(&mut self, shard: &Shard<K>, at: u32, read: Result<Loaded, store::Error>, now: Timestamp) {
        let Some(busy) = self.table.get_mut(at).and_then(|twin| twin.busy.as_mut()) else { return };
        if !matches!(busy.read, Read::Asked) {
            return;
        }
        busy.read = match read {
            Ok(loaded) => Read::Done(loaded.pages.into_iter().map(|(name, bytes)| (name.into(), bytes)).collect()),
            Err(error) => {
                if let Some(call) = busy.waiting.pop_front() {
                    let cause = format!("the pages of this message cannot be read: {error}").into();
                    self.out.failed.push((call, Failure::Lost { outcome: Outcome::NotApplied, cause }));
                }
                Read::No
            }
        };
        self.resume(shard, at, now);
        if let Some(twin) = self.table.get_mut(at) {
            twin.rest();
        }
    }

    /// Lets a result go, or stages it behind the watermark.
    fn leave_or_stage(&mut self, shard: &Shard<K>, at: u32, call: Arc<dyn Delivery<K>>, leave: Leave, now: Timestamp) {
        let Some(twin) = self.table.get_mut(at) else { return };
        if matches!(leave, Leave::Now) && twin.is_settled() {
            self.out.released.push(call);
            return;
        }
        let revision = twin.revision;
        let unsealed = twin.busy.as_ref().is_some_and(|busy| {
            busy.dirty || !busy.pages.is_empty() || busy.flight.is_some() || !busy.staged.is_empty()
        });
        if unsealed {
            twin.busy().staged.push((revision, call));
            self.submit(shard, at, now);
        } else {
            self.out.released.push(call);
        }
    }

    /// Drops an activation whose turn panicked; what was staged is lost, what is under way is waited for.
    fn panicked<R>(
        &mut self,
        at: u32,
        panic: &Box<dyn Any + Send>,
        end: impl FnOnce(Failure, &mut super::shard::Out<K>) -> R,
    ) -> R {
        self.counts.panics += 1;
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned());
        let message: Arc<str> = text.unwrap_or_else(|| "no message".to_owned()).into();
        if let Some(twin) = self.table.get_mut(at) {
            tracing::error!(kind = K::KIND, key = %twin.key, %message, "a turn panicked; its activation ends");
            let sealed =
                Sealed::Lost { outcome: Outcome::NotApplied, cause: "a later turn of this twin panicked".into() };
            let key = twin.key.clone();
            let mut in_flight = false;
            if let Some(busy) = &mut twin.busy {
                busy.lose_staged(&sealed);
                in_flight = busy.flight.is_some();
                busy.phase = Phase::Ending;
            }
            if in_flight {
                if let Ok(state) = catch_unwind(|| K::create(&key)) {
                    twin.state = state;
                }
            } else if let Some(mut gone) = self.table.remove(at)
                && let Some(busy) = &mut gone.busy
            {
                busy.refuse_waiting(&Failure::Panicked { message: Arc::clone(&message) });
            }
        }
        end(Failure::Panicked { message }, &mut self.out)
    }

    /// Puts a twin with unsaved observed pages on the shard's list.
    fn note_unsaved(&mut self, shard: &Shard<K>, at: u32, now: Timestamp) {
        if K::OBSERVED.is_none() {
            return;
        }
        let Some(twin) = self.table.get_mut(at) else { return };
        let Some(ledger) = &mut twin.ledger else { return };
        if !ledger.listed && twin.state.unsaved() {
            ledger.listed = true;
            let every = shard.shared.config.save_every;
            // Spread over a quarter of the interval, so that twins fed by one batch are not saved in one.
            let jitter = every / 4 * (twin.hash % 256) / 256;
            self.unsaved.push_back((now.after(every + jitter), at));
        }
    }
}

/// Why a message gets no turn at all.
fn barred<K: Twin>(header: &Header, twin: &Activation<K>, now: Timestamp) -> Option<Failure> {
    if header.deadline.is_some_and(|deadline| deadline <= now) {
        return Some(Failure::Expired);
    }
    let path = header.path();
    if path.is_empty() {
        return None;
    }
    let again = path.iter().any(|step| &*step.kind == K::KIND && step.key == twin.key);
    if !again && path.len() < limits::PATH_STEPS_MAX {
        return None;
    }
    let mut path = path.to_vec();
    path.push(crate::model::Step { kind: K::KIND.into(), key: twin.key.clone() });
    Some(Failure::Cycle { path })
}

/// What the idempotency ring says of a keyed message: nothing, its recorded result, or why it is refused.
fn recall<K: Twin>(twin: &Activation<K>, call: &dyn Delivery<K>) -> Option<Result<(), Failure>> {
    let request = call.header().request()?;
    let Some(ledger) = &twin.ledger else { return Some(Err(Failure::Keyless { kind: K::KIND })) };
    let Some(fingerprint) = call.fingerprint() else { return Some(Err(Failure::Keyless { kind: K::KIND })) };
    let id = ring::id(call.header().principal(), request);
    match ledger.ring.look(&id, fingerprint, request.made_at) {
        ring::Seen::New => None,
        ring::Seen::Repeat(entry) => Some(match &entry.reply {
            Some(reply) => {
                call.replay(reply);
                Ok(())
            }
            None => Err(Failure::AlreadyDone { revision: entry.revision }),
        }),
        ring::Seen::Reused => Some(Err(Rejection::KeyReused.into())),
        ring::Seen::TooOld { forgotten_until } => {
            Some(Err(Rejection::KeyTooOld { made_at: request.made_at, forgotten_until }.into()))
        }
    }
}

/// The pages a message named.
enum Named {
    /// It names none.
    Nothing,
    /// Staged writes over what was read.
    Here(Pages),
    /// To be read first; without a load, when the pages under way are durable.
    Elsewhere(Option<Load>),
}

fn named<K: Twin>(twin: &mut Activation<K>, call: &dyn Delivery<K>) -> Named {
    let needs = call.needs();
    if needs == Needs::Nothing {
        return Named::Nothing;
    }
    let Some(ledger) = &twin.ledger else { return Named::Here(Pages::default()) };
    let address = Arc::clone(&ledger.address);
    let busy = twin.busy.get_or_insert_with(|| Box::new(Busy::new(Phase::Live)));
    if let Read::Done(mut pages) = std::mem::take(&mut busy.read) {
        let wanted = |name: &str| match &needs {
            Needs::Nothing => false,
            Needs::Pages(names) => names.iter().any(|wanted| wanted == name),
            Needs::Prefix { prefix, after, .. } => {
                name.starts_with(prefix.as_str()) && after.as_ref().is_none_or(|after| name > after.as_str())
            }
        };
        for staged in busy.pages.iter().filter(|page| wanted(&page.name)) {
            match &staged.value {
                Some(value) => pages.insert(staged.name.as_str().to_owned(), value.clone()),
                None => pages.remove(staged.name.as_str()),
            };
        }
        return Named::Here(pages);
    }
    if busy.flight.is_some_and(|flight| flight.pages) {
        return Named::Elsewhere(None);
    }
    let (pages, prefix) = match needs {
        Needs::Nothing => (Vec::new(), None),
        Needs::Pages(names) => (names.into_iter().take(limits::NEEDS_KEYS_MAX).map(Into::into).collect(), None),
        Needs::Prefix { prefix, after, limit } => {
            (Vec::new(), Some(Prefix { prefix: prefix.into(), after: after.map(Into::into), limit }))
        }
    };
    Named::Elsewhere(Some(Load { address, core: false, pages, prefix }))
}

/// Records a keyed message that changed something.
fn keep<K: Twin>(twin: &mut Activation<K>, call: &dyn Delivery<K>) {
    let Some(request) = call.header().request() else { return };
    let revision = twin.revision;
    let (Some(ledger), Some(fingerprint)) = (&mut twin.ledger, call.fingerprint()) else { return };
    let reply =
        call.reply_bytes().filter(|reply| reply.len() <= limits::RING_REPLY_BYTES_MAX).map(Vec::into_boxed_slice);
    let id = ring::id(call.header().principal(), request);
    ledger.ring.keep(ring::Entry { id, fingerprint, revision, made_at: request.made_at, reply }, K::RING_ENTRIES);
}

/// Why a decision is not installed.
enum Hold {
    /// It would cross a bound of the record.
    Reject(Rejection),
    /// Its pages do not fit beside those staged; it is decided again when they were submitted.
    Wait,
}

/// Checks a decision against the bounds of record and commit, before anything is applied.
fn refused<K: Twin>(twin: &mut Activation<K>, changes: &[K::Change], more: Option<&More>) -> Option<Hold> {
    let ledger = twin.ledger.as_mut()?;
    if changes.is_empty() && more.is_none() {
        return None;
    }
    let mut scratch = Vec::new();
    for change in changes {
        K::Persistence::encode_change(change, &mut scratch);
    }
    // A change grows the state by at most its own encoded size and a little for the containers it touches.
    let growth = scratch.len() + GROWTH_SLACK * changes.len();
    let journal = if K::JOURNAL { growth } else { 0 };
    let fixed = FRAME_BYTES + ledger.bytes() + journal;
    if fixed + ledger.state_bytes + growth > K::RECORD_BYTES_MAX {
        scratch.clear();
        K::Persistence::encode(&twin.state, &mut scratch);
        ledger.state_bytes = scratch.len();
        let actual = fixed + ledger.state_bytes + growth;
        if actual > K::RECORD_BYTES_MAX {
            let wide = |bytes| u64::try_from(bytes).unwrap_or(u64::MAX);
            return Some(Hold::Reject(Rejection::Limit {
                limit: "record bytes".into(),
                max: wide(K::RECORD_BYTES_MAX),
                actual: wide(actual),
            }));
        }
    }
    ledger.state_bytes += growth;
    let more = more?;
    let sends = || {
        more.effects.iter().filter_map(|effect| match &effect.0 {
            EffectBody::Send { message, .. } => Some(message.encode().len()),
            EffectBody::Emit(_) => None,
        })
    };
    if !ledger.outbox.fits(sends().count(), sends().sum()) {
        return Some(Hold::Reject(Rejection::Limit {
            limit: "outbox".into(),
            max: crate::twin::outbox::PROMISES_MAX.try_into().unwrap_or(u64::MAX),
            actual: ledger.outbox.len().saturating_add(sends().count()).try_into().unwrap_or(u64::MAX),
        }));
    }
    if let Some(page) =
        more.pages.iter().find(|page| page.value.as_ref().is_some_and(|value| value.len() > limits::PAGE_BYTES_MAX))
    {
        let actual = page.value.as_ref().map_or(0, Vec::len);
        return Some(Hold::Reject(Rejection::Limit {
            limit: "page bytes".into(),
            max: limits::PAGE_BYTES_MAX.try_into().unwrap_or(u64::MAX),
            actual: actual.try_into().unwrap_or(u64::MAX),
        }));
    }
    let bytes = |pages: &[crate::twin::PageWrite]| {
        pages.iter().map(|page| page.name.len() + page.value.as_ref().map_or(0, Vec::len)).sum::<usize>()
    };
    let staged = twin.busy.as_ref().map_or(&[][..], |busy| &busy.pages);
    let room_keys = limits::COMMIT_KEYS_MAX - RESERVED_KEYS;
    let room_bytes = limits::COMMIT_BYTES_MAX - K::RECORD_BYTES_MAX - RESERVED_KEYS * limits::PAGE_BYTES_MAX / 2;
    if more.pages.len() > room_keys || bytes(&more.pages) > room_bytes {
        return Some(Hold::Reject(Rejection::Limit {
            limit: "commit bytes".into(),
            max: room_bytes.try_into().unwrap_or(u64::MAX),
            actual: bytes(&more.pages).try_into().unwrap_or(u64::MAX),
        }));
    }
    let crowded = staged.len() + more.pages.len() > room_keys || bytes(staged) + bytes(&more.pages) > room_bytes;
    (crowded && !staged.is_empty()).then_some(Hold::Wait)
}

/// Keys of a commit kept free for the core, the ring page and a journal rotation with its deletes.
const RESERVED_KEYS: usize = 12;
/// Frame and section heads.
const FRAME_BYTES: usize = 128;
/// What a change may grow the state by beyond its own encoded size.
const GROWTH_SLACK: usize = 16;

/// Applies a decision, journals it, and stages what leaves with its commit.
fn install<K: Twin>(
    shard: &Shard<K>,
    twin: &mut Activation<K>,
    changes: &[K::Change],
    more: Option<Box<More>>,
    header: &Header,
    now: Timestamp,
    observe: impl FnOnce(&mut K, &Turn<'_>) -> Changes<K::Change>,
) -> Leave {
    let before = twin.revision;
    let mut events = Vec::new();
    for change in changes {
        twin.state.apply(change, now);
        twin.revision += 1;
        events.extend(twin.state.event(change).map(|event| (twin.revision, event)));
    }
    let turn = Turn::new(now, &twin.key, twin.revision, header);
    let facts = observe(&mut twin.state, &turn);
    for fact in &facts {
        twin.state.apply(fact, now);
        twin.revision += 1;
        events.extend(twin.state.event(fact).map(|event| (twin.revision, event)));
    }
    let changed = twin.revision != before;
    let (pages, effects) = more.map_or_else(Default::default, |more| (more.pages, more.effects));
    if !changed && pages.is_empty() && effects.is_empty() {
        return Leave::Now;
    }
    let durable = twin.ledger.is_some();
    if let Some(ledger) = &mut twin.ledger {
        let all = || changes.iter().chain(&facts);
        if !facts.is_empty() {
            ledger.state_bytes += facts.len() * (GROWTH_SLACK + 64);
        }
        if K::JOURNAL && changed {
            let encoded = all().map(|change| {
                let mut bytes = Vec::new();
                K::Persistence::encode_change(change, &mut bytes);
                bytes
            });
            ledger.journal.append(
                &journal::Entry {
                    revision: twin.revision,
                    at: now,
                    principal: header.principal().clone(),
                    trace: header.trace().copied(),
                    request: header.request().map(|request| Arc::clone(&request.text)),
                    changes: encoded.collect(),
                },
                K::Persistence::SHAPE,
            );
        }
    }
    let mut riders: Vec<Arc<dyn Rider>> = Vec::new();
    for (revision, event) in events {
        riders.push(Arc::new(EventRider {
            shared: Arc::clone(&shard.shared),
            kind: K::KIND,
            key: twin.key.clone(),
            revision,
            at: now,
            event,
        }));
    }
    for Effect(body) in effects {
        riders.extend(promise(shard, twin, body, header, now));
    }
    if durable {
        let revision = twin.revision;
        let busy = twin.busy();
        busy.dirty |= changed || !riders.is_empty();
        for page in pages {
            busy.pages.retain(|staged| staged.name != page.name);
            busy.pages.push(page);
        }
        busy.staged.extend(riders.into_iter().map(|rider| (revision, rider)));
        return Leave::WhenDurable;
    }
    for rider in riders {
        rider.release(&Sealed::Durable);
    }
    Leave::Now
}

/// Turns an effect into what leaves with the commit; a durable twin's outbox remembers it.
fn promise<K: Twin>(
    shard: &Shard<K>,
    twin: &mut Activation<K>,
    body: EffectBody,
    header: &Header,
    now: Timestamp,
) -> Option<Arc<dyn Rider>> {
    match body {
        EffectBody::Emit(event) => {
            let shared = Arc::clone(&shard.shared);
            Some(Arc::new(EventRider {
                shared,
                kind: K::KIND,
                key: twin.key.clone(),
                revision: twin.revision,
                at: now,
                event,
            }))
        }
        EffectBody::Send { .. } => Some(Arc::new(EffectRider::promise::<K>(
            &shard.shared,
            TypeId::of::<K>(),
            &twin.key,
            twin.ledger.as_deref_mut(),
            twin.revision,
            body,
            header,
            now,
        )?)),
    }
}

/// Arms a twin's wake-up if it moved.
pub(super) fn arm<K: Twin>(shard: &Shard<K>, twin: &mut Activation<K>, at: Option<Timestamp>) {
    let Some(ledger) = &mut twin.ledger else { return };
    if let Some(at) = at
        && ledger.armed != Some(at)
    {
        ledger.armed = Some(at);
        shard.shared.wakes.arm(at, K::KIND, &twin.key);
    }
}
