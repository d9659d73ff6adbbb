//! The heart: what a twin is. Pure, synchronous, deterministic.
//!
//! A [`Twin`] is a state. For each [`Message`] it [`Decide`]s, reading its state, what should change; [`Twin::apply`]
//! installs that; the runtime makes it durable; only then does the reply leave. Nothing here knows a clock, a
//! thread, a store or a socket: time and caller arrive in the [`Turn`], effects leave in the [`Decision`].
//!
//! Start with `examples/own_kind.rs`.

mod decision;
mod delivery;
mod failure;
pub mod journal;
pub mod keyring;
pub mod outbox;
pub mod part;
mod persistence;
pub mod record;
mod rejection;
pub mod ring;
pub mod service;
mod turn;

pub use decision::{Changes, Decision, Effect, EffectBody, Event, More, PageWrite, Pages, Terms};
pub use delivery::{Answer, Call, Codec, Delivery, Forwarded, Handed, Post, PostOffice, Ruling, Sender, Settled, Went};
pub use failure::Failure;
pub use persistence::{Durable, Persistence, Shape, Snapshot, Volatile, append, from_bytes, to_bytes};
pub use rejection::Rejection;
pub use turn::{Needs, Turn, View};

use crate::model::{Lane, Timestamp};

/// One kind of twin: its state, and how the state takes in what was decided.
pub trait Twin: Sized + Send + 'static {
    /// Name of the kind; part of every stored key, so it never changes.
    const KIND: &'static str;
    /// Largest core record this kind writes, in bytes; at most [`crate::model::limits::RECORD_BYTES_MAX`].
    const RECORD_BYTES_MAX: usize = crate::model::limits::RECORD_BYTES_MAX;
    /// How many idempotency keys a durable twin of this kind remembers (at most 4,096).
    const RING_ENTRIES: usize = 128;
    /// Whether committed changes are kept in a journal for reads at a revision or time.
    const JOURNAL: bool = false;

    /// [`Volatile`], or [`Durable`].
    type Persistence: Persistence<Self>;
    /// A fact a twin decided; it can be journaled and replayed.
    type Change: Send + 'static;

    /// The state of a twin that was never stored.
    fn create(key: &str) -> Self;

    /// Installs a decided change. Cannot fail and does not judge.
    fn apply(&mut self, change: &Self::Change, at: Timestamp);

    /// The earliest time this twin wants to be woken at: reminder, timeout, expiry. May be early, never late.
    fn wake_at(&self) -> Option<Timestamp> {
        None
    }

    /// Decides what a wake-up does. Must move [`Twin::wake_at`] on, or the twin is woken again at once (with back-off).
    fn wake(&self, turn: &Turn<'_>) -> Decision<Self::Change, ()> {
        let _ = turn;
        Decision::new(())
    }

    /// The search terms under which this twin is found; recomputed after every change.
    fn index(&self, terms: &mut Terms) {
        let _ = terms;
    }

    /// The event by which watchers hear of `change`; asked after it was applied, so every committed change has its event
    /// the same way, whether a message, an observation or a wake-up made it.
    fn event(&self, change: &Self::Change) -> Option<Event> {
        let _ = change;
        None
    }

    /// Resident bytes of this state beyond `size_of::<Self>()`; drives eviction by bytes.
    fn heap_bytes(&self) -> usize {
        0
    }

    /// The name prefix of this kind's observed pages, loaded with the core; `None` for kinds without.
    const OBSERVED: Option<&'static str> = None;

    /// Takes back observed pages that were saved earlier, before the first turn.
    fn restore(&mut self, pages: Pages) {
        let _ = pages;
    }

    /// Whether some observed page differs from what was last saved.
    fn unsaved(&self) -> bool {
        false
    }

    /// Encodes observed pages that changed, at most about `bytes_max` together, and counts them as saved.
    /// Called again if [`Twin::unsaved`] still holds. A page handed out here that is not stored ends the activation.
    fn save(&mut self, now: Timestamp, bytes_max: usize) -> Vec<PageWrite> {
        let _ = (now, bytes_max);
        Vec::new()
    }
}

/// Something a twin of one kind can be told or asked.
pub trait Message: Sized + Send + Sync + 'static {
    /// The kind that understands it.
    type Twin: Decide<Self>;
    /// What it answers.
    type Reply: Send + 'static;
    /// The lane it waits in.
    const LANE: Lane = Lane::Capability;
    /// Whether its turn may run on the caller's thread; say `false` for turns above about 20 µs.
    const INLINE: bool = true;

    /// Bytes it holds beyond its own size, for the inbox's byte bound.
    fn heap_bytes(&self) -> usize {
        0
    }

    /// The pages its turn reads.
    fn needs(&self) -> Needs {
        Needs::Nothing
    }
}

/// A message that can leave the process or rest in an outbox.
pub trait Wire:
    Message<Reply: serde::Serialize + serde::de::DeserializeOwned> + serde::Serialize + serde::de::DeserializeOwned
{
    /// Name within the kind, with its version: `scale/1`.
    const NAME: &'static str;
}

/// How a kind rules on one message.
pub trait Decide<M: Message>: Twin {
    /// Decides: same input, same answer; total over any input; changes nothing.
    fn decide(&self, message: &M, turn: &Turn<'_>) -> Result<Decision<Self::Change, M::Reply>, Rejection>;

    /// Folds what the message observed into the observed part, after its changes were applied. Facts that a later
    /// decision may rest on are returned, to be applied and committed. Most kinds leave this out.
    fn observe(&mut self, message: &M, turn: &Turn<'_>) -> Changes<Self::Change> {
        let _ = (message, turn);
        Changes::new()
    }
}
