//! Applications behind channels: what is pushed to them, and what they are invoked with.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use dapr::dapr::proto::{
    common::v1::{HttpExtension, InvokeRequest, InvokeResponse, http_extension::Verb},
    runtime::v1::{
        BindingEventRequest, BindingEventResponse, InvokeServiceRequest, JobEventRequest, JobEventResponse,
        ListInputBindingsResponse, ListTopicSubscriptionsResponse, TopicEventBulkRequest, TopicEventBulkResponse,
        TopicEventRequest, TopicEventResponse, TopicSubscription,
        app_callback_server::{AppCallback, AppCallbackServer},
        dapr_client::DaprClient,
        topic_event_response::TopicEventResponseStatus,
    },
};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    service::service_fn,
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::mpsc, task::JoinHandle};
use tonic::transport::Channel;

use service_twin::config::StoreKind;

use crate::api_world::{Answer, World, config};

/// How long is waited for what must come.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) async fn key(world: &World, service: &str) -> String {
    world.mint(json!({"kind": "service", "service": service})).await.1
}

pub(crate) async fn grant(world: &World, service: &str, scope: &str) {
    let edit = json!({"add": [{"effect": "allow", "scope": scope}]});
    world.done("PATCH", &format!("/api/v1/twins/{service}/access"), edit).await;
}

/// Asks for a channel; what the node answers if it does not open one.
pub(crate) async fn upgrade(world: &World, key: &str, service: &str, query: &str) -> Result<Upgraded, StatusCode> {
    upgrade_as(world, key, service, "i1", query).await
}

async fn upgrade_as(
    world: &World,
    key: &str,
    service: &str,
    instance: &str,
    query: &str,
) -> Result<Upgraded, StatusCode> {
    let address = world.node.url().strip_prefix("http://").unwrap().to_owned();
    let stream = TcpStream::connect(&address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let request = Request::builder()
        .uri(format!("/api/v1/twins/{service}/instances/{instance}/channel{query}"))
        .header("host", &address)
        .header("authorization", format!("Bearer {key}"))
        .header("connection", "upgrade")
        .header("upgrade", "twin-channel")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => Ok(hyper::upgrade::on(response).await.unwrap()),
        refused => Err(refused),
    }
}

/// What an application over HTTP was asked.
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// An application over HTTP: it has these subscriptions, and answers from a list, `200` once that is empty.
pub(crate) struct App {
    pub(crate) asked: mpsc::Receiver<Asked>,
    answers: Arc<Mutex<VecDeque<(u16, &'static str)>>>,
    pub(crate) served: JoinHandle<()>,
}

impl App {
    pub(crate) async fn open(world: &World, key: &str, service: &str, subscriptions: Value) -> Self {
        let connection = upgrade(world, key, service, "").await.unwrap();
        let (tell, asked) = mpsc::channel(256);
        let answers = Arc::<Mutex<VecDeque<(u16, &'static str)>>>::default();
        let planned = Arc::clone(&answers);
        let service = service_fn(move |request: Request<Incoming>| {
            let (tell, planned, subscriptions) = (tell.clone(), Arc::clone(&planned), subscriptions.to_string());
            async move {
                let (head, body) = request.into_parts();
                let path = head.uri.path_and_query().unwrap().to_string();
                if path == "/dapr/subscribe" {
                    return Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(subscriptions)));
                }
                let body = body.collect().await.unwrap().to_bytes().to_vec();
                tell.try_send(Asked { method: head.method.to_string(), path, headers: head.headers, body }).ok();
                let (status, text) = planned.lock().pop_front().unwrap_or((200, ""));
                Ok(Response::builder().status(status).header("x-own", "1").body(Full::from(text)).unwrap())
            }
        });
        let served = tokio::spawn(async move {
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drop(server.serve_connection(connection, service).await);
        });
        Self { asked, answers, served }
    }

    pub(crate) fn answer_next(&self, answers: &[(u16, &'static str)]) {
        self.answers.lock().extend(answers);
    }

    pub(crate) async fn asked(&mut self) -> Asked {
        tokio::time::timeout(SOON, self.asked.recv()).await.expect("it is not asked").unwrap()
    }

    /// The data of the next event that is pushed to a path.
    async fn pushed(&mut self, path: &str) -> Value {
        let asked = self.asked().await;
        assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", path));
        assert_eq!(asked.headers["content-type"], "application/cloudevents+json");
        serde_json::from_slice::<Value>(&asked.body).unwrap()["data"].clone()
    }
}

/// Waits until so many topics are pushed to a service.
pub(crate) async fn subscribed(world: &World, key: &str, count: usize) {
    let metadata = async || {
        let answer = Answer::of(world.bare("GET", "/v1.0/metadata").bearer_auth(key).send().await.unwrap()).await;
        answer.json()["subscriptions"].as_array().unwrap().len()
    };
    let all = async { while metadata().await != count {} };
    tokio::time::timeout(SOON, all).await.expect("its topics are not pushed");
}

pub(crate) async fn publish(world: &World, key: &str, topic: &str, data: u32) {
    let path = format!("/v1.0/publish/pubsub/{topic}");
    let answer = world.bare("POST", &path).bearer_auth(key).json(&data).send().await.unwrap();
    assert_eq!(answer.status(), 204);
}

#[tokio::test]
async fn a_topic_is_pushed_in_order_and_the_answers_say_what_becomes_of_each_message() {
    let world = World::new().await;
    let orders = key(&world, "shop/orders").await;
    let subscriptions = json!([
        {"pubsubname": "pubsub", "topic": "new", "route": "/new", "deadLetterTopic": "dead"},
        {"pubsubname": "pubsub", "topic": "dead", "route": "dead"},
    ]);
    let mut app = App::open(&world, &orders, "shop/orders", subscriptions).await;
    subscribed(&world, &orders, 2).await;
    for number in 0..50 {
        publish(&world, &orders, "new", number).await;
    }
    for number in 0..50 {
        assert_eq!(app.pushed("/new").await, number);
    }
    app.answer_next(&[(500, ""), (200, r#"{"status": "RETRY"}"#), (200, r#"{"status": "DROP"}"#)]);
    publish(&world, &orders, "new", 50).await;
    for _ in 0..3 {
        assert_eq!(app.pushed("/new").await, 50, "it comes again after a failure, and as asked");
    }
    assert_eq!(app.pushed("/dead").await, 50);
    publish(&world, &orders, "new", 51).await;
    assert_eq!(app.pushed("/new").await, 51);
}

#[tokio::test]
async fn a_declared_subscription_is_pushed_from_when_it_is_declared_until_it_is_removed() {
    let world = World::new().await;
    let orders = key(&world, "shop/orders").await;
    let mut app = App::open(&world, &orders, "shop/orders", json!([])).await;
    let at = "/api/v1/twins/shop/orders/subscriptions/new";
    let declare = async |path: &str| {
        let subscription = json!({"component": "pubsub", "topic": "new", "path": path});
        assert!(world.send("PUT", at, subscription).await.status < 300);
    };
    declare("/first").await;
    subscribed(&world, &orders, 1).await;
    publish(&world, &orders, "new", 1).await;
    assert_eq!(app.pushed("/first").await, 1);
    declare("/second").await;
    let path = async || {
        let answer = Answer::of(world.bare("GET", "/v1.0/metadata").bearer_auth(&orders).send().await.unwrap()).await;
        answer.json()["subscriptions"][0]["rules"]["rules"][0]["path"].clone()
    };
    tokio::time::timeout(SOON, async { while path().await != "/second" {} }).await.expect("it is as it was");
    publish(&world, &orders, "new", 2).await;
    assert_eq!(app.pushed("/second").await, 2);
    assert!(world.send("DELETE", at, Value::Null).await.status < 300);
    subscribed(&world, &orders, 0).await;
}

#[tokio::test]
async fn what_an_application_leaves_undone_another_instance_gets() {
    let world = World::new().await;
    let orders = key(&world, "shop/orders").await;
    let subscriptions = json!([{"pubsubname": "pubsub", "topic": "new", "route": "/new"}]);
    let connection = upgrade(&world, &orders, "shop/orders", "").await.unwrap();
    let list = subscriptions.to_string();
    let (tell, mut asked) = mpsc::channel(256);
    // The first one takes a message and never answers.
    let first = tokio::spawn(async move {
        let service = service_fn(move |request: Request<Incoming>| {
            let (tell, list) = (tell.clone(), list.clone());
            async move {
                if request.uri().path() != "/dapr/subscribe" {
                    tell.try_send(()).ok();
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(list)))
            }
        });
        drop(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(connection, service).await,
        );
    });
    subscribed(&world, &orders, 1).await;
    publish(&world, &orders, "new", 1).await;
    tokio::time::timeout(SOON, asked.recv()).await.unwrap().unwrap();
    first.abort();
    let mut second = App::open(&world, &orders, "shop/orders", subscriptions).await;
    assert_eq!(second.pushed("/new").await, 1);
}

#[tokio::test]
async fn a_node_that_stops_settles_what_it_has_pushed_first() {
    let folder = tempfile::tempdir().unwrap();
    let first = config(folder.path(), StoreKind::Sled);
    let world = World::start(folder, first.clone()).await;
    let orders = key(&world, "shop/orders").await;
    let subscriptions = json!([{"pubsubname": "pubsub", "topic": "new", "route": "/new"}]);
    let connection = upgrade(&world, &orders, "shop/orders", "").await.unwrap();
    let (tell, mut asked) = mpsc::channel(1);
    let answer = Arc::new(tokio::sync::Notify::new());
    let (list, may_answer) = (subscriptions.to_string(), Arc::clone(&answer));
    tokio::spawn(async move {
        let service = service_fn(move |request: Request<Incoming>| {
            let (tell, list, may_answer) = (tell.clone(), list.clone(), Arc::clone(&may_answer));
            async move {
                if request.uri().path() == "/dapr/subscribe" {
                    return Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(list)));
                }
                tell.try_send(()).ok();
                may_answer.notified().await;
                Ok(Response::new(Full::default()))
            }
        });
        drop(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(connection, service).await,
        );
    });
    subscribed(&world, &orders, 1).await;
    publish(&world, &orders, "new", 1).await;
    tokio::time::timeout(SOON, asked.recv()).await.unwrap().unwrap();
    let ready = format!("{}/readyz", world.node.url());
    let World { node, folder, client, .. } = world;
    let stopped = tokio::spawn(node.shutdown());
    while client.get(&ready).send().await.is_ok_and(|answer| answer.status() == 200) {}
    answer.notify_one();
    stopped.await.unwrap();
    let world = World::start(folder, first).await;
    let mut app = App::open(&world, &orders, "shop/orders", subscriptions).await;
    subscribed(&world, &orders, 1).await;
    publish(&world, &orders, "new", 2).await;
    assert_eq!(app.pushed("/new").await, 2, "the first one is done");
}

/// An application over gRPC: it tells what it was asked.
pub(crate) struct Callback(pub(crate) mpsc::Sender<(String, Vec<u8>)>);

#[tonic::async_trait]
impl AppCallback for Callback {
    async fn on_invoke(
        &self,
        request: tonic::Request<InvokeRequest>,
    ) -> Result<tonic::Response<InvokeResponse>, tonic::Status> {
        let (metadata, _, InvokeRequest { method, data, content_type, .. }) = request.into_parts();
        if method == "fail" {
            return Err(tonic::Status::not_found("no such order"));
        }
        self.0.try_send((method, data.clone().unwrap().value)).ok();
        let mut answer = tonic::Response::new(InvokeResponse { data, content_type });
        if let Some(given) = metadata.get("x-given") {
            assert_eq!(metadata.get("dapr-caller-app-id").unwrap(), "checkout");
            assert!(!metadata.contains_key("dapr-api-token") && !metadata.contains_key("dapr-app-id"), "{metadata:?}");
            answer.metadata_mut().insert("x-answered", given.clone());
        }
        Ok(answer)
    }

    async fn list_topic_subscriptions(
        &self,
        _: tonic::Request<()>,
    ) -> Result<tonic::Response<ListTopicSubscriptionsResponse>, tonic::Status> {
        let subscription =
            TopicSubscription { pubsub_name: "pubsub".into(), topic: "new".into(), ..TopicSubscription::default() };
        Ok(tonic::Response::new(ListTopicSubscriptionsResponse { subscriptions: vec![subscription] }))
    }

    async fn on_topic_event(
        &self,
        request: tonic::Request<TopicEventRequest>,
    ) -> Result<tonic::Response<TopicEventResponse>, tonic::Status> {
        let TopicEventRequest { topic, data, .. } = request.into_inner();
        self.0.try_send((topic, data)).ok();
        Ok(tonic::Response::new(TopicEventResponse { status: TopicEventResponseStatus::Success.into() }))
    }

    async fn list_input_bindings(
        &self,
        _: tonic::Request<()>,
    ) -> Result<tonic::Response<ListInputBindingsResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented(""))
    }

    async fn on_binding_event(
        &self,
        _: tonic::Request<BindingEventRequest>,
    ) -> Result<tonic::Response<BindingEventResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented(""))
    }

    async fn on_bulk_topic_event(
        &self,
        _: tonic::Request<TopicEventBulkRequest>,
    ) -> Result<tonic::Response<TopicEventBulkResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented(""))
    }

    async fn on_job_event(
        &self,
        _: tonic::Request<JobEventRequest>,
    ) -> Result<tonic::Response<JobEventResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented(""))
    }
}

#[tokio::test]
async fn an_application_over_grpc_is_pushed_to_and_invoked_from_both_doors_and_by_its_own_methods() {
    let world = World::new().await;
    let (checkout, orders) = (key(&world, "shop/checkout").await, key(&world, "shop/orders").await);
    grant(&world, "shop/checkout", "invoke:orders/*").await;
    let connection = upgrade(&world, &orders, "shop/orders", "?protocol=grpc").await.unwrap();
    let (tell, mut told) = mpsc::channel(256);
    tokio::spawn(async move {
        let callback = AppCallbackServer::new(Callback(tell));
        let service = service_fn(move |request: Request<Incoming>| {
            let mut callback = callback.clone();
            async move {
                if request.uri().path() != "/shop.Orders/Track" {
                    return tower::Service::call(&mut callback, request).await;
                }
                let trailers = [("grpc-status".parse().unwrap(), "0".parse().unwrap())].into_iter().collect();
                let frames =
                    [hyper::body::Frame::data(Bytes::from_static(&[0; 5])), hyper::body::Frame::trailers(trailers)];
                let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, Infallible>)));
                let answer = Response::builder().header("content-type", "application/grpc");
                Ok(answer.body(tonic::body::Body::new(body)).unwrap())
            }
        });
        drop(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(connection, service).await,
        );
    });
    let mut next = async || tokio::time::timeout(SOON, told.recv()).await.expect("it is not asked").unwrap();
    subscribed(&world, &orders, 1).await;
    publish(&world, &checkout, "new", 7).await;
    assert_eq!(next().await, ("new".to_owned(), b"7".to_vec()));

    let path = "/v1.0/invoke/orders/method/pack";
    let request = world.bare("POST", path).header("dapr-api-token", &checkout).header("x-given", "7").body("box");
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["x-answered"], "7", "what stands beside the answer of a call over HTTP is its head");
    let answer = Answer::of(answer).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"box"[..]));
    assert_eq!(next().await, ("pack".to_owned(), b"box".to_vec()));

    let channel = Channel::from_shared(world.node.url()).unwrap().connect().await.unwrap();
    let with = |mut request: tonic::Request<InvokeServiceRequest>| {
        request.metadata_mut().insert("dapr-api-token", checkout.parse().unwrap());
        request.metadata_mut().insert("dapr-caller-app-id", "forged".parse().unwrap());
        request.metadata_mut().insert("x-given", "8".parse().unwrap());
        request
    };
    let invoke = |method: &str| {
        let message = InvokeRequest {
            method: method.into(),
            data: Some(prost_types::Any { type_url: String::new(), value: b"box".to_vec() }),
            content_type: "text/plain".into(),
            http_extension: Some(HttpExtension { verb: Verb::Post.into(), querystring: String::new() }),
        };
        with(tonic::Request::new(InvokeServiceRequest { id: "orders".into(), message: Some(message) }))
    };
    let mut client = DaprClient::new(channel.clone());
    let answer = client.invoke_service(invoke("ship")).await.unwrap();
    assert_eq!(answer.metadata().get("x-answered").unwrap(), "8");
    let answer = answer.into_inner();
    assert_eq!((answer.data.unwrap().value, answer.content_type.as_str()), (b"box".to_vec(), "text/plain"));
    assert_eq!(next().await, ("ship".to_owned(), b"box".to_vec()));
    let failed = client.invoke_service(invoke("fail")).await.unwrap_err();
    assert_eq!((failed.code(), failed.message()), (tonic::Code::NotFound, "no such order"));

    // Its own methods, by its name in the metadata; what it serves for its node is for that alone.
    let mut direct = tonic::client::Grpc::new(channel);
    for (path, code) in [
        ("/shop.Orders/Track", tonic::Code::Ok),
        ("/dapr.proto.runtime.v1.AppCallback/OnInvoke", tonic::Code::InvalidArgument),
    ] {
        let mut request = tonic::Request::new(());
        request.metadata_mut().insert("dapr-api-token", checkout.parse().unwrap());
        request.metadata_mut().insert("dapr-app-id", "orders".parse().unwrap());
        direct.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let answered = direct.unary(request, path.parse().unwrap(), codec).await;
        assert_eq!(answered.map_or_else(|status| status.code(), |_| tonic::Code::Ok), code, "{path}");
    }
}

#[tokio::test]
async fn a_right_that_is_taken_away_stops_what_is_pushed_and_what_was_kept_comes_once_it_is_back() {
    let world = World::new().await;
    let orders = key(&world, "shop/orders").await;
    let subscriptions = json!([{"pubsubname": "pubsub", "topic": "new", "route": "/new"}]);
    let mut app = App::open(&world, &orders, "shop/orders", subscriptions).await;
    subscribed(&world, &orders, 1).await;
    publish(&world, &orders, "new", 1).await;
    assert_eq!(app.pushed("/new").await, 1);
    let denied = json!([{"effect": "deny", "scope": "topics:pubsub/new", "operations": ["subscribe"]}]);
    let edit = async |what: &str| {
        world.done("PATCH", "/api/v1/twins/shop/orders/access", json!({ what: denied })).await;
    };
    edit("add").await;
    publish(&world, &orders, "new", 2).await;
    subscribed(&world, &orders, 0).await;
    publish(&world, &orders, "new", 3).await;
    assert!(app.asked.try_recv().is_err(), "nothing is pushed without the right");
    edit("remove").await;
    assert_eq!(app.pushed("/new").await, 2);
    assert_eq!(app.pushed("/new").await, 3);
}

#[tokio::test]
async fn an_instance_that_opens_another_channel_has_one_and_a_service_has_its_bound() {
    let world = World::new().await;
    let orders = key(&world, "shop/orders").await;
    let first = App::open(&world, &orders, "shop/orders", json!([])).await;
    let _second = App::open(&world, &orders, "shop/orders", json!([])).await;
    tokio::time::timeout(SOON, first.served).await.expect("the first channel is still open").unwrap();
    let mut open = Vec::new();
    let refused = loop {
        match upgrade_as(&world, &orders, "shop/orders", &format!("i{}", open.len() + 2), "").await {
            Ok(connection) => open.push(connection),
            Err(status) => break status,
        }
    };
    assert_eq!((refused, open.len()), (StatusCode::SERVICE_UNAVAILABLE, 63));
}

#[tokio::test]
async fn a_key_that_is_revoked_ends_what_is_under_way_on_both_sides_of_a_call() {
    let world = World::new().await;
    let (id, checkout) = world.mint(json!({"kind": "service", "service": "shop/checkout"})).await;
    let feed = key(&world, "shop/feed").await;
    grant(&world, "shop/checkout", "invoke:feed/*").await;
    let connection = upgrade(&world, &feed, "shop/feed", "").await.unwrap();
    tokio::spawn(async move {
        let service = service_fn(|_: Request<Incoming>| async {
            let first =
                futures_util::stream::iter([Ok::<_, Infallible>(hyper::body::Frame::data(Bytes::from_static(b"a")))]);
            let body = futures_util::StreamExt::chain(first, futures_util::stream::pending());
            Ok::<_, Infallible>(Response::new(http_body_util::StreamBody::new(body)))
        });
        drop(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(connection, service).await,
        );
    });
    let call = async || {
        let request = world.bare("GET", "/v1.0/invoke/feed/method/items").header("dapr-api-token", &checkout);
        let login = request.header("authorization", "Bearer somebodys-login");
        login.send().await.unwrap()
    };
    let first = async {
        // The channel may be a moment away.
        loop {
            let mut answer = call().await;
            if answer.status() == 200 {
                assert_eq!(answer.chunk().await.unwrap().unwrap(), "a");
                break answer;
            }
        }
    };
    let mut answer = tokio::time::timeout(SOON, first).await.unwrap();
    world.done("DELETE", &format!("/api/v1/keys/{id}"), Value::Null).await;
    tokio::time::timeout(SOON, answer.chunk()).await.expect("the stream goes on").unwrap_err();
}

#[tokio::test]
async fn a_channel_takes_the_key_of_its_service_and_ends_with_it() {
    let world = World::new().await;
    let (id, orders) = world.mint(json!({"kind": "service", "service": "shop/orders"})).await;
    let other = key(&world, "shop/other").await;
    assert_eq!(upgrade(&world, &other, "shop/orders", "").await.unwrap_err(), 403);
    assert_eq!(upgrade(&world, "twk_wrong", "shop/orders", "").await.unwrap_err(), 401);
    assert_eq!(upgrade(&world, &orders, "shop/orders", "?protocol=tcp").await.unwrap_err(), 400);
    let plain = world.bare("GET", "/api/v1/twins/shop/orders/instances/i1/channel").bearer_auth(&orders);
    assert_eq!(Answer::of(plain.send().await.unwrap()).await.problem(), (400, "invalid".to_owned()));
    let app = App::open(&world, &orders, "shop/orders", json!([])).await;
    world.done("DELETE", &format!("/api/v1/keys/{id}"), Value::Null).await;
    tokio::time::timeout(SOON, app.served).await.expect("the channel is still open").unwrap();
}
