//! What all shards of a runtime share: clock, store, epoch, bounds, wake heap, events, the way to other twins.

use std::{
    any::TypeId,
    collections::HashMap,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use compact_str::CompactString;
use parking_lot::RwLock;

use super::{Cluster, Config, events::Hub, host::AnyHost, remote::Codecs, signals::Signals, slots::Slots, wake::Wakes};
use crate::{
    model::{Clock, Header, Key, Outcome, Timestamp},
    store::{Epoch, Slot, Store},
    twin::{Failure, Handed, PostOffice, Sender},
};

/// Shared by every shard of one runtime.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) store: Option<Arc<dyn Store>>,
    pub(super) hub: Arc<Hub>,
    pub(super) signals: Signals,
    pub(super) wakes: Wakes,
    pub(super) office: Arc<Office>,
    pub(super) slots: Slots,
    /// The other nodes, if there are any.
    pub(super) cluster: Option<Arc<dyn Cluster>>,
    claiming: AtomicBool,
    stopping: AtomicBool,
    closed: AtomicBool,
    arbiters: usize,
    instant: bool,
    started: Timestamp,
    /// By how much the clock has gone back since then, in all.
    went_back_ms: AtomicU64,
    newest_promise_ms: AtomicU64,
    /// Messages of telemetry that did not reach the runtime that has their twin.
    pub(super) telemetry_lost: AtomicU64,
    /// What the observed pages may still write, in KiB; refilled by the tick.
    pub(super) save_budget_kib: AtomicU32,
}

impl Shared {
    pub(super) fn new(
        config: Config,
        arbiters: usize,
        clock: Arc<dyn Clock>,
        store: Option<Arc<dyn Store>>,
        cluster: Option<Arc<dyn Cluster>>,
    ) -> Self {
        let started = clock.now();
        let hub = Arc::new(Hub::new(config.events_kept));
        let instant = store.as_ref().is_some_and(|store| store.instant().is_some());
        Self {
            config,
            clock,
            store,
            hub,
            signals: Signals::new(),
            wakes: Wakes::default(),
            office: Arc::new(Office::default()),
            slots: Slots::new(cluster.is_some()),
            cluster,
            claiming: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            arbiters,
            instant,
            started,
            went_back_ms: AtomicU64::new(0),
            newest_promise_ms: AtomicU64::new(0),
            telemetry_lost: AtomicU64::new(0),
            save_budget_kib: AtomicU32::new(0),
        }
    }

    /// When this runtime started.
    pub(super) fn started(&self) -> Timestamp {
        self.started
    }

    /// Seconds of the runtime's life, for idleness; goes on when the clock goes back.
    pub(super) fn life_s(&self, now: Timestamp) -> u32 {
        let now = now.after(Duration::from_millis(self.went_back_ms.load(Ordering::Relaxed)));
        u32::try_from(now.since(self.started).as_secs()).unwrap_or(u32::MAX)
    }

    /// Keeps intervals of the runtime's own what they were; times that twins and callers named are the clock's.
    pub(super) fn clock_went_back(&self, by: Duration) {
        tracing::warn!(
            by_s = by.as_secs(),
            "the clock went back; reminders and deadlines set before are later by that"
        );
        self.went_back_ms.fetch_add(u64::try_from(by.as_millis()).unwrap_or(0), Ordering::Relaxed);
        self.wakes.rewind(by);
    }

    /// The time that a promise's key carries: the clock's, but never before an earlier key of this process, or the
    /// target would call it too old.
    pub(super) fn promise_time(&self, now: Timestamp) -> Timestamp {
        let newest = self.newest_promise_ms.fetch_max(now.unix_ms(), Ordering::Relaxed);
        now.max(Timestamp::from_unix_ms(newest))
    }

    /// The store, if it is to be claimed as a whole.
    pub(super) fn unshared_store(&self) -> Option<&Arc<dyn Store>> {
        self.store.as_ref().filter(|_| self.cluster.is_none())
    }

    /// The epoch of a slot; 0 if it is not owned.
    pub(super) fn epoch(&self, slot: Slot) -> Epoch {
        self.slots.epoch(slot)
    }

    /// What a read of a twin rests on: the epoch of its slot, if others may own that one day.
    pub(super) fn under(&self, slot: Slot) -> Option<Epoch> {
        self.cluster.as_ref().map(|_| self.epoch(slot))
    }

    /// Whether this runtime has the turns of the twin with this hash.
    pub(super) fn is_here(&self, hash: u64) -> bool {
        self.cluster.is_none() || self.slots.is_open(Slot::of(hash))
    }

    pub(super) fn set_epoch(&self, slot: Slot, epoch: Epoch) {
        self.slots.open(slot, epoch);
        self.claiming.store(false, Ordering::Release);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Refuses what would change a twin once the store writes nothing any more; the twin stays readable as it is.
    pub(super) fn unwritable(&self) -> Option<Failure> {
        let cause = self.store.as_ref()?.failed()?;
        Some(Failure::Lost { outcome: Outcome::NotApplied, cause })
    }

    /// Whether commits end before they return.
    pub(super) fn is_instant(&self) -> bool {
        self.instant
    }

    /// Whether the store was closed and the drains may end.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn shards_per_kind(&self) -> usize {
        (self.arbiters * self.config.shards_per_arbiter).clamp(1, 4096)
    }

    /// Claims a slot again after a commit of unknown outcome under an epoch; one claim at a time.
    pub(super) fn reclaim(self: &Arc<Self>, slot: Slot, under: Epoch) {
        let Some(store) = &self.store else { return };
        if let Some(cluster) = &self.cluster {
            if self.epoch(slot) <= under {
                self.slots.shut(slot);
                cluster.claim_again(slot, under);
            }
            return;
        }
        if self.claiming.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::clone(self);
        store.claim(
            slot,
            None,
            Box::new(move |claimed| match claimed {
                Ok(epoch) => shared.set_epoch(slot, epoch),
                Err(error) => {
                    tracing::warn!(%error, "claiming the store again failed; the next message to a waiting twin tries once more");
                    shared.claiming.store(false, Ordering::Release);
                }
            }),
        );
    }
}

pub(super) type Decoder = fn(&[u8], Header, Sender) -> Option<Handed>;

/// A kind's id, its name and its host.
pub(super) type Hosted = (TypeId, &'static str, Arc<dyn AnyHost>);
/// How promised messages are read, by kind, message and the message that carries the answer back.
pub(super) type Decoders = HashMap<(CompactString, CompactString, Option<CompactString>), Decoder>;

/// Finds hosts by kind: how effects, wake-ups and outboxes reach twins.
#[derive(Default)]
pub(super) struct Office {
    hosts: RwLock<Vec<Hosted>>,
    decoders: OnceLock<Decoders>,
    pub(super) codecs: OnceLock<Codecs>,
    this: OnceLock<Weak<Office>>,
}

impl Office {
    pub(super) fn open(self: &Arc<Self>, hosts: Vec<Hosted>, decoders: Decoders, codecs: Codecs) {
        *self.hosts.write() = hosts;
        assert!(self.decoders.set(decoders).is_ok(), "an office opens once");
        assert!(self.codecs.set(codecs).is_ok(), "an office opens once");
        assert!(self.this.set(Arc::downgrade(self)).is_ok(), "an office opens once");
    }

    /// Lets go of the hosts, which hold this office through what they share.
    pub(super) fn close(&self) {
        self.hosts.write().clear();
    }

    pub(super) fn host(&self, kind: TypeId) -> Option<Arc<dyn AnyHost>> {
        self.hosts.read().iter().find(|(id, _, _)| *id == kind).map(|(_, _, host)| Arc::clone(host))
    }

    pub(super) fn host_named(&self, kind: &str) -> Option<Arc<dyn AnyHost>> {
        self.hosts.read().iter().find(|(_, name, _)| *name == kind).map(|(_, _, host)| Arc::clone(host))
    }

    /// The name of a kind that is hosted here, as its type has it.
    pub(super) fn name_of(&self, kind: &str) -> Option<&'static str> {
        self.hosts.read().iter().find(|(_, name, _)| *name == kind).map(|(_, name, _)| *name)
    }

    pub(super) fn hosts(&self) -> Vec<Arc<dyn AnyHost>> {
        self.hosts.read().iter().map(|(_, _, host)| Arc::clone(host)).collect()
    }

    /// Makes a parcel of an encoded message; `None` if its name is not registered or its bytes do not decode.
    pub(super) fn decode(
        &self,
        kind: &str,
        name: &str,
        back: Option<&str>,
        bytes: &[u8],
        header: Header,
        sender: Sender,
    ) -> Option<Handed> {
        let decoder = self.decoders.get()?.get(&(kind.into(), name.into(), back.map(CompactString::new)))?;
        decoder(bytes, header, sender)
    }

    /// This office as effects hold it.
    pub(super) fn as_post_office(&self) -> Option<Arc<dyn PostOffice>> {
        self.this.get()?.upgrade().map(|office| {
            let office: Arc<dyn PostOffice> = office;
            office
        })
    }
}

impl PostOffice for Office {
    fn post(&self, kind: TypeId, key: &Key, parcel: Handed) {
        if let Some(host) = self.host(kind) {
            host.post(key, parcel);
        }
        // Without a host the runtime has stopped; a durable sender's outbox still holds the promise.
    }
}

/// Why a promise could not be sent.
pub(super) fn unregistered(kind: &str, name: &str) -> Failure {
    Failure::Unregistered { name: format!("{kind}/{name}").into() }
}
