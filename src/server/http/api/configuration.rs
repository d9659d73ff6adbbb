//! A service's configuration, and the names of its components.

use std::collections::BTreeMap;

use axum::{http::StatusCode, response::Response};
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{At, Id};
use crate::{
    capability::{
        components::{AddComponent, Component, GetComponents, Kind, RemoveComponent},
        configuration::{Applied, Changed, Edit, Get, GetStatus, InstanceView, Item, Put, Rollback, StatusView},
    },
    model::{ServiceId, Timestamp},
    server::{
        http::caller::{Caller, Document, Object, json},
        problem::Problem,
    },
    twin::service::Json,
};

#[derive(Serialize)]
struct Shown {
    version: u64,
    changed_at: Timestamp,
    in_sync: bool,
    keys: BTreeMap<CompactString, Value>,
    instances: Vec<InstanceView>,
}

#[derive(Serialize)]
struct Value {
    value: String,
    version: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<CompactString, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<Json>,
}

fn shown(item: Item) -> (CompactString, Value) {
    let Item { key, value, version, metadata, schema } = item;
    (key, Value { value, version, metadata: metadata.into_iter().collect(), schema })
}

/// Reads everything that is configured, and which instance has applied it.
pub(super) async fn view(caller: Caller, At((namespace, name)): At<Id>) -> Result<Response, Problem> {
    let service = caller.used(&namespace, &name)?;
    let StatusView { version, changed_at, in_sync, instances, .. } = caller.look(&service, GetStatus).await?;
    let (_, items) = caller.look(&service, Get::default()).await?;
    let keys = items.into_iter().map(shown).collect();
    // The ETag is what a change may be made to depend on. Instances come and go within a version, so it is never a 304.
    Ok(json(Some(version), &Shown { version, changed_at, in_sync, keys, instances }))
}

/// What happens to one key; `null` for the whole of it removes the key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EditBody {
    value: String,
    metadata: Option<BTreeMap<CompactString, String>>,
    schema: Option<Json>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PutBody {
    keys: BTreeMap<CompactString, Option<Object<EditBody>>>,
}

#[derive(Serialize)]
struct Made {
    version: u64,
}

fn edit((key, body): (CompactString, Option<Object<EditBody>>)) -> Edit {
    match body {
        Some(Object(EditBody { value, metadata, schema })) => {
            let metadata = metadata.map(|metadata| metadata.into_iter().collect());
            Edit { key, value: Some(value), metadata, schema }
        }
        None => Edit { key, value: None, metadata: None, schema: None },
    }
}

async fn made(caller: &Caller, service: &ServiceId, put: Put) -> Result<Response, Problem> {
    let version = caller.call(service, put).await?;
    Ok(json(Some(version), &Made { version }))
}

/// Changes several keys in one commit.
pub(super) async fn put(
    caller: Caller,
    At((namespace, name)): At<Id>,
    Document(Object(body)): Document<Object<PutBody>>,
) -> Result<Response, Problem> {
    let service = caller.used(&namespace, &name)?;
    caller.server.admit(&caller.identity.principal, &service, &caller.header()).await?;
    let edits = body.keys.into_iter().map(edit).collect();
    made(&caller, &service, Put { edits, if_version: caller.if_match }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RollbackBody {
    version: u64,
}

/// Takes the newest version back.
pub(super) async fn rollback(
    caller: Caller,
    At((namespace, name)): At<Id>,
    Document(Object(body)): Document<Object<RollbackBody>>,
) -> Result<Response, Problem> {
    let service = caller.used(&namespace, &name)?;
    let keys = caller.look(&service, Changed { version: body.version }).await?;
    let version = caller.call(&service, Rollback { version: body.version, keys }).await?;
    Ok(json(Some(version), &Made { version }))
}

/// Notes that an instance applied a version, or could not.
pub(super) async fn applied(
    caller: Caller,
    At((namespace, name)): At<Id>,
    Document(Object(body)): Document<Object<AppliedBody>>,
) -> Result<StatusCode, Problem> {
    let service = caller.used(&namespace, &name)?;
    let AppliedBody { instance, version, error } = body;
    caller.call(&service, Applied { instance, version, error }).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AppliedBody {
    instance: CompactString,
    version: u64,
    error: Option<CompactString>,
}

/// Lists the names under which the service knows its capabilities.
pub(super) async fn components(caller: Caller, At((namespace, name)): At<Id>) -> Result<Response, Problem> {
    let service = caller.used(&namespace, &name)?;
    Ok(json(None, &caller.call(&service, GetComponents).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ComponentBody {
    kind: Kind,
}

type ComponentId = (String, String, String);

/// Adds a name, or changes what it stands for.
pub(super) async fn add_component(
    caller: Caller,
    At((namespace, name, component)): At<ComponentId>,
    Document(Object(body)): Document<Object<ComponentBody>>,
) -> Result<StatusCode, Problem> {
    let service = caller.used(&namespace, &name)?;
    caller.server.admit(&caller.identity.principal, &service, &caller.header()).await?;
    let component = Component { name: component.into(), kind: body.kind };
    caller.call(&service, AddComponent { component }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a name that was added.
pub(super) async fn remove_component(
    caller: Caller,
    At((namespace, name, component)): At<ComponentId>,
) -> Result<StatusCode, Problem> {
    let service = caller.used(&namespace, &name)?;
    caller.call(&service, RemoveComponent { name: component.into() }).await?;
    Ok(StatusCode::NO_CONTENT)
}
