//! The nodes of the cluster, and who owns how much.

use axum::response::Response;
use serde_json::{Value, json};

use crate::server::{
    http::caller::{self, Caller},
    problem::Problem,
};

/// Shows the cluster as this node sees it; a node that shares its twins with nobody has no name and no others.
pub(super) async fn view(caller: Caller) -> Result<Response, Problem> {
    caller.operates("cluster", "", "get")?;
    let view = caller.server.cluster().and_then(|view| serde_json::to_value(view).ok());
    let alone = || json!({ "node": Value::Null, "nodes": [], "slots": 1, "unowned": 0 });
    Ok(caller::json(None, &view.unwrap_or_else(alone)))
}
