//! Who may invoke a service.

use axum::{http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};

use super::{At, Id};
use crate::{
    capability::invocation::{Caller as Entry, GetCallers, SetCallers},
    server::{
        http::caller::{Caller, Document, Object, json},
        problem::Problem,
    },
};

#[derive(Serialize)]
struct View {
    callers: Option<Vec<Entry>>,
}

/// Reads the list of callers; `null` if there is none.
pub(super) async fn view(caller: Caller, At((namespace, name)): At<Id>) -> Result<Response, Problem> {
    let service = caller.used(&namespace, &name)?;
    let callers = caller.look(&service, GetCallers).await?;
    Ok(json(None, &View { callers }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Edit {
    callers: Vec<Entry>,
}

/// States who may call.
pub(super) async fn set(
    caller: Caller,
    At((namespace, name)): At<Id>,
    Document(Object(body)): Document<Object<Edit>>,
) -> Result<StatusCode, Problem> {
    let service = caller.used(&namespace, &name)?;
    caller.server.admit(&caller.identity.principal, &service, &caller.header()).await?;
    caller.call(&service, SetCallers { callers: Some(body.callers) }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes the list away: whoever was granted it may call.
pub(super) async fn clear(caller: Caller, At((namespace, name)): At<Id>) -> Result<StatusCode, Problem> {
    let service = caller.used(&namespace, &name)?;
    caller.call(&service, SetCallers { callers: None }).await?;
    Ok(StatusCode::NO_CONTENT)
}
