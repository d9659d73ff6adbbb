//! One nats-server, or a cluster of three with mutual TLS, in a folder of their own.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use service_twin::store::nats::{Login, NatsConfig, Tls};
use tempfile::TempDir;

/// How long servers may take to become healthy.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Servers {
    folder: TempDir,
    servers: Vec<Server>,
    secure: bool,
}

struct Server {
    config: PathBuf,
    port: u16,
    monitor: u16,
    child: Option<Child>,
}

/// Ports that were free a moment ago.
fn ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

pub(crate) fn binary() -> PathBuf {
    let path = std::env::var_os("NATS_SERVER").expect("NATS_SERVER names a nats-server; use ./scripts/test cluster");
    PathBuf::from(path)
}

/// Asks until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what} takes too long");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

impl Servers {
    /// One server, plain.
    pub(crate) fn one() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports = ports(2);
        let store = folder.path().join("js1");
        let text = format!(
            "server_name: n1\nlisten: 127.0.0.1:{}\nhttp: 127.0.0.1:{}\n\
             jetstream {{ store_dir: \"{}\", max_mem: 256M, max_file: 10G, sync_interval: always }}\n",
            ports[0],
            ports[1],
            store.display()
        );
        let config = folder.path().join("1.conf");
        fs::write(&config, text).unwrap();
        let servers = vec![Server { config, port: ports[0], monitor: ports[1], child: None }];
        Self { folder, servers, secure: false }.started()
    }

    /// Three servers of a cluster: mutual TLS on every connection, users, the administration's account apart.
    pub(crate) fn three() -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let ports = ports(9);
        let at = folder.path().display();
        let tls = format!(
            "tls {{ cert_file: \"{at}/server.pem\", key_file: \"{at}/server.key\", ca_file: \"{at}/ca.pem\", verify: true }}"
        );
        let routes: Vec<_> = ports[6..].iter().map(|port| format!("nats://route:routepw@127.0.0.1:{port}")).collect();
        let servers = (0..3).map(|n| {
            let text = format!(
                "server_name: n{n}\nlisten: 127.0.0.1:{}\nhttp: 127.0.0.1:{}\n\
                 jetstream {{ store_dir: \"{at}/js{n}\", max_mem: 256M, max_file: 10G, sync_interval: always }}\n{tls}\n\
                 accounts {{\n TWINS {{ jetstream: enabled, users: [ {{ user: twin, password: twinpw }} ] }}\n \
                 SYS {{ users: [ {{ user: sys, password: syspw }} ] }}\n}}\nsystem_account: SYS\n\
                 cluster {{\n name: twins\n listen: 127.0.0.1:{}\n authorization {{ user: route, password: routepw }}\n \
                 routes: [ {} ]\n {tls}\n}}\n",
                ports[n],
                ports[3 + n],
                ports[6 + n],
                routes.join(", ")
            );
            let config = folder.path().join(format!("{n}.conf"));
            fs::write(&config, text).unwrap();
            Server { config, port: ports[n], monitor: ports[3 + n], child: None }
        });
        let servers = servers.collect();
        Self { folder, servers, secure: true }.started()
    }

    fn started(mut self) -> Self {
        for server in &mut self.servers {
            server.start();
        }
        self.wait_until_healthy();
        self
    }

    pub(crate) fn wait_until_healthy(&self) {
        for server in &self.servers {
            until("a healthy server", || server.is_healthy());
        }
    }

    /// How a node reaches them, with everything else at its default but what makes tests short.
    pub(crate) fn config(&self, prefix: &str, node: &str) -> NatsConfig {
        let scheme = if self.secure { "tls" } else { "nats" };
        let servers = self.servers.iter().map(|server| format!("{scheme}://127.0.0.1:{}", server.port));
        let mut config = NatsConfig::new(node, servers);
        config.prefix = prefix.into();
        config.streams = 2;
        config.replicas = self.servers.len();
        if self.secure {
            let file = |name: &str| self.folder.path().join(name);
            config.login = Login::Password { user: "twin".into(), password: "twinpw".into() };
            config.tls = Tls { ca: Some(file("ca.pem")), client: Some((file("server.pem"), file("server.key"))) };
        }
        config
    }

    /// Which server leads a stream.
    pub(crate) fn leader(&self, stream: &str) -> usize {
        let mut leader = None;
        until("a leader", || {
            leader = self.servers.iter().find_map(|server| server.leader(stream));
            leader.is_some()
        });
        leader.unwrap()
    }

    /// Ends a server as a crash does.
    pub(crate) fn kill(&mut self, at: usize) {
        let mut child = self.servers[at].child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Stops a server in the middle of whatever it does, or lets it go on.
    pub(crate) fn stop(&self, at: usize, is_stopped: bool) {
        use rustix::process::{Pid, Signal, kill_process};
        let child = self.servers[at].child.as_ref().expect("it runs");
        let id = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(id, if is_stopped { Signal::STOP } else { Signal::CONT }).unwrap();
    }

    pub(crate) fn restart(&mut self, at: usize) {
        self.servers[at].start();
    }
}

impl Server {
    fn start(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.config.with_extension("log")).unwrap();
        let command = Command::new(binary())
            .arg("-c")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.child = Some(command.expect("NATS_SERVER can be run"));
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.monitor)).ok()?;
        write!(socket, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        Some(answer.split_once("\r\n\r\n")?.1.to_owned())
    }

    fn is_healthy(&self) -> bool {
        self.get("/healthz").is_some_and(|body| body.contains("\"ok\""))
    }

    fn leader(&self, stream: &str) -> Option<usize> {
        let jsz: serde_json::Value = serde_json::from_str(&self.get("/jsz?streams=true")?).ok()?;
        let accounts = jsz["account_details"].as_array()?;
        let streams = accounts.iter().filter_map(|account| account["stream_detail"].as_array()).flatten();
        let found = streams.into_iter().find(|detail| detail["name"] == stream)?;
        found["cluster"]["leader"].as_str()?.strip_prefix('n')?.parse().ok()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in self.servers.iter_mut().filter_map(|server| server.child.as_mut()) {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// An authority, and one certificate of it that servers and nodes share.
fn certificates(folder: &Path) {
    fs::write(
        folder.join("ext"),
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n",
    )
    .unwrap();
    for arguments in [
        "req -x509 -newkey rsa:2048 -nodes -days 30 -keyout ca.key -out ca.pem -subj /CN=ca",
        "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=server",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile ext -out server.pem",
    ] {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
        let output = output.expect("openssl is installed");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
