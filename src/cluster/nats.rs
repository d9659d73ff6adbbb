//! The shared store over NATS JetStream: presence in a bucket of its own, in memory; ownership where the twins are stored.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    kv::{self, CreateErrorKind, Operation, UpdateErrorKind},
    stream::StorageType,
};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::Instant};

use super::{
    Engine, Incarnation, NodeId, Owner, Presence, Revision, Soon,
    engine::{Error, Sighting, Watched, Watching},
};
use crate::store::{
    self, Epoch, Slot,
    nats::{Holding, NatsStore, Owned},
};

/// How long a record stays that nobody renews. For cleaning up alone: servers judge it by their own clocks.
const KEPT: Duration = Duration::from_secs(60);
/// A server that answers neither a renewal nor a watch for so long may be cut off from the others, and is left for another.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// News that wait for a watch to be read.
const WATCH_MAX: usize = 1024;

/// [`NatsStore`] as the protocol uses it.
pub struct NatsEngine {
    store: Arc<NatsStore>,
    nodes: kv::Store,
    /// When a renewal or a watch was last answered, or the server left.
    heard: Mutex<Instant>,
}

fn unavailable(error: &dyn std::fmt::Display) -> Error {
    Error::Unavailable(error.to_string().into())
}

fn unknown(error: &dyn std::fmt::Display) -> Error {
    Error::Unknown(error.to_string().into())
}

fn of_store(error: store::Error) -> Error {
    match error {
        store::Error::Fenced { .. } => Error::Conflict,
        store::Error::Busy(_) => Error::Busy,
        store::Error::Unknown(why) => Error::Unknown(why),
        store::Error::Unavailable(why) => Error::Unavailable(why),
        store::Error::Sequence { .. } | store::Error::TooBig { .. } => unavailable(&error),
    }
}

fn owner(owned: Owned) -> Option<Owner> {
    let Owned { node, incarnation, state, epoch } = owned;
    let released = match state {
        Holding::Owned => false,
        Holding::Released => true,
    };
    Some(Owner { node: NodeId::parse(&node).ok()?, incarnation: Incarnation(incarnation), released, epoch })
}

/// The record of an entry; `None` if it was removed or cannot be read, which is as good.
fn presence(entry: &kv::Entry) -> Option<Presence> {
    match entry.operation {
        Operation::Put => serde_json::from_slice(&entry.value).ok(),
        Operation::Delete | Operation::Purge => None,
    }
}

impl NatsEngine {
    /// Opens the bucket of presence, or makes it.
    pub async fn open(store: Arc<NatsStore>) -> Result<Self, Error> {
        let (jetstream, prefix, replicas) = store.jetstream();
        let bucket = format!("{prefix}_nodes");
        let nodes = if let Ok(nodes) = jetstream.get_key_value(&bucket).await {
            nodes
        } else {
            let made = kv::Config {
                bucket,
                history: 1,
                // No sync for each renewal; if it is lost, nodes join again.
                storage: StorageType::Memory,
                num_replicas: replicas,
                max_age: KEPT,
                limit_markers: Some(KEPT),
                ..kv::Config::default()
            };
            jetstream.create_key_value(made).await.map_err(|error| unavailable(&error))?
        };
        Ok(Self { store, nodes, heard: Mutex::new(Instant::now()) })
    }

    async fn leave_silent_server(&self) {
        let is_silent = self.heard.lock().elapsed() > SILENCE_MAX;
        if is_silent {
            *self.heard.lock() = Instant::now();
            tracing::warn!("the server answers nothing: another is tried");
            self.store.reconnect().await;
        }
    }
}

impl Engine for NatsEngine {
    fn put_presence(&self, node: NodeId, presence: Presence, expected: Revision) -> Soon<'_, Result<Revision, Error>> {
        Box::pin(async move {
            let value = serde_json::to_vec(&presence).map_err(|error| unavailable(&error))?.into();
            self.leave_silent_server().await;
            let put = if expected == Revision(0) {
                self.nodes.create(node.as_str(), value).await.map_err(|error| match error.kind() {
                    CreateErrorKind::AlreadyExists => Error::Conflict,
                    CreateErrorKind::InvalidKey => unavailable(&error),
                    CreateErrorKind::Publish | CreateErrorKind::Ack | CreateErrorKind::Other => unknown(&error),
                })
            } else {
                self.nodes.update(node.as_str(), value, expected.0).await.map_err(|error| match error.kind() {
                    UpdateErrorKind::WrongLastRevision => Error::Conflict,
                    UpdateErrorKind::InvalidKey => unavailable(&error),
                    UpdateErrorKind::TimedOut | UpdateErrorKind::Other => unknown(&error),
                })
            };
            if matches!(put, Ok(_) | Err(Error::Conflict)) {
                *self.heard.lock() = Instant::now();
            }
            put.map(Revision)
        })
    }

    fn remove_presence(&self, node: NodeId, expected: Revision) -> Soon<'_, Result<(), Error>> {
        Box::pin(async move {
            let removed = self.nodes.delete_expect_revision(node.as_str(), Some(expected.0)).await;
            removed.map_err(|error| unknown(&error))
        })
    }

    fn presence(&self, node: NodeId) -> Soon<'_, Result<Option<(Presence, Revision)>, Error>> {
        Box::pin(async move {
            let entry = self.nodes.entry(node.as_str()).await.map_err(|error| unavailable(&error))?;
            Ok(entry.and_then(|entry| Some((presence(&entry)?, Revision(entry.revision)))))
        })
    }

    fn watch_presence(&self) -> Soon<'_, Result<Watching<Sighting>, Error>> {
        Box::pin(async move {
            self.leave_silent_server().await;
            let mut entries = self.nodes.watch_with_history(">").await.map_err(|error| unavailable(&error))?;
            // An empty bucket shows nothing, not even that this was all.
            let is_empty = self.nodes.status().await.map_err(|error| unavailable(&error))?.values() == 0;
            *self.heard.lock() = Instant::now();
            let (show, shown) = mpsc::channel(WATCH_MAX);
            tokio::spawn(async move {
                let mut is_current = false;
                if is_empty {
                    is_current = show.send(Watched::Current).await.is_ok();
                }
                loop {
                    let entry = tokio::select! {
                        entry = entries.next() => entry,
                        () = show.closed() => None,
                    };
                    let Some(Ok(entry)) = entry else { return };
                    if let Ok(node) = NodeId::parse(&entry.key) {
                        let sighting =
                            Sighting { node, presence: presence(&entry), revision: Revision(entry.revision) };
                        if show.send(Watched::Seen(sighting)).await.is_err() {
                            return;
                        }
                    }
                    if entry.seen_current && !is_current {
                        is_current = show.send(Watched::Current).await.is_ok();
                    }
                }
            });
            Ok(shown)
        })
    }

    fn claim(
        &self,
        slot: Slot,
        _: NodeId,
        incarnation: Incarnation,
        expected: Option<Epoch>,
    ) -> Soon<'_, Result<Epoch, Error>> {
        self.store.live_as(incarnation.0);
        Box::pin(async move {
            // Without an epoch, the store would take it from whoever has it.
            let wanted = [(slot, Some(expected.unwrap_or(Epoch(0))))];
            let claimed = self.store.claim_many(&wanted).await.pop();
            claimed.map_or_else(|| Err(unavailable(&"nothing was claimed")), |(_, claimed)| claimed.map_err(of_store))
        })
    }

    fn release(&self, slot: Slot, node: NodeId, _: Incarnation, epoch: Epoch) -> Soon<'_, Result<Epoch, Error>> {
        Box::pin(async move {
            self.store.release(slot, epoch).await.map_err(of_store)?;
            match self.owner(slot).await? {
                Some(owner) if owner.released && owner.node == node && owner.epoch > epoch => Ok(owner.epoch),
                // Another has claimed it since; or the read is stale.
                Some(_) | None => Err(unknown(&"released")),
            }
        })
    }

    fn owner(&self, slot: Slot) -> Soon<'_, Result<Option<Owner>, Error>> {
        Box::pin(async move { Ok(self.store.owner(slot).await.map_err(of_store)?.and_then(owner)) })
    }

    fn watch_owners(&self) -> Soon<'_, Result<Watching<(Slot, Owner)>, Error>> {
        Box::pin(async move {
            let mut news = self.store.watch_owners();
            let there = self.store.owners().await.map_err(of_store)?;
            let (show, shown) = mpsc::channel(WATCH_MAX);
            tokio::spawn(async move {
                let of = |(slot, owned): (Slot, Owned)| Some(Watched::Seen((slot, owner(owned)?)));
                for seen in there.into_iter().filter_map(of).chain([Watched::Current]) {
                    if show.send(seen).await.is_err() {
                        return;
                    }
                }
                loop {
                    let seen = tokio::select! {
                        seen = news.recv() => seen,
                        () = show.closed() => None,
                    };
                    let Some(seen) = seen else { return };
                    if let Some(seen) = of(seen)
                        && show.send(seen).await.is_err()
                    {
                        return;
                    }
                }
            });
            Ok(shown)
        })
    }
}
