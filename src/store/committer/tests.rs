//! A disk that fails when it is told to.

use std::{
    collections::BTreeMap,
    sync::{
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
};

use super::*;
use crate::store::SharedTerms;
use crate::{
    model::{Key, Outcome, Rider, Sealed},
    store::{Address, Committed, Ended, keyspace},
};

/// What a round did, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Did {
    Write,
    Sync,
    Release,
    Answer,
}

/// Fails at the n-th write or sync from now; 0 is never.
#[derive(Default)]
struct Failing {
    rows: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    fail_at_write: AtomicUsize,
    fail_at_sync: AtomicUsize,
    panics: std::sync::atomic::AtomicBool,
    did: Arc<Mutex<Vec<Did>>>,
}

impl Failing {
    fn count_down(&self, counter: &AtomicUsize) -> Result<(), String> {
        let left = counter.load(SeqCst);
        if left == 1 {
            assert!(!self.panics.load(SeqCst), "told to panic");
            return Err("no space left on device".to_owned());
        }
        counter.store(left.saturating_sub(1), SeqCst);
        Ok(())
    }
}

impl Disk for Failing {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        Ok(self.rows.lock().get(key).cloned())
    }

    fn seek(&self, from: &[u8]) -> Result<Option<Bytes>, String> {
        Ok(self.rows.lock().range(from.to_vec()..).next().map(|(key, _)| Bytes::from_slice(key)))
    }

    fn insert(&self, key: &[u8], value: &[u8]) -> Result<(), String> {
        self.did.lock().push(Did::Write);
        self.count_down(&self.fail_at_write)?;
        self.rows.lock().insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn batch(&self, writes: &mut Vec<Write>) -> Result<(), String> {
        self.did.lock().push(Did::Write);
        self.count_down(&self.fail_at_write)?;
        let mut rows = self.rows.lock();
        for (key, value) in writes.drain(..) {
            match value {
                Some(value) => rows.insert(key.to_vec(), value),
                None => rows.remove(key.as_slice()),
            };
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), String> {
        self.did.lock().push(Did::Sync);
        self.count_down(&self.fail_at_sync)
    }

    fn finish(&self) -> Result<(), String> {
        self.sync()
    }
}

struct Ears(Mutex<mpsc::Sender<Vec<Ended>>>, Arc<Mutex<Vec<Did>>>);

impl Committed for Ears {
    fn ended(&self, commits: Vec<Ended>) {
        self.1.lock().push(Did::Answer);
        self.0.lock().send(commits).unwrap();
    }
}

struct Keeper(Mutex<Vec<Sealed>>, Arc<Mutex<Vec<Did>>>);

impl Rider for Keeper {
    fn release(&self, sealed: &Sealed) {
        self.1.lock().push(Did::Release);
        self.0.lock().push(sealed.clone());
    }
}

struct World {
    committer: Committer<Failing>,
    disk: Arc<Failing>,
    shared: Arc<Shared>,
    to: Arc<Ears>,
    ended: mpsc::Receiver<Vec<Ended>>,
    rider: Arc<Keeper>,
}

fn world() -> World {
    let disk = Arc::new(Failing::default());
    disk.insert(&keyspace::epoch(Slot(0)), &1_u64.to_le_bytes()).unwrap();
    let shared = Arc::new(Shared::default());
    let (_, jobs) = crossbeam_channel::bounded(1);
    let (send, ended) = mpsc::channel();
    let did = disk.did.clone();
    did.lock().clear();
    World {
        committer: Committer::new(disk.clone(), jobs, shared.clone()),
        disk,
        shared,
        to: Arc::new(Ears(Mutex::new(send), did.clone())),
        ended,
        rider: Arc::new(Keeper(Mutex::default(), did)),
    }
}

impl World {
    fn commit(&self, key: &str, sequence: u64) -> Entry {
        Entry::Commit(Commit {
            address: Arc::new(Address { kind: "thing".into(), key: Key::parse(key).unwrap() }),
            slot: Slot(0),
            epoch: Epoch(1),
            sequence,
            core: Some(vec![1, 2, 3]),
            pages: Vec::new(),
            wake_at: None,
            terms: SharedTerms::default(),
            riders: vec![self.rider.clone()],
            token: sequence,
            to: self.to.clone(),
        })
    }

    /// Runs one round and says how each of its commits ended.
    fn round(&mut self, mut entries: Vec<Entry>) -> Vec<Result<(), Outcome>> {
        self.committer.round(&mut entries);
        let ended = self.ended.try_recv().expect("a submitter hears of a round once");
        assert!(self.ended.try_recv().is_err(), "a submitter hears of a round once");
        ended.into_iter().map(|ended| ended.result.map_err(|error| error.outcome())).collect()
    }
}

const DONE: Result<(), Outcome> = Ok(());
const UNKNOWN: Result<(), Outcome> = Err(Outcome::Unknown);
const NOT_APPLIED: Result<(), Outcome> = Err(Outcome::NotApplied);

#[test]
fn a_barrier_ends_with_the_sync_of_its_round() {
    for fails in [false, true] {
        let mut world = world();
        world.disk.fail_at_sync.store(usize::from(fails), SeqCst);
        let (send, told) = mpsc::channel();
        let did = world.disk.did.clone();
        let done = Box::new(move |result: Result<(), Error>| {
            assert_eq!(did.lock().last(), Some(&Did::Sync));
            send.send(result.is_ok()).unwrap();
        });
        world.committer.round(&mut vec![Entry::Barrier { done }]);
        assert_eq!(told.try_recv(), Ok(!fails));
    }
}

#[test]
fn a_round_is_written_then_synced_and_only_then_released_and_answered() {
    let mut world = world();
    // One key, several keys, and another twin: what goes alone and what goes in a batch.
    let mut several = world.commit("a", 1);
    if let Entry::Commit(commit) = &mut several {
        commit.wake_at = Some(crate::model::Timestamp::from_unix_ms(5));
    }
    let round = vec![several, world.commit("b", 1)];
    assert_eq!(world.round(round), [DONE, DONE]);
    for (key, sequence) in [("b", 2), ("c", 1), ("b", 3)] {
        let round = vec![world.commit(key, sequence)];
        assert_eq!(world.round(round), [DONE]);
    }
    let did = std::mem::take(&mut *world.disk.did.lock());
    let rounds: Vec<_> = did.split_inclusive(|did| *did == Did::Answer).collect();
    assert_eq!(rounds.len(), 4, "{did:?}");
    for round in rounds {
        let sync = round.iter().position(|did| *did == Did::Sync).expect("a round is synced");
        let (before, after) = (&round[..sync], &round[sync + 1..]);
        assert!(!before.is_empty() && before.iter().all(|did| *did == Did::Write), "{round:?}");
        assert!(after.starts_with(&[Did::Release]) && after.ends_with(&[Did::Answer]), "{round:?}");
        assert!(!after.contains(&Did::Write), "{round:?}");
    }
    world.disk.fail_at_sync.store(1, SeqCst);
    let round = vec![world.commit("c", 2)];
    assert_eq!(world.round(round), [UNKNOWN], "without the sync there is no answer that says done");
}

#[test]
fn a_disk_that_fails_in_a_round_leaves_what_was_written_unknown_and_the_rest_not_applied() {
    let mut world = world();
    world.disk.fail_at_write.store(2, SeqCst);
    let round = vec![world.commit("a", 1), world.commit("wrong", 9), world.commit("b", 1), world.commit("c", 1)];
    assert_eq!(world.round(round), [UNKNOWN, NOT_APPLIED, UNKNOWN, NOT_APPLIED]);
    assert!(world.rider.0.lock().iter().all(|sealed| *sealed != Sealed::Durable), "nothing was acknowledged");
    assert!(world.shared.healthy().unwrap_err().to_string().contains("no space left on device"));
    world.disk.fail_at_write.store(0, SeqCst);
    let round = vec![world.commit("d", 1)];
    assert_eq!(world.round(round), [NOT_APPLIED], "nothing is written any more");
    assert_eq!(world.disk.get(&keyspace::core("thing", "d")), Ok(None));
}

#[test]
fn a_sync_that_fails_leaves_the_whole_round_unknown() {
    let mut world = world();
    let round = vec![world.commit("a", 1)];
    assert_eq!(world.round(round), [DONE]);
    world.disk.fail_at_sync.store(1, SeqCst);
    let round = vec![world.commit("a", 2), world.commit("b", 2), world.commit("c", 1)];
    assert_eq!(world.round(round), [UNKNOWN, NOT_APPLIED, UNKNOWN]);
}

#[test]
fn a_database_that_panics_is_a_disk_that_fails() {
    let mut world = world();
    world.disk.panics.store(true, SeqCst);
    world.disk.fail_at_write.store(2, SeqCst);
    let round = vec![world.commit("a", 1), world.commit("b", 1), world.commit("c", 1)];
    assert_eq!(world.round(round), [UNKNOWN, UNKNOWN, NOT_APPLIED]);
    assert!(world.shared.healthy().is_err());
}

#[test]
fn a_submitter_that_panics_ends_nobody_else() {
    struct Panics;
    impl Rider for Panics {
        fn release(&self, _: &Sealed) {
            panic!("a rider of somebody");
        }
    }
    let mut world = world();
    let mut first = world.commit("a", 1);
    if let Entry::Commit(commit) = &mut first {
        commit.riders.push(Arc::new(Panics));
    }
    let round = vec![first, world.commit("b", 1)];
    assert_eq!(world.round(round), [DONE, DONE]);
    let round = vec![world.commit("a", 2)];
    assert_eq!(world.round(round), [DONE]);
}

#[test]
fn a_commit_of_one_key_does_not_overtake_one_of_several_of_its_twin() {
    let mut world = world();
    let mut several = world.commit("a", 1);
    if let Entry::Commit(commit) = &mut several {
        commit.wake_at = Some(crate::model::Timestamp::from_unix_ms(5));
    }
    let mut single = world.commit("a", 2);
    if let Entry::Commit(commit) = &mut single {
        commit.wake_at = Some(crate::model::Timestamp::from_unix_ms(5));
    }
    let round = vec![several, world.commit("b", 1), single];
    assert_eq!(world.round(round), [DONE, DONE, DONE]);
    let stored = world.disk.get(&keyspace::core("thing", "a")).unwrap().unwrap();
    assert_eq!(keyspace::CoreValue::decode(&stored).unwrap().sequence, 2);
}

#[test]
fn a_twin_that_is_no_longer_remembered_is_checked_against_what_is_stored() {
    let mut world = world();
    let round = vec![world.commit("a", 1)];
    assert_eq!(world.round(round), [DONE]);
    world.committer.hot = Hot::default();
    let round = vec![world.commit("a", 1), world.commit("a", 2)];
    assert_eq!(world.round(round), [NOT_APPLIED, DONE]);
}
