//! Scenes: one life of the runtime, told step by step over a store whose faults are scripted.

#![expect(clippy::missing_panics_doc, reason = "a helper of tests")]

use std::{sync::Arc, time::Duration};

use service_twin::{
    model::{Outcome, RequestKey, Timestamp},
    runtime::{Config, Door, Runtime},
    store::memory::{Fault, Faults, MemoryStore},
    twin::{Answer, Failure},
};
use tokio::task::JoinHandle;

use crate::{
    book::{Book, Do, Look, Op, Whole},
    client::key,
    disk::Disk,
    world::{Virtual, in_virtual_time, start},
};

/// One life of the runtime over a store whose faults are scripted.
pub struct Scene {
    /// The runtime.
    pub runtime: Runtime,
    /// The time.
    pub clock: Arc<Virtual>,
    /// What goes wrong.
    pub faults: Arc<Faults>,
    /// Where books rest.
    pub store: Arc<MemoryStore>,
    /// The door to it.
    pub disk: Arc<Disk>,
}

/// Nobody leaves memory while a scene is played.
pub const IDLE: Duration = Duration::from_secs(600);

/// Plays a scene through each door, over stores of their own.
pub fn play<F: Future<Output = ()>>(scene: impl Fn(Scene) -> F) {
    play_with(IDLE, scene);
}

/// The same with another idle age.
pub fn play_with<F: Future<Output = ()>>(idle_after: Duration, scene: impl Fn(Scene) -> F) {
    for door in [Door::Open, Door::Closed] {
        let faults = Arc::new(Faults::none());
        let store = Arc::new(MemoryStore::with_faults(Arc::clone(&faults)));
        life(&faults, &store, door, Timestamp::ZERO, idle_after, &scene);
    }
}

/// Plays one life over a store that may have had others.
pub fn life<F: Future<Output = ()>>(
    faults: &Arc<Faults>,
    store: &Arc<MemoryStore>,
    door: Door,
    base: Timestamp,
    idle_after: Duration,
    scene: impl Fn(Scene) -> F,
) {
    in_virtual_time(async {
        let disk = Arc::new(Disk::new(Arc::clone(store), 0, 0));
        // Without kept pages, so that a scene says when a page is read.
        let config = Config { shards_per_arbiter: 1, idle_after, door, page_cache_bytes_max: 0, ..Config::default() };
        let clock = Arc::new(Virtual::from(base));
        let runtime = start(config, Arc::clone(&clock), Arc::clone(&disk)).await;
        scene(Scene { runtime, clock, faults: Arc::clone(faults), store: Arc::clone(store), disk }).await;
    });
}

impl Scene {
    /// Sends without waiting for the answer, but until everything that can happen at once has happened.
    pub async fn send(&self, twin: usize, id: u32, op: Op) -> JoinHandle<Answer<u32>> {
        let runtime = self.runtime.clone();
        let sent = actix::spawn(async move { runtime.twin(&key(twin)).ask(Do { id, op }).await });
        moment().await;
        sent
    }

    /// The same under an idempotency key.
    pub async fn send_keyed(&self, twin: usize, id: u32, request: &RequestKey) -> JoinHandle<Answer<u32>> {
        let (runtime, request) = (self.runtime.clone(), request.clone());
        let ask = async move { runtime.twin(&key(twin)).ask(Do { id, op: Op::Append }).key(request).await };
        let sent = actix::spawn(ask);
        moment().await;
        sent
    }

    /// Looks at a twin.
    pub async fn look(&self, twin: usize) -> JoinHandle<Answer<(u64, u32, u64)>> {
        let runtime = self.runtime.clone();
        let sent = actix::spawn(async move { runtime.twin(&key(twin)).ask(Look).await });
        moment().await;
        sent
    }

    /// Reads all of a book.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn whole(&self, twin: usize) -> Book {
        self.runtime.twin(&key(twin)).ask(Whole).await.unwrap()
    }

    /// Brings a twin to memory, so that what follows meets no load.
    pub async fn warm(&self, twin: usize) {
        self.runtime.twin(&key(twin)).ask(Look).await.unwrap();
    }

    /// Ends the oldest held commit.
    pub async fn release(&self, fault: Option<Fault>) {
        assert!(self.store.release(0, fault), "a commit is held");
        moment().await;
    }
}

/// Lets everything happen that needs no time.
pub async fn moment() {
    tokio::time::sleep(Duration::from_millis(3)).await;
}

/// Checks that an answer is a loss of something that was not applied.
pub fn refused(answer: &Answer<u32>, cause: &str) {
    let Err(failure @ Failure::Lost { .. }) = answer else { panic!("{answer:?}") };
    assert_eq!(failure.outcome(), Outcome::NotApplied);
    assert!(failure.to_string().contains(cause), "{failure}");
}
