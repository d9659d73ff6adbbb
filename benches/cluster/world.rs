//! Servers, and nodes of a cluster in this process.

use std::{sync::Arc, time::Duration};

use service_twin::{
    cluster::{
        Config, Hosting, Node, NodeId, Phase, SystemUptime,
        nats::NatsEngine,
        transport::{self, Security, Transport},
    },
    model::{Key, SystemClock},
    runtime::{self, Runtime},
    store::{
        Scan, Slot, Store as _,
        nats::{Login, NatsConfig, NatsStore},
    },
    twin::Twin as _,
};
use tokio::{net::TcpListener, runtime::Handle, task::JoinHandle};

use crate::{
    servers::{Servers, until},
    workloads::{
        Client, Host, Lap, Plan,
        ours::{Counter, Entity, Increment, Read},
    },
};

/// Streams of a cluster, as a node has them that is told nothing.
pub(crate) const STREAMS: u16 = 16;

/// Three servers, and the threads on which everything else runs.
pub(crate) struct World {
    host: Host,
    servers: Servers,
    cpus: usize,
}

/// One node.
pub(crate) struct Member {
    pub(crate) runtime: Runtime,
    pub(crate) node: Arc<Node>,
    store: Arc<NatsStore>,
    tasks: [JoinHandle<()>; 2],
}

impl World {
    pub(crate) fn start(cpus: usize) -> Self {
        Self { host: Host::start(cpus), servers: Servers::three(), cpus }
    }

    /// Runs the loops of one lap beside the nodes.
    pub(crate) fn run<C: Client>(&self, plan: Plan, make: impl FnMut(u64) -> C) -> Lap {
        self.host.run(plan, make)
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.host.handle()
    }

    /// How a node reaches the servers.
    pub(crate) fn config(&self, prefix: &str, node: &str) -> NatsConfig {
        NatsConfig { streams: STREAMS, ..self.servers.config(prefix, node) }
    }

    /// A store over the servers, once these know each other.
    pub(crate) fn store(&self, prefix: &str, node: &str) -> NatsStore {
        let mut opened = None;
        until("the servers knowing each other", || {
            opened = NatsStore::open(self.config(prefix, node)).ok();
            opened.is_some()
        });
        opened.unwrap()
    }

    /// Starts nodes that share all slots as placement wishes it.
    pub(crate) fn members(&self, count: usize) -> Vec<Member> {
        let members: Vec<_> = (0..count).map(|at| self.member(&format!("n{at}"))).collect();
        until("all slots being where they belong", || is_whole(&members));
        members.iter().for_each(Member::when_loaded);
        members
    }

    /// Starts one node, and does not wait for its slots.
    pub(crate) fn member(&self, name: &str) -> Member {
        let store = Arc::new(self.store("tw", name));
        self.host.handle().block_on(async {
            let id = NodeId::parse(name).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let engine = Arc::new(NatsEngine::open(Arc::clone(&store)).await.unwrap());
            let links = transport::Config::new("bench", id.clone(), Security::Plain);
            let transport = Arc::new(Transport::new(links.clone()));
            let config = Config::new(id, &address, "");
            let node = Node::new(config, engine, transport, Arc::new(SystemUptime), Arc::new(SystemClock));
            let config = runtime::Config { arbiters: self.cpus, ..runtime::Config::default() };
            let kinds = Runtime::builder().kind::<Counter>().kind::<Entity>();
            let wires = kinds.wire::<Increment<Counter>>().wire::<Read<Counter>>();
            let wires = wires.wire::<Increment<Entity>>().wire::<Read<Entity>>();
            let runtime = wires.config(config).store(store.clone()).cluster(Arc::new(node.clone())).start().unwrap();
            let (listening, runs) = (node.clone(), node.clone());
            let hosting: Arc<dyn Hosting> = Arc::new(runtime.clone());
            let serving = tokio::spawn(async move {
                transport::serve(links, listener, listening, std::future::pending()).await.unwrap();
            });
            let running = tokio::spawn(async move { runs.run(hosting).await });
            Member { runtime, node, store, tasks: [serving, running] }
        })
    }

    /// Lets a node give everything away and leave.
    pub(crate) fn leave(&self, member: &Member) {
        self.host.handle().block_on(async {
            member.node.leave().await;
            assert_eq!(*member.node.phase().borrow(), Phase::Left);
            member.runtime.drain(Duration::from_secs(10)).await;
        });
        member.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Member {
    /// Waits until it knows the records of its slots.
    pub(crate) fn when_loaded(&self) {
        until("the records of all slots being known", || {
            let (tell, told) = std::sync::mpsc::channel();
            let find = Scan::Find { kind: Entity::KIND.into(), terms: Vec::new(), after: None, limit: 1 };
            self.store.scan(find, Box::new(move |found| tell.send(found.is_ok()).unwrap()));
            told.recv().unwrap()
        });
    }

    /// Whether it hosts an id.
    pub(crate) fn hosts(&self, id: &str) -> bool {
        self.node.hosts(Slot::of(Key::hash_of(id)))
    }
}

/// Whether every slot is where it is to be, and every node may answer.
pub(crate) fn is_whole(members: &[Member]) -> bool {
    members.iter().all(|member| {
        let places = member.node.places();
        member.node.holds_lease()
            && places.unowned == 0
            && places.nodes.len() == members.len()
            && places.nodes.iter().all(|placed| placed.owned == placed.wished)
    }) && members.iter().map(|member| member.node.held()).sum::<usize>() == usize::from(Slot::COUNT)
}

/// A client of the servers, as bare as it comes.
pub(crate) async fn connect(config: &NatsConfig) -> async_nats::Client {
    let Login::Password { user, password } = &config.login else { panic!("the servers ask for a password") };
    let (certificate, key) = config.tls.client.clone().unwrap();
    let options = async_nats::ConnectOptions::new().user_and_password(user.clone(), password.clone());
    let options = options.add_root_certificates(config.tls.ca.clone().unwrap()).require_tls(true);
    options.add_client_certificate(certificate, key).connect(&config.servers).await.unwrap()
}

/// The stream of a slot.
pub(crate) fn place_of(slot: Slot) -> u16 {
    u16::try_from(u32::from(slot.0) * u32::from(STREAMS) / u32::from(Slot::COUNT)).unwrap()
}
