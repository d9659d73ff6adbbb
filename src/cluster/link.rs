//! What nodes say to each other.

use std::{sync::Arc, time::Duration};

use compact_str::CompactString;
use tokio::sync::oneshot;

use super::{NodeId, Owner};
use crate::store::{Epoch, Slot};

/// A node as another reaches it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its name.
    pub node: NodeId,
    /// Where it listens.
    pub address: CompactString,
}

/// Who of the other node's process a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// A twin in this slot, which it is believed to own under this epoch.
    Slot(Slot, Epoch),
    /// The node itself, whatever it owns.
    Node,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Who is meant.
    pub whom: Whom,
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

/// Hears what became of a call, exactly once, on any thread.
pub type Heard = Box<dyn FnOnce(Result<Reply, Broken>) + Send>;

/// The ways to other nodes.
pub trait Links: Send + Sync + 'static {
    /// Sends a call, at most once, and tells what became of it, about when the time of the call is over at the latest.
    /// Nothing blocks.
    fn ask(&self, to: Peer, ask: Ask, heard: Heard);

    /// Sends a note, if that is possible at once.
    fn tell(&self, to: Peer, note: Note);
}

/// Sends a call and waits for what becomes of it.
pub(super) async fn asked(links: &dyn Links, to: Peer, ask: Ask) -> Result<Reply, Broken> {
    let (tell, told) = oneshot::channel();
    let heard = Box::new(move |heard| {
        tell.send(heard).ok();
    });
    links.ask(to, ask, heard);
    told.await.unwrap_or_else(|_| Err(Broken::Unanswered("the link ended".into())))
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
