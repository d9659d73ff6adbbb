//! Our side of the rows: the kinds, a runtime for each lap or row, the callers.

use std::{
    marker::PhantomData,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::ThreadId,
    time::{Duration, Instant},
};

use actix::{Arbiter, ArbiterHandle};
use serde::{Deserialize, Serialize};
use service_twin::{
    model::{Clock as _, RequestKey, SystemClock, Timestamp},
    runtime::{Config, Runtime},
    store::{Level, Store, memory::MemoryStore, sled},
    twin::{Decide, Decision, Durable, Message, Rejection, Snapshot, Turn, Twin, Volatile, Wire},
};

use tokio::runtime::Handle;

use super::{
    Client, Driver, Host, Lap, Ledger, Pick, Plan, State, activation::CACHE_BYTES, harness::drive::run_on,
    volley::Player,
};

/// W1, W3, W5: nothing is stored.
pub(crate) struct Counter(State);

/// The rows `+memory`: the same state, encoded and committed with every change.
#[derive(Serialize, Deserialize)]
pub(crate) struct Kept(State);

/// W2, W4: the state of 1 KiB.
#[derive(Serialize, Deserialize)]
pub(crate) struct Entity(Ledger);

/// W3h: turns of 2 µs.
pub(crate) struct Slow(State);

/// One increment; the reply is the new count.
#[derive(Serialize, Deserialize)]
pub(crate) struct Increment<K>(PhantomData<fn() -> K>);

/// The count.
#[derive(Serialize, Deserialize)]
pub(crate) struct Read<K>(PhantomData<fn() -> K>);

/// An increment that may carry an idempotency key.
#[derive(Serialize, Deserialize)]
struct Keyed;

/// A kind that counts.
pub(crate) trait Counts: Twin {
    /// Increments; the reply is the new count.
    fn increment(runtime: &Runtime, id: &str) -> impl Future<Output = u64> + Send;
    /// Reads the count.
    fn read(runtime: &Runtime, id: &str) -> impl Future<Output = u64> + Send;
}

/// How long a turn of [`Slow`] takes.
const TURN: Duration = Duration::from_micros(2);

/// A turn's work: reads the clock until [`TURN`] is over.
#[expect(clippy::disallowed_methods, reason = "the workload is a turn of a known length")]
pub(crate) fn work() {
    let started = Instant::now();
    while started.elapsed() < TURN {
        std::hint::spin_loop();
    }
}

/// No work.
fn at_once() {}

macro_rules! counting {
    ($kind:ident, $state:ident, $name:literal, $persistence:ty, $work:expr) => {
        impl Twin for $kind {
            const KIND: &'static str = $name;
            type Persistence = $persistence;
            type Change = u64;

            fn create(_: &str) -> Self {
                Self($state::default())
            }

            fn apply(&mut self, by: &u64, _: Timestamp) {
                self.0.count += by;
            }
        }

        impl Message for Increment<$kind> {
            type Twin = $kind;
            type Reply = u64;
        }

        impl Wire for Increment<$kind> {
            const NAME: &'static str = "add/1";
        }

        impl Decide<Increment<$kind>> for $kind {
            fn decide(&self, _: &Increment<$kind>, _: &Turn<'_>) -> Result<Decision<u64, u64>, Rejection> {
                $work;
                Ok(Decision::new(self.0.count + 1).change(1))
            }
        }

        impl Message for Read<$kind> {
            type Twin = $kind;
            type Reply = u64;
        }

        impl Wire for Read<$kind> {
            const NAME: &'static str = "read/1";
        }

        impl Decide<Read<$kind>> for $kind {
            fn decide(&self, _: &Read<$kind>, _: &Turn<'_>) -> Result<Decision<u64, u64>, Rejection> {
                Ok(Decision::new(self.0.count))
            }
        }

        impl Counts for $kind {
            async fn increment(runtime: &Runtime, id: &str) -> u64 {
                runtime.twin(id).ask(Increment::<Self>(PhantomData)).await.expect("the twin answers")
            }

            async fn read(runtime: &Runtime, id: &str) -> u64 {
                runtime.twin(id).ask(Read::<Self>(PhantomData)).await.expect("the twin answers")
            }
        }
    };
}

counting!(Counter, State, "counter", Volatile, at_once());
counting!(Kept, State, "kept", Durable, at_once());
counting!(Entity, Ledger, "entity", Durable, at_once());
counting!(Slow, State, "slow", Volatile, work());

impl Snapshot for Kept {
    const SCHEMA: u16 = 1;
    const FIELDS: &'static str = "count:u64 rest:[u64;24]";
}

impl Snapshot for Entity {
    const SCHEMA: u16 = 1;
    const FIELDS: &'static str = "count:u64 name:String pairs:Vec<(String,u64)> rest:Vec<u8>";
}

impl Message for Keyed {
    type Twin = Entity;
    type Reply = u64;
}

impl Wire for Keyed {
    const NAME: &'static str = "increment/1";
}

impl Decide<Keyed> for Entity {
    fn decide(&self, _: &Keyed, _: &Turn<'_>) -> Result<Decision<u64, u64>, Rejection> {
        Ok(Decision::new(self.0.count + 1).change(1))
    }
}

/// A runtime with `cpus` arbiters that hosts the counting kinds.
pub(crate) fn start(cpus: usize, store: Arc<dyn Store>) -> Runtime {
    let config = Config { arbiters: cpus, ..Config::default() };
    let kinds = Runtime::builder().kind::<Counter>().kind::<Kept>().kind::<Entity>().kind::<Slow>().kind::<Player>();
    kinds.kind::<Scout>().wire::<Keyed>().config(config).store(store).start().expect("a runtime starts")
}

/// The same over a store in memory.
pub(crate) fn start_in_memory(cpus: usize) -> Runtime {
    start(cpus, Arc::new(MemoryStore::new()))
}

/// The same over sled, with the page cache that everybody has.
pub(crate) fn start_on_disk(cpus: usize, path: &Path, level: Level) -> Runtime {
    let options = sled::Options { level, cache_bytes: CACHE_BYTES, ..sled::Options::default() };
    start(cpus, Arc::new(sled::SledStore::open(path, options).expect("the store opens")))
}

/// Ends a runtime and closes its store.
pub(crate) fn stop(host: &Handle, runtime: Runtime) {
    let drained = host.block_on(runtime.drain(Duration::from_secs(10)));
    assert_eq!(drained.unsettled, 0, "nothing is left under way");
    drop(runtime);
}

/// Driver (a): a twin that tells on which arbiter it lives.
struct Scout;

/// Where do you live?
struct Where;

/// Scouts asked; with 16 shards an arbiter, so many find every arbiter.
const SCOUTS: u32 = 256;

impl Twin for Scout {
    const KIND: &'static str = "scout";
    type Persistence = Volatile;
    type Change = ();

    fn create(_: &str) -> Self {
        Self
    }

    fn apply(&mut self, (): &(), _: Timestamp) {}
}

impl Message for Where {
    type Twin = Scout;
    type Reply = (ThreadId, ArbiterHandle);
    const INLINE: bool = false;
}

impl Decide<Where> for Scout {
    fn decide(&self, _: &Where, _: &Turn<'_>) -> Result<Decision<(), (ThreadId, ArbiterHandle)>, Rejection> {
        Ok(Decision::new((std::thread::current().id(), Arbiter::current())))
    }
}

/// The arbiters that host the twins of a runtime.
fn arbiters(host: &Handle, runtime: &Runtime) -> Vec<ArbiterHandle> {
    let mut found: Vec<(ThreadId, ArbiterHandle)> = Vec::new();
    for at in 0..SCOUTS {
        let one = host.block_on(async { runtime.twin(&format!("scout/{at}")).ask(Where).await });
        let one = one.expect("the twin answers");
        if found.iter().all(|(thread, _)| *thread != one.0) {
            found.push(one);
        }
    }
    found.into_iter().map(|(_, arbiter)| arbiter).collect()
}

/// Runs the client loops of one lap.
pub(crate) fn run<C: Client>(
    driver: Driver,
    host: &Host,
    runtime: &Runtime,
    plan: Plan,
    make: impl FnMut(u64) -> C,
) -> Lap {
    match driver {
        Driver::Arbiters => run_on(&arbiters(host.handle(), runtime), plan, make),
        Driver::Host => host.run(plan, make),
    }
}

/// A caller that increments twins of one kind.
pub(crate) struct Asker<K> {
    runtime: Runtime,
    ids: Arc<[String]>,
    pick: Pick,
    kind: PhantomData<fn() -> K>,
}

impl<K> Asker<K> {
    pub(crate) fn new(runtime: &Runtime, ids: &Arc<[String]>, pick: Pick) -> Self {
        Self { runtime: runtime.clone(), ids: ids.clone(), pick, kind: PhantomData }
    }

    fn id(&self, at: u64) -> &str {
        &self.ids[self.pick.index(at, self.ids.len())]
    }
}

impl<K: Counts> Client for Asker<K> {
    async fn call(&mut self, at: u64) -> u64 {
        K::increment(&self.runtime, self.id(at)).await
    }
}

/// A caller that reads twins of one kind.
pub(crate) struct Reader<K>(pub(crate) Asker<K>);

impl<K: Counts> Client for Reader<K> {
    async fn call(&mut self, at: u64) -> u64 {
        K::read(&self.0.runtime, self.0.id(at)).await
    }
}

/// A caller whose every increment has an idempotency key of its own. The ring tells keys apart by milliseconds, so the
/// keys of this workload are a millisecond apart each, in the order of the calls.
pub(crate) struct KeyedAsker {
    asker: Asker<Entity>,
    keys: Arc<AtomicU64>,
}

impl KeyedAsker {
    /// The first of several callers; clones share its sequence of keys.
    pub(crate) fn new(asker: Asker<Entity>, keys: &Arc<AtomicU64>) -> Self {
        Self { asker, keys: keys.clone() }
    }
}

/// The time of the first key.
pub(crate) fn first_key() -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(SystemClock.now().unix_ms()))
}

impl Client for KeyedAsker {
    async fn call(&mut self, at: u64) -> u64 {
        let made_at = self.keys.fetch_add(1, Ordering::Relaxed);
        let key = RequestKey::new(&made_at.to_string(), Timestamp::from_unix_ms(made_at));
        let twin = self.asker.runtime.twin(self.asker.id(at));
        twin.ask(Keyed).key(key).await.expect("the twin answers")
    }
}

/// The counters of all ids, in order.
pub(crate) fn counters<K: Counts>(host: &Handle, runtime: &Runtime, ids: &[String]) -> Vec<u64> {
    ids.iter().map(|id| host.block_on(K::read(runtime, id))).collect()
}
