//! Three nodes and three servers as processes, a workload whose clients write down what they sent and heard, and faults.
//!
//! Each client reads a number with its version and writes the next one if the version is still the same. So every number
//! is written by one client at most, and what a reader sees never goes back. That is checked against the clock of the
//! test: a read that begins after a number was acknowledged, or seen, sees that one or a later one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use reqwest::{Client, StatusCode};
use tempfile::TempDir;

use crate::servers::{binary, until};

/// How long a node that says nothing counts as alive here.
const TTL_S: &str = "5";
/// Twins of the workload, and clients of each.
const TWINS: usize = 12;
const CLIENTS: usize = 2;
/// A request that takes longer than this has an unknown outcome.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// All twins answer again after this, whatever died, on a machine that does everything itself.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

struct Fleet {
    folder: PathBuf,
    http: Vec<String>,
    servers: Vec<Option<Child>>,
    nodes: Vec<Option<Child>>,
    key: String,
    _keep: TempDir,
}

/// A first port such that all that follow from it are free.
fn first_port() -> u16 {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut rng = rand::rng();
    loop {
        let first = rng.random_range(20_000..27_000);
        let servers = (first..first + 3).chain(first + 2000..first + 2003);
        let nodes = (0..3).flat_map(|at| [first + 100 + 10 * at, first + 101 + 10 * at]);
        if servers.chain(nodes).all(free) {
            return first;
        }
    }
}

fn log(folder: &Path, name: &str) -> Stdio {
    let file = fs::OpenOptions::new().create(true).append(true).open(folder.join(name)).unwrap();
    Stdio::from(file)
}

impl Fleet {
    /// Everything that `twin cluster init` writes, started.
    fn start() -> Self {
        let keep = tempfile::tempdir().unwrap();
        let folder = keep.path().join("fleet");
        let first = first_port();
        let ports = [first, first + 100, first + 101].map(|port| port.to_string());
        let mut init = Command::new(env!("CARGO_BIN_EXE_twin"));
        let init = init.args(["cluster", "init"]).arg(&folder).arg("--ports").args(&ports).output().unwrap();
        assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        let http = (0..3).map(|at| format!("http://127.0.0.1:{}", first + 100 + 10 * at)).collect();
        let none = || (0..3).map(|_| None).collect();
        let mut fleet = Self { folder, http, servers: none(), nodes: none(), key: String::new(), _keep: keep };
        (0..3).for_each(|at| fleet.start_server(at));
        (0..3).for_each(|at| fleet.start_node(at));
        until("the first key", || fleet.find_key());
        fleet
    }

    fn start_server(&mut self, at: usize) {
        let mut server = Command::new(binary());
        server.arg("-c").arg(self.folder.join(format!("server-{}.conf", at + 1)));
        let name = format!("server-{}.log", at + 1);
        let (out, err) = (log(&self.folder, &name), log(&self.folder, &name));
        self.servers[at] = Some(server.stdout(out).stderr(err).spawn().unwrap());
    }

    fn start_node(&mut self, at: usize) {
        let mut node = Command::new(env!("CARGO_BIN_EXE_twin"));
        node.args(["serve", "--config"]).arg(self.folder.join(format!("node-{}.toml", at + 1)));
        node.env("TWIN_CLUSTER__TTL_S", TTL_S);
        let name = format!("node-{}.log", at + 1);
        let (out, err) = (log(&self.folder, &name), log(&self.folder, &name));
        self.nodes[at] = Some(node.stdout(out).stderr(err).spawn().unwrap());
    }

    fn find_key(&mut self) -> bool {
        let keys = (1..=3).map(|at| self.folder.join(format!("node-{at}/operator.key")));
        let mut keys = keys.filter_map(|file| fs::read_to_string(file).ok());
        let found = keys.next();
        assert!(keys.next().is_none(), "one node makes the first key");
        found.unwrap_or_default().trim().clone_into(&mut self.key);
        !self.key.is_empty()
    }

    fn signal(child: Option<&Child>, signal: rustix::process::Signal) {
        let id = child.and_then(|child| rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()));
        rustix::process::kill_process(id.expect("it runs"), signal).unwrap();
    }

    /// Ends a child at once.
    fn kill(child: &mut Option<Child>) {
        if let Some(mut child) = child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for at in 1..=3 {
                let text = fs::read_to_string(self.folder.join(format!("node-{at}.log"))).unwrap_or_default();
                let lines: Vec<_> = text.lines().collect();
                eprintln!("== node {at}\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
            }
        }
        self.nodes.iter_mut().chain(&mut self.servers).for_each(Self::kill);
    }
}

/// What one client did, by the test's clock.
#[derive(Clone, Debug)]
enum Event {
    /// A number was seen.
    Seen { from: Instant, until: Instant, number: u64 },
    /// A number was written and acknowledged.
    Written { from: Instant, until: Instant, number: u64 },
    /// A number may have been written.
    Unknown,
}

#[derive(Default)]
struct Book {
    events: Mutex<BTreeMap<usize, Vec<Event>>>,
}

struct Teller {
    client: Client,
    http: Vec<String>,
    key: String,
    twin: usize,
    book: Arc<Book>,
    rng: StdRng,
}

impl Teller {
    fn url(&mut self) -> String {
        let node = self.rng.random_range(0..self.http.len());
        format!("{}/api/v1/twins/fleet/t{}/state/statestore/number", self.http[node], self.twin)
    }

    fn note(&self, event: Event) {
        self.book.events.lock().entry(self.twin).or_default().push(event);
    }

    /// Reads through any node; the number with its version.
    async fn read(&mut self) -> Option<(u64, Option<String>)> {
        let (url, from) = (self.url(), Instant::now());
        let answer = self.client.get(url).bearer_auth(&self.key).send().await.ok()?;
        let (status, version) = (answer.status(), answer.headers().get("etag").cloned());
        let number = match status {
            StatusCode::OK => answer.text().await.ok()?.parse().expect("a number"),
            StatusCode::NOT_FOUND | StatusCode::NO_CONTENT => 0,
            _ => return None,
        };
        self.note(Event::Seen { from, until: Instant::now(), number });
        Some((number, version.map(|version| version.to_str().unwrap().to_owned())))
    }

    /// One step: the next number, if nobody wrote one since.
    async fn step(&mut self) {
        let Some((number, version)) = self.read().await else { return };
        let (url, from, number) = (self.url(), Instant::now(), number + 1);
        let put = self.client.put(url).bearer_auth(&self.key).header("content-type", "application/json");
        let put = match &version {
            Some(version) => put.header("if-match", version),
            None => put.header("if-none-match", "*"),
        };
        let sent = put.body(number.to_string()).send().await;
        match sent {
            Ok(answer) if answer.status().is_success() => {
                self.note(Event::Written { from, until: Instant::now(), number });
            }
            Ok(answer) => {
                let text = answer.text().await.unwrap_or_default();
                if !text.contains("\"not_applied\"") {
                    self.note(Event::Unknown);
                }
            }
            Err(_) => self.note(Event::Unknown),
        }
    }
}

impl Book {
    /// Each number once, nothing acknowledged lost, nothing seen that goes back.
    fn check(&self, finals: &BTreeMap<usize, u64>) -> (usize, usize) {
        let (mut acknowledged, mut unknown) = (0, 0);
        for (twin, events) in &*self.events.lock() {
            let last = finals[twin];
            let mut written = BTreeSet::new();
            let mut maybe = 0;
            for event in events {
                match event {
                    Event::Written { number, .. } => {
                        assert!(written.insert(*number), "twin {twin}: {number} was acknowledged twice");
                        assert!(*number <= last, "twin {twin}: {number} was acknowledged and is lost; it has {last}");
                    }
                    Event::Unknown => maybe += 1,
                    Event::Seen { number, .. } => {
                        assert!(*number <= last, "twin {twin}: {number} was seen, then {last}");
                    }
                }
            }
            let gaps = last - u64::try_from(written.len()).unwrap();
            assert!(gaps <= maybe, "twin {twin}: {gaps} numbers were written by nobody");
            // Whoever begins after a number was known sees no earlier one.
            let mut ends: Vec<(Instant, u64)> = Vec::new();
            let mut begins: Vec<(Instant, u64)> = Vec::new();
            for event in events {
                match event {
                    Event::Seen { from, until, number } | Event::Written { from, until, number } => {
                        ends.push((*until, *number));
                        begins.push((*from, *number));
                    }
                    Event::Unknown => {}
                }
            }
            ends.sort();
            begins.sort();
            let (mut at, mut known) = (0, 0);
            for (from, number) in begins {
                while at < ends.len() && ends[at].0 < from {
                    known = known.max(ends[at].1);
                    at += 1;
                }
                assert!(number >= known, "twin {twin}: {number} was seen after {known} was known");
            }
            acknowledged += written.len();
            unknown += usize::try_from(maybe).unwrap();
        }
        (acknowledged, unknown)
    }
}

/// What is done to the fleet.
#[derive(Clone, Copy, Debug)]
enum Fault {
    KillNode,
    StopNode,
    DrainNode,
    KillServer,
    KillBoth,
}

const FAULTS: [Fault; 5] = [Fault::KillNode, Fault::KillServer, Fault::DrainNode, Fault::StopNode, Fault::KillBoth];

fn number_of_faults() -> usize {
    std::env::var("FLEET_FAULTS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

async fn answers(client: &Client, fleet: &Fleet, by: usize) -> bool {
    for twin in 0..TWINS {
        let url = format!("{}/api/v1/twins/fleet/t{twin}/state/statestore/number", fleet.http[by]);
        let answer = client.get(url).bearer_auth(&fleet.key).send().await;
        let fine = |status: StatusCode| status.is_success() || status == StatusCode::NOT_FOUND;
        if !answer.is_ok_and(|answer| fine(answer.status())) {
            return false;
        }
    }
    true
}

/// Does it and mends it; answers how long twins did not answer through a node that lives.
fn strike(fleet: &mut Fleet, fault: Fault, at: usize, runtime: &tokio::runtime::Runtime, client: &Client) -> Duration {
    use rustix::process::Signal;
    let by = (at + 1) % 3;
    let began = Instant::now();
    match fault {
        Fault::KillNode => Fleet::kill(&mut fleet.nodes[at]),
        Fault::StopNode => Fleet::signal(fleet.nodes[at].as_ref(), Signal::STOP),
        Fault::DrainNode => Fleet::signal(fleet.nodes[at].as_ref(), Signal::TERM),
        Fault::KillServer => Fleet::kill(&mut fleet.servers[at]),
        Fault::KillBoth => {
            Fleet::kill(&mut fleet.servers[at]);
            Fleet::kill(&mut fleet.nodes[at]);
        }
    }
    until("that all twins answer", || runtime.block_on(answers(client, fleet, by)));
    let took = began.elapsed();
    match fault {
        Fault::KillNode => fleet.start_node(at),
        Fault::StopNode => Fleet::signal(fleet.nodes[at].as_ref(), Signal::CONT),
        Fault::DrainNode => {
            let ended = fleet.nodes[at].take().unwrap().wait().unwrap();
            assert!(ended.success(), "a node that drains ends well: {ended}");
            fleet.start_node(at);
        }
        Fault::KillServer => fleet.start_server(at),
        Fault::KillBoth => {
            fleet.start_server(at);
            fleet.start_node(at);
        }
    }
    until("that the fleet is whole again", || runtime.block_on(answers(client, fleet, at)));
    took
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_seen_goes_back_whatever_dies() {
    let mut fleet = Fleet::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let client = Client::builder().timeout(REQUEST_TIMEOUT).build().unwrap();
    for twin in 0..TWINS {
        let url = format!("{}/api/v1/twins/fleet/t{twin}", fleet.http[0]);
        let put = || runtime.block_on(async { client.put(&url).bearer_auth(&fleet.key).send().await });
        until("a twin", || put().is_ok_and(|answer| answer.status().is_success()));
    }
    let (book, over) = (Arc::new(Book::default()), Arc::new(AtomicBool::new(false)));
    let tellers: Vec<_> = (0..TWINS * CLIENTS)
        .map(|number| {
            let (client, http, key) = (client.clone(), fleet.http.clone(), fleet.key.clone());
            let rng = StdRng::seed_from_u64(u64::try_from(number).unwrap());
            let mut teller = Teller { client, http, key, twin: number % TWINS, book: Arc::clone(&book), rng };
            let over = Arc::clone(&over);
            runtime.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    teller.step().await;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        })
        .collect();
    let mut longest = BTreeMap::new();
    for number in 0..number_of_faults() {
        let (fault, at) = (FAULTS[number % FAULTS.len()], number % 3);
        let took = strike(&mut fleet, fault, at, &runtime, &client);
        eprintln!("{number}: {fault:?} at {} for {took:?}", at + 1);
        let worst = longest.entry(format!("{fault:?}")).or_insert(took);
        *worst = (*worst).max(took);
    }
    over.store(true, Ordering::Relaxed);
    for teller in tellers {
        runtime.block_on(teller).unwrap();
    }
    let mut finals = BTreeMap::new();
    for twin in 0..TWINS {
        let url = format!("{}/api/v1/twins/fleet/t{twin}/state/statestore/number", fleet.http[twin % 3]);
        let answer = runtime.block_on(async {
            let answer = client.get(url).bearer_auth(&fleet.key).send().await.unwrap();
            answer.text().await.unwrap()
        });
        finals.insert(twin, answer.parse().expect("a number"));
    }
    let (acknowledged, unknown) = book.check(&finals);
    eprintln!("{acknowledged} acknowledged, {unknown} unknown; twins did not answer for at most {longest:?}");
    assert!(acknowledged > 100, "{acknowledged}");
    assert!(longest.values().all(|took| *took < RECOVERY_MAX), "{longest:?}");
}
