//! How long a node with a million stored twins takes until it answers, and until its first due reminder was fired.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use service_twin::{
    model::{Clock, SystemClock, Timestamp},
    runtime::{Config, Runtime},
    store::{Level, sled},
    twin::{Decide, Decision, Durable, Event, Message, Rejection, Snapshot, Turn, Twin},
};
use tokio::runtime::Handle;

use super::{
    Bars, Client, Contestant, Host, Lap, Plan, Row, Setting, State, Until, WINDOW,
    activation::{CACHE_BYTES, settled},
    ids,
    ours::stop,
    passes,
    run::progress,
};

/// Twins in the store; fewer with `--quick`.
const TWINS: u64 = 1_000_000;
const TWINS_QUICK: u64 = 100_000;
/// The first so many of them have a reminder that is due when the node starts.
const REMINDERS: u64 = 1_000;
/// Twins stored between two words of progress.
const SLICE: u64 = 50_000;
/// Within which the last reminder must have been fired.
const FIRED_WITHIN: Duration = Duration::from_secs(30);
/// How long before a start its reminders became due.
const DUE_FOR: Duration = Duration::from_secs(3_600);

/// A counter that may be reminded once.
#[derive(Serialize, Deserialize)]
struct Reminded {
    state: State,
    due: Option<Timestamp>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Change {
    Stored { due: Option<Timestamp> },
    Fired,
}

/// Counts, and says when it is to be reminded; the reply is the new count.
struct Keep {
    due: Option<Timestamp>,
}

/// The count.
struct Read;

impl Twin for Reminded {
    const KIND: &'static str = "reminded";
    type Persistence = Durable;
    type Change = Change;

    fn create(_: &str) -> Self {
        Self { state: State::default(), due: None }
    }

    fn apply(&mut self, change: &Change, _: Timestamp) {
        match change {
            Change::Stored { due } => {
                self.state.count += 1;
                self.due = *due;
            }
            Change::Fired => self.due = None,
        }
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.due
    }

    fn wake(&self, turn: &Turn<'_>) -> Decision<Change, ()> {
        let due = self.due.is_some_and(|due| due <= turn.now);
        Decision::new(()).changes(due.then_some(Change::Fired))
    }

    fn event(&self, change: &Change) -> Option<Event> {
        match change {
            Change::Stored { .. } => None,
            Change::Fired => Some(Event { name: "bench.reminded".into(), data: Arc::from(*b"{}") }),
        }
    }
}

impl Snapshot for Reminded {
    const SCHEMA: u16 = 1;
    const FIELDS: &'static str = "count:u64 rest:[u64;24] due:Option<u64>";
}

impl Message for Keep {
    type Twin = Reminded;
    type Reply = u64;
}

impl Decide<Keep> for Reminded {
    fn decide(&self, Keep { due }: &Keep, _: &Turn<'_>) -> Result<Decision<Change, u64>, Rejection> {
        Ok(Decision::new(self.state.count + 1).change(Change::Stored { due: *due }))
    }
}

impl Message for Read {
    type Twin = Reminded;
    type Reply = u64;
}

impl Decide<Read> for Reminded {
    fn decide(&self, _: &Read, _: &Turn<'_>) -> Result<Decision<Change, u64>, Rejection> {
        Ok(Decision::new(self.state.count))
    }
}

/// The machine's clock, moved on, so that nobody waits for a reminder to become due.
#[derive(Default)]
struct Ahead {
    by_ms: AtomicU64,
}

impl Ahead {
    fn leap(&self, by: Duration) {
        self.by_ms.fetch_add(by.as_millis().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        SystemClock.now().after(Duration::from_millis(self.by_ms.load(Ordering::Relaxed)))
    }
}

/// Times of one start, in µs.
#[derive(Default)]
struct Times {
    ready: AtomicU64,
    first: AtomicU64,
    all: AtomicU64,
    raw: AtomicU64,
}

/// The row: starts a second on the same directory, until a stored twin has answered; and how long after that the first
/// reminder was durably fired, as p50 and p99.
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
pub(crate) fn start(setting: &Setting) -> Row {
    let (cpus, path) = (setting.cpus, setting.dir.join("ours"));
    let (host, clock, times) = (Host::start(cpus), Arc::new(Ahead::default()), Arc::new(Times::default()));
    let twins = if setting.quick { TWINS_QUICK } else { TWINS };
    let ids = ids(twins);
    let runtime = open(&path, cpus, &clock, Level::Buffered);
    for from in (0..twins).step_by(usize::try_from(SLICE).expect("a count")) {
        progress(&format!("start: {from} of {twins} twins stored"));
        keep(&host, &runtime, &clock, &ids, from..from + SLICE);
    }
    stop(host.handle(), runtime);

    let before = Rc::new(Before { path, cpus, host: Host::start(cpus), clock, ids, lives: Cell::new(1) });

    let (noted, life) = (times.clone(), before.clone());
    let ours = Contestant::ours(move |time| {
        passes(time, || {
            life.live();
            life.clock.leap(DUE_FOR * 2);
            let (mut runtime, started) = (None, Instant::now());
            let lap = Lap::of(|| {
                let opened = runtime.insert(open(&life.path, cpus, &life.clock, Level::Fsync));
                // Not one of those who are woken.
                let last = &life.ids[life.ids.len() - 1];
                let read = host.handle().block_on(async { opened.twin(last).ask(Read).await });
                assert_eq!(read.expect("the twin answers"), 1, "a stored twin came back as it was");
                1
            });
            let runtime = runtime.expect("it was just started");
            let (first, all) = fired(host.handle(), &runtime, started);
            let (first, all) = (first.saturating_sub(lap.elapsed), all.saturating_sub(lap.elapsed));
            note(&noted.ready, lap.elapsed);
            note(&noted.first, first);
            note(&noted.all, all);
            stop(host.handle(), runtime);
            Lap { nanos: vec![u32::try_from(first.as_nanos()).unwrap_or(u32::MAX)], ..lap }
        })
    });
    let noted = times.clone();
    let limit = Contestant::limit("sled's own open", move |time| {
        passes(time, || {
            before.live();
            let mut db = None;
            let lap = Lap::of(|| {
                db = Some(super::activation::open(&before.path));
                1
            });
            note(&noted.raw, lap.elapsed);
            lap
        })
    });
    let figure = |name, read: fn(&Times) -> &AtomicU64| {
        let times = times.clone();
        Contestant::figure(name, move || read(&times).load(Ordering::Relaxed))
    };
    let contestants = vec![
        ours,
        limit,
        figure("µs to ready", |times| &times.ready),
        figure("µs of sled's own open", |times| &times.raw),
        figure("µs from ready to the first reminder", |times| &times.first),
        figure("µs from ready to all 1,000", |times| &times.all),
    ];
    let bars = Bars { limit: Some(0.5), p99_us: Some(1e6), ..Bars::default() };
    Row { workload: "start", driver: "b", durability: "fsync", bars, contestants }
}

/// What lies behind every start: a node that ran, took some writes and was stopped in order. sled's open takes longer
/// the more was written since, so both contestants open what such a life leaves.
struct Before {
    path: PathBuf,
    cpus: usize,
    host: Host,
    clock: Arc<Ahead>,
    ids: Arc<[String]>,
    lives: Cell<u64>,
}

impl Before {
    /// Lives once; at its end 1,000 reminders are set.
    fn live(&self) {
        settled(&self.path);
        let runtime = open(&self.path, self.cpus, &self.clock, Level::Fsync);
        self.lives.set(self.lives.get() + 1);
        let replies = keep(&self.host, &runtime, &self.clock, &self.ids, 0..REMINDERS);
        assert_eq!(replies, self.lives.get() * REMINDERS, "whoever was reminded came back as he was");
        stop(self.host.handle(), runtime);
        settled(&self.path);
    }
}

fn open(path: &Path, cpus: usize, clock: &Arc<Ahead>, level: Level) -> Runtime {
    let options = sled::Options { level, cache_bytes: CACHE_BYTES, ..sled::Options::default() };
    let store = sled::SledStore::open(path, options).expect("the store opens");
    let config = Config { arbiters: cpus, ..Config::default() };
    let builder = Runtime::builder().config(config).clock(clock.clone()).store(Arc::new(store)).kind::<Reminded>();
    builder.start().expect("a runtime starts")
}

/// When, since `started`, the first reminder and the last were durable.
fn fired(host: &Handle, runtime: &Runtime, started: Instant) -> (Duration, Duration) {
    let mut events = runtime.watch(Some(0));
    let all = async {
        let mut first = None;
        for _ in 0..REMINDERS {
            events.next().await.expect("as many events are kept");
            first.get_or_insert_with(|| started.elapsed());
        }
        (first.unwrap_or_default(), started.elapsed())
    };
    host.block_on(async { tokio::time::timeout(FIRED_WITHIN, all).await }).expect("every reminder is fired")
}

/// Counts these once more; the first 1,000 are to be reminded in an hour of the clock. Returns the sum of the replies.
fn keep(host: &Host, runtime: &Runtime, clock: &Arc<Ahead>, ids: &Arc<[String]>, range: std::ops::Range<u64>) -> u64 {
    let keeper = Keeper { runtime: runtime.clone(), clock: clock.clone(), ids: ids.clone(), from: range.start };
    let count = range.end - range.start;
    host.run(Plan { window: WINDOW, until: Until::Count(count), timed: false }, |_| keeper.clone()).sum
}

#[derive(Clone)]
struct Keeper {
    runtime: Runtime,
    clock: Arc<Ahead>,
    ids: Arc<[String]>,
    from: u64,
}

impl Client for Keeper {
    async fn call(&mut self, at: u64) -> u64 {
        let at = self.from + at;
        let due = (at < REMINDERS).then(|| self.clock.now().after(DUE_FOR));
        let id = &self.ids[usize::try_from(at).expect("an index")];
        self.runtime.twin(id).ask(Keep { due }).await.expect("the twin answers")
    }
}

fn note(time: &AtomicU64, took: Duration) {
    time.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
}
