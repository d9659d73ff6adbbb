//! Records that were put back behind the runtime's back: refused, and left as they are.

#![allow(clippy::unwrap_used, reason = "a helper of tests")]

use std::{path::Path, sync::Arc, time::Duration};

use service_twin::{
    model::{RequestKey, Timestamp},
    runtime::{Config, Runtime},
    store::{
        Entry, Item, Level, Scan, Store,
        memory::MemoryStore,
        sled::{Options, SledStore},
    },
    twin::Failure,
};
use tokio::sync::oneshot;

use crate::kinds::{Add, Ledger, Read, WakeMeAt};

fn start(store: &Arc<dyn Store>) -> Runtime {
    let builder = Runtime::builder().config(Config { arbiters: 1, ..Config::default() });
    builder.store(Arc::clone(store)).kind::<Ledger>().start().expect("a runtime over a store starts")
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

fn sled(path: &Path) -> Arc<dyn Store> {
    let options = Options { level: Level::Flushed, cache_bytes: 8 << 20, ..Options::default() };
    Arc::new(SledStore::open(path, options).unwrap())
}

/// The stored core record of the one twin there is.
async fn core(store: &Arc<dyn Store>) -> Item {
    let (tell, told) = oneshot::channel();
    let scan = Scan::All { after: None, bytes: usize::MAX };
    store.scan(scan, Box::new(move |walked| tell.send(walked.unwrap()).unwrap()));
    let entries = told.await.unwrap().entries.into_iter();
    let mut cores = entries.filter_map(|entry| match entry {
        Entry::Item(item @ Item::Core { .. }) => Some(item),
        Entry::Item(_) | Entry::Wake { .. } | Entry::Found { .. } => None,
    });
    cores.next().expect("a record was written")
}

async fn put(store: &Arc<dyn Store>, item: Item) {
    let (tell, told) = oneshot::channel();
    store.put_item(item, Box::new(move |put| tell.send(put).unwrap()));
    told.await.unwrap().unwrap();
}

/// Why the twin cannot be activated.
async fn refused(runtime: &Runtime) -> String {
    loop {
        match runtime.twin("a").ask(Read).await {
            Err(Failure::Backoff { cause, .. }) => return cause.to_string(),
            // Its caller heard of the lost commit before its shard did.
            Err(Failure::Lost { .. }) => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_record_put_back_under_a_twin_in_memory_is_refused_by_its_next_activation() {
    let directory = tempfile::tempdir().unwrap();
    for store in [memory(), sled(directory.path())] {
        let runtime = start(&store);
        assert_eq!(runtime.twin("a").ask(Add(1)).await, Ok(1));
        let first = core(&store).await;
        assert_eq!(runtime.twin("a").ask(Add(1)).await, Ok(2));
        put(&store, first.clone()).await;
        let lost = runtime.twin("a").ask(Add(1)).await.unwrap_err();
        assert!(lost.to_string().contains("sequence 3 does not follow 1"), "{lost}");
        let cause = refused(&runtime).await;
        assert!(cause.contains("went backwards: sequence 1, but"), "{cause}");
        assert!(runtime.counts()[0].1.backwards > 0);
        runtime.drain(Duration::from_secs(20)).await;
        if store.level() == Level::Buffered {
            assert_eq!(core(&store).await, first, "it is left as it is");
        }
    }
    let store = sled(directory.path());
    let runtime = start(&store);
    assert_eq!(runtime.twin("a").ask(Read).await, Ok((1, 1)), "another process has no witness of it");
}

#[tokio::test]
async fn a_record_put_back_under_its_wake_entry_is_refused_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = sled(directory.path());
    let runtime = start(&store);
    assert_eq!(runtime.twin("a").ask(Add(1)).await, Ok(1));
    let first = core(&store).await;
    let due = runtime.now().after(Duration::from_secs(1));
    runtime.twin("a").ask(WakeMeAt(due)).await.unwrap();
    // A backup brings back the record alone; the index is as it was.
    put(&store, older(first, due)).await;
    runtime.drain(Duration::from_secs(20)).await;
    drop((runtime, store));
    let store = sled(directory.path());
    let runtime = start(&store);
    while runtime.counts()[0].1.backwards == 0 {
        tokio::task::yield_now().await;
    }
    let cause = refused(&runtime).await;
    assert!(cause.contains("sequence 1, but its wake entry"), "{cause}");
}

/// The record, with a wake entry that is there already.
fn older(item: Item, due: Timestamp) -> Item {
    match item {
        Item::Core { kind, key, sequence, core, terms, .. } => {
            Item::Core { kind, key, sequence, core, terms, wake_at: Some(due) }
        }
        other @ (Item::Claimed { .. } | Item::Page { .. } | Item::Blob { .. }) => other,
    }
}

#[tokio::test]
async fn a_record_put_back_under_its_ring_page_is_refused_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    for store in [memory(), sled(directory.path())] {
        let runtime = start(&store);
        let mut early = None;
        for n in 0..80_u64 {
            let key = RequestKey::new(&format!("r{n}"), runtime.now());
            assert_eq!(runtime.twin("a").ask(Add(1)).key(key).await, Ok(n + 1));
            if n == 30 {
                early = Some(core(&store).await);
            }
        }
        put(&store, early.unwrap()).await;
        runtime.drain(Duration::from_secs(20)).await;
        let store = if store.level() == Level::Buffered {
            store
        } else {
            drop((runtime, store));
            sled(directory.path())
        };
        let runtime = start(&store);
        let cause = refused(&runtime).await;
        assert!(cause.contains("went backwards: revision 31, but its ring page"), "{cause}");
    }
}
