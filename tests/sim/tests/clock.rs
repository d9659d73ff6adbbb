//! A clock that steps back by an hour: nothing is lost, nothing stands still, reminders wait for their time.

use std::{sync::Arc, time::Duration};

use service_twin::{
    model::{RequestKey, Timestamp},
    runtime::Door,
    store::memory::{Faults, LoadFault, MemoryStore},
    twin::{Failure, journal::Moment},
};
use service_twin_sim::{
    book::{Book, Do, Op, Sniff},
    client::key,
    scene::{IDLE, Scene, life, moment},
};

const HOUR: Duration = Duration::from_secs(3600);

/// Plays a scene in the middle of a day through each door.
fn play_with<F: Future<Output = ()>>(idle_after: Duration, scene: impl Fn(Scene) -> F) {
    for door in [Door::Open, Door::Closed] {
        let faults = Arc::new(Faults::none());
        let store = Arc::new(MemoryStore::with_faults(Arc::clone(&faults)));
        life(&faults, &store, door, Timestamp::from_unix_ms(1_700_000_000_000), idle_after, &scene);
    }
}

#[test]
fn reminders_wait_for_their_time_when_the_clock_goes_back() {
    play_with(IDLE, |scene| async move {
        let due = scene.runtime.now().after(Duration::from_secs(10));
        assert_eq!(scene.send(0, 0, Op::Alarm(due)).await.await.unwrap(), Ok(0));
        scene.clock.step_back(HOUR);
        tokio::time::sleep(HOUR).await;
        assert_eq!(scene.whole(0).await.fired, [], "never early");
        tokio::time::sleep(Duration::from_secs(20)).await;
        let called = scene.runtime.now();
        let fired = scene.whole(0).await.fired;
        assert!(matches!(fired[..], [(0, _, at)] if due <= at && at < called), "{fired:?}");
    });
}

#[test]
fn a_twin_that_backs_off_is_tried_again_after_as_long_as_ever_when_the_clock_goes_back() {
    play_with(IDLE, |scene| async move {
        for _ in 0..3 {
            scene.faults.at_next_load(Some(LoadFault::Unavailable));
        }
        assert!(matches!(scene.look(0).await.await.unwrap(), Err(Failure::Backoff { .. })));
        scene.clock.step_back(HOUR);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(scene.look(0).await.await.unwrap().unwrap().1, 0);
    });
}

#[test]
fn effects_arrive_soon_when_the_clock_goes_back() {
    play_with(IDLE, |scene| async move {
        // A target whose ring has forgotten keys of before the step.
        for id in 0..140 {
            let request = RequestKey::new(&format!("k{id}"), scene.runtime.now());
            scene.send_keyed(1, id, &request).await.await.unwrap().unwrap();
        }
        scene.warm(0).await;
        assert_eq!(scene.send(0, 200, Op::Tell(key(1))).await.await.unwrap(), Ok(0));
        // One that is being tried again, and one of after the step.
        scene.faults.at_next_load(Some(LoadFault::Unavailable));
        assert_eq!(scene.send(0, 201, Op::Tell(key(2))).await.await.unwrap(), Ok(1));
        scene.clock.step_back(HOUR);
        moment().await;
        assert_eq!(scene.send(0, 202, Op::Tell(key(1))).await.await.unwrap(), Ok(2));
        tokio::time::sleep(Duration::from_secs(5)).await;
        let heard = |book: Book| book.heard.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!((heard(scene.whole(1).await), heard(scene.whole(2).await)), (vec![200, 202], vec![201]));
    });
}

#[test]
fn twins_leave_memory_and_what_they_observed_is_saved_when_the_clock_goes_back() {
    play_with(Duration::from_secs(2), |scene| async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        for twin in 0..8 {
            scene.runtime.twin(&key(twin)).ask(Sniff { id: 0, bytes: 0 }).await.unwrap();
        }
        scene.clock.step_back(HOUR);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(scene.runtime.counts()[0].1.resident, 0);
        assert_eq!(scene.whole(3).await.seen.count, 1, "its page was saved");
    });
}

#[test]
fn revisions_grow_and_the_journal_reads_at_each_of_them_when_the_clock_goes_back() {
    play_with(IDLE, |scene| async move {
        let ask = |id| {
            let runtime = scene.runtime.clone();
            async move { runtime.twin("t0").ask(Do { id, op: Op::Append }).await.unwrap() }
        };
        for id in 0..5 {
            assert_eq!(ask(id).await, id);
        }
        scene.clock.step_back(HOUR);
        for id in 5..10 {
            assert_eq!(ask(id).await, id);
        }
        let (entries, more) = scene.runtime.twin("t0").journal::<Book>(0, 100).await.unwrap();
        assert_eq!((entries.len(), more), (10, false));
        assert!(entries.windows(2).all(|pair| pair[0].revision < pair[1].revision));
        assert!(entries[4].at > entries[5].at, "an entry has the clock's time");
        for revision in 1..=10_u64 {
            let past = scene.runtime.twin("t0").at(Moment::Revision(revision));
            let book = past.ask(service_twin_sim::book::Whole).await.unwrap();
            assert_eq!(u64::try_from(book.done.len()).unwrap(), revision);
        }
    });
}
