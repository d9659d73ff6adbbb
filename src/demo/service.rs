//! One service of the fleet: a plain HTTP server that works a little and asks others.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderMap, Method, StatusCode},
    routing::{MethodFilter, MethodRouter, on},
};
use parking_lot::RwLock;
use tokio::{net::TcpListener, sync::mpsc};

use super::{
    ServiceArgs,
    plan::{FLEET, Plan, Route},
    telemetry::{self, Telemetry},
};
use crate::cli::{complain, print};

/// What the parent says and is not yet done.
const LINES_MAX: usize = 64;
/// How long a statement or a message takes, give or take a half.
const USE_TIME: Duration = Duration::from_millis(2);
/// How long a request to another service may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

struct Service {
    name: &'static str,
    failing: f64,
    slower_ms: AtomicU64,
    /// Where the others are; the parent says so and changes it when it deploys.
    peers: RwLock<BTreeMap<String, Vec<String>>>,
    turn: AtomicUsize,
    client: reqwest::Client,
    telemetry: Telemetry,
}

/// Serves until standard input ends, which is how the parent says goodbye, also by dying.
pub async fn serve(args: ServiceArgs) -> ExitCode {
    match serving(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("the service '{}' of the demo ended: {error}", args.name), None);
            ExitCode::FAILURE
        }
    }
}

async fn serving(args: &ServiceArgs) -> Result<(), Box<dyn std::error::Error>> {
    let plan = FLEET.iter().find(|plan| plan.name == args.name).ok_or("there is no such service")?;
    let service = Arc::new(Service {
        name: plan.name,
        failing: args.failing,
        slower_ms: AtomicU64::new(0),
        peers: RwLock::new(BTreeMap::new()),
        turn: AtomicUsize::new(0),
        client: reqwest::Client::builder().no_proxy().timeout(CALL_TIMEOUT).build()?,
        telemetry: Telemetry::from_env()?,
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    print::line(&format!("http://{}", listener.local_addr()?))?;
    let told = listen_to_parent(Arc::clone(&service));
    axum::serve(listener, router(plan, &service)).with_graceful_shutdown(told).await?;
    Ok(tokio::task::spawn_blocking(move || service.telemetry.shutdown()).await?)
}

fn router(plan: &'static Plan, service: &Arc<Service>) -> Router {
    let mut router = Router::new();
    for route in plan.routes {
        let service = Arc::clone(service);
        let filter = if route.method == "POST" { MethodFilter::POST } else { MethodFilter::GET };
        let answer: MethodRouter = on(filter, move |headers: HeaderMap| {
            let service = Arc::clone(&service);
            async move { service.answer(route, headers).await }
        });
        router = router.route(route.path, answer);
    }
    router
}

/// `route orders http://… http://…` and `slow 400`, a line each.
async fn listen_to_parent(service: Arc<Service>) {
    let (send, mut lines) = mpsc::channel(LINES_MAX);
    // A thread of its own: reading standard input blocks, and it ends with it.
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if send.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = lines.recv().await {
        let mut words = line.split_whitespace().map(str::to_owned);
        match (words.next().as_deref(), words.next()) {
            (Some("route"), Some(name)) => drop(service.peers.write().insert(name, words.collect())),
            (Some("slow"), Some(ms)) => service.slower_ms.store(ms.parse().unwrap_or(0), Ordering::Relaxed),
            _ => {}
        }
    }
}

impl Service {
    #[expect(clippy::disallowed_methods, reason = "a duration is measured, no time is read")]
    async fn answer(&self, route: &'static Route, headers: HeaderMap) -> StatusCode {
        let began = std::time::Instant::now();
        let span = self.telemetry.server(route.method, route.path, &headers);
        self.work(route).await;
        for uses in route.uses {
            let used = self.telemetry.uses(&span, *uses);
            tokio::time::sleep(USE_TIME.mul_f64(rand::random_range(0.5..1.5))).await;
            telemetry::end(&used);
        }
        let mut status = StatusCode::OK;
        for (peer, method, path) in route.calls {
            if !self.call(&span, peer, method, path).await {
                status = StatusCode::BAD_GATEWAY;
                break;
            }
        }
        if status == StatusCode::OK && rand::random::<f64>() < self.failing {
            status = StatusCode::INTERNAL_SERVER_ERROR;
            let message = format!("{}: total is NaN for a discounted basket", self.name);
            self.telemetry.error(&span, "PriceError", message);
        }
        self.telemetry.served(&span, route.method, route.path, status.as_u16(), began.elapsed());
        status
    }

    async fn work(&self, route: &Route) {
        let own = route.work_ms * rand::random_range(0.5..1.5) / 1e3;
        let slower =
            Duration::from_millis(self.slower_ms.load(Ordering::Relaxed)).mul_f64(rand::random_range(0.7..1.3));
        tokio::time::sleep(Duration::from_secs_f64(own) + slower).await;
    }

    /// Asks another service; whether it did what it was asked.
    async fn call(
        &self,
        span: &opentelemetry::Context,
        peer: &'static str,
        method: &'static str,
        path: &'static str,
    ) -> bool {
        let address = {
            let peers = self.peers.read();
            let addresses = peers.get(peer).map_or(&[][..], Vec::as_slice);
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            addresses.get(turn % addresses.len().max(1)).cloned()
        };
        let mut headers = HeaderMap::new();
        let client = self.telemetry.client(span, peer, method, &mut headers);
        let Some(address) = address else {
            telemetry::finish(&client, 503);
            return false;
        };
        let method = if method == "POST" { Method::POST } else { Method::GET };
        let answered = self.client.request(method, format!("{address}{path}")).headers(headers).send().await;
        let status = answered.map_or(503, |response| response.status().as_u16());
        telemetry::finish(&client, status);
        status < 500
    }
}
