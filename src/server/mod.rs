//! The node's doors: HTTP and gRPC on one port.
//!
//! A door translates bytes into messages for twins and answers back into bytes; it holds no policy beyond who may enter
//! ([`principal`]) and how errors are said ([`problem`]). Start at [`Server`], what every door shares, and
//! [`listen`], where requests come in.

pub mod capabilities;
pub mod channel;
pub mod connection;
#[cfg(feature = "dapr")]
pub mod dapr;
mod endpoint;
pub mod grpc;
pub mod http;
pub mod identity;
mod ingest;
pub mod invocation;
mod keys;
pub mod listen;
pub mod newcomers;
pub mod otlp;
pub mod pass;
mod patient;
pub mod principal;
pub mod problem;
mod secrets;
mod subscriptions;
pub mod topics;
pub mod vitals;

use std::{sync::Arc, time::Duration};

use axum::http::HeaderMap;
use compact_str::CompactString;
pub use ingest::Accepted;
pub use keys::Fresh;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use self::{
    connection::Connection,
    identity::Identity,
    newcomers::Newcomers,
    principal::{Claim, Doorkeeper, has_token},
    problem::{Code, Problem},
};
use crate::{
    capability::secrets::seal::NodeKey,
    metrics::Metrics,
    model::{Clock, Consistency, Header, Key, RequestKey, ServiceId, Timestamp},
    runtime::{ClusterView, Found, Journaled, PastEvents, Runtime, Watch},
    token::RootKey,
    twin::{
        Failure, Message, Rejection, Twin, Wire,
        journal::Moment,
        keyring::LookUp,
        part::{Part as _, Request},
        service::{Change, Service, message::GetAttributes, parts::Use},
    },
};

/// Bounds of the doors.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Largest body of a native request, in bytes.
    pub body_bytes_max: usize,
    /// Largest OTLP body, before and after unpacking, in bytes.
    pub otlp_bytes_max: usize,
    /// How long a connection may take to send a request's head, in seconds.
    pub header_timeout_s: u64,
    /// How long a peer may take nothing off its connection before that is closed, in seconds. One that reads its HTTP/2
    /// connection and leaves a stream on it unread is not closed; what is kept for such a stream is bounded.
    pub stall_timeout_s: u64,
    /// Connections open at once.
    pub connections_max: usize,
    /// How long a request may take if it does not say, in seconds.
    pub deadline_s: u64,
    /// Calls of other services that one service has under way at once.
    pub calls_per_service_max: usize,
    /// New twins one key may bring into being within an hour.
    pub new_twins_per_hour: u32,
    /// Wrong keys that one address may send within a minute before it has to wait.
    pub wrong_keys_per_minute: u32,
    /// Takes loopback callers without a key for operators. For development only.
    pub anonymous_loopback: bool,
    /// The audience this node is: it takes tokens narrowed to it, besides those narrowed to none. Without one it takes no
    /// token that names an audience.
    pub audience: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            body_bytes_max: 4 * 1024 * 1024,
            otlp_bytes_max: 16 * 1024 * 1024,
            header_timeout_s: 30,
            stall_timeout_s: 60,
            connections_max: 16_384,
            deadline_s: 30,
            calls_per_service_max: 512,
            new_twins_per_hour: 10_000,
            wrong_keys_per_minute: 20,
            anonymous_loopback: false,
            audience: None,
        }
    }
}

/// Event and command streams open at once.
pub const OPEN_STREAMS_MAX: usize = 8192;
/// Longest deadline a request may ask for.
pub const DEADLINE_MAX: Duration = Duration::from_secs(300);

/// Where a node stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not all is open yet.
    Starting,
    /// Takes requests.
    Ready,
    /// Finishes what it has; streams end.
    Stopping,
}

/// What every door shares.
pub struct Server {
    runtime: Runtime,
    clock: Arc<dyn Clock>,
    keeper: Doorkeeper,
    newcomers: Newcomers,
    /// Wraps the keys that secrets are sealed with.
    seal: NodeKey,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Bounds.
    pub config: Config,
    phase: watch::Sender<Phase>,
    streams: Arc<Semaphore>,
    /// Ways to applications.
    pub channels: channel::Channels,
    /// Ways to applications that open none.
    endpoints: endpoint::Endpoints,
    /// What services call at present.
    calls: invocation::Calls,
    /// What services said of themselves over the Dapr door.
    #[cfg(feature = "dapr")]
    pub extended: dapr::metadata::Extended,
    /// What is pushed to applications.
    #[cfg(feature = "dapr")]
    pub pushed: dapr::push::Pushed,
    /// Configuration that services follow.
    #[cfg(feature = "dapr")]
    pub subscriptions: dapr::configuration::Subscriptions,
    /// Tells event numbers of this start from those of an earlier one.
    started: Timestamp,
}

impl Server {
    /// Doors to a runtime. They take tokens of `root`, and make them with it.
    pub fn new(
        runtime: Runtime,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        config: Config,
        root: RootKey,
        seal: NodeKey,
    ) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            keeper: Doorkeeper::new(root, &config),
            newcomers: Newcomers::new(config.new_twins_per_hour),
            seal,
            metrics,
            config,
            phase: watch::Sender::new(Phase::Starting),
            streams: Arc::new(Semaphore::new(OPEN_STREAMS_MAX)),
            channels: channel::Channels::default(),
            endpoints: endpoint::Endpoints::default(),
            calls: invocation::Calls::default(),
            #[cfg(feature = "dapr")]
            extended: dapr::metadata::Extended::default(),
            #[cfg(feature = "dapr")]
            pushed: dapr::push::Pushed::default(),
            #[cfg(feature = "dapr")]
            subscriptions: dapr::configuration::Subscriptions::default(),
            started: clock.now(),
            clock,
        })
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Moves on in the node's life.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Where the node stands.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Ends when the node stops; for streams, which otherwise never would.
    pub async fn stopping(&self) {
        let mut phase = self.phase.subscribe();
        phase.wait_for(|phase| *phase == Phase::Stopping).await.expect("the sender lives as long as self");
    }

    /// Establishes who sends a request, and how far that reaches.
    pub async fn identify(&self, headers: &HeaderMap, connection: &Connection) -> Result<Identity, Problem> {
        let identified = self.judge(headers, connection).await;
        match &identified {
            Ok(identity) if identity.rights.is_some() => connection.note(identity, headers),
            Err(_) if has_token(headers) => connection.clear(),
            Ok(_) | Err(_) => {}
        }
        identified
    }

    async fn judge(&self, headers: &HeaderMap, connection: &Connection) -> Result<Identity, Problem> {
        let refused = |problem: Problem| {
            self.metrics.keys_refused.inc();
            problem
        };
        match self.keeper.claim(headers, connection.peer, self.now()).map_err(refused)? {
            Claim::Settled(identity) => Ok(identity),
            Claim::Ask(presented) => {
                let entry = self.ask_key(&presented.id, LookUp).await?;
                self.keeper.verify(&presented, entry.as_ref(), self.now()).map_err(refused)
            }
        }
    }

    /// Establishes who opens a stream that some SDKs send without its token: the only one heard on the connection, if
    /// there is no token and its key still counts; otherwise as [`Server::identify`].
    #[cfg(feature = "dapr")]
    pub async fn identify_stream(
        self: &Arc<Self>,
        headers: &HeaderMap,
        connection: &Connection,
    ) -> Result<Identity, Problem> {
        let heard = connection.only(headers).filter(|_| !has_token(headers));
        let Some(identity) = heard else { return self.identify(headers, connection).await };
        let counts = pass::Pass::new(Arc::clone(self), &identity).check().await;
        if counts.as_ref().is_err_and(|problem| matches!(problem.code, Code::KeyRevoked | Code::KeyExpired)) {
            self.metrics.keys_refused.inc();
        }
        counts.map(|()| identity)
    }

    /// Asks a service twin.
    pub async fn ask<M: Wire + Message<Twin = Service>>(
        &self,
        service: &ServiceId,
        message: M,
        header: Header,
        key: Option<RequestKey>,
    ) -> Result<M::Reply, Failure> {
        let ask = self.runtime.twin(service.key()).ask(message).header(header);
        match key {
            Some(key) => ask.key(key).await,
            None => ask.await,
        }
    }

    /// Asks a service twin for a capability; a refusal by its grants is a rejection that names the rule. Whoever speaks
    /// for some instances only does not ask in the name of others.
    pub async fn call<R: Request>(
        &self,
        service: &ServiceId,
        request: R,
        header: Header,
        key: Option<RequestKey>,
    ) -> Result<R::Reply, Failure> {
        if let (Some(rights), Some(instance)) = (header.rights(), request.speaks_for()) {
            rights.speak_for(instance).map_err(|narrowed| Rejection::Denied { rule: narrowed.to_string().into() })?;
        }
        let ruled = self.ask(service, Use(request), header, key).await?;
        self.metrics.decided(R::Part::NAME, R::OPERATION, ruled.is_ok());
        ruled.map_err(|denial| Rejection::Denied { rule: denial.to_string().into() }.into())
    }

    /// Asks a service twin as it was.
    pub async fn past<M: Message<Twin = Service>>(
        &self,
        service: &ServiceId,
        moment: Moment,
        message: M,
        consistency: Consistency,
    ) -> Result<M::Reply, Failure> {
        let twin = self.runtime.twin(service.key()).consistency(consistency);
        let answer = twin.at(moment).ask(message).await;
        self.gone(service, answer).await
    }

    /// Reads what changed of a service twin after a revision, oldest first; and whether there is more.
    pub async fn journal(
        &self,
        service: &ServiceId,
        after: u64,
        limit: usize,
        consistency: Consistency,
    ) -> Result<(Vec<Journaled<Change>>, bool), Failure> {
        let twin = self.runtime.twin(service.key()).consistency(consistency);
        let answer = twin.journal::<Service>(after, limit).await;
        self.gone(service, answer).await
    }

    /// Events of a service twin's changes after a revision, from its journal.
    pub async fn past_events(&self, service: &ServiceId, after: u64) -> Result<PastEvents, Failure> {
        self.runtime.twin(service.key()).events::<Service>(after).await
    }

    /// A past that is gone because the twin was removed is refused as the twin itself is.
    async fn gone<R>(&self, service: &ServiceId, answer: Result<R, Failure>) -> Result<R, Failure> {
        if !matches!(answer, Err(Failure::Rejected(Rejection::Gone { .. }))) {
            return answer;
        }
        match self.runtime.twin(service.key()).ask(GetAttributes).await {
            Err(removed @ Failure::Rejected(Rejection::Removed { .. })) => Err(removed),
            Ok(_) | Err(_) => answer,
        }
    }

    /// Finds twins of a kind by their search terms, none activated.
    pub async fn find<K: Twin>(
        &self,
        terms: Vec<CompactString>,
        after: Option<Key>,
        limit: usize,
    ) -> Result<(Vec<Found>, bool), Problem> {
        let found = self.runtime.find::<K>(terms, after, limit).await;
        found.map_err(|error| Problem::new(Code::Overloaded, format!("the index cannot be read: {error}")))
    }

    /// What is known of the other nodes; `None` for a node that shares its twins with nobody.
    pub fn cluster(&self) -> Option<ClusterView> {
        self.runtime.cluster()
    }

    /// Follows the committed events of one service twin, or of all twins.
    pub fn watch(&self, service: Option<&ServiceId>, after: Option<u64>) -> Watch {
        match service {
            Some(service) => self.runtime.watch_twin::<Service>(service.key(), after),
            None => self.runtime.watch(after),
        }
    }

    /// Room for one more stream, for as long as the permit is held.
    pub fn stream(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let detail =
            || format!("the node has {OPEN_STREAMS_MAX} streams open, as many as it takes; close one, or try later");
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| Problem::new(Code::Overloaded, detail()))
    }

    /// Ends when no stream is open any more.
    pub async fn streams_ended(&self) {
        let all = u32::try_from(OPEN_STREAMS_MAX).unwrap_or(u32::MAX);
        drop(self.streams.acquire_many(all).await);
    }

    /// Tells the event numbers of this start from those of an earlier one.
    pub fn started(&self) -> u64 {
        self.started.unix_ms()
    }

    /// A failure as the caller sees it.
    pub fn problem(&self, failure: &Failure) -> Problem {
        Problem::from_failure(failure, self.now())
    }

    /// Says no once the store writes nothing any more.
    pub fn writable(&self) -> Result<(), Problem> {
        match self.runtime.store_failed() {
            None => Ok(()),
            Some(cause) => Err(Problem::new(Code::NotCommitted, format!("the store has stopped: {cause}"))),
        }
    }

    /// Says no as long as the node is not ready.
    pub fn ready(&self) -> Result<(), Problem> {
        match self.phase() {
            Phase::Ready => Ok(()),
            Phase::Starting => Err(Problem::new(Code::NotReady, "the node is starting; see /readyz")),
            Phase::Stopping => Err(Problem::new(Code::Stopping, "the node is stopping")),
        }
    }
}
