//! Claims and commits.

use std::sync::Arc;

use super::{Keeper, PATIENCE, World, address, done, page, terms, wait};
use crate::{
    model::{Outcome, Sealed, limits},
    store::{Commit, Epoch, Error, Load, Loaded, PageWrite, Slot},
};

pub(super) fn an_epoch_only_grows_and_is_taken_from_the_one_expected(world: &World) {
    let claim = |slot, expected| wait(|done| world.store.claim(slot, expected, done));
    let first = done(claim(Slot(0), None));
    let second = done(claim(Slot(0), Some(first)));
    assert!(second > first);
    assert_eq!(claim(Slot(0), Some(first)), Err(Error::Fenced { ours: first, owner: second }));
    let third = done(claim(Slot(0), None));
    assert!(third > second);
    assert!(done(claim(Slot(1), Some(Epoch(0)))) > Epoch(0), "a slot never claimed is at epoch 0");
    assert!(done(claim(Slot(0), Some(third))) > third, "slots have epochs of their own");
}

pub(super) fn a_load_under_another_epoch_than_the_one_in_force_is_refused(world: &World) {
    done(world.commit(Commit { pages: vec![page("one", Some(b"1"))], ..world.core("a", 1, b"first") }));
    let under = |epoch| {
        let (pages, under) = (vec!["one".into()], Some(epoch));
        let load = Load { address: address("a"), core: true, pages, prefix: None, under };
        wait(|done| world.store.load(load, done))
    };
    let first = world.epoch("a");
    let read = Ok(Loaded { core: Some(b"first".to_vec()), pages: vec![("one".into(), b"1".to_vec())] });
    assert_eq!(under(first), read);
    let owner = world.claim_aside("a");
    assert_eq!(under(first), Err(Error::Fenced { ours: first, owner }));
    let early = Epoch(owner.0 + 1);
    assert_eq!(under(early), Err(Error::Fenced { ours: early, owner }));
    assert_eq!(under(owner), read);
    assert_eq!(world.read_core("a").as_deref(), Some(b"first".as_slice()), "without an epoch, what is there");
}

pub(super) fn what_was_committed_is_read_back(world: &World) {
    assert_eq!(world.read_core("a"), None);
    let pages = vec![page("one", Some(b"1")), page("two", Some(b""))];
    done(world.commit(Commit { pages, ..world.core("a", 1, b"first") }));
    assert_eq!(world.read_core("a").as_deref(), Some(b"first".as_slice()));
    assert_eq!(world.read_pages("a", &["two", "none", "one"]), [("one".into(), b"1".to_vec()), ("two".into(), vec![])]);
    let pages = vec![page("one", None), page("two", Some(b"2"))];
    done(world.commit(Commit { pages, ..world.core("a", 2, b"a longer second") }));
    done(world.commit(world.core("b", 1, b"other")));
    assert_eq!(world.read_core("a").as_deref(), Some(b"a longer second".as_slice()));
    assert_eq!(world.read_pages("a", &["one", "two"]), [("two".into(), b"2".to_vec())]);
    done(world.commit(world.core("a", 3, b"")));
    assert_eq!(world.read_core("a"), Some(Vec::new()), "an empty record is a record");
    assert_eq!(world.read_core("b").as_deref(), Some(b"other".as_slice()));
}

pub(super) fn a_stale_epoch_is_fenced_and_writes_nothing(world: &World) {
    done(world.commit(world.core("a", 1, b"first")));
    let (ours, owner) = (world.epoch("a"), world.claim_aside("a"));
    let stale = Commit { pages: vec![page("one", Some(b"1"))], ..world.core("a", 2, b"second") };
    assert_eq!(world.commit(stale), Err(Error::Fenced { ours, owner }));
    assert_eq!(world.read_core("a").as_deref(), Some(b"first".as_slice()));
    assert_eq!(world.read_pages("a", &["one"]), []);
    let early = Commit { epoch: Epoch(owner.0 + 1), ..world.core("a", 2, b"second") };
    assert_eq!(world.commit(early), Err(Error::Fenced { ours: Epoch(owner.0 + 1), owner }));
    done(world.commit(Commit { epoch: owner, ..world.core("a", 2, b"second") }));
    let unclaimed = Commit { slot: Slot(7), ..world.core("b", 1, b"first") };
    let ours = unclaimed.epoch;
    assert_eq!(world.commit(unclaimed), Err(Error::Fenced { ours, owner: Epoch(0) }));
}

pub(super) fn a_sequence_that_does_not_follow_is_refused_and_writes_nothing(world: &World) {
    assert_eq!(world.commit(world.core("a", 2, b"x")), Err(Error::Sequence { given: 2, found: 0 }));
    assert_eq!(world.read_core("a"), None);
    done(world.commit(world.core("a", 1, b"first")));
    for given in [0, 1, 3] {
        let wrong = Commit {
            pages: vec![page("one", Some(b"1"))],
            wake_at: Some(super::at(5)),
            terms: terms(&["x=1"]),
            ..world.core("a", given, b"wrong")
        };
        assert_eq!(world.commit(wrong), Err(Error::Sequence { given, found: 1 }));
    }
    assert_eq!(world.read_core("a").as_deref(), Some(b"first".as_slice()));
    assert_eq!(world.read_pages("a", &["one"]), []);
    assert_eq!((world.wakes(9), world.found("thing", &["x=1"])), (vec![], vec![]));
    done(world.commit(world.core("a", 2, b"second")));
}

pub(super) fn pages_alone_advance_nothing(world: &World) {
    done(world.commit(world.pages("new", 0, vec![page("one", Some(b"before any record"))])));
    done(world.commit(Commit { wake_at: Some(super::at(5)), terms: terms(&["x=1"]), ..world.core("a", 1, b"first") }));
    done(world.commit(world.pages("a", 1, vec![page("one", Some(b"1"))])));
    done(world.commit(world.pages("a", 1, vec![page("one", None), page("two", Some(b"2"))])));
    done(world.commit(world.pages("a", 1, vec![page("three", Some(b"3"))])));
    done(world.commit(world.pages("a", 1, vec![page("three", None)])));
    let wrong = world.pages("a", 2, vec![page("two", None)]);
    assert_eq!(world.commit(wrong), Err(Error::Sequence { given: 2, found: 1 }));
    assert_eq!(world.read_pages("a", &["one", "two", "three"]), [("two".into(), b"2".to_vec())]);
    assert_eq!(world.wakes(9), [(5, "a".into(), 1)], "what a commit without a core says of the wake time is ignored");
    assert_eq!(world.found("thing", &["x=1"]), ["a"]);
    done(world.commit(world.core("a", 2, b"second")));
    done(world.commit(world.core("new", 1, b"first")));
    assert_eq!(world.read_pages("new", &["one"]).len(), 1);
}

pub(super) fn the_bounds_are_kept_to_the_byte(world: &World) {
    let too_big = |what, max| Err(Error::TooBig { what, actual: max + 1, max });
    let core = |bytes| world.core("a", 1, &vec![7; bytes]);
    assert_eq!(world.commit(core(limits::RECORD_BYTES_MAX + 1)), too_big("core record", limits::RECORD_BYTES_MAX));
    let paged = |bytes| world.pages("a", 0, vec![page("one", Some(&vec![7; bytes]))]);
    assert_eq!(world.commit(paged(limits::PAGE_BYTES_MAX + 1)), too_big("page", limits::PAGE_BYTES_MAX));
    let named = |bytes| world.pages("a", 0, vec![page(&"n".repeat(bytes), Some(b""))]);
    assert_eq!(world.commit(named(limits::PAGE_NAME_BYTES_MAX + 1)), too_big("page name", limits::PAGE_NAME_BYTES_MAX));
    let many = |count: usize| -> Vec<PageWrite> { (0..count).map(|n| page(&format!("p{n}"), Some(b"v"))).collect() };
    let keys = |count| Commit { pages: many(count - 1), ..world.core("b", 1, b"core") };
    assert_eq!(world.commit(keys(limits::COMMIT_KEYS_MAX + 1)), too_big("number of keys", limits::COMMIT_KEYS_MAX));
    let full = |bytes: usize| {
        let rest = limits::COMMIT_BYTES_MAX - 8 * 30_002 - 2 + bytes;
        let sizes = [30_000; 8].into_iter().chain([rest]).enumerate();
        let writes = sizes.map(|(n, size)| page(&format!("p{n}"), Some(&vec![7; size])));
        world.pages("c", 0, writes.collect())
    };
    assert_eq!(world.commit(full(1)), too_big("commit", limits::COMMIT_BYTES_MAX));
    let termed = |count: usize| {
        let all: Vec<String> = (0..count).map(|n| format!("t={n:02}")).collect();
        Commit { terms: all.iter().map(Into::into).collect(), ..world.core("d", 1, b"core") }
    };
    assert_eq!(world.commit(termed(limits::TERMS_MAX + 1)), too_big("number of terms", limits::TERMS_MAX));
    let long = |bytes: usize| Commit { terms: terms(&["t".repeat(bytes).as_str()]), ..world.core("e", 1, b"core") };
    assert_eq!(world.commit(long(limits::TERMS_BYTES_MAX + 1)), too_big("terms", limits::TERMS_BYTES_MAX));

    done(world.commit(paged(limits::PAGE_BYTES_MAX)));
    done(world.commit(named(limits::PAGE_NAME_BYTES_MAX)));
    done(world.commit(core(limits::RECORD_BYTES_MAX)));
    done(world.commit(keys(limits::COMMIT_KEYS_MAX)));
    done(world.commit(full(0)));
    done(world.commit(termed(limits::TERMS_MAX)));
    done(world.commit(long(limits::TERMS_BYTES_MAX)));
    assert_eq!(world.read_core("a"), Some(vec![7; limits::RECORD_BYTES_MAX]));
    assert_eq!(world.read_pages("a", &["one"])[0].1.len(), limits::PAGE_BYTES_MAX);
}

pub(super) fn riders_hear_the_outcome_before_the_submitter(world: &World) {
    let ride = |commit: Commit| {
        let keeper = Arc::new(Keeper::default());
        let outcome = world.commit(Commit { riders: vec![keeper.clone(), keeper.clone()], ..commit });
        (outcome, std::mem::take(&mut *keeper.0.lock()))
    };
    assert_eq!(ride(world.core("a", 1, b"first")), (Ok(()), vec![Sealed::Durable, Sealed::Durable]));
    let (outcome, heard) = ride(world.core("a", 7, b"wrong"));
    assert_eq!(outcome, Err(Error::Sequence { given: 7, found: 1 }));
    let lost = |sealed: &Sealed| matches!(sealed, Sealed::Lost { outcome: Outcome::NotApplied, .. });
    assert!(heard.len() == 2 && heard.iter().all(lost), "{heard:?}");
    let (outcome, heard) = ride(world.pages("a", 1, Vec::new()));
    assert_eq!((outcome, heard.len()), (Ok(()), 2), "a commit of nothing is a commit");
}

pub(super) fn every_commit_of_many_threads_ends_once_and_in_its_chain(world: &World) {
    const THREADS: usize = 4;
    const TWINS: usize = 8;
    const COMMITS: u64 = 60;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let peer = World::listening(world);
            scope.spawn(move || {
                let mut next = [1; TWINS];
                let hand_in = |twin: usize, sequence: u64| {
                    let core = format!("{thread} {twin} {sequence}");
                    let mut commit = peer.core(&format!("{thread}/{twin}"), sequence, core.as_bytes());
                    commit.token = u64::try_from(twin).expect("small");
                    peer.store.commit(commit).expect("the queue has room for one commit of each twin");
                };
                (0..TWINS).for_each(|twin| hand_in(twin, 1));
                for _ in 0..COMMITS * u64::try_from(TWINS).expect("small") {
                    let ended = peer.ended.recv_timeout(PATIENCE).expect("each commit ends");
                    assert_eq!(ended.result, Ok(()));
                    let twin = usize::try_from(ended.token).expect("small");
                    next[twin] += 1;
                    if next[twin] <= COMMITS {
                        hand_in(twin, next[twin]);
                    }
                }
                assert!(peer.ended.try_recv().is_err(), "no commit ends twice");
            });
        }
    });
    for thread in 0..THREADS {
        for twin in 0..TWINS {
            let core = world.read_core(&format!("{thread}/{twin}"));
            assert_eq!(core, Some(format!("{thread} {twin} {COMMITS}").into_bytes()));
        }
    }
}
