//! A decision takes effect: applied, journaled, and what leaves with its commit staged.

use std::{
    any::TypeId,
    sync::{Arc, atomic::Ordering},
};

use super::{
    activation::Activation,
    dispatch::{EffectRider, send_now},
    events::EventRider,
    hold::{refused, spare},
    shard::Shard,
    turn::Leave,
};
use crate::{
    model::{Header, Rider, Sealed, Timestamp},
    twin::{Changes, Effect, EffectBody, More, Persistence, Turn, Twin, journal},
};

/// Applies a decision, journals it, and stages what leaves with its commit.
pub(super) fn install<K: Twin>(
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
    let mut facts = observe(&mut twin.state, &turn);
    // Nobody waits for a fact's refusal; what was observed stays observed, and the decision itself goes on.
    let fits = facts.is_empty() || {
        let (shared, more, scratch) = (&shard.shared, more.as_deref(), &mut Vec::new());
        refused::<K>(shared, twin, header, &facts, more, spare::<K>(), scratch).is_none()
    };
    if !fits {
        shard.facts_dropped.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(kind = K::KIND, key = %twin.key, "what an observation made known does not fit the record and is dropped");
        facts = Changes::new();
    }
    for fact in &facts {
        twin.state.apply(fact, now);
        twin.revision += 1;
        events.extend(twin.state.event(fact).map(|event| (twin.revision, event)));
    }
    let changed = twin.revision != before;
    let More { mut pages, effects, forgets } = more.map_or_else(More::default, |more| *more);
    let durable = twin.ledger.is_some();
    // A request that changed nothing would change something later: its key is kept, too.
    let keyed = durable && header.request().is_some();
    if !changed && pages.is_empty() && effects.is_empty() && !keyed {
        return Leave::Now;
    }
    if let Some(ledger) = &mut twin.ledger {
        if !pages.is_empty() {
            ledger.wrote(&pages, shard.shared.config.page_cache_bytes_max);
        }
        let all = || changes.iter().chain(&facts);
        if K::JOURNAL && changed {
            let encoded = all().map(|change| {
                let mut bytes = Vec::new();
                K::Persistence::encode_change(change, &mut bytes);
                bytes
            });
            ledger.rare_mut().journal.append(
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
            if forgets {
                let mut state = Vec::new();
                K::Persistence::encode(&twin.state, &mut state);
                pages.push(ledger.rare_mut().journal.forget_past(twin.revision, &state, K::Persistence::SHAPE));
            }
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
        if !durable && matches!(body, EffectBody::Send { .. }) {
            send_now(shard, &twin.key, body, header);
            continue;
        }
        riders.extend(promise(shard, twin, body, header, now));
    }
    if durable {
        let busy = twin.busy();
        busy.mark += 1;
        let mark = busy.mark;
        busy.dirty |= changed || keyed || !riders.is_empty();
        for page in pages {
            busy.pages.retain(|staged| staged.name != page.name);
            busy.pages.push(page);
        }
        busy.staged.extend(riders.into_iter().map(|rider| (mark, rider)));
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
            shard.shared.promise_time(now),
        )?)),
    }
}

/// Arms a twin's wake-up if it moved.
pub(super) fn arm<K: Twin>(shard: &Shard<K>, twin: &mut Activation<K>, at: Option<Timestamp>) {
    let Some(ledger) = &mut twin.ledger else { return };
    if let Some(at) = at
        && ledger.armed != Some(at)
    {
        // What lies beyond the part of the index that was read is not kept, and so not armed.
        ledger.armed = shard.shared.wakes.arm(at, K::KIND, &twin.key).then_some(at);
    }
}
