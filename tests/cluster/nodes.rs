//! Nodes over real servers and real connections: who owns what, and what becomes of it when a node leaves or dies.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use service_twin::{
    cluster::{
        Config, Hosting, Node, NodeId, Phase, Served, ServedTo, Soon, SystemUptime, nats::NatsEngine, placement::wish,
        transport,
    },
    model::SystemClock,
    store::{Epoch, Slot, nats::NatsStore},
};
use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot, task::JoinHandle};

use crate::servers::{Servers, until};

const SLOTS: u16 = 48;

/// Says who it is.
struct Host {
    name: String,
    slots: Mutex<BTreeMap<Slot, Epoch>>,
}

impl Hosting for Host {
    fn own(&self, slot: Slot, epoch: Epoch) {
        self.slots.lock().unwrap().insert(slot, epoch);
    }

    fn disown(&self, slot: Slot) {
        self.slots.lock().unwrap().remove(&slot);
    }

    fn hand_over(&self, slot: Slot) -> Soon<'_, ()> {
        self.disown(slot);
        Box::pin(std::future::ready(()))
    }

    fn serve(&self, slot: Slot, call: Vec<u8>, done: ServedTo) {
        let is_here = self.slots.lock().unwrap().contains_key(&slot);
        let answer = || [self.name.as_bytes(), &call].concat();
        done(if is_here { Served::Answer(answer()) } else { Served::Elsewhere });
    }

    fn serve_node(&self, call: Vec<u8>, done: ServedTo) {
        done(Served::Answer([self.name.as_bytes(), &call].concat()));
    }
}

struct Member {
    id: NodeId,
    host: Arc<Host>,
    node: Arc<Node>,
    run: JoinHandle<()>,
    serve: JoinHandle<()>,
}

async fn join(store: NatsStore, name: &str) -> Member {
    let id = NodeId::parse(name).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut config = Config::new(id.clone(), &address, "");
    config.slots = SLOTS;
    config.ttl = Duration::from_secs(3);
    config.renew_every = Duration::from_millis(500);
    config.margin = Duration::from_millis(500);
    let engine = Arc::new(NatsEngine::open(Arc::new(store)).await.unwrap());
    let wires = transport::Config::new("test", id.clone(), transport::Security::Plain);
    let links = Arc::new(transport::Transport::new(wires.clone()));
    let node = Node::new(config, engine, links, Arc::new(SystemUptime), Arc::new(SystemClock));
    let host = Arc::new(Host { name: name.into(), slots: Mutex::default() });
    let listening = node.clone();
    let serve =
        tokio::spawn(
            async move { transport::serve(wires, listener, listening, std::future::pending()).await.unwrap() },
        );
    let run = {
        let (node, host) = (node.clone(), host.clone());
        tokio::spawn(async move { node.run(host).await })
    };
    Member { id, host, node, run, serve }
}

/// Whether each slot is hosted by the one it is wished to, and by no other.
fn is_whole(members: &[&Member]) -> bool {
    (0..SLOTS).map(Slot).all(|slot| {
        let wished = wish(slot, members.iter().map(|member| &member.id)).unwrap();
        let hosts = |member: &&&Member| member.host.slots.lock().unwrap().contains_key(&slot);
        members.iter().filter(hosts).map(|member| &member.id).eq([wished])
    })
}

/// Asks every slot by way of one node; answers who said something.
fn ask_all(runtime: &Runtime, by: &Member) -> Vec<String> {
    let asks = (0..SLOTS).map(|slot| {
        let (tell, told) = oneshot::channel();
        let done = Box::new(move |answer| drop(tell.send(answer)));
        by.node.forward(Slot(slot), b"!".to_vec(), None, done);
        told
    });
    let asks: Vec<_> = asks.collect();
    asks.into_iter().map(|told| String::from_utf8(runtime.block_on(told).unwrap().unwrap()).unwrap()).collect()
}

fn wished(members: &[&Member]) -> Vec<String> {
    let name = |slot| wish(slot, members.iter().map(|member| &member.id)).unwrap().to_string() + "!";
    (0..SLOTS).map(Slot).map(name).collect()
}

#[test]
fn slots_follow_nodes_that_come_leave_and_die() {
    let servers = Servers::one();
    let runtime = Runtime::new().unwrap();
    let start = |name: &str| {
        let store = NatsStore::open(servers.config("tw", name)).unwrap();
        runtime.block_on(join(store, name))
    };
    let a = start("a");
    until("one node has everything", || is_whole(&[&a]));
    let (b, c) = (start("b"), start("c"));
    until("three nodes have their share", || is_whole(&[&a, &b, &c]));
    assert!(a.node.holds_lease() && b.node.holds_lease());
    for member in [&a, &b, &c] {
        assert_eq!(ask_all(&runtime, member), wished(&[&a, &b, &c]));
    }

    let counts = a.node.counts();
    assert!(counts.claims_won >= u64::from(SLOTS) && counts.handed_over > 0, "{counts:?}");
    assert_eq!((counts.forwarded, counts.took_us.count()), (u64::from(SLOTS), u64::from(SLOTS)), "{counts:?}");
    assert!(b.node.counts().served > 0 && a.node.waiting() == 0);
    let places = a.node.places();
    assert_eq!((places.unowned, places.misplaced, places.moving), (0, 0, 0));
    assert!(a.node.lease_left() > Duration::ZERO);

    // Calls that come while a node leaves wait, and are answered by whoever has the slot then.
    let leaving = c.node.clone();
    let left = runtime.spawn(async move { leaving.leave().await });
    let answers = ask_all(&runtime, &a);
    assert!(answers.iter().all(|answer| answer.ends_with('!')));
    runtime.block_on(left).unwrap();
    assert_eq!(*c.node.phase().borrow(), Phase::Left);
    until("two nodes have their share", || is_whole(&[&a, &b]));
    assert_eq!(c.node.held(), 0);
    assert_eq!(ask_all(&runtime, &b), wished(&[&a, &b]));

    b.run.abort();
    b.serve.abort();
    until("the one that is left has everything", || is_whole(&[&a]));
    assert_eq!(ask_all(&runtime, &a), wished(&[&a]));
    let dead = a.node.nodes().into_iter().find(|(node, _)| *node == b.id).unwrap().1;
    assert_eq!(dead.state, service_twin::cluster::State::Dead);
    c.run.abort();
    a.run.abort();
}
