//! Where requests come in: connections, their bounds, and the way of each request through the doors.

use std::{net::SocketAddr, panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, Response, Version, header},
    response::IntoResponse,
};
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tower::Service as _;

use super::{
    Phase, Server,
    connection::Connection,
    grpc, http,
    patient::Patient,
    problem::{Code, Problem},
};
use crate::{
    metrics::Door,
    wire::{self, Spoke},
};

/// Connections that are told at once why they are turned away; further ones are closed without a word.
const TURNED_AWAY_MAX: usize = 64;
/// How long one of them may take to hear it.
const TURN_AWAY_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the log says that connections are turned away.
const TURNED_AWAY_SAID_EVERY: Duration = Duration::from_secs(10);
/// How long connections stay open once the node stops: what was sent and not read yet is told so, instead of nothing.
const FAREWELL: Duration = Duration::from_millis(100);

/// The two doors behind a port.
#[derive(Clone)]
struct Doors {
    server: Arc<Server>,
    http: Router,
    grpc: Router,
}

/// Serves connections until the server stops, then finishes requests in flight for at most `grace`, and some time for
/// farewells.
pub async fn serve(server: Arc<Server>, listener: TcpListener, grace: Duration) {
    let doors = Doors { http: http::router(Arc::clone(&server)), grpc: grpc::router(&server), server };
    let builder = wire::builder(Duration::from_secs(doors.server.config.header_timeout_s));
    let permits = Arc::new(Semaphore::new(doors.server.config.connections_max));
    let mut turned_away = TurnedAway::new(doors.server.config.connections_max);
    let graceful = GracefulShutdown::new();
    {
        let mut stopping = pin!(doors.server.stopping());
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stopping => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(wire::ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                doors.server.metrics.connections_refused.inc();
                turned_away.one(stream, peer);
                continue;
            };
            let (doors, builder, watcher) = (doors.clone(), builder.clone(), graceful.watcher());
            tokio::spawn(async move {
                let counted = (Counted::new(Arc::clone(&doors.server)), permit);
                connection(&doors, &builder, watcher, stream, peer, counted).await;
            });
        }
    }
    drop(listener);
    if graceful.count() > 0 {
        tokio::time::sleep(FAREWELL.min(grace)).await;
    }
    let ended = async {
        graceful.shutdown().await;
        // Channels finish what they push.
        doors.server.streams_ended().await;
    };
    if tokio::time::timeout(grace, ended).await.is_err() {
        tracing::warn!(grace_s = grace.as_secs(), "connections were still open after the grace time");
    }
}

/// Counts an open connection for as long as it is open, however it ends.
struct Counted(Arc<Server>);

impl Counted {
    fn new(server: Arc<Server>) -> Self {
        server.metrics.connections.inc();
        Self(server)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
    }
}

async fn connection(
    doors: &Doors,
    builder: &auto::Builder<TokioExecutor>,
    watcher: hyper_util::server::graceful::Watcher,
    stream: TcpStream,
    peer: SocketAddr,
    counted: (Counted, OwnedSemaphorePermit),
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "TCP_NODELAY was not set");
    }
    let spoke = Spoke::default();
    let service = {
        let (doors, spoke) = (doors.clone(), spoke.clone());
        let connection = Connection::new(peer.ip().to_canonical()).holding(counted);
        hyper::service::service_fn(move |request: Request<Incoming>| {
            spoke.note();
            let (doors, connection) = (doors.clone(), connection.speaking(request.version()));
            async move { Ok::<_, std::convert::Infallible>(answer(doors, request, connection).await) }
        })
    };
    let stream = Patient::new(stream, Duration::from_secs(doors.server.config.stall_timeout_s));
    let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    let silence_max = Duration::from_secs(doors.server.config.header_timeout_s);
    let Some(ended) = spoke.or_close(watcher.watch(served), silence_max).await else {
        tracing::debug!(%peer, "a connection without a request was closed");
        return;
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, error, "a connection ended early");
    }
}

/// One request, whichever door it takes: a panic is answered, and what came of it is counted.
#[expect(clippy::disallowed_methods, reason = "a duration is measured, no time is read")]
async fn answer(mut doors: Doors, mut request: Request<Incoming>, connection: Connection) -> Response<Body> {
    let began = std::time::Instant::now();
    let door = door(&request);
    let is_http1 = request.version() < Version::HTTP_2;
    request.extensions_mut().insert(connection);
    let router =
        if matches!(door, Door::ApiGrpc | Door::OtlpGrpc | Door::DaprGrpc) { &mut doors.grpc } else { &mut doors.http };
    let mut response = match AssertUnwindSafe(router.call(request)).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(panic) => {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            tracing::error!(message, "a request hit a bug of the node");
            Problem::new(Code::Internal, "the node hit a bug of its own; see its log").into_response()
        }
    };
    if is_http1 && doors.server.phase() == Phase::Stopping {
        // The next request on this connection would be met by its end.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let elapsed = began.elapsed();
    doors.server.metrics.answered(door, response.status().as_u16(), elapsed.as_secs_f64());
    tracing::debug!(?door, status = response.status().as_u16(), ?elapsed, "answered");
    response
}

fn door<B>(request: &Request<B>) -> Door {
    let path = request.uri().path();
    let kind = || request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    #[cfg(feature = "dapr")]
    if super::dapr::invoke::named(request).is_some() {
        return Door::DaprHttp;
    }
    if path.starts_with("/api/") {
        Door::Api
    } else if path.starts_with("/twin.v1.") {
        Door::ApiGrpc
    } else if path.starts_with("/v1.0") {
        Door::DaprHttp
    } else if path.starts_with("/dapr.proto.") {
        Door::DaprGrpc
    } else if path.starts_with("/v1/") {
        Door::OtlpHttp
    } else if kind().starts_with(b"application/grpc") {
        Door::OtlpGrpc
    } else {
        Door::Other
    }
}

/// Connections that are one too many.
struct TurnedAway {
    answer: Arc<[u8]>,
    permits: Arc<Semaphore>,
    connections_max: usize,
    /// Since the last line in the log, and when that was.
    count: u64,
    said: Option<tokio::time::Instant>,
}

impl TurnedAway {
    fn new(connections_max: usize) -> Self {
        let detail = format!(
            "the node has {connections_max} connections open, as many as server.connections_max and the limit of open \
             files allow"
        );
        let answer = Problem::new(Code::Overloaded, detail).to_http1().into();
        Self { answer, permits: Arc::new(Semaphore::new(TURNED_AWAY_MAX)), connections_max, count: 0, said: None }
    }

    /// Says why, in bytes that need no parser, and closes; says so in the log, too, once in a while.
    fn one(&mut self, stream: TcpStream, peer: SocketAddr) {
        self.count += 1;
        if self.said.is_none_or(|said| said.elapsed() >= TURNED_AWAY_SAID_EVERY) {
            let (turned_away, connections_max) = (self.count, self.connections_max);
            tracing::warn!(%peer, turned_away, connections_max, "too many connections are open; new ones are turned away");
            (self.count, self.said) = (0, Some(tokio::time::Instant::now()));
        }
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            let answer = Arc::clone(&self.answer);
            tokio::spawn(async move {
                drop(tokio::time::timeout(TURN_AWAY_TIMEOUT, turn_away(stream, &answer)).await);
                drop(permit);
            });
        }
    }
}

/// What the peer has sent is read, or closing would take the answer back.
async fn turn_away(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    let mut sent = [0; 1024];
    while stream.read(&mut sent).await? > 0 {}
    Ok(())
}

impl Server {
    /// Ends streams and refuses new requests.
    pub fn stop(&self) {
        self.enter(Phase::Stopping);
    }
}
