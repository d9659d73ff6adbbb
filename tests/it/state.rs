//! A service's state: over the native API, over Dapr's HTTP and gRPC, and what its grants say about it.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use dapr::dapr::proto::{
    common::v1::{Etag, StateItem, StateOptions, state_options::StateConcurrency},
    runtime::v1::{self as wire, dapr_client::DaprClient},
};
use serde_json::{Value, json};
use service_twin::config::StoreKind;
use tonic::{Code, Request, transport::Channel};

use crate::api_world::{Answer, World, config};

const OWN: &str = "/api/v1/twins/shop/orders";
const STORE: &str = "/api/v1/twins/shop/orders/state/statestore";

/// A request of the service itself, over the native API or Dapr's.
struct Service<'a> {
    world: &'a World,
    key: String,
}

impl<'a> Service<'a> {
    async fn of(world: &'a World, service: &str) -> Self {
        let (_, key) = world.mint(json!({"kind": "service", "service": service})).await;
        Self { world, key }
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = self.world.bare(method, path).bearer_auth(&self.key).body(body.to_owned());
        request = request.header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request.send().await.unwrap()).await
    }

    async fn grpc(&self) -> DaprClient<Channel> {
        DaprClient::new(Channel::from_shared(self.world.node.url()).unwrap().connect().await.unwrap())
    }

    fn message<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.key).parse().unwrap());
        request
    }
}

/// Asks again until the answer is as wanted; what happens by itself has its own time.
async fn until(mut ask: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !ask().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), asked).await.expect("it did not happen within 30 s");
}

#[tokio::test]
async fn a_value_is_written_read_and_deleted_with_etags_that_count_from_one() {
    let world = World::new().await;
    let orders = Service::of(&world, "shop/orders").await;
    let path = format!("{STORE}/order%2F1");
    let made = orders.send("PUT", &path, &[], "grün").await;
    assert_eq!((made.status, made.etag.as_deref()), (204, Some("\"1\"")));
    assert_eq!(orders.send("PUT", &path, &[("if-match", "\"1\"")], "blau").await.etag.as_deref(), Some("\"2\""));
    let late = orders.send("PUT", &path, &[("if-match", "\"1\"")], "late").await;
    assert_eq!(late.problem(), (412, "precondition-failed".into()));
    let again = orders.send("PUT", &path, &[("if-none-match", "*")], "again").await;
    assert_eq!(again.problem(), (412, "precondition-failed".into()));
    let read = orders.send("GET", &path, &[], "").await;
    assert_eq!((read.status, read.etag.as_deref(), read.body.as_slice()), (200, Some("\"2\""), "blau".as_bytes()));
    assert_eq!(orders.send("GET", &path, &[("if-none-match", "\"2\"")], "").await.status, 304);
    let listed = orders.send("GET", &format!("{STORE}?prefix=order/"), &[], "").await.json();
    assert_eq!(listed["keys"][0]["key"], "order/1");
    assert_eq!(listed["next"], Value::Null);
    assert_eq!(orders.send("DELETE", &path, &[], "").await.status, 204);
    assert_eq!(orders.send("GET", &path, &[], "").await.problem(), (404, "not-found".into()));
    assert_eq!(orders.send("DELETE", &path, &[], "").await.status, 204, "what is not there stays so");
    let stores = orders.send("GET", &format!("{OWN}/state"), &[], "").await.json();
    assert_eq!(stores, json!([{"store": "statestore", "keys": 0, "bytes": 0}]));
}

#[tokio::test]
async fn keys_are_listed_page_by_page() {
    let world = World::new().await;
    let orders = Service::of(&world, "shop/orders").await;
    for number in 0..7 {
        assert_eq!(orders.send("PUT", &format!("{STORE}/k{number}"), &[], "x").await.status, 204);
    }
    let (mut keys, mut after) = (Vec::new(), String::new());
    loop {
        let page = orders.send("GET", &format!("{STORE}?limit=3{after}"), &[], "").await.json();
        keys.extend(page["keys"].as_array().unwrap().iter().map(|key| key["key"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(keys, ["k0", "k1", "k2", "k3", "k4", "k5", "k6"]);
}

#[tokio::test]
async fn a_transaction_is_done_whole_or_not_at_all() {
    let world = World::new().await;
    let orders = Service::of(&world, "shop/orders").await;
    let transact = async |operations: Value| {
        orders.send("POST", STORE, &[], &json!({ "operations": operations }).to_string()).await
    };
    let made = transact(json!([
        {"operation": "set", "key": "a", "value": 1},
        {"operation": "set", "key": "b", "value": {"x": 2}},
        {"operation": "set", "key": "a", "value": 3, "etag": 1},
    ]));
    assert_eq!(made.await.json(), json!({"etags": [1, 1, 2]}));
    let refused = transact(json!([
        {"operation": "delete", "key": "a"},
        {"operation": "set", "key": "c", "value": 1},
        {"operation": "set", "key": "b", "value": 1, "etag": 7},
    ]));
    assert_eq!(refused.await.problem(), (412, "precondition-failed".into()));
    assert_eq!(orders.send("GET", &format!("{STORE}/a"), &[], "").await.body, b"3");
    assert_eq!(orders.send("GET", &format!("{STORE}/c"), &[], "").await.status, 404);
    let many: Vec<_> = (0..17).map(|key| json!({"operation": "set", "key": format!("k{key}"), "value": 0})).collect();
    assert_eq!(transact(json!(many)).await.problem(), (422, "limit-exceeded".into()));
    let endless = json!([{"operation": "set", "key": "a", "value": 1, "ttl_s": 0}]);
    assert_eq!(transact(endless).await.problem(), (400, "invalid".into()));
    let large = |key| json!({"operation": "set", "key": format!("l{key}"), "value": "x".repeat(10 * 1024)});
    let large: Vec<_> = (0..16).map(large).collect();
    assert_eq!(transact(json!(large)).await.problem(), (422, "limit-exceeded".into()));
}

#[tokio::test]
async fn a_value_whose_time_is_over_is_gone_and_its_room_is_free() {
    let world = World::new().await;
    let orders = Service::of(&world, "shop/orders").await;
    assert_eq!(orders.send("PUT", &format!("{STORE}/short?ttl_s=600"), &[], "x").await.status, 204);
    assert_eq!(orders.send("PUT", &format!("{STORE}/kept?ttl_s=600"), &[], "x").await.status, 204);
    assert_eq!(orders.send("PUT", &format!("{STORE}/kept"), &[], "y").await.status, 204, "written anew without an end");
    assert_eq!(orders.send("GET", &format!("{STORE}/short"), &[], "").await.status, 200);
    world.clock.pass(std::time::Duration::from_secs(600));
    assert_eq!(orders.send("GET", &format!("{STORE}/short"), &[], "").await.status, 404);
    until(async || orders.send("GET", &format!("{OWN}/state"), &[], "").await.json()[0]["keys"] == 1).await;
    assert_eq!(orders.send("GET", &format!("{STORE}/kept"), &[], "").await.body, b"y");
}

#[tokio::test]
async fn a_refusal_names_its_rule_is_journaled_once_and_ends_with_the_grant() {
    let world = World::new().await;
    let orders = Service::of(&world, "shop/orders").await;
    assert_eq!(orders.send("PUT", &format!("{STORE}/secret-1"), &[], "x").await.status, 204);
    let deny = json!({"add": [{"effect": "deny", "operations": ["get"], "scope": "state:statestore/secret-*"}]});
    world.done("PATCH", &format!("{OWN}/access"), deny.clone()).await;
    for _ in 0..3 {
        let refused = orders.send("GET", &format!("{STORE}/secret-1"), &[], "").await;
        assert_eq!(refused.problem(), (403, "denied".into()));
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("deny get state:statestore/secret-*"), "{detail}");
    }
    assert_eq!(orders.send("PUT", &format!("{STORE}/secret-1"), &[], "y").await.status, 204, "only reading is denied");
    let journal = world.done("GET", &format!("{OWN}/journal"), Value::Null).await.to_string();
    assert_eq!(journal.matches("\"change\":\"denied\"").count(), 1, "{journal}");
    assert!(journal.contains("\"change\":\"state.put\""), "{journal}");
    let right = json!({"rights": [{"operation": "get", "scope": "state:statestore/secret-1"}]});
    let checked = world.done("POST", &format!("{OWN}/access/check"), right).await;
    assert_eq!(
        (&checked[0]["allowed"], &checked[0]["rule"]),
        (&json!(false), &json!("deny get state:statestore/secret-*"))
    );
    world.done("PATCH", &format!("{OWN}/access"), json!({"remove": deny["add"]})).await;
    assert_eq!(orders.send("GET", &format!("{STORE}/secret-1"), &[], "").await.status, 200);
    world.done("PATCH", &format!("{OWN}/access"), json!({"profile": "none"})).await;
    assert_eq!(orders.send("GET", &format!("{STORE}/secret-1"), &[], "").await.problem(), (403, "denied".into()));
}

#[tokio::test]
async fn nobody_reaches_the_state_of_another_service_or_learns_whether_it_is_there() {
    let world = World::new().await;
    let (orders, cart) = (Service::of(&world, "shop/orders").await, Service::of(&world, "shop/cart").await);
    assert_eq!(orders.send("PUT", &format!("{STORE}/a"), &[], "x").await.status, 204);
    for method in ["GET", "PUT", "DELETE"] {
        let there = cart.send(method, &format!("{STORE}/a"), &[], "y").await;
        let absent = cart.send(method, "/api/v1/twins/shop/never/state/statestore/a", &[], "y").await;
        assert_eq!(there.problem(), (403, "denied".into()), "{method}");
        assert_eq!((there.body, there.kind), (absent.body, absent.kind), "{method}");
    }
    assert_eq!(orders.send("GET", &format!("{STORE}/a"), &[], "").await.body, b"x");
}

#[tokio::test]
async fn what_a_removed_twin_kept_is_swept_and_its_successor_sees_nothing_of_it() {
    let world = World::new().await;
    let orders = Service::of(&world, "shop/orders").await;
    for number in 0..70 {
        assert_eq!(orders.send("PUT", &format!("{STORE}/k{number}"), &[], "x").await.status, 204);
    }
    world.done("DELETE", OWN, Value::Null).await;
    assert_eq!(orders.send("GET", &format!("{STORE}/k1"), &[], "").await.problem(), (410, "removed".into()));
    world.done("PUT", OWN, Value::Null).await;
    until(async || orders.send("GET", &format!("{STORE}/k1"), &[], "").await.status == 404).await;
    let listed = orders.send("GET", STORE, &[], "").await.json();
    assert_eq!(listed["keys"], json!([]));
    assert_eq!(orders.send("PUT", &format!("{STORE}/k1"), &[], "x").await.etag.as_deref(), Some("\"1\""));
}

#[tokio::test]
async fn state_and_grants_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = config(folder.path(), StoreKind::Sled);
    let world = World::start(folder, first.clone()).await;
    let orders = Service::of(&world, "shop/orders").await;
    assert_eq!(orders.send("PUT", &format!("{STORE}/a"), &[], "x").await.status, 204);
    let deny = json!({"add": [{"effect": "deny", "scope": "state:statestore/b"}]});
    world.done("PATCH", &format!("{OWN}/access"), deny).await;
    let key = orders.key.clone();
    let World { node, folder, .. } = world;
    node.shutdown().await;
    let world = World::start(folder, first).await;
    let orders = Service { world: &world, key };
    let read = orders.send("GET", &format!("{STORE}/a"), &[], "").await;
    assert_eq!((read.status, read.etag.as_deref(), read.body.as_slice()), (200, Some("\"1\""), &b"x"[..]));
    assert_eq!(orders.send("GET", &format!("{STORE}/b"), &[], "").await.problem(), (403, "denied".into()));
}

#[tokio::test]
async fn dapr_over_http_is_answered_as_its_clients_expect() {
    let world = World::new().await;
    let orders = Service::of(&world, "shop/orders").await;
    assert_eq!(world.bare("GET", "/v1.0/healthz/outbound").send().await.unwrap().status(), 204);
    let metadata = orders.send("GET", "/v1.0/metadata", &[], "").await.json();
    assert_eq!(metadata["id"], "orders");
    assert_eq!(metadata["components"][0]["name"], "statestore");
    let save = async |body: &str| orders.send("POST", "/v1.0/state/statestore", &[], body).await;
    assert_eq!(save(r#"[{"key":"a/b","value":{"n":1},"metadata":null},{"key":"t","value":"text"}]"#).await.status, 204);
    let read = orders.send("GET", "/v1.0/state/statestore/a/b", &[], "").await;
    assert_eq!((read.status, read.etag.as_deref(), read.body.as_slice()), (200, Some("1"), &br#"{"n":1}"#[..]));
    assert_eq!(orders.send("GET", "/v1.0/state/statestore/none", &[], "").await.status, 204);
    let stale = save(r#"[{"key":"t","value":1,"etag":"9","options":{"concurrency":"first-write"}}]"#).await;
    assert_eq!((stale.status, stale.json()["errorCode"].as_str()), (409, Some("ERR_STATE_SAVE")));
    let unknown = orders.send("GET", "/v1.0/state/nowhere/a", &[], "").await;
    assert_eq!((unknown.status, unknown.json()["errorCode"].as_str()), (400, Some("ERR_STATE_STORE_NOT_FOUND")));
    let bulk = orders.send("POST", "/v1.0/state/statestore/bulk", &[], r#"{"keys":["t","none"]}"#).await.json();
    assert_eq!((&bulk[0]["data"], &bulk[0]["etag"]), (&json!("text"), &json!("1")));
    assert_eq!(bulk[1], json!({"key": "none"}));
    let path = "/v1.0/state/statestore?metadata.ttlInSeconds=600";
    assert_eq!(orders.send("POST", path, &[], r#"[{"key":"brief","value":1}]"#).await.status, 204);
    let brief = world.bare("GET", "/v1.0/state/statestore/brief").bearer_auth(&orders.key).send().await.unwrap();
    assert!(brief.headers().contains_key("metadata.ttlexpiretime"));
    let transaction = r#"{"operations":[{"operation":"upsert","request":{"key":"x","value":1}},
        {"operation":"delete","request":{"key":"t"}}],"metadata":null}"#;
    assert_eq!(orders.send("POST", "/v1.0/state/statestore/transaction", &[], transaction).await.status, 204);
    assert_eq!(orders.send("GET", "/v1.0/state/statestore/t", &[], "").await.status, 204);
    assert_eq!(orders.send("DELETE", "/v1.0/state/statestore/x", &[("if-match", "1")], "").await.status, 204);
    let jobs = orders.send("POST", "/v1.0/jobs/nightly", &[], "{}").await;
    assert_eq!((jobs.status, jobs.json()["errorCode"].as_str()), (501, Some("ERR_API_UNIMPLEMENTED")));
    let nobody = Answer::of(world.bare("GET", "/v1.0/state/statestore/t").send().await.unwrap()).await;
    assert_eq!(nobody.status, 401);
    let operator = Answer::of(world.request("GET", "/v1.0/state/statestore/t").send().await.unwrap()).await;
    assert_eq!((operator.status, operator.json()["errorCode"].as_str()), (403, Some("ERR_DENIED")));
}

#[tokio::test]
async fn dapr_over_http_says_no_in_its_own_words_whatever_is_wrong() {
    let world = World::new().await;
    let orders = Service::of(&world, "shop/orders").await;
    for (method, path, status, code) in [
        ("DELETE", "/v1.0/publish/pubsub/a", 405, "ERR_METHOD_NOT_ALLOWED"),
        ("POST", "/v1.0/metadata", 405, "ERR_METHOD_NOT_ALLOWED"),
        ("GET", "/v1.0/configuration/%FF", 400, "ERR_MALFORMED_REQUEST"),
        ("DELETE", "/v1.0/state/statestore/%FF", 400, "ERR_MALFORMED_REQUEST"),
    ] {
        let answer = orders.send(method, path, &[], "").await;
        let said = (answer.status, answer.kind.as_str(), answer.json()["errorCode"].clone());
        assert_eq!(said, (status, "application/json", json!(code)), "{method} {path}");
    }
}

#[tokio::test]
async fn many_values_are_saved_at_once_and_only_so_many_are_read_at_once() {
    let world = World::new().await;
    let orders = Service::of(&world, "shop/orders").await;
    let mut client = orders.grpc().await;
    let item = |key: String, bytes| StateItem { key, value: vec![7; bytes], ..Default::default() };
    let mut save = async |states| {
        let request = wire::SaveStateRequest { store_name: "statestore".into(), states };
        client.save_state(orders.message(request)).await
    };
    save((0..16).map(|number| item(format!("k{number}"), 10 * 1024)).collect()).await.unwrap();
    save((0..8).map(|number| item(format!("large{number}"), 32_704)).collect()).await.unwrap();
    let mut client = orders.grpc().await;
    let mut read = async |keys: Vec<String>| {
        let request = wire::GetBulkStateRequest { store_name: "statestore".into(), keys, ..Default::default() };
        client.get_bulk_state(orders.message(request)).await.map(|answer| answer.into_inner().items.len())
    };
    assert_eq!(read((0..16).map(|number| format!("k{number}")).collect()).await.unwrap(), 16);
    assert_eq!(read(vec!["none".into(); 1024]).await.unwrap(), 1024);
    let many = read(vec!["none".into(); 1025]).await.unwrap_err();
    assert_eq!((many.code(), many.message().contains("1024")), (Code::ResourceExhausted, true), "{many}");
    let much = read(vec!["large1".into(); 200]).await.unwrap_err();
    assert_eq!((much.code(), much.message().contains("bytes of an answer")), (Code::ResourceExhausted, true), "{much}");
}

#[tokio::test]
async fn dapr_over_grpc_is_answered_as_its_clients_expect() {
    let world = World::new().await;
    let orders = Service::of(&world, "shop/orders").await;
    let mut client = orders.grpc().await;
    let store_name = || "statestore".to_owned();
    let item = |key: &str, etag: Option<&str>, concurrency| StateItem {
        key: key.into(),
        value: vec![0, 255],
        etag: etag.map(|value| Etag { value: value.into() }),
        options: Some(StateOptions { concurrency: i32::from(concurrency), consistency: 0 }),
        metadata: [("ttlInSeconds".to_owned(), "100".to_owned())].into(),
    };
    let free = StateConcurrency::ConcurrencyUnspecified;
    let states: Vec<_> = (0..40).map(|number| item(&format!("k{number}"), None, free)).collect();
    client.save_state(orders.message(wire::SaveStateRequest { store_name: store_name(), states })).await.unwrap();
    let get = |key: &str| wire::GetStateRequest { store_name: store_name(), key: key.into(), ..Default::default() };
    let read = client.get_state(orders.message(get("k39"))).await.unwrap().into_inner();
    assert_eq!((read.data, read.etag.as_str()), (vec![0, 255], "1"));
    assert!(read.metadata["ttlExpireTime"].starts_with("20"), "{:?}", read.metadata);
    let absent = client.get_state(orders.message(get("none"))).await.unwrap().into_inner();
    assert_eq!((absent.data.len(), absent.etag.as_str()), (0, ""));
    let states = vec![item("k1", Some("7"), StateConcurrency::ConcurrencyFirstWrite)];
    let stale = client.save_state(orders.message(wire::SaveStateRequest { store_name: store_name(), states })).await;
    assert_eq!(stale.unwrap_err().code(), Code::Aborted);
    let keys: Vec<_> = (0..40).rev().map(|number| format!("k{number}")).collect();
    let bulk = wire::GetBulkStateRequest { store_name: store_name(), keys: keys.clone(), ..Default::default() };
    let items = client.get_bulk_state(orders.message(bulk)).await.unwrap().into_inner().items;
    assert_eq!(items.iter().map(|item| item.key.clone()).collect::<Vec<_>>(), keys);
    let operation = |operation_type: &str, request| wire::TransactionalStateOperation {
        operation_type: operation_type.into(),
        request: Some(request),
    };
    let operations = vec![operation("upsert", item("t", None, free)), operation("delete", item("k1", Some("7"), free))];
    let transaction =
        wire::ExecuteStateTransactionRequest { store_name: store_name(), operations, ..Default::default() };
    let undone = client.execute_state_transaction(orders.message(transaction)).await;
    assert_eq!(undone.unwrap_err().code(), Code::Aborted);
    assert!(client.get_state(orders.message(get("t"))).await.unwrap().into_inner().data.is_empty());
    let unknown = wire::GetStateRequest { store_name: "nowhere".into(), key: "a".into(), ..Default::default() };
    assert_eq!(client.get_state(orders.message(unknown)).await.unwrap_err().code(), Code::InvalidArgument);
    let lock = client.try_lock_alpha1(orders.message(wire::TryLockRequest::default())).await;
    assert_eq!(lock.unwrap_err().code(), Code::Unimplemented);
    let metadata = client.get_metadata(orders.message(wire::GetMetadataRequest {})).await.unwrap().into_inner();
    assert_eq!((metadata.id.as_str(), metadata.registered_components.len()), ("orders", 4));
    let nobody = client.get_state(get("k1")).await;
    assert_eq!(nobody.unwrap_err().code(), Code::Unauthenticated);
}
