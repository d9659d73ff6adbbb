//! A service's secrets.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Asked, At, Id};
use crate::{
    capability::secrets::{Ack, Delete, GetSecrets, Rotation, SecretView},
    model::Timestamp,
    server::{
        http::caller::{Caller, Document, Object, body, json},
        problem::{Code, Problem},
    },
};

type SecretId = (String, String, String);

/// Says which version a value is.
const VERSION: &str = "twin-secret-version";
/// Largest value, in bytes.
const VALUE_BYTES_MAX: usize = 16 * 1024;
/// How long the version before stays valid at the longest, in seconds, if the caller does not say.
const OVERLAP_S: u64 = 3600;

#[derive(Serialize)]
struct Shown {
    secret: CompactString,
    version: u64,
    changed_at: Timestamp,
    previous: Option<u64>,
    previous_until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instances: Option<Vec<Uses>>,
}

#[derive(Serialize)]
struct Uses {
    instance: CompactString,
    version: u64,
}

fn shown(view: SecretView, with_instances: bool) -> Shown {
    let uses = || view.instances.into_iter().map(|(instance, version)| Uses { instance, version }).collect();
    Shown {
        secret: view.secret,
        version: view.version,
        changed_at: view.changed_at,
        previous: view.previous,
        previous_until: view.previous_until,
        instances: with_instances.then(uses),
    }
}

/// Lists the secrets, without their values.
pub(super) async fn list(caller: Caller, At((namespace, name)): At<Id>) -> Result<Response, Problem> {
    let service = caller.used(&namespace, &name)?;
    let views = caller.call(&service, GetSecrets { secret: None }).await?;
    Ok(json(None, &views.into_iter().map(|view| shown(view, false)).collect::<Vec<_>>()))
}

/// Says where a secret stands, and which instance uses which version.
pub(super) async fn view(caller: Caller, At((namespace, name, secret)): At<SecretId>) -> Result<Response, Problem> {
    let service = caller.used(&namespace, &name)?;
    let view = caller.call(&service, GetSecrets { secret: Some(secret.into()) }).await?.pop();
    let view = view.ok_or_else(|| Problem::new(Code::NotFound, "there is no such secret"))?;
    Ok(json(None, &shown(view, true)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadQuery {
    version: Option<u64>,
}

/// Reads a value.
pub(super) async fn read(
    caller: Caller,
    At((namespace, name, secret)): At<SecretId>,
    Asked(query): Asked<ReadQuery>,
) -> Result<Response, Problem> {
    let service = caller.used(&namespace, &name)?;
    let read = caller.server.read_secret(&service, &secret, query.version, caller.header()).await;
    let (version, value) = read.map_err(|failure| caller.server.problem(&failure))?;
    let mut response = Response::new(Body::from(value.to_vec()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VERSION, version.into());
    Ok(response)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PutQuery {
    /// Keeps the version before valid until every live instance moved on.
    #[serde(default)]
    rotate: bool,
    overlap_s: Option<u64>,
    /// Changes nothing if the newest version has this value.
    #[serde(default)]
    unless_same: bool,
}

#[derive(Serialize)]
struct Made {
    version: u64,
}

/// Sets a new version: the body.
pub(super) async fn put(
    caller: Caller,
    At((namespace, name, secret)): At<SecretId>,
    Asked(query): Asked<PutQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let service = caller.used(&namespace, &name)?;
    caller
        .keeps_no_key("each setting of a secret is a version of its own: look which is the newest before a repeat")?;
    caller.server.admit(&caller.identity.principal, &service, &caller.header()).await?;
    let rotation = match (query.rotate, query.overlap_s) {
        (false, None) => Rotation::AtOnce,
        (true, seconds) => Rotation::Overlap { seconds: seconds.unwrap_or(OVERLAP_S) },
        (false, Some(_)) => return Err(Problem::new(Code::BadQuery, "overlap_s goes with rotate=true")),
    };
    let value = Zeroizing::new(body(request, VALUE_BYTES_MAX).await?.to_vec());
    let (server, header) = (&caller.server, caller.header());
    let put = if query.unless_same {
        server.put_other_secret(&service, &secret, value, rotation, header).await
    } else {
        server.put_secret(&service, &secret, value, rotation, header).await
    };
    let version = put.map_err(|failure| caller.server.problem(&failure))?;
    Ok(json(None, &Made { version }))
}

/// Deletes a secret with every version.
pub(super) async fn delete(caller: Caller, At((namespace, name, secret)): At<SecretId>) -> Result<StatusCode, Problem> {
    let service = caller.used(&namespace, &name)?;
    caller.call(&service, Delete { secret: secret.into() }).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AckBody {
    instance: CompactString,
    version: u64,
}

/// Notes that an instance uses a version.
pub(super) async fn ack(
    caller: Caller,
    At((namespace, name, secret)): At<SecretId>,
    Document(Object(body)): Document<Object<AckBody>>,
) -> Result<StatusCode, Problem> {
    let service = caller.used(&namespace, &name)?;
    caller.call(&service, Ack { secret: secret.into(), instance: body.instance, version: body.version }).await?;
    Ok(StatusCode::NO_CONTENT)
}
