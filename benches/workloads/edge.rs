//! W6: what a request costs from socket to twin and back, beside hyper alone.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use service_twin::{
    app,
    capability::secrets::seal::NodeKey,
    metrics::Metrics,
    model::{ServiceId, SystemClock},
    runtime::{Config, Runtime},
    server::{self, Phase, Server, listen},
    store::{Level, sled},
    token::RootKey,
    twin::{
        keyring::Covers,
        service::{Json, message::Create},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{
    Bars, Client, Contestant, Host, Plan, Row, Setting, State, Until,
    activation::CACHE_BYTES,
    durable,
    harness::drive::Lap,
    hot, ids,
    limits::{hyper_http, lock},
};

const TWINS: u64 = 1_000;

/// `GET` of an attribute over 16 connections.
pub(crate) fn read_16(setting: &Setting) -> Row {
    read(setting, "W6-read-16", 16)
}

/// The same over 64.
pub(crate) fn read_64(setting: &Setting) -> Row {
    read(setting, "W6-read-64", 64)
}

fn read(setting: &Setting, workload: &'static str, connections: u64) -> Row {
    let (host, node) = (Host::start(setting.cpus), Node::start(setting, count()));
    let ask: Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync> = {
        let key = node.key.clone();
        Arc::new(move |at| {
            let name = name(hot(at, count()));
            format!(
                "GET /api/v1/twins/default/{name}/attributes/owner HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\n\r\n"
            )
            .into_bytes()
        })
    };
    let ours = Contestant::ours(move |time| {
        // All of it: the doors close when the node is dropped.
        let node = &node;
        drive(&host, node.address, &ask, connections, time)
    });
    let mut contestants = vec![ours];
    contestants.extend(limits(setting, connections));
    let bars = Bars { limit: Some(0.6), ..Bars::default() };
    Row { workload, driver: "http", durability: "fsync", bars, contestants }
}

/// A durable command: a feature's desired state, put and durable at `Fsync` before the answer, over 64 connections.
pub(crate) fn write_64(setting: &Setting) -> Row {
    let connections = 64;
    let (host, node) = (Host::start(setting.cpus), Node::start(setting, count()));
    let ask: Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync> = {
        let key = node.key.clone();
        Arc::new(move |at| {
            let (name, body) = (name(hot(at, count())), format!("{{\"rate\":{at}}}"));
            let length = body.len();
            format!(
                "PUT /api/v1/twins/default/{name}/features/sampling/desired HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\n\
                 content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
            )
            .into_bytes()
        })
    };
    let ours = Contestant::ours(move |time| {
        // All of it: the doors close when the node is dropped.
        let node = &node;
        drive(&host, node.address, &ask, connections, time)
    });
    let host = Host::start(setting.cpus);
    let address = hyper_http::empty(&host);
    let (client, empty) = (Host::start(setting.cpus), plain(|_| "empty".into()));
    let limit = Contestant::limit("hyper, empty handler", move |time| {
        let _serves = &host;
        drive(&client, address, &empty, connections, time)
    });
    let in_process = durable::ours(setting, super::WINDOW, TWINS).renamed("W4, ours in process");
    let bars = Bars { limit: Some(0.5), ..Bars::default() };
    Row {
        workload: "W6-write-64",
        driver: "http",
        durability: "fsync",
        bars,
        contestants: vec![ours, limit, in_process],
    }
}

fn limits(setting: &Setting, connections: u64) -> [Contestant; 2] {
    let map = lock::Map::default();
    for id in &*ids(TWINS) {
        map.insert(id.replace('/', "-"), State::default());
    }
    let host = Host::start(setting.cpus);
    let address = hyper_http::counting(&host, &map);
    let (client, one) = (Host::start(setting.cpus), plain(|at| format!("twin-{:08}", hot(at, count()))));
    let counting = Contestant::limit("hyper + dashmap lock", move |time| {
        let _serves = &host;
        drive(&client, address, &one, connections, time)
    });
    let host = Host::start(setting.cpus);
    let address = hyper_http::empty(&host);
    let (client, one) = (Host::start(setting.cpus), plain(|_| "empty".into()));
    let empty = Contestant::other("hyper, empty handler", move |time| {
        let _serves = &host;
        drive(&client, address, &one, connections, time)
    });
    [counting, empty]
}

fn plain(path: impl Fn(u64) -> String + Send + Sync + 'static) -> Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync> {
    Arc::new(move |at| format!("GET /{} HTTP/1.1\r\nhost: bench\r\n\r\n", path(at)).into_bytes())
}

fn count() -> usize {
    usize::try_from(TWINS).expect("a count")
}

fn name(at: usize) -> String {
    format!("bench-{at:05}")
}

/// A node without the command line: runtime on sled at `Fsync`, doors, one operator's key, service twins.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) key: String,
    server: Arc<Server>,
    host: Host,
}

impl Node {
    /// Starts one over the store in the row's directory, with so many more twins.
    pub(crate) fn start(setting: &Setting, twins: usize) -> Self {
        // As `twin serve` does, except for where the lines go. Only the first of a process counts.
        let _again =
            tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(std::io::sink).try_init();
        let host = Host::start(setting.cpus);
        let options = sled::Options { level: Level::Fsync, cache_bytes: CACHE_BYTES, ..sled::Options::default() };
        let store = sled::SledStore::open(&setting.dir.join("node"), options).expect("the store opens");
        let config = Config { arbiters: setting.cpus, ..Config::default() };
        let builder = app::kinds(Runtime::builder().config(config).store(Arc::new(store)));
        let runtime = builder.start().expect("a runtime starts");
        let metrics = Arc::new(Metrics::new(|_| ()));
        let server = Server::new(
            runtime,
            Arc::new(SystemClock),
            metrics,
            server::Config::default(),
            RootKey::generate(),
            NodeKey::draw().0,
        );
        server.enter(Phase::Ready);
        let (address, key) = host.handle().block_on(async {
            let (fresh, _) = server.mint(Covers::Operator, "bench").await.expect("a key is made");
            for at in 0..twins {
                let service = ServiceId::new("", &name(at)).expect("a service id");
                let attributes = Json::parse(r#"{"owner":"payments","tier":"gold"}"#).ok();
                let made = server.ask(&service, Create { attributes }, service_twin::model::Header::default(), None);
                made.await.expect("the twin is made");
            }
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
            let address = listener.local_addr().expect("it is bound");
            tokio::spawn(listen::serve(Arc::clone(&server), listener, Duration::from_secs(1)));
            (address, fresh.key)
        });
        Self { address, key, server, host }
    }

    /// Makes a key of one service.
    #[cfg(feature = "dapr")]
    pub(crate) fn token_of(&self, service: ServiceId) -> String {
        let minted = self.host.handle().block_on(self.server.mint(Covers::Service { service }, "bench"));
        minted.expect("a key is made").0.key
    }

    /// Writes a service's state.
    #[cfg(feature = "dapr")]
    pub(crate) fn write(&self, service: &ServiceId, write: service_twin::capability::state::Write) {
        let header = service_twin::model::Header::default();
        self.host.handle().block_on(self.server.call(service, write, header, None)).expect("it is written");
    }
}

pub(crate) fn drive(
    host: &Host,
    address: SocketAddr,
    ask: &Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync>,
    connections: u64,
    time: Duration,
) -> Lap {
    let plan = Plan { window: connections, until: Until::Elapsed(time), timed: true };
    let lap = host.run(plan, |_| Http { address, ask: ask.clone(), open: None, buffer: vec![0; 4096] });
    assert_eq!(lap.sum, lap.ops, "every answer was a success");
    lap
}

/// One connection, one request at a time.
struct Http {
    address: SocketAddr,
    ask: Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync>,
    open: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Client for Http {
    async fn call(&mut self, at: u64) -> u64 {
        let stream = match &mut self.open {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(self.address).await.expect("the server listens");
                stream.set_nodelay(true).expect("a socket option");
                none.insert(stream)
            }
        };
        stream.write_all(&(self.ask)(at)).await.expect("the server reads");
        let mut have = 0;
        loop {
            if have == self.buffer.len() {
                self.buffer.resize(2 * have, 0);
            }
            have += stream.read(&mut self.buffer[have..]).await.expect("the server answers");
            if let Some(good) = answer(&self.buffer[..have]) {
                return u64::from(good);
            }
        }
    }
}

/// Whether a whole answer is a success; `None` if some of it is missing.
fn answer(bytes: &[u8]) -> Option<bool> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    // An answer of 204 has neither body nor length.
    let length = length.or_else(|| text.starts_with("HTTP/1.1 204").then_some(0))?;
    (bytes.len() >= head + length).then(|| text.starts_with("HTTP/1.1 2"))
}
