//! A twin that is read on its caller's thread, outside the shard's lock, while others reach it.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use service_twin::{
    runtime::Runtime,
    store::{Error, Instant as _, Layer, Load, Loaded, Store, memory::MemoryStore},
    twin::Failure,
};

use crate::kinds::{Add, Ledger, Read};

/// A memory store that reads where it is asked, and lets somebody in between the read and its use.
struct Interrupted {
    inner: Arc<MemoryStore>,
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Layer for Interrupted {
    fn below(&self) -> &dyn Store {
        &*self.inner
    }
    fn load_here(&self, load: &Load) -> Option<Result<Loaded, Error>> {
        let loaded = self.inner.load_now(load);
        let meanwhile = self.meanwhile.lock().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        Some(loaded)
    }
}

/// Asks twin `a` to add each of these, one after the other, on a thread and a runtime of its own.
fn add(runtime: &Runtime, all: &'static [u64]) -> Vec<Result<u64, Failure>> {
    let runtime = runtime.clone();
    let asks = async move {
        let mut answers = Vec::new();
        for by in all {
            if !answers.is_empty() {
                // Takes the inbox, behind the outcome of the last commit: nothing is under way when the next has its turn.
                runtime.twin("a").tell(Read).expect("the inbox has room");
            }
            answers.push(runtime.twin("a").ask(Add(*by)).await);
        }
        answers
    };
    let run = move || tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(asks);
    std::thread::spawn(run).join().expect("the asker ends")
}

/// A stored twin that counts 5, read by a caller while `others` ask it; what the caller hears.
async fn read_while(others: &'static [u64]) -> (u64, u64) {
    let inner = Arc::new(MemoryStore::new());
    let build =
        |store: Arc<dyn Store>| Runtime::builder().store(store).kind::<Ledger>().start().expect("a runtime starts");
    let before = build(inner.clone());
    assert_eq!(before.twin("a").ask(Add(5)).await, Ok(5));
    before.drain(std::time::Duration::from_secs(20)).await;
    let store = Arc::new(Interrupted { inner, meanwhile: Mutex::default() });
    let runtime = build(store.clone());
    let (heard, asker) = (Arc::new(OnceLock::new()), runtime.clone());
    let told = heard.clone();
    *store.meanwhile.lock() = Some(Box::new(move || told.set(add(&asker, others)).expect("it happens once")));
    let read = runtime.twin("a").ask(Read).await.expect("the twin answers");
    assert_eq!(heard.get().map(Vec::len), Some(others.len()), "the others came in between");
    runtime.drain(std::time::Duration::from_secs(20)).await;
    read
}

#[tokio::test]
async fn a_twin_that_came_to_memory_while_it_was_read_is_the_one_that_answers() {
    assert_eq!(read_while(&[10]).await, (15, 2));
}

#[tokio::test]
async fn a_twin_that_came_and_went_while_it_was_read_is_read_again() {
    // 666 makes it panic, which ends the activation.
    assert_eq!(read_while(&[10, 666]).await, (15, 2));
}
