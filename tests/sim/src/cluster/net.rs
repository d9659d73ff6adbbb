//! What lies between processes: delays, losses, pauses, cuts.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rand::{Rng, rngs::StdRng};
use service_twin::cluster::{
    Links, Node, NodeId, Soon, Uptime,
    link::{Ask, Broken, Heard, Listening, Note, Peer, Reply},
    memory::Way,
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until, timeout},
};

/// Longest passage on a good day, in milliseconds.
const DELAY_MS_MAX: u64 = 8;
/// One passage in so many is lost in bad weather.
const LOST_ONE_IN: u32 = 60;
/// One passage in so many takes up to a second in bad weather.
const SLOW_ONE_IN: u32 = 40;

/// What all processes of a world share.
pub struct Shared {
    pub rng: Mutex<StdRng>,
    pub begun: Instant,
    pub trace: Mutex<String>,
    /// Whether things go wrong.
    pub bad: AtomicBool,
    /// Pairs of names that do not reach each other.
    pub cuts: Mutex<BTreeSet<(NodeId, NodeId)>>,
    pub processes: Mutex<Vec<Arc<Process>>>,
}

impl Shared {
    /// Writes down what happens.
    pub fn say(&self, what: std::fmt::Arguments<'_>) {
        let mut trace = self.trace.lock();
        writeln!(trace, "{:>7} {what}", self.begun.elapsed().as_millis()).expect("a string takes anything");
    }

    pub fn draw(&self, up_to: u64) -> u64 {
        self.rng.lock().random_range(0..up_to.max(1))
    }

    pub fn one_in(&self, of: u32) -> bool {
        self.rng.lock().random_ratio(1, of)
    }

    pub fn is_bad(&self) -> bool {
        self.bad.load(Ordering::Relaxed)
    }

    /// The process that listens at an address.
    pub fn at(&self, address: &str) -> Option<Arc<Process>> {
        self.processes.lock().iter().find(|process| process.address == address && process.lives()).cloned()
    }

    fn is_cut(&self, one: &NodeId, other: &NodeId) -> bool {
        let cuts = self.cuts.lock();
        cuts.contains(&(one.clone(), other.clone())) || cuts.contains(&(other.clone(), one.clone()))
    }
}

/// One process of a node.
pub struct Process {
    pub shared: Arc<Shared>,
    pub name: NodeId,
    pub address: String,
    /// How fast its clock runs.
    pub rate: f64,
    lives: AtomicBool,
    /// Until when it stands still, and until when it does not reach the store.
    pub paused: Mutex<Instant>,
    pub cut_off: Mutex<Instant>,
    pub node: Mutex<Option<Arc<Node>>>,
}

impl Process {
    pub fn new(shared: &Arc<Shared>, name: NodeId, address: String) -> Arc<Self> {
        let rate = shared.rng.lock().random_range(0.95..1.05);
        let now = Instant::now();
        Arc::new(Self {
            shared: Arc::clone(shared),
            name,
            address,
            rate,
            lives: AtomicBool::new(true),
            paused: Mutex::new(now),
            cut_off: Mutex::new(now),
            node: Mutex::new(None),
        })
    }

    pub fn lives(&self) -> bool {
        self.lives.load(Ordering::Relaxed)
    }

    pub fn die(&self) {
        self.lives.store(false, Ordering::Relaxed);
    }

    /// Does nothing while it stands still.
    pub async fn awake(&self) {
        loop {
            let until = *self.paused.lock();
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    /// One passage over a network; `false` if it is lost.
    async fn passage(&self) -> bool {
        let shared = &self.shared;
        let mut delay = shared.draw(DELAY_MS_MAX);
        if shared.is_bad() {
            if shared.one_in(LOST_ONE_IN) {
                return false;
            }
            if shared.one_in(SLOW_ONE_IN) {
                delay += shared.draw(1000);
            }
        }
        sleep(Duration::from_millis(delay)).await;
        true
    }
}

impl Uptime for Process {
    fn now(&self) -> Duration {
        (Instant::now() - self.shared.begun).mul_f64(self.rate) + Duration::from_secs(1)
    }
}

/// The way to the shared store.
impl Way for Process {
    fn pass(&self) -> Soon<'_, bool> {
        Box::pin(async {
            self.awake().await;
            let until = *self.cut_off.lock();
            if until > Instant::now() {
                sleep_until(until.min(Instant::now() + Duration::from_secs(20))).await;
                return false;
            }
            self.passage().await
        })
    }
}

/// The ways to other processes.
pub struct Net(pub Arc<Process>);

impl Net {
    async fn asked(from: Arc<Process>, to: Peer, ask: Ask) -> Result<Reply, Broken> {
        let within = ask.within;
        from.awake().await;
        let not_sent = || Err(Broken::NotSent("no connection".into()));
        if !from.lives() || from.shared.is_cut(&from.name, &to.node) || from.shared.at(&to.address).is_none() {
            sleep(Duration::from_millis(1)).await;
            return not_sent();
        }
        // Sent: from here on, nothing is certain without an answer.
        let sent = tokio::spawn(async move {
            if !from.passage().await {
                return None;
            }
            let other = from.shared.at(&to.address)?;
            other.awake().await;
            let node = other.node.lock().clone().filter(|_| other.lives())?;
            let (tell, told) = oneshot::channel();
            node.asked(ask, Box::new(move |reply| drop(tell.send(reply))));
            let reply = told.await.ok()?;
            other.awake().await;
            let arrives = other.lives() && other.passage().await && !from.shared.is_cut(&from.name, &to.node);
            from.awake().await;
            arrives.then_some(reply)
        });
        let lost = || Err(Broken::Unanswered("no answer".into()));
        match timeout(within, sent).await {
            Ok(Ok(Some(reply))) => Ok(reply),
            Ok(_) => lost(),
            Err(_) => lost(),
        }
    }
}

impl Links for Net {
    fn ask(&self, to: Peer, ask: Ask, heard: Heard) {
        let from = Arc::clone(&self.0);
        tokio::spawn(async move { heard(Self::asked(from, to, ask).await) });
    }

    fn tell(&self, to: Peer, note: Note) {
        let from = Arc::clone(&self.0);
        tokio::spawn(async move {
            if from.lives() && !from.shared.is_cut(&from.name, &to.node) && from.passage().await {
                let Some(other) = from.shared.at(&to.address) else { return };
                other.awake().await;
                let node = other.node.lock().clone();
                if let Some(node) = node {
                    node.told(note);
                }
            }
        });
    }
}
