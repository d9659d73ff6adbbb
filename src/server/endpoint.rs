//! Ways to applications that open no channel: the node connects to where they are registered, as far as the grants of
//! their service allow it.
//!
//! Rights are those of the service that registered the endpoint, whoever is to be carried there. They are asked for with
//! each request, and once more for the addresses that a name stands for before one of them is connected to. No redirect is
//! followed: an answer that is one is the answer.

use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use ahash::HashMap;
use axum::{
    body::Body,
    http::{Request, Response, Uri, Version, uri::PathAndQuery},
};
use compact_str::CompactString;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use parking_lot::Mutex;
use tokio::{net::TcpStream, sync::Notify, task::AbortHandle};

use super::{
    Phase, Server,
    channel::{Channel, Unreached, least},
    identity::Identity,
    principal::ENDPOINT,
};
use crate::{
    capability::{
        egress::{CONNECT, CONNECT_INNER, Connect, Egress, is_inner},
        endpoints::{Endpoint, GetEndpoints, Protocol, TERM},
    },
    model::{Header, Principal, ServiceId},
    twin::{
        Failure, Rejection,
        part::{Part as _, Right},
        service::{Service, access::CheckAccess},
    },
};

/// How long it may take to find an address and to connect to it, each.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection without requests is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Most connections without requests that are kept of one endpoint.
const IDLE_MAX: usize = 32;
/// How often a connection over HTTP/2 is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(15);
/// How long an application that cannot be connected to is left alone.
const AGAIN: Duration = Duration::from_secs(1);
/// Services that are looked for at once when a node starts.
const PAGE: usize = 200;

/// Why an address is not connected to.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unconnected {
    /// The service may not, or its twin cannot be asked.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The name stands for no address.
    #[error("its name is not found: {0}")]
    Unresolved(std::io::Error),
    /// Nobody takes the connection.
    #[error("{0}")]
    Silent(std::io::Error),
    /// The node ends.
    #[error("the node is stopping")]
    Stopping,
}

/// The endpoints that are known here, of every service.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    of: Mutex<HashMap<ServiceId, Known>>,
    /// Counts looks, so that of two at a time the newer one counts.
    looks: AtomicU64,
}

/// What is known of one service.
#[derive(Debug, Default)]
struct Known {
    look: u64,
    endpoints: Vec<(Endpoint, Pushed)>,
    channels: Vec<Arc<Channel>>,
}

/// What is pushed to an endpoint, until this is dropped.
#[derive(Debug)]
struct Pushed(AbortHandle);

impl Drop for Pushed {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Server {
    /// The way to an instance of a service: over a channel that is open, otherwise to an endpoint.
    pub fn way_to(&self, service: &ServiceId) -> Option<Arc<Channel>> {
        self.channels.any(service).or_else(|| least(&mut self.endpoints.of.lock().get_mut(service)?.channels))
    }

    /// Takes up the endpoints of every service, when a node starts.
    pub async fn take_up_endpoints(self: &Arc<Self>) {
        let mut after = None;
        loop {
            let terms = vec![compact_str::format_compact!("{}={}", TERM.0, TERM.1)];
            let (found, more) = match self.find::<Service>(terms, after.take(), PAGE).await {
                Ok(found) => found,
                Err(problem) => {
                    tracing::error!(reason = %problem.detail, "endpoints are not looked for; what is registered again is known");
                    return;
                }
            };
            for service in found.iter().filter_map(|found| ServiceId::parse(found.key.as_str()).ok()) {
                if let Err(failure) = self.look_for_endpoints(&service).await {
                    tracing::error!(%failure, %service, "the endpoints of a service are not known until one is registered again");
                }
            }
            after = found.last().map(|found| found.key.clone()).filter(|_| more);
            if after.is_none() {
                return;
            }
        }
    }

    /// Reads what a service has registered, opens ways to what is new and gives up what is not there any more.
    pub(super) async fn look_for_endpoints(self: &Arc<Self>, service: &ServiceId) -> Result<(), Failure> {
        let look = self.endpoints.looks.fetch_add(1, Ordering::Relaxed) + 1;
        let header = Header::default().with_deadline(self.now().after(Duration::from_secs(self.config.deadline_s)));
        let registered = self.call(service, GetEndpoints, header, None).await?;
        let mut of = self.endpoints.of.lock();
        let known = of.entry(service.clone()).or_default();
        if known.look > look {
            return Ok(());
        }
        known.look = look;
        known.keep(&registered);
        for endpoint in registered {
            if known.endpoints.iter().all(|(known, _)| *known != endpoint) {
                let channel = Arc::new(Channel::to_endpoint(Way::new(self, service, endpoint.clone())));
                let pushed = tokio::spawn(Arc::clone(self).keep_endpoint(service.clone(), Arc::clone(&channel)));
                known.channels.push(channel);
                known.endpoints.push((endpoint, Pushed(pushed.abort_handle())));
            }
        }
        Ok(())
    }

    /// Gives up the endpoints of a twin that was removed.
    pub(super) fn forget_endpoints(&self, service: &ServiceId) {
        if let Some(known) = self.endpoints.of.lock().get_mut(service) {
            known.look = self.endpoints.looks.fetch_add(1, Ordering::Relaxed) + 1;
            known.keep(&[]);
        }
    }

    /// Pushes to an endpoint; one that was away is asked for its subscriptions anew, as an application that comes back
    /// over a channel is.
    async fn keep_endpoint(self: Arc<Self>, service: ServiceId, channel: Arc<Channel>) {
        let identity = identity_of(&service);
        loop {
            tokio::select! {
                () = self.push(identity.clone(), Arc::clone(&channel)) => {}
                () = channel.lost() => {}
            }
            if self.phase() == Phase::Stopping {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn header_for(&self, service: &ServiceId) -> Header {
        identity_of(service).header().with_deadline(self.now().after(Duration::from_secs(self.config.deadline_s)))
    }

    async fn permit_egress(&self, service: &ServiceId, name: &str, is_inner: bool) -> Result<(), Failure> {
        self.call(service, Connect { name: name.into(), is_inner }, self.header_for(service), None).await
    }

    /// The same before each request; not counted as one of the service.
    async fn still_permit_egress(&self, service: &ServiceId, name: &str, is_inner: bool) -> Result<(), Failure> {
        let right = |operation: &str| Right {
            capability: Egress::NAME.into(),
            name: name.into(),
            operation: CompactString::from(operation),
        };
        let rights = [CONNECT, CONNECT_INNER].into_iter().take(if is_inner { 2 } else { 1 }).map(right).collect();
        match self.ask(service, CheckAccess { rights }, self.header_for(service), None).await {
            Ok(explained) if explained.iter().all(|each| each.allowed) => Ok(()),
            // Whoever is refused now is refused in full, with an entry in the journal.
            Ok(_) | Err(Failure::Rejected(Rejection::NotFound { .. })) => {
                self.permit_egress(service, name, is_inner).await
            }
            Err(failure) => Err(failure),
        }
    }

    /// The addresses that a host stands for, if a service may connect to all of them; and whether one is an inner one.
    pub(super) async fn addresses(
        &self,
        service: &ServiceId,
        name: &str,
    ) -> Result<(Vec<SocketAddr>, bool), Unconnected> {
        // Nobody has a name looked up who may not connect to it.
        self.permit_egress(service, name, false).await?;
        let found = tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::lookup_host(name)).await;
        let found = found.unwrap_or_else(|elapsed| Err(elapsed.into())).map_err(Unconnected::Unresolved)?;
        let addresses: Vec<SocketAddr> = found.collect();
        let is_inner = addresses.iter().any(|address| is_inner(address.ip()));
        if is_inner {
            self.permit_egress(service, name, true).await?;
        }
        Ok((addresses, is_inner))
    }
}

impl Known {
    fn keep(&mut self, registered: &[Endpoint]) {
        self.endpoints.retain(|(known, _)| registered.contains(known));
        let is_kept = |channel: &Arc<Channel>| self.endpoints.iter().any(|(known, _)| channel.is_to(known));
        self.channels.retain(is_kept);
    }
}

/// On whose behalf the node connects.
fn identity_of(service: &ServiceId) -> Identity {
    Identity::without_token(Principal::Service { key_id: ENDPOINT.into(), service: service.clone() })
}

/// The way to one endpoint.
pub(super) struct Way {
    reach: Arc<Reach>,
    client: Client<Connector, Body>,
}

/// Where it leads, and what was met on it.
struct Reach {
    server: Weak<Server>,
    service: ServiceId,
    endpoint: Endpoint,
    /// Whether its address was an inner one when it was connected to last.
    is_inner: AtomicBool,
    /// Whether it was not reached when it was asked last.
    is_down: AtomicBool,
    /// Tells that it cannot be connected to.
    lost: Notify,
}

impl Way {
    fn new(server: &Arc<Server>, service: &ServiceId, endpoint: Endpoint) -> Self {
        let mut client = Client::builder(TokioExecutor::new());
        client
            .http2_only(endpoint.protocol == Protocol::Grpc)
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(PING_EVERY)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_MAX)
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new());
        let reach = Arc::new(Reach {
            server: Arc::downgrade(server),
            service: service.clone(),
            endpoint,
            is_inner: AtomicBool::new(false),
            is_down: AtomicBool::new(false),
            lost: Notify::new(),
        });
        Self { client: client.build(Connector(Arc::clone(&reach))), reach }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.reach.endpoint
    }

    pub(super) fn is_down(&self) -> bool {
        self.reach.is_down.load(Ordering::Relaxed)
    }

    /// Waits until it cannot be connected to.
    pub(super) async fn lost(&self) {
        self.reach.lost.notified().await;
    }

    /// Asks the application. What is wrong is told to the log; the asker may be a service of somebody else.
    pub(super) async fn ask(
        &self,
        path: PathAndQuery,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Unreached> {
        let Endpoint { instance, url, protocol } = &self.reach.endpoint;
        let uri = Uri::builder().scheme("http").authority(self.reach.endpoint.authority()).path_and_query(path).build();
        *request.uri_mut() = uri.map_err(Unreached::new)?;
        *request.version_mut() = match protocol {
            Protocol::Http => Version::HTTP_11,
            Protocol::Grpc => Version::HTTP_2,
        };
        let (reason, is_lost) = match self.reach.still_permitted().await {
            Err(refused) => (refused.to_string(), true),
            Ok(()) => match self.client.request(request).await {
                Ok(response) => {
                    self.reach.is_down.store(false, Ordering::Relaxed);
                    return Ok(response.map(Body::new));
                }
                Err(error) => (cause(&error), error.is_connect()),
            },
        };
        let service = &self.reach.service;
        if self.reach.is_down.swap(true, Ordering::Relaxed) {
            tracing::debug!(%service, %instance, %url, reason, "an endpoint is still not reached");
        } else {
            tracing::warn!(%service, %instance, %url, reason, "an endpoint is not reached");
        }
        if is_lost {
            self.reach.lost.notify_waiters();
        }
        Err(Unreached::new("its endpoint does not answer"))
    }
}

impl Reach {
    fn server(&self) -> Result<Arc<Server>, Unconnected> {
        self.server.upgrade().ok_or(Unconnected::Stopping)
    }

    /// A right that ended counts for connections that are open, too.
    async fn still_permitted(&self) -> Result<(), Unconnected> {
        let is_inner = self.is_inner.load(Ordering::Relaxed);
        let server = self.server()?;
        Ok(server.still_permit_egress(&self.service, self.endpoint.authority(), is_inner).await?)
    }

    async fn connect(&self) -> Result<TcpStream, Unconnected> {
        let (addresses, is_inner) = self.server()?.addresses(&self.service, self.endpoint.authority()).await?;
        self.is_inner.store(is_inner, Ordering::Relaxed);
        // It stands for none if it is found at all.
        let mut silent = std::io::ErrorKind::AddrNotAvailable.into();
        for address in addresses {
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
            match connected.unwrap_or_else(|elapsed| Err(elapsed.into())) {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(Unconnected::Silent)?;
                    return Ok(stream);
                }
                Err(error) => silent = error,
            }
        }
        Err(Unconnected::Silent(silent))
    }
}

/// Connects to an endpoint, whatever it is asked for.
#[derive(Clone)]
struct Connector(Arc<Reach>);

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = Unconnected;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Unconnected>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unconnected>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let reach = Arc::clone(&self.0);
        Box::pin(async move { reach.connect().await.map(TokioIo::new) })
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Way({})", self.reach.endpoint.url)
    }
}

/// The innermost reason of an error, which says most.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
