//! What must happen, step by step, in the cases that matter most; each walked through both doors.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use service_twin::{
    model::{Outcome, RequestKey, Timestamp},
    runtime::Door,
    store::{
        Epoch, Store,
        memory::{Fault, Faults, LoadFault, MemoryStore},
    },
    twin::{Failure, Rejection},
};
use service_twin_sim::{
    book::{Do, Look, Op},
    client::key,
    scene::{IDLE, life, moment, play, play_with, refused},
    world::address,
};

#[test]
fn a_commit_refused_under_three_later_turns_fails_all_four_as_not_applied() {
    play(|scene| async move {
        scene.warm(0).await;
        scene.faults.at_next_commit(Some(Fault::Held));
        let mut sent = Vec::new();
        for id in 0..4 {
            sent.push(scene.send(0, id, Op::Append).await);
        }
        assert!(sent.iter().all(|sent| !sent.is_finished()), "nobody is answered before the commit is durable");
        scene.release(Some(Fault::Unavailable)).await;
        let mut sent = sent.into_iter();
        refused(&sent.next().unwrap().await.unwrap(), "unavailable: a fault");
        for later in sent {
            refused(&later.await.unwrap(), "an earlier commit of this twin failed");
        }
        assert_eq!(scene.store.chain(&address(0)), []);
        assert_eq!(scene.runtime.twin("t0").ask(Do { id: 9, op: Op::Append }).await, Ok(0));
    });
}

#[test]
fn a_rejection_based_on_a_staged_change_shares_its_fate() {
    for fault in [None, Some(Fault::Unavailable), Some(Fault::UnknownLost)] {
        play(|scene| async move {
            scene.warm(0).await;
            scene.faults.at_next_commit(Some(Fault::Held));
            let first = scene.send(0, 0, Op::Append).await;
            let second = scene.send(0, 1, Op::AppendIfShort(1)).await;
            assert!(!second.is_finished(), "the entry it is refused for may never have been");
            scene.release(fault).await;
            let (first, second) = (first.await.unwrap(), second.await.unwrap());
            match fault {
                None => {
                    assert_eq!(first, Ok(0));
                    assert!(matches!(second, Err(Failure::Rejected(Rejection::Limit { actual: 1, .. }))), "{second:?}");
                }
                Some(_) => {
                    assert!(matches!(first, Err(Failure::Lost { .. })), "{first:?}");
                    refused(&second, "an earlier commit of this twin failed");
                }
            }
        });
    }
}

#[test]
fn a_read_of_a_staged_change_waits_until_it_is_durable() {
    play(|scene| async move {
        scene.warm(0).await;
        scene.faults.at_next_commit(Some(Fault::Held));
        let first = scene.send(0, 0, Op::Append).await;
        let read = scene.look(0).await;
        assert!(!read.is_finished() && !first.is_finished());
        scene.release(None).await;
        assert_eq!(read.await.unwrap().unwrap().1, 1);
        scene.faults.at_next_commit(Some(Fault::Held));
        let second = scene.send(0, 1, Op::Append).await;
        let read = scene.look(0).await;
        scene.release(Some(Fault::UnknownApplied)).await;
        assert_eq!(read.await.unwrap().map_err(|failure| failure.outcome()), Err(Outcome::NotApplied));
        assert_eq!(second.await.unwrap().map_err(|failure| failure.outcome()), Err(Outcome::Unknown));
    });
}

#[test]
fn a_decision_that_only_sends_waits_for_its_own_commit() {
    play(|scene| async move {
        scene.warm(0).await;
        scene.warm(1).await;
        scene.faults.at_next_commit(Some(Fault::Held));
        scene.faults.at_next_commit(Some(Fault::Held));
        let first = scene.send(0, 0, Op::Append).await;
        let shout = scene.send(0, 1, Op::Shout(key(1))).await;
        let scrawl = scene.send(0, 2, Op::Scrawl).await;
        scene.release(None).await;
        assert_eq!(first.await.unwrap(), Ok(0));
        assert!(!shout.is_finished() && !scrawl.is_finished(), "their promise and page are not durable yet");
        assert_eq!(scene.whole(1).await.heard, []);
        scene.release(None).await;
        assert_eq!((shout.await.unwrap(), scrawl.await.unwrap()), (Ok(1), Ok(1)));
        moment().await;
        assert_eq!(scene.whole(1).await.heard.len(), 1);
    });
}

#[test]
fn a_panic_with_a_commit_in_flight_loads_again_only_after_its_outcome() {
    for fault in [None, Some(Fault::Unavailable), Some(Fault::UnknownApplied), Some(Fault::UnknownLost)] {
        play(|scene| async move {
            scene.warm(0).await;
            scene.faults.at_next_commit(Some(Fault::Held));
            let first = scene.send(0, 0, Op::Append).await;
            let staged = scene.send(0, 1, Op::Append).await;
            let boom = scene.send(0, 2, Op::Boom).await;
            let panicked = boom.await.unwrap();
            assert!(matches!(panicked, Err(Failure::Panicked { .. })), "{panicked:?}");
            refused(&staged.await.unwrap(), "a later turn of this twin panicked");
            let loads = scene.disk.loads();
            let after = scene.look(0).await;
            assert!(!after.is_finished() && !first.is_finished());
            assert_eq!(scene.disk.loads(), loads, "nothing is read before the commit has an outcome");
            scene.release(fault).await;
            let applied = u32::from(matches!(fault, None | Some(Fault::UnknownApplied)));
            match after.await.unwrap() {
                Ok((_, count, _)) => assert_eq!(count, applied),
                Err(failure) => assert_eq!(failure.outcome(), Outcome::NotApplied),
            }
            assert_eq!(first.await.unwrap().is_ok(), fault.is_none());
            moment().await;
            assert_eq!(scene.whole(0).await.done.len(), usize::try_from(applied).unwrap());
        });
    }
}

#[test]
fn a_panic_behind_a_load_leaves_nobody_without_an_answer() {
    play(|scene| async move {
        scene.faults.at_next_load(Some(LoadFault::Held));
        let boom = scene.send(0, 0, Op::Boom).await;
        let behind = scene.send(0, 1, Op::Append).await;
        assert!(scene.store.release_load(0));
        moment().await;
        assert!(matches!(boom.await.unwrap(), Err(Failure::Panicked { .. })));
        assert_eq!(behind.await.unwrap(), Ok(0));
    });
}

#[test]
fn a_crowd_behind_a_load_holds_up_no_neighbour_and_keeps_its_order() {
    const CROWD: usize = 500;
    play(|scene| async move {
        scene.warm(1).await;
        scene.faults.at_next_load(Some(LoadFault::Held));
        let order = Rc::new(RefCell::new(Vec::new()));
        let look = |twin: usize, number: usize| {
            let (runtime, order) = (scene.runtime.clone(), Rc::clone(&order));
            actix::spawn(async move {
                runtime.twin(&key(twin)).ask(Look).await.unwrap();
                order.borrow_mut().push(number);
            });
        };
        (0..CROWD).for_each(|number| look(0, number));
        moment().await;
        look(1, CROWD);
        assert!(scene.store.release_load(0));
        moment().await;
        let mut order = order.take();
        let neighbour = order.iter().position(|number| *number == CROWD).expect("it is answered");
        assert!(neighbour < CROWD / 2, "after {neighbour} of the crowd");
        order.remove(neighbour);
        assert_eq!(order, (0..CROWD).collect::<Vec<_>>());
    });
}

#[test]
fn a_message_one_byte_over_the_limit_is_refused_inside_a_burst_that_goes_on() {
    play(|scene| async move {
        let pad = |bytes: u16, twin: usize| {
            let runtime = scene.runtime.clone();
            async move { runtime.twin(&key(twin)).ask(Do { id: 0, op: Op::Pad(bytes) }).await }
        };
        // The largest padding that a fresh twin takes.
        let (mut fits, mut over) = (0, 8_000);
        let mut twin = 0;
        while over - fits > 1 {
            let middle = fits + (over - fits) / 2;
            twin += 1;
            match pad(middle, twin).await {
                Ok(_) => fits = middle,
                Err(Failure::Rejected(Rejection::Limit { .. })) => over = middle,
                Err(other) => panic!("{other}"),
            }
        }
        scene.warm(0).await;
        scene.faults.at_next_commit(Some(Fault::Held));
        let before = scene.send(0, 1, Op::Scrawl).await;
        let large = scene.send(0, 2, Op::Pad(over)).await;
        let exact = scene.send(0, 3, Op::Pad(fits)).await;
        let after = scene.send(0, 4, Op::Boom).await;
        drop(after);
        scene.store.release(0, None);
        moment().await;
        assert!(before.await.unwrap().is_ok());
        let large = large.await.unwrap();
        // The panic behind them takes what is staged with it: refused, or refused as not applied, never taken.
        assert_eq!(large.map_err(|failure| failure.outcome()), Err(Outcome::NotApplied));
        assert_eq!(exact.await.unwrap().map_err(|failure| failure.outcome()), Err(Outcome::NotApplied));
        let large = scene.send(0, 5, Op::Pad(over)).await;
        let exact = scene.send(0, 6, Op::Pad(fits)).await;
        let neighbour = scene.send(1, 7, Op::Append).await;
        assert!(matches!(large.await.unwrap(), Err(Failure::Rejected(Rejection::Limit { .. }))));
        assert_eq!(exact.await.unwrap(), Ok(0));
        assert!(neighbour.await.unwrap().is_ok());
    });
}

#[test]
fn a_repeat_while_the_first_is_in_flight_gets_the_firsts_answer() {
    play(|scene| async move {
        scene.warm(0).await;
        let request = RequestKey::new("once", scene.runtime.now());
        scene.faults.at_next_commit(Some(Fault::Held));
        let first = scene.send_keyed(0, 0, &request).await;
        let repeat = scene.send_keyed(0, 0, &request).await;
        assert!(!repeat.is_finished(), "what the first did may never have been");
        scene.release(Some(Fault::Unavailable)).await;
        refused(&first.await.unwrap(), "a fault");
        refused(&repeat.await.unwrap(), "an earlier commit");
        scene.faults.at_next_commit(Some(Fault::Held));
        let second = scene.send_keyed(0, 0, &request).await;
        let repeat = scene.send_keyed(0, 0, &request).await;
        scene.release(None).await;
        assert_eq!((second.await.unwrap(), repeat.await.unwrap()), (Ok(0), Ok(0)));
        assert_eq!(scene.whole(0).await.done, [0]);
    });
}

#[test]
fn after_an_unknown_outcome_nothing_is_read_before_a_new_claim() {
    play(|scene| async move {
        scene.warm(0).await;
        scene.faults.at_next_commit(Some(Fault::UnknownLate));
        scene.disk.set_odds(1_000);
        let (loads, claims) = (scene.disk.loads(), scene.disk.claims());
        let first = scene.send(0, 0, Op::Append).await;
        assert_eq!(first.await.unwrap().map_err(|failure| failure.outcome()), Err(Outcome::Unknown));
        for _ in 0..10 {
            let failure = scene.look(0).await.await.unwrap().unwrap_err();
            assert!(matches!(failure, Failure::Backoff { .. }), "{failure}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert_eq!((scene.disk.loads(), scene.disk.claims()), (loads, claims), "no claim, no load");
        scene.disk.set_odds(0);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(scene.look(0).await.await.unwrap().unwrap().1, 0);
        scene.release(None).await;
        assert_eq!(scene.store.chain(&address(0)), [], "the late commit meets the new epoch");
        assert_eq!(scene.runtime.twin("t0").ask(Do { id: 1, op: Op::Append }).await, Ok(0));
        assert_eq!(scene.store.chain(&address(0)), [(1, Epoch(2))]);
    });
}

#[test]
fn a_claim_that_fences_the_neighbours_is_made_once() {
    play(|scene| async move {
        for twin in 0..4 {
            scene.warm(twin).await;
        }
        for _ in 0..3 {
            scene.faults.at_next_commit(Some(Fault::Held));
        }
        scene.faults.at_next_commit(Some(Fault::UnknownLost));
        let mut sent = Vec::new();
        for twin in [1, 2, 3, 0] {
            sent.push(scene.send(twin, 0, Op::Append).await);
        }
        let claims = scene.disk.claims();
        for _ in 0..3 {
            scene.release(None).await;
        }
        for answer in sent {
            assert!(answer.await.unwrap().is_err(), "unknown, or fenced by the claim that followed");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(scene.disk.claims() - claims, 0, "the claim of the first served all");
        for twin in 0..4 {
            assert!(scene.whole(twin).await.done.is_empty());
        }
    });
}

#[test]
fn a_hot_twin_before_a_full_queue_is_served_as_soon_as_there_is_room() {
    play(|scene| async move {
        scene.warm(0).await;
        for _ in 0..5 {
            scene.faults.at_next_commit(Some(Fault::Full));
        }
        let begun = scene.runtime.now();
        let mut sent = Vec::new();
        for id in 0..50 {
            let runtime = scene.runtime.clone();
            sent.push(actix::spawn(async move { runtime.twin("t0").ask(Do { id, op: Op::Append }).await }));
        }
        for (at, answer) in (0..).zip(sent) {
            assert_eq!(answer.await.unwrap(), Ok(at));
        }
        assert!(scene.runtime.now().since(begun) < Duration::from_millis(50), "not at the next tick");
        assert!(scene.store.chain(&address(0)).len() < 10, "one record carries many turns");
    });
}

#[test]
fn a_closed_store_is_no_full_one_and_callers_hear_not_applied_at_once() {
    play(|scene| async move {
        scene.warm(0).await;
        scene.faults.at_next_commit(Some(Fault::Held));
        let first = scene.send(0, 0, Op::Append).await;
        let behind = [scene.send(0, 1, Op::Append).await, scene.send(0, 2, Op::Count).await];
        scene.store.close(Box::new(|closed| assert_eq!(closed, Ok(()))));
        let begun = scene.runtime.now();
        scene.release(None).await;
        assert_eq!(first.await.unwrap(), Ok(0), "what was taken ends as it ends");
        for behind in behind {
            refused(&behind.await.unwrap(), "the store is closed");
        }
        let later = scene.send(0, 3, Op::Append).await;
        refused(&later.await.unwrap(), "the store is closed");
        assert!(scene.runtime.now().since(begun) < Duration::from_millis(50));
    });
}

#[test]
fn a_drain_that_runs_out_of_time_answers_whoever_still_waits() {
    play(|scene| async move {
        scene.warm(0).await;
        scene.faults.at_next_load(Some(LoadFault::Held));
        let behind_a_page = [scene.send(0, 0, Op::Count).await, scene.send(0, 1, Op::Append).await];
        scene.faults.at_next_load(Some(LoadFault::Held));
        let behind_a_load = [scene.send(1, 2, Op::Append).await, scene.send(1, 3, Op::Append).await];
        scene.warm(2).await;
        for _ in 0..10_000 {
            scene.faults.at_next_commit(Some(Fault::Full));
        }
        let behind_a_full_queue = scene.send(2, 4, Op::Append).await;
        let drained = scene.runtime.drain(Duration::from_secs(2)).await;
        assert_eq!(drained.unsettled, 3);
        for waiting in behind_a_page.into_iter().chain(behind_a_load) {
            assert_eq!(waiting.await.unwrap(), Err(Failure::Stopping));
        }
        refused(&behind_a_full_queue.await.unwrap(), "the runtime stopped");
        assert_eq!(scene.runtime.twin("t0").ask(Look).await, Err(Failure::Stopping));
    });
}

#[test]
fn a_message_that_meets_a_passivation_finds_the_same_twin() {
    play_with(Duration::ZERO, |scene| async move {
        for id in 0..40 {
            // Ticks come each second; these arrive just before, at, and just after them.
            tokio::time::sleep(Duration::from_millis(997)).await;
            let begun = [scene.send(0, id * 2, Op::Append).await, scene.send(0, id * 2 + 1, Op::Append).await];
            for (at, answer) in begun.into_iter().enumerate() {
                assert_eq!(answer.await.unwrap(), Ok(id * 2 + u32::try_from(at).unwrap()));
            }
        }
        let (_, counts) = scene.runtime.counts()[0];
        assert!(counts.passivations > 10, "{counts:?}");
        assert_eq!(scene.whole(0).await.done, (0..80).collect::<Vec<_>>());
    });
}

#[test]
fn pages_read_for_a_message_are_not_older_than_what_was_committed_meanwhile() {
    play(|scene| async move {
        scene.warm(0).await;
        scene.faults.at_next_commit(Some(Fault::Held));
        let first = scene.send(0, 0, Op::Append).await;
        // Two counts behind a commit in flight: the second reads while the page of the first gets on its way.
        let one = scene.send(0, 1, Op::Count).await;
        scene.faults.at_next_load(Some(LoadFault::Held));
        let other = scene.send(0, 2, Op::Count).await;
        scene.release(None).await;
        scene.store.release_load(0);
        moment().await;
        assert_eq!((first.await.unwrap(), one.await.unwrap(), other.await.unwrap()), (Ok(0), Ok(1), Ok(2)));
        let third = scene.send(0, 3, Op::Count).await;
        assert_eq!(third.await.unwrap(), Ok(3));
        assert_eq!(count(&scene.store), 3);
    });
}

#[test]
fn a_commit_that_found_the_store_busy_is_handed_in_again_and_nobody_hears_of_it() {
    play(|scene| async move {
        scene.warm(0).await;
        let before = scene.runtime.counts()[0].1;
        for _ in 0..3 {
            scene.faults.at_next_commit(Some(Fault::Busy));
        }
        let first = scene.send(0, 0, Op::Append).await;
        let later = scene.send(0, 1, Op::Append).await;
        assert_eq!((first.await.unwrap(), later.await.unwrap()), (Ok(0), Ok(1)));
        let after = scene.runtime.counts()[0].1;
        assert_eq!(
            (after.commit_failures, after.activations),
            (before.commit_failures, before.activations),
            "its activation goes on"
        );
        assert_eq!(scene.whole(0).await.done, [0, 1]);
    });
}

fn count(store: &MemoryStore) -> u32 {
    use service_twin::store::{Load, Store};
    let (tell, told) = std::sync::mpsc::channel();
    let pages = vec![service_twin_sim::book::COUNT.into()];
    let load = Load { address: address(0).into(), core: false, pages, prefix: None, under: None };
    store.load(load, Box::new(move |loaded| tell.send(loaded.unwrap()).unwrap()));
    u32::from_le_bytes(told.recv().unwrap().pages.remove(0).1.try_into().unwrap())
}

#[test]
fn what_was_promised_arrives_after_a_crash_although_nobody_calls() {
    for door in [Door::Open, Door::Closed] {
        let faults = Arc::new(Faults::none());
        let store = Arc::new(MemoryStore::with_faults(Arc::clone(&faults)));
        life(&faults, &store, door.clone(), Timestamp::ZERO, IDLE, |scene| async move {
            scene.warm(0).await;
            // The target's load does not come back before the crash.
            scene.faults.at_next_load(Some(LoadFault::Held));
            let told = scene.send(0, 0, Op::Tell(key(1))).await;
            let due = Timestamp::from_unix_ms(5_000);
            let alarm = scene.send(2, 1, Op::Alarm(due)).await;
            assert_eq!((told.await.unwrap(), alarm.await.unwrap()), (Ok(0), Ok(0)));
        });
        life(&faults, &store, door, Timestamp::from_unix_ms(4_000), IDLE, |scene| async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let called = scene.runtime.now();
            let heard = scene.whole(1).await.heard;
            assert!(matches!(heard[..], [(0, at)] if at < called), "{heard:?}");
            let fired = scene.whole(2).await.fired;
            assert!(matches!(fired[..], [(1, due, at)] if due <= at && at < called), "{fired:?}");
        });
    }
}

#[test]
fn a_reminder_whose_commit_fails_fires_again_although_nobody_calls() {
    for fault in [Fault::Unavailable, Fault::UnknownLost, Fault::Busy] {
        play(|scene| async move {
            let due = scene.runtime.now().after(Duration::from_secs(3));
            assert_eq!(scene.send(0, 0, Op::Alarm(due)).await.await.unwrap(), Ok(0));
            scene.faults.at_next_commit(Some(fault));
            tokio::time::sleep(Duration::from_secs(5)).await;
            let called = scene.runtime.now();
            let fired = scene.whole(0).await.fired;
            assert!(matches!(fired[..], [(0, _, at)] if due <= at && at < called), "{fired:?}");
        });
    }
}
