//! The heart: the next message of a twin, decided, applied, and its reply staged behind the commit watermark.

use std::sync::Arc;

use super::{
    activation::{Activation, Phase, Read, goes_on},
    cache::Shown,
    hold::{Hold, refused, spare},
    host::delivery,
    install::{arm, install},
    named::{Found, Named, named},
    recall::{keep, recall},
    shard::{Core, Shard},
    stale::stored_only,
};
use crate::{
    model::{Consistency, Header, Principal, Step, Timestamp, limits},
    store::Epoch,
    twin::{Answer, Call, Changes, Decide, Decision, Delivery, Failure, Message, Ruling, Turn, Twin},
};

/// How a call through the inline door went.
pub(super) enum Inline<M: Message> {
    /// Its answer depends on nothing that is not durable.
    Now(Answer<M::Reply>),
    /// It waits for a load or a commit.
    Later(Arc<Call<M>>),
}

/// Whether a turn's result may leave at once.
#[derive(Clone, Copy)]
pub(super) enum Leave {
    Now,
    WhenDurable,
}

impl<K: Twin> Core<K> {
    /// One turn of a message whose type is erased.
    pub(super) fn run(&mut self, shard: &Shard<K>, at: u32, call: Arc<dyn Delivery<K>>, now: Timestamp) {
        let Some(twin) = self.table.get_mut(at) else { return };
        if let Some(failure) = barred::<K>(call.header(), twin, now) {
            self.counts.expired += u64::from(failure == Failure::Expired);
            self.out.failed.push((call, failure));
            return;
        }
        let settles = call.header().settles();
        if let Some(number) = settles
            && !twin.ledger.as_ref().is_some_and(|ledger| ledger.rare().outbox.has(number))
        {
            // The answer was taken already, and its commit settled the ask.
            self.out.failed.push((call, Failure::AlreadyDone { revision: twin.revision }));
            return;
        }
        if let Some(result) = recall(twin, &*call, now) {
            match result {
                Ok(()) => self.leave_or_stage(shard, at, call, Leave::WhenDurable, now),
                Err(failure) => {
                    call.refuse(failure);
                    self.leave_or_stage(shard, at, call, Leave::WhenDurable, now);
                }
            }
            return;
        }
        let found = match named(twin, &*call) {
            Named::Here(found) => found,
            Named::TooMany(failure) => {
                self.out.failed.push((call, failure));
                return;
            }
            Named::Elsewhere(load) => {
                let busy = twin.busy();
                busy.waiting.push_front(call);
                if let Some(mut load) = load {
                    load.under = shard.shared.under(shard.shared.slots.of_key(&load.address.key));
                    self.reads += 1;
                    busy.read = Read::Asked(self.reads);
                    self.out.reads.push((at, self.reads, load));
                }
                return;
            }
        };
        self.counts.turns += 1;
        let turn = Turn::new(now, &twin.key, twin.revision, call.header());
        let ruling = match (&found, &twin.ledger) {
            (Found::Read(pages), _) => call.rule(&twin.state, &turn.with_pages(pages)),
            (Found::Kept(names), Some(ledger)) => {
                call.rule(&twin.state, &turn.with_pages(&Shown { names, cache: &ledger.rare().cache }))
            }
            (Found::Nothing, _) | (Found::Kept(_), None) => call.rule(&twin.state, &turn),
        };
        let leave = match ruling {
            Ruling::Rejected => {
                self.counts.rejections += 1;
                Leave::Now
            }
            Ruling::Decided { changes, more } => {
                let (more_of, scratch) = (more.as_deref(), &mut self.scratch);
                match refused::<K>(&shard.shared, twin, call.header(), &changes, more_of, spare::<K>(), scratch) {
                    Some(Hold::Refuse(failure)) => {
                        self.counts.rejections += 1;
                        call.refuse(failure);
                        self.leave_or_stage(shard, at, call, Leave::Now, now);
                        return;
                    }
                    Some(Hold::Wait) => {
                        twin.busy().waiting.push_front(call);
                        return;
                    }
                    None => {}
                }
                let observe = |state: &mut K, turn: &Turn<'_>| call.observe(state, turn);
                let leave = install(shard, twin, &changes, more, call.header(), now, observe);
                if matches!(leave, Leave::WhenDurable) {
                    keep(twin, &*call);
                    if let Some(number) = settles {
                        settle(twin, number);
                    }
                }
                leave
            }
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
        let alone = twin.is_settled();
        let turn = Turn::new(now, &twin.key, twin.revision, &header);
        let (answer, leave) = match twin.state.decide(&message, &turn) {
            Err(rejection) => {
                self.counts.rejections += 1;
                (Err(Failure::Rejected(rejection)), Leave::Now)
            }
            Ok(Decision { changes, reply, more }) => {
                let (more_of, scratch) = (more.as_deref(), &mut self.scratch);
                match refused::<K>(&shard.shared, twin, &header, &changes, more_of, spare::<K>(), scratch) {
                    Some(Hold::Refuse(failure)) => {
                        self.counts.rejections += 1;
                        (Err(failure), Leave::Now)
                    }
                    Some(Hold::Wait) => {
                        let call = Arc::new(Call::new(header, message).coded(shard.shared.codec()));
                        twin.busy().waiting.push_front(delivery(&call));
                        return Inline::Later(call);
                    }
                    None => {
                        let observe = |state: &mut K, turn: &Turn<'_>| state.observe(&message, turn);
                        (Ok(reply), install(shard, twin, &changes, more, &header, now, observe))
                    }
                }
            }
        };
        if matches!(leave, Leave::Now) && twin.is_settled() {
            if K::OBSERVED.is_some() {
                self.note_unsaved(shard, at, now);
            }
            return Inline::Now(answer);
        }
        self.note_unsaved(shard, at, now);
        // Only its own turn is staged: a store that commits in place settles it here, without a call to wait for.
        if alone && matches!(leave, Leave::WhenDurable) && shard.shared.is_instant() {
            return Inline::Now(match self.submit(shard, at, now) {
                Some(failure) => Err(failure),
                None => answer,
            });
        }
        let call = Arc::new(Call::decided(header, message, answer));
        self.leave_or_stage(shard, at, delivery(&call), leave, now);
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
                    let slot = shard.shared.slots.of_key(&twin.key);
                    if let Some(epoch) = above.filter(|epoch| shard.shared.epoch(slot).0 <= *epoch) {
                        shard.shared.reclaim(slot, Epoch(epoch));
                        shard.shared.wakes.again(now.after(shard.shared.config.backoff_min), K::KIND, &twin.key);
                    } else if !goes_on(*until, now) {
                        busy.phase = Phase::Loading { attempts: *attempts };
                        let address = twin.ledger.as_ref().map(|ledger| Arc::clone(&ledger.address));
                        if let Some(address) = address {
                            self.load(shard, at, address, false);
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
            let header = Header::default().with_principal(Principal::Runtime);
            self.counts.turns += 1;
            let Decision { changes, more, .. } = twin.state.wake(&Turn::new(now, &twin.key, twin.revision, &header));
            let held = refused::<K>(&shard.shared, twin, &header, &changes, more.as_deref(), 0, &mut self.scratch);
            if held.is_none() {
                install(shard, twin, &changes, more, &header, now, |_, _| Changes::new());
            }
        }
        self.submit(shard, at, now);
        if let Some(twin) = self.table.get_mut(at) {
            // A twin that did not move its wake time on is asked again, but not at once.
            let soon = now.after(shard.shared.config.backoff_min);
            match twin.state.wake_at() {
                Some(due) if due <= soon => shard.shared.wakes.again(soon, K::KIND, &twin.key),
                next => arm(shard, twin, next),
            }
            twin.rest();
        }
    }

    /// Lets a result go, or stages it behind the watermark.
    fn leave_or_stage(&mut self, shard: &Shard<K>, at: u32, call: Arc<dyn Delivery<K>>, leave: Leave, now: Timestamp) {
        let Some(twin) = self.table.get_mut(at) else { return };
        if call.header().consistency() == Consistency::Strict && shard.shared.cluster.is_some() {
            if twin.ledger.is_none() {
                call.refuse(stored_only::<K>().into());
                self.out.released.push(call);
                return;
            }
            let busy = twin.busy();
            // What is under way was submitted before this turn, and proves nothing of it.
            busy.mark += 1;
            busy.unproven = true;
            busy.staged.push((busy.mark, call));
            self.submit(shard, at, now);
            return;
        }
        if matches!(leave, Leave::Now) && twin.is_settled() {
            self.out.released.push(call);
            return;
        }
        let unsealed =
            twin.busy.as_mut().filter(|busy| busy.is_unsubmitted() || busy.flight.is_some() || !busy.staged.is_empty());
        if let Some(busy) = unsealed {
            busy.staged.push((busy.mark, call));
            self.submit(shard, at, now);
        } else {
            self.out.released.push(call);
        }
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

/// Settles the ask whose answer was just taken, in the commit that holds what it changed.
fn settle<K: Twin>(twin: &mut Activation<K>, number: u64) {
    if let Some(ledger) = &mut twin.ledger {
        let rare = ledger.rare_mut();
        rare.outbox.settle(number);
        rare.deliveries.forget(number);
        twin.busy().dirty = true;
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
    path.push(Step { kind: K::KIND.into(), key: twin.key.clone() });
    Some(Failure::Cycle { path })
}
