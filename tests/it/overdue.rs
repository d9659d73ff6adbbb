//! A node that starts with far more overdue reminders than it can load at once.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use service_twin::{
    model::Timestamp,
    runtime::{Config, Runtime},
    store::{Done, Instant as _, Layer, Load, Loaded, Store, memory::MemoryStore},
};

use crate::kinds::{Heard, Ledger, WakeMeAt};

const LONG: Duration = Duration::from_secs(20);
/// More than two pages of the wake index.
const TWINS: usize = 3_000;
/// The runtime's bound on wake-ups under way.
const UNDER_WAY_MAX: usize = 1024;

/// A store whose loads of records come back when the test says so.
struct Slow {
    inner: Arc<MemoryStore>,
    loads: Mutex<VecDeque<(Load, Done<Loaded>)>>,
}

impl Layer for Slow {
    fn below(&self) -> &dyn Store {
        &*self.inner
    }
    fn load(&self, load: Load, done: Done<Loaded>) {
        self.loads.lock().push_back((load, done));
    }
    fn load_here(&self, _: &Load) -> Option<Result<Loaded, service_twin::store::Error>> {
        None
    }
}

fn start(store: Arc<dyn Store>) -> Runtime {
    let config = Config { arbiters: 1, ..Config::default() };
    Runtime::builder().config(config).store(store).kind::<Ledger>().start().expect("a runtime starts")
}

#[tokio::test]
async fn overdue_reminders_are_loaded_a_bounded_number_at_a_time() {
    let inner = Arc::new(MemoryStore::new());
    let before = start(inner.clone());
    let soon = before.now().after(Duration::from_secs(3600));
    for n in 0..TWINS {
        before.twin(&format!("t{n}")).ask(WakeMeAt(soon)).await.unwrap();
    }
    assert_eq!(before.drain(LONG).await.unsettled, 0);
    let store = Arc::new(Slow { inner, loads: Mutex::default() });
    let clock = Arc::new(Later(soon));
    let config = Config { arbiters: 1, ..Config::default() };
    let runtime = Runtime::builder()
        .config(config)
        .clock(clock)
        .store(store.clone())
        .kind::<Ledger>()
        .start()
        .expect("a runtime starts");
    let (mut loaded, mut most_loads, mut most_held) = (0, 0, 0);
    let all = async {
        // Lets them come until there are as many as may be, then one go.
        while loaded < TWINS {
            let waiting = store.loads.lock().len();
            (most_loads, most_held) = (most_loads.max(waiting), most_held.max(runtime.wakes()));
            if waiting < UNDER_WAY_MAX.min(TWINS - loaded) {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
            let some: Vec<_> = store.loads.lock().drain(..UNDER_WAY_MAX.min(waiting) / 2).collect();
            let some = if some.is_empty() { store.loads.lock().drain(..).collect() } else { some };
            loaded += some.len();
            for (load, done) in some {
                done(store.inner.load_now(&load));
            }
        }
    };
    tokio::time::timeout(LONG, all).await.expect("every reminder is loaded");
    assert_eq!(most_loads, UNDER_WAY_MAX);
    assert!(most_held <= 2 * UNDER_WAY_MAX, "the rest stays in the index: {most_held}");
    let last = format!("t{}", TWINS - 1);
    let woken = async {
        while runtime.twin(&last).ask(Heard).await.unwrap().1 == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, woken).await.expect("the last one is woken, too");
    assert_eq!(runtime.drain(LONG).await.unsettled, 0);
}

/// A clock that stands still.
struct Later(Timestamp);

impl service_twin::model::Clock for Later {
    fn now(&self) -> Timestamp {
        self.0
    }
}
