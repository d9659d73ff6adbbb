//! Whether the service is up and well.

use std::{io, time::Duration};

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode, body::Bytes, header};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{net::TcpStream, sync::watch, time::MissedTickBehavior};

use super::flags::{App, Protocol};

/// How often a port is tried that nobody listens on yet.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What Dapr asks a gRPC service (`dapr.proto.runtime.v1.AppCallbackHealthCheck`).
const GRPC_PATH: &str = "/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck";
/// An empty message of gRPC: not compressed, of length 0.
const EMPTY_MESSAGE: &[u8] = &[0; 5];

/// How a service is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) path: String,
    pub(super) every: Duration,
    pub(super) timeout: Duration,
    /// Failures in a row that count.
    pub(super) threshold: u32,
}

/// What is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It was not seen up yet.
    Starting,
    Healthy,
    Unhealthy(String),
}

/// Tells how the service is, until it is dropped. Without a port it is up from the start; without a check, once it listens.
pub(super) async fn watch(app: Option<App>, check: Option<Check>, health: watch::Sender<Health>) {
    let Some(app) = app else {
        tell(&health, Health::Healthy);
        return;
    };
    let Some(check) = check else {
        while TcpStream::connect((app.host.as_str(), app.port)).await.is_err() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        tell(&health, Health::Healthy);
        return;
    };
    let probe = Probe::new(app, check);
    let mut failures = 0_u32;
    let mut ticks = tokio::time::interval(probe.check.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match probe.once().await {
            Ok(()) => {
                failures = 0;
                tell(&health, Health::Healthy);
            }
            Err(why) => {
                failures = failures.saturating_add(1);
                if failures >= probe.check.threshold {
                    tell(&health, Health::Unhealthy(why));
                }
            }
        }
    }
}

/// Listeners wake only if it is news.
fn tell(health: &watch::Sender<Health>, now: Health) {
    health.send_if_modified(|before| {
        let is_news = *before != now;
        *before = now;
        is_news
    });
}

struct Probe {
    app: App,
    check: Check,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Probe {
    fn new(app: App, check: Check) -> Self {
        let mut client = Client::builder(TokioExecutor::new());
        client.http2_only(app.protocol == Protocol::Grpc);
        Self { app, check, client: client.build_http() }
    }

    /// Asks once; says why it is not well, in few words.
    async fn once(&self) -> Result<(), String> {
        let asked = tokio::time::timeout(self.check.timeout, async {
            match self.app.protocol {
                Protocol::Http => self.http().await,
                Protocol::Grpc => self.grpc().await,
            }
        });
        match asked.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Err(format!("health check: {}", root(&error))),
            Err(_) => Err(format!("health check: no answer in {} ms", self.check.timeout.as_millis())),
        }
    }

    async fn http(&self) -> io::Result<Result<(), String>> {
        let request = self.request(&self.check.path).body(Full::default()).map_err(io::Error::other)?;
        let status = self.client.request(request).await.map_err(io::Error::other)?.status();
        Ok(if status.is_success() { Ok(()) } else { Err(format!("health check: {status}")) })
    }

    async fn grpc(&self) -> io::Result<Result<(), String>> {
        let request = self.request(GRPC_PATH).method("POST").header(header::CONTENT_TYPE, "application/grpc");
        let body = Full::new(Bytes::from_static(EMPTY_MESSAGE));
        let request = request.header(header::TE, "trailers").body(body).map_err(io::Error::other)?;
        let response = self.client.request(request).await.map_err(io::Error::other)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?;
        // A refusal stands in the head, everything else after the body.
        let status = head.headers.get("grpc-status").or_else(|| body.trailers()?.get("grpc-status"));
        let is_well = head.status == StatusCode::OK && status.is_some_and(|status| status == "0");
        let status = status.and_then(|status| status.to_str().ok()).unwrap_or("none");
        Ok(if is_well { Ok(()) } else { Err(format!("health check: grpc-status {status}")) })
    }

    fn request(&self, path: &str) -> hyper::http::request::Builder {
        Request::builder().uri(self.app.url(path))
    }
}

/// What lies at the bottom of an error.
pub(super) fn root(error: &io::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn app(answer: &'static str) -> App {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                drop(stream.read(&mut [0; 1024]).await);
                drop(stream.write_all(answer.as_bytes()).await);
            }
        });
        App { host: "127.0.0.1".into(), port, protocol: Protocol::Http }
    }

    fn check() -> Check {
        let (every, timeout) = (Duration::from_millis(1), Duration::from_secs(5));
        Check { path: "/healthz".into(), every, timeout, threshold: 2 }
    }

    #[tokio::test]
    async fn a_service_that_answers_is_well_and_one_that_fails_again_and_again_is_not() {
        let (tell, mut health) = watch::channel(Health::Starting);
        let well = app("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
        tokio::select! {
            () = super::watch(Some(well), Some(check()), tell) => {}
            changed = health.changed() => changed.unwrap(),
        }
        assert_eq!(*health.borrow(), Health::Healthy);

        let (tell, mut health) = watch::channel(Health::Healthy);
        let ill = app("HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
        tokio::select! {
            () = super::watch(Some(ill), Some(check()), tell) => {}
            changed = health.changed() => changed.unwrap(),
        }
        assert!(matches!(&*health.borrow(), Health::Unhealthy(why) if why.contains("503")), "{:?}", health.borrow());
    }

    #[tokio::test]
    async fn without_a_port_a_service_is_up_from_the_start() {
        let (tell, health) = watch::channel(Health::Starting);
        super::watch(None, None, tell).await;
        assert_eq!(*health.borrow(), Health::Healthy);
    }
}
