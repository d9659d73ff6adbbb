//! The pages a message names: read before its turn, with staged writes over them.

use std::sync::Arc;

use super::{
    activation::{Activation, Busy, Phase, Read},
    shard::{Core, Shard},
};
use crate::{
    model::{Outcome, Timestamp, limits},
    store::{self, Load, Loaded, Prefix},
    twin::{Delivery, Failure, Needs, Pages, Twin},
};

/// The pages a message named.
pub(super) enum Named {
    /// It names none.
    Nothing,
    /// Staged writes over what was read.
    Here(Pages),
    /// To be read first; without a load, when the pages under way are durable.
    Elsewhere(Option<Load>),
}

/// Finds the pages a message named, or says what to read.
pub(super) fn named<K: Twin>(twin: &mut Activation<K>, call: &dyn Delivery<K>) -> Named {
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

impl<K: Twin> Core<K> {
    /// Takes the pages that the first waiting message named, and lets it have its turn.
    pub(super) fn pages_read(
        &mut self,
        shard: &Shard<K>,
        at: u32,
        number: u64,
        read: Result<Loaded, store::Error>,
        now: Timestamp,
    ) {
        let Some(busy) = self.table.get_mut(at).and_then(|twin| twin.busy.as_mut()) else { return };
        if !matches!(busy.read, Read::Asked(asked) if asked == number) {
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
}
