//! Dapr over HTTP: `/v1.0/…`.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, request::Parts, uri::PathAndQuery},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use super::caller::{body, json};
use crate::{
    capability::state::Entry,
    model::Consistency,
    server::{
        Server,
        connection::Connection,
        dapr::{
            RUNTIME_VERSION, Refusal, Session, invoke,
            pubsub::Published,
            state::{Concurrency, Item, Metadata, about},
        },
    },
};

/// Every path of the Dapr API over HTTP.
pub(super) fn router() -> Router<Arc<Server>> {
    Router::new()
        .route("/v1.0/healthz", get(healthz))
        .route("/v1.0/healthz/outbound", get(healthz))
        .route("/v1.0/metadata", get(metadata))
        .route("/v1.0/metadata/{name}", axum::routing::put(set_metadata))
        .route("/v1.0/shutdown", post(shutdown))
        .route("/v1.0/state/{store}", post(state_save).put(state_save))
        .route("/v1.0/state/{store}/", post(state_save).put(state_save))
        .route("/v1.0/state/{store}/bulk", post(state_bulk).put(state_bulk).get(state_get).delete(state_delete))
        .route(
            "/v1.0/state/{store}/transaction",
            post(state_transact).put(state_transact).get(state_get).delete(state_delete),
        )
        .route("/v1.0/state/{store}/{*key}", get(state_get).delete(state_delete))
        .route("/v1.0/publish/{pubsub}/{*topic}", post(publish).put(publish))
        .route("/v1.0/publish/{pubsub}/", post(publish).put(publish))
        .route("/v1.0/publish/bulk/{pubsub}/{*topic}", post(publish_all).put(publish_all))
        .route("/v1.0-alpha1/publish/bulk/{pubsub}/{*topic}", post(publish_all).put(publish_all))
        .route("/v1.0/secrets/{store}/bulk", get(secret_bulk))
        .route("/v1.0/secrets/{store}/{secret}", get(secret_get))
        .route("/v1.0/configuration/{store}", get(configuration_get))
        .route("/v1.0-alpha1/configuration/{store}", get(configuration_get))
        .route("/v1.0/configuration/{store}/subscribe", get(configuration_subscribe))
        .route("/v1.0-alpha1/configuration/{store}/subscribe", get(configuration_subscribe))
        .route("/v1.0/configuration/{store}/{id}/unsubscribe", get(configuration_unsubscribe))
        .route("/v1.0-alpha1/configuration/{store}/{id}/unsubscribe", get(configuration_unsubscribe))
        .route("/v1.0/invoke/{app}/method", any(invoke))
        .route("/v1.0/invoke/{app}/method/{*method}", any(invoke))
        .route("/v1.0/invoke/{app}/method/", any(invoke))
        .route("/v1.0/{*rest}", any(not_served))
        .route("/v1.0-alpha1/{*rest}", any(not_served))
        .route("/v1.0-alpha2/{*rest}", any(not_served))
        .route("/v1.0-beta1/{*rest}", any(not_served))
        .method_not_allowed_fallback(no_such_method)
}

async fn no_such_method(method: Method) -> Refusal {
    Refusal::no_such_method(method.as_str())
}

/// Requests that name an application in their head are for it, whatever their path is.
pub(super) async fn by_header(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let Some(app) = invoke::named(&request) else { return next.run(request).await };
    let is_grpc = invoke::is_grpc(&request);
    let (mut parts, body) = request.into_parts();
    let invoked = match Session::from_request_parts(&mut parts, &server).await {
        Ok(session) => {
            let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
            session.invoke(&app, path, Request::from_parts(parts, body)).await
        }
        Err(refusal) => Err(refusal),
    };
    match invoked {
        Ok(response) => response,
        Err(refusal) if is_grpc => tonic::Status::from(refusal).into_http(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn invoke(session: Session, request: Request) -> Result<Response, Refusal> {
    let uri = request.uri();
    let behind = uri.path().strip_prefix("/v1.0/invoke/").unwrap_or_default();
    let (app, method) = behind.split_once("/method").unwrap_or((behind, ""));
    let app = percent_encoding::percent_decode_str(app).decode_utf8_lossy().into_owned();
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = format!("/{}{query}", method.trim_start_matches('/')).parse();
    let path = path.map_err(|_| Refusal::malformed("the method is no path"))?;
    session.invoke(&app, path, request).await
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.http, json(None, &self.json())).into_response()
    }
}

impl FromRequestParts<Arc<Server>> for Session {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Refusal> {
        Self::open(server, &parts.headers, &Connection::of(&parts.extensions), false).await.map_err(Refusal::from)
    }
}

/// A body in JSON, whatever its media type says.
struct Json<T>(T);

impl<T: DeserializeOwned> FromRequest<Arc<Server>> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, server: &Arc<Server>) -> Result<Self, Refusal> {
        let bytes = body(request, server.config.body_bytes_max).await?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| Refusal::malformed(format!("failed deserializing: {error}")))
    }
}

/// Parameters of the path, or a refusal.
struct At<T>(T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Server>> for At<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Refusal> {
        let path = Path::from_request_parts(parts, server).await;
        path.map(|Path(value)| Self(value)).map_err(|error| Refusal::malformed(error.body_text()))
    }
}

/// What the query says, or a refusal.
struct Asked(Vec<(String, String)>);

impl FromRequestParts<Arc<Server>> for Asked {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Refusal> {
        let query = Query::from_request_parts(parts, server).await;
        query.map(|Query(asked)| Self(asked)).map_err(|error| Refusal::malformed(error.body_text()))
    }
}

/// What the query says as `metadata.NAME=VALUE`.
fn asked_metadata(asked: &[(String, String)]) -> Metadata {
    let named =
        asked.iter().filter_map(|(name, value)| Some((name.strip_prefix("metadata.")?.to_owned(), value.clone())));
    named.collect()
}

fn concurrency(text: Option<&str>) -> Result<Concurrency, Refusal> {
    match text {
        None | Some("" | "unspecified") => Ok(Concurrency::Unspecified),
        Some("first-write") => Ok(Concurrency::FirstWrite),
        Some("last-write") => Ok(Concurrency::LastWrite),
        Some(other) => Err(Refusal::malformed(format!("unrecognized concurrency '{other}'"))),
    }
}

/// Metadata as SDKs send it: values that are no text are taken for their JSON, `null` for nothing.
#[derive(Default, Deserialize)]
#[serde(from = "Option<std::collections::HashMap<String, Value>>")]
struct Lenient(Metadata);

impl From<Option<std::collections::HashMap<String, Value>>> for Lenient {
    fn from(metadata: Option<std::collections::HashMap<String, Value>>) -> Self {
        let text = |value: Value| match value {
            Value::String(text) => text,
            Value::Null => String::new(),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
        };
        Self(metadata.unwrap_or_default().into_iter().map(|(name, value)| (name, text(value))).collect())
    }
}

/// An ETag as SDKs send it: a text, or an object that holds one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Etag {
    Text(String),
    Number(u64),
    Object { value: String },
}

impl From<Etag> for String {
    fn from(etag: Etag) -> Self {
        match etag {
            Etag::Text(value) | Etag::Object { value } => value,
            Etag::Number(value) => value.to_string(),
        }
    }
}

#[derive(Default, Deserialize)]
struct Options {
    concurrency: Option<String>,
}

#[derive(Deserialize)]
struct Saved {
    key: String,
    value: Option<Box<RawValue>>,
    etag: Option<Etag>,
    #[serde(default)]
    metadata: Lenient,
    options: Option<Options>,
}

impl Saved {
    fn item(self) -> Result<Item, Refusal> {
        let concurrency = concurrency(self.options.unwrap_or_default().concurrency.as_deref())?;
        let value = self.value.map_or_else(|| b"null".to_vec(), |value| value.get().as_bytes().to_vec());
        Ok(Item { key: self.key, value, etag: self.etag.map(Into::into), metadata: self.metadata.0, concurrency })
    }
}

async fn state_save(
    session: Session,
    At(store): At<String>,
    Asked(asked): Asked,
    Json(saved): Json<Vec<Saved>>,
) -> Result<StatusCode, Refusal> {
    let for_all = asked_metadata(&asked);
    let item = |saved: Saved| {
        let mut item = saved.item()?;
        let own = std::mem::replace(&mut item.metadata, for_all.clone());
        item.metadata.extend(own);
        Ok(item)
    };
    let items = saved.into_iter().map(item).collect::<Result<_, Refusal>>()?;
    session.state_save(&store, items).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `consistency=strong|eventual`; what else it may say is Dapr's to say, and counts for nothing.
fn consistency(asked: &[(String, String)]) -> Consistency {
    match asked.iter().find(|(name, _)| name == "consistency").map(|(_, value)| value.as_str()) {
        Some("strong") => Consistency::Strict,
        Some("eventual") => Consistency::StaleOk,
        Some(_) | None => Consistency::Lease,
    }
}

async fn state_get(session: Session, uri: Uri, Asked(asked): Asked) -> Result<Response, Refusal> {
    let (store, key) = one_and_rest(&uri, "/state/")?;
    let session = session.consistent(consistency(&asked));
    let Some(Some(entry)) = session.state_get(&store, &[key]).await?.pop() else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let mut response = Response::new(Body::from(entry.value.0.clone()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::ETAG, entry.etag.into());
    add_metadata(headers, &about(&entry));
    Ok(response)
}

fn add_metadata(headers: &mut HeaderMap, metadata: &Metadata) {
    for (name, value) in metadata {
        let name = HeaderName::try_from(format!("metadata.{name}"));
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
}

async fn state_delete(
    session: Session,
    uri: Uri,
    Asked(asked): Asked,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let (store, key) = one_and_rest(&uri, "/state/")?;
    let etag = headers.get(header::IF_MATCH).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
    let said = asked.iter().find(|(name, _)| name == "concurrency").map(|(_, value)| value.as_str());
    let item = Item { key, etag, metadata: asked_metadata(&asked), concurrency: concurrency(said)?, ..Item::default() };
    session.state_delete(&store, vec![item]).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct Bulk {
    keys: Vec<String>,
}

/// A value within JSON: as it is if it is JSON, else as text.
fn within_json(entry: &Entry) -> Value {
    serde_json::from_slice(&entry.value.0).unwrap_or_else(|_| String::from_utf8_lossy(&entry.value.0).into())
}

async fn state_bulk(
    session: Session,
    At(store): At<String>,
    Json(Bulk { keys }): Json<Bulk>,
) -> Result<Response, Refusal> {
    let entries = session.state_get(&store, &keys).await?;
    let items = keys.iter().zip(&entries).map(|(key, entry)| match entry {
        Some(entry) => serde_json::json!({
            "key": key,
            "data": within_json(entry),
            "etag": entry.etag.to_string(),
            "metadata": about(entry),
        }),
        None => serde_json::json!({ "key": key }),
    });
    Ok(json(None, &items.collect::<Vec<_>>()))
}

#[derive(Deserialize)]
struct Transaction {
    operations: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    operation: String,
    request: Saved,
}

async fn state_transact(
    session: Session,
    At(store): At<String>,
    Json(Transaction { operations }): Json<Transaction>,
) -> Result<StatusCode, Refusal> {
    let operations = operations.into_iter().map(|step| Ok((step.operation, step.request.item()?)));
    session.state_transact(&store, operations.collect::<Result<_, Refusal>>()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The parts of a path behind its first ones, decoded: one, and the rest with its slashes.
fn one_and_rest(uri: &Uri, behind: &str) -> Result<(String, String), Refusal> {
    let path = uri.path().split_once(behind).map_or("", |(_, rest)| rest);
    let (one, rest) = path.split_once('/').unwrap_or((path, ""));
    let decode = |text: &str| {
        let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
        decoded.map(Into::into).map_err(|_| Refusal::malformed("the path is not UTF-8"))
    };
    Ok((decode(one)?, decode(rest)?))
}

fn content_type(headers: &HeaderMap) -> String {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.unwrap_or_default().to_owned()
}

async fn publish(session: Session, Asked(asked): Asked, request: Request) -> Result<StatusCode, Refusal> {
    let (pubsub, topic) = one_and_rest(request.uri(), "/publish/")?;
    let (content_type, metadata) = (content_type(request.headers()), asked_metadata(&asked));
    let data = body(request, session.server.config.body_bytes_max).await?.to_vec();
    session.topic_publish(&pubsub, &topic, Published { data, content_type, metadata }).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct EntryBody {
    #[serde(alias = "entryID")]
    #[serde(rename = "entryId", default)]
    id: String,
    event: Option<Box<RawValue>>,
    #[serde(rename = "contentType", default)]
    content_type: String,
    #[serde(default)]
    metadata: Lenient,
}

impl EntryBody {
    fn published(self, metadata: &Metadata) -> (String, Published) {
        let text = self.event.map_or_else(String::new, |event| event.get().to_owned());
        // A text that is not published as JSON stands for itself, not for its quotes.
        let data = match serde_json::from_str(&text) {
            Ok(Value::String(plain)) if !self.content_type.contains("json") => plain.into_bytes(),
            Ok(_) | Err(_) => text.into_bytes(),
        };
        let mut metadata = metadata.clone();
        metadata.extend(self.metadata.0);
        (self.id, Published { data, content_type: self.content_type, metadata })
    }
}

async fn publish_all(
    session: Session,
    uri: Uri,
    Asked(asked): Asked,
    Json(entries): Json<Vec<EntryBody>>,
) -> Result<Response, Refusal> {
    let (pubsub, topic) = one_and_rest(&uri, "/publish/bulk/")?;
    let metadata = asked_metadata(&asked);
    let entries = entries.into_iter().map(|entry| entry.published(&metadata)).collect();
    let failed = session.topic_publish_all(&pubsub, &topic, entries).await?;
    if failed.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    // One SDK reads the one name, the others the other.
    let failed: Vec<_> =
        failed.iter().map(|(id, error)| serde_json::json!({ "entryId": id, "entryID": id, "error": error })).collect();
    let body = serde_json::json!({ "failedEntries": failed, "errorCode": "ERR_PUBSUB_PUBLISH_MESSAGE" });
    Ok((StatusCode::INTERNAL_SERVER_ERROR, json(None, &body)).into_response())
}

async fn secret_get(session: Session, At((store, secret)): At<(String, String)>) -> Result<Response, Refusal> {
    Ok(json(None, &session.secret_get(&store, &secret).await?))
}

async fn secret_bulk(session: Session, At(store): At<String>) -> Result<Response, Refusal> {
    Ok(json(None, &session.secret_bulk(&store).await?))
}

/// The keys that the query names.
fn asked_keys(asked: Vec<(String, String)>) -> Vec<String> {
    asked.into_iter().filter(|(name, _)| name == "key").map(|(_, key)| key).collect()
}

async fn configuration_get(session: Session, At(store): At<String>, Asked(asked): Asked) -> Result<Response, Refusal> {
    let items = session.configuration_get(&store, &asked_keys(asked)).await?;
    if items.is_empty() { Ok(StatusCode::NO_CONTENT.into_response()) } else { Ok(json(None, &items)) }
}

async fn configuration_subscribe(
    session: Session,
    At(store): At<String>,
    Asked(asked): Asked,
) -> Result<Response, Refusal> {
    let id = session.configuration_push(&store, asked_keys(asked)).await?;
    Ok(json(None, &serde_json::json!({ "id": id })))
}

async fn configuration_unsubscribe(session: Session, At((_, id)): At<(String, String)>) -> Response {
    if session.server.subscriptions.end(&session.service, &id) {
        return json(None, &serde_json::json!({ "ok": true }));
    }
    let body = serde_json::json!({ "ok": false, "message": format!("there is no subscription {id}") });
    (StatusCode::INTERNAL_SERVER_ERROR, json(None, &body)).into_response()
}

async fn healthz(State(server): State<Arc<Server>>) -> Response {
    match server.ready().and_then(|()| server.writable()) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(problem) => {
            let (http, grpc) = (StatusCode::INTERNAL_SERVER_ERROR, tonic::Code::Unavailable);
            let message = problem.detail.into_owned();
            Refusal { code: "ERR_HEALTH_NOT_READY".into(), http, grpc, message, details: Vec::new() }.into_response()
        }
    }
}

async fn metadata(session: Session) -> Result<Response, Refusal> {
    let components = session.components().await?;
    let extended = session.server.extended.of(&session.service);
    let pushed = session.server.pushed.of(&session.service);
    let subscriptions = pushed.iter().map(|subscribed| {
        serde_json::json!({
            "pubsubname": subscribed.wanted.component,
            "topic": subscribed.wanted.topic,
            "rules": { "rules": [{ "match": "", "path": subscribed.path }] },
            "deadLetterTopic": subscribed.wanted.dead_letter_topic.as_deref().unwrap_or_default(),
            "type": if subscribed.is_declared { "DECLARATIVE" } else { "PROGRAMMATIC" },
        })
    });
    Ok(json(
        None,
        &serde_json::json!({
            "id": session.service.name(),
            "runtimeVersion": RUNTIME_VERSION,
            "enabledFeatures": [],
            "actors": [],
            "components": components,
            "extended": extended,
            "subscriptions": subscriptions.collect::<Vec<_>>(),
            "httpEndpoints": [],
        }),
    ))
}

async fn set_metadata(session: Session, At(name): At<String>, request: Request) -> Result<StatusCode, Refusal> {
    let bytes = body(request, session.server.config.body_bytes_max).await?;
    let value = String::from_utf8(bytes.to_vec()).map_err(|_| Refusal::malformed("the value is not UTF-8"))?;
    session.server.extended.set(&session.service, name, value)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends what this service holds of the node, and nothing else.
async fn shutdown(session: Session) -> StatusCode {
    session.end();
    StatusCode::NO_CONTENT
}

async fn not_served(session: Session, uri: Uri) -> Refusal {
    drop(session);
    Refusal::unimplemented(&uri.path().chars().take(200).collect::<String>())
}
