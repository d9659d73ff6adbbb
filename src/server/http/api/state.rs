//! A service's state: stores, keys, values.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{Asked, At, Id, page};
use crate::{
    capability::state::{AddStore, Entry, Get, GetStores, List, Match, Op, Operation, RemoveStore, Write},
    server::{
        http::caller::{Caller, Document, Object, body, etag, json},
        problem::{Code, Problem},
    },
    twin::{part::Bytes, service::Json},
};

type StoreId = (String, String, String);
type KeyId = (String, String, String, String);

/// Most keys in one page.
const PAGE_MAX: u16 = 100;
/// Why 0 is no time to live.
const ENDLESS: &str = "ttl_s is 0, it must be at least 1; leave it out for a value without an end";
/// Says when a value that was read is gone.
const EXPIRES_AT: &str = "twin-expires-at";

/// Lists the stores.
pub(super) async fn stores(caller: Caller, At((namespace, name)): At<Id>) -> Result<Response, Problem> {
    let service = caller.used(&namespace, &name)?;
    Ok(json(None, &caller.call(&service, GetStores).await?))
}

/// Adds a store.
pub(super) async fn add_store(
    caller: Caller,
    At((namespace, name, store)): At<StoreId>,
) -> Result<StatusCode, Problem> {
    let service = caller.used(&namespace, &name)?;
    caller.server.admit(&caller.identity.principal, &service, &caller.header()).await?;
    caller.call(&service, AddStore { store: store.into() }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes an empty store.
pub(super) async fn remove_store(
    caller: Caller,
    At((namespace, name, store)): At<StoreId>,
) -> Result<StatusCode, Problem> {
    let service = caller.used(&namespace, &name)?;
    caller.call(&service, RemoveStore { store: store.into() }).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    #[serde(default)]
    prefix: CompactString,
    after: Option<CompactString>,
    limit: Option<u64>,
}

/// Lists keys.
pub(super) async fn list(
    caller: Caller,
    At((namespace, name, store)): At<StoreId>,
    Asked(query): Asked<ListQuery>,
) -> Result<Response, Problem> {
    let service = caller.used(&namespace, &name)?;
    let limit = page(query.limit, PAGE_MAX, PAGE_MAX)?;
    let list = List { store: store.into(), prefix: query.prefix, after: query.after, limit };
    Ok(json(None, &caller.call(&service, list).await?))
}

/// Reads a value.
pub(super) async fn get(caller: Caller, At((namespace, name, store, key)): At<KeyId>) -> Result<Response, Problem> {
    let service = caller.used(&namespace, &name)?;
    let get = Get { store: store.into(), keys: vec![key.into()] };
    let Some(Some(Entry { value, etag: revision, expires_at })) = caller.call(&service, get).await?.pop() else {
        return Err(Problem::new(Code::NotFound, "there is no such key in this store"));
    };
    if caller.knows(revision) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag(revision))]).into_response());
    }
    let mut response = Response::new(Body::from(value.0));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ETAG, etag(revision));
    if let Some(Ok(at)) = expires_at.map(|at| HeaderValue::try_from(at.to_string())) {
        headers.insert(EXPIRES_AT, at);
    }
    Ok(response)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PutQuery {
    ttl_s: Option<u64>,
}

/// What must hold of the key, as the headers say.
fn matching(caller: &Caller) -> Match {
    match caller.if_match {
        Some(expected) => Match::Etag(expected),
        None if caller.wants_absent() => Match::Absent,
        None => Match::Any,
    }
}

/// Writes a value: the body as it is.
pub(super) async fn put(
    caller: Caller,
    At((namespace, name, store, key)): At<KeyId>,
    Asked(query): Asked<PutQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let service = caller.used(&namespace, &name)?;
    caller.server.admit(&caller.identity.principal, &service, &caller.header()).await?;
    if query.ttl_s == Some(0) {
        return Err(Problem::new(Code::BadQuery, ENDLESS));
    }
    let value = Bytes(body(request, caller.server.config.body_bytes_max).await?.to_vec());
    let operation = Operation::Set { value, ttl_s: query.ttl_s };
    let op = Op { key: key.into(), matching: matching(&caller), operation };
    let made = caller.call(&service, Write { store: store.into(), operations: vec![op] }).await?;
    let made = made.first().copied().flatten().unwrap_or_default();
    Ok((StatusCode::NO_CONTENT, [(header::ETAG, etag(made))]).into_response())
}

/// Deletes a key; one that is not there stays so.
pub(super) async fn delete(
    caller: Caller,
    At((namespace, name, store, key)): At<KeyId>,
) -> Result<StatusCode, Problem> {
    let service = caller.used(&namespace, &name)?;
    let op = Op { key: key.into(), matching: matching(&caller), operation: Operation::Delete };
    caller.call(&service, Write { store: store.into(), operations: vec![op] }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// One operation of a transaction.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepBody {
    /// `set` or `delete`.
    operation: Verb,
    key: CompactString,
    /// The value of a `set`: any JSON, kept as this text.
    value: Option<Json>,
    etag: Option<u64>,
    #[serde(default)]
    absent: bool,
    ttl_s: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verb {
    Set,
    Delete,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TransactBody {
    operations: Vec<Object<StepBody>>,
}

#[derive(Serialize)]
struct Made {
    etags: Vec<Option<u64>>,
}

fn step(Object(step): Object<StepBody>) -> Result<Op, Problem> {
    let invalid = |detail| Err(Problem::new(Code::Invalid, detail));
    let matching = match (step.etag, step.absent) {
        (Some(_), true) => return invalid("send 'etag' or 'absent', not both"),
        (Some(etag), false) => Match::Etag(etag),
        (None, true) => Match::Absent,
        (None, false) => Match::Any,
    };
    if step.ttl_s == Some(0) {
        return invalid(ENDLESS);
    }
    let operation = match (step.operation, step.value) {
        (Verb::Set, Some(value)) => {
            Operation::Set { value: Bytes(value.text().as_bytes().to_vec()), ttl_s: step.ttl_s }
        }
        (Verb::Set, None) => return invalid("'set' takes a 'value'"),
        (Verb::Delete, None) => Operation::Delete,
        (Verb::Delete, Some(_)) => return invalid("'delete' takes no 'value'"),
    };
    Ok(Op { key: step.key, matching, operation })
}

/// Does several operations, all or none.
pub(super) async fn transact(
    caller: Caller,
    At((namespace, name, store)): At<StoreId>,
    Document(Object(body)): Document<Object<TransactBody>>,
) -> Result<Response, Problem> {
    let service = caller.used(&namespace, &name)?;
    caller.server.admit(&caller.identity.principal, &service, &caller.header()).await?;
    let operations = body.operations.into_iter().map(step).collect::<Result<_, _>>()?;
    let etags = caller.call(&service, Write { store: store.into(), operations }).await?;
    Ok(json(None, &Made { etags }))
}
