//! A node among others: its store on NATS, its links, its place in the cluster.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};

use super::Error;
use crate::{
    cluster::{
        self, Hosting, NodeId, Phase, SystemUptime,
        nats::NatsEngine,
        transport::{self, Security, Transport},
    },
    config::{ClusterConfig, Config},
    model::Clock,
    runtime::{Builder, Runtime},
    store::{
        Slot, Store,
        nats::{Login, NatsConfig, NatsStore, Tls},
    },
};

/// A node that has joined, or is about to.
pub(super) struct Member {
    node: Arc<cluster::Node>,
    listening: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    tasks: JoinSet<()>,
}

/// What a node needs before it has a runtime.
pub(super) struct Prepared {
    store: Arc<NatsStore>,
    node: Arc<cluster::Node>,
    links: transport::Config,
    listener: TcpListener,
}

fn wrong(cause: impl std::fmt::Display) -> Error {
    Error::Cluster(cause.to_string())
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|error| wrong(format!("'{}' cannot be read: {error}", file.display())))
}

/// This node's name: the configured one, or the machine's.
fn name(config: &ClusterConfig) -> Result<NodeId, Error> {
    let machine = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = if config.node.is_empty() { machine() } else { config.node.clone() };
    let parsed = NodeId::parse(&name);
    parsed.map_err(|error| wrong(format!("'{name}' cannot be this node's name (cluster.node, --node): {error}")))
}

fn security(config: &ClusterConfig) -> Result<Security, Error> {
    if config.ca_file.as_os_str().is_empty() {
        return Ok(Security::Plain);
    }
    let [authority, certificate, key] = [read(&config.ca_file)?, read(&config.cert_file)?, read(&config.key_file)?];
    Ok(Security::Mutual { authority, certificate, key })
}

fn store_config(config: &ClusterConfig, node: &NodeId) -> NatsConfig {
    let login = if !config.credentials_file.as_os_str().is_empty() {
        Login::Credentials(config.credentials_file.clone())
    } else if config.user.is_empty() {
        Login::None
    } else {
        Login::Password { user: config.user.clone(), password: config.password.0.clone() }
    };
    let tls = if config.ca_file.as_os_str().is_empty() {
        Tls::default()
    } else {
        Tls { ca: Some(config.ca_file.clone()), client: Some((config.cert_file.clone(), config.key_file.clone())) }
    };
    NatsConfig {
        login,
        tls,
        prefix: config.name.clone(),
        streams: config.streams,
        replicas: config.replicas,
        ..NatsConfig::new(node.as_str(), config.servers.iter().cloned())
    }
}

/// Opens the cluster's store without a node: nothing is claimed. Blocks.
pub(super) fn open_store(config: &Config) -> Result<NatsStore, Box<Error>> {
    let opening = store_config(&config.cluster, &name(&config.cluster)?);
    NatsStore::open(opening).map_err(|error| Box::new(wrong(error)))
}

/// Opens the store and binds the port of the links. Nobody sees this node yet.
pub(super) async fn prepare(config: &Config, http: &str, clock: Arc<dyn Clock>) -> Result<Prepared, Error> {
    let cluster = &config.cluster;
    let id = name(cluster)?;
    let security = security(cluster)?;
    let failed = |error| wrong(format!("'{}' cannot be listened on (cluster.listen): {error}", cluster.listen));
    let listener = TcpListener::bind(cluster.listen).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let address = if cluster.advertise.is_empty() { bound.to_string() } else { cluster.advertise.clone() };
    let opening = store_config(cluster, &id);
    let opened = tokio::task::spawn_blocking(move || NatsStore::open(opening)).await.map_err(wrong)?;
    let store = Arc::new(opened.map_err(wrong)?);
    let engine = Arc::new(NatsEngine::open(Arc::clone(&store)).await.map_err(wrong)?);
    let links = transport::Config::new(&cluster.name, id.clone(), security);
    let ttl = Duration::from_secs(cluster.ttl_s);
    let settings = cluster::Config {
        ttl,
        renew_every: ttl / 5,
        margin: ttl * 2 / 15,
        call_timeout: Duration::from_secs(config.server.deadline_s),
        ..cluster::Config::new(id, &address, http)
    };
    let transport = Arc::new(Transport::new(links.clone()));
    let node = cluster::Node::new(settings, engine, transport, Arc::new(SystemUptime), clock);
    Ok(Prepared { store, node, links, listener })
}

impl Prepared {
    /// A runtime over the shared store, to be described further.
    pub(super) fn builder(&self) -> Builder {
        let store: Arc<dyn Store> = self.store.clone();
        Runtime::builder().store(store).cluster(Arc::new(Arc::clone(&self.node)))
    }

    /// Joins with a runtime; ends when this node takes part and every slot has an owner.
    pub(super) async fn join(self, runtime: Runtime) -> Result<Member, Error> {
        let Self { store: _, node, links, listener } = self;
        let (stop, stopped) = oneshot::channel::<()>();
        let listening = {
            let node = Arc::clone(&node);
            let stopped = async move {
                // Dropped with the node, which ends as well.
                stopped.await.ok();
            };
            tokio::spawn(async move {
                if let Err(error) = transport::serve(links, listener, node, stopped).await {
                    tracing::error!(%error, "other nodes are not heard any more");
                }
            })
        };
        let mut tasks = JoinSet::new();
        let host: Arc<dyn Hosting> = Arc::new(runtime.clone());
        let runs = Arc::clone(&node);
        tasks.spawn(async move { runs.run(host).await });
        tasks.spawn(async move { runtime.follow_others().await });
        let mut phase = node.phase();
        if phase.wait_for(|phase| *phase == Phase::Up).await.is_err() {
            return Err(wrong("this node did not come to take part"));
        }
        node.settled().await;
        Ok(Member { node, listening, stop, tasks })
    }
}

impl Member {
    /// Whether this node owns the first slot: of all nodes, one does.
    pub(super) fn is_first(&self) -> bool {
        self.node.hosts(Slot(0))
    }

    /// Gives every slot away, as far as that is possible in this time, and leaves.
    pub(super) async fn leave(mut self, within: Duration) {
        if tokio::time::timeout(within, self.node.leave()).await.is_err() {
            tracing::warn!(
                slots = self.node.held(),
                "the time to leave the cluster is over; the others take what is left"
            );
        }
        self.stop.send(()).ok();
        self.tasks.shutdown().await;
        self.listening.await.ok();
    }
}
