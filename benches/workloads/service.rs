//! The service twin itself: what its model costs a sample and in memory, and a durable write beside a full model.

use std::{
    cell::OnceCell,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use service_twin::{
    model::{
        Clock, Header, ServiceId, SystemClock, Timestamp, limits,
        telemetry::{Batch, MetricPoint, Role, SpanKind, SpanSample, Symbol, Value},
    },
    runtime::{Config, Runtime},
    store::{Commit, Layer, Level, Refused, Store, sled::SledStore},
    twin::{
        Decide, Message, Turn, Twin,
        service::{
            Json, Service,
            message::{Create, Edit, Ingest, SetDesired},
        },
        to_bytes,
    },
};

use super::{
    Bars, Client, Contestant, Host, Lap, Pick, Plan, Row, Setting, Until, WINDOW,
    activation::{CACHE_BYTES, open},
    harness::{machine, report::float},
    hot,
    limits::sled_commit::{How, Raw, Shape},
    memory::Subject,
    passes,
};

const TWINS: u64 = 1_000;
/// Commits whose keys are kept for the raw loop.
const SHAPES_MAX: usize = 20_000;
/// The model of a full twin: this many operations of one version, and this many series.
const OPERATIONS: u64 = 10;
const SERIES: u64 = 20;
/// What a full twin has seen: 90 days, a batch each quarter of an hour.
const DAYS: u64 = 90;
const STEP: Duration = Duration::from_secs(900);
/// Longest that saving the models may take.
const DRAIN_MAX: Duration = Duration::from_secs(60);
/// When its life begins: 2026-01-01.
const BORN: Timestamp = Timestamp::from_unix_ms(1_767_225_600_000);

/// One batch of a service: a span of each operation and a point of each series, `times` over.
fn batch(service: &ServiceId, at: Timestamp, number: u64, times: u64) -> Box<Batch> {
    let mut batch = Batch::new(service.clone());
    batch.resource.instance = Some("instance-1".into());
    batch.resource.version = Some("1.4.2".into());
    let operations: Vec<_> = (0..OPERATIONS).map(|at| batch.symbols.intern(&format!("GET /orders/{at}"))).collect();
    let series: Vec<_> = (0..SERIES).map(|at| batch.symbols.intern(&format!("bench.series.{at}"))).collect();
    for time in 0..times {
        let wave = (number * times + time) % 97;
        batch.spans.extend((0..).zip(&operations).map(|(operation, name)| SpanSample {
            id: (number * times + time) * OPERATIONS + operation + 1,
            operation: *name,
            kind: SpanKind::Server,
            failed: (wave + operation).is_multiple_of(50),
            status_class: 2,
            duration_ns: 1_000_000 * (1 + wave + operation),
            end: at,
            peer: None,
        }));
        batch.metrics.extend((0..).zip(&series).map(|(stream, name)| MetricPoint {
            stream,
            series: *name,
            unit: Symbol::OTHER,
            role: Role::Series,
            operation: Symbol::OTHER,
            failed: false,
            peer: None,
            start: Timestamp::ZERO,
            time: at,
            value: Value::Gauge(float(wave + stream)),
        }));
    }
    Box::new(batch)
}

/// A service twin without a runtime, driven as an activation drives it.
struct Alone {
    service: Service,
    id: ServiceId,
    revision: u64,
}

impl Alone {
    fn new(at: u64) -> Self {
        let id = ServiceId::new("bench", &format!("service-{at:05}")).expect("a service id");
        Self { service: Service::create(id.as_str()), id, revision: 0 }
    }

    fn tell<M>(&mut self, message: &M, now: Timestamp)
    where
        M: Message<Twin = Service>,
        Service: Decide<M>,
    {
        let (key, header) = (self.id.key().clone(), Header::default());
        let decided = self.service.decide(message, &Turn::new(now, &key, self.revision, &header));
        let mut changes = decided.expect("the twin takes it").changes.to_vec();
        while !changes.is_empty() {
            for change in changes.drain(..) {
                self.revision += 1;
                self.service.apply(&change, now);
            }
        }
        for change in self.service.observe(message, &Turn::new(now, &key, self.revision, &header)) {
            self.revision += 1;
            self.service.apply(&change, now);
        }
    }

    fn grow_old(&mut self) {
        let mut now = BORN;
        for step in 0..DAYS * 86_400 / STEP.as_secs() {
            self.tell(&Ingest(batch(&self.id, now, step, 1)), now);
            now = now.after(STEP);
        }
    }
}

/// Nanoseconds a sample in the model: finding operation and series included, decoding not.
pub(crate) fn model(_: &Setting) -> Row {
    let mut alone = Alone::new(0);
    let (mut now, mut number) = (BORN, 0);
    let ours = Contestant::ours(move |time| {
        passes(time, || {
            now = now.after(Duration::from_secs(10));
            number += 1;
            let told = Ingest(batch(&alone.id, now, number, 8));
            let samples = u64::try_from(told.0.samples()).expect("a count");
            let lap = Lap::of(|| {
                alone.tell(&told, now);
                samples
            });
            let each = lap.elapsed.as_nanos() / u128::from(samples);
            Lap { nanos: vec![u32::try_from(each).unwrap_or(u32::MAX)], ..lap }
        })
    });
    let bars = Bars { p50_us: Some(0.1), ..Bars::default() };
    Row { workload: "model", driver: "alone", durability: "none", bars, contestants: vec![ours] }
}

/// An untouched service twin: it exists and has seen nothing.
pub(crate) const UNTOUCHED: &[Subject] = &[
    Subject { role: "ours", name: "untouched", bytes_each: |_| resident(20_000, |_| ()) },
    Subject { role: "other", name: "core record", bytes_each: |_| core(|_| ()) },
];

/// A full one.
pub(crate) const FULL: &[Subject] = &[
    Subject { role: "ours", name: "full", bytes_each: |_| resident(100, Alone::grow_old) },
    Subject { role: "other", name: "core record", bytes_each: |_| core(Alone::grow_old) },
    Subject { role: "other", name: "observed pages", bytes_each: |_| pages() },
];

fn made(at: u64) -> Alone {
    let mut alone = Alone::new(at);
    alone.tell(&Create { attributes: None }, BORN);
    alone
}

fn resident(count: u64, life: impl Fn(&mut Alone)) -> f64 {
    let one = |at| {
        let mut alone = made(at);
        life(&mut alone);
        alone
    };
    // The first one brings whatever all share.
    let first = one(0);
    let before = machine::resident_bytes();
    let twins: Vec<Alone> = (1..=count).map(one).collect();
    let grown = machine::resident_bytes().saturating_sub(before);
    drop((first, twins));
    float(grown) / float(count)
}

fn core(life: impl Fn(&mut Alone)) -> f64 {
    let mut alone = made(0);
    life(&mut alone);
    float(to_bytes(&alone.service).len())
}

fn pages() -> f64 {
    let mut alone = made(0);
    alone.grow_old();
    let mut bytes = 0;
    while alone.service.unsaved() {
        let now = BORN.after(Duration::from_secs(DAYS * 86_400));
        let pages = alone.service.save(now, 1 << 20);
        bytes += pages.iter().map(|page| page.value.as_ref().map_or(0, Vec::len)).sum::<usize>();
    }
    float(bytes)
}

/// W4s: durable writes to 1,000 service twins with full models.
pub(crate) fn full_and_durable(setting: &Setting) -> Row {
    let (host, counts) = (Host::start(setting.cpus), Arc::new(Handed::default()));
    let services: Arc<[ServiceId]> =
        (0..TWINS).map(|at| ServiceId::new("bench", &format!("service-{at:05}")).expect("a service id")).collect();
    let path = setting.dir.join("ours");
    fill(setting, &host, &path, &services);
    let store = Counting { inner: sled_at(&path), counts: counts.clone() };
    let config = Config { arbiters: setting.cpus, ..Config::default() };
    let runtime = Runtime::builder().config(config).store(Arc::new(store)).kind::<Service>();
    let runtime = runtime.start().expect("a runtime starts");
    let seen = counts.clone();
    let writer = Writer { runtime, services };
    let ours = Contestant::ours(move |time| {
        let plan = Plan { window: WINDOW, until: Until::Elapsed(time), timed: false };
        host.run(plan, |_| writer.clone())
    });
    // The raw loop writes the keys and as many bytes as our commits had, known after our first lap.
    let (path, raw, host) = (setting.dir.join("raw"), OnceCell::new(), Host::start(setting.cpus));
    let limit = Contestant::limit("raw sled, the same keys", move |time| {
        let client = raw.get_or_init(|| {
            let value = vec![7; limits::RECORD_BYTES_MAX];
            Raw::start(open(&path), &path, seen.shapes.lock().as_slice().into(), &value, How::Batch)
        });
        host.run(Plan { window: WINDOW, until: Until::Elapsed(time), timed: false }, |_| client.clone())
    });
    let (mean, most) = (counts.clone(), counts);
    let mean = Contestant::figure("bytes a commit, mean", move || mean.mean());
    let most = Contestant::figure("bytes a commit, most", move || most.most.load(Ordering::Relaxed));
    let bars = Bars { limit: Some(0.7), ..Bars::default() };
    Row { workload: "W4s", driver: "b", durability: "fsync", bars, contestants: vec![ours, limit, mean, most] }
}

fn sled_at(path: &Path) -> SledStore {
    let options = service_twin::store::sled::Options {
        level: Level::Fsync,
        cache_bytes: CACHE_BYTES,
        ..service_twin::store::sled::Options::default()
    };
    SledStore::open(path, options).expect("the store opens")
}

/// Gives every twin a model, in bigger steps than [`Alone::grow_old`]: what a write costs does not depend on it. The
/// runtime that did it is drained, so that all models are saved and none is while the writes are measured.
fn fill(setting: &Setting, host: &Host, path: &Path, services: &Arc<[ServiceId]>) {
    const STEPS: u64 = 60;
    let clock = Arc::new(Moved::default());
    // Its clock leaps through 90 days; nobody is to fall asleep on the way.
    let idle_after = Duration::from_secs(400 * 86_400);
    let config = Config { arbiters: setting.cpus, idle_after, ..Config::default() };
    let runtime = Runtime::builder().config(config).clock(clock.clone()).store(Arc::new(sled_at(path)));
    let runtime = runtime.kind::<Service>().start().expect("a runtime starts");
    clock.back_ms.store(SystemClock.now().since(BORN).as_millis().try_into().unwrap_or(0), Ordering::Relaxed);
    for step in 0..STEPS {
        let filler = Filler { runtime: runtime.clone(), services: services.clone(), step, at: clock.now() };
        host.run(Plan { window: WINDOW, until: Until::Count(TWINS), timed: false }, |_| filler.clone());
        clock.back_ms.fetch_sub(DAYS * 86_400_000 / STEPS, Ordering::Relaxed);
    }
    let drained = host.handle().block_on(runtime.drain(DRAIN_MAX));
    assert_eq!(drained.unsettled, 0, "every model is saved");
}

#[derive(Clone)]
struct Filler {
    runtime: Runtime,
    services: Arc<[ServiceId]>,
    step: u64,
    at: Timestamp,
}

impl Client for Filler {
    async fn call(&mut self, at: u64) -> u64 {
        let service = &self.services[Pick::InOrder.index(at, self.services.len())];
        let told = Ingest(batch(service, self.at, self.step, 1));
        self.runtime.twin(service.as_str()).ask(told).await.expect("the twin takes it");
        1
    }
}

/// Writes what a feature shall be.
#[derive(Clone)]
struct Writer {
    runtime: Runtime,
    services: Arc<[ServiceId]>,
}

impl Client for Writer {
    async fn call(&mut self, at: u64) -> u64 {
        let service = &self.services[hot(at, self.services.len())];
        let wanted = Json::parse(&format!("{{\"rate\":{at},\"reason\":\"bench\"}}")).expect("it is JSON");
        let set = SetDesired { feature: "sampling".into(), edit: Edit::Replace(wanted), if_match: None };
        let written = self.runtime.twin(service.as_str()).ask(set).await.expect("the twin takes it");
        assert!(written.revision > 0, "a write makes a revision");
        1
    }
}

/// The machine's clock, moved back.
#[derive(Default)]
struct Moved {
    back_ms: AtomicU64,
}

impl Clock for Moved {
    fn now(&self) -> Timestamp {
        SystemClock.now().before(Duration::from_millis(self.back_ms.load(Ordering::Relaxed)))
    }
}

/// What was handed to the store.
#[derive(Default)]
struct Handed {
    commits: AtomicU64,
    bytes: AtomicU64,
    most: AtomicU64,
    shapes: Mutex<Vec<Shape>>,
}

impl Handed {
    /// Keeps which keys a commit has and how long their values are.
    fn keep(&self, commit: &Commit) {
        let mut shapes = self.shapes.lock();
        if shapes.len() < SHAPES_MAX {
            let key = &commit.address.key;
            let core = commit.core.iter().map(|core| (format!("c/{key}"), core.len()));
            let pages = commit
                .pages
                .iter()
                .filter_map(|page| Some((format!("p/{key}/{}", page.name), page.value.as_ref()?.len().max(8))));
            shapes.push(core.chain(pages).collect());
        }
    }

    fn mean(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed) / self.commits.load(Ordering::Relaxed).max(1)
    }
}

/// A store that counts at the trait.
struct Counting {
    inner: SledStore,
    counts: Arc<Handed>,
}

impl Layer for Counting {
    fn below(&self) -> &dyn Store {
        &self.inner
    }

    fn commit(&self, commit: Commit) -> Result<(), Refused> {
        let bytes = u64::try_from(commit.bytes()).unwrap_or(u64::MAX);
        self.counts.keep(&commit);
        self.inner.commit(commit)?;
        self.counts.commits.fetch_add(1, Ordering::Relaxed);
        self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.counts.most.fetch_max(bytes, Ordering::Relaxed);
        Ok(())
    }
}
