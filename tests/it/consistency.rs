//! What an answer rests on, chosen by whoever asks: the owner's lease, the store, or nothing.

use std::{sync::atomic::Ordering, time::Duration};

use service_twin::{
    model::{Consistency, Outcome},
    runtime::Door,
    twin::{Answer, Failure, Message, Rejection, journal::Moment},
};

use crate::{
    kinds::{Add, Bump, Ledger, Read},
    remote::{World, doors, key_of, slot_of},
};

const LONG: Duration = Duration::from_secs(20);

async fn ask<M: Message>(world: &World, at: usize, key: &str, message: M, on: Consistency) -> Answer<M::Reply> {
    let ask = async { world.runtime(at).twin(key).ask(message).consistency(on).await };
    tokio::time::timeout(LONG, ask).await.expect("an answer")
}

async fn strict(world: &World, at: usize, key: &str) -> Answer<(u64, u64)> {
    ask(world, at, key, Read, Consistency::Strict).await
}

async fn stale(world: &World, at: usize, key: &str) -> Answer<(u64, u64)> {
    ask(world, at, key, Read, Consistency::StaleOk).await
}

#[tokio::test]
async fn a_strict_read_needs_no_lease() {
    for door in doors() {
        let world = World::start(&door);
        let key = key_of(0);
        assert_eq!(world.ask(0, &key, Add(2)).await, Ok(2));
        for leased in &world.leased {
            leased.store(false, Ordering::Relaxed);
        }
        for at in [0, 1] {
            let leased = world.ask(at, &key, Read).await;
            assert!(matches!(leased, Err(Failure::Lost { outcome: Outcome::Unknown, .. })), "{leased:?}");
            assert_eq!(strict(&world, at, &key).await, Ok((2, 1)));
            assert_eq!(strict(&world, at, &key_of(1)).await, Ok((0, 0)), "of a twin that was never written, too");
            let refused = ask(&world, at, &key, Add(2_000_000), Consistency::Strict).await;
            assert!(matches!(refused, Err(Failure::Rejected(Rejection::Limit { .. }))), "a refusal is an answer");
        }
        assert_eq!(ask(&world, 1, &key, Add(3), Consistency::Strict).await, Ok(5));
        assert_eq!(strict(&world, 0, &key).await, Ok((5, 2)), "a proof is no change");
    }
}

#[tokio::test]
async fn an_owner_that_was_fenced_never_answers_strictly() {
    for door in doors() {
        let world = World::start(&door);
        let key = key_of(0);
        assert_eq!(world.ask(0, &key, Add(1)).await, Ok(1));
        // The other one takes it over; this one has not heard of it, and its lease has not run out.
        world.give(slot_of(&key), 1);
        assert_eq!(world.ask(1, &key, Add(10)).await, Ok(11));
        assert_eq!(world.ask(0, &key, Read).await, Ok((1, 1)), "what a clock that is wrong leads to");
        let fenced = strict(&world, 0, &key).await.unwrap_err();
        assert_eq!(fenced.outcome(), Outcome::NotApplied, "{fenced}");
        assert_eq!(strict(&world, 1, &key).await, Ok((11, 2)));
        // Its caller hears of it first; from then on it asks the owner.
        let asked = async {
            while let Err(fenced) = strict(&world, 0, &key).await {
                assert_eq!(fenced.outcome(), Outcome::NotApplied, "{fenced}");
            }
        };
        tokio::time::timeout(LONG, asked).await.expect("the owner is asked");
        assert_eq!(strict(&world, 0, &key).await, Ok((11, 2)));
    }
}

#[tokio::test]
async fn a_commit_that_was_under_way_before_proves_nothing() {
    for door in doors() {
        let world = World::start(&door);
        let key = key_of(0);
        world.hold(true);
        let runtime = world.runtime(0);
        let (add, read) = (
            tokio::spawn({
                let (runtime, key) = (runtime.clone(), key.clone());
                async move { runtime.twin(&key).ask(Add(1)).await }
            }),
            async { strict(&world, 0, &key).await },
        );
        world.until_held().await;
        let mut read = std::pin::pin!(read);
        assert!(futures_util::poll!(&mut read).is_pending());
        // The commit of the addition goes through, the one after it does not: the slot is another's by then.
        world.hold(true);
        assert_eq!(add.await.unwrap(), Ok(1));
        tokio::select! {
            biased;
            _ = &mut read => panic!("answered by what was submitted before its turn"),
            () = world.until_held() => {}
        }
        world.give(slot_of(&key), 1);
        world.hold(false);
        let fenced = read.await.unwrap_err();
        assert_eq!(fenced.outcome(), Outcome::NotApplied, "{fenced}");
    }
}

#[tokio::test]
async fn what_may_be_stale_is_answered_by_whoever_is_asked() {
    for door in doors() {
        let world = World::start(&door);
        let key = key_of(0);
        assert_eq!(world.ask(0, &key, Add(4)).await, Ok(4));
        for leased in &world.leased {
            leased.store(false, Ordering::Relaxed);
        }
        let forwarded = world.forwarded.load(Ordering::Relaxed);
        for at in [0, 1] {
            assert_eq!(stale(&world, at, &key).await, Ok((4, 1)));
            assert_eq!(stale(&world, at, "k-nobody").await, Ok((0, 0)));
            let past = world.runtime(at).twin(&key).consistency(Consistency::StaleOk);
            assert_eq!(past.at(Moment::Revision(1)).ask(Read).await.unwrap(), (4, 1));
            assert_eq!(past.journal::<Ledger>(0, 9).await.unwrap().0.len(), 1);
            let refused = ask(&world, at, &key, Add(1), Consistency::StaleOk).await;
            assert!(matches!(refused, Err(Failure::Rejected(Rejection::Invalid { .. }))), "{refused:?}");
        }
        let panicked = ask(&world, 1, &key, Add(666), Consistency::StaleOk).await;
        assert!(matches!(panicked, Err(Failure::Panicked { .. })), "{panicked:?}");
        assert_eq!(world.forwarded.load(Ordering::Relaxed), forwarded, "nobody was asked");
        // The owner has been replaced and does not know: it says what it has.
        world.give(slot_of(&key), 1);
        world.leased[1].store(true, Ordering::Relaxed);
        assert_eq!(world.ask(1, &key, Add(1)).await, Ok(5));
        assert_eq!(stale(&world, 0, &key).await, Ok((4, 1)));
    }
}

#[tokio::test]
async fn a_kind_that_is_not_stored_and_the_past_have_no_strict_reads() {
    let world = World::start(&Door::Open);
    let unsupported = |failure: Failure| matches!(failure, Failure::Rejected(Rejection::Unsupported { .. }));
    let key = key_of(0);
    assert!(unsupported(ask(&world, 0, &key, Bump(0), Consistency::Strict).await.unwrap_err()));
    assert!(unsupported(ask(&world, 1, &key, Bump(0), Consistency::StaleOk).await.unwrap_err()));
    let strict = world.runtime(0).twin(&key).consistency(Consistency::Strict);
    assert!(unsupported(strict.journal::<Ledger>(0, 1).await.unwrap_err()));
}
