//! The durable store of a cluster: NATS JetStream, shared by all its nodes.
//!
//! ```text
//! commits ─▶ a bounded queue per stream ─▶ its writer: check, one atomic batch in flight ─▶ riders ─▶ ended
//! ```
//!
//! A slot's ownership lies in the stream of the slot's records, and its place in that log is the epoch. So the servers
//! check the epoch in the same step as they store the batch, and a node that lost a slot can write nothing of it,
//! whatever it believes. Reads are believed under the same ownership only. What the store rests on and what it does
//! not: `docs/cluster.md`; subjects and headers: `docs/formats.md`.
//!
//! The store has a small tokio runtime of its own; completions run on its threads.

mod blobs;
mod claims;
mod config;
mod log;
mod names;
mod open;
mod read;
mod table;
mod walk;
mod wire;
mod writer;

pub use claims::{Holding, Owned};
pub use config::{Login, NatsConfig, OpenError, Tls};

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, oneshot, watch},
};

use self::{names::Names, table::Table, wire::Wire, writer::Writer};
use super::{
    Address, Commit, Done, Epoch, Error, Item, Level, Load, Loaded, Refused, Scan, SharedStats, Slot, Stats, Store,
    Walked,
};
use crate::{
    metrics::Spread,
    model::{Key, limits},
};

/// Threads of the store's runtime.
const THREADS: usize = 2;
/// Reads under way at once; more are refused as busy.
const READS_MAX: usize = 4096;
/// Claims whose records wait to be read; every slot fits.
const LOADS_MAX: usize = 4096;
/// News of ownerships that wait for a listener.
const NEWS_MAX: usize = 1024;
/// How often the size on disk is asked for.
const SIZE_EVERY: Duration = Duration::from_secs(30);

fn slot_of(key: &str) -> Slot {
    Slot::of(Key::hash_of(key))
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".into())
}

/// What all tasks of a store share.
struct Inner {
    config: NatsConfig,
    names: Names,
    wire: Wire,
    table: Mutex<Table>,
    /// Grows whenever records of claimed slots have been read.
    loads: watch::Sender<u64>,
    loaders: Vec<mpsc::Sender<(Slot, Epoch)>>,
    /// For each stream the highest sequence that this node was told is stored.
    acked: Vec<AtomicU64>,
    /// Which life of this node claims.
    incarnation: AtomicU64,
    is_closed: AtomicBool,
    /// Blobs whose put has not been answered; a sweep leaves them alone.
    unanswered: Mutex<HashSet<[u8; 16]>>,
    waiting: AtomicU64,
    commits: AtomicU64,
    batches: AtomicU64,
    batch_longest_us: AtomicU64,
    batch_sizes: Spread,
    batch_us: Spread,
    bytes: AtomicU64,
    lag: AtomicU64,
    copies_behind: AtomicU64,
}

impl Inner {
    fn check_open(&self) -> Result<(), Error> {
        if self.is_closed.load(Ordering::Acquire) { Err(closed()) } else { Ok(()) }
    }

    fn stream_of(&self, slot: Slot) -> String {
        self.names.stream(self.names.place(slot))
    }

    fn acknowledged(&self, place: u16, sequence: u64) {
        self.acked[usize::from(place)].fetch_max(sequence, Ordering::AcqRel);
    }

    /// A claim succeeded: its records are read, and reads see it.
    async fn now_owns(&self, slot: Slot, epoch: Epoch) {
        let place = self.names.place(slot);
        self.acknowledged(place, epoch.0);
        self.table.lock().claimed(slot, epoch);
        if self.loaders[usize::from(place)].send((slot, epoch)).await.is_err() {
            tracing::debug!(slot = slot.0, "the store is closing; a claimed slot is not read");
        }
    }

    /// Asks now and then how much the streams hold, and how far their copies are.
    async fn measure(self: Arc<Self>) {
        while self.check_open().is_ok() {
            let names = (0..self.names.streams()).map(|place| self.names.stream(place)).chain([self.names.blobs()]);
            let mut bytes = Some(0);
            let (mut lag, mut copies_behind) = (0, 0);
            for name in names {
                let stream = self.wire.jetstream.get_stream(&name).await;
                let info = stream.as_ref().ok().map(async_nats::jetstream::stream::Stream::cached_info);
                bytes = bytes.zip(info).map(|(sum, info)| sum + info.state.bytes);
                for copy in info.and_then(|info| info.cluster.as_ref()).iter().flat_map(|cluster| &cluster.replicas) {
                    lag = lag.max(copy.lag.unwrap_or_default());
                    copies_behind += u64::from(!copy.current || copy.offline);
                }
            }
            self.lag.store(lag, Ordering::Relaxed);
            self.copies_behind.store(copies_behind, Ordering::Relaxed);
            if let Some(bytes) = bytes {
                self.bytes.store(bytes, Ordering::Relaxed);
            }
            tokio::time::sleep(SIZE_EVERY).await;
        }
    }
}

/// A cluster's store as one node has it; see the module. Dropping it ends what was committed; reads and claims under way
/// then have no answer, so whoever waits for one keeps the store.
pub struct NatsStore {
    inner: Arc<Inner>,
    handle: Handle,
    /// Gone after [`Store::close`].
    doors: Arc<RwLock<Option<Vec<mpsc::Sender<Commit>>>>>,
    reads: Arc<Semaphore>,
    /// Whether every writer has ended.
    over: watch::Receiver<bool>,
    /// Ends the store's thread when it is dropped.
    _stop: oneshot::Sender<()>,
}

impl std::fmt::Debug for NatsStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsStore").field("node", &self.inner.config.node).finish_non_exhaustive()
    }
}

impl NatsStore {
    /// Connects, and makes the streams of a new cluster.
    ///
    /// Blocks: until the servers answer, and at most about twice [`NatsConfig::patience`] for each stream.
    pub fn open(config: NatsConfig) -> Result<Self, OpenError> {
        let (opened, answer) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("store-nats".into());
        let failed = |error: std::io::Error| OpenError::Thread(error.to_string());
        thread.spawn(move || run(config, &opened)).map_err(failed)?;
        answer.recv().map_err(|_| OpenError::Thread("it ended".into()))?
    }

    /// Runs on the store's own threads, so that a caller may use any runtime.
    async fn here<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.handle.spawn(work).await.map_err(|_| closed())?
    }

    /// The last word on a slot; `None` if it was never claimed. As any bare read, a hint: the truth is in a claim.
    pub async fn owner(&self, slot: Slot) -> Result<Option<Owned>, Error> {
        let inner = self.inner.clone();
        self.here(async move { inner.owner(slot).await }).await
    }

    /// The last word on every slot that was ever claimed; a hint, too.
    pub async fn owners(&self) -> Result<Vec<(Slot, Owned)>, Error> {
        let inner = self.inner.clone();
        self.here(async move { inner.owners().await }).await
    }

    /// Tells the last word on every slot that was ever claimed, then each new one, until the receiver is dropped. Words
    /// on one slot come in order; a slow listener holds up nobody else.
    pub fn watch_owners(&self) -> mpsc::Receiver<(Slot, Owned)> {
        let (send, receive) = mpsc::channel(NEWS_MAX);
        for place in 0..self.inner.names.streams() {
            let (inner, send) = (self.inner.clone(), send.clone());
            self.handle.spawn(async move { inner.watch(place, send).await });
        }
        receive
    }

    /// Claims and releases from now on as this life of the node, if it is a later one.
    pub fn live_as(&self, incarnation: u64) {
        self.inner.incarnation.fetch_max(incarnation, Ordering::AcqRel);
    }

    /// Leaves the server and connects to one of them again, perhaps another; comes back when that is done, or takes long.
    pub(crate) async fn reconnect(&self) {
        let client = &self.inner.wire.client;
        let connects = || client.statistics().connects.load(Ordering::Relaxed);
        let before = connects();
        // One that is connecting already is not told to: it would do it twice.
        if client.connection_state() == async_nats::connection::State::Connected
            && let Err(error) = client.force_reconnect().await
        {
            tracing::warn!(%error, "the servers cannot be connected to again");
        }
        // What is sent meanwhile may still go to the old server, and its answer nowhere.
        for delay in wire::delays(open::CONNECT_TIMEOUT) {
            if connects() > before {
                break;
            }
            tokio::time::sleep(delay).await;
        }
    }

    /// The connection, the start of all names, and how many copies there are of what is stored.
    pub(crate) fn jetstream(&self) -> (async_nats::jetstream::Context, &str, usize) {
        let Inner { wire, config, .. } = &*self.inner;
        (wire.jetstream.clone(), &config.prefix, config.replicas)
    }

    /// Claims many slots, a bounded number at a time; see [`Store::claim`].
    pub async fn claim_many(&self, wanted: &[(Slot, Option<Epoch>)]) -> Vec<(Slot, Result<Epoch, Error>)> {
        let (inner, all) = (self.inner.clone(), wanted.to_vec());
        let claimed = self.here(async move { Ok(inner.claim_many(all).await) }).await;
        claimed.unwrap_or_else(|error| wanted.iter().map(|(slot, _)| (*slot, Err(error.clone()))).collect())
    }

    /// Gives a slot up, so that anybody may claim it at once. Whoever calls this has no commit of it under way; one that
    /// comes later is refused.
    pub async fn release(&self, slot: Slot, epoch: Epoch) -> Result<(), Error> {
        let inner = self.inner.clone();
        self.here(async move { inner.release(slot, epoch).await }).await
    }

    /// Spawns a call that answers a completion.
    fn answer<T: Send + 'static>(&self, done: Done<T>, work: impl Future<Output = Result<T, Error>> + Send + 'static) {
        self.handle.spawn(async move {
            let result = work.await;
            super::told::contained(|| done(result));
        });
    }

    /// The same for reads, of which there are not too many.
    fn read<T: Send + 'static>(&self, done: Done<T>, work: impl Future<Output = Result<T, Error>> + Send + 'static) {
        match self.reads.clone().try_acquire_owned() {
            Err(_) => done(Err(Error::Busy("the store's reads"))),
            Ok(permit) => self.answer(done, async move {
                let result = work.await;
                drop(permit);
                result
            }),
        }
    }
}

/// The store's thread: opens it and waits until it is dropped.
fn run(config: NatsConfig, opened: &std::sync::mpsc::Sender<Result<NatsStore, OpenError>>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("store-nats")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return drop(opened.send(Err(OpenError::Thread(error.to_string())))),
    };
    let (stop, stopped) = oneshot::channel();
    let store = runtime.block_on(async { open::open(&config).await.map(|wire| build(config, wire, stop)) });
    match store {
        Err(error) => drop(opened.send(Err(error))),
        Ok(store) => {
            let (doors, mut over) = (store.doors.clone(), store.over.clone());
            let inner = store.inner.clone();
            if opened.send(Ok(store)).is_ok() {
                // An error says the same: the store was dropped.
                runtime.block_on(stopped).unwrap_or_default();
            }
            inner.is_closed.store(true, Ordering::Release);
            drop(doors.write().take());
            let ended = runtime.block_on(over.wait_for(|over| *over)).is_ok();
            tracing::debug!(ended, "the store has ended");
        }
    }
    runtime.shutdown_background();
}

/// Starts the tasks of a store; within its runtime.
fn build(config: NatsConfig, wire: Wire, stop: oneshot::Sender<()>) -> NatsStore {
    let names = Names::new(&config.prefix, config.streams);
    let (mut loaders, mut to_load) = (Vec::new(), Vec::new());
    for _ in 0..config.streams {
        let (send, receive) = mpsc::channel(LOADS_MAX);
        loaders.push(send);
        to_load.push(receive);
    }
    let inner = Arc::new(Inner {
        names,
        wire,
        table: Mutex::default(),
        loads: watch::Sender::new(0),
        loaders,
        acked: (0..config.streams).map(|_| AtomicU64::new(0)).collect(),
        incarnation: AtomicU64::new(config.incarnation),
        is_closed: AtomicBool::new(false),
        unanswered: Mutex::default(),
        waiting: AtomicU64::new(0),
        commits: AtomicU64::new(0),
        batches: AtomicU64::new(0),
        batch_longest_us: AtomicU64::new(0),
        batch_sizes: Spread::default(),
        batch_us: Spread::default(),
        bytes: AtomicU64::new(0),
        lag: AtomicU64::new(0),
        copies_behind: AtomicU64::new(0),
        config,
    });
    let (mut doors, mut writers) = (Vec::new(), Vec::new());
    for (place, to_load) in (0..inner.config.streams).zip(to_load) {
        tokio::spawn(inner.clone().load_indexes(place, to_load));
        let (send, receive) = mpsc::channel(inner.config.queue);
        doors.push(send);
        writers.push(tokio::spawn(Writer::new(inner.clone(), place, receive).run()));
    }
    tokio::spawn(inner.clone().measure());
    let (ended, over) = watch::channel(false);
    tokio::spawn(async move {
        for writer in writers {
            if writer.await.is_err() {
                tracing::error!("a writer of the store panicked");
            }
        }
        ended.send_replace(true);
    });
    NatsStore {
        inner,
        handle: Handle::current(),
        doors: Arc::new(RwLock::new(Some(doors))),
        reads: Arc::new(Semaphore::new(READS_MAX)),
        over,
        _stop: stop,
    }
}

impl Store for NatsStore {
    /// What the servers are told to keep: `sync_interval: always`, which no client can see.
    fn level(&self) -> Level {
        Level::Fsync
    }

    fn slot_of(&self, key: &str) -> Slot {
        slot_of(key)
    }

    fn claim(&self, slot: Slot, expected: Option<Epoch>, done: Done<Epoch>) {
        let inner = self.inner.clone();
        self.answer(done, async move { inner.claim(slot, expected).await });
    }

    fn load(&self, load: Load, done: Done<Loaded>) {
        let inner = self.inner.clone();
        self.read(done, async move { inner.load(&load).await });
    }

    // A barrier has nothing to wait for: a replica applies, and so shows, only what a majority has in its log, which with
    // `sync_interval: always` is on their disks.

    fn scan(&self, scan: Scan, done: Done<Walked>) {
        let inner = self.inner.clone();
        self.read(done, async move { inner.scan(scan).await });
    }

    fn commit(&self, commit: Commit) -> Result<(), Refused> {
        let doors = self.doors.read();
        let place = usize::from(self.inner.names.place(Slot(commit.slot.0 % Slot::COUNT)));
        let Some(door) = doors.as_ref().map(|doors| &doors[place]) else {
            return Err(Refused::new(commit, closed()));
        };
        self.inner.waiting.fetch_add(1, Ordering::Relaxed);
        let refused = match door.try_send(commit) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Full(commit)) => Refused::new(commit, Error::Busy("the store's queue")),
            Err(mpsc::error::TrySendError::Closed(commit)) => Refused::new(commit, closed()),
        };
        self.inner.waiting.fetch_sub(1, Ordering::Relaxed);
        Err(refused)
    }

    fn put_blob(&self, value: Vec<u8>, done: Done<[u8; 16]>) {
        if value.len() > limits::BLOB_BYTES_MAX {
            return done(Err(Error::TooBig { what: "blob", actual: value.len(), max: limits::BLOB_BYTES_MAX }));
        }
        let (inner, id) = (self.inner.clone(), uuid::Uuid::now_v7().into_bytes());
        self.read(done, async move {
            inner.unanswered.lock().insert(id);
            let put = inner.put_blob(id, value).await;
            inner.unanswered.lock().remove(&id);
            put.map(|()| id)
        });
    }

    fn get_blob(&self, id: [u8; 16], done: Done<Option<Vec<u8>>>) {
        let inner = self.inner.clone();
        self.read(done, async move { inner.get_blob(id).await });
    }

    fn sweep_blobs(&self, keep: Vec<[u8; 16]>, done: Done<u64>) {
        let inner = self.inner.clone();
        self.read(done, async move { inner.sweep_blobs(keep.into_iter().collect()).await });
    }

    fn put_item(&self, item: Item, done: Done<()>) {
        let inner = self.inner.clone();
        self.read(done, async move { inner.put_item(item).await });
    }

    fn stats(&self) -> Stats {
        Stats {
            bytes: self.inner.bytes.load(Ordering::Relaxed),
            waiting: self.inner.waiting.load(Ordering::Relaxed),
            commits: self.inner.commits.load(Ordering::Relaxed),
            flushes: self.inner.batches.load(Ordering::Relaxed),
            flush_longest: Duration::from_micros(self.inner.batch_longest_us.load(Ordering::Relaxed)),
            shared: Some(SharedStats {
                batches: self.inner.batch_sizes.read(),
                took_us: self.inner.batch_us.read(),
                lag: self.inner.lag.load(Ordering::Relaxed),
                copies_behind: self.inner.copies_behind.load(Ordering::Relaxed),
            }),
        }
    }

    fn close(&self, done: Done<()>) {
        self.inner.is_closed.store(true, Ordering::Release);
        drop(self.doors.write().take());
        let mut over = self.over.clone();
        self.answer(done, async move {
            over.wait_for(|over| *over).await.map(|_| ()).map_err(|_| Error::Unknown("a writer was lost".into()))
        });
    }
}
