//! The virtual actors: how twins come to life, take turns and leave memory.
//!
//! ```text
//! ask ─▶ TwinRef ─▶ Host ─▶ Shard ─┬─ free: the turn runs on the caller ─┐
//!                                  └─ inbox ─▶ Drain (an actix actor) ───┴─▶ Core: decide, apply, stage
//!                                                                             │ commit
//!                      reply, effects ◀── released when durable ◀── Store ◀───┘
//! ```
//!
//! A twin lives in the shard of its key's hash; one lock per shard orders everything that happens to it. A turn is
//! synchronous and never waits for another twin or for the disk. Read `turn.rs` first, then `commit.rs`.
//!
//! The runtime owns its threads (an actix `System` with one arbiter per core), so a host may use any tokio runtime.

mod activation;
mod ahead;
mod arrival;
mod ask;
mod builder;
mod cache;
mod cluster;
mod commit;
mod config;
mod contain;
mod dispatch;
mod drain;
mod events;
mod hold;
mod host;
mod inbox;
mod install;
mod leave;
mod member;
mod named;
mod passivation;
mod past;
mod peers;
mod recall;
mod remote;
mod restore;
mod shard;
mod shared;
mod signals;
mod slots;
mod stale;
mod sync;
mod system;
mod table;
mod turn;
mod wake;
mod witness;

use std::{
    any::{Any, TypeId},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use compact_str::CompactString;
use tokio::sync::{mpsc, oneshot};

pub use crate::cluster::Counts as ClusterCounts;
pub use ask::{Answering, Ask, TwinRef};
pub use builder::{Builder, StartError};
pub use cluster::{Cluster, ClusterView, NodeView};
pub use config::{Config, Door};
pub use events::{Behind, Published, Watch};
pub use host::Refused;
pub use past::{Journaled, Past, PastEvents};
pub use shard::Counts;
pub use signals::Signal;

use self::{host::Host, peers::Question, shared::Shared, system::Order};
use crate::{
    model::{Consistency, Key, Timestamp},
    store::{self, Entry, Level, Scan, Stats},
    twin::{Failure, Twin},
};

/// Hosts twins in this process. Cloning is cheap; the runtime stops when it is drained or the last clone is dropped.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    kinds: Box<[Kind]>,
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
}

/// One registered kind.
struct Kind {
    id: TypeId,
    name: &'static str,
    host: Arc<dyn Any + Send + Sync>,
}

/// How a drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Twins that had something under way or unsaved when the time was over; 0 is a clean end.
    pub unsettled: usize,
}

/// A twin found by its search terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its key.
    pub key: Key,
    /// All its terms.
    pub terms: Vec<CompactString>,
}

impl Runtime {
    /// Starts to describe a runtime.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A twin by its key.
    pub fn twin<'a>(&'a self, key: &'a str) -> TwinRef<'a> {
        TwinRef { runtime: self, key, consistency: Consistency::default() }
    }

    fn host<K: Twin>(&self) -> Result<&Host<K>, Failure> {
        let id = TypeId::of::<K>();
        let kind = self.inner.kinds.iter().find(|kind| kind.id == id);
        kind.and_then(|kind| kind.host.downcast_ref()).ok_or_else(|| Failure::Unregistered { name: K::KIND.into() })
    }

    /// The time as this runtime's clock tells it.
    pub fn now(&self) -> Timestamp {
        self.inner.shared.clock.now()
    }

    /// What is known of the other runtimes; `None` if there can be none.
    pub fn cluster(&self) -> Option<ClusterView> {
        let shared = self.inner.shared.store.as_ref().and_then(|store| store.stats().shared).unwrap_or_default();
        let view = self.inner.shared.cluster.as_ref()?.view();
        Some(ClusterView { lag: shared.lag, copies_behind: shared.copies_behind, ..view })
    }

    /// What this runtime counted of its part in a cluster; `None` if there is none.
    pub fn cluster_counts(&self) -> Option<ClusterCounts> {
        let shared = &self.inner.shared;
        let counts = shared.cluster.as_ref()?.counts();
        Some(ClusterCounts { telemetry_lost: shared.telemetry_lost.load(Ordering::Relaxed), ..counts })
    }

    /// What commits survive; `None` without a store.
    pub fn level(&self) -> Option<Level> {
        self.inner.shared.store.as_ref().map(|store| store.level())
    }

    /// Size and pace of the store.
    pub fn store_stats(&self) -> Option<Stats> {
        self.inner.shared.store.as_ref().map(|store| store.stats())
    }

    /// Why the store writes nothing any more, once that is so; only a restart ends it.
    pub fn store_failed(&self) -> Option<Arc<str>> {
        self.inner.shared.store.as_ref()?.failed()
    }

    /// Follows committed events of every twin: from now, or after the event of this number.
    pub fn watch(&self, after: Option<u64>) -> Watch {
        Watch::new(&self.inner.shared, after, None)
    }

    /// Follows committed events of one twin.
    pub fn watch_twin<K: Twin>(&self, key: &Key, after: Option<u64>) -> Watch {
        Watch::new(&self.inner.shared, after, Some((K::KIND, key.clone())))
    }

    /// Finds twins of a kind that have all these terms, in key order; none activated. A term ending in `*` matches
    /// every term that starts so. Answers at most `limit`, and whether there are more. Fails if a node of the cluster does
    /// not say what it has.
    pub async fn find<K: Twin>(
        &self,
        terms: Vec<CompactString>,
        after: Option<Key>,
        limit: usize,
    ) -> Result<(Vec<Found>, bool), store::Error> {
        let (mut found, mut more) = self.find_here(K::KIND, terms.clone(), after.clone(), limit).await?;
        let ask = Question::Find { kind: K::KIND.into(), terms, after, limit };
        for (node, answer) in self.ask_others::<(Vec<(Key, Vec<CompactString>)>, bool)>(&ask).await {
            let (others, has_more) = answer.map_err(|failure| {
                store::Error::Unavailable(format!("node '{node}' did not say what it has: {failure}").into())
            })?;
            found.extend(others.into_iter().map(|(key, terms)| Found { key, terms }));
            more |= has_more;
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        // Of a twin that moves meanwhile two may tell.
        found.dedup_by(|a, b| a.key == b.key);
        more |= found.len() > limit;
        found.truncate(limit);
        Ok((found, more))
    }

    /// The same among the twins of this runtime's slots.
    async fn find_here(
        &self,
        kind: &str,
        terms: Vec<CompactString>,
        after: Option<Key>,
        limit: usize,
    ) -> Result<(Vec<Found>, bool), store::Error> {
        let Some(store) = &self.inner.shared.store else { return Ok((Vec::new(), false)) };
        let (tell, told) = oneshot::channel();
        let scan = Scan::Find { kind: kind.into(), terms, after, limit };
        store.scan(
            scan,
            Box::new(move |walked| {
                tell.send(walked).ok();
            }),
        );
        let walked = told.await.unwrap_or_else(|_| Err(store::Error::Unavailable("the store stopped".into())))?;
        let found = walked.entries.into_iter().filter_map(|entry| match entry {
            Entry::Found { key, terms } => Some(Found { key, terms }),
            Entry::Wake { .. } | Entry::Item(_) => None,
        });
        Ok((found.collect(), walked.more))
    }

    /// What each kind's shards counted since the start.
    pub fn counts(&self) -> Vec<(&'static str, Counts)> {
        let hosts = self.inner.shared.office.hosts();
        let counts = hosts.iter().filter_map(|host| {
            let kind = self.inner.kinds.iter().find(|kind| kind.id == host.kind())?;
            Some((kind.name, host.counts()))
        });
        counts.collect()
    }

    /// Wake-ups held in memory.
    pub fn wakes(&self) -> usize {
        self.inner.shared.wakes.len()
    }

    /// Takes no more messages, lets what is under way end, saves what is unsaved, closes the store. Whoever still
    /// waits when the time is over hears that nothing of it was done.
    ///
    /// # Cancel safety
    /// The drain goes on if the future is dropped.
    pub async fn drain(&self, within: Duration) -> Drained {
        self.inner.shared.stop();
        let (tell, told) = oneshot::channel();
        if self.inner.orders.send(Order::Drain { within, tell }).await.is_err() {
            return Drained { unsettled: 0 };
        }
        told.await.unwrap_or(Drained { unsettled: 0 })
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime")
            .field("kinds", &self.inner.kinds.iter().map(|kind| kind.name).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
