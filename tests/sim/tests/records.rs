//! Records that cannot be trusted: they are refused, named, and never written over.

use std::{sync::Arc, time::Duration};

use service_twin::{
    model::Timestamp,
    runtime::Door,
    store::{
        Load, Store,
        memory::{Faults, MemoryStore},
    },
    twin::Failure,
};
use service_twin_sim::{
    book::Op,
    client::key,
    scene::{IDLE, Scene, life, play_with},
    world::address,
};

fn core(store: &MemoryStore, twin: usize) -> Option<Vec<u8>> {
    let (tell, told) = std::sync::mpsc::channel();
    let load = Load { address: address(twin).into(), core: true, pages: Vec::new(), prefix: None, under: None };
    store.load(load, Box::new(move |loaded| tell.send(loaded.unwrap().core).unwrap()));
    told.recv().unwrap()
}

/// Why a twin cannot be activated.
async fn cause(scene: &Scene, twin: usize) -> String {
    match scene.look(twin).await.await.unwrap() {
        Err(Failure::Backoff { cause, .. }) => cause.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Longer than the longest back-off.
const LATER: Duration = Duration::from_secs(70);

#[test]
fn a_record_below_what_this_node_acknowledged_is_refused_after_its_twin_left_memory() {
    play_with(Duration::ZERO, |scene| async move {
        assert_eq!(scene.send(0, 0, Op::Append).await.await.unwrap(), Ok(0));
        let first = core(&scene.store, 0).unwrap();
        assert_eq!(scene.send(0, 1, Op::Append).await.await.unwrap(), Ok(1));
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(scene.runtime.counts()[0].1.resident, 0, "it has left memory");
        for older in [Some(first), None] {
            scene.store.tamper(&address(0), older.clone(), u64::from(older.is_some()));
            for _ in 0..3 {
                let cause = cause(&scene, 0).await;
                assert!(cause.contains("went backwards"), "{cause}");
                assert!(scene.send(0, 2, Op::Append).await.await.unwrap().is_err());
                tokio::time::sleep(LATER).await;
            }
            assert_eq!(core(&scene.store, 0), older, "it is left as it is");
        }
        assert!(scene.runtime.counts()[0].1.backwards >= 6);
    });
}

#[test]
fn a_record_below_its_wake_entry_is_refused_by_a_new_process_whoever_comes_first() {
    for (door, called) in [(Door::Open, false), (Door::Closed, false), (Door::Open, true), (Door::Closed, true)] {
        let faults = Arc::new(Faults::none());
        let store = Arc::new(MemoryStore::with_faults(Arc::clone(&faults)));
        life(&faults, &store, door.clone(), Timestamp::ZERO, IDLE, |scene| async move {
            assert_eq!(scene.send(0, 0, Op::Append).await.await.unwrap(), Ok(0));
            let first = core(&scene.store, 0);
            let due = Timestamp::from_unix_ms(5_000);
            assert_eq!(scene.send(0, 1, Op::Alarm(due)).await.await.unwrap(), Ok(1));
            scene.store.tamper(&address(0), first, 1);
        });
        let first = core(&store, 0);
        life(&faults, &store, door, Timestamp::from_unix_ms(4_000), IDLE, |scene| async move {
            if called {
                assert_eq!(
                    scene.look(0).await.await.unwrap().map(|(_, count, _)| count),
                    Ok(1),
                    "nothing can tell yet"
                );
            }
            tokio::time::sleep(Duration::from_secs(3)).await;
            let cause = cause(&scene, 0).await;
            assert!(cause.contains("sequence 1, but its wake entry"), "{cause}");
            assert!(scene.runtime.counts()[0].1.backwards > 0);
        });
        assert_eq!(core(&store, 0), first);
    }
}

#[test]
fn nothing_writes_over_a_record_that_does_not_load() {
    let damages: [(&str, fn(&mut Vec<u8>)); 4] = [
        ("checksum", |bytes| bytes[60] ^= 1),
        ("newer than", |bytes| reseal(bytes, |bytes| bytes[6] = 99)),
        ("a field changed", |bytes| reseal(bytes, |bytes| bytes[8] ^= 1)),
        ("not a twin record", |bytes| bytes.truncate(20)),
    ];
    for (named, damage) in damages {
        play_with(Duration::ZERO, |scene| async move {
            // A reminder, so that a wake-up meets it, too; and a promise, so that a delivery does.
            let due = scene.runtime.now().after(Duration::from_secs(30));
            assert_eq!(scene.send(0, 0, Op::Alarm(due)).await.await.unwrap(), Ok(0));
            tokio::time::sleep(Duration::from_secs(20)).await;
            let mut bytes = core(&scene.store, 0).unwrap();
            damage(&mut bytes);
            scene.store.tamper(&address(0), Some(bytes.clone()), 1);
            assert_eq!(scene.send(1, 1, Op::Tell(key(0))).await.await.unwrap(), Ok(0));
            for round in 0..4 {
                let cause = cause(&scene, 0).await;
                assert!(cause.contains(named), "{cause}");
                for op in [Op::Append, Op::Scrawl, Op::Shout(key(1)), Op::Boom, Op::Page(1)] {
                    assert!(scene.send(0, 10 + round, op).await.await.unwrap().is_err());
                }
                tokio::time::sleep(LATER).await;
            }
            let drained = scene.runtime.drain(Duration::from_secs(5)).await;
            assert_eq!(drained.unsettled, 0);
            assert_eq!(core(&scene.store, 0), Some(bytes), "the bytes are kept as they are");
            assert_eq!(scene.store.chain(&address(0)).len(), 1, "nothing was committed over it");
        });
    }
}

/// Changes a frame and mends its checksum.
fn reseal(bytes: &mut Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) {
    bytes.truncate(bytes.len() - 4);
    change(bytes);
    let checksum = crc32c::crc32c(bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
}
