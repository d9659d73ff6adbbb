//! What nodes say to each other.

use std::{sync::Arc, time::Duration};

use compact_str::CompactString;

use super::{NodeId, Owner, Soon};
use crate::store::{Epoch, Slot};

/// A node as another reaches it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its name.
    pub node: NodeId,
    /// Where it listens.
    pub address: CompactString,
}

/// A call to the owner of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The slot.
    pub slot: Slot,
    /// The epoch under which the other is believed to own it.
    pub epoch: Epoch,
    /// The encoded call.
    pub call: Arc<Vec<u8>>,
    /// How long the answer is waited for.
    pub within: Duration,
}

/// What the other node says to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The encoded answer.
    Answer(Vec<u8>),
    /// Not applied: it does not own the slot; with the owner it knows, if it knows one.
    Moved(Option<Owner>),
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It certainly was not sent, and may be sent again.
    #[error("not sent: {0}")]
    NotSent(Arc<str>),
    /// Too much is under way on this link; it was not sent.
    #[error("too many calls are under way")]
    Full,
    /// It may have been received, and nothing more will be heard.
    #[error("unanswered: {0}")]
    Unanswered(Arc<str>),
}

/// Something to know that is not answered, and may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A slot was given up for the one who hears this.
    Released {
        /// The slot.
        slot: Slot,
        /// Its record.
        owner: Owner,
    },
}

/// The ways to other nodes.
pub trait Links: Send + Sync + 'static {
    /// Sends a call and waits for the reply, at most as long as the call says. At most once.
    fn ask(&self, to: Peer, ask: Ask) -> Soon<'_, Result<Reply, Broken>>;

    /// Sends a note, if that is possible at once.
    fn tell(&self, to: Peer, note: Note);
}

/// Takes a reply, exactly once.
pub type ReplyTo = Box<dyn FnOnce(Reply) + Send>;

/// What hears other nodes.
pub trait Listening: Send + Sync + 'static {
    /// Takes a call.
    fn asked(self: Arc<Self>, ask: Ask, done: ReplyTo);

    /// Takes a note.
    fn told(&self, note: Note);
}
