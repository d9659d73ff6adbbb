//! The way in to the service: a connection that is opened to the node, and on which the node asks.
//!
//! It is open while the service is healthy, so what is pushed to it and who invokes it find another instance meanwhile.
//! What comes is passed on to the service's port as it is; the wire is described where the node keeps it
//! (`server/channel.rs`).

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use http_body_util::{Either, Empty, Full};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::{Bytes, Incoming},
    header::{AUTHORIZATION, CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE},
    service::service_fn,
    upgrade::Upgraded,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::{net::TcpStream, sync::watch};

use super::{
    flags::{App, Protocol},
    health::{Health, root},
};
use crate::{cli::print, wire};

/// The protocol that the connection is upgraded to.
const CHANNEL: &str = "twin-channel";
/// Says to the node that an answer is not the service's.
const UNREACHED: HeaderName = HeaderName::from_static("twin-unreached");
/// By which the service may tell the node's calls from others, if it set `APP_API_TOKEN`.
const APP_TOKEN: HeaderName = HeaderName::from_static("dapr-api-token");
/// How long the node may take to open it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long what is under way may take once it is over.
pub(super) const LEAVE_MAX: Duration = Duration::from_secs(5);
/// The pause before it is opened again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a connection without traffic is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(15);

/// The way from one node to one service.
pub(super) struct Channel {
    node: String,
    path: String,
    token: HeaderValue,
    app: Arc<Way>,
}

/// The last part of it.
struct Way {
    app: App,
    token: Option<HeaderValue>,
    client: Client<HttpConnector, Incoming>,
}

impl Channel {
    /// `path` is that of the instance's channel. Nothing is opened yet.
    pub(super) fn new(node: &str, path: &str, token: &str, app: App, app_token: Option<&str>) -> io::Result<Self> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).map_err(io::Error::other)?;
        bearer.set_sensitive(true);
        let path = format!("{path}?protocol={}", app.protocol.as_str());
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).http2_only(app.protocol == Protocol::Grpc);
        let app_token = app_token.map(HeaderValue::try_from).transpose().map_err(io::Error::other)?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let app = Arc::new(Way { app, token: app_token, client: client.build(connector) });
        Ok(Self { node: node.to_owned(), path, token: bearer, app })
    }

    /// Keeps it open while the service is healthy, until it is to leave; then what is under way is finished. What goes
    /// wrong is said once, until it goes well again.
    pub(super) async fn keep(&self, mut health: watch::Receiver<Health>, mut leaving: watch::Receiver<bool>) {
        let mut is_said = false;
        while !*leaving.borrow() {
            tokio::select! {
                Ok(_) = health.wait_for(|health| *health == Health::Healthy) => {}
                _ = leaving.wait_for(|leaving| *leaving) => break,
            }
            match tokio::time::timeout(OPEN_TIMEOUT, self.open())
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            {
                Ok(connection) => {
                    is_said = false;
                    let over = async {
                        tokio::select! {
                            // Who is not asked whether it is well stays so; then nobody tells any more.
                            Ok(_) = health.wait_for(|health| *health != Health::Healthy) => {}
                            _ = leaving.wait_for(|leaving| *leaving) => {}
                        }
                    };
                    self.serve(connection, over).await;
                }
                Err(error) if !is_said => {
                    print::aside(&format!(
                        "its node cannot reach it at present, it is tried again: {}",
                        print::plain(&root(&error))
                    ));
                    is_said = true;
                }
                Err(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                _ = leaving.wait_for(|leaving| *leaving) => {}
            }
        }
    }

    async fn open(&self) -> io::Result<Upgraded> {
        let uri = Uri::try_from(&self.node).map_err(io::Error::other)?;
        let authority = uri.authority().ok_or(io::ErrorKind::InvalidInput)?;
        let port = authority.port_u16().unwrap_or(80);
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let driven = tokio::spawn(connection.with_upgrades());
        let request = Request::builder()
            .uri(&self.path)
            .header(HOST, authority.as_str())
            .header(AUTHORIZATION, self.token.clone())
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, CHANNEL)
            .body(Empty::<Bytes>::new())
            .map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            driven.abort();
            return Err(io::Error::other(format!("the node answered {}", response.status())));
        }
        hyper::upgrade::on(response).await.map_err(io::Error::other)
    }

    /// Answers the node until the connection ends, or it is over: then nothing new is taken, and what is under way has some
    /// time.
    async fn serve(&self, connection: Upgraded, over: impl Future<Output = ()>) {
        let service = service_fn(|request| {
            let app = Arc::clone(&self.app);
            async move { Ok::<_, Infallible>(app.answer(request).await) }
        });
        let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .adaptive_window(true)
            .keep_alive_interval(PING_EVERY)
            .serve_connection(connection, service);
        let mut served = pin!(served);
        let ended = tokio::select! {
            ended = &mut served => ended,
            () = over => {
                served.as_mut().graceful_shutdown();
                tokio::time::timeout(LEAVE_MAX, served).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "the way in from the node ended early");
        }
    }
}

impl Way {
    async fn answer(&self, mut request: Request<Incoming>) -> Response<Either<Incoming, Full<Bytes>>> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let Ok(uri) = Uri::try_from(self.app.url(&path)) else { return unreached("the path is none") };
        *request.uri_mut() = uri;
        request.headers_mut().remove(HOST);
        if self.app.protocol == Protocol::Http {
            *request.version_mut() = hyper::Version::HTTP_11;
        }
        if let Some(token) = &self.token {
            request.headers_mut().insert(APP_TOKEN, token.clone());
        }
        match self.client.request(request).await {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                unreached("it answered with another protocol")
            }
            Ok(mut response) => {
                wire::strip(response.headers_mut());
                response.map(Either::Left)
            }
            Err(error) => unreached(&root(&io::Error::other(error))),
        }
    }
}

fn unreached(why: &str) -> Response<Either<Incoming, Full<Bytes>>> {
    let why: String = why.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect();
    let mut response = Response::new(Either::Right(Full::default()));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
        .headers_mut()
        .insert(UNREACHED, HeaderValue::try_from(why).unwrap_or(HeaderValue::from_static("no answer")));
    response
}
