//! Any request of any capability by its name: native, over gRPC, from a terminal.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use std::time::Duration;

use reqwest::Response;
use serde_json::{Value, json};
use tonic::{Code, Request, Status, metadata::AsciiMetadataKey, transport::Channel};

use crate::api_world::{Answer, World};

const TWIN: &str = "/api/v1/twins/shop/orders";

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CallRequest {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(string, tag = "2")]
    capability: String,
    #[prost(string, tag = "3")]
    request: String,
    #[prost(bytes = "vec", tag = "4")]
    body: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CallResponse {
    #[prost(bytes = "vec", tag = "1")]
    body: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    requests: Vec<Listed>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Listed {
    #[prost(string, tag = "1")]
    capability: String,
    #[prost(string, tag = "2")]
    request: String,
    #[prost(string, tag = "3")]
    operation: String,
    #[prost(bool, tag = "4")]
    creates: bool,
}

/// `twin.v1.Capabilities` of a node.
pub(crate) struct Grpc(tonic::client::Grpc<Channel>);

impl Grpc {
    pub(crate) async fn to(world: &World) -> Self {
        Self(tonic::client::Grpc::new(Channel::from_shared(world.node.url()).unwrap().connect().await.unwrap()))
    }

    async fn ask<Q, A>(&mut self, method: &str, headers: &[(&str, &str)], message: Q) -> Result<A, Status>
    where
        Q: prost::Message + Default + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut request = Request::new(message);
        for (name, value) in headers {
            let name: AsciiMetadataKey = name.parse().unwrap();
            request.metadata_mut().insert(name, value.parse().unwrap());
        }
        self.0.ready().await.unwrap();
        let path = format!("/twin.v1.Capabilities/{method}").parse().unwrap();
        Ok(self.0.unary(request, path, tonic_prost::ProstCodec::<Q, A>::default()).await?.into_inner())
    }

    /// Asks with more headers than the key.
    async fn call_with(
        &mut self,
        headers: &[(&str, &str)],
        service: &str,
        (capability, request): (&str, &str),
        body: &str,
    ) -> Result<Value, Status> {
        let (capability, request) = (capability.to_owned(), request.to_owned());
        let message = CallRequest { service: service.into(), capability, request, body: body.into() };
        let answer: CallResponse = self.ask("Call", headers, message).await?;
        Ok(serde_json::from_slice(&answer.body).unwrap())
    }

    pub(crate) async fn call(
        &mut self,
        key: &str,
        service: &str,
        request: (&str, &str),
        body: &str,
    ) -> Result<Value, Status> {
        self.call_with(&[("authorization", &format!("Bearer {key}"))], service, request, body).await
    }
}

async fn call(world: &World, request: &str, body: Value) -> Answer {
    world.send("POST", &format!("{TWIN}/capabilities/{request}"), body).await
}

async fn metrics(world: &World) -> String {
    world.request("GET", "/metrics").send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn a_request_is_asked_by_its_name_and_answered_as_its_type_has_it() {
    let world = World::new().await;
    let write = json!({"store": "statestore", "operations": [
        {"key": "text", "operation": {"set": {"value": "{\"total\":3}"}}},
        {"key": "bytes", "operation": {"set": {"value": [255, 0]}}, "matching": "absent"},
    ]});
    assert_eq!(call(&world, "state/write", write).await.json(), json!([1, 1]));
    let read =
        call(&world, "state/get", json!({"store": "statestore", "keys": ["text", "none", "bytes"]})).await.json();
    let entry = |value: Value| json!({"value": value, "etag": 1, "expires_at": null});
    assert_eq!(read, json!([entry(json!("{\"total\":3}")), null, entry(json!([255, 0]))]));
    let plain = world.request("GET", &format!("{TWIN}/state/statestore/text")).send().await.unwrap();
    assert_eq!(plain.text().await.unwrap(), "{\"total\":3}", "it is the same state");
    let page = call(&world, "state/list", json!({"store": "statestore"})).await.json();
    assert_eq!(page["keys"].as_array().unwrap().len(), 2, "{page}");
    assert_eq!(call(&world, "state/add-store", json!({"store": "extra"})).await.json(), Value::Null);

    let mut grpc = Grpc::to(&world).await;
    let key = world.operator.clone();
    let stores = grpc.call(&key, "shop/orders", ("state", "stores"), "").await.unwrap();
    assert_eq!(stores, call(&world, "state/stores", Value::Null).await.json(), "each door answers the same");
    assert_eq!(stores.as_array().unwrap().len(), 2);
    let elsewhere = grpc.call(&key, "cart", ("state", "stores"), "null").await.unwrap();
    assert_eq!(elsewhere[0]["keys"], 0, "a name alone is one in 'default'");

    let metrics = metrics(&world).await;
    for line in [
        "twin_capability_decisions_total{capability=\"state\",operation=\"list\",decision=\"allowed\"} 4",
        "twin_requests_total{door=\"api_grpc\",status=\"2xx\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn what_there_is_is_listed_alike_and_an_unknown_name_is_answered_with_it() {
    let world = World::new().await;
    let listed = world.done("GET", "/api/v1/capabilities", Value::Null).await;
    let get = json!({"capability": "state", "request": "get", "operation": "get", "creates": true});
    assert!(listed.as_array().unwrap().contains(&get), "{listed}");
    let mut grpc = Grpc::to(&world).await;
    let authorization = format!("Bearer {}", world.operator);
    let over_grpc: ListResponse = grpc.ask("List", &[("authorization", &authorization)], ()).await.unwrap();
    let over_grpc = over_grpc.requests.into_iter().map(|Listed { capability, request, operation, creates }| {
        json!({"capability": capability, "request": request, "operation": operation, "creates": creates})
    });
    assert_eq!(listed, over_grpc.collect::<Value>());

    let operator = world.operator.clone();
    for (capability, request, known) in
        [("state", "peek", "add-store, get, list"), ("teleport", "get", "state, topics"), ("secrets", "get", "ack")]
    {
        let answer = call(&world, &format!("{capability}/{request}"), json!({})).await;
        assert_eq!(answer.problem(), (404, "not-found".into()), "{capability} {request}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(known), "{}", answer.json());
        let status = grpc.call(&operator, "shop/orders", (capability, request), "{}").await.unwrap_err();
        assert!(status.code() == Code::NotFound && status.message().contains(known), "{status:?}");
    }
}

#[tokio::test]
async fn what_no_request_is_is_refused_before_it_reaches_the_twin() {
    let world = World::new().await;
    let mut grpc = Grpc::to(&world).await;
    let operator = world.operator.clone();
    for (body, code) in [
        ("{", "malformed-body"),
        ("[\"statestore\",[]]", "invalid"),
        ("{\"store\":\"statestore\"}", "invalid"),
        ("{\"store\":\"statestore\",\"keys\":[],\"more\":1}", "invalid"),
        ("", "invalid"),
    ] {
        let request = world.request("POST", &format!("{TWIN}/capabilities/state/get"));
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        assert_eq!(Answer::of(answer).await.problem(), (400, code.into()), "{body}");
        let status = grpc.call(&operator, "shop/orders", ("state", "get"), body).await.unwrap_err();
        assert!(status.code() == Code::InvalidArgument && status.message().contains(code), "{body} {status:?}");
    }
    let operators = call(&world, "invoke/set-callers", json!({ "callers": null })).await;
    assert_eq!(operators.problem(), (404, "not-found".into()), "it has a path of its own");
    assert!(!metrics(&world).await.contains("twin_capability_decisions_total{"), "no twin was asked");
}

#[tokio::test]
async fn a_denied_request_names_its_rule_through_each_door() {
    let world = World::new().await;
    world.done("PUT", TWIN, Value::Null).await;
    let deny = json!({"add": [{"effect": "deny", "scope": "state:statestore/private-*"}]});
    world.done("PATCH", &format!("{TWIN}/access"), deny).await;
    let (_, key) = world.mint(json!({"kind": "service", "service": "shop/orders"})).await;
    let body = json!({"store": "statestore", "keys": ["private-1"]});
    let request = world.bare("POST", &format!("{TWIN}/capabilities/state/get")).bearer_auth(&key);
    let answer = Answer::of(request.json(&body).send().await.unwrap()).await;
    assert_eq!(answer.problem(), (403, "denied".into()));
    let rule = "deny * state:statestore/private-*";
    assert!(answer.json()["detail"].as_str().unwrap().contains(rule), "{}", answer.json());
    let mut grpc = Grpc::to(&world).await;
    let status = grpc.call(&key, "shop/orders", ("state", "get"), &body.to_string()).await.unwrap_err();
    assert!(status.code() == Code::PermissionDenied && status.message().contains(rule), "{status:?}");
    let denied = "twin_capability_decisions_total{capability=\"state\",operation=\"get\",decision=\"denied\"} 2";
    assert!(metrics(&world).await.contains(denied));
}

#[tokio::test]
async fn a_repeat_under_its_key_changes_nothing_whichever_door_it_takes() {
    let world = World::new().await;
    let body = json!({"store": "statestore", "operations": [{"key": "a", "operation": {"set": {"value": "x"}}}]});
    let key = uuid::Uuid::now_v7().to_string();
    let again = async |key: &str| -> Response {
        let request = world.request("POST", &format!("{TWIN}/capabilities/state/write"));
        request.header("idempotency-key", key).json(&body).send().await.unwrap()
    };
    assert_eq!(again(&key).await.json::<Value>().await.unwrap(), json!([1]));
    assert_eq!(again(&key).await.json::<Value>().await.unwrap(), json!([1]));
    let mut grpc = Grpc::to(&world).await;
    let authorization = format!("Bearer {}", world.operator);
    let headers = [("authorization", &*authorization), ("idempotency-key", &key)];
    let write = ("state", "write");
    assert_eq!(grpc.call_with(&headers, "shop/orders", write, &body.to_string()).await.unwrap(), json!([1]));
    assert_eq!(again(&uuid::Uuid::now_v7().to_string()).await.json::<Value>().await.unwrap(), json!([2]));
}

#[tokio::test]
async fn twins_that_come_into_being_by_name_are_counted() {
    let world = World::with(|config| config.server.new_twins_per_hour = 1).await;
    let write = json!({"store": "one"});
    for (twin, status) in [("a", 200), ("a", 200), ("b", 429)] {
        let path = format!("/api/v1/twins/shop/{twin}/capabilities/state/add-store");
        assert_eq!(world.send("POST", &path, write.clone()).await.status, status, "{twin}");
    }
}

#[tokio::test]
async fn who_asks_over_grpc_is_settled_before_the_message_is_read_and_a_timeout_holds() {
    let world = World::new().await;
    let mut grpc = Grpc::to(&world).await;
    grpc.0.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<CallRequest, CallResponse>::default();
    let never_ends = Request::new(futures_util::stream::pending());
    let asked = grpc.0.client_streaming(never_ends, "/twin.v1.Capabilities/Call".parse().unwrap(), codec);
    let answer = tokio::time::timeout(Duration::from_secs(30), asked).await.expect("it was not answered within 30 s");
    assert_eq!(answer.unwrap_err().code(), Code::Unauthenticated);

    // As it lies on the wire: a client of gRPC would not wait for the answer.
    let late = world.request("POST", "/twin.v1.Capabilities/List").header("content-type", "application/grpc");
    let late = late.header("grpc-timeout", "0S").send().await.unwrap();
    assert_eq!(late.headers()["grpc-status"], "4", "DEADLINE_EXCEEDED");
}
