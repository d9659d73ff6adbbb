//! What a durable twin remembers of keyed requests: the door of its idempotency ring.

use std::time::Duration;

use super::activation::Activation;
use crate::{
    model::{Principal, Timestamp, limits},
    twin::{Delivery, Failure, Rejection, Twin, ring},
};

/// Farthest into the future of this node's clock that a caller's key may be made. Keys leave the ring by their time, so
/// those from far ahead would push out all others.
const KEY_AHEAD_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What the idempotency ring says of a keyed message: nothing, its recorded result, or why it is refused.
pub(super) fn recall<K: Twin>(
    twin: &Activation<K>,
    call: &dyn Delivery<K>,
    now: Timestamp,
) -> Option<Result<(), Failure>> {
    let request = call.header().request()?;
    match call.header().principal() {
        Principal::Host | Principal::Operator { .. } | Principal::Ingest { .. } | Principal::Service { .. } => {
            if request.made_at > now.after(KEY_AHEAD_MAX) {
                let why = "the idempotency key was made more than a day ahead of this node's clock: set one of the two clocks right";
                return Some(Err(Rejection::invalid(why).into()));
            }
        }
        // Made by the clock of a node of ours: what was promised is not refused because that clock was wrong.
        Principal::Runtime | Principal::Twin { .. } => {}
    }
    let Some(ledger) = &twin.ledger else { return Some(Err(Failure::Keyless { kind: K::KIND.into() })) };
    let Some(fingerprint) = call.fingerprint() else { return Some(Err(Failure::Keyless { kind: K::KIND.into() })) };
    let id = ring::id(call.header().principal(), request);
    match ledger.rare().ring.look(&id, fingerprint, request.made_at) {
        ring::Seen::New => None,
        ring::Seen::Repeat(entry) => Some(match &entry.reply {
            Some(reply) => {
                call.replay(reply);
                Ok(())
            }
            None => Err(Failure::AlreadyDone { revision: entry.revision }),
        }),
        ring::Seen::Reused => Some(Err(Rejection::KeyReused.into())),
        ring::Seen::TooOld { forgotten_until } => {
            Some(Err(Rejection::KeyTooOld { made_at: request.made_at, forgotten_until }.into()))
        }
    }
}

/// Records a keyed message that was decided.
pub(super) fn keep<K: Twin>(twin: &mut Activation<K>, call: &dyn Delivery<K>) {
    let Some(request) = call.header().request() else { return };
    let revision = twin.revision;
    let (Some(ledger), Some(fingerprint)) = (&mut twin.ledger, call.fingerprint()) else { return };
    let reply =
        call.reply_bytes().filter(|reply| reply.len() <= limits::RING_REPLY_BYTES_MAX).map(Vec::into_boxed_slice);
    let id = ring::id(call.header().principal(), request);
    let entry = ring::Entry { id, fingerprint, revision, made_at: request.made_at, reply };
    ledger.rare_mut().ring.keep(entry, K::RING_ENTRIES);
}
