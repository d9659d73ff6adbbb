//! Effects on their way: promised with a commit, sent when it is durable, sent again until they settle.

use std::{any::TypeId, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::{
    activation::{Ledger, Phase, Rare},
    shard::{Core, Shard},
    shared::{Office, Shared, unregistered},
};
use crate::{
    model::{Header, Key, Outcome, Principal, RequestKey, Rider, Sealed, Step, Timestamp},
    twin::{
        Effect, EffectBody, Failure, Forwarded, Rejection, Sender, Twin, Went,
        outbox::{Outbox, Promise},
    },
};

/// Longest wait before a promise is sent again whose target fails it: a panic, a message it does not know.
const POISON_WAIT_MAX: Duration = Duration::from_secs(300);
/// Longest wait before a promise is sent again that found its target busy or out of reach.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// After how many failures in a row of one promise the log says so, once.
const FAILURES_SAID: u32 = 5;

/// Asks per shard that are given up at their twins' next activation, at most.
const GIVEN_UP_MAX: usize = 64;

/// How the deliveries of a twin's promises stand, in memory only: a new activation begins anew.
#[derive(Default)]
pub(super) struct Deliveries(Vec<Attempt>);

struct Attempt {
    number: u64,
    failures: u32,
    /// When it may be sent again; `None` while it is on its way.
    again_at: Option<Timestamp>,
    /// Whether this activation promised it and each delivery so far was certainly not applied: a key with another time
    /// cannot double it.
    surely_new: bool,
    /// The time its key must be after, as far as the target has said.
    forgotten_until: Timestamp,
}

impl Deliveries {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&mut self, number: u64) -> &mut Attempt {
        let at = self.0.iter().position(|attempt| attempt.number == number).unwrap_or_else(|| {
            let unknown =
                Attempt { number, failures: 0, again_at: None, surely_new: false, forgotten_until: Timestamp::ZERO };
            self.0.push(unknown);
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    fn may_be_sent(&self, number: u64, now: Timestamp) -> bool {
        let known = self.0.iter().find(|attempt| attempt.number == number);
        // Later than any wait: set before the clock went back.
        let is_due = |at: Timestamp| at <= now || at.since(now) > POISON_WAIT_MAX;
        known.is_none_or(|attempt| attempt.again_at.is_some_and(is_due))
    }

    fn sent(&mut self, number: u64) {
        self.find(number).again_at = None;
    }

    /// Promised just now: its first delivery leaves with the commit.
    fn promised(&mut self, number: u64) {
        self.find(number).surely_new = true;
    }

    /// For a promise that was certainly never applied: the time its key must be after, [`Timestamp::ZERO`] for any.
    fn surely_new(&self, number: u64) -> Option<Timestamp> {
        let known = self.0.iter().find(|attempt| attempt.number == number)?;
        known.surely_new.then_some(known.forgotten_until)
    }

    pub(super) fn forget(&mut self, number: u64) {
        self.0.retain(|attempt| attempt.number != number);
    }

    /// Takes note of a failure, and whether the target took it nevertheless: how many there were in a row, and when it is
    /// sent again.
    fn failed(
        &mut self,
        number: u64,
        failure: &Failure,
        taken: bool,
        now: Timestamp,
        wait_min: Duration,
    ) -> (u32, Timestamp) {
        let wait_max = match failure {
            Failure::Panicked { .. } | Failure::Unregistered { .. } | Failure::Keyless { .. } => POISON_WAIT_MAX,
            Failure::Rejected(_)
            | Failure::Overloaded { .. }
            | Failure::Expired
            | Failure::Cycle { .. }
            | Failure::Backoff { .. }
            | Failure::Lost { .. }
            | Failure::AlreadyDone { .. }
            | Failure::Stopping => WAIT_MAX,
        };
        let attempt = self.find(number);
        let wait = wait_min.saturating_mul(2_u32.saturating_pow(attempt.failures)).min(wait_max);
        attempt.failures += 1;
        attempt.surely_new &= !taken && failure.outcome() == Outcome::NotApplied;
        if let Failure::Rejected(Rejection::KeyTooOld { forgotten_until, .. }) = failure {
            attempt.forgotten_until = attempt.forgotten_until.max(*forgotten_until);
        }
        let again_at = now.after(wait);
        attempt.again_at = Some(again_at);
        (attempt.failures, again_at)
    }
}

/// A message that waits for the commit that promised it.
pub(super) struct EffectRider {
    office: Arc<Office>,
    from: From,
    to: TypeId,
    to_name: &'static str,
    to_key: Key,
    name: &'static str,
    header: Header,
    made_at: Timestamp,
    message: Mutex<Option<Box<dyn Forwarded>>>,
}

/// The sending twin; `number` is its promise, for a durable one.
#[derive(Clone)]
struct From {
    kind: TypeId,
    kind_name: &'static str,
    key: Key,
    number: Option<u64>,
}

impl EffectRider {
    #[expect(clippy::too_many_arguments, reason = "one caller; each is a fact of the turn")]
    pub(super) fn promise<K: Twin>(
        shared: &Arc<Shared>,
        kind: TypeId,
        key: &Key,
        ledger: Option<&mut Ledger>,
        revision: u64,
        body: EffectBody,
        header: &Header,
        now: Timestamp,
    ) -> Option<Self> {
        let EffectBody::Send { kind: to, kind_name, key: to_key, name, message } = body else { return None };
        let path = path_of::<K>(key, header, message.back().is_some());
        let number = ledger.map(|ledger| {
            let rare = ledger.rare_mut();
            let number = rare.outbox.next_number();
            rare.outbox.promise(Promise {
                number,
                kind: kind_name.into(),
                key: to_key.clone(),
                name: name.into(),
                bytes: message.encode(),
                back: message.back().map(Into::into),
                made_at: now,
                revision,
                trace: header.trace().copied(),
                path: path.clone(),
            });
            rare.deliveries.promised(number);
            number
        });
        let from = From { kind, kind_name: K::KIND, key: key.clone(), number };
        let mut onward = Header::default()
            .with_path(path)
            .with_principal(Principal::Twin { kind: K::KIND.into(), key: key.clone() });
        if let Some(trace) = header.trace() {
            onward = onward.with_trace(*trace);
        }
        Some(Self {
            office: Arc::clone(&shared.office),
            from,
            to,
            to_name: kind_name,
            to_key,
            name,
            header: onward,
            made_at: now,
            message: Mutex::new(Some(message)),
        })
    }
}

impl Rider for EffectRider {
    fn release(&self, sealed: &Sealed) {
        let Some(message) = self.message.lock().take() else { return };
        match sealed {
            Sealed::Lost { .. } => {}
            Sealed::Durable => {
                let Some(office) = self.office.as_post_office() else { return };
                let Some(host) = self.office.host(self.to) else {
                    settle(&self.office, &self.from, Went::Failed(unregistered(self.to_name, self.name)));
                    return;
                };
                let header = keyed(self.header.clone(), &self.from, self.made_at, host.is_durable());
                host.post(&self.to_key, message.into_parcel(header, sender(&self.office, office, &self.from, true)));
            }
        }
    }
}

/// At most so many bytes does an effect's promise take in the record; `None` for one that promises nothing.
pub(super) fn promise_bytes<K: Twin>(from: &Key, header: &Header, effect: &Effect) -> Option<usize> {
    let EffectBody::Send { kind_name, key, name, message, .. } = &effect.0 else { return None };
    let promise = Promise {
        number: u64::MAX,
        kind: (*kind_name).into(),
        key: key.clone(),
        name: (*name).into(),
        bytes: message.encode(),
        back: message.back().map(Into::into),
        made_at: Timestamp::MAX,
        revision: u64::MAX,
        trace: header.trace().copied(),
        path: path_of::<K>(from, header, message.back().is_some()),
    };
    Some(promise.bytes())
}

/// Sends a volatile twin's message at once: it has no outbox, so nobody hears how that went.
pub(super) fn send_now<K: Twin>(shard: &Shard<K>, key: &Key, body: EffectBody, header: &Header) {
    let EffectBody::Send { kind, key: to, message, .. } = body else { return };
    let Some(way) = shard.shared.office.as_post_office() else { return };
    let path = path_of::<K>(key, header, message.back().is_some());
    let mut onward =
        Header::default().with_path(path).with_principal(Principal::Twin { kind: K::KIND.into(), key: key.clone() });
    if let Some(trace) = header.trace() {
        onward = onward.with_trace(*trace);
    }
    let sender = Sender { office: Arc::clone(&way), key: key.clone(), settled: None, number: None, surely_new: false };
    way.post(kind, &to, message.into_parcel(onward, sender));
}

fn path_of<K: Twin>(key: &Key, header: &Header, awaits: bool) -> Vec<Step> {
    if !awaits {
        return Vec::new();
    }
    let mut path = header.path().to_vec();
    path.push(Step { kind: K::KIND.into(), key: key.clone() });
    path
}

/// A durable twin's message to a durable twin carries a key, so that sending it again changes nothing.
fn keyed(header: Header, from: &From, made_at: Timestamp, durable: bool) -> Header {
    match from.number {
        Some(number) if durable => {
            header.with_request(RequestKey::new(&format!("{}/{}/{number}", from.kind_name, from.key), made_at))
        }
        Some(_) | None => header,
    }
}

fn sender(office: &Arc<Office>, way: Arc<dyn crate::twin::PostOffice>, from: &From, surely_new: bool) -> Sender {
    let (office, key, number, from) = (Arc::clone(office), from.key.clone(), from.number, from.clone());
    Sender { office: way, key, settled: Some(Arc::new(move |went| settle(&office, &from, went))), number, surely_new }
}

fn settle(office: &Office, from: &From, went: Went) {
    if let Some(number) = from.number
        && let Some(host) = office.host(from.kind)
    {
        host.settle(&from.key, number, went);
    }
}

/// Target and message of a promise, for people.
fn name_of(outbox: &Outbox, number: u64) -> String {
    let to = outbox.iter().find(|promise| promise.number == number);
    to.map_or_else(String::new, |to| format!("{}:{} {}", to.kind, to.key, to.name))
}

impl<K: Twin> Core<K> {
    /// Sends every promise that is not on its way and not to be left alone yet: after an activation, or when sending
    /// failed before.
    pub(super) fn redeliver(&mut self, shard: &Shard<K>, at: u32, now: Timestamp) {
        self.give_up(shard, at, now);
        let Some(twin) = self.table.get_mut(at) else { return };
        let Some(ledger) = &mut twin.ledger else { return };
        if ledger.rare().outbox.is_empty() {
            return;
        }
        let Rare { outbox, deliveries, .. } = ledger.rare_mut();
        let office = &shard.shared.office;
        for promise in outbox.iter() {
            if !deliveries.may_be_sent(promise.number, now) {
                continue;
            }
            let from = From {
                kind: TypeId::of::<K>(),
                kind_name: K::KIND,
                key: twin.key.clone(),
                number: Some(promise.number),
            };
            let (Some(way), Some(host)) = (office.as_post_office(), office.host_named(&promise.kind)) else {
                tracing::error!(kind = %promise.kind, name = %promise.name, from = %twin.key, "a promised message has no host; it stays in the outbox");
                continue;
            };
            let mut header = Header::default()
                .with_path(promise.path.clone())
                .with_principal(Principal::Twin { kind: K::KIND.into(), key: twin.key.clone() });
            if let Some(trace) = promise.trace {
                header = header.with_trace(trace);
            }
            let surely_new = deliveries.surely_new(promise.number);
            let made_at = surely_new.map_or(promise.made_at, |forgotten_until| {
                shard.shared.promise_time(now).max(forgotten_until.after(Duration::from_millis(1)))
            });
            let header = keyed(header, &from, made_at, host.is_durable());
            let parcel = office.decode(
                &promise.kind,
                &promise.name,
                promise.back.as_deref(),
                &promise.bytes,
                header,
                sender(office, way, &from, surely_new.is_some()),
            );
            let Some(parcel) = parcel else {
                tracing::error!(kind = %promise.kind, name = %promise.name, from = %twin.key, "a promised message is not registered; it stays in the outbox");
                continue;
            };
            deliveries.sent(promise.number);
            host.post(&promise.key, parcel);
        }
    }

    /// Remembers that a twin panicked on the answer to its own ask.
    pub(super) fn could_not_take(&mut self, key: &Key, number: u64) {
        if self.given_up.len() == GIVEN_UP_MAX {
            self.given_up.remove(0);
        }
        self.given_up.push((key.clone(), number));
    }

    /// Settles asks whose answer ended the activation before this one: it would end each.
    fn give_up(&mut self, shard: &Shard<K>, at: u32, now: Timestamp) {
        if self.given_up.is_empty() {
            return;
        }
        let Some(twin) = self.table.get_mut(at) else { return };
        let Some(ledger) = &mut twin.ledger else { return };
        let mut settled = false;
        self.given_up.retain(|(key, number)| {
            let of_this_twin = *key == twin.key;
            settled |= of_this_twin && ledger.rare_mut().outbox.settle(*number);
            !of_this_twin
        });
        if settled {
            tracing::error!(kind = K::KIND, key = %twin.key, "a twin panics on the answer to its own ask; the answer is dropped");
            twin.busy().dirty = true;
            self.submit(shard, at, now);
        }
    }

    /// Takes note of how a promise went.
    pub(super) fn settled(&mut self, shard: &Shard<K>, hash: u64, key: &Key, number: u64, went: &Went, now: Timestamp) {
        let soon = now.after(shard.shared.config.backoff_min);
        let Some(at) = self.table.find(hash, key) else {
            // Its activation ended meanwhile: the next one sends the promise anew, and the target's ring knows it.
            shard.shared.wakes.again(soon, K::KIND, key);
            return;
        };
        let Some(twin) = self.table.get_mut(at) else { return };
        if !twin.busy.as_ref().is_none_or(|busy| matches!(busy.phase, Phase::Live)) {
            // The same, under way already; its load looks at the outbox by itself.
            return;
        }
        let Some(ledger) = &mut twin.ledger else { return };
        let Rare { outbox, deliveries, .. } = ledger.rare_mut();
        match went {
            Went::Done | Went::TooOld => {
                if matches!(went, Went::TooOld) {
                    self.counts.effects_dropped += 1;
                    let to = name_of(outbox, number);
                    tracing::warn!(kind = K::KIND, %key, number, to, "a promised message is dropped: its target has forgotten keys as old as its own and cannot tell whether it had it");
                }
                deliveries.forget(number);
                if outbox.settle(number) {
                    twin.busy().dirty = true;
                    self.submit(shard, at, now);
                }
            }
            Went::Failed(failure) | Went::Unanswered(failure) => {
                let taken = matches!(went, Went::Unanswered(_));
                self.counts.delivery_failures += 1;
                let (failures, again_at) =
                    deliveries.failed(number, failure, taken, now, shard.shared.config.backoff_min);
                if failures == FAILURES_SAID {
                    let to = name_of(outbox, number);
                    tracing::warn!(kind = K::KIND, %key, number, to, %failure, "a promised message fails each time; it stays in the outbox and is tried again less and less often");
                } else {
                    tracing::debug!(kind = K::KIND, %key, number, %failure, "a promise is sent again later");
                }
                shard.shared.wakes.again(again_at, K::KIND, key);
            }
        }
    }
}
