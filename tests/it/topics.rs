//! Topics: what one service publishes reaches others in order, comes again until it is done, and survives a restart.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use dapr::dapr::proto::runtime::v1::{
    self as wire, TopicEventRequest, TopicEventResponse, dapr_client::DaprClient,
    subscribe_topic_events_request_alpha1::SubscribeTopicEventsRequestType as Said,
    subscribe_topic_events_response_alpha1::SubscribeTopicEventsResponseType as Answer,
    topic_event_response::TopicEventResponseStatus as Status,
};
use serde_json::{Value, json};
use service_twin::config::StoreKind;
use tokio::sync::mpsc;
use tonic::{Code, Request, Streaming, transport::Channel};

use crate::api_world::{World, config};

type Stream = Streaming<wire::SubscribeTopicEventsResponseAlpha1>;

async fn key(world: &World, service: &str) -> String {
    world.mint(json!({"kind": "service", "service": service})).await.1
}

async fn client(world: &World) -> DaprClient<Channel> {
    DaprClient::new(Channel::from_shared(world.node.url()).unwrap().connect().await.unwrap())
}

fn with<M>(key: &str, message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    request
}

/// An open subscription.
struct Taking {
    say: mpsc::Sender<wire::SubscribeTopicEventsRequestAlpha1>,
    heard: Stream,
}

fn said(kind: Said) -> wire::SubscribeTopicEventsRequestAlpha1 {
    wire::SubscribeTopicEventsRequestAlpha1 { subscribe_topic_events_request_type: Some(kind) }
}

impl Taking {
    async fn begin(world: &World, key: &str, topic: &str, dead: Option<&str>) -> Result<Self, tonic::Status> {
        let (say, words) = mpsc::channel(64);
        let initial = wire::SubscribeTopicEventsRequestInitialAlpha1 {
            pubsub_name: "pubsub".into(),
            topic: topic.into(),
            dead_letter_topic: dead.map(Into::into),
            ..Default::default()
        };
        say.send(said(Said::InitialRequest(initial))).await.unwrap();
        let words = futures_util::stream::unfold(words, async |mut words| Some((words.recv().await?, words)));
        let mut client = client(world).await;
        let mut heard = client.subscribe_topic_events_alpha1(with(key, words)).await?.into_inner();
        let first = heard.message().await?.unwrap().subscribe_topic_events_response_type;
        assert!(matches!(first, Some(Answer::InitialResponse(_))));
        Ok(Self { say, heard })
    }

    async fn next(&mut self) -> TopicEventRequest {
        let heard = tokio::time::timeout(std::time::Duration::from_secs(30), self.heard.message());
        match heard.await.expect("nothing came within 30 s").unwrap().unwrap().subscribe_topic_events_response_type {
            Some(Answer::EventMessage(event)) => event,
            other => panic!("{other:?}"),
        }
    }

    async fn settle(&self, id: &str, status: Status) {
        let status = Some(TopicEventResponse { status: i32::from(status) });
        let processed = wire::SubscribeTopicEventsRequestProcessedAlpha1 { id: id.into(), status };
        self.say.send(said(Said::EventProcessed(processed))).await.unwrap();
    }

    /// Takes the next message and is done with it.
    async fn take(&mut self) -> String {
        let event = self.next().await;
        self.settle(&event.id, Status::Success).await;
        String::from_utf8(event.data).unwrap()
    }
}

async fn publish(world: &World, key: &str, topic: &str, data: &str) {
    let path = format!("/v1.0/publish/pubsub/{topic}");
    let request = world.bare("POST", &path).bearer_auth(key).header("content-type", "text/plain").body(data.to_owned());
    assert_eq!(request.send().await.unwrap().status(), 204);
}

#[tokio::test]
async fn messages_arrive_in_the_order_they_were_published_and_complete() {
    let world = World::new().await;
    let (checkout, orders) = (key(&world, "shop/checkout").await, key(&world, "shop/orders").await);
    let mut taking = Taking::begin(&world, &orders, "orders/new", None).await.unwrap();
    for number in 0..200 {
        publish(&world, &checkout, "orders/new", &format!("m{number}")).await;
    }
    let first = taking.next().await;
    assert_eq!((first.source.as_str(), first.r#type.as_str()), ("checkout", "com.dapr.event.sent"));
    assert_eq!((first.topic.as_str(), first.pubsub_name.as_str()), ("orders/new", "pubsub"));
    assert_eq!((first.data_content_type.as_str(), first.data.as_slice()), ("text/plain", &b"m0"[..]));
    assert!(first.extensions.unwrap().fields.contains_key("time"));
    taking.settle(&first.id, Status::Success).await;
    for number in 1..200 {
        assert_eq!(taking.take().await, format!("m{number}"));
    }
}

#[tokio::test]
async fn what_shall_come_again_does_and_what_is_dropped_goes_to_the_dead_letters() {
    let world = World::new().await;
    let orders = key(&world, "shop/orders").await;
    let mut taking = Taking::begin(&world, &orders, "orders", Some("dead")).await.unwrap();
    let mut dead = Taking::begin(&world, &orders, "dead", None).await.unwrap();
    publish(&world, &orders, "orders", "x").await;
    let first = taking.next().await;
    taking.settle(&first.id, Status::Retry).await;
    let again = taking.next().await;
    assert_eq!((&again.id, &again.data), (&first.id, &first.data));
    taking.settle(&again.id, Status::Drop).await;
    assert_eq!(dead.take().await, "x");
    publish(&world, &orders, "orders", "y").await;
    assert_eq!(taking.take().await, "y", "the dropped one does not come again");
}

#[tokio::test]
async fn subscribers_of_one_service_share_and_what_one_leaves_undone_another_gets() {
    let world = World::new().await;
    let orders = key(&world, "shop/orders").await;
    let mut one = Taking::begin(&world, &orders, "orders", None).await.unwrap();
    publish(&world, &orders, "orders", "a").await;
    assert_eq!(one.next().await.data, b"a");
    let mut two = Taking::begin(&world, &orders, "orders", None).await.unwrap();
    drop(one);
    assert_eq!(two.take().await, "a");
    let other = key(&world, "shop/audit").await;
    let mut audit = Taking::begin(&world, &other, "orders", None).await.unwrap();
    publish(&world, &orders, "orders", "b").await;
    assert_eq!((two.take().await, audit.take().await), ("b".into(), "b".into()), "each service gets everything");
}

#[tokio::test]
async fn whoever_comes_back_to_many_messages_gets_each_of_them() {
    const COUNT: usize = 600;
    let world = World::new().await;
    let orders = key(&world, "shop/orders").await;
    drop(Taking::begin(&world, &orders, "orders", None).await.unwrap());
    for first in (0..COUNT).step_by(100) {
        let event = |number| json!({"entryId": format!("{number}"), "event": format!("m{number}"), "contentType": "text/plain"});
        let entries: Vec<Value> = (first..first + 100).map(event).collect();
        let request = world.bare("POST", "/v1.0/publish/bulk/pubsub/orders").bearer_auth(&orders).json(&entries);
        assert_eq!(request.send().await.unwrap().status(), 204);
    }
    let mut taking = Taking::begin(&world, &orders, "orders", None).await.unwrap();
    for number in 0..COUNT {
        assert_eq!(taking.take().await, format!("m{number}"));
    }
}

#[tokio::test]
async fn what_is_kept_comes_again_from_where_it_is_wanted() {
    let world = World::new().await;
    let orders = key(&world, "shop/orders").await;
    let replay = async |from: Value| {
        let body = json!({"component": "pubsub", "topic": "orders", "from": from});
        let request = world.bare("POST", "/api/v1/twins/shop/orders/topics/replay").bearer_auth(&orders).json(&body);
        let answer = crate::api_world::Answer::of(request.send().await.unwrap()).await;
        (answer.status, answer.json()["from"].as_u64())
    };
    let mut taking = Taking::begin(&world, &orders, "orders", None).await.unwrap();
    for data in ["a", "b", "c"] {
        publish(&world, &orders, "orders", data).await;
        assert_eq!(taking.take().await, data);
    }
    assert_eq!(replay(json!("oldest")).await, (200, Some(1)));
    assert_eq!((taking.take().await, taking.take().await, taking.take().await), ("a".into(), "b".into(), "c".into()));
    assert_eq!(replay(json!({"number": 3})).await, (200, Some(3)));
    assert_eq!(taking.take().await, "c");
    assert_eq!(replay(json!("oldest")).await.0, 200);
    assert_eq!(replay(json!("now")).await, (200, Some(4)));
    publish(&world, &orders, "orders", "d").await;
    while taking.take().await != "d" {}
}

#[tokio::test]
async fn an_id_that_was_there_before_is_the_same_message() {
    let world = World::new().await;
    let orders = key(&world, "shop/orders").await;
    let mut taking = Taking::begin(&world, &orders, "orders", None).await.unwrap();
    for (id, data) in [("1", "one"), ("1", "one again"), ("2", "two")] {
        let path = format!("/v1.0/publish/pubsub/orders?metadata.cloudevent.id={id}");
        assert_eq!(world.bare("POST", &path).bearer_auth(&orders).body(data).send().await.unwrap().status(), 204);
    }
    assert_eq!((taking.take().await, taking.take().await), ("one".into(), "two".into()));
}

#[tokio::test]
async fn nobody_takes_what_is_of_another_namespace_or_was_forbidden_also_not_from_an_open_stream() {
    let world = World::new().await;
    let (orders, foreign) = (key(&world, "shop/orders").await, key(&world, "bank/orders").await);
    let mut theirs = Taking::begin(&world, &foreign, "orders", None).await.unwrap();
    let mut taking = Taking::begin(&world, &orders, "orders", None).await.unwrap();
    publish(&world, &orders, "orders", "ours").await;
    assert_eq!(taking.take().await, "ours");
    publish(&world, &foreign, "orders", "theirs").await;
    assert_eq!(theirs.take().await, "theirs", "the same name in another namespace is another topic");
    let deny = json!({"add": [{"effect": "deny", "operations": ["subscribe"], "scope": "topics:pubsub/orders"}]});
    world.done("PATCH", "/api/v1/twins/shop/orders/access", deny).await;
    publish(&world, &orders, "orders", "after").await;
    let refused = taking.heard.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(Taking::begin(&world, &orders, "orders", None).await.err().unwrap().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn what_was_published_and_not_settled_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = config(folder.path(), StoreKind::Sled);
    let world = World::start(folder, first.clone()).await;
    let orders = key(&world, "shop/orders").await;
    let mut taking = Taking::begin(&world, &orders, "orders", None).await.unwrap();
    for data in ["done", "undone", "unseen"] {
        publish(&world, &orders, "orders", data).await;
    }
    assert_eq!(taking.take().await, "done");
    assert_eq!(taking.next().await.data, b"undone");
    // The verdict on the first is taken before the stream ends.
    let World { node, folder, .. } = world;
    node.shutdown().await;
    drop(taking);
    let world = World::start(folder, first).await;
    let mut taking = Taking::begin(&world, &orders, "orders", None).await.unwrap();
    let mut rest = Vec::new();
    while rest.last().is_none_or(|last| last != "unseen") {
        rest.push(taking.take().await);
    }
    assert!(rest.ends_with(&["undone".to_owned(), "unseen".to_owned()]), "{rest:?}");
}

#[tokio::test]
async fn many_are_published_at_once_and_each_bad_one_is_named() {
    let world = World::new().await;
    let orders = key(&world, "shop/orders").await;
    let mut taking = Taking::begin(&world, &orders, "orders", None).await.unwrap();
    let send = async |body: Value| {
        let request = world.bare("POST", "/v1.0-alpha1/publish/bulk/pubsub/orders").bearer_auth(&orders).json(&body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let entries: Vec<_> = (0..40)
        .map(|number| json!({"entryID": number.to_string(), "event": number, "contentType": "application/json"}))
        .collect();
    assert_eq!(send(json!(entries)).await.0, 204);
    for number in 0..40 {
        assert_eq!(taking.take().await, number.to_string());
    }
    let (status, text) = send(json!([
        {"entryId": "a", "event": "fine", "contentType": "text/plain"},
        {"entryId": "b", "event": "x", "contentType": "text/plain", "metadata": {"ttlInSeconds": "soon"}},
    ]))
    .await;
    let failed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &failed["failedEntries"][0]["entryId"]), (500, &json!("b")));
    assert_eq!(taking.take().await, "fine");
    let twice = json!([{"entryId": "a", "event": 1}, {"entryId": "a", "event": 2}]);
    assert_eq!(send(twice).await.0, 400);
}
