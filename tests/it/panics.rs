//! A kind whose code panics at a place of the test's choice, wherever the runtime calls it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize, Serializer};
use service_twin::{
    model::{Outcome, Timestamp},
    runtime::{Config, Counts, Door, Runtime},
    store::{Layer, Store, memory::MemoryStore},
    twin::{
        Answer, Decide, Decision, Durable, Failure, Message, PageWrite, Pages, Rejection, Snapshot, Terms, Turn, Twin,
    },
};

const LONG: Duration = Duration::from_secs(20);

/// Where which twin panics: `twin/place`.
static ARMED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn arm(twin: &str, place: &str) {
    ARMED.lock().insert(format!("{twin}/{place}"));
}

fn disarm(twin: &str, place: &str) {
    ARMED.lock().remove(&format!("{twin}/{place}"));
}

/// Panics if this twin is to panic here.
fn pass(twin: &str, place: &str) {
    let armed = ARMED.lock().contains(&format!("{twin}/{place}"));
    assert!(!armed, "{twin} was told to panic in {place}");
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Fragile {
    #[serde(serialize_with = "encode")]
    name: String,
    count: u64,
    #[serde(skip)]
    seen: u64,
    #[serde(skip)]
    unsaved: bool,
}

fn encode<S: Serializer>(name: &str, to: S) -> Result<S::Ok, S::Error> {
    pass(name, "encode");
    to.serialize_str(name)
}

impl Twin for Fragile {
    const KIND: &'static str = "fragile";
    const OBSERVED: Option<&'static str> = Some("seen");
    type Persistence = Durable;
    type Change = u64;
    fn create(key: &str) -> Self {
        pass(key, "create");
        Self { name: key.to_owned(), ..Self::default() }
    }
    fn apply(&mut self, by: &u64, _: Timestamp) {
        self.count += by;
    }
    fn wake_at(&self) -> Option<Timestamp> {
        pass(&self.name, "wake_at");
        None
    }
    fn index(&self, _: &mut Terms) {
        pass(&self.name, "index");
    }
    fn restore(&mut self, pages: Pages) {
        pass(&self.name, "restore");
        self.seen = pages.values().map(|page| u64::from(page[0])).sum();
    }
    fn unsaved(&self) -> bool {
        self.unsaved
    }
    fn save(&mut self, _: Timestamp, _: usize) -> Vec<PageWrite> {
        pass(&self.name, "save");
        self.unsaved = false;
        vec![PageWrite { name: "seen".into(), value: Some(vec![u8::try_from(self.seen).expect("few are seen")]) }]
    }
}

impl Snapshot for Fragile {
    const SCHEMA: u16 = 1;
    const FIELDS: &'static str = "name:String count:u64";
}

#[derive(Clone, Debug)]
struct Add(u64);

impl Message for Add {
    type Twin = Fragile;
    type Reply = u64;
}

impl Decide<Add> for Fragile {
    fn decide(&self, Add(by): &Add, _: &Turn<'_>) -> Result<Decision<u64, u64>, Rejection> {
        Ok(if *by == 0 { Decision::new(self.count) } else { Decision::new(self.count + by).change(*by) })
    }
}

/// Observes one more; answers how many were before.
#[derive(Clone, Debug)]
struct See;

impl Message for See {
    type Twin = Fragile;
    type Reply = u64;
}

impl Decide<See> for Fragile {
    fn decide(&self, _: &See, _: &Turn<'_>) -> Result<Decision<u64, u64>, Rejection> {
        Ok(Decision::new(self.seen))
    }
    fn observe(&mut self, _: &See, _: &Turn<'_>) -> service_twin::twin::Changes<u64> {
        self.seen += 1;
        self.unsaved = true;
        service_twin::twin::Changes::new()
    }
}

/// A store that ends no commit in place, so that staged and commit under way can be told apart.
struct Later(MemoryStore);

impl Layer for Later {
    fn below(&self) -> &dyn Store {
        &self.0
    }
}

/// Both ways into a shard, over a store that commits in place and one that does not.
fn worlds() -> Vec<(String, Door, Arc<dyn Store>)> {
    let mut worlds = Vec::new();
    for (door_name, door) in [("open", Door::Open), ("closed", Door::Closed)] {
        let (now, later): (Arc<dyn Store>, Arc<dyn Store>) =
            (Arc::new(MemoryStore::new()), Arc::new(Later(MemoryStore::new())));
        worlds.push((format!("{door_name}-now"), door.clone(), now));
        worlds.push((format!("{door_name}-later"), door, later));
    }
    worlds
}

/// One shard, so that every twin is the other's neighbour.
fn start(store: &Arc<dyn Store>, door: Door) -> Runtime {
    let (save_every, backoff_min) = (Duration::from_millis(1), Duration::from_millis(10));
    let config = Config { arbiters: 1, shards_per_arbiter: 1, door, save_every, backoff_min, ..Config::default() };
    Runtime::builder().config(config).store(Arc::clone(store)).kind::<Fragile>().start().expect("a runtime starts")
}

fn counts(runtime: &Runtime) -> Counts {
    runtime.counts()[0].1
}

async fn ask(runtime: &Runtime, twin: &str, by: u64) -> Answer<u64> {
    let asked = runtime.twin(twin).ask(Add(by));
    tokio::time::timeout(LONG, async { asked.await }).await.expect("every caller is answered")
}

/// Asks until the twin is available again.
async fn ask_on(runtime: &Runtime, twin: &str, by: u64) -> u64 {
    let again = async {
        loop {
            match ask(runtime, twin, by).await {
                Ok(count) => return count,
                Err(Failure::Backoff { .. } | Failure::Panicked { .. }) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        }
    };
    tokio::time::timeout(LONG, again).await.expect("a twin that panics no more is there again")
}

/// A twin that counts 1 panics at `place` on the next change; nothing of that is kept, and nobody else notices.
async fn panics_in_a_turn(place: &str) {
    for (world, door, store) in worlds() {
        let runtime = start(&store, door);
        let (twin, other) = (format!("{world}-{place}"), format!("{world}-{place}-other"));
        assert_eq!(ask(&runtime, &twin, 1).await, Ok(1), "{world}");
        arm(&twin, place);
        let (failed, fine) = tokio::join!(ask(&runtime, &twin, 2), ask(&runtime, &other, 5));
        // The shard may not have heard yet that the commit before it ended; then its own goes with that news.
        let alone = matches!(&failed, Err(Failure::Panicked { message }) if message.contains(place));
        let with_it =
            matches!(&failed, Err(Failure::Lost { outcome: Outcome::NotApplied, cause }) if cause.contains("panicked"));
        assert!(alone || with_it, "{world}: {failed:?}");
        assert_eq!(fine, Ok(5), "{world}");
        assert_eq!(ask(&runtime, &other, 1).await, Ok(6), "{world}");
        disarm(&twin, place);
        assert_eq!(ask_on(&runtime, &twin, 0).await, 1, "{world}: the new activation is as the record has it");
        assert_eq!(ask(&runtime, &twin, 3).await, Ok(4), "{world}");
        assert_eq!(runtime.drain(LONG).await.unsettled, 0, "{world}");
    }
}

#[tokio::test]
async fn a_panic_in_index_ends_one_activation() {
    panics_in_a_turn("index").await;
}

#[tokio::test]
async fn a_panic_in_wake_at_ends_one_activation() {
    panics_in_a_turn("wake_at").await;
}

#[tokio::test]
async fn a_panic_while_the_record_is_encoded_ends_one_activation() {
    panics_in_a_turn("encode").await;
}

#[tokio::test]
async fn a_twin_that_panics_in_create_fails_its_callers_and_nobody_else() {
    for (world, door, store) in worlds() {
        let runtime = start(&store, door);
        let (twin, other) = (format!("{world}-create"), format!("{world}-create-other"));
        arm(&twin, "create");
        let (failed, fine) = tokio::join!(ask(&runtime, &twin, 2), ask(&runtime, &other, 5));
        assert!(matches!(&failed, Err(Failure::Panicked { message }) if message.contains("create")), "{failed:?}");
        assert_eq!(fine, Ok(5), "{world}");
        disarm(&twin, "create");
        assert_eq!(ask(&runtime, &twin, 3).await, Ok(3), "{world}");
    }
}

#[tokio::test]
async fn a_twin_that_panics_in_restore_is_unavailable_until_it_does_not() {
    for (world, door, store) in worlds() {
        let (twin, other) = (format!("{world}-restore"), format!("{world}-restore-other"));
        let runtime = start(&store, door.clone());
        assert_eq!(ask(&runtime, &twin, 1).await, Ok(1), "{world}");
        assert_eq!(runtime.twin(&twin).ask(See).await, Ok(0), "{world}");
        assert_eq!(runtime.drain(LONG).await.unsettled, 0, "{world}");
        arm(&twin, "restore");
        let runtime = start(&store, door);
        let (failed, fine) = tokio::join!(ask(&runtime, &twin, 2), ask(&runtime, &other, 5));
        assert!(matches!(&failed, Err(Failure::Backoff { cause, .. }) if cause.contains("restore")), "{failed:?}");
        assert_eq!(fine, Ok(5), "{world}");
        disarm(&twin, "restore");
        assert_eq!(ask_on(&runtime, &twin, 2).await, 3, "{world}");
        assert_eq!(runtime.twin(&twin).ask(See).await, Ok(1), "{world}: what was observed is there");
    }
}

#[tokio::test]
async fn a_panic_in_save_ends_one_activation() {
    for (world, door, store) in worlds() {
        let runtime = start(&store, door);
        let (twin, other) = (format!("{world}-save"), format!("{world}-save-other"));
        assert_eq!(ask(&runtime, &twin, 1).await, Ok(1), "{world}");
        arm(&twin, "save");
        assert_eq!(runtime.twin(&twin).ask(See).await, Ok(0), "{world}");
        let noticed = async {
            while counts(&runtime).panics == 0 {
                assert!(ask(&runtime, &other, 1).await.is_ok(), "{world}");
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, noticed).await.expect("observed pages are saved with a tick");
        disarm(&twin, "save");
        assert_eq!(ask_on(&runtime, &twin, 2).await, 3, "{world}");
        assert!(ask(&runtime, &other, 1).await.is_ok(), "{world}");
        assert_eq!(runtime.twin(&twin).ask(See).await, Ok(0), "{world}: what was not saved went with the activation");
    }
}
