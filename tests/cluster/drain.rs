//! A node that leaves while all of its twins are in use: no call fails. How much longer calls take is printed, and has a bar
//! in an optimised build: `DRAIN_TWINS=10000 cargo test --release --test cluster a_node_that_leaves -- --nocapture`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use service_twin::{
    cluster::{
        Config, Hosting, Node, NodeId, Phase, SystemUptime,
        nats::NatsEngine,
        transport::{self, Security, Transport},
    },
    model::{Key, SystemClock},
    runtime::Runtime,
    store::{Slot, nats::NatsStore},
};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    kinds::{Add, Ledger, Read},
    servers::{Servers, until},
};

/// Callers, each with one call under way.
const CALLERS: u64 = 16;
/// How long it is watched how long calls take while nobody leaves.
const BEFORE: Duration = Duration::from_secs(3);
/// By so much the 99th percentile may grow; without optimisation, beside other tests, only that it ends is told.
const ADDED_MAX: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 1 });

struct Member {
    runtime: Runtime,
    node: Arc<Node>,
    tasks: [JoinHandle<()>; 2],
}

async fn join(store: NatsStore, name: &str) -> Member {
    let (store, id) = (Arc::new(store), NodeId::parse(name).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let engine = Arc::new(NatsEngine::open(Arc::clone(&store)).await.unwrap());
    let links = transport::Config::new("drain", id.clone(), Security::Plain);
    let wires = Arc::new(Transport::new(links.clone()));
    let node = Node::new(Config::new(id, &address, ""), engine, wires, Arc::new(SystemUptime), Arc::new(SystemClock));
    let runtime =
        Runtime::builder().kind::<Ledger>().wire::<Add>().wire::<Read>().store(store).cluster(Arc::new(node.clone()));
    let runtime = runtime.start().unwrap();
    let (listening, runs) = (node.clone(), node.clone());
    let host: Arc<dyn Hosting> = Arc::new(runtime.clone());
    let serving = tokio::spawn(async move {
        transport::serve(links, listener, listening, std::future::pending()).await.unwrap();
    });
    let running = tokio::spawn(async move { runs.run(host).await });
    Member { runtime, node, tasks: [serving, running] }
}

fn is_whole(members: &[&Member]) -> bool {
    members.iter().map(|member| member.node.held()).sum::<usize>() == usize::from(Slot::COUNT)
        && members.iter().all(|member| {
            let places = member.node.places();
            places.unowned == 0 && places.nodes.iter().all(|place| place.owned == place.wished)
        })
}

/// One call: when it began, and how long it took.
type Took = (Instant, Duration);

fn p99(took: &[Took], within: impl Fn(Instant) -> bool) -> Duration {
    let mut of: Vec<_> = took.iter().filter(|(began, _)| within(*began)).map(|(_, took)| *took).collect();
    of.sort_unstable();
    assert!(of.len() > 100, "{} calls", of.len());
    of[of.len() * 99 / 100]
}

#[test]
fn a_node_that_leaves_hands_over_its_twins_and_no_call_fails() {
    let twins = std::env::var("DRAIN_TWINS").map_or(1_000, |text| text.parse().expect("DRAIN_TWINS is a number"));
    let servers = Servers::three();
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let start = |name: &str| {
        let store = NatsStore::open(servers.config("tw", name)).unwrap();
        threads.block_on(join(store, name))
    };
    let [a, b, leaving] = ["a", "b", "c"].map(start);
    until("three nodes having their share", || is_whole(&[&a, &b, &leaving]));
    let keys: Arc<[Key]> = (0..twins).map(|at| Key::parse(&format!("shop/s{at}")).unwrap()).collect();
    let sums: Arc<[AtomicU64]> = (0..twins).map(|_| AtomicU64::new(0)).collect();
    threads.block_on(async {
        for key in &*keys {
            a.runtime.twin(key).ask(Read).await.unwrap();
        }
    });
    let over = Arc::new(AtomicBool::new(false));
    let callers = (0..CALLERS).map(|caller| {
        let runtime = if caller % 2 == 0 { a.runtime.clone() } else { b.runtime.clone() };
        let (keys, sums, over) = (keys.clone(), sums.clone(), over.clone());
        let mut rng = StdRng::seed_from_u64(caller);
        threads.spawn(async move {
            let mut calls: Vec<Took> = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let (at, by, began) = (rng.random_range(0..keys.len()), rng.random_range(0..=1), Instant::now());
                let twin = runtime.twin(&keys[at]);
                let answer = if by == 0 { twin.ask(Read).await.map(drop) } else { twin.ask(Add(by)).await.map(drop) };
                answer.expect("no call fails");
                calls.push((began, began.elapsed()));
                sums[at].fetch_add(by, Ordering::Relaxed);
            }
            calls
        })
    });
    let callers: Vec<_> = callers.collect();
    let begun = Instant::now();
    until("calls while nobody leaves", || begun.elapsed() >= BEFORE);
    let here = keys.iter().filter(|key| leaving.node.hosts(Slot::of(Key::hash_of(key)))).count();
    let began = Instant::now();
    threads.block_on(leaving.node.leave());
    let left = Instant::now();
    assert_eq!(*leaving.node.phase().borrow(), Phase::Left);
    until("two nodes having their share", || is_whole(&[&a, &b]));
    over.store(true, Ordering::Relaxed);
    let took: Vec<Took> = callers.into_iter().flat_map(|caller| threads.block_on(caller).unwrap()).collect();
    let (before, meanwhile) = (p99(&took, |at| at < began), p99(&took, |at| at >= began && at < left));
    let longest = took.iter().map(|(_, took)| *took).max().unwrap();
    eprintln!(
        "{here} of {twins} twins left with a node in {:?}: p99 {before:?} before, {meanwhile:?} meanwhile, longest {longest:?}",
        left - began
    );
    for (key, sum) in keys.iter().zip(&*sums) {
        let (found, _) = threads.block_on(async { b.runtime.twin(key).ask(Read).await.unwrap() });
        assert_eq!(found, sum.load(Ordering::Relaxed), "{key}");
    }
    assert!(meanwhile <= before + ADDED_MAX, "{before:?} before, {meanwhile:?} meanwhile");
    for member in [a, b, leaving] {
        member.tasks.iter().for_each(JoinHandle::abort);
    }
}
