//! Puts a node together and takes it apart; alone in naming concrete adapters.

#[cfg(feature = "cluster")]
mod cluster;
mod files;
mod secrets;
pub mod transfer;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    bus::{self, Topic},
    capability,
    config::{self, Config, LogConfig, LogFormat, StoreKind},
    metrics::Metrics,
    model::{Clock, SystemClock},
    runtime::{Builder, Drained, Runtime, StartError as RuntimeError},
    server::{Phase, Server, listen, problem::Problem, vitals},
    store::{
        Store,
        memory::MemoryStore,
        sled::{OpenError, Options, SledStore},
    },
    twin::{
        Message, Wire,
        keyring::{Covers, Keyring, LookUp, MintKey, RevokeKey},
        part::{Part, Request},
        service::{
            Service, message,
            parts::{self, Use},
        },
    },
};

/// Where the store lies, in the data folder.
const STORE_FOLDER: &str = "store";
/// Where the first operator key is written, in the data folder.
pub const KEY_FILE: &str = "operator.key";
/// Where the key that signs tokens is written, in the data folder.
pub const TOKEN_KEY_FILE: &str = "token.key";
/// Of the time for a shutdown, connections may take one part in so many.
const CONNECTIONS_SHARE: u32 = 4;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The log could not be set up.
    #[error("log.filter '{filter}' cannot be understood: {cause}")]
    Log {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The port.
    #[error("'{address}' cannot be listened on; is another node running?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The data folder.
    #[error("the data folder '{}' cannot be used", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store.
    #[error("the store in '{}' cannot be opened", folder.display())]
    Store {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// An import was cut off.
    #[error(transparent)]
    Unfinished(#[from] transfer::Unfinished),
    /// The cluster.
    #[error("this node cannot be one of a cluster: {0}")]
    Cluster(String),
    /// The virtual actors.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The key that secrets are sealed with.
    #[error("{0}")]
    SecretsKey(String),
    /// The key that signs tokens.
    #[error("the key that signs tokens cannot be taken from '{}'", file.display())]
    TokenKey {
        /// Where it should be.
        file: PathBuf,
        /// Why.
        source: secrets::Unusable,
    },
    /// The first key.
    #[error("the first operator key could not be made: {0}")]
    FirstKey(Problem),
    /// Something did not end as it should.
    #[error("{0}")]
    Ended(String),
}

/// A running node.
pub struct Node {
    address: SocketAddr,
    runtime: Runtime,
    server: Arc<Server>,
    serving: JoinHandle<()>,
    drain: Duration,
    #[cfg(feature = "cluster")]
    member: Option<cluster::Member>,
}

impl Node {
    /// Opens the store, starts the virtual actors and takes requests.
    pub async fn start(config: Config) -> Result<Self, Error> {
        Self::start_by(config, Arc::new(SystemClock)).await
    }

    /// The same by a clock of the host's.
    pub async fn start_by(mut config: Config, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        config.check()?;
        config.service.clone().choose().map_err(config::Error::from)?;
        files::fit(&mut config.server, files::raise());
        let listen = |source| Error::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let seal = secrets::node_key(&config)?;
        #[cfg(feature = "cluster")]
        let prepared = if config.cluster.servers.is_empty() {
            None
        } else {
            Some(cluster::prepare(&config, &format!("http://{address}"), Arc::clone(&clock)).await?)
        };
        let runtime = {
            let (config, clock) = (config.clone(), Arc::clone(&clock));
            #[cfg(feature = "cluster")]
            let builder = prepared.as_ref().map(cluster::Prepared::builder);
            #[cfg(not(feature = "cluster"))]
            let builder = None;
            let started = tokio::task::spawn_blocking(move || host(&config, clock, builder)).await;
            started.map_err(|error| Error::Ended(format!("opening the store failed: {error}")))??
        };
        let drain = Duration::from_secs(config.drain_s);
        let (root, is_new) = match secrets::root_key(&config) {
            Ok(root) => root,
            Err(error) => {
                runtime.drain(drain).await;
                return Err(error);
            }
        };
        let metrics = Arc::new(Metrics::new(|registry| vitals::register(&runtime, registry)));
        let server = Server::new(runtime.clone(), clock, metrics, config.server.clone(), root, seal);
        let serving = tokio::spawn(listen::serve(Arc::clone(&server), listener, drain / CONNECTIONS_SHARE));
        #[cfg(feature = "cluster")]
        let member = match prepared {
            Some(prepared) => Some(prepared.join(runtime.clone()).await?),
            None => None,
        };
        let node = Self {
            address,
            runtime,
            server,
            serving,
            drain,
            #[cfg(feature = "cluster")]
            member,
        };
        if node.makes_keys()
            && let Err(error) = first_key(&node.server, &config.data_dir, is_new).await
        {
            if !node.shares() {
                node.shutdown().await;
                return Err(error);
            }
            // Another node may just have gone; this one is of use all the same.
            tracing::error!(%error, "if the cluster has no operator key yet, start a node again to make one");
        }
        node.server.take_up_endpoints().await;
        node.server.enter(Phase::Ready);
        Ok(node)
    }

    /// Whether this node makes the first operator key: of a cluster, one does.
    fn makes_keys(&self) -> bool {
        #[cfg(feature = "cluster")]
        let makes = self.member.as_ref().is_none_or(cluster::Member::is_first);
        #[cfg(not(feature = "cluster"))]
        let makes = !self.shares();
        makes
    }

    /// Whether other nodes may own twins, too.
    fn shares(&self) -> bool {
        self.runtime.cluster().is_some()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as an address for clients.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The virtual actors.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// What its doors share.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Takes no more connections, finishes requests, ends streams, makes everything durable, closes the store.
    pub async fn shutdown(self) -> Drained {
        self.server.stop();
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the listener ended with a bug");
        }
        #[cfg(feature = "cluster")]
        if let Some(member) = self.member {
            member.leave(self.drain).await;
        }
        self.runtime.drain(self.drain).await
    }
}

/// Opens the store and starts a runtime that knows every kind of the node. Blocks.
fn host(config: &Config, clock: Arc<dyn Clock>, shared: Option<Builder>) -> Result<Runtime, Error> {
    let settled = |builder: Builder| kinds(builder.config(config.runtime.runtime()).clock(clock)).start();
    if let Some(builder) = shared {
        std::fs::create_dir_all(&config.data_dir)
            .map_err(|source| Error::Folder { folder: config.data_dir.clone(), source })?;
        return Ok(settled(builder)?);
    }
    let store: Arc<dyn Store> = match config.store.kind {
        StoreKind::Memory => Arc::new(MemoryStore::new()),
        StoreKind::Sled => {
            let folder = &config.data_dir;
            std::fs::create_dir_all(folder).map_err(|source| Error::Folder { folder: folder.clone(), source })?;
            let options =
                Options { level: config.store.level, cache_bytes: config.store.cache_mib << 20, ..Options::default() };
            let folder = transfer::store_folder(folder)?;
            Arc::new(SledStore::open(&folder, options).map_err(|source| Error::Store { folder, source })?)
        }
    };
    Ok(settled(Runtime::builder().store(store))?)
}

/// Registers the kinds of a node, with every message that can rest in an outbox or a ring.
pub fn kinds(builder: Builder) -> Builder {
    struct Wires(Option<Builder>);
    impl message::Registry for Wires {
        fn wire<M: Wire + Message<Twin = Service>>(&mut self) {
            self.0 = self.0.take().map(Builder::wire::<M>);
        }
    }
    impl capability::Registry for Wires {
        fn part<P: Part>(&mut self) {}

        fn request<R: Request>(&mut self) {
            self.0 = self.0.take().map(Builder::wire::<Use<R>>);
        }
    }
    parts::host(capability::parts());
    let builder = builder.kind::<Service>().kind::<Keyring>().kind::<Topic>();
    let builder = builder
        .wire::<bus::Append>()
        .wire::<bus::Read>()
        .wire::<bus::Lease>()
        .wire::<bus::Renew>()
        .wire::<bus::Seek>()
        .wire::<bus::Settle>()
        .wire::<bus::Trim>();
    let mut wires = Wires(Some(builder.wire::<MintKey>().wire::<RevokeKey>().wire::<LookUp>()));
    message::register(&mut wires);
    capability::register(&mut wires);
    wires.0.unwrap_or_default()
}

/// Makes an operator key if there is none that counts, and writes it where only the owner of the folder reads it.
async fn first_key(server: &Server, folder: &Path, root_is_new: bool) -> Result<(), Error> {
    let terms = vec!["covers=operator".into(), "ends=no".into()];
    let (found, _) = server.find::<Keyring>(terms, None, 1).await.map_err(Error::FirstKey)?;
    // What another root key has signed counts no more, so nobody has a key then.
    if !found.is_empty() && !root_is_new {
        return Ok(());
    }
    if !found.is_empty() {
        tracing::warn!("the key that signs tokens is a new one: keys made before count no more");
    }
    let (fresh, _) = server.mint(Covers::Operator, "first start").await.map_err(Error::FirstKey)?;
    let file = folder.join(KEY_FILE);
    let folder = folder.to_path_buf();
    secrets::write(&file, &fresh.key).map_err(|source| Error::Folder { folder, source })?;
    tracing::info!(key_id = fresh.id, file = %file.display(), "a first operator key was made; it lies in this file");
    Ok(())
}

/// Sets up the log of this process. A second call changes nothing.
pub fn log(config: &LogConfig) -> Result<(), Error> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.filter)
        .map_err(|error| Error::Log { filter: config.filter.clone(), cause: error.to_string() })?;
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr);
    let set = match config.format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    if set.is_err() {
        tracing::debug!("the log was set up before");
    }
    Ok(())
}

/// Runs a node until SIGTERM or SIGINT, then drains it. A second signal ends it at once.
pub async fn serve(config: Config) -> Result<(), Error> {
    log(&config.log)?;
    if config.server.anonymous_loopback {
        tracing::warn!("callers from this machine need no key (development)");
    }
    let (data_dir, level) = (config.data_dir.clone(), config.store.level);
    let mut signals = Signals::new()?;
    let node = tokio::select! {
        started = Node::start(config) => started?,
        () = signals.next() => return Err(Error::Ended("ended before it was ready".to_owned())),
    };
    tracing::info!(url = node.url(), data_dir = %data_dir.display(), ?level, "ready");
    signals.next().await;
    tracing::info!("draining; a second signal ends the node at once");
    tokio::select! {
        drained = node.shutdown() => match drained.unsettled {
            0 => {
                tracing::info!("ended");
                Ok(())
            }
            unsettled => Err(Error::Ended(format!("{unsettled} twins had not settled when the time was over"))),
        },
        () = signals.next() => Err(Error::Ended("ended at once, as asked; what was acknowledged is kept".to_owned())),
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> Result<Self, Error> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed = |error| Error::Ended(format!("signals cannot be taken: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    #[cfg(not(unix))]
    fn new() -> Result<Self, Error> {
        Ok(Self {})
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "signals cannot be taken");
            std::future::pending::<()>().await;
        }
    }
}
