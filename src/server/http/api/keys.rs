//! API keys; for operators only.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{Asked, At, page};
use crate::{
    model::{Key, ServiceId, Timestamp},
    server::{
        Server,
        http::caller::{Caller, Document, Object, json},
        principal::operator,
        problem::{Code, Problem},
    },
    twin::keyring::{Covers, Entry, Keyring, LookUp},
};

/// Most keys in one page.
const PAGE_MAX: u16 = 200;
/// Keys in a page if the caller does not say.
const PAGE: u16 = 100;

/// A key as it is shown; never its secret.
#[derive(Serialize)]
struct KeyView {
    id: CompactString,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<CompactString>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<CompactString>,
    label: CompactString,
    created_at: Timestamp,
    revoked_at: Option<Timestamp>,
    /// The whole key; only in the answer that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

fn show(id: &str, entry: &Entry, key: Option<String>) -> KeyView {
    let (namespace, service) = match &entry.covers {
        Covers::Operator => (None, None),
        Covers::Ingest { namespace } => (Some(CompactString::from(&**namespace)), None),
        Covers::Service { service } => (None, Some(CompactString::from(service.as_str()))),
    };
    KeyView {
        id: id.into(),
        kind: entry.covers.name(),
        namespace,
        service,
        label: CompactString::from(&*entry.label),
        created_at: entry.created_at,
        revoked_at: entry.revoked_at,
        key,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    after: Option<String>,
    limit: Option<u64>,
}

#[derive(Serialize)]
struct Page {
    keys: Vec<KeyView>,
    /// `after` of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<CompactString>,
}

/// Lists keys.
pub(super) async fn list(caller: Caller, Asked(query): Asked<ListQuery>) -> Result<Response, Problem> {
    operator(&caller.principal)?;
    let after = query.after.as_deref().map(Key::parse).transpose()?;
    let limit = page(query.limit, PAGE, PAGE_MAX)?;
    let (found, more) = caller.server.find::<Keyring>(Vec::new(), after, limit.into()).await?;
    let next = if more { found.last().map(|last| CompactString::from(last.key.as_str())) } else { None };
    let mut keys = Vec::with_capacity(found.len());
    for found in found {
        if let Some(entry) = caller.server.ask_key(&found.key, LookUp).await? {
            keys.push(show(&found.key, &entry, None));
        }
    }
    Ok(json(None, &Page { keys, next }))
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Operator,
    Ingest,
    Service,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MintBody {
    kind: Kind,
    namespace: Option<String>,
    service: Option<String>,
    #[serde(default)]
    label: String,
}

fn covers(body: &MintBody) -> Result<Covers, Problem> {
    let invalid = |detail| Problem::new(Code::Invalid, detail);
    match (&body.kind, &body.namespace, &body.service) {
        (Kind::Operator, None, None) => Ok(Covers::Operator),
        (Kind::Ingest, Some(namespace), None) => {
            // A namespace is good if a service in it would be.
            ServiceId::new(namespace, "x")?;
            Ok(Covers::Ingest { namespace: namespace.as_str().into() })
        }
        (Kind::Service, None, Some(service)) => Ok(Covers::Service { service: ServiceId::parse(service)? }),
        (Kind::Operator, ..) => Err(invalid("an operator key has neither namespace nor service")),
        (Kind::Ingest, ..) => Err(invalid("an ingest key has a namespace and no service")),
        (Kind::Service, ..) => Err(invalid("a service key has a service and no namespace")),
    }
}

/// Makes a key; the answer holds the only copy of its secret.
pub(super) async fn mint(
    caller: Caller,
    Document(Object(body)): Document<Object<MintBody>>,
) -> Result<Response, Problem> {
    operator(&caller.principal)?;
    let (fresh, entry) = Server::mint(&caller.server, covers(&body)?, &body.label).await?;
    tracing::info!(key_id = fresh.id, kind = entry.covers.name(), by = %caller.principal, "a key was made");
    Ok((StatusCode::CREATED, json(None, &show(&fresh.id, &entry, Some(fresh.key)))).into_response())
}

/// Revokes a key.
pub(super) async fn revoke(caller: Caller, At(id): At<String>) -> Result<Response, Problem> {
    operator(&caller.principal)?;
    let entry = caller.server.revoke(&id).await?;
    tracing::info!(key_id = id, kind = entry.covers.name(), by = %caller.principal, "a key was revoked");
    Ok(json(None, &show(&id, &entry, None)))
}
