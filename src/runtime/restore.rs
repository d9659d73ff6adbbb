//! From stored bytes to a twin.

use super::{
    activation::{Rare, Stored},
    cache::Cache,
    dispatch::Deliveries,
};
use crate::{
    model::Key,
    store::{Loaded, SharedTerms},
    twin::{
        Pages, Persistence, Terms, Twin, journal,
        outbox::Outbox,
        record::{self, Section},
        ring::{self, Ring},
    },
};

/// What came of a read.
pub(super) enum Restored<K: Twin> {
    Whole(Box<Stored<K>>),
    /// The ring's older part lies on a page that was not read.
    NeedsRing,
}

/// Makes a twin of what was read; `seen` commits of it are known to have been durable.
pub(super) fn restore<K: Twin>(key: &Key, seen: u64, loaded: Loaded) -> Result<Restored<K>, record::Error> {
    let Some(bytes) = &loaded.core else {
        not_behind(0, seen)?;
        // A twin that was only ever observed has pages and no record.
        let mut state = K::create(key);
        observed(&mut state, loaded);
        return Ok(Restored::Whole(Box::new(Stored {
            state,
            revision: 0,
            sequence: 0,
            // Not known: measured with the first change.
            state_bytes: K::RECORD_BYTES_MAX,
            terms: SharedTerms::default(),
            rare: Rare::default(),
        })));
    };
    let record = record::decode(bytes)?;
    not_behind(record.head.sequence, seen)?;
    let page = loaded.pages.iter().find(|(name, _)| name == ring::PAGE).map(|(_, bytes)| &bytes[..]);
    let section = record.section(Section::Ring).unwrap_or_default();
    if !section.is_empty() && page.is_none() && Ring::needs_page(section)? {
        return Ok(Restored::NeedsRing);
    }
    let bytes = record.section(Section::State).unwrap_or_default();
    let rare = Rare {
        ring: match page {
            None if section.is_empty() => Ring::default(),
            None => Ring::decode(section, None)?,
            Some(page) => Ring::decode(section, Some(page)).map_err(|error| {
                let (found, expected) = (record.head.revision, ring::newest(page));
                let behind = record::Error::Backwards { what: "revision", found, expected, witness: "its ring page" };
                if expected > found { behind } else { error }
            })?,
        },
        outbox: record.section(Section::Outbox).map_or_else(|| Ok(Outbox::default()), Outbox::decode)?,
        journal: record
            .section(Section::Journal)
            .map_or_else(|| Ok(journal::Tail::default()), journal::Tail::decode)?,
        deliveries: Deliveries::default(),
        cache: Cache::default(),
    };
    let mut state: K = K::Persistence::decode(record.head.shape, bytes)?;
    let mut terms = Terms::default();
    state.index(&mut terms);
    let (revision, sequence, state_bytes) = (record.head.revision, record.head.sequence, bytes.len());
    observed(&mut state, loaded);
    let terms = terms.as_slice().into();
    Ok(Restored::Whole(Box::new(Stored { state, revision, sequence, state_bytes, terms, rare })))
}

/// Hands a twin its observed pages.
fn observed<K: Twin>(state: &mut K, loaded: Loaded) {
    let Some(prefix) = K::OBSERVED else { return };
    let pages = loaded.pages.into_iter().filter(|(name, _)| name.starts_with(prefix));
    let pages: Pages = pages.map(|(name, bytes)| (name.into(), bytes)).collect();
    if !pages.is_empty() {
        state.restore(pages);
    }
}

/// Refuses a record that is older than what is known to have been durable.
fn not_behind(found: u64, expected: u64) -> Result<(), record::Error> {
    if found < expected {
        let witness = "its wake entry or this process";
        return Err(record::Error::Backwards { what: "sequence", found, expected, witness });
    }
    Ok(())
}
