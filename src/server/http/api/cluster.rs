//! The nodes of the cluster, and who owns how much.

use axum::response::Response;
use serde_json::Value;

use crate::{
    runtime::ClusterView,
    server::{
        http::caller::{self, Caller},
        problem::Problem,
    },
};

/// Shows the cluster as this node sees it; a node that shares its twins with nobody has no name and no others.
pub(super) async fn view(caller: Caller) -> Result<Response, Problem> {
    caller.operates("cluster", "", "get")?;
    let view = caller.server.cluster();
    let is_alone = view.is_none();
    let alone = || ClusterView { slots: 1, ..ClusterView::default() };
    let mut view = serde_json::to_value(view.unwrap_or_else(alone)).unwrap_or_default();
    if is_alone {
        view["node"] = Value::Null;
    }
    Ok(caller::json(None, &view))
}
