//! The bounds of record and commit, checked before anything is applied.

use super::{activation::Activation, dispatch::promise_bytes, named::is_own, shared::Shared, stale::changes_nothing};
use crate::{
    model::{Consistency, Header, Timestamp, limits},
    twin::{Failure, More, PageWrite, Persistence, Rejection, Twin, outbox, ring},
};

/// Keys of a commit kept free for the core, the ring page and a journal rotation with its deletes.
pub(super) const RESERVED_KEYS: usize = 12;
/// Frame and section heads.
const FRAME_BYTES: usize = 128;
/// What a change may grow the state by beyond its own encoded size.
const GROWTH_SLACK: usize = 16;

/// Why a decision is not installed.
pub(super) enum Hold {
    /// It would cross a bound of the record, or nothing is written any more.
    Refuse(Failure),
    /// Its pages do not fit beside those staged; it is decided again when they were submitted.
    Wait,
}

/// What messages leave free of a record, so that a twin that is full can still do what it is woken for.
pub(super) const fn spare<K: Twin>() -> usize {
    K::RECORD_BYTES_MAX / 16
}

/// Checks a decision against the bounds of record and commit, before anything is applied; `spare` bytes of the record
/// must stay free after it.
pub(super) fn refused<K: Twin>(
    shared: &Shared,
    twin: &mut Activation<K>,
    header: &Header,
    changes: &[K::Change],
    more: Option<&More>,
    spare: usize,
    scratch: &mut Vec<u8>,
) -> Option<Hold> {
    if header.consistency() == Consistency::StaleOk && (!changes.is_empty() || more.is_some()) {
        return Some(Hold::Refuse(changes_nothing().into()));
    }
    let ledger = twin.ledger.as_mut()?;
    if changes.is_empty() && more.is_none() && header.request().is_none() {
        return None;
    }
    if let Some(failure) = shared.unwritable() {
        return Some(Hold::Refuse(failure));
    }
    scratch.clear();
    for change in changes {
        K::Persistence::encode_change(change, scratch);
    }
    // A change grows the state by at most its own encoded size and a little for the containers it touches.
    let mut growth = scratch.len() + GROWTH_SLACK * changes.len();
    let sends = || {
        let effects = more.iter().flat_map(|more| &more.effects);
        effects.filter_map(|effect| promise_bytes::<K>(&twin.key, header, effect))
    };
    let (promises, promised) = (sends().count(), sends().sum::<usize>());
    let rare = ledger.rare();
    if !rare.outbox.fits(promises, promised) {
        return Some(limit("outbox", outbox::PROMISES_MAX, rare.outbox.len() + promises));
    }
    // What ring and journal may grow to before the older part of them moves to pages.
    let journal_bytes = if K::JOURNAL { rare.journal.bytes_max() } else { 0 };
    let beside = FRAME_BYTES + spare + ring::CORE_BYTES_MAX + journal_bytes + rare.outbox.bytes() + promised;
    if beside + ledger.state_bytes + growth > K::RECORD_BYTES_MAX {
        scratch.clear();
        K::Persistence::encode(&twin.state, scratch);
        ledger.state_bytes = scratch.len();
        if beside + ledger.state_bytes + growth > K::RECORD_BYTES_MAX {
            // What takes the place of something else grows the state by less than itself.
            let after = tried::<K>(scratch, changes, shared.clock.now()).unwrap_or(ledger.state_bytes + growth);
            if beside + after > K::RECORD_BYTES_MAX {
                return Some(limit("record bytes", K::RECORD_BYTES_MAX, beside + after));
            }
            growth = after.saturating_sub(ledger.state_bytes);
        }
    }
    ledger.state_bytes += growth;
    let more = more?;
    let size = |page: &PageWrite| page.value.as_ref().map_or(0, Vec::len);
    if let Some(page) = more.pages.iter().find(|page| size(page) > limits::PAGE_BYTES_MAX) {
        return Some(limit("page bytes", limits::PAGE_BYTES_MAX, size(page)));
    }
    if let Some(page) = more.pages.iter().find(|page| is_own(&page.name)) {
        let why = format!("the page '{}' is the runtime's own: a kind cannot write it", page.name.escape_debug());
        return Some(Hold::Refuse(Rejection::invalid(why).into()));
    }
    if let Some(page) = more.pages.iter().find(|page| page.name.len() > limits::PAGE_NAME_BYTES_MAX) {
        return Some(limit("page name bytes", limits::PAGE_NAME_BYTES_MAX, page.name.len()));
    }
    let bytes = |pages: &[PageWrite]| pages.iter().map(|page| page.name.len() + size(page)).sum::<usize>();
    let room_keys = limits::COMMIT_KEYS_MAX - RESERVED_KEYS;
    let room_bytes = limits::COMMIT_BYTES_MAX - K::RECORD_BYTES_MAX - limits::COMMIT_RESERVED_BYTES;
    if more.pages.len() > room_keys || bytes(&more.pages) > room_bytes {
        return Some(limit("commit bytes", room_bytes, bytes(&more.pages)));
    }
    let staged = twin.busy.as_ref().map_or(&[][..], |busy| &busy.pages);
    let crowded = staged.len() + more.pages.len() > room_keys || bytes(staged) + bytes(&more.pages) > room_bytes;
    (crowded && !staged.is_empty()).then_some(Hold::Wait)
}

/// Bytes of a state after these changes, made on a copy that is read from its bytes.
fn tried<K: Twin>(state: &[u8], changes: &[K::Change], at: Timestamp) -> Option<usize> {
    let mut copy = K::Persistence::decode(K::Persistence::SHAPE, state).ok()?;
    for change in changes {
        copy.apply(change, at);
    }
    let mut bytes = Vec::with_capacity(state.len());
    K::Persistence::encode(&copy, &mut bytes);
    Some(bytes.len())
}

fn limit(limit: &'static str, max: usize, actual: usize) -> Hold {
    let wide = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
    Hold::Refuse(Rejection::Limit { limit: limit.into(), max: wide(max), actual: wide(actual) }.into())
}
