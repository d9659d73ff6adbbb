//! Every public request of the registry, by its name.

use axum::response::Response;

use super::At;
use crate::server::{
    capabilities,
    http::caller::{Caller, Raw, json},
    problem::Problem,
};

/// Lists them; whoever may enter may read it.
pub(super) async fn list(_: Caller) -> Response {
    json(None, &capabilities::list())
}

type RequestId = (String, String, String, String);

/// Asks one.
pub(super) async fn call(
    caller: Caller,
    At((namespace, name, capability, request)): At<RequestId>,
    Raw(body): Raw,
) -> Result<Response, Problem> {
    let reply = capabilities::call(&caller, (&namespace, &name), (&capability, &request), &body).await?;
    Ok(json(None, &reply))
}
