//! Dapr over gRPC: `dapr.proto.runtime.v1.Dapr`.
//!
//! One route a method, over the message types of the crate `dapr`: what has no route is answered `UNIMPLEMENTED`, and
//! a method that the crate does not know yet is one more route.

use std::{collections::HashMap, future::Future, net::IpAddr, sync::Arc};

use axum::{Router, body::Body, extract::State, http::Request, response::Response, routing::post};
use dapr::dapr::proto::{
    common::v1::{ConfigurationItem, StateItem, StateOptions, state_options::StateConcurrency},
    runtime::v1 as wire,
};
use futures_util::{Stream, StreamExt as _};
use tonic::{Status, server::Grpc};
use tonic_prost::ProstCodec;

use crate::server::{
    Server,
    dapr::{
        RUNTIME_VERSION, Refusal, Session,
        configuration::{Items, Shown},
        secrets::Values,
        state::{Concurrency, Item, about},
    },
    http::Peer,
};

/// Every method that is served.
pub(super) fn router() -> Router<Arc<Server>> {
    Router::new()
        .route("/dapr.proto.runtime.v1.Dapr/GetState", unary(get_state))
        .route("/dapr.proto.runtime.v1.Dapr/GetBulkState", unary(get_bulk_state))
        .route("/dapr.proto.runtime.v1.Dapr/SaveState", unary(save_state))
        .route("/dapr.proto.runtime.v1.Dapr/DeleteState", unary(delete_state))
        .route("/dapr.proto.runtime.v1.Dapr/DeleteBulkState", unary(delete_bulk_state))
        .route("/dapr.proto.runtime.v1.Dapr/ExecuteStateTransaction", unary(execute_state_transaction))
        .route("/dapr.proto.runtime.v1.Dapr/GetSecret", unary(get_secret))
        .route("/dapr.proto.runtime.v1.Dapr/GetBulkSecret", unary(get_bulk_secret))
        .route("/dapr.proto.runtime.v1.Dapr/GetConfiguration", unary(get_configuration))
        .route("/dapr.proto.runtime.v1.Dapr/GetConfigurationAlpha1", unary(get_configuration))
        .route("/dapr.proto.runtime.v1.Dapr/SubscribeConfiguration", streaming(subscribe_configuration))
        .route("/dapr.proto.runtime.v1.Dapr/SubscribeConfigurationAlpha1", streaming(subscribe_configuration))
        .route("/dapr.proto.runtime.v1.Dapr/UnsubscribeConfiguration", unary(unsubscribe_configuration))
        .route("/dapr.proto.runtime.v1.Dapr/UnsubscribeConfigurationAlpha1", unary(unsubscribe_configuration))
        .route("/dapr.proto.runtime.v1.Dapr/GetMetadata", unary(get_metadata))
        .route("/dapr.proto.runtime.v1.Dapr/SetMetadata", unary(set_metadata))
        .route("/dapr.proto.runtime.v1.Dapr/Shutdown", unary(shutdown))
}

/// Serves a method by a function of its session and request.
fn unary<Q, A, F, W>(method: F) -> axum::routing::MethodRouter<Arc<Server>>
where
    Q: prost::Message + Default + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
    F: Fn(Session, Q) -> W + Clone + Send + Sync + 'static,
    W: Future<Output = Result<A, Refusal>> + Send + 'static,
{
    post(async move |State(server): State<Arc<Server>>, request: Request<Body>| -> Response {
        let bytes_max = server.config.body_bytes_max;
        let mut grpc = Grpc::new(ProstCodec::<A, Q>::default()).apply_max_message_size_config(Some(bytes_max), None);
        let answered = grpc.unary(Method { server, method }, request).await;
        answered.map(Body::new)
    })
}

/// Answers of a method that goes on.
type Answers<A> = std::pin::Pin<Box<dyn Stream<Item = Result<A, Status>> + Send>>;

/// Serves a method that answers with a stream.
fn streaming<Q, A, F, W>(method: F) -> axum::routing::MethodRouter<Arc<Server>>
where
    Q: prost::Message + Default + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
    F: Fn(Session, Q) -> W + Clone + Send + Sync + 'static,
    W: Future<Output = Result<Answers<A>, Refusal>> + Send + 'static,
{
    post(async move |State(server): State<Arc<Server>>, request: Request<Body>| -> Response {
        let bytes_max = server.config.body_bytes_max;
        let mut grpc = Grpc::new(ProstCodec::<A, Q>::default()).apply_max_message_size_config(Some(bytes_max), None);
        grpc.server_streaming(Method { server, method }, request).await.map(Body::new)
    })
}

#[derive(Clone)]
struct Method<F> {
    server: Arc<Server>,
    method: F,
}

impl<F> Method<F> {
    /// Establishes who asks, and answers.
    async fn answer<Q, A, W>(self, request: tonic::Request<Q>) -> Result<tonic::Response<A>, Status>
    where
        F: Fn(Session, Q) -> W,
        W: Future<Output = Result<A, Refusal>>,
    {
        let peer = request.extensions().get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0);
        let session = Session::open(&self.server, request.metadata().as_ref(), peer).await.map_err(Refusal::from)?;
        Ok(tonic::Response::new((self.method)(session, request.into_inner()).await?))
    }
}

impl<Q, A, F, W> tonic::server::UnaryService<Q> for Method<F>
where
    Q: Send + 'static,
    A: 'static,
    F: Fn(Session, Q) -> W + Clone + Send + 'static,
    W: Future<Output = Result<A, Refusal>> + Send + 'static,
{
    type Response = A;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<tonic::Response<A>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        Box::pin(self.clone().answer(request))
    }
}

impl<Q, A, F, W> tonic::server::ServerStreamingService<Q> for Method<F>
where
    Q: Send + 'static,
    A: 'static,
    F: Fn(Session, Q) -> W + Clone + Send + 'static,
    W: Future<Output = Result<Answers<A>, Refusal>> + Send + 'static,
{
    type Response = A;
    type ResponseStream = Answers<A>;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<tonic::Response<Answers<A>>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        Box::pin(self.clone().answer(request))
    }
}

fn item(item: StateItem) -> Item {
    Item {
        key: item.key,
        value: item.value,
        etag: item.etag.map(|etag| etag.value),
        metadata: item.metadata,
        concurrency: concurrency(item.options.as_ref()),
    }
}

fn concurrency(options: Option<&StateOptions>) -> Concurrency {
    match options.map(StateOptions::concurrency) {
        Some(StateConcurrency::ConcurrencyFirstWrite) => Concurrency::FirstWrite,
        Some(StateConcurrency::ConcurrencyLastWrite) => Concurrency::LastWrite,
        Some(StateConcurrency::ConcurrencyUnspecified) | None => Concurrency::Unspecified,
    }
}

async fn get_state(session: Session, request: wire::GetStateRequest) -> Result<wire::GetStateResponse, Refusal> {
    let Some(Some(entry)) = session.state_get(&request.store_name, &[request.key]).await?.pop() else {
        return Ok(wire::GetStateResponse::default());
    };
    let metadata = about(&entry);
    Ok(wire::GetStateResponse { data: entry.value.0, etag: entry.etag.to_string(), metadata })
}

async fn get_bulk_state(
    session: Session,
    request: wire::GetBulkStateRequest,
) -> Result<wire::GetBulkStateResponse, Refusal> {
    let entries = session.state_get(&request.store_name, &request.keys).await?;
    let items = request.keys.into_iter().zip(entries).map(|(key, entry)| match entry {
        Some(entry) => {
            let metadata = about(&entry);
            wire::BulkStateItem {
                key,
                data: entry.value.0,
                etag: entry.etag.to_string(),
                metadata,
                error: String::new(),
            }
        }
        None => wire::BulkStateItem { key, ..wire::BulkStateItem::default() },
    });
    Ok(wire::GetBulkStateResponse { items: items.collect() })
}

async fn save_state(session: Session, request: wire::SaveStateRequest) -> Result<(), Refusal> {
    session.state_save(&request.store_name, request.states.into_iter().map(item).collect()).await
}

async fn delete_state(session: Session, request: wire::DeleteStateRequest) -> Result<(), Refusal> {
    let item = Item {
        key: request.key,
        value: Vec::new(),
        etag: request.etag.map(|etag| etag.value),
        concurrency: concurrency(request.options.as_ref()),
        metadata: request.metadata,
    };
    session.state_delete(&request.store_name, vec![item]).await
}

async fn delete_bulk_state(session: Session, request: wire::DeleteBulkStateRequest) -> Result<(), Refusal> {
    session.state_delete(&request.store_name, request.states.into_iter().map(item).collect()).await
}

async fn execute_state_transaction(
    session: Session,
    request: wire::ExecuteStateTransactionRequest,
) -> Result<(), Refusal> {
    let operations = request.operations.into_iter().map(|operation| {
        let wire::TransactionalStateOperation { operation_type, request } = operation;
        (operation_type, item(request.unwrap_or_default()))
    });
    session.state_transact(&request.store_name, operations.collect()).await
}

async fn get_secret(session: Session, request: wire::GetSecretRequest) -> Result<wire::GetSecretResponse, Refusal> {
    let values = session.secret_get(&request.store_name, &request.key).await?;
    Ok(wire::GetSecretResponse { data: values.into_iter().collect() })
}

async fn get_bulk_secret(
    session: Session,
    request: wire::GetBulkSecretRequest,
) -> Result<wire::GetBulkSecretResponse, Refusal> {
    let secrets = session.secret_bulk(&request.store_name).await?.into_iter();
    let secret = |values: Values| wire::SecretResponse { secrets: values.into_iter().collect() };
    Ok(wire::GetBulkSecretResponse { data: secrets.map(|(name, values)| (name, secret(values))).collect() })
}

fn items(items: Items) -> HashMap<String, ConfigurationItem> {
    let item = |shown: Shown| ConfigurationItem {
        value: shown.value,
        version: shown.version,
        metadata: shown.metadata.into_iter().collect(),
    };
    items.into_iter().map(|(key, shown)| (key, item(shown))).collect()
}

async fn get_configuration(
    session: Session,
    request: wire::GetConfigurationRequest,
) -> Result<wire::GetConfigurationResponse, Refusal> {
    let found = session.configuration_get(&request.store_name, &request.keys).await?;
    Ok(wire::GetConfigurationResponse { items: items(found) })
}

/// The first answer is the subscription's id alone, as clients wait for it.
async fn subscribe_configuration(
    session: Session,
    request: wire::SubscribeConfigurationRequest,
) -> Result<Answers<wire::SubscribeConfigurationResponse>, Refusal> {
    let permit = session.server.stream()?;
    let following = session.configuration_follow(&request.store_name, request.keys).await?;
    let first = wire::SubscribeConfigurationResponse { id: following.id.clone(), items: HashMap::new() };
    let rest = futures_util::stream::unfold((following, permit), async |(mut following, permit)| {
        let answer = match following.next().await {
            Ok(Some(found)) => {
                Ok(wire::SubscribeConfigurationResponse { id: following.id.clone(), items: items(found) })
            }
            Ok(None) => return None,
            Err(refusal) => Err(Status::from(refusal)),
        };
        Some((answer, (following, permit)))
    });
    let until_refused = rest.scan(false, |over, answer| {
        let goes_on = !std::mem::replace(over, answer.is_err());
        std::future::ready(goes_on.then_some(answer))
    });
    Ok(Box::pin(futures_util::stream::iter([Ok(first)]).chain(until_refused)))
}

async fn unsubscribe_configuration(
    session: Session,
    request: wire::UnsubscribeConfigurationRequest,
) -> Result<wire::UnsubscribeConfigurationResponse, Refusal> {
    let ok = session.server.subscriptions.end(&session.service, &request.id);
    let message = if ok { String::new() } else { format!("there is no subscription {}", request.id) };
    Ok(wire::UnsubscribeConfigurationResponse { ok, message })
}

async fn get_metadata(session: Session, _: wire::GetMetadataRequest) -> Result<wire::GetMetadataResponse, Refusal> {
    let registered_components = session.components().await?.into_iter().map(|component| wire::RegisteredComponents {
        name: component.name,
        r#type: component.kind.to_owned(),
        version: component.version.to_owned(),
        capabilities: component.capabilities.iter().map(|&capability| capability.to_owned()).collect(),
    });
    let extended: HashMap<_, _> = session.server.extended.of(&session.service).into_iter().collect();
    Ok(wire::GetMetadataResponse {
        id: session.service.name().to_owned(),
        registered_components: registered_components.collect(),
        extended_metadata: extended,
        runtime_version: RUNTIME_VERSION.to_owned(),
        ..wire::GetMetadataResponse::default()
    })
}

async fn set_metadata(session: Session, request: wire::SetMetadataRequest) -> Result<(), Refusal> {
    session.server.extended.set(&session.service, request.key, request.value)
}

async fn shutdown(session: Session, _: wire::ShutdownRequest) -> Result<(), Refusal> {
    session.end();
    Ok(())
}
