//! One run: lives of the runtime over one store, each ended by a drain or a crash, then a healed one.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};
use service_twin::{
    model::{Clock, Timestamp},
    runtime::{Config, Door, Runtime},
    store::{
        Address, Epoch,
        memory::{Fault, Faults, MemoryStore, Odds},
    },
    twin::Twin,
};
use tokio::time::Instant;

use crate::{
    book::{Book, Echo, Echoed, Hear, Whole},
    check,
    client::{Client, key},
    disk::Disk,
    history::{History, Shared, Told},
    tally::Tally,
};

/// For how long a healed world is left alone.
const QUIET: Duration = Duration::from_secs(120);

/// Virtual time, going on from one life to the next.
pub struct Virtual {
    base: Timestamp,
    start: Instant,
    back_ms: AtomicU64,
}

impl Virtual {
    /// Goes on at `base`.
    pub fn from(base: Timestamp) -> Self {
        Self { base, start: Instant::now(), back_ms: AtomicU64::new(0) }
    }

    /// Steps back.
    pub fn step_back(&self, by: Duration) {
        self.back_ms.fetch_add(u64::try_from(by.as_millis()).expect("a step is short"), Ordering::Relaxed);
    }
}

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        let back = Duration::from_millis(self.back_ms.load(Ordering::Relaxed));
        self.base.after(self.start.elapsed()).before(back)
    }
}

/// Runs `work` in an actix `System` of its own over paused time; what it leaves behind dies with it, as in a crash.
pub fn in_virtual_time<R>(work: impl Future<Output = R>) -> R {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().expect("a runtime of one thread starts")
    };
    actix::System::with_tokio_rt(runtime).block_on(work)
}

/// Runs a seed on a thread of its own, which leaves nothing behind on others; answers its trace.
///
/// # Errors
/// The panic's message, if a promise was broken.
pub fn run(seed: u64) -> Result<String, String> {
    let thread = std::thread::Builder::new().name(format!("seed-{seed}")).spawn(move || World::new(seed).run());
    thread.expect("a thread starts").join().map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
    })
}

struct World {
    random: StdRng,
    store: Arc<MemoryStore>,
    faults: Arc<Faults>,
    history: Shared,
    now: Timestamp,
    twins: usize,
    clients: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        // Some worlds are calm, some rough; each fault has its own weather.
        let rough = [0, 20, 60, 150][random.random_range(0..4)];
        let mut odds = || random.random_range(0..=rough);
        let odds = Odds {
            full: odds(),
            busy: odds() / 2,
            unavailable: odds(),
            unknown_applied: odds() / 2,
            unknown_lost: odds() / 2,
            unknown_late: odds() / 2,
            held: odds() * 2,
            load_unavailable: odds(),
            load_held: odds(),
        };
        let faults = Arc::new(Faults::seeded(random.random(), odds));
        // Half of the calm ones are over a store that commits in place.
        let in_place = rough == 0 && random.random_bool(0.5);
        let store = Arc::new(if in_place { MemoryStore::new() } else { MemoryStore::with_faults(Arc::clone(&faults)) });
        let twins = random.random_range(1..6);
        let history = Rc::new(RefCell::new(History::default()));
        let now = Timestamp::from_unix_ms(1_700_000_000_000);
        Self { random, store, faults, history, now, twins, clients: 0 }
    }

    fn run(mut self) -> String {
        for _ in 0..self.random.random_range(1..4) {
            self.live();
        }
        self.heal();
        let history = Rc::try_unwrap(self.history).expect("every client is gone");
        history.into_inner().trace
    }

    fn config(&mut self) -> Config {
        let door = match self.random.random_range(0..4) {
            0 => Door::Open,
            1 => Door::Closed,
            _ => {
                let random = Mutex::new(StdRng::seed_from_u64(self.random.random()));
                Door::Scripted(Arc::new(move || random.lock().random_bool(0.5)))
            }
        };
        let (shards_per_arbiter, idle_s) = (self.random.random_range(1..4), self.random.random_range(0..4));
        Config {
            shards_per_arbiter,
            idle_after: Duration::from_secs(idle_s),
            door,
            // None, one page, all of them.
            page_cache_bytes_max: [0, 80, 64 * 1024, 64 * 1024][usize::try_from(idle_s).expect("below 4")],
            ..Config::default()
        }
    }

    /// One life under faults.
    fn live(&mut self) {
        let config = self.config();
        let disk = Arc::new(Disk::new(Arc::clone(&self.store), self.random.random(), self.random.random_range(0..100)));
        let crash = self.random.random_bool(0.5).then(|| Duration::from_millis(self.random.random_range(0..15_000)));
        let seeds: Vec<u64> = (0..self.random.random_range(1..5)).map(|_| self.random.random()).collect();
        let gremlin_seed = self.random.random();
        let first = self.clients;
        self.clients += seeds.len();
        let (store, history, base, twins) = (Arc::clone(&self.store), Rc::clone(&self.history), self.now, self.twins);
        self.now = in_virtual_time(async move {
            let clock = Arc::new(Virtual::from(base));
            history.borrow_mut().note(base, "a life begins");
            let runtime = start(config, Arc::clone(&clock), Arc::clone(&disk)).await;
            history.borrow_mut().live();
            actix::spawn(watch(runtime.clone(), Rc::clone(&history)));
            let check: Rc<dyn Fn()> = {
                let (store, seen) = (Arc::clone(&store), RefCell::new(vec![0; twins]));
                Rc::new(move || unbroken(&store, &mut seen.borrow_mut()))
            };
            let clients = seeds.into_iter().enumerate().map(|(at, seed)| {
                let client = Client {
                    number: first + at,
                    runtime: runtime.clone(),
                    history: Rc::clone(&history),
                    random: StdRng::seed_from_u64(seed),
                    twins,
                    steps: 12,
                    check: Rc::clone(&check),
                };
                actix::spawn(client.live())
            });
            let clients = join_all(clients.collect::<Vec<_>>());
            actix::spawn(gremlin(Arc::clone(&store), StdRng::seed_from_u64(gremlin_seed)));
            tokio::select! {
                biased;
                () = tokio::time::sleep(crash.unwrap_or(Duration::from_secs(1_000_000))) => {
                    history.borrow_mut().note(clock.now(), "the process dies");
                }
                ended = tokio::time::timeout(Duration::from_secs(600), clients) => {
                    let ended = ended.expect("every caller is answered");
                    for client in ended {
                        client.expect("no client fails");
                    }
                    let drained = runtime.drain(Duration::from_secs(60)).await;
                    history.borrow_mut().note(clock.now(), &format!("drained: {drained:?}"));
                    assert_eq!(drained.unsettled, 0, "a drain ends clean");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    history.borrow_mut().life().drained = true;
                    let heard = history.borrow_mut().life().events.len();
                    history.borrow_mut().note(clock.now(), &format!("a watcher heard {heard} events"));
                }
            }
            clock.now()
        });
    }

    /// The last life: no faults, nobody calls, and all that was promised must come true.
    fn heal(&mut self) {
        self.faults.heal();
        while self.store.held() > 0 && self.random.random_bool(0.5) {
            self.store.release(self.random.random_range(0..self.store.held()), None);
        }
        let config = Config { idle_after: Duration::from_secs(self.random.random_range(0..300)), ..self.config() };
        let disk = Arc::new(Disk::new(Arc::clone(&self.store), 0, 0));
        let (store, history, base, twins) = (Arc::clone(&self.store), Rc::clone(&self.history), self.now, self.twins);
        in_virtual_time(async move {
            let clock = Arc::new(Virtual::from(base));
            history.borrow_mut().note(base, "healed");
            let runtime = start(config, Arc::clone(&clock), disk).await;
            while store.held() > 0 {
                store.release(0, None);
            }
            while store.held_loads() > 0 {
                store.release_load(0);
            }
            tokio::time::sleep(QUIET).await;
            let quiet_until = clock.now();
            let mut books = Vec::new();
            for twin in 0..twins {
                let book = runtime.twin(&key(twin)).ask(Whole).await.expect("a healed twin answers");
                history.borrow_mut().note(clock.now(), &format!("{twin}: {book:?}"));
                books.push(book);
            }
            check::all(&history.borrow(), &books, quiet_until, &store);
            unbroken(&store, &mut vec![0; twins]);
            let drained = runtime.drain(Duration::from_secs(10)).await;
            assert_eq!(drained.unsettled, 0, "a healed drain ends clean");
        });
    }
}

/// Starts the runtime on this thread.
pub async fn start(config: Config, clock: Arc<Virtual>, disk: Arc<Disk>) -> Runtime {
    // The first claim of a life is the operator's business: tried until it succeeds.
    loop {
        let builder = Runtime::builder().config(config.clone()).clock(Arc::clone(&clock) as Arc<dyn Clock>);
        let builder = builder.store(Arc::clone(&disk) as _).kind::<Book>().wire::<Hear>();
        let builder = builder.asks::<Echo, Echoed>().kind::<Tally>();
        match builder.start_here().await {
            Ok(runtime) => return runtime,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Follows every event of a life.
async fn watch(runtime: Runtime, history: Shared) {
    let mut watch = runtime.watch(None);
    // A watcher does not keep the runtime.
    drop(runtime);
    loop {
        let event = watch.next().await.expect("nothing is dropped before a prompt watcher has read it");
        let data: [u8; 4] = event.event.data[..].try_into().expect("an event names its operation");
        let told = Told { key: event.key.to_string(), revision: event.revision, id: u32::from_le_bytes(data) };
        history.borrow_mut().life().events.push(told);
    }
}

/// Lets held commits and loads go, one way or another.
async fn gremlin(store: Arc<MemoryStore>, mut random: StdRng) {
    loop {
        let patient = if random.random_bool(0.1) { 3_000 } else { 40 };
        tokio::time::sleep(Duration::from_millis(random.random_range(0..patient))).await;
        if store.held() > 0 {
            let fault = match random.random_range(0..10) {
                0 => Some(Fault::Unavailable),
                1 => Some(Fault::UnknownApplied),
                2 => Some(Fault::UnknownLost),
                _ => None,
            };
            store.release(random.random_range(0..store.held()), fault);
        }
        if store.held_loads() > 0 {
            store.release_load(random.random_range(0..store.held_loads()));
        }
    }
}

/// Checks every twin's chain of records: sequences without a gap, epochs that never fall.
fn unbroken(store: &MemoryStore, seen: &mut [usize]) {
    for (twin, seen) in seen.iter_mut().enumerate() {
        let chain = store.chain(&address(twin));
        let before = Cell::new(Epoch(0));
        for (at, (sequence, epoch)) in chain.iter().enumerate() {
            assert_eq!(usize::try_from(*sequence), Ok(at + 1), "twin {twin}: sequences without a gap");
            assert!(*epoch >= before.replace(*epoch), "twin {twin}: an epoch fell");
        }
        assert!(chain.len() >= *seen, "twin {twin}: a record vanished");
        *seen = chain.len();
    }
}

/// Where a twin is stored.
pub fn address(twin: usize) -> Address {
    Address { kind: Book::KIND.into(), key: key(twin) }
}
