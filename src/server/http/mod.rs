//! The HTTP door: native API, OTLP, health, metrics, problem pages.

pub mod api;
mod caller;
#[cfg(feature = "dapr")]
mod dapr;
pub mod openapi;
mod otlp;

use std::sync::Arc;

use api::At;
use axum::{
    Router,
    extract::State,
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
pub use caller::Caller;
pub(in crate::server) use caller::{Object, unreadable};
#[cfg(feature = "dapr")]
pub(in crate::server) use caller::{body, essence};

use super::{
    Phase, Server,
    problem::{Code, Problem},
};

/// Every path of the HTTP door with what serves it; `openapi` describes the same list.
pub fn routes() -> Vec<(&'static str, MethodRouter<Arc<Server>>)> {
    let mut routes = api::routes();
    routes.extend([
        ("/v1/traces", post(otlp::traces)),
        ("/v1/metrics", post(otlp::metrics)),
        ("/v1/logs", post(otlp::logs)),
        ("/livez", get(async || "alive\n")),
        ("/readyz", get(readyz)),
        ("/metrics", get(metrics)),
        ("/problems/{code}", get(problem_page)),
    ]);
    routes
}

/// The HTTP door.
pub fn router(server: Arc<Server>) -> Router {
    let mut router = Router::new();
    for (path, methods) in routes() {
        router = router.route(path, methods.fallback(no_such_method));
    }
    #[cfg(feature = "dapr")]
    let router = router.merge(dapr::router());
    let router = router.fallback(no_such_path);
    #[cfg(feature = "dapr")]
    let router = router.layer(axum::middleware::from_fn_with_state(Arc::clone(&server), dapr::by_header));
    router.with_state(server)
}

async fn no_such_path(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(Code::NoSuchPath, format!("nothing is served at '{path}'; see /api/v1/openapi.json"))
}

async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(Code::MethodNotAllowed, format!("'{path}' does not take {method}; see /api/v1/openapi.json"))
}

async fn readyz(State(server): State<Arc<Server>>) -> Response {
    let why = match (server.phase(), server.writable()) {
        (Phase::Ready, Ok(())) => return "ready\n".into_response(),
        (Phase::Ready, Err(problem)) => format!("{}\n", problem.detail),
        (Phase::Starting, _) => "starting\n".to_owned(),
        (Phase::Stopping, _) => "stopping\n".to_owned(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}

async fn metrics(caller: Caller) -> Result<Response, Problem> {
    caller.operates("node", "metrics", "get")?;
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], caller.server.metrics.text()).into_response())
}

async fn problem_page(At(name): At<String>) -> Result<Response, Problem> {
    let code = Code::ALL.iter().find(|code| code.row().name == name);
    let code = code.ok_or_else(|| Problem::new(Code::NotFound, "there is no problem of this name"))?;
    let kind = HeaderValue::from_static("text/markdown; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], code.row().page).into_response())
}
