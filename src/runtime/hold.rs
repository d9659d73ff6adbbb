//! The bounds of record and commit, checked before anything is applied.

use super::activation::Activation;
use crate::{
    model::limits,
    twin::{EffectBody, More, PageWrite, Persistence, Rejection, Twin},
};

/// Keys of a commit kept free for the core, the ring page and a journal rotation with its deletes.
const RESERVED_KEYS: usize = 12;
/// Frame and section heads.
const FRAME_BYTES: usize = 128;
/// What a change may grow the state by beyond its own encoded size.
pub(super) const GROWTH_SLACK: usize = 16;

/// Why a decision is not installed.
pub(super) enum Hold {
    /// It would cross a bound of the record.
    Reject(Rejection),
    /// Its pages do not fit beside those staged; it is decided again when they were submitted.
    Wait,
}

/// Checks a decision against the bounds of record and commit, before anything is applied.
pub(super) fn refused<K: Twin>(twin: &mut Activation<K>, changes: &[K::Change], more: Option<&More>) -> Option<Hold> {
    let ledger = twin.ledger.as_mut()?;
    if changes.is_empty() && more.is_none() {
        return None;
    }
    let mut scratch = Vec::new();
    for change in changes {
        K::Persistence::encode_change(change, &mut scratch);
    }
    // A change grows the state by at most its own encoded size and a little for the containers it touches.
    let growth = scratch.len() + GROWTH_SLACK * changes.len();
    let journal = if K::JOURNAL { growth } else { 0 };
    let fixed = FRAME_BYTES + ledger.bytes() + journal;
    if fixed + ledger.state_bytes + growth > K::RECORD_BYTES_MAX {
        scratch.clear();
        K::Persistence::encode(&twin.state, &mut scratch);
        ledger.state_bytes = scratch.len();
        let actual = fixed + ledger.state_bytes + growth;
        if actual > K::RECORD_BYTES_MAX {
            let wide = |bytes| u64::try_from(bytes).unwrap_or(u64::MAX);
            return Some(Hold::Reject(Rejection::Limit {
                limit: "record bytes".into(),
                max: wide(K::RECORD_BYTES_MAX),
                actual: wide(actual),
            }));
        }
    }
    ledger.state_bytes += growth;
    let more = more?;
    let sends = || {
        more.effects.iter().filter_map(|effect| match &effect.0 {
            EffectBody::Send { message, .. } => Some(message.encode().len()),
            EffectBody::Emit(_) => None,
        })
    };
    if !ledger.outbox.fits(sends().count(), sends().sum()) {
        return Some(Hold::Reject(Rejection::Limit {
            limit: "outbox".into(),
            max: crate::twin::outbox::PROMISES_MAX.try_into().unwrap_or(u64::MAX),
            actual: ledger.outbox.len().saturating_add(sends().count()).try_into().unwrap_or(u64::MAX),
        }));
    }
    if let Some(page) =
        more.pages.iter().find(|page| page.value.as_ref().is_some_and(|value| value.len() > limits::PAGE_BYTES_MAX))
    {
        let actual = page.value.as_ref().map_or(0, Vec::len);
        return Some(Hold::Reject(Rejection::Limit {
            limit: "page bytes".into(),
            max: limits::PAGE_BYTES_MAX.try_into().unwrap_or(u64::MAX),
            actual: actual.try_into().unwrap_or(u64::MAX),
        }));
    }
    let bytes = |pages: &[PageWrite]| {
        pages.iter().map(|page| page.name.len() + page.value.as_ref().map_or(0, Vec::len)).sum::<usize>()
    };
    let staged = twin.busy.as_ref().map_or(&[][..], |busy| &busy.pages);
    let room_keys = limits::COMMIT_KEYS_MAX - RESERVED_KEYS;
    let room_bytes = limits::COMMIT_BYTES_MAX - K::RECORD_BYTES_MAX - RESERVED_KEYS * limits::PAGE_BYTES_MAX / 2;
    if more.pages.len() > room_keys || bytes(&more.pages) > room_bytes {
        return Some(Hold::Reject(Rejection::Limit {
            limit: "commit bytes".into(),
            max: room_bytes.try_into().unwrap_or(u64::MAX),
            actual: bytes(&more.pages).try_into().unwrap_or(u64::MAX),
        }));
    }
    let crowded = staged.len() + more.pages.len() > room_keys || bytes(staged) + bytes(&more.pages) > room_bytes;
    (crowded && !staged.is_empty()).then_some(Hold::Wait)
}
