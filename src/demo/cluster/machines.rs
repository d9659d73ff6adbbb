//! Three nats-servers and three nodes as child processes, as `twin cluster init` describes them.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use super::Failed;
use crate::cli::{self, Client};

/// How many of each.
pub(super) const COUNT: usize = 3;
/// How long a node that says nothing counts as alive here: shorter than usual, since somebody watches.
const TTL_S: &str = "5";
/// How long everything may take to come up.
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a node may take to give its twins away at the end.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Where ports are looked for, so many times.
const PORTS_TRIED_MAX: usize = 100;
/// How often it is looked whether something has come about.
const LOOK: Duration = Duration::from_millis(100);

/// All of them; whatever still runs ends with this.
pub(super) struct Machines {
    folder: PathBuf,
    twin: PathBuf,
    ports: [u16; 3],
    /// The operator's key, which one of the nodes made.
    pub(super) key: String,
    servers: Vec<Child>,
    nodes: Vec<Option<Child>>,
}

/// Ports of which all that `twin cluster init` counts on from there are free: servers, nodes, links.
fn free_ports() -> Result<[u16; 3], Failed> {
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    for _ in 0..PORTS_TRIED_MAX {
        let first: u16 = rand::random_range(20_000..27_000);
        let servers = (first..first + 3).chain(first + 2000..first + 2003);
        let nodes = (0..3).flat_map(|at| [first + 100 + 10 * at, first + 101 + 10 * at]);
        if servers.chain(nodes).all(is_free) {
            return Ok([first, first + 100, first + 101]);
        }
    }
    Err("there are not enough free ports between 20000 and 30000 on this machine".into())
}

/// Starts a process that writes what it says to a file, and that Ctrl-C does not reach: it ends when it is its turn.
fn start(mut command: Command, log: &Path) -> io::Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    command.spawn()
}

impl Machines {
    /// Writes what they need into a folder that is not there yet, and starts them; ends when every twin has a node.
    pub(super) async fn start(folder: &Path, server: &Path) -> Result<Self, Failed> {
        let ports = free_ports()?;
        cli::write_cluster(folder, ports)?;
        let folder = folder.canonicalize()?;
        let mut servers = Vec::new();
        for number in 1..=COUNT {
            let mut command = Command::new(server);
            command.arg("-c").arg(folder.join(format!("server-{number}.conf")));
            let log = folder.join(format!("server-{number}.log"));
            servers.push(start(command, &log).map_err(|source| NoServer { program: server.to_owned(), source })?);
        }
        let twin = std::env::current_exe()?;
        let nodes = (0..COUNT).map(|_| None).collect();
        let mut machines = Self { folder, twin, ports, key: String::new(), servers, nodes };
        for at in 0..COUNT {
            machines.start_node(at)?;
        }
        machines.wait().await?;
        Ok(machines)
    }

    /// Starts a node, again if it was killed.
    pub(super) fn start_node(&mut self, at: usize) -> io::Result<()> {
        let mut command = Command::new(&self.twin);
        command.args(["serve", "--config"]).arg(self.folder.join(format!("node-{}.toml", at + 1)));
        command.env("TWIN_CLUSTER__TTL_S", TTL_S).env_remove("TWIN_KEY");
        self.nodes[at] = Some(start(command, &self.folder.join(format!("node-{}.log", at + 1)))?);
        Ok(())
    }

    /// Ends a node as a lost machine would.
    pub(super) async fn kill_node(&mut self, at: usize) -> io::Result<()> {
        match self.nodes[at].take() {
            Some(mut node) => node.kill().await,
            None => Ok(()),
        }
    }

    /// Where clients reach a node.
    pub(super) fn url(&self, at: usize) -> String {
        let port = self.ports[1] + 10 * u16::try_from(at).unwrap_or(0);
        format!("http://{}:{port}", Ipv4Addr::LOCALHOST)
    }

    /// Whether a node's process runs.
    pub(super) fn runs(&self, at: usize) -> bool {
        self.nodes[at].is_some()
    }

    /// What a node says of the cluster.
    pub(super) async fn view(&self, at: usize) -> Result<Value, cli::Error> {
        Client::new(&self.url(at), Some(&self.key), &self.folder)?.get("/api/v1/cluster").await
    }

    async fn wait(&mut self) -> Result<(), Failed> {
        let began = Instant::now();
        while began.elapsed() < START_TIMEOUT {
            self.watch_ends()?;
            if self.is_whole().await {
                return Ok(());
            }
            sleep(LOOK).await;
        }
        Err(format!("the cluster did not come up; see what it says in {}/*.log", self.folder.display()).into())
    }

    /// Nobody ends while all are started.
    fn watch_ends(&mut self) -> Result<(), Failed> {
        let all = self.servers.iter_mut().chain(self.nodes.iter_mut().flatten());
        for child in all {
            if let Some(status) = child.try_wait()? {
                let folder = self.folder.display();
                return Err(format!("a server or a node ended at once ({status}); see {folder}/*.log").into());
            }
        }
        Ok(())
    }

    async fn is_whole(&mut self) -> bool {
        if self.key.is_empty() {
            let mut keys = (1..=COUNT).map(|number| self.folder.join(format!("node-{number}/operator.key")));
            let Some(key) = keys.find_map(|file| std::fs::read_to_string(file).ok()) else { return false };
            key.trim().clone_into(&mut self.key);
        }
        for at in 0..COUNT {
            let Ok(view) = self.view(at).await else { return false };
            let nodes = view["nodes"].as_array().map_or(&[][..], Vec::as_slice);
            let up = nodes.iter().filter(|node| node["state"] == "up" && node["owned"].as_u64() > Some(0)).count();
            if up < COUNT || view["unowned"].as_u64() != Some(0) {
                return false;
            }
        }
        true
    }

    /// Ends the nodes one by one, in good order, then the servers.
    pub(super) async fn stop(mut self) {
        for at in 0..COUNT {
            let Some(mut node) = self.nodes[at].take() else { continue };
            ask_to_end(&node);
            if timeout(STOP_TIMEOUT, node.wait()).await.is_err() {
                // It has ended in the meantime, then, or is not ours to end.
                drop(node.kill().await);
            }
        }
        for server in &mut self.servers {
            drop(server.kill().await);
        }
    }
}

/// SIGTERM, on which a node gives its twins to the others.
fn ask_to_end(child: &Child) {
    #[cfg(unix)]
    if let Some(id) = child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?)) {
        // It has ended, then.
        rustix::process::kill_process(id, rustix::process::Signal::TERM).ok();
    }
    #[cfg(not(unix))]
    let _ = child;
}

/// The server's program could not be started.
#[derive(Debug, thiserror::Error)]
#[error("'{}' could not be started", program.display())]
pub(in crate::demo) struct NoServer {
    program: PathBuf,
    source: io::Error,
}
