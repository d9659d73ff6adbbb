//! Reads that may be stale, at a runtime that does not own the twin: a copy of what it sees stored answers one message and
//! is dropped. Nobody is asked, nothing is proven; what the copy would change is refused.

use std::sync::Arc;

use super::{
    arrival::observed,
    contain::asked,
    restore::{Restored, restore},
    shared::Shared,
};
use crate::{
    model::{Key, Outcome, Sealed, limits},
    store::{self, Address, Load, Loaded, Prefix},
    twin::{Delivery, Failure, Needs, Pages, Persistence, Rejection, Ruling, Turn, Twin, ring},
};

/// A message that a stale read cannot be.
pub(super) fn changes_nothing() -> Rejection {
    Rejection::invalid("this would change the twin, and what may be stale changes nothing: ask without 'stale-ok'")
}

/// What cannot be read from the store, or proven by it.
pub(super) fn stored_only<K: Twin>() -> Rejection {
    Rejection::Unsupported {
        what: format!("a consistency other than 'lease' for the kind '{}', which is not stored", K::KIND).into(),
    }
}

impl Shared {
    /// Answers a message from what is stored of its twin.
    pub(super) fn answer_stale<K: Twin>(self: &Arc<Self>, key: Key, call: Arc<dyn Delivery<K>>) {
        let Some(store) = self.store.as_ref().filter(|_| K::Persistence::DURABLE) else {
            return call.fail(stored_only::<K>().into());
        };
        let load = match wanted::<K>(&key, &call.needs()) {
            Ok(load) => load,
            Err(rejection) => return call.fail(rejection.into()),
        };
        let shared = Arc::clone(self);
        store.load(
            load,
            Box::new(move |loaded| match shared.ruled(&key, &*call, loaded) {
                Ok(()) => call.release(&Sealed::Durable),
                Err(failure) => call.fail(failure),
            }),
        );
    }

    /// Lets a copy of the twin rule; the reply stays in the call.
    fn ruled<K: Twin>(
        &self,
        key: &Key,
        call: &dyn Delivery<K>,
        loaded: Result<Loaded, store::Error>,
    ) -> Result<(), Failure> {
        let now = self.clock.now();
        if call.header().deadline.is_some_and(|deadline| deadline <= now) {
            return Err(Failure::Expired);
        }
        let unread = |why: String| Failure::Lost { outcome: Outcome::NotApplied, cause: why.into() };
        let loaded = loaded.map_err(|error| unread(error.to_string()))?;
        let needs = call.needs();
        let named = |name: &str| match &needs {
            Needs::Nothing => false,
            Needs::Pages(names) => names.iter().any(|wanted| wanted == name),
            Needs::Prefix { prefix, .. } => name.starts_with(prefix.as_str()),
        };
        let pages = loaded.pages.iter().filter(|(name, _)| named(name));
        let pages: Pages = pages.map(|(name, page)| (name.as_str().to_owned(), page.clone())).collect();
        let ruling = asked(|| {
            let stored = match restore::<K>(key, 0, loaded).map_err(|error| unread(error.to_string()))? {
                Restored::Whole(stored) => stored,
                Restored::NeedsRing => return Err(unread("its ring page is missing".into())),
            };
            Ok(call.rule(&stored.state, &Turn::new(now, key, stored.revision, call.header()).with_pages(&pages)))
        });
        match ruling.map_err(|message| Failure::Panicked { message })?? {
            Ruling::Rejected => Ok(()),
            Ruling::Decided { changes, more: None } if changes.is_empty() => Ok(()),
            Ruling::Decided { .. } => Err(changes_nothing().into()),
        }
    }
}

/// What a message is answered from: the record, and the pages that it names or, without any, what was observed.
fn wanted<K: Twin>(key: &Key, needs: &Needs) -> Result<Load, Rejection> {
    let (mut pages, prefix) = match needs {
        Needs::Nothing => (Vec::new(), observed::<K>()),
        Needs::Pages(names) => {
            Rejection::within("pages named", limits::NEEDS_KEYS_MAX, names.len())?;
            (names.iter().map(Into::into).collect(), observed::<K>())
        }
        Needs::Prefix { prefix, after, limit } => {
            let after = after.as_ref().map(Into::into);
            (Vec::new(), Some(Prefix { prefix: prefix.into(), after, limit: *limit }))
        }
    };
    pages.push(ring::PAGE.into());
    let address = Arc::new(Address { kind: K::KIND.into(), key: key.clone() });
    Ok(Load { address, core: true, pages, prefix, under: None })
}
