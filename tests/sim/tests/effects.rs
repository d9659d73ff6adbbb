//! Promised messages that their target fails, and what observations make known.

use std::{sync::Arc, time::Duration};

use service_twin::{
    model::{RequestKey, Timestamp},
    runtime::Door,
    store::memory::{Fault, Faults, MemoryStore},
    twin::{Failure, Rejection},
};
use service_twin_sim::{
    book::{BOOM, Do, Op, Sniff},
    client::key,
    scene::{IDLE, Scene, life, moment, play},
};

/// Panics on purpose are not shown.
fn hush() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let shown = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.payload_as_str().is_none_or(|text| !text.contains(BOOM)) {
                shown(panic);
            }
        }));
    });
}

#[test]
fn a_promise_that_its_target_always_fails_is_tried_less_and_less_often() {
    hush();
    play(|scene| async move {
        assert_eq!(scene.send(0, 0, Op::Poison(key(1))).await.await.unwrap(), Ok(0));
        let mut after = Vec::new();
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_secs(600)).await;
            after.push(scene.runtime.counts()[0].1.panics);
        }
        assert!((11..=14).contains(&after[0]), "doubled from 100 ms up to 5 min: {after:?}");
        assert!(
            after.windows(2).all(|pair| (1..=2).contains(&(pair[1] - pair[0]))),
            "every 5 min from then on: {after:?}"
        );
        assert_eq!(scene.runtime.counts()[0].1.delivery_failures, after[5]);
        // What else is promised to the same target arrives at once, and the target serves.
        assert_eq!(scene.send(0, 1, Op::Tell(key(1))).await.await.unwrap(), Ok(1));
        moment().await;
        assert_eq!(scene.whole(1).await.heard.len(), 1);
    });
}

#[test]
fn a_promise_whose_target_was_busy_arrives_soon_after_it_is_not() {
    play(|scene| async move {
        scene.warm(0).await;
        scene.warm(1).await;
        for _ in 0..8 {
            scene.faults.at_next_commit(None);
            scene.faults.at_next_commit(Some(Fault::Unavailable));
        }
        assert_eq!(scene.send(0, 0, Op::Tell(key(1))).await.await.unwrap(), Ok(0));
        tokio::time::sleep(Duration::from_secs(30)).await;
        let called = scene.runtime.now();
        let heard = scene.whole(1).await.heard;
        assert!(matches!(heard[..], [(0, at)] if at < called), "{heard:?}");
    });
}

/// Has twin 1 forget all keys of before: it takes more keyed requests than its ring keeps, made `apart` from each other.
async fn forget_keys(scene: &Scene, apart: Duration) {
    let now = scene.runtime.now();
    for n in 1..200_u32 {
        let request = RequestKey::new(&format!("later-{n}"), now.after(apart * n));
        let asked = scene.runtime.twin(&key(1)).ask(Do { id: 1_000 + n, op: Op::Append }).key(request).await;
        assert!(asked.is_ok(), "{asked:?}");
    }
}

/// Twin 0 promises twin 1 a message by `op`, the first delivery ends with `fault`, and twin 1 forgets all keys of before.
async fn overtake(scene: &Scene, op: Op, fault: Fault, apart: Duration) {
    scene.warm(0).await;
    scene.warm(1).await;
    scene.faults.at_next_commit(None);
    scene.faults.at_next_commit(Some(fault));
    assert_eq!(scene.send(0, 0, op).await.await.unwrap(), Ok(0));
    // Back from a commit that went wrong, before the promise is sent again.
    while scene.runtime.twin(&key(1)).ask(Do { id: 1_000, op: Op::Append }).await.is_err() {
        moment().await;
    }
    forget_keys(scene, apart).await;
}

#[test]
fn a_promise_that_was_certainly_not_applied_outlives_the_keys_its_target_forgot() {
    // Keys as of now, and keys of callers whose clocks are far ahead.
    for apart in [Duration::from_micros(500), Duration::from_secs(60)] {
        for op in [Op::Tell as fn(_) -> _, Op::Ask] {
            play(|scene| async move {
                overtake(&scene, op(key(1)), Fault::Unavailable, apart).await;
                tokio::time::sleep(Duration::from_secs(60)).await;
                let heard = scene.whole(1).await.heard;
                assert!(matches!(heard[..], [(0, _)]), "{heard:?}");
                assert_eq!(scene.runtime.counts()[0].1.effects_dropped, 0);
            });
        }
    }
}

#[test]
fn a_promise_of_unknown_outcome_that_its_target_cannot_tell_any_more_is_dropped_and_counted() {
    for (fault, heard) in [(Fault::UnknownLost, 0), (Fault::UnknownApplied, 1)] {
        play(|scene| async move {
            overtake(&scene, Op::Tell(key(1)), fault, Duration::from_micros(500)).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(scene.whole(1).await.heard.len(), heard, "never twice");
            assert_eq!(scene.runtime.counts()[0].1.effects_dropped, 1);
            let sent = scene.runtime.counts()[0].1.delivery_failures;
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(scene.runtime.counts()[0].1.delivery_failures, sent, "it is not tried for ever");
        });
    }
}

#[test]
fn an_answer_arrives_once_although_the_process_died_on_its_way_back() {
    for door in [Door::Open, Door::Closed] {
        let faults = Arc::new(Faults::none());
        let store = Arc::new(MemoryStore::with_faults(Arc::clone(&faults)));
        life(&faults, &store, door.clone(), Timestamp::ZERO, IDLE, |scene| async move {
            scene.warm(0).await;
            scene.warm(1).await;
            // The ask, the target's change, and then the asker's commit of the answer, which the crash takes.
            for fault in [None, None, Some(Fault::Held)] {
                scene.faults.at_next_commit(fault);
            }
            assert_eq!(scene.send(0, 0, Op::Ask(key(1))).await.await.unwrap(), Ok(0));
            assert_eq!(scene.store.held(), 1, "the answer is on its way into the record");
        });
        life(&faults, &store, door, Timestamp::from_unix_ms(4_000), IDLE, |scene| async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(scene.whole(1).await.heard.len(), 1, "asked once");
            assert_eq!(scene.whole(0).await.answered, [0]);
        });
    }
}

#[test]
fn an_answer_that_its_asker_cannot_take_is_given_up() {
    hush();
    play(|scene| async move {
        assert_eq!(scene.send(0, 0, Op::AskPoison(key(1))).await.await.unwrap(), Ok(0));
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(scene.runtime.counts()[0].1.panics, 1);
        assert_eq!(scene.send(0, 1, Op::Ask(key(1))).await.await.unwrap(), Ok(1));
        moment().await;
        assert_eq!(scene.whole(0).await.answered, [1]);
    });
}

#[test]
fn a_fact_that_would_cross_the_records_limit_is_dropped_and_nothing_else_is() {
    play(|scene| async move {
        let mut padded = 0;
        while let Ok(_) = scene.send(0, 0, Op::Pad(300)).await.await.unwrap() {
            padded += 1;
        }
        scene.faults.at_next_commit(Some(Fault::Held));
        let before = scene.send(0, 1, Op::Append).await;
        let mut sniffed = Vec::new();
        for id in 10..14 {
            let runtime = scene.runtime.clone();
            sniffed.push(actix::spawn(async move { runtime.twin("t0").ask(Sniff { id, bytes: 1000 }).await }));
        }
        moment().await;
        let after = scene.send(0, 2, Op::Append).await;
        let full = scene.send(0, 3, Op::Pad(300)).await;
        scene.release(None).await;
        assert_eq!((before.await.unwrap(), after.await.unwrap()), (Ok(padded), Ok(padded + 1)));
        for sniffed in sniffed {
            sniffed.await.unwrap().unwrap();
        }
        assert!(matches!(full.await.unwrap(), Err(Failure::Rejected(Rejection::Limit { .. }))));
        let book = scene.whole(0).await;
        assert_eq!((book.sniffed.len(), book.seen.count), (0, 4), "observed, and no fact");
        assert_eq!(scene.runtime.counts()[0].1.facts_dropped, 4);
        let small = scene.runtime.twin("t1").ask(Sniff { id: 20, bytes: 1000 }).await;
        assert_eq!((small, scene.whole(1).await.sniffed), (Ok(0), vec![20]), "a twin with room takes it");
        assert_eq!(scene.runtime.twin("t1").ask(Do { id: 21, op: Op::Append }).await, Ok(0));
    });
}
