//! Runtimes that share a store: each twin has its turns in one of them, and is called through any.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use compact_str::CompactString;
use parking_lot::Mutex;
use service_twin::{
    cluster::{Forwarded, Served},
    model::{Key, Outcome, Timestamp},
    runtime::{Cluster, ClusterView, Config, Door, Runtime},
    store::{self, Commit, Done, Epoch, Layer, Slot, Store, memory::MemoryStore},
    twin::{Answer, Failure, Message, Rejection, journal::Moment},
};
use tokio::sync::oneshot;

use crate::kinds::{Add, AddAndTell, Answered, AskRound, Bump, Heard, Ledger, Read, Tally, Tell, WakeMeAt};

const LONG: Duration = Duration::from_secs(20);

/// A store that is not in place, so that commits are under way for a while; or until they are let go.
struct Shared {
    below: Arc<MemoryStore>,
    held: Mutex<Option<Vec<Commit>>>,
}

impl Layer for Shared {
    fn below(&self) -> &dyn Store {
        &*self.below
    }
    fn commit(&self, commit: Commit) -> Result<(), store::Refused> {
        if let Some(held) = &mut *self.held.lock() {
            held.push(commit);
            return Ok(());
        }
        self.below.commit(commit)
    }
    // It outlives each runtime.
    fn close(&self, done: Done<()>) {
        done(Ok(()));
    }
}

/// Two runtimes that find each other by a table.
pub(crate) struct World {
    store: Arc<Shared>,
    runtimes: OnceLock<Vec<Runtime>>,
    owners: Mutex<Vec<Option<usize>>>,
    lost: Mutex<Vec<(usize, Slot, Epoch)>>,
    pub(crate) forwarded: AtomicUsize,
    pub(crate) leased: [AtomicBool; 2],
}

struct Member {
    world: Arc<World>,
    at: usize,
}

impl Cluster for Member {
    fn forward(&self, slot: Slot, call: Vec<u8>, _: Option<Timestamp>, done: Forwarded) {
        self.world.forwarded.fetch_add(1, Ordering::Relaxed);
        let world = Arc::clone(&self.world);
        runtime_of_test().spawn(async move {
            loop {
                let owner = world.owners.lock()[usize::from(slot.0)];
                if let Some(owner) = owner {
                    let (tell, told) = oneshot::channel();
                    let served = move |served| {
                        tell.send(served).ok();
                    };
                    world.runtime(owner).serve(slot, &call, Box::new(served));
                    match told.await.expect("that it was served") {
                        Served::Answer(answer) => return done(Ok(answer)),
                        Served::Elsewhere => {}
                    }
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }

    fn call(&self, node: &str, call: Vec<u8>, _: Duration, done: Forwarded) {
        let (world, node) = (Arc::clone(&self.world), node.parse::<usize>().expect("a number"));
        runtime_of_test().spawn(async move {
            let served = |served| match served {
                Served::Answer(answer) => done(Ok(answer)),
                Served::Elsewhere => done(Err(Failure::Stopping)),
            };
            world.runtime(node).serve_node(&call, Box::new(served));
        });
    }

    fn others(&self) -> Vec<CompactString> {
        vec![(1 - self.at).to_string().into()]
    }

    fn view(&self) -> ClusterView {
        ClusterView { node: self.at.to_string().into(), slots: Slot::COUNT, ..ClusterView::default() }
    }

    fn holds_lease(&self) -> bool {
        self.world.leased[self.at].load(Ordering::Relaxed)
    }

    fn claim_again(&self, slot: Slot, epoch: Epoch) {
        self.world.lost.lock().push((self.at, slot, epoch));
    }
}

/// Where the cluster's own work runs: not on the threads that hold shards.
fn runtime_of_test() -> &'static tokio::runtime::Handle {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("threads")
        })
        .handle()
}

impl World {
    /// Two runtimes; even slots are the first one's.
    pub(crate) fn start(door: &Door) -> Arc<Self> {
        let world = Arc::new(Self {
            store: Arc::new(Shared { below: Arc::new(MemoryStore::shared()), held: Mutex::default() }),
            runtimes: OnceLock::new(),
            owners: Mutex::new(vec![None; usize::from(Slot::COUNT)]),
            lost: Mutex::default(),
            forwarded: AtomicUsize::new(0),
            leased: [AtomicBool::new(true), AtomicBool::new(true)],
        });
        let start = |at| {
            let config = Config { arbiters: 2, door: door.clone(), ..Config::default() };
            let builder = Runtime::builder().config(config).store(world.store.clone()).kind::<Tally>();
            let builder = builder.kind::<Ledger>().wire::<Tell>().asks::<AskRound, Answered>().wire::<Add>();
            let builder = builder.wire::<Read>().wire::<Heard>().wire::<AddAndTell>().wire::<WakeMeAt>();
            builder.cluster(Arc::new(Member { world: Arc::clone(&world), at })).start().expect("a start")
        };
        assert!(world.runtimes.set(vec![start(0), start(1)]).is_ok());
        let keys = (0..10).map(|n| format!("k{n}")).chain((0..8).map(|n| format!("twin{n}")));
        for slot in keys.map(|key| slot_of(&key)) {
            world.give(slot, usize::from(slot.0 % 2));
        }
        world
    }

    pub(crate) fn runtime(&self, at: usize) -> &Runtime {
        &self.runtimes.get().expect("both have started")[at]
    }

    /// Claims a slot for a runtime.
    pub(crate) fn give(&self, slot: Slot, to: usize) {
        let (tell, told) = std::sync::mpsc::channel();
        self.store.below.claim(slot, None, Box::new(move |epoch| drop(tell.send(epoch))));
        self.runtime(to).own(slot, told.recv().expect("an answer").expect("an epoch"));
        self.owners.lock()[usize::from(slot.0)] = Some(to);
    }

    /// Holds commits from now on; or lets go those that are held, and holds no more.
    pub(crate) fn hold(&self, holds: bool) {
        let held = std::mem::replace(&mut *self.store.held.lock(), holds.then(Vec::new));
        for commit in held.into_iter().flatten() {
            self.store.below.commit(commit).expect("the store takes it");
        }
    }

    /// Commits that are held.
    pub(crate) fn held(&self) -> usize {
        self.store.held.lock().as_ref().map_or(0, Vec::len)
    }

    /// Until the store holds something back.
    pub(crate) async fn until_held(&self) {
        until(|| self.held() > 0).await;
    }

    async fn move_slot(&self, slot: Slot) {
        let Some(from) = self.owners.lock()[usize::from(slot.0)].take() else { return };
        assert_eq!(self.runtime(from).hand_over(slot, LONG).await, 0);
        self.give(slot, 1 - from);
    }

    pub(crate) async fn ask<M: Message>(&self, at: usize, key: &str, message: M) -> Answer<M::Reply> {
        tokio::time::timeout(LONG, async { self.runtime(at).twin(key).ask(message).await }).await.expect("an answer")
    }
}

/// Asks until it is so, for as long as that may take.
async fn until(mut is_so: impl FnMut() -> bool) {
    let asked = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, asked).await.expect("it comes about");
}

pub(crate) fn slot_of(key: &str) -> Slot {
    Slot::of(Key::hash_of(key))
}

/// A key whose twin is the runtime's.
pub(crate) fn key_of(at: usize) -> String {
    (0..10)
        .map(|number| format!("k{number}"))
        .find(|key| usize::from(slot_of(key).0 % 2) == at)
        .expect("half of all keys")
}

pub(crate) fn doors() -> [Door; 2] {
    [Door::Open, Door::Closed]
}

#[tokio::test]
async fn a_twin_answers_the_same_through_either_runtime() {
    for door in doors() {
        let world = World::start(&door);
        for key in [key_of(0), key_of(1)] {
            assert_eq!(world.ask(0, &key, Add(2)).await, Ok(2));
            assert_eq!(world.ask(1, &key, Add(3)).await, Ok(5));
            let [mine, other] = [world.ask(0, &key, Read).await, world.ask(1, &key, Read).await];
            assert_eq!((mine, other), (Ok((5, 2)), Ok((5, 2))));
            let refused = [world.ask(0, &key, Add(2_000_000)).await, world.ask(1, &key, Add(2_000_000)).await];
            assert!(matches!(&refused[0], Err(Failure::Rejected(Rejection::Limit { max: 1_000_000, .. }))));
            assert_eq!(refused[0], refused[1], "a refusal travels as it is");
            let panicked = [world.ask(0, &key, Add(666)).await, world.ask(1, &key, Add(666)).await];
            assert!(matches!(&panicked[0], Err(Failure::Panicked { .. })));
            assert_eq!(panicked[0], panicked[1]);
        }
        assert!(world.forwarded.load(Ordering::Relaxed) >= 8);
    }
}

#[tokio::test]
async fn a_message_that_is_not_registered_does_not_travel() {
    let world = World::start(&Door::Open);
    assert_eq!(world.ask(0, &key_of(0), Bump(2)).await, Ok(2));
    let refused = world.ask(1, &key_of(0), Bump(2)).await;
    assert!(matches!(&refused, Err(Failure::Unregistered { name }) if name.ends_with("Bump")), "{refused:?}");
    assert_eq!(world.ask(0, &key_of(0), Bump(0)).await, Ok(2));
}

#[tokio::test]
async fn promises_reach_twins_of_the_other_runtime_and_are_settled() {
    for door in doors() {
        let world = World::start(&door);
        let (here, there) = (key_of(0), key_of(1));
        world.ask(0, &here, AddAndTell(4, Key::parse(&there).unwrap())).await.unwrap();
        world.ask(1, &there, AskRound(vec![Key::parse(&here).unwrap()])).await.unwrap();
        let heard = |at: usize, key: String, told: usize| {
            let world = Arc::clone(&world);
            async move {
                while world.ask(at, &key, Heard).await.unwrap().0.len() < told {
                    tokio::task::yield_now().await;
                }
            }
        };
        tokio::time::timeout(LONG, heard(0, there.clone(), 1)).await.expect("what was told");
        for runtime in world.runtimes.get().unwrap() {
            assert_eq!(runtime.drain(LONG).await.unsettled, 0, "nothing stays promised");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_under_load_and_no_call_fails() {
    for door in doors() {
        let world = World::start(&door);
        let keys: Vec<String> = (0..8).map(|n| format!("twin{n}")).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..8)
            .map(|client| {
                let (world, keys, stop) = (Arc::clone(&world), keys.clone(), Arc::clone(&stop));
                tokio::spawn(async move {
                    let mut replies = Vec::new();
                    for round in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let key = &keys[(round + client) % keys.len()];
                        let reply = world.ask(client % 2, key, Add(1)).await.expect("no call fails");
                        replies.push((key.clone(), reply));
                    }
                    replies
                })
            })
            .collect();
        for round in 0..60 {
            for key in &keys[round % 4..] {
                world.move_slot(slot_of(key)).await;
            }
        }
        stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for client in clients {
            all.extend(client.await.unwrap());
        }
        for key in &keys {
            let replies: Vec<u64> = all.iter().filter(|(of, _)| of == key).map(|(_, reply)| *reply).collect();
            let distinct: BTreeSet<u64> = replies.iter().copied().collect();
            let count = u64::try_from(replies.len()).unwrap();
            assert_eq!(distinct, (1..=count).collect(), "{key}: each addition once, none lost");
            assert_eq!(world.ask(0, key, Read).await, Ok((count, count)));
        }
    }
}

#[tokio::test]
async fn a_runtime_that_lost_a_slot_commits_nothing_in_it() {
    for door in doors() {
        let world = World::start(&door);
        let key = key_of(0);
        assert_eq!(world.ask(0, &key, Add(1)).await, Ok(1));
        // The other one takes it over; this one has not heard of it.
        world.give(slot_of(&key), 1);
        assert_eq!(world.ask(1, &key, Add(10)).await, Ok(11));
        let stale = world.ask(0, &key, Add(100)).await.unwrap_err();
        assert_eq!(stale.outcome(), Outcome::NotApplied, "{stale}");
        // Its caller hears it first.
        let told = async {
            while world.lost.lock().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, told).await.expect("that it is to claim again");
        assert!(world.lost.lock().iter().all(|(at, slot, _)| *at == 0 && *slot == slot_of(&key)));
        // From then on it asks the owner.
        assert_eq!(world.ask(0, &key, Read).await, Ok((11, 2)));
        world.runtime(0).disown(slot_of(&key));
        assert_eq!(world.ask(0, &key, Add(5)).await, Ok(16));
        world.give(slot_of(&key), 0);
        world.runtime(1).disown(slot_of(&key));
        assert_eq!(world.ask(1, &key, Read).await, Ok((16, 3)), "and reads what was stored when it has it again");
    }
}

#[tokio::test]
async fn nothing_of_a_slots_former_life_is_there_when_it_is_owned_again() {
    for door in doors() {
        let world = World::start(&door);
        let key = key_of(0);
        let slot = slot_of(&key);
        for round in 0..50 {
            assert_eq!(world.ask(0, &key, Add(1)).await, Ok(11 * round + 1));
            world.give(slot, 1);
            assert_eq!(world.ask(1, &key, Add(10)).await, Ok(11 * round + 11));
            // It hears of both at once.
            world.runtime(1).disown(slot);
            world.runtime(0).disown(slot);
            world.give(slot, 0);
            assert_eq!(world.ask(0, &key, Read).await, Ok((11 * (round + 1), 2 * (round + 1))));
        }
    }
}

#[tokio::test]
async fn without_its_lease_a_runtime_does_not_answer_from_memory() {
    let world = World::start(&Door::Open);
    let key = key_of(0);
    assert_eq!(world.ask(0, &key, Add(1)).await, Ok(1));
    world.leased[0].store(false, Ordering::Relaxed);
    for at in [0, 1] {
        let read = world.ask(at, &key, Read).await;
        assert!(matches!(read, Err(Failure::Lost { outcome: Outcome::Unknown, .. })), "{read:?}");
    }
    world.leased[0].store(true, Ordering::Relaxed);
    assert_eq!(world.ask(1, &key, Read).await, Ok((1, 1)));
}

#[tokio::test]
async fn an_answer_rests_on_the_lease_of_the_owner_and_of_nobody_else() {
    let world = World::start(&Door::Open);
    world.leased[1].store(false, Ordering::Relaxed);
    assert_eq!(world.ask(1, &key_of(0), Add(1)).await, Ok(1));
    assert_eq!(world.ask(1, &key_of(0), Read).await, Ok((1, 1)));
    let refused = world.ask(1, &key_of(0), Add(2_000_000)).await;
    assert!(matches!(refused, Err(Failure::Rejected(Rejection::Limit { .. }))), "{refused:?}");
    // What no twin said needs no lease to be said.
    let refused = world.ask(1, &key_of(0), Bump(2)).await;
    assert!(matches!(refused, Err(Failure::Unregistered { .. })), "{refused:?}");
}

#[cfg(feature = "server")]
#[tokio::test]
async fn what_a_node_does_in_its_cluster_is_among_its_metrics() {
    use service_twin::{metrics::Metrics, server::vitals};
    let world = World::start(&Door::Open);
    let metrics = Metrics::new(|registry| vitals::register(world.runtime(0), registry));
    let key = key_of(0);
    assert_eq!(world.ask(0, &key, Add(1)).await, Ok(1));
    world.give(slot_of(&key), 1);
    assert!(world.ask(0, &key, Add(1)).await.is_err());
    // Its caller hears of it first.
    until(|| metrics.text().contains("twin_commits_fenced_total{kind=\"ledger\"} 1")).await;
    let text = metrics.text();
    for line in [
        "twin_commits_unknown_total{kind=\"ledger\"} 0",
        "twin_cluster_nodes{state=\"up\"} 0",
        "twin_cluster_slots{slots=\"misplaced\"} 0",
        "twin_cluster_claims_total{result=\"won\"} 0",
        "twin_cluster_calls_total{calls=\"lost\"} 0",
        "twin_cluster_lease_left_seconds 0.0",
        "twin_cluster_forward_duration_seconds_count 0",
        "twin_cluster_telemetry_lost_total 0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

/// Follows one twin through a runtime: what happened live, and by its journal what may have been missed.
async fn revisions(world: &World, at: usize, key: &str, upto: u64, begun: oneshot::Sender<()>) -> Vec<u64> {
    let runtime = world.runtime(at);
    let mut watch = runtime.watch_twin::<Ledger>(&Key::parse(key).expect("a key"), None);
    begun.send(()).ok();
    let (mut seen, mut last) = (Vec::new(), 0);
    while last < upto {
        match watch.next().await {
            Ok(event) if event.revision <= last => {}
            Ok(event) => {
                seen.push(event.revision);
                last = event.revision;
            }
            Err(_) => loop {
                let past = runtime.twin(key).events::<Ledger>(last).await.expect("its journal");
                seen.extend(past.events.iter().map(|told| told.revision));
                last = last.max(past.upto);
                if past.upto >= past.newest {
                    break;
                }
            },
        }
    }
    seen
}

#[tokio::test]
async fn a_watch_follows_a_twin_that_moves_without_a_gap() {
    for door in doors() {
        let world = World::start(&door);
        let followers: Vec<_> = (0..2)
            .map(|at| {
                let world = Arc::clone(&world);
                runtime_of_test().spawn(async move { world.runtime(at).follow_others().await })
            })
            .collect();
        let key = key_of(0);
        let readers: Vec<_> = (0..2)
            .map(|at| {
                let (world, key, (begin, begun)) = (Arc::clone(&world), key.clone(), oneshot::channel());
                (begun, runtime_of_test().spawn(async move { revisions(&world, at, &key, 60, begin).await }))
            })
            .collect();
        let mut reading = Vec::new();
        for (begun, reader) in readers {
            begun.await.unwrap();
            reading.push(reader);
        }
        for round in 1..=60 {
            assert_eq!(world.ask(round % 2, &key, Add(1)).await, Ok(u64::try_from(round).unwrap()));
            if round % 7 == 0 {
                world.move_slot(slot_of(&key)).await;
            }
        }
        for reader in reading {
            let seen = tokio::time::timeout(LONG, reader).await.expect("every event").unwrap();
            assert_eq!(seen, (1..=60).collect::<Vec<u64>>(), "each once, in order");
        }
        for follower in followers {
            follower.abort();
        }
    }
}

#[tokio::test]
async fn twins_are_found_and_their_past_is_read_through_either_runtime() {
    let world = World::start(&Door::Open);
    for key in [key_of(0), key_of(1)] {
        for at in [0, 1] {
            world.ask(at, &key, Add(2)).await.unwrap();
        }
        for at in [0, 1] {
            let (found, more) = world.runtime(at).find::<Ledger>(vec!["parity=even".into()], None, 10).await.unwrap();
            assert!(found.iter().any(|found| found.key.as_str() == key) && !more);
            let past = world.runtime(at).twin(&key).at(Moment::Revision(1)).ask(Read).await;
            assert_eq!(past, Ok((2, 1)));
        }
    }
}

#[tokio::test]
async fn a_reminder_fires_where_the_slot_went() {
    let world = World::start(&Door::Open);
    let key = key_of(0);
    let soon = world.runtime(0).now().after(Duration::from_millis(300));
    world.ask(0, &key, WakeMeAt(soon)).await.unwrap();
    world.move_slot(slot_of(&key)).await;
    let before = world.runtime(1).counts();
    tokio::time::timeout(LONG, async {
        // A read would activate it; the counts say that it was woken by nobody's call.
        while world.runtime(1).counts() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the reminder");
    assert_eq!(world.ask(1, &key, Heard).await.unwrap().1, 1);
}

#[tokio::test]
async fn a_signal_is_heard_by_whoever_waits_on_either_runtime() {
    let world = World::start(&Door::Open);
    let key = Key::parse(&key_of(0)).unwrap();
    let followers: Vec<_> = (0..2)
        .map(|at| {
            let world = Arc::clone(&world);
            runtime_of_test().spawn(async move { world.runtime(at).follow_others().await })
        })
        .collect();
    let waiting = [0, 1].map(|at| world.runtime(at).signals::<Ledger>(&key));
    // The first may be heard because whoever begins to wait may have missed something; the others are given.
    for round in 0..6 {
        let heard = waiting.each_ref().map(|waiting| {
            let mut heard = Box::pin(waiting.next());
            heard.as_mut().enable();
            heard
        });
        world.runtime(round % 2).signal::<Ledger>(&key);
        for heard in heard {
            tokio::time::timeout(LONG, heard).await.expect("the signal");
        }
    }
    followers.iter().for_each(tokio::task::JoinHandle::abort);
}
