//! Where applications of a service are that open no channel.

use axum::{http::StatusCode, response::Response};
use serde::Deserialize;

use super::{At, Id};
use crate::{
    capability::endpoints::{Endpoint, GetEndpoints, Protocol, RemoveEndpoint, SetEndpoint},
    server::{
        endpoint::Unconnected,
        http::caller::{Caller, Document, Object, json},
        problem::Problem,
    },
};

type EndpointId = (String, String, String);

/// Lists the endpoints.
pub(super) async fn list(caller: Caller, At((namespace, name)): At<Id>) -> Result<Response, Problem> {
    let service = caller.used(&namespace, &name)?;
    Ok(json(None, &caller.call(&service, GetEndpoints).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetBody {
    url: String,
    #[serde(default)]
    protocol: Protocol,
}

/// Registers an endpoint, or another one of an instance, unless the service may not be reached there.
pub(super) async fn set(
    caller: Caller,
    At((namespace, name, instance)): At<EndpointId>,
    Document(Object(SetBody { url, protocol })): Document<Object<SetBody>>,
) -> Result<StatusCode, Problem> {
    let service = caller.used(&namespace, &name)?;
    caller.speak_for(&instance)?;
    caller.identity.left("endpoints", &instance, "set", caller.server.now())?;
    let problem = |failure| caller.server.problem(&failure);
    let endpoint = Endpoint::new(&instance, &url, protocol).map_err(|rejection| problem(rejection.into()))?;
    match caller.server.addresses(&service, endpoint.authority()).await {
        Err(Unconnected::Refused(failure)) => return Err(problem(failure)),
        // It may be there later; it is looked for and ruled on again with each connection.
        Ok(_) | Err(Unconnected::Unresolved(_) | Unconnected::Silent(_) | Unconnected::Stopping) => {}
    }
    caller.server.admit(&caller.identity.principal, &service, &caller.header()).await?;
    caller.call(&service, SetEndpoint { endpoint }).await?;
    caller.server.look_for_endpoints(&service).await.map_err(problem)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes an endpoint: nothing is sent there any more.
pub(super) async fn remove(
    caller: Caller,
    At((namespace, name, instance)): At<EndpointId>,
) -> Result<StatusCode, Problem> {
    let service = caller.used(&namespace, &name)?;
    caller.speak_for(&instance)?;
    caller.call(&service, RemoveEndpoint { instance: instance.into() }).await?;
    caller.server.look_for_endpoints(&service).await.map_err(|failure| caller.server.problem(&failure))?;
    Ok(StatusCode::NO_CONTENT)
}
