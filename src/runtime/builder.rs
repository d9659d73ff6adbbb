//! How a runtime is put together and started.

use std::{
    any::{Any, TypeId},
    sync::Arc,
};

use tokio::sync::mpsc;

use super::{
    Cluster, Config, Inner, Kind, Runtime,
    drain::Drain,
    host::{AnyHost, Host},
    remote::Codecs,
    shared::{Decoder, Decoders, Shared},
    system::{self, Starter},
};
use crate::{
    model::{Clock, Header, SystemClock},
    store::{self, Epoch, Slot, Store},
    twin::{Answer, Forwarded, Handed, Persistence, Post, Sender, Twin, Wire, from_bytes},
};

/// Why a runtime did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A durable kind without a store.
    #[error("kind '{kind}' is durable, so the runtime needs a store: call `.store(…)` before `.start()`")]
    NoStore {
        /// The kind.
        kind: &'static str,
    },
    /// The same name twice.
    #[error("kind '{kind}' is registered twice")]
    Twice {
        /// The kind.
        kind: &'static str,
    },
    /// The store refused ownership.
    #[error("the store could not be claimed")]
    Claim(#[source] store::Error),
    /// A thread could not be started.
    #[error("the runtime's threads could not be started")]
    Thread(#[source] std::io::Error),
}

/// Describes a runtime: its kinds, its store, its bounds.
#[derive(Default)]
pub struct Builder {
    config: Config,
    clock: Option<Arc<dyn Clock>>,
    store: Option<Arc<dyn Store>>,
    cluster: Option<Arc<dyn Cluster>>,
    kinds: Vec<Register>,
    decoders: Decoders,
    codecs: Codecs,
}

type Make = Box<dyn FnOnce(&Arc<Shared>) -> Made + Send>;

struct Register {
    name: &'static str,
    durable: bool,
    make: Make,
}

struct Made {
    kind: Kind,
    host: Arc<dyn AnyHost>,
    starters: Vec<Starter>,
}

impl Builder {
    /// Sets bounds and intervals.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets where durable kinds rest.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Shares the store with other runtimes: this one owns no slot before it is told so ([`Runtime::own`]) and forwards
    /// calls to twins in slots of others. Only messages registered by [`Builder::wire`] travel.
    #[must_use]
    pub fn cluster(mut self, cluster: Arc<dyn Cluster>) -> Self {
        self.cluster = Some(cluster);
        self
    }

    /// Sets the clock; the machine's by default.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Hosts a kind.
    #[must_use]
    pub fn kind<K: Twin>(mut self) -> Self {
        let make = |shared: &Arc<Shared>| {
            let host = Arc::new(Host::<K>::new(shared));
            let starters = host.shards.iter().map(|shard| {
                let shard = Arc::clone(shard);
                let starter: Starter = Box::new(move |arbiter| system::keep(Drain::start_in(arbiter, shard)));
                starter
            });
            let starters = starters.collect();
            let any: Arc<dyn Any + Send + Sync> = host.clone();
            Made { kind: Kind { id: TypeId::of::<K>(), name: K::KIND, host: any }, host, starters }
        };
        self.kinds.push(Register { name: K::KIND, durable: K::Persistence::DURABLE, make: Box::new(make) });
        self
    }

    /// Lets a message rest in an outbox and travel to another runtime: told by a durable twin to a twin of the message's kind.
    #[must_use]
    pub fn wire<M: Wire>(mut self) -> Self {
        let decoder: Decoder =
            |bytes, header, sender| Some(unpack(Post::<M>::tell(from_bytes(bytes).ok()?), header, sender));
        self.decoders.insert((<M::Twin as Twin>::KIND.into(), M::NAME.into(), None), decoder);
        self.codecs.add::<M>();
        self
    }

    /// Lets a question rest in an outbox whose answer comes back as a `B`.
    #[must_use]
    pub fn asks<M: Wire, B: Wire + From<Answer<M::Reply>>>(mut self) -> Self {
        let decoder: Decoder =
            |bytes, header, sender| Some(unpack(Post::<M>::ask::<B>(from_bytes(bytes).ok()?), header, sender));
        self.decoders.insert((<M::Twin as Twin>::KIND.into(), M::NAME.into(), Some(B::NAME.into())), decoder);
        self.codecs.add::<M>();
        self.codecs.add::<B>();
        self
    }

    /// Starts the runtime on threads of its own. Blocks for as long as the store takes to be claimed.
    pub fn start(self) -> Result<Runtime, StartError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let arbiters = if self.config.arbiters == 0 { cores } else { self.config.arbiters };
        let (parts, starters) = self.assemble(arbiters)?;
        if let Some(store) = parts.shared.unshared_store() {
            let (tell, told) = std::sync::mpsc::sync_channel(1);
            store.claim(
                Slot(0),
                None,
                Box::new(move |claimed| {
                    tell.send(claimed).ok();
                }),
            );
            parts
                .claimed(told.recv().unwrap_or_else(|_| Err(store::Error::Unavailable("the store stopped".into()))))?;
        }
        system::spawn(arbiters, starters, Arc::clone(&parts.shared), parts.orders_in).map_err(StartError::Thread)?;
        Ok(Runtime { inner: Arc::new(Inner { kinds: parts.kinds, shared: parts.shared, orders: parts.orders }) })
    }

    /// Starts the runtime on the current actix `System`, all shards on the current arbiter: for simulations, where
    /// one thread and a paused clock make every run repeatable.
    ///
    /// # Panics
    /// Outside an actix `System`.
    pub async fn start_here(self) -> Result<Runtime, StartError> {
        let (parts, starters) = self.assemble(1)?;
        if let Some(store) = parts.shared.unshared_store() {
            let (tell, told) = tokio::sync::oneshot::channel();
            store.claim(
                Slot(0),
                None,
                Box::new(move |claimed| {
                    tell.send(claimed).ok();
                }),
            );
            parts.claimed(told.await.unwrap_or_else(|_| Err(store::Error::Unavailable("the store stopped".into()))))?;
        }
        let arbiter = actix::Arbiter::current();
        let addresses: Vec<_> = starters.into_iter().map(|start| start(&arbiter)).collect();
        actix::spawn(system::run(Arc::clone(&parts.shared), parts.orders_in, addresses));
        Ok(Runtime { inner: Arc::new(Inner { kinds: parts.kinds, shared: parts.shared, orders: parts.orders }) })
    }

    fn assemble(self, arbiters: usize) -> Result<(Parts, Vec<Starter>), StartError> {
        for (at, kind) in self.kinds.iter().enumerate() {
            if kind.durable && self.store.is_none() {
                return Err(StartError::NoStore { kind: kind.name });
            }
            if self.kinds[..at].iter().any(|other| other.name == kind.name) {
                return Err(StartError::Twice { kind: kind.name });
            }
        }
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock));
        let shared = Arc::new(Shared::new(self.config, arbiters, clock, self.store, self.cluster));
        let (mut kinds, mut hosts, mut starters) = (Vec::new(), Vec::new(), Vec::new());
        for register in self.kinds {
            let made = (register.make)(&shared);
            hosts.push((made.kind.id, made.kind.name, made.host));
            kinds.push(made.kind);
            starters.extend(made.starters);
        }
        shared.office.open(hosts, self.decoders, self.codecs);
        let (orders, orders_in) = mpsc::channel(system::ORDERS_MAX);
        Ok((Parts { kinds: kinds.into(), shared, orders, orders_in }, starters))
    }
}

struct Parts {
    kinds: Box<[Kind]>,
    shared: Arc<Shared>,
    orders: mpsc::Sender<system::Order>,
    orders_in: mpsc::Receiver<system::Order>,
}

impl Parts {
    fn claimed(&self, claimed: Result<Epoch, store::Error>) -> Result<(), StartError> {
        self.shared.set_epoch(Slot(0), claimed.map_err(StartError::Claim)?);
        Ok(())
    }
}

fn unpack<M: Wire>(post: Post<M>, header: Header, sender: Sender) -> Handed {
    let post: Box<dyn Forwarded> = Box::new(post);
    post.into_parcel(header, sender)
}
