//! Calls that leave this runtime for another one, and those that come from one.
//!
//! A call travels as a head (who is meant, on whose behalf) and the encoded message; its answer as one byte that says
//! which, and the encoded reply or failure. Deadlines travel as the time that is left, since clocks differ.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use compact_str::CompactString;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{
    Runtime,
    contain::tell,
    shared::{Shared, unregistered},
    turn::Inline,
};
use crate::{
    cluster::{Served, ServedTo},
    model::{Consistency, Header, Key, Lane, Outcome},
    store::{Epoch, Slot},
    twin::{Answer, Call, Codec, Delivery, Failure, Twin, Wire, append, from_bytes},
};

/// The answer is the encoded reply.
const REPLIED: u8 = 0;
/// The answer is the encoded failure.
const FAILED: u8 = 1;
/// Room for a head of usual size.
const HEAD_BYTES: usize = 128;
/// Most time between two looks at a slot that is being handed over.
const LOOK: Duration = Duration::from_millis(2);

/// Who is meant, on whose behalf; as it is sent.
#[derive(Serialize)]
struct Head<'a> {
    kind: &'a str,
    name: &'a str,
    key: &'a Key,
    header: &'a Header,
    left_ms: Option<u64>,
}

/// The same as it is received.
#[derive(Deserialize)]
struct Received {
    kind: CompactString,
    name: CompactString,
    key: Key,
    header: Header,
    left_ms: Option<u64>,
}

/// Stands in the place of the head's length in a call that reads what is stored.
const READ: u32 = u32::MAX;

/// A read as it travels to the owner of its slot.
pub(super) fn read_call(ask: &[u8]) -> Vec<u8> {
    [&READ.to_be_bytes()[..], ask].concat()
}

type Serve = fn(&Runtime, &Key, Header, &[u8], ServedTo);

/// How registered messages travel.
#[derive(Default)]
pub(super) struct Codecs {
    sent: HashMap<TypeId, Box<dyn Any + Send + Sync>, ahash::RandomState>,
    served: HashMap<(CompactString, CompactString), Serve, ahash::RandomState>,
}

impl Codecs {
    /// Registers a message.
    pub(super) fn add<M: Wire>(&mut self) {
        self.sent.insert(TypeId::of::<M>(), Box::new(Codec::<M>::of()));
        self.served.insert((<M::Twin as Twin>::KIND.into(), M::NAME.into()), serve::<M>);
    }
}

impl Shared {
    /// How a message travels; `None` if it does not, or nobody else is there.
    pub(super) fn codec<M: crate::twin::Message>(&self) -> Option<Codec<M>> {
        self.cluster.as_ref()?;
        self.office.codecs.get()?.sent.get(&TypeId::of::<M>())?.downcast_ref().copied()
    }

    /// Sends a call to the owner of its twin's slot, and its answer back to whoever waits for it.
    pub(super) fn forward<K: Twin>(self: &Arc<Self>, hash: u64, key: &Key, call: Arc<dyn Delivery<K>>) {
        let Some(cluster) = &self.cluster else { return call.fail(Failure::Stopping) };
        let (name, body) = match call.pack() {
            Ok(packed) => packed,
            Err(failure) => return self.not_forwarded(&*call, failure),
        };
        let deadline = call.header().deadline;
        let left = deadline.map(|deadline| deadline.since(self.clock.now()));
        if left.is_some_and(|left| left.is_zero()) {
            return self.not_forwarded(&*call, Failure::Expired);
        }
        let left_ms = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        let head = Head { kind: K::KIND, name, key, header: call.header(), left_ms };
        let packed = pack(&head, &body);
        let shared = Arc::clone(self);
        let answered = move |answer: Result<Vec<u8>, Failure>| {
            let bytes = match answer {
                Ok(bytes) => bytes,
                Err(failure) => return tell(|| shared.not_forwarded(&*call, failure)),
            };
            tell(|| call.arrive(read_answer(&bytes)));
        };
        cluster.forward(Slot::of(hash), packed, deadline, Box::new(answered));
    }

    /// Ends a call that reached no owner, or may not have. Nobody waits for the answer to telemetry, so it is counted.
    fn not_forwarded<K: Twin>(&self, call: &dyn Delivery<K>, failure: Failure) {
        if call.lane() == Lane::Telemetry {
            self.telemetry_lost.fetch_add(1, Ordering::Relaxed);
        }
        call.arrive(Err(failure));
    }

    /// The answer, if this runtime may still give it: one that rests on the lease, because it says what a twin in memory here
    /// said, is the truth only while that lasts.
    pub(super) fn leased<R>(&self, answer: Answer<R>, rests_on_lease: impl FnOnce() -> bool) -> Answer<R> {
        match &self.cluster {
            Some(cluster) if !cluster.holds_lease() && is_a_twins(&answer) && rests_on_lease() => {
                let cause = "this node's lease ran out before the answer left".into();
                Err(Failure::Lost { outcome: Outcome::Unknown, cause })
            }
            Some(_) | None => answer,
        }
    }
}

/// A call as it travels: the head's length, the head, the message.
fn pack(head: &Head<'_>, body: &[u8]) -> Vec<u8> {
    const LENGTH: usize = size_of::<u32>();
    let mut packed = Vec::with_capacity(HEAD_BYTES + body.len());
    packed.extend([0; LENGTH]);
    append(head, &mut packed);
    let length = u32::try_from(packed.len() - LENGTH).unwrap_or(u32::MAX);
    packed[..LENGTH].copy_from_slice(&length.to_be_bytes());
    packed.extend(body);
    packed
}

/// Whether a twin said this, rather than whoever could not ask it.
fn is_a_twins<R>(answer: &Answer<R>) -> bool {
    match answer {
        Ok(_) | Err(Failure::Rejected(_) | Failure::AlreadyDone { .. }) => true,
        Err(
            Failure::Overloaded { .. }
            | Failure::Expired
            | Failure::Backoff { .. }
            | Failure::Panicked { .. }
            | Failure::Lost { .. }
            | Failure::Keyless { .. }
            | Failure::Unregistered { .. }
            | Failure::Cycle { .. }
            | Failure::Stopping,
        ) => false,
    }
}

fn read_answer(bytes: &[u8]) -> Answer<&[u8]> {
    let unreadable = || {
        let cause = "the answer of another node cannot be read".into();
        Failure::Lost { outcome: Outcome::Unknown, cause }
    };
    match bytes.split_first() {
        Some((&REPLIED, reply)) => Ok(reply),
        Some((&FAILED, failure)) => Err(from_bytes(failure).unwrap_or_else(|_| unreadable())),
        Some(_) | None => Err(unreadable()),
    }
}

fn answer_of<R: Serialize>(answer: &Answer<R>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES);
    match answer {
        Ok(reply) => {
            bytes.push(REPLIED);
            append(reply, &mut bytes);
        }
        Err(failure) => {
            bytes.push(FAILED);
            append(failure, &mut bytes);
        }
    }
    bytes
}

impl Runtime {
    /// Takes turns of the twins of a slot from now on, under this epoch: the store was claimed with it.
    pub fn own(&self, slot: Slot, epoch: Epoch) {
        let shared = &self.inner.shared;
        shared.slots.open(slot, epoch);
        shared.wakes.read_again();
    }

    /// Another runtime owns the slot: whatever was staged here is not applied, and whoever waits is sent on.
    pub fn disown(&self, slot: Slot) {
        self.inner.shared.slots.clear(slot);
        for host in self.inner.shared.office.hosts() {
            host.lose(slot);
        }
    }

    /// Begins no more turns in a slot, and lets its twins leave: what is under way ends, what is unsaved is saved, new
    /// calls are forwarded. Afterwards the slot may be released. Answers how many twins had not settled in this time.
    ///
    /// # Cancel safety
    /// Dropped, the slot stays shut until [`Runtime::own`] or [`Runtime::disown`].
    pub async fn hand_over(&self, slot: Slot, within: Duration) -> usize {
        let shared = &self.inner.shared;
        shared.slots.leave(slot);
        let until = tokio::time::Instant::now() + within;
        loop {
            let left: usize = shared.office.hosts().iter().map(|host| host.leave(slot)).sum();
            if left == 0 || tokio::time::Instant::now() >= until {
                self.disown(slot);
                return left;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Takes a call that another runtime forwarded.
    pub fn serve(&self, slot: Slot, call: &[u8], done: ServedTo) {
        let shared = &self.inner.shared;
        if !shared.slots.is_open(slot) || shared.is_stopping() {
            return done(Served::Elsewhere);
        }
        if let Some((length, ask)) = call.split_first_chunk::<4>()
            && u32::from_be_bytes(*length) == READ
        {
            return shared.serve_load(slot, ask, done);
        }
        let unreadable = || {
            let cause = "the call cannot be read by this node".into();
            Served::Answer(answer_of::<()>(&Err(Failure::Lost { outcome: Outcome::NotApplied, cause })))
        };
        let parts = call.split_first_chunk::<4>().and_then(|(length, rest)| {
            let (head, body) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
            Some((from_bytes::<Received>(head).ok()?, body))
        });
        let Some((Received { kind, name, key, mut header, left_ms }, body)) = parts else { return done(unreadable()) };
        header.deadline = left_ms.map(|left| self.now().after(Duration::from_millis(left)));
        let named = (kind, name);
        if let Some(serve) = shared.office.codecs.get().and_then(|codecs| codecs.served.get(&named)) {
            return serve(self, &key, header, body, done);
        }
        let failure = unregistered(&named.0, &named.1);
        done(Served::Answer(answer_of::<()>(&Err(failure))));
    }
}

/// Gives one message of another runtime its turn here.
fn serve<M: Wire>(runtime: &Runtime, key: &Key, header: Header, body: &[u8], done: ServedTo) {
    let shared = &runtime.inner.shared;
    let consistency = header.consistency();
    let rests_on_lease = || consistency == Consistency::Lease;
    let asked = runtime.host::<M::Twin>().and_then(|host| {
        let unreadable = |_| unregistered(<M::Twin as Twin>::KIND, M::NAME);
        Ok(host.ask(key, from_bytes::<M>(body).map_err(unreadable)?, header, Call::wired))
    });
    match asked {
        Err(failure) => done(answered::<M>(shared, Err(failure), rests_on_lease)),
        Ok(Inline::Now(answer)) => done(answered::<M>(shared, answer, rests_on_lease)),
        Ok(Inline::Later(call)) => {
            let waits = Arc::new(Waits { call, shared: Arc::clone(shared), done: Mutex::new(Some(done)) });
            waits.look();
        }
    }
}

fn answered<M: Wire>(shared: &Shared, answer: Answer<M::Reply>, rests_on_lease: impl FnOnce() -> bool) -> Served {
    match shared.leased(answer, rests_on_lease) {
        Err(Failure::Stopping) => Served::Elsewhere,
        answer => Served::Answer(answer_of(&answer)),
    }
}

/// Another runtime waits for this call's answer.
struct Waits<M: Wire> {
    call: Arc<Call<M>>,
    shared: Arc<Shared>,
    done: Mutex<Option<ServedTo>>,
}

impl<M: Wire> Waits<M> {
    /// Answers if the call has ended; otherwise this is looked at again when it does.
    fn look(self: &Arc<Self>) {
        let waker = Waker::from(Arc::clone(self));
        if let Poll::Ready(answer) = self.call.poll_answer(&mut Context::from_waker(&waker))
            && let Some(done) = self.done.lock().take()
        {
            done(answered::<M>(&self.shared, answer, || self.call.rests_on_lease()));
        }
    }
}

impl<M: Wire> Wake for Waits<M> {
    fn wake(self: Arc<Self>) {
        self.look();
    }
}
