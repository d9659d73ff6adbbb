//! One process of one service, from telemetry alone to everything a twin has: nothing is restarted on the way.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use dapr::dapr::proto::runtime::v1::{
    self as wire, SubscribeConfigurationResponse, dapr_client::DaprClient,
    subscribe_topic_events_request_alpha1::SubscribeTopicEventsRequestType as Said,
    subscribe_topic_events_response_alpha1::SubscribeTopicEventsResponseType as Heard,
};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tonic::{Request, Streaming, transport::Channel};

use crate::{api_world::event, process::Node};

const TWIN: &str = "/api/v1/twins/shop/orders";
/// Where the service finds its node, and its key.
const VARIABLES: [&str; 2] = ["GROWTH_NODE", "GROWTH_KEY"];
/// What the service says begins so, among the lines of the test harness around it.
const SAYS: &str = "service says ";

/// How long the service may take for one thing.
const PATIENCE: Duration = Duration::from_secs(30);

/// The service, told what to do line by line.
struct Service {
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl Service {
    fn start(node: &Node, key: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "growth::the_service_itself", "--ignored", "--nocapture"])
            .envs(VARIABLES.into_iter().zip([node.url.as_str(), key]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        Self { process, lines }
    }

    /// Does one thing, and says what came of it.
    fn does(&mut self, what: &str) -> Value {
        writeln!(self.process.stdin.as_ref().unwrap(), "{what}").unwrap();
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the service has ended over '{what}'");
            // The harness ends no line before the test has.
            if let Some((_, said)) = line.split_once(SAYS) {
                return serde_json::from_str(said).unwrap();
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[test]
fn a_service_grows_from_telemetry_to_every_capability_without_a_restart() {
    let mut node = Node::start_in(tempfile::tempdir().unwrap(), &[]);
    let key = node.json(&["key", "new", "service", "shop/orders"])["key"].as_str().unwrap().to_owned();
    let mut service = Service::start(&node, &key);

    assert_eq!(service.does("telemetry"), 200);
    let twin = node.json(&["get", "shop/orders"]);
    assert_eq!((&twin["instances"][0]["id"], &twin["instances"][0]["version"]), (&json!("i1"), &json!("1.4.0")));
    assert_eq!(node.json(&["config", "get", "shop/orders"])["version"], 0, "it is only watched");

    assert_eq!(service.does("follow"), "following");
    node.json(&["config", "set", "shop/orders", "limits.rps=50"]);
    assert_eq!(node.json(&["config", "get", "shop/orders"])["in_sync"], false);
    assert_eq!(service.does("configured"), json!({"limits.rps": "50"}), "it is pushed, nobody asked");
    assert_eq!(node.json(&["config", "get", "shop/orders"])["in_sync"], true);

    let password = node.folder.join("password");
    std::fs::write(&password, "hunter2").unwrap();
    let password = password.to_str().unwrap();
    assert_eq!(node.run(&["secret", "put", "shop/orders", "db", "--from-file", password]).code, 0);
    let posted = node.json(&["command", "shop/orders", "post", "drain", "--target", "i1"]);
    assert_eq!(service.does("state"), json!({"total": 3}));
    assert_eq!(service.does("secret"), json!({"db": "hunter2"}));
    assert_eq!(service.does("topic"), "hello");
    assert_eq!(service.does("command"), "drain");
    assert_eq!(service.does("telemetry"), 200, "and it is still watched");
    let command = node.json(&["command", "shop/orders", "get", &posted["id"].to_string()]);
    assert_eq!((&command["state"], &command["result"]), (&json!("succeeded"), &json!("drained")));
    assert_eq!(node.json(&["state", "get", "shop/orders", "statestore", "order-1"])["value"], json!({"total": 3}));
    assert_eq!(
        node.json(&["secret", "status", "shop/orders", "db"])["instances"],
        json!([{"instance": "i1", "version": 1}])
    );

    let journal = node.json(&["journal", "shop/orders"]);
    let entries = journal["entries"].as_array().unwrap();
    // A revision counts changes, so each entry begins where the one before has ended.
    let end = entries.iter().fold(0, |revision, entry| {
        let changes = entry["changes"].as_array().unwrap().len();
        assert_eq!(entry["revision"], revision + changes, "nothing is missing after {revision}: {journal}");
        revision + changes
    });
    assert_eq!(node.json(&["get", "shop/orders"])["revision"], end);
    let names = |entry: &Value| -> Vec<Value> {
        entry["changes"].as_array().unwrap().iter().map(|change| change["change"].clone()).collect()
    };
    let at = |what: &str| {
        let mut found = (0..).zip(entries).filter(|(_, entry)| names(entry).iter().any(|name| name == what));
        let (at, _): (u32, _) = found.next().unwrap();
        assert!(found.next().is_none(), "'{what}' is there once: {journal}");
        at
    };
    let story = ["created", "configuration.put", "secrets.put", "command_posted"].map(at);
    assert!(story.is_sorted(), "{story:?}");
    assert!(service.process.try_wait().unwrap().is_none() && node.process.try_wait().unwrap().is_none());
}

/// The service of the test above, as a process of its own; by itself it does nothing.
#[test]
#[ignore = "it is started by the test above"]
#[expect(clippy::disallowed_methods, reason = "it is a process of its own, and told so")]
fn the_service_itself() {
    let [Ok(node), Ok(key)] = VARIABLES.map(std::env::var) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut orders = Orders { client, node, key, followed: None };
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let done = async { tokio::time::timeout(PATIENCE, orders.does(&line)).await };
        let said = runtime.block_on(done).unwrap_or_else(|_| panic!("'{line}' is not done after {PATIENCE:?}"));
        println!("{SAYS}{said}");
    }
}

struct Orders {
    client: reqwest::Client,
    node: String,
    key: String,
    followed: Option<Streaming<SubscribeConfigurationResponse>>,
}

impl Orders {
    async fn does(&mut self, what: &str) -> Value {
        match what {
            "telemetry" => self.telemetry().await,
            "follow" => self.follow().await,
            "configured" => self.configured().await,
            "state" => self.state().await,
            "secret" => self.secret().await,
            "topic" => self.topic().await,
            "command" => self.command().await,
            other => panic!("'{other}'"),
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.node)).bearer_auth(&self.key)
    }

    async fn send(&self, method: Method, path: &str, body: Value) -> Value {
        let answer = self.request(method, path).json(&body).send().await.unwrap().error_for_status().unwrap();
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or(Value::Null)
    }

    async fn dapr(&self) -> DaprClient<Channel> {
        DaprClient::new(Channel::from_shared(self.node.clone()).unwrap().connect().await.unwrap())
    }

    fn with<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("dapr-api-token", self.key.parse().unwrap());
        request
    }

    async fn telemetry(&self) -> Value {
        let attribute = |name: &str, value: &str| json!({"key": name, "value": {"stringValue": value}});
        let resource = json!({"attributes": [
            attribute("service.namespace", "shop"), attribute("service.name", "orders"),
            attribute("service.instance.id", "i1"), attribute("service.version", "1.4.0"),
        ]});
        let span = json!({
            "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": "GET /orders", "kind": 2,
            "startTimeUnixNano": "1795397042000000000", "endTimeUnixNano": "1795397042100000000",
        });
        let body = json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]});
        self.request(Method::POST, "/v1/traces").json(&body).send().await.unwrap().status().as_u16().into()
    }

    async fn follow(&mut self) -> Value {
        let wanted = wire::SubscribeConfigurationRequest { store_name: "configstore".into(), ..Default::default() };
        let mut stream = self.dapr().await.subscribe_configuration(self.with(wanted)).await.unwrap().into_inner();
        // The first message says that the subscription stands.
        stream.message().await.unwrap().unwrap();
        self.followed = Some(stream);
        json!("following")
    }

    async fn configured(&mut self) -> Value {
        let pushed = self.followed.as_mut().unwrap().message().await.unwrap().unwrap().items;
        let version = pushed.values().map(|item| item.version.parse::<u64>().unwrap()).max().unwrap();
        let applied = json!({"instance": "i1", "version": version});
        self.send(Method::POST, &format!("{TWIN}/configuration/applied"), applied).await;
        pushed.into_iter().map(|(key, item)| (key, Value::from(item.value))).collect::<serde_json::Map<_, _>>().into()
    }

    async fn state(&self) -> Value {
        let body = json!([{"key": "order-1", "value": {"total": 3}}]);
        self.send(Method::POST, "/v1.0/state/statestore", body).await;
        self.send(Method::GET, "/v1.0/state/statestore/order-1", Value::Null).await
    }

    async fn secret(&self) -> Value {
        let secret = self.send(Method::GET, "/v1.0/secrets/secretstore/db", Value::Null).await;
        let uses = json!({"instance": "i1", "version": 1});
        self.send(Method::POST, &format!("{TWIN}/secrets/db/ack"), uses).await;
        secret
    }

    async fn topic(&self) -> Value {
        let initial = wire::SubscribeTopicEventsRequestInitialAlpha1 {
            pubsub_name: "pubsub".into(),
            topic: "orders".into(),
            ..Default::default()
        };
        let initial = Some(Said::InitialRequest(initial));
        let initial = wire::SubscribeTopicEventsRequestAlpha1 { subscribe_topic_events_request_type: initial };
        // What is said stays open behind the first word.
        let words = futures_util::StreamExt::chain(
            futures_util::stream::iter([initial]),
            futures_util::stream::pending::<wire::SubscribeTopicEventsRequestAlpha1>(),
        );
        let heard = self.dapr().await.subscribe_topic_events_alpha1(self.with(words)).await;
        let mut heard = heard.unwrap().into_inner();
        heard.message().await.unwrap().unwrap();
        let publish = self.request(Method::POST, "/v1.0/publish/pubsub/orders").header("content-type", "text/plain");
        assert_eq!(publish.body("hello").send().await.unwrap().status(), 204);
        match heard.message().await.unwrap().unwrap().subscribe_topic_events_response_type {
            Some(Heard::EventMessage(event)) => String::from_utf8(event.data).unwrap().into(),
            other => panic!("{other:?}"),
        }
    }

    async fn command(&self) -> Value {
        let commands = self.request(Method::GET, &format!("{TWIN}/instances/i1/commands"));
        let mut commands = commands.send().await.unwrap();
        let (id, command) = event(&mut commands, "command").await;
        let path = format!("{TWIN}/commands/{id}");
        self.send(Method::POST, &format!("{path}/ack"), json!({"instance": "i1"})).await;
        self.send(Method::POST, &format!("{path}/result"), json!({"instance": "i1", "result": "drained"})).await;
        command["name"].clone()
    }
}
