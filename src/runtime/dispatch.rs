//! Effects on their way: promised with a commit, sent when it is durable, sent again until they settle.

use std::{any::TypeId, sync::Arc};

use parking_lot::Mutex;

use super::{
    activation::{Ledger, Phase},
    shard::{Core, Shard},
    shared::{Office, Shared, unregistered},
};
use crate::{
    model::{Header, Key, Principal, RequestKey, Rider, Sealed, Step, Timestamp},
    twin::{Effect, EffectBody, Failure, Forwarded, Sender, Twin, outbox::Promise},
};

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
            let number = ledger.outbox.next_number();
            ledger.outbox.promise(Promise {
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
            ledger.in_delivery.push(number);
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
                    settle(&self.office, &self.from, Some(unregistered(self.to_name, self.name)));
                    return;
                };
                let header = keyed(self.header.clone(), &self.from, self.made_at, host.is_durable());
                host.post(&self.to_key, message.into_parcel(header, sender(&self.office, office, &self.from)));
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
    let sender = Sender { office: Arc::clone(&way), key: key.clone(), settled: None };
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

fn sender(office: &Arc<Office>, way: Arc<dyn crate::twin::PostOffice>, from: &From) -> Sender {
    let (office, key, from) = (Arc::clone(office), from.key.clone(), from.clone());
    Sender { office: way, key, settled: Some(Box::new(move |failure| settle(&office, &from, failure.cloned()))) }
}

fn settle(office: &Office, from: &From, failure: Option<Failure>) {
    if let Some(number) = from.number
        && let Some(host) = office.host(from.kind)
    {
        host.settle(&from.key, number, failure);
    }
}

impl<K: Twin> Core<K> {
    /// Sends every promise that is not on its way: after an activation, or when sending failed before.
    pub(super) fn redeliver(&mut self, shard: &Shard<K>, at: u32, _now: Timestamp) {
        let Some(twin) = self.table.get_mut(at) else { return };
        let Some(ledger) = &mut twin.ledger else { return };
        let Ledger { outbox, in_delivery, .. } = &mut **ledger;
        let office = &shard.shared.office;
        for promise in outbox.iter() {
            if in_delivery.contains(&promise.number) {
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
            let header = keyed(header, &from, promise.made_at, host.is_durable());
            let parcel = office.decode(
                &promise.kind,
                &promise.name,
                promise.back.as_deref(),
                &promise.bytes,
                header,
                sender(office, way, &from),
            );
            let Some(parcel) = parcel else {
                tracing::error!(kind = %promise.kind, name = %promise.name, from = %twin.key, "a promised message is not registered; it stays in the outbox");
                continue;
            };
            in_delivery.push(promise.number);
            host.post(&promise.key, parcel);
        }
    }

    /// Takes note of how a promise went.
    pub(super) fn settled(
        &mut self,
        shard: &Shard<K>,
        hash: u64,
        key: &Key,
        number: u64,
        failure: Option<&Failure>,
        now: Timestamp,
    ) {
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
        ledger.in_delivery.retain(|on_its_way| *on_its_way != number);
        match failure {
            None => {
                if ledger.outbox.settle(number) {
                    twin.busy().dirty = true;
                    self.submit(shard, at, now);
                }
            }
            Some(failure) => {
                tracing::debug!(kind = K::KIND, %key, number, %failure, "a promise is sent again later");
                shard.shared.wakes.again(soon, K::KIND, key);
            }
        }
    }
}
