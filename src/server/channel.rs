//! Ways to applications: connections that instances open to the node, and on which the node is the one that asks.
//!
//! An instance asks over HTTP/1.1 for `Upgrade: twin-channel`. What follows on the connection is HTTP/2 with prior
//! knowledge (RFC 9113, section 3.3) with the roles exchanged, so an application needs no port that the node can reach,
//! and whatever HTTP/2 can carry goes through: streams, trailers, gRPC. A channel is open for as long as its connection
//! and its key count; its application takes part in invocations and in what is pushed to the service meanwhile.

use std::{
    fmt,
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ahash::HashMap;
use axum::{
    body::Body,
    http::{Request, Response, StatusCode, Uri, uri::PathAndQuery},
};
use compact_str::CompactString;
use hyper::{
    client::conn::http2::{Builder, SendRequest},
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioTimer;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};

use super::{
    Server,
    connection::Connection,
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
/// Calls of other services on one channel at once; what is pushed finds room beside them.
const CALLS_MAX: usize = 128;
/// Subscriptions to configuration that are pushed over one channel at once.
pub const FOLLOWED_MAX: usize = 32;
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
    calls: Arc<Semaphore>,
    followed: Arc<Semaphore>,
    /// Whose key it was opened with.
    key_id: CompactString,
    /// Ends it: another one has taken its place.
    replaced: Notify,
    /// Whether it takes nothing new any more.
    over: watch::Sender<bool>,
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
#[derive(Debug, thiserror::Error)]
#[error("the application was not reached: {why}")]
pub struct Unreached {
    /// The reason, for the log.
    pub why: String,
    /// The request, if nothing of it was sent: it may take another way.
    pub unsent: Option<Box<Request<Body>>>,
}

impl Unreached {
    /// What was asked may have arrived.
    pub fn new(why: impl fmt::Display) -> Self {
        Self { why: why.to_string(), unsent: None }
    }
}

impl Channel {
    fn new(instance: CompactString, protocol: Protocol, key_id: CompactString, to: To) -> Self {
        let room = |max| Arc::new(Semaphore::new(max));
        let (calls, followed) = (room(CALLS_MAX), room(FOLLOWED_MAX));
        let (waiting, replaced, over) = (AtomicUsize::new(0), Notify::new(), watch::Sender::new(false));
        Self { instance, protocol, to, waiting, calls, followed, key_id, replaced, over }
    }

    /// The way to an endpoint.
    pub(super) fn to_endpoint(way: Way) -> Self {
        let endpoint = way.endpoint();
        Self::new(endpoint.instance.clone(), endpoint.protocol, CompactString::default(), To::Endpoint(Box::new(way)))
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
        let response = match &self.to {
            To::Open(sender) => ask_over(sender.clone(), path, request).await?,
            To::Endpoint(way) => way.ask(path, request).await?,
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Unreached::new("it answered with another protocol"));
        }
        Ok(response)
    }

    /// Room for a call of another service, for as long as the permit is held.
    pub fn call_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.calls).try_acquire_owned().ok()
    }

    /// Room for one more subscription to configuration, for as long as the permit is held.
    pub fn follow_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.followed).try_acquire_owned().ok()
    }

    /// Waits until it takes nothing new any more.
    pub async fn over(&self) {
        let mut over = self.over.subscribe();
        over.wait_for(|over| *over).await.expect("the sender lives as long as self");
    }

    /// Whether it takes nothing new any more.
    pub fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    /// Whether its connection has ended.
    fn is_closed(&self) -> bool {
        match &self.to {
            To::Open(sender) => sender.is_closed(),
            To::Endpoint(_) => false,
        }
    }
}

async fn ask_over(
    mut sender: SendRequest<Body>,
    path: PathAndQuery,
    mut request: Request<Body>,
) -> Result<Response<Body>, Unreached> {
    let uri = Uri::builder().scheme("http").authority("app").path_and_query(path).build();
    *request.uri_mut() = uri.map_err(Unreached::new)?;
    *request.version_mut() = axum::http::Version::HTTP_2;
    if let Err(error) = sender.ready().await {
        return Err(Unreached { why: error.to_string(), unsent: Some(Box::new(request)) });
    }
    let response = sender.try_send_request(request).await.map_err(|mut error| {
        let unsent = error.take_message().map(Box::new);
        Unreached { why: error.error().to_string(), unsent }
    })?;
    if let Some(why) = response.headers().get(UNREACHED) {
        return Err(Unreached::new(String::from_utf8_lossy(why.as_bytes())));
    }
    Ok(response.map(Body::new))
}

/// The one of several ways that has the least to do.
pub(super) fn least(channels: &mut Vec<Arc<Channel>>) -> Option<Arc<Channel>> {
    // Whoever was asked last comes last among equals.
    let good = channels.iter().enumerate().filter(|(_, channel)| !channel.is_closed());
    let least = good.min_by_key(|(_, channel)| channel.load());
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
pub struct Channels(Mutex<HashMap<ServiceId, OfService>>);

#[derive(Debug, Default)]
struct OfService {
    open: Vec<Arc<Channel>>,
    /// Open, about to be, or about to end.
    places: usize,
}

impl Channels {
    /// The channel to the instance of a service that has the least to do.
    pub fn any(&self, service: &ServiceId) -> Option<Arc<Channel>> {
        least(&mut self.0.lock().get_mut(service)?.open)
    }

    /// The channel over which an instance of a service is told what it asked for with a key: one that was opened with
    /// the same key, otherwise any.
    pub fn opened_with(&self, service: &ServiceId, key_id: &str) -> Option<Arc<Channel>> {
        let mut all = self.0.lock();
        let open = &mut all.get_mut(service)?.open;
        let mut own: Vec<_> = open.iter().filter(|channel| channel.key_id == key_id).cloned().collect();
        least(&mut own).or_else(|| least(open))
    }

    /// Takes a channel in; an earlier one of the same instance, which that has given up, ends.
    fn add(&self, service: &ServiceId, channel: Arc<Channel>) {
        let mut all = self.0.lock();
        let open = &mut all.entry(service.clone()).or_default().open;
        open.retain(|known| {
            let stays = known.instance != channel.instance;
            if !stays {
                known.replaced.notify_one();
            }
            stays
        });
        open.push(channel);
    }

    fn remove(&self, service: &ServiceId, channel: &Arc<Channel>) {
        if let Some(of_service) = self.0.lock().get_mut(service) {
            of_service.open.retain(|known| !Arc::ptr_eq(known, channel));
        }
    }
}

/// A place among the channels of a service.
struct Place {
    server: Arc<Server>,
    service: ServiceId,
}

impl Place {
    fn take(server: &Arc<Server>, service: &ServiceId) -> Result<Self, Problem> {
        let mut all = server.channels.0.lock();
        let of_service = all.entry(service.clone()).or_default();
        if of_service.places >= CHANNELS_MAX {
            let detail = format!("the service has {CHANNELS_MAX} channels open, as many as it may");
            return Err(Problem::new(Code::Overloaded, detail));
        }
        of_service.places += 1;
        Ok(Self { server: Arc::clone(server), service: service.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.server.channels.0.lock();
        let Some(of_service) = all.get_mut(&self.service) else { return };
        of_service.places -= 1;
        if of_service.places == 0 {
            all.remove(&self.service);
        }
    }
}

/// What a channel's connection does beside the one who keeps it; all of it ends with it.
#[derive(Clone, Debug, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    /// Waits until there are none.
    async fn ended(&self) {
        std::future::poll_fn(|cx| {
            let mut tasks = self.0.lock();
            while std::task::ready!(tasks.poll_join_next(cx)).is_some() {}
            std::task::Poll::Ready(())
        })
        .await;
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        let mut tasks = self.0.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move { drop(future.await) });
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
    /// The connection that was asked on; it counts as open.
    pub connection: Connection,
    /// The same, once it is upgraded.
    pub upgrade: OnUpgrade,
}

impl Server {
    /// Lets an instance open a channel, and keeps it for as long as it is good.
    pub fn open_channel(self: &Arc<Self>, opening: Opening) -> Result<(), Problem> {
        let place = Place::take(self, &opening.service)?;
        let permit = self.stream()?;
        let server = Arc::clone(self);
        tokio::spawn(async move {
            let (service, instance) = (opening.service.clone(), opening.instance.clone());
            if let Err(error) = server.keep_channel(opening).await {
                tracing::debug!(%error, %service, %instance, "a channel ended early");
            }
            drop((place, permit));
        });
        Ok(())
    }

    async fn keep_channel(self: Arc<Self>, opening: Opening) -> hyper::Result<()> {
        let Opening { service, instance, protocol, identity, connection: _held, upgrade } = opening;
        let tasks = Tasks::default();
        let mut builder = Builder::new(tasks.clone());
        builder
            .timer(TokioTimer::new())
            .adaptive_window(true)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        let (sender, connection) = builder.handshake(upgrade.await?).await?;
        let key_id = identity.principal.key_id().unwrap_or_default().into();
        let channel = Arc::new(Channel::new(instance, protocol, key_id, To::Open(sender)));
        let mut pass = Pass::new(Arc::clone(&self), &identity);
        self.channels.add(&service, Arc::clone(&channel));
        let mut push = pin!(self.push(identity, Arc::clone(&channel)));
        let (served, leaves) = tokio::select! {
            served = connection => (served, true),
            _ = pass.over() => (Ok(()), false),
            () = channel.replaced.notified() => (Ok(()), false),
            () = &mut push => (Ok(()), false),
        };
        self.channels.remove(&service, &channel);
        channel.over.send_replace(true);
        if leaves {
            // The other end takes nothing new, and finishes what it has.
            let finished = async {
                push.await;
                tasks.ended().await;
            };
            tokio::select! {
                () = finished => {}
                _ = pass.over() => {}
                () = self.stopping() => {}
            }
        }
        // Whatever is still under way on it ends, too.
        tasks.0.lock().abort_all();
        served
    }

    /// Pushes to an application what its service subscribed to, until the node stops and the last of it is settled.
    #[cfg(feature = "dapr")]
    pub(super) async fn push(self: &Arc<Self>, identity: Identity, channel: Arc<Channel>) {
        match super::dapr::Session::of(Arc::clone(self), identity) {
            Ok(session) => super::dapr::push::run(session, channel).await,
            Err(_) => self.stopping().await,
        }
    }

    #[cfg(not(feature = "dapr"))]
    pub(super) async fn push(&self, _: Identity, _: Arc<Channel>) {
        self.stopping().await;
    }
}
