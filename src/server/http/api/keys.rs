//! API keys; for operators only.

use std::time::Duration;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{Asked, At, page};
use crate::{
    model::{Key, ServiceId, Timestamp, time::InvalidTime},
    server::{
        Fresh,
        http::caller::{Caller, Document, Object, json},
        problem::{Code, Problem},
    },
    twin::keyring::{Covers, Entry, Keyring, LookUp},
};

/// Most keys in one page.
const PAGE_MAX: u16 = 200;
/// Keys in a page if the caller does not say.
const PAGE: u16 = 100;

/// How long a key goes on to count when another one takes its place, if the caller does not say.
const OVERLAP: Duration = Duration::from_secs(24 * 3600);
/// The longest that it may.
const OVERLAP_MAX: Duration = Duration::from_secs(90 * 24 * 3600);

/// A key as it is shown; never the key itself.
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
    /// The key itself; only in the answer that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// The key whose place this one takes; only in the answer that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<Box<KeyView>>,
}

fn show_fresh(fresh: Fresh, entry: &Entry) -> KeyView {
    KeyView { key: Some(fresh.key), ..show(&fresh.id, entry) }
}

fn show(id: &str, entry: &Entry) -> KeyView {
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
        key: None,
        replaces: None,
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
    caller.operates("node", "keys", "list")?;
    let after = query.after.as_deref().map(Key::parse).transpose()?;
    let limit = page(query.limit, PAGE, PAGE_MAX)?;
    let (found, more) = caller.server.find::<Keyring>(Vec::new(), after, limit.into()).await?;
    let next = if more { found.last().map(|last| CompactString::from(last.key.as_str())) } else { None };
    let mut keys = Vec::with_capacity(found.len());
    for found in found {
        if let Some(entry) = caller.server.ask_key(&found.key, LookUp).await? {
            keys.push(show(&found.key, &entry));
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

/// Makes a key; the answer holds the only copy of it.
pub(super) async fn mint(
    caller: Caller,
    Document(Object(body)): Document<Object<MintBody>>,
) -> Result<Response, Problem> {
    caller.operates("node", "keys", "set")?;
    caller.identity.makes_keys()?;
    let (fresh, entry) = caller.server.mint(covers(&body)?, &body.label).await?;
    tracing::info!(key_id = fresh.id, kind = entry.covers.name(), by = %caller.identity.principal, "a key was made");
    Ok((StatusCode::CREATED, json(None, &show_fresh(fresh, &entry))).into_response())
}

/// Revokes a key.
pub(super) async fn revoke(caller: Caller, At(id): At<String>) -> Result<Response, Problem> {
    caller.operates("node", "keys", "set")?;
    let entry = caller.server.revoke(&id).await?;
    tracing::info!(key_id = id, kind = entry.covers.name(), by = %caller.identity.principal, "a key was revoked");
    Ok(json(None, &show(&id, &entry)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RotateBody {
    overlap_s: Option<u64>,
}

/// Makes a key that takes the place of another one.
pub(super) async fn rotate(
    caller: Caller,
    At(id): At<String>,
    Document(body): Document<Option<Object<RotateBody>>>,
) -> Result<Response, Problem> {
    caller.operates("node", "keys", "set")?;
    caller.identity.makes_keys()?;
    let overlap = body.and_then(|Object(body)| body.overlap_s).map_or(OVERLAP, Duration::from_secs);
    if overlap > OVERLAP_MAX {
        let detail = format!("overlap_s must be at most {}, which is 90 days", OVERLAP_MAX.as_secs());
        return Err(Problem::new(Code::Invalid, detail));
    }
    let (fresh, entry, old) = caller.server.rotate(&id, overlap).await?;
    tracing::info!(key_id = fresh.id, replaces = id, by = %caller.identity.principal, "a key was made for another one");
    let shown = KeyView { replaces: Some(Box::new(show(&id, &old))), ..show_fresh(fresh, &entry) };
    Ok((StatusCode::CREATED, json(None, &shown)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RevokeBody {
    service: String,
    issued_before: Option<String>,
}

/// Revokes every key of a service that was made before a time: now, if none is given.
pub(super) async fn revoke_issued_before(
    caller: Caller,
    Document(Object(body)): Document<Object<RevokeBody>>,
) -> Result<Response, Problem> {
    caller.operates("node", "keys", "set")?;
    let service = ServiceId::parse(&body.service)?;
    let wrong = |error: InvalidTime| Problem::new(Code::Invalid, format!("issued_before: {error}"));
    let before = body.issued_before.map_or(Ok(caller.server.now()), |text| text.parse().map_err(wrong))?;
    let revoked = caller.server.revoke_issued_before(&service, before).await?;
    tracing::info!(%service, %before, keys = revoked.len(), by = %caller.identity.principal, "keys were revoked");
    let keys = revoked.iter().map(|(id, entry)| show(id, entry)).collect();
    Ok(json(None, &Page { keys, next: None }))
}
