//! Ways to applications: connections that instances open to the node, and on which the node is the one that asks.
//!
//! An instance asks over HTTP/1.1 for `Upgrade: twin-channel`. What follows on the connection is HTTP/2 with prior
//! knowledge (RFC 9113, section 3.3) with the roles exchanged, so an application needs no port that the node can reach,
//! and whatever HTTP/2 can carry goes through: streams, trailers, gRPC. A channel is open for as long as its connection
//! and its key count; its application takes part in invocations and in what is pushed to the service meanwhile.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ahash::HashMap;
use axum::{
    body::Body,
    http::{Request, Response, Uri, uri::PathAndQuery},
};
use compact_str::CompactString;
use hyper::{
    client::conn::http2::{Builder, SendRequest},
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Server,
    endpoint::Way,
    identity::Identity,
    pass::Pass,
    problem::{Code, Problem},
};
pub use crate::capability::endpoints::Protocol;
use crate::{capability::endpoints::Endpoint, model::ServiceId};

/// The protocol that a connection is upgraded to.
pub const UPGRADE: &str = "twin-channel";
/// Set by the other end on an answer of its own: the application was not reached, and why.
pub const UNREACHED: &str = "twin-unreached";
/// Most channels of one service.
const CHANNELS_MAX: usize = 64;
/// How often a channel without traffic is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(15);
/// How long the answer to that may take.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// One way to one application.
pub struct Channel {
    /// Which instance of the service it is.
    pub instance: CompactString,
    /// What it speaks.
    pub protocol: Protocol,
    to: To,
    /// Requests that wait for their answer.
    waiting: AtomicUsize,
}

/// What carries requests.
enum To {
    /// A connection that the instance opened.
    Open(SendRequest<Body>),
    /// Connections that the node opens.
    Endpoint(Box<Way>),
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({})", self.instance)
    }
}

/// Why an application does not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the application was not reached: {0}")]
pub struct Unreached(pub String);

impl Channel {
    fn new(instance: CompactString, protocol: Protocol, to: To) -> Self {
        Self { instance, protocol, to, waiting: AtomicUsize::new(0) }
    }

    /// The way to an endpoint.
    pub(super) fn to_endpoint(way: Way) -> Self {
        let endpoint = way.endpoint();
        Self::new(endpoint.instance.clone(), endpoint.protocol, To::Endpoint(Box::new(way)))
    }

    /// Whether the node opens the connections.
    pub fn is_endpoint(&self) -> bool {
        match &self.to {
            To::Open(_) => false,
            To::Endpoint(_) => true,
        }
    }

    /// Whether it is the way to this endpoint.
    pub(super) fn is_to(&self, endpoint: &Endpoint) -> bool {
        match &self.to {
            To::Open(_) => false,
            To::Endpoint(way) => way.endpoint() == endpoint,
        }
    }

    /// Waits until the application cannot be connected to, if it is the node that connects.
    pub(super) async fn lost(&self) {
        match &self.to {
            To::Open(_) => std::future::pending().await,
            To::Endpoint(way) => way.lost().await,
        }
    }

    /// What it has to do: whoever could not be reached comes last.
    fn load(&self) -> (bool, usize) {
        let is_down = match &self.to {
            To::Open(_) => false,
            To::Endpoint(way) => way.is_down(),
        };
        (is_down, self.waiting.load(Ordering::Relaxed))
    }

    /// Asks the application; the answer is here with its head, its body comes as it is read.
    pub async fn ask(&self, path: PathAndQuery, request: Request<Body>) -> Result<Response<Body>, Unreached> {
        let _waiting = Waiting::new(&self.waiting);
        match &self.to {
            To::Open(sender) => ask_over(sender.clone(), path, request).await,
            To::Endpoint(way) => way.ask(path, request).await,
        }
    }
}

async fn ask_over(
    mut sender: SendRequest<Body>,
    path: PathAndQuery,
    mut request: Request<Body>,
) -> Result<Response<Body>, Unreached> {
    let unreached = |error: &dyn fmt::Display| Unreached(error.to_string());
    let uri = Uri::builder().scheme("http").authority("app").path_and_query(path).build();
    *request.uri_mut() = uri.map_err(|error| unreached(&error))?;
    *request.version_mut() = axum::http::Version::HTTP_2;
    sender.ready().await.map_err(|error| unreached(&error))?;
    let response = sender.send_request(request).await.map_err(|error| unreached(&error))?;
    if let Some(why) = response.headers().get(UNREACHED) {
        return Err(Unreached(String::from_utf8_lossy(why.as_bytes()).into_owned()));
    }
    Ok(response.map(Body::new))
}

/// The one of several ways that has the least to do.
pub(super) fn least(channels: &mut Vec<Arc<Channel>>) -> Option<Arc<Channel>> {
    // Whoever was asked last comes last among equals.
    let least = channels.iter().enumerate().min_by_key(|(_, channel)| channel.load());
    let at = least.map(|(at, _)| at)?;
    let channel = channels.remove(at);
    channels.push(Arc::clone(&channel));
    Some(channel)
}

/// Counts a request while it waits for its answer.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The channels that are open.
#[derive(Debug, Default)]
pub struct Channels(Mutex<HashMap<ServiceId, Vec<Arc<Channel>>>>);

impl Channels {
    /// The channel to the instance of a service that has the least to do.
    pub fn any(&self, service: &ServiceId) -> Option<Arc<Channel>> {
        least(self.0.lock().get_mut(service)?)
    }

    fn has_room(&self, service: &ServiceId, instance: &str) -> bool {
        let open = self.0.lock();
        let others = open.get(service).into_iter().flatten().filter(|channel| channel.instance != instance);
        others.count() < CHANNELS_MAX
    }

    /// Takes a channel in; an earlier one of the same instance, which it has given up, is let go.
    fn add(&self, service: &ServiceId, channel: Arc<Channel>) {
        let mut open = self.0.lock();
        let channels = open.entry(service.clone()).or_default();
        channels.retain(|known| known.instance != channel.instance);
        channels.push(channel);
    }

    fn remove(&self, service: &ServiceId, channel: &Arc<Channel>) {
        let mut open = self.0.lock();
        if let Some(channels) = open.get_mut(service) {
            channels.retain(|known| !Arc::ptr_eq(known, channel));
            if channels.is_empty() {
                open.remove(service);
            }
        }
    }
}

/// A channel that was asked for.
pub struct Opening {
    /// Whose it is to be.
    pub service: ServiceId,
    /// Which instance.
    pub instance: CompactString,
    /// What its application speaks.
    pub protocol: Protocol,
    /// Who asked.
    pub identity: Identity,
    /// The connection, once it is upgraded.
    pub upgrade: OnUpgrade,
}

impl Server {
    /// Lets an instance open a channel, and keeps it for as long as it is good.
    pub fn open_channel(self: &Arc<Self>, opening: Opening) -> Result<(), Problem> {
        if !self.channels.has_room(&opening.service, &opening.instance) {
            let detail = format!("the service has {CHANNELS_MAX} channels open, as many as it may");
            return Err(Problem::new(Code::Overloaded, detail));
        }
        let permit = self.stream()?;
        let server = Arc::clone(self);
        tokio::spawn(async move {
            let (service, instance) = (opening.service.clone(), opening.instance.clone());
            if let Err(error) = server.keep_channel(opening, permit).await {
                tracing::debug!(%error, %service, %instance, "a channel ended early");
            }
        });
        Ok(())
    }

    async fn keep_channel(self: Arc<Self>, opening: Opening, _permit: OwnedSemaphorePermit) -> hyper::Result<()> {
        let Opening { service, instance, protocol, identity, upgrade } = opening;
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .adaptive_window(true)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        let (sender, connection) = builder.handshake(upgrade.await?).await?;
        let channel = Arc::new(Channel::new(instance, protocol, To::Open(sender)));
        let mut pass = Pass::new(Arc::clone(&self), &identity);
        self.channels.add(&service, Arc::clone(&channel));
        let served = tokio::select! {
            served = connection => served,
            _ = pass.over() => Ok(()),
            () = self.stopping() => Ok(()),
            () = self.push(identity, Arc::clone(&channel)) => Ok(()),
        };
        self.channels.remove(&service, &channel);
        served
    }

    /// Pushes to an application what its service subscribed to, until the future is dropped.
    #[cfg(feature = "dapr")]
    pub(super) async fn push(self: &Arc<Self>, identity: Identity, channel: Arc<Channel>) {
        match super::dapr::Session::of(Arc::clone(self), identity) {
            Ok(session) => super::dapr::push::run(session, channel).await,
            Err(_) => std::future::pending().await,
        }
    }

    #[cfg(not(feature = "dapr"))]
    pub(super) async fn push(&self, _: Identity, _: Arc<Channel>) {
        std::future::pending::<()>().await;
    }
}
