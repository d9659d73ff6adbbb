//! Three nodes and three servers as processes, one of each on a machine.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::network::{HTTP, LINKS, MONITOR, Network, SERVER};
use crate::servers::{binary, until};

/// Shifts what a process takes for the time of day; the clocks of leases are read past it.
const FAKETIME: &str = "/usr/$LIB/faketime/libfaketimeMT.so.1";
/// The server whose files lie on a disk of its own.
pub(crate) const SMALL_DISK: usize = 2;
const SMALL_DISK_BYTES: &str = "size=512m";

/// What nodes are told beside what `twin cluster init` writes.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    /// How long a node that says nothing counts as alive.
    pub(crate) ttl: Duration,
    pub(crate) streams: u16,
}

pub(crate) struct Fleet {
    pub(crate) network: Network,
    /// Where clients reach the nodes.
    pub(crate) http: Vec<String>,
    pub(crate) servers: Vec<Option<Child>>,
    pub(crate) nodes: Vec<Option<Child>>,
    pub(crate) key: String,
    folder: PathBuf,
    settings: Settings,
    _keep: TempDir,
}

fn log(folder: &Path, name: &str) -> Stdio {
    let file = fs::OpenOptions::new().create(true).append(true).open(folder.join(name)).unwrap();
    Stdio::from(file)
}

impl Fleet {
    /// Everything that `twin cluster init` writes for three machines, started.
    pub(crate) fn start(settings: Settings) -> Self {
        let keep = tempfile::tempdir().unwrap();
        let folder = keep.path().join("fleet");
        let network = Network::new();
        let hosts = (0..3).map(|at| network.address(at)).collect::<Vec<_>>();
        let ports = [SERVER, HTTP, LINKS].map(|port| port.to_string());
        let mut init = Command::new(env!("CARGO_BIN_EXE_twin"));
        let init = init.args(["cluster", "init"]).arg(&folder).args(["--hosts", &hosts.join(",")]);
        let init = init.arg("--ports").args(&ports).output().unwrap();
        assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        let disk = folder.join(format!("server-{}", SMALL_DISK + 1));
        fs::create_dir(&disk).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", SMALL_DISK_BYTES, "tmpfs"]).arg(&disk).status();
        assert!(mount.unwrap().success(), "the disk of a server cannot be mounted");
        let http = hosts.iter().map(|host| format!("http://{host}:{HTTP}")).collect();
        let none = || (0..3).map(|_| None).collect();
        let key = String::new();
        let mut fleet = Self { network, http, servers: none(), nodes: none(), key, folder, settings, _keep: keep };
        (0..3).for_each(|at| fleet.start_server(at));
        (0..3).for_each(|at| fleet.step_clock(at, 0));
        (0..3).for_each(|at| fleet.start_node(at));
        until("the first key", || fleet.find_key());
        until("that every node has its share", || fleet.is_balanced());
        fleet
    }

    pub(crate) fn start_server(&mut self, at: usize) {
        let mut server = self.network.command(at, binary());
        server.arg("-c").arg(self.folder.join(format!("server-{}.conf", at + 1)));
        server.args(["--http_port", &MONITOR.to_string()]);
        let name = format!("server-{}.log", at + 1);
        let (out, err) = (log(&self.folder, &name), log(&self.folder, &name));
        self.servers[at] = Some(server.stdout(out).stderr(err).spawn().unwrap());
    }

    pub(crate) fn start_node(&mut self, at: usize) {
        let mut node = self.network.command(at, env!("CARGO_BIN_EXE_twin"));
        node.args(["serve", "--config"]).arg(self.folder.join(format!("node-{}.toml", at + 1)));
        node.env("TWIN_LISTEN", format!("{}:{HTTP}", self.network.address(at))).env("TWIN_INSECURE_LISTEN", "true");
        node.env("TWIN_CLUSTER__TTL_S", self.settings.ttl.as_secs().to_string());
        node.env("TWIN_CLUSTER__STREAMS", self.settings.streams.to_string());
        node.env("LD_PRELOAD", FAKETIME).env("FAKETIME_TIMESTAMP_FILE", self.clock(at));
        node.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_CACHE_DURATION", "1");
        let name = format!("node-{}.log", at + 1);
        let (out, err) = (log(&self.folder, &name), log(&self.folder, &name));
        self.nodes[at] = Some(node.stdout(out).stderr(err).spawn().unwrap());
    }

    fn clock(&self, at: usize) -> PathBuf {
        self.folder.join(format!("node-{}.clock", at + 1))
    }

    /// Lets a node's time of day be this many seconds off from now on; it looks within a second.
    pub(crate) fn step_clock(&self, at: usize, seconds: i64) {
        fs::write(self.clock(at), format!("{seconds:+}\n")).unwrap();
    }

    fn find_key(&mut self) -> bool {
        let keys = (1..=3).map(|at| self.folder.join(format!("node-{at}/operator.key")));
        let mut keys = keys.filter_map(|file| fs::read_to_string(file).ok());
        let found = keys.next();
        assert!(keys.next().is_none(), "one node makes the first key");
        found.unwrap_or_default().trim().clone_into(&mut self.key);
        !self.key.is_empty()
    }

    fn disk(&self) -> PathBuf {
        self.folder.join(format!("server-{}", SMALL_DISK + 1))
    }

    /// Leaves no byte free on the small disk.
    pub(crate) fn fill_disk(&self) {
        let file = format!("of={}", self.disk().join("full").display());
        let filled = Command::new("dd").args(["if=/dev/zero", "bs=1M", &file]).output().unwrap();
        let said = String::from_utf8_lossy(&filled.stderr);
        assert!(said.contains("No space left"), "{said}");
    }

    pub(crate) fn free_disk(&self) {
        fs::remove_file(self.disk().join("full")).unwrap();
    }

    /// Whether every node has as many slots as are meant for it.
    fn is_balanced(&self) -> bool {
        let view: Option<Value> = self.view(0).and_then(|view| serde_json::from_str(&view).ok());
        let nodes = view.as_ref().and_then(|view| view["nodes"].as_array()).map_or(&[][..], Vec::as_slice);
        nodes.len() == 3 && nodes.iter().all(|node| node["owned"].as_u64() > Some(0) && node["owned"] == node["wished"])
    }

    /// The cluster as a node sees it.
    fn view(&self, at: usize) -> Option<String> {
        let mut node = TcpStream::connect((self.network.address(at), HTTP)).ok()?;
        node.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        write!(node, "GET /api/v1/cluster HTTP/1.0\r\nAuthorization: Bearer {}\r\n\r\n", self.key).ok()?;
        let mut view = String::new();
        node.read_to_string(&mut view).ok()?;
        Some(view.lines().last()?.to_owned())
    }

    pub(crate) fn monitor(&self, at: usize, path: &str) -> String {
        format!("http://{}:{MONITOR}{path}", self.network.address(at))
    }

    /// The server that leads the first stream, as one of them sees it.
    pub(crate) fn leader(jsz: &Value) -> Option<usize> {
        let streams =
            jsz["account_details"].as_array()?.iter().filter_map(|account| account["stream_detail"].as_array());
        let mut streams = streams.flatten();
        let stream = streams.find(|stream| stream["name"].as_str().is_some_and(|name| name.ends_with("_TW00")))?;
        let number: usize = stream["cluster"]["leader"].as_str()?.rsplit('-').next()?.parse().ok()?;
        number.checked_sub(1)
    }
}

pub(crate) fn signal(child: Option<&Child>, signal: Signal) {
    let id = child.and_then(|child| Pid::from_raw(i32::try_from(child.id()).unwrap()));
    kill_process(id.expect("it runs"), signal).unwrap();
}

/// Ends a child at once.
pub(crate) fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        child.kill().unwrap();
        forget(&child);
        child.wait().unwrap();
    }
}

/// Asks a child to end, and waits until it has; it ends well.
pub(crate) fn end(child: &mut Option<Child>) {
    signal(child.as_ref(), Signal::TERM);
    let mut child = child.take().unwrap();
    let ended = child.wait().unwrap();
    forget(&child);
    assert!(ended.success(), "what is asked to end ends well: {ended}");
}

/// Removes what the library that shifts a clock leaves behind of a process.
fn forget(child: &Child) {
    for name in ["faketime_shm", "sem.faketime_sem"] {
        fs::remove_file(format!("/dev/shm/{name}_{}", child.id())).ok();
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["node-1", "node-2", "node-3", "server-1", "server-2", "server-3"] {
                let text = fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap_or_default();
                let lines: Vec<_> = text.lines().collect();
                eprintln!("== {name}\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
            }
            for at in 0..3 {
                eprintln!("== node-{} sees\n{}", at + 1, self.view(at).unwrap_or_default());
            }
        }
        if let Some(kept) = std::env::var_os("FLEET_LOGS") {
            let files = fs::read_dir(&self.folder).unwrap().map(|file| file.unwrap());
            for file in files.filter(|file| file.path().extension().is_some_and(|extension| extension == "log")) {
                fs::copy(file.path(), Path::new(&kept).join(file.file_name())).ok();
            }
        }
        self.nodes.iter_mut().chain(&mut self.servers).for_each(kill);
        Command::new("umount").arg("--lazy").arg(self.disk()).status().ok();
    }
}
