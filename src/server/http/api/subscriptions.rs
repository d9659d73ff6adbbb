//! Subscriptions that a service has declared, and messages that it wants again.

use std::collections::BTreeMap;

use axum::{http::StatusCode, response::Response};
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{At, Id};
use crate::{
    bus::topic::Start,
    capability::topics::{RemoveSubscription, SetSubscription, Subscription},
    server::{
        http::caller::{Caller, Document, Object, json},
        problem::Problem,
    },
};

type SubscriptionId = (String, String, String);

/// Lists the subscriptions.
pub(super) async fn list(caller: Caller, At((namespace, name)): At<Id>) -> Result<Response, Problem> {
    let service = caller.used(&namespace, &name)?;
    let subscriptions = caller.server.subscriptions(&service, caller.header()).await;
    let subscriptions = subscriptions.map_err(|failure| caller.server.problem(&failure))?;
    Ok(json(None, &subscriptions))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetBody {
    component: CompactString,
    topic: CompactString,
    path: CompactString,
    dead_letter: Option<CompactString>,
    #[serde(default)]
    metadata: BTreeMap<CompactString, String>,
}

/// Declares a subscription, or another one under a name.
pub(super) async fn set(
    caller: Caller,
    At((namespace, name, subscription)): At<SubscriptionId>,
    Document(Object(body)): Document<Object<SetBody>>,
) -> Result<StatusCode, Problem> {
    let service = caller.used(&namespace, &name)?;
    caller.server.admit(&caller.identity.principal, &service, &caller.header()).await?;
    let SetBody { component, topic, path, dead_letter, metadata } = body;
    let subscription = Subscription { name: subscription.into(), component, topic, path, dead_letter, metadata };
    caller.call(&service, SetSubscription { subscription }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a subscription.
pub(super) async fn remove(
    caller: Caller,
    At((namespace, name, subscription)): At<SubscriptionId>,
) -> Result<StatusCode, Problem> {
    let service = caller.used(&namespace, &name)?;
    caller.call(&service, RemoveSubscription { name: subscription.into() }).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayBody {
    component: CompactString,
    topic: CompactString,
    from: Start,
}

#[derive(Serialize)]
struct Replayed {
    from: u64,
}

/// Has the service's subscriptions to a topic begin anew.
pub(super) async fn replay(
    caller: Caller,
    At((namespace, name)): At<Id>,
    Document(Object(body)): Document<Object<ReplayBody>>,
) -> Result<Response, Problem> {
    let service = caller.used(&namespace, &name)?;
    let ReplayBody { component, topic, from } = body;
    let replayed = caller.server.replay(&service, &component, &topic, from, caller.header()).await;
    let from = replayed.map_err(|failure| caller.server.problem(&failure))?;
    Ok(json(None, &Replayed { from }))
}
