//! The pages a message names: read before its turn, with staged writes over them.

use std::sync::Arc;

use super::{
    activation::{Activation, Busy, Phase, Read},
    shard::{Core, Shard},
};
use crate::{
    model::{Outcome, Timestamp, limits},
    store::{self, Load, Loaded, Prefix},
    twin::{Delivery, Failure, Needs, Pages, Rejection, Twin, journal, ring},
};

/// The pages a message named.
pub(super) enum Named {
    /// Its turn may begin.
    Here(Found),
    /// To be read first; without a load, when the pages under way are durable.
    Elsewhere(Option<Load>),
    /// It names more than a turn may read.
    TooMany(Failure),
}

/// Where the pages of a turn are.
pub(super) enum Found {
    /// It reads none.
    Nothing,
    /// Staged writes over what was read.
    Read(Pages),
    /// All of these are kept in memory.
    Kept(Vec<String>),
}

/// Finds the pages a message named, or says what to read.
pub(super) fn named<K: Twin>(twin: &mut Activation<K>, call: &dyn Delivery<K>) -> Named {
    let needs = call.needs();
    if needs == Needs::Nothing {
        return Named::Here(Found::Nothing);
    }
    if let Needs::Pages(names) = &needs
        && names.len() > limits::NEEDS_KEYS_MAX
    {
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let (max, actual) = (wide(limits::NEEDS_KEYS_MAX), wide(names.len()));
        return Named::TooMany(Rejection::Limit { limit: "pages named".into(), max, actual }.into());
    }
    let Some(ledger) = &mut twin.ledger else { return Named::Here(Found::Read(Pages::default())) };
    let has_read = twin.busy.as_ref().is_some_and(|busy| matches!(busy.read, Read::Done(_)));
    if let Needs::Pages(names) = &needs
        && !has_read
        && ledger.knows(names)
    {
        return Named::Here(Found::Kept(names.clone()));
    }
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
        if let Needs::Prefix { limit, .. } = needs {
            // As many were read that these lie before whatever was not read.
            while pages.len() > limit {
                pages.pop_last();
            }
        }
        return Named::Here(Found::Read(pages));
    }
    if busy.flight.is_some_and(|flight| flight.pages) {
        return Named::Elsewhere(None);
    }
    let (pages, prefix) = match needs {
        Needs::Nothing => (Vec::new(), None),
        Needs::Pages(names) => (names.into_iter().map(Into::into).collect(), None),
        Needs::Prefix { prefix, after, limit } => {
            let limit = read_max(limit, busy);
            (Vec::new(), Some(Prefix { prefix: prefix.into(), after: after.map(Into::into), limit }))
        }
    };
    Named::Elsewhere(Some(Load { address, core: false, pages, prefix, under: None }))
}

/// Whether a page is the runtime's, whoever names it.
pub(super) fn is_own(name: &str) -> bool {
    name == ring::PAGE || name.starts_with(journal::FOLDER)
}

/// Pages to read for a run of at most `limit`: some of them may be about to be deleted.
fn read_max<K: Twin>(limit: usize, busy: &Busy<K>) -> usize {
    limit.saturating_add(busy.pages.iter().filter(|page| page.value.is_none()).count())
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
        let Some(Activation { busy: Some(busy), ledger: Some(ledger), .. }) = self.table.get_mut(at) else { return };
        if !matches!(busy.read, Read::Asked(asked) if asked == number) {
            return;
        }
        busy.read = match read {
            Ok(loaded) => {
                if let Some(Needs::Pages(names)) = busy.waiting.front().map(|call| call.needs()) {
                    let bytes_max = shard.shared.config.page_cache_bytes_max;
                    let cache = &mut ledger.rare_mut().cache;
                    for name in names {
                        // What a turn wrote meanwhile is newer; what the runtime writes it writes past this.
                        if !is_own(&name) && !cache.knows(&name) && busy.pages.iter().all(|staged| staged.name != name)
                        {
                            let found = loaded.pages.iter().find(|(found, _)| *found == name);
                            cache.put(&name, found.map(|(_, bytes)| bytes.clone()), bytes_max);
                        }
                    }
                }
                Read::Done(loaded.pages.into_iter().map(|(name, bytes)| (name.into(), bytes)).collect())
            }
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
