//! Dapr over gRPC: `dapr.proto.runtime.v1.Dapr`.
//!
//! One route a method, over the message types of the crate `dapr`: what has no route is answered `UNIMPLEMENTED`, and
//! a method that the crate does not know yet is one more route.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::State, http::Request, response::Response, routing::post};
use dapr::dapr::proto::{
    common::v1::{
        ConfigurationItem, InvokeResponse, StateItem, StateOptions,
        state_options::{StateConcurrency, StateConsistency},
    },
    runtime::v1::{
        self as wire, subscribe_topic_events_request_alpha1::SubscribeTopicEventsRequestType as Said,
        subscribe_topic_events_response_alpha1::SubscribeTopicEventsResponseType as Answer,
        topic_event_response::TopicEventResponseStatus,
    },
};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tonic::{Status, Streaming, server::Grpc};
use tonic_prost::ProstCodec;

use crate::{
    model::Consistency,
    server::{
        Server,
        connection::Connection,
        dapr::{
            RUNTIME_VERSION, Refusal, Session,
            configuration::{Items, Shown},
            event::topic_event,
            pubsub::{Published, Taking, Verdict, Wanted, wants_raw},
            secrets::Values,
            state::{Concurrency, Item, about},
        },
        problem::{Code, Problem},
        topics::OUTSTANDING_MAX,
    },
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
        .route("/dapr.proto.runtime.v1.Dapr/PublishEvent", unary(publish_event))
        .route("/dapr.proto.runtime.v1.Dapr/BulkPublishEvent", unary(bulk_publish_event))
        .route("/dapr.proto.runtime.v1.Dapr/BulkPublishEventAlpha1", unary(bulk_publish_event))
        .route("/dapr.proto.runtime.v1.Dapr/SubscribeTopicEventsAlpha1", talking(subscribe_topic_events))
        .route("/dapr.proto.runtime.v1.Dapr/GetSecret", unary(get_secret))
        .route("/dapr.proto.runtime.v1.Dapr/GetBulkSecret", unary(get_bulk_secret))
        .route("/dapr.proto.runtime.v1.Dapr/GetConfiguration", unary(get_configuration))
        .route("/dapr.proto.runtime.v1.Dapr/GetConfigurationAlpha1", unary(get_configuration))
        .route("/dapr.proto.runtime.v1.Dapr/SubscribeConfiguration", streaming(subscribe_configuration))
        .route("/dapr.proto.runtime.v1.Dapr/SubscribeConfigurationAlpha1", streaming(subscribe_configuration))
        .route("/dapr.proto.runtime.v1.Dapr/UnsubscribeConfiguration", unary(unsubscribe_configuration))
        .route("/dapr.proto.runtime.v1.Dapr/UnsubscribeConfigurationAlpha1", unary(unsubscribe_configuration))
        .route("/dapr.proto.runtime.v1.Dapr/InvokeService", post(invoke_service))
        .route("/dapr.proto.runtime.v1.Dapr/GetMetadata", unary(get_metadata))
        .route("/dapr.proto.runtime.v1.Dapr/SetMetadata", unary(set_metadata))
        .route("/dapr.proto.runtime.v1.Dapr/Shutdown", unary(shutdown))
}

/// What reads a request of a method and writes its answer.
fn grpc<Q, A>(server: &Server) -> Grpc<ProstCodec<A, Q>>
where
    Q: prost::Message + Default + Send + 'static,
    A: prost::Message + Default + Send + 'static,
{
    let bytes_max = server.config.body_bytes_max;
    Grpc::new(ProstCodec::default()).apply_max_message_size_config(Some(bytes_max), None)
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
        let mut grpc = grpc::<Q, A>(&server);
        match open(&server, request, false).await {
            Ok((session, request)) => grpc.unary(Method { session, method }, request).await.map(Body::new),
            Err(status) => status.into_http(),
        }
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
        let mut grpc = grpc::<Q, A>(&server);
        match open(&server, request, true).await {
            Ok((session, request)) => grpc.server_streaming(Method { session, method }, request).await.map(Body::new),
            Err(status) => status.into_http(),
        }
    })
}

/// Serves a method whose both sides go on.
fn talking<Q, A, F, W>(method: F) -> axum::routing::MethodRouter<Arc<Server>>
where
    Q: prost::Message + Default + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
    F: Fn(Session, Streaming<Q>) -> W + Clone + Send + Sync + 'static,
    W: Future<Output = Result<Answers<A>, Refusal>> + Send + 'static,
{
    post(async move |State(server): State<Arc<Server>>, request: Request<Body>| -> Response {
        let mut grpc = grpc::<Q, A>(&server);
        match open(&server, request, true).await {
            Ok((session, request)) => grpc.streaming(Method { session, method }, request).await.map(Body::new),
            Err(status) => status.into_http(),
        }
    })
}

/// Establishes who asks, before anything of the message is read. Some SDK is known to send a method that `may_lack_token`
/// without it.
async fn open(
    server: &Arc<Server>,
    request: Request<Body>,
    may_lack_token: bool,
) -> Result<(Session, Request<Body>), Status> {
    let (parts, body) = request.into_parts();
    let connection = Connection::of(&parts.extensions);
    match Session::open(server, &parts.headers, &connection, may_lack_token).await {
        Ok(session) => Ok((session, Request::from_parts(parts, body))),
        Err(problem) => Err(Refusal::from(problem).into()),
    }
}

/// A method of one session.
#[derive(Clone)]
struct Method<F> {
    session: Session,
    method: F,
}

impl<F> Method<F> {
    async fn answer<Q, A, W>(self, request: tonic::Request<Q>) -> Result<tonic::Response<A>, Status>
    where
        F: Fn(Session, Q) -> W,
        W: Future<Output = Result<A, Refusal>>,
    {
        Ok(tonic::Response::new((self.method)(self.session, request.into_inner()).await?))
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

impl<Q, A, F, W> tonic::server::StreamingService<Q> for Method<F>
where
    Q: Send + 'static,
    A: 'static,
    F: Fn(Session, Streaming<Q>) -> W + Clone + Send + 'static,
    W: Future<Output = Result<Answers<A>, Refusal>> + Send + 'static,
{
    type Response = A;
    type ResponseStream = Answers<A>;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<tonic::Response<Answers<A>>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Streaming<Q>>) -> Self::Future {
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

fn consistency(wanted: StateConsistency) -> Consistency {
    match wanted {
        StateConsistency::ConsistencyStrong => Consistency::Strict,
        StateConsistency::ConsistencyEventual => Consistency::StaleOk,
        StateConsistency::ConsistencyUnspecified => Consistency::Lease,
    }
}

async fn get_state(session: Session, request: wire::GetStateRequest) -> Result<wire::GetStateResponse, Refusal> {
    let session = session.consistent(consistency(request.consistency()));
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

async fn publish_event(session: Session, request: wire::PublishEventRequest) -> Result<(), Refusal> {
    let wire::PublishEventRequest { pubsub_name, topic, data, data_content_type, metadata } = request;
    session.topic_publish(&pubsub_name, &topic, Published { data, content_type: data_content_type, metadata }).await
}

async fn bulk_publish_event(
    session: Session,
    request: wire::BulkPublishRequest,
) -> Result<wire::BulkPublishResponse, Refusal> {
    let wire::BulkPublishRequest { pubsub_name, topic, entries, metadata } = request;
    let entries = entries.into_iter().map(|entry| {
        let mut all = metadata.clone();
        all.extend(entry.metadata);
        (entry.entry_id, Published { data: entry.event, content_type: entry.content_type, metadata: all })
    });
    let failed = session.topic_publish_all(&pubsub_name, &topic, entries.collect()).await?.into_iter();
    let failed = failed.map(|(entry_id, error)| wire::BulkPublishResponseFailedEntry { entry_id, error });
    Ok(wire::BulkPublishResponse { failed_entries: failed.collect() })
}

/// How long a subscription may take to say what it is for.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Answers of a subscription that wait to be sent.
const ANSWERS_MAX: usize = 64;

async fn subscribe_topic_events(
    session: Session,
    mut said: Streaming<wire::SubscribeTopicEventsRequestAlpha1>,
) -> Result<Answers<wire::SubscribeTopicEventsResponseAlpha1>, Refusal> {
    let permit = session.server.stream()?;
    let silent = || Refusal::malformed("a subscription begins with its initial_request; none came in time");
    let first = tokio::select! {
        first = tokio::time::timeout(FIRST_MESSAGE_TIMEOUT, said.message()) => first.map_err(|_| silent())?,
        () = session.server.stopping() => return Err(Problem::new(Code::Stopping, "the node is stopping").into()),
    };
    let first = first.map_err(|status| Refusal::malformed(status.message()))?;
    let Some(Said::InitialRequest(initial)) = first.and_then(|first| first.subscribe_topic_events_request_type) else {
        return Err(Refusal::malformed("the first message of a subscription is its initial_request"));
    };
    let raw = wants_raw(&initial.metadata);
    let wanted = Wanted {
        component: initial.pubsub_name,
        topic: initial.topic,
        dead_letter_topic: initial.dead_letter_topic.filter(|topic| !topic.is_empty()),
        raw,
    };
    let taking = session.topic_take(wanted, OUTSTANDING_MAX).await?;
    let (answers, sent) = mpsc::channel(ANSWERS_MAX);
    let began = wire::SubscribeTopicEventsResponseInitialAlpha1 {};
    answers.try_send(Ok(answer(Answer::InitialResponse(began)))).ok();
    tokio::spawn(async move {
        if let Err(status) = talk(taking, said, &answers).await {
            answers.send(Err(status)).await.ok();
        }
        drop(permit);
    });
    Ok(Box::pin(futures_util::stream::unfold(sent, async |mut sent| Some((sent.recv().await?, sent)))))
}

fn answer(kind: Answer) -> wire::SubscribeTopicEventsResponseAlpha1 {
    wire::SubscribeTopicEventsResponseAlpha1 { subscribe_topic_events_response_type: Some(kind) }
}

/// Hands messages over and takes verdicts until one side ends it; what has no verdict then is given back.
async fn talk(
    mut taking: Taking,
    mut said: Streaming<wire::SubscribeTopicEventsRequestAlpha1>,
    answers: &mpsc::Sender<Result<wire::SubscribeTopicEventsResponseAlpha1, Status>>,
) -> Result<(), Status> {
    let server = taking.server();
    let ended = loop {
        // Room first: a message that was taken is handed over without waiting.
        tokio::select! {
            word = said.message() => match word {
                Ok(Some(word)) => match word.subscribe_topic_events_request_type {
                    Some(Said::EventProcessed(processed)) => {
                        let status = processed.status.map(|status| status.status()).unwrap_or_default();
                        let verdict = match status {
                            TopicEventResponseStatus::Success => Verdict::Success,
                            TopicEventResponseStatus::Retry => Verdict::Retry,
                            TopicEventResponseStatus::Drop => Verdict::Drop,
                        };
                        taking.settle(&processed.id, verdict).await;
                    }
                    Some(Said::InitialRequest(_)) | None => {
                        break Err(Status::invalid_argument("a subscription has one initial_request"));
                    }
                },
                Ok(None) | Err(_) => break Ok(()),
            },
            taken = async {
                let room = answers.reserve().await;
                (room, taking.next().await)
            } => match taken {
                (Err(_), _) => break Ok(()),
                (Ok(room), Ok(handed)) => room.send(Ok(answer(Answer::EventMessage(topic_event(handed, taking.wanted(), String::new()))))),
                (Ok(_), Err(problem)) => break Err(Status::from(Refusal::from(problem))),
            },
            () = answers.closed() => break Ok(()),
            () = server.stopping() => break Err(Status::unavailable("the node is stopping; subscribe again")),
        }
    };
    taking.close().await;
    ended
}

async fn invoke_service(State(server): State<Arc<Server>>, request: Request<Body>) -> Response {
    let mut grpc = grpc::<wire::InvokeServiceRequest, InvokeResponse>(&server);
    match open(&server, request, false).await {
        Ok((session, request)) => grpc.unary(Invoke(session), request).await.map(Body::new),
        Err(status) => status.into_http(),
    }
}

/// Invocation, the one method that is about what stands beside its messages, too.
struct Invoke(Session);

impl tonic::server::UnaryService<wire::InvokeServiceRequest> for Invoke {
    type Response = InvokeResponse;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<tonic::Response<InvokeResponse>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<wire::InvokeServiceRequest>) -> Self::Future {
        let session = self.0.clone();
        Box::pin(async move { session.invoke_message(request).await })
    }
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
    let pushed = session.server.pushed.of(&session.service);
    let subscriptions = pushed.iter().map(|subscribed| wire::PubsubSubscription {
        pubsub_name: subscribed.wanted.component.clone(),
        topic: subscribed.wanted.topic.clone(),
        rules: Some(wire::PubsubSubscriptionRules {
            rules: vec![wire::PubsubSubscriptionRule { r#match: String::new(), path: subscribed.path.clone() }],
        }),
        dead_letter_topic: subscribed.wanted.dead_letter_topic.clone().unwrap_or_default(),
        r#type: if subscribed.is_declared {
            wire::PubsubSubscriptionType::Declarative.into()
        } else {
            wire::PubsubSubscriptionType::Programmatic.into()
        },
        ..wire::PubsubSubscription::default()
    });
    Ok(wire::GetMetadataResponse {
        subscriptions: subscriptions.collect(),
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
