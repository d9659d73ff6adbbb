//! What the protocol asks of the shared store.

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::sync::mpsc;

use super::{Incarnation, NodeId, Owner, Presence, Revision};
use crate::store::{Epoch, Slot};

/// Something that is there later.
pub type Soon<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why the shared store did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The record is not at the expected number any more: certainly nothing was written.
    #[error("the record was changed by another")]
    Conflict,
    /// Another write is under way; the same may be asked again.
    #[error("busy")]
    Busy,
    /// It may or may not have been written.
    #[error("outcome unknown: {0}")]
    Unknown(Arc<str>),
    /// It cannot be done at present, and was not.
    #[error("unavailable: {0}")]
    Unavailable(Arc<str>),
}

/// One thing that a watch shows. A watch shows everything that is there, says [`Watched::Current`], then shows changes
/// in their order, and ends when it is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched<T> {
    /// Something as it is now.
    Seen(T),
    /// All that was there at the beginning has been shown.
    Current,
}

/// What a watch shows.
pub type Watching<T> = mpsc::Receiver<Watched<T>>;

/// A presence record as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The node.
    pub node: NodeId,
    /// The record; `None` if it was removed.
    pub presence: Option<Presence>,
    /// Its number.
    pub revision: Revision,
}

/// The shared store as far as membership and ownership go.
///
/// Each write is a compare-and-set, answered once it is durable enough to be the only truth. A bare read may be stale,
/// so what it shows is acted on by a compare-and-set alone.
pub trait Engine: Send + Sync + 'static {
    /// Writes a presence record over the one of this number; [`Revision`] 0 creates it.
    fn put_presence(&self, node: NodeId, presence: Presence, expected: Revision) -> Soon<'_, Result<Revision, Error>>;

    /// Removes a presence record of this number.
    fn remove_presence(&self, node: NodeId, expected: Revision) -> Soon<'_, Result<(), Error>>;

    /// Reads a presence record.
    fn presence(&self, node: NodeId) -> Soon<'_, Result<Option<(Presence, Revision)>, Error>>;

    /// Watches presence.
    fn watch_presence(&self) -> Soon<'_, Result<Watching<Sighting>, Error>>;

    /// Takes a slot whose record is at `expected` (`None`: was never owned); answers the new epoch.
    fn claim(
        &self,
        slot: Slot,
        node: NodeId,
        incarnation: Incarnation,
        expected: Option<Epoch>,
    ) -> Soon<'_, Result<Epoch, Error>>;

    /// Gives up a slot owned under `epoch`; answers the number of the record that says so.
    fn release(
        &self,
        slot: Slot,
        node: NodeId,
        incarnation: Incarnation,
        epoch: Epoch,
    ) -> Soon<'_, Result<Epoch, Error>>;

    /// Reads who owns a slot.
    fn owner(&self, slot: Slot) -> Soon<'_, Result<Option<Owner>, Error>>;

    /// Watches ownership.
    fn watch_owners(&self) -> Soon<'_, Result<Watching<(Slot, Owner)>, Error>>;
}
