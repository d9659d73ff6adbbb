//! One run: a cluster in bad weather under load, then healed, then checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};
use service_twin::{
    cluster::{Config, Node, NodeId, State, memory::Records, placement::wish},
    model::{Clock, Outcome, Timestamp},
    store::Slot,
};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    check::{Call, contradiction},
    host::{Door, Host, Lists, READ, Told},
    net::{Net, Process, Shared},
};

/// Slots of a small cluster.
const SLOTS: u16 = 12;
/// How long a healed cluster may take until it is whole: a lease, and what was on its way.
const HEAL: Duration = Duration::from_secs(90);

/// Whether the store checks the epoch of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// It does.
    Up,
    /// It does not: the world must notice.
    Down,
}

struct Wall(Instant);

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000).after(self.0.elapsed())
    }
}

/// A process that runs.
struct Running {
    process: Arc<Process>,
    host: Arc<Host>,
    node: Arc<Node>,
    run: JoinHandle<()>,
}

struct World {
    shared: Arc<Shared>,
    records: Records,
    lists: Arc<Lists>,
    names: Vec<NodeId>,
    running: Mutex<BTreeMap<NodeId, Running>>,
    started: AtomicU64,
    calls: Mutex<Vec<Call>>,
    order: AtomicU64,
    over: AtomicBool,
}

/// Runs one seed; answers its trace.
pub fn run(seed: u64, fence: Fence) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let world = World::new(seed, fence);
        let result = world.play().await;
        let trace = world.shared.trace.lock().clone();
        result.map(|()| trace.clone()).map_err(|why| format!("{why}\n{trace}"))
    })
}

impl World {
    fn new(seed: u64, fence: Fence) -> Arc<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let nodes = rng.random_range(2..=5);
        let records = Records::default();
        let lists = Lists { records: records.clone(), fence, of: Mutex::default(), broken: Mutex::default() };
        let shared = Shared {
            rng: Mutex::new(rng),
            begun: Instant::now(),
            trace: Mutex::default(),
            bad: AtomicBool::new(true),
            cuts: Mutex::default(),
            processes: Mutex::default(),
        };
        Arc::new(Self {
            shared: Arc::new(shared),
            records,
            lists: Arc::new(lists),
            names: (0..nodes).map(|at| NodeId::parse(&format!("n{at}")).expect("a plain name")).collect(),
            running: Mutex::default(),
            started: AtomicU64::new(0),
            calls: Mutex::default(),
            order: AtomicU64::new(1),
            over: AtomicBool::new(false),
        })
    }

    fn start(&self, name: &NodeId) {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let process = Process::new(&self.shared, name.clone(), format!("{name}:{number}"));
        let mut config = Config::new(name.clone(), &process.address, "");
        config.slots = SLOTS;
        config.moves_max = 4;
        config.seed = number;
        config.alone = self.shared.one_in(2);
        let engine = Arc::new(self.records.by(process.clone()));
        let links = Arc::new(Net(process.clone()));
        let node = Node::new(config, engine, links, process.clone(), Arc::new(Wall(self.shared.begun)));
        *process.node.lock() = Some(node.clone());
        let host = Host::new(process.clone(), self.lists.clone());
        self.shared.say(format_args!("{name} starts as {}", process.address));
        self.shared.processes.lock().push(process.clone());
        let run = {
            let (node, door) = (node.clone(), Arc::new(Door(host.clone())));
            tokio::spawn(async move { node.run(door).await })
        };
        self.running.lock().insert(name.clone(), Running { process, host, node, run });
    }

    fn stop(&self, name: &NodeId) {
        if let Some(running) = self.running.lock().remove(name) {
            running.process.die();
            running.run.abort();
            self.shared.processes.lock().retain(|process| !Arc::ptr_eq(process, &running.process));
        }
    }

    fn any_running(&self) -> Option<Arc<Node>> {
        let running = self.running.lock();
        let nodes: Vec<_> = running.values().map(|running| running.node.clone()).collect();
        (!nodes.is_empty()).then(|| nodes[self.draw_index(nodes.len())].clone())
    }

    fn draw_index(&self, of: usize) -> usize {
        let of = u64::try_from(of).expect("few");
        usize::try_from(self.shared.draw(of)).expect("few")
    }

    async fn play(self: &Arc<Self>) -> Result<(), String> {
        for name in &self.names {
            self.start(name);
        }
        let clients: Vec<_> = (0..3).map(|at| tokio::spawn(self.clone().client(at))).collect();
        let troubles = self.shared.draw(12) + 3;
        for _ in 0..troubles {
            sleep(Duration::from_millis(self.shared.draw(15_000))).await;
            self.trouble();
            self.broken()?;
        }
        self.heal();
        sleep(HEAL).await;
        self.over.store(true, Ordering::Relaxed);
        for client in clients {
            timeout(Duration::from_secs(60), client)
                .await
                .map_err(|_| "a call never ends")?
                .map_err(|e| e.to_string())?;
        }
        self.broken()?;
        self.whole()?;
        contradiction(&self.calls.lock(), &self.lists.of.lock()).map_or(Ok(()), Err)
    }

    fn broken(&self) -> Result<(), String> {
        self.lists.broken.lock().clone().map_or(Ok(()), Err)
    }

    /// Something goes wrong, or back to right.
    fn trouble(self: &Arc<Self>) {
        let name = self.names[self.draw_index(self.names.len())].clone();
        let other = self.names[self.draw_index(self.names.len())].clone();
        let now = Instant::now();
        let long = Duration::from_millis(self.shared.draw(45_000));
        let running = self.running.lock().get(&name).map(|running| (running.process.clone(), running.node.clone()));
        let kind = self.shared.draw(8);
        match (kind, running) {
            (_, None) => self.start(&name),
            (0 | 1, Some(_)) => {
                self.shared.say(format_args!("{name} crashes"));
                self.stop(&name);
            }
            (2, Some((process, _))) => {
                self.shared.say(format_args!("{name} stands still for {} ms", long.as_millis()));
                *process.paused.lock() = now + long;
            }
            (3, Some((process, _))) => {
                self.shared.say(format_args!("{name} does not reach the store for {} ms", long.as_millis()));
                *process.cut_off.lock() = now + long;
            }
            (4, Some(_)) if name != other => {
                self.shared.say(format_args!("{name} and {other} do not reach each other"));
                self.shared.cuts.lock().insert((name, other));
            }
            (5, Some(_)) if self.shared.one_in(3) => {
                self.shared.say(format_args!("the store loses who is present"));
                self.records.lose_presence();
            }
            (6, Some((_, node))) => {
                self.shared.say(format_args!("{name} leaves"));
                let world = self.clone();
                tokio::spawn(async move {
                    node.leave().await;
                    world.shared.say(format_args!("{name} has left"));
                    if world.running.lock().get(&name).is_some_and(|running| Arc::ptr_eq(&running.node, &node)) {
                        world.stop(&name);
                    }
                });
            }
            (_, Some(_)) => self.shared.cuts.lock().clear(),
        }
    }

    fn heal(&self) {
        self.shared.say(format_args!("healed"));
        self.shared.bad.store(false, Ordering::Relaxed);
        self.shared.cuts.lock().clear();
        let now = Instant::now();
        for running in self.running.lock().values() {
            *running.process.paused.lock() = now;
            *running.process.cut_off.lock() = now;
        }
        let missing: Vec<_> = {
            let running = self.running.lock();
            self.names.iter().filter(|name| !running.contains_key(*name)).cloned().collect()
        };
        // One node at least is there, whoever leaves.
        for name in missing {
            self.start(&name);
        }
    }

    /// Whether every slot is owned, once, by the node it is wished to, which hosts it.
    fn whole(&self) -> Result<(), String> {
        let running = self.running.lock();
        if running.is_empty() {
            return Ok(());
        }
        let names: BTreeSet<_> = running.keys().cloned().collect();
        let present: BTreeMap<_, _> = self.records.nodes().into_iter().collect();
        for name in &names {
            let state = present.get(name).map(|presence| presence.state);
            if state != Some(State::Up) {
                return Err(format!("{name} is {state:?} in a healed cluster"));
            }
        }
        for slot in (0..SLOTS).map(Slot) {
            let wished = wish(slot, &names);
            let owner = self.records.owner(slot).ok_or(format!("nobody ever owned {}", slot.0))?;
            if owner.released || Some(&owner.node) != wished {
                return Err(format!("slot {} is wished to {wished:?} and its record is {owner:?}", slot.0));
            }
            let hosts = running.iter().filter_map(|(name, running)| {
                let hosted = running.host.slots();
                hosted.iter().find(|(hosted, _)| *hosted == slot).map(|(_, epoch)| (name.clone(), *epoch))
            });
            let hosts: Vec<_> = hosts.collect();
            if hosts != [(owner.node.clone(), owner.epoch)] {
                return Err(format!("slot {} is owned by {owner:?} and hosted by {hosts:?}", slot.0));
            }
        }
        Ok(())
    }

    /// Asks one thing after the other.
    async fn client(self: Arc<Self>, number: u32) {
        let mut operation = number * 100_000;
        while !self.over.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(100 + self.shared.draw(1500))).await;
            let Some(node) = self.any_running() else { continue };
            let slot = Slot(u16::try_from(self.shared.draw(u64::from(SLOTS))).expect("few"));
            operation += 1;
            let asked = if self.shared.one_in(3) { READ } else { operation };
            let at = {
                let mut calls = self.calls.lock();
                calls.push(Call { slot, operation: asked, begun: self.tick(), ended: None });
                calls.len() - 1
            };
            let deadline = Wall(self.shared.begun).now().after(Duration::from_millis(500 + self.shared.draw(20_000)));
            let (tell, heard) = oneshot::channel();
            let done = Box::new(move |answer| drop(tell.send(answer)));
            node.forward(slot, asked.to_le_bytes().to_vec(), Some(deadline), done);
            let told = match heard.await {
                Ok(Ok(answer)) => Told::decode(&answer),
                Ok(Err(failure)) => match failure.outcome() {
                    Outcome::NotApplied => Told::Not,
                    Outcome::Unknown => Told::Unknown,
                },
                Err(_) => Told::Unknown,
            };
            self.shared.say(format_args!("client {number}: {asked} on {} is {told:?}", slot.0));
            self.calls.lock()[at].ended = Some((self.tick(), told));
        }
    }

    fn tick(&self) -> u64 {
        self.order.fetch_add(1, Ordering::Relaxed)
    }
}
