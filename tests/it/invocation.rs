//! One service calls another: who may, by which name, how many at once, and what arrives.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use std::{convert::Infallible, sync::Arc};

use dapr::dapr::proto::{
    common::v1::InvokeRequest,
    runtime::v1::{InvokeServiceRequest, dapr_client::DaprClient},
};
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle};
use tonic::transport::Channel;

use crate::{
    api_world::{Answer, World, event},
    applications::{App, SOON, grant, key, subscribed, upgrade},
};

#[tokio::test]
async fn a_call_takes_a_grant_of_the_callers_and_a_place_in_the_targets_list() {
    let world = World::new().await;
    let (checkout, billing) = (key(&world, "shop/checkout").await, key(&world, "shop/billing").await);
    let mut app = App::open(&world, &billing, "shop/billing", json!([])).await;
    let call = async |app: &str, method: &str| {
        let path = format!("/v1.0/invoke/{app}/method/{method}");
        let request = world.bare("POST", &path).header("dapr-api-token", &checkout);
        let request = request.header("dapr-caller-app-id", "forged").header("x-given", "7").body("42");
        Answer::of(request.send().await.unwrap()).await
    };
    let refused = call("billing", "charge").await;
    assert_eq!((refused.status, refused.json()["errorCode"].as_str().unwrap()), (403, "ERR_PERMISSION_DENIED"));
    grant(&world, "shop/checkout", "invoke:billing/POST /charge*").await;
    grant(&world, "shop/checkout", "invoke:nobody/*").await;

    app.answer_next(&[(201, "charged")]);
    let answer = call("billing", "charge?now=1").await;
    assert_eq!((answer.status, answer.body.as_slice()), (201, &b"charged"[..]));
    let asked = app.asked().await;
    assert_eq!(
        (asked.method.as_str(), asked.path.as_str(), asked.body.as_slice()),
        ("POST", "/charge?now=1", &b"42"[..])
    );
    let header = |name: &str| asked.headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!((header("dapr-caller-app-id"), header("dapr-callee-app-id")), (Some("checkout"), Some("billing")));
    assert_eq!((header("dapr-api-token"), header("authorization"), header("x-given")), (None, None, Some("7")));

    for method in ["refund", "charge/../refund", "charge%2f..%2frefund", "charge/..;/refund"] {
        let refused = call("billing", method).await;
        assert!([400, 403].contains(&refused.status), "{method} {}", refused.status);
    }
    let (absent, silent) = (call("nobody", "a").await, {
        grant(&world, "shop/checkout", "invoke:checkout/*").await;
        call("checkout", "a").await
    });
    let told = |answer: &Answer, name: &str| (answer.status, String::from_utf8_lossy(&answer.body).replace(name, "X"));
    assert_eq!(told(&absent, "nobody"), told(&silent, "checkout"), "whether a service exists is not told");
    assert_eq!((absent.status, absent.json()["errorCode"].as_str().unwrap()), (500, "ERR_DIRECT_INVOKE"));

    let mut events = world.request("GET", "/api/v1/twins/shop/billing/events").send().await.unwrap();
    let callers = json!({"callers": [{"service": "shop/checkout", "method": "POST /charge/later"}]});
    let set = world.send("PUT", "/api/v1/twins/shop/billing/callers", callers).await;
    assert_eq!(set.status, 204);
    assert_eq!(call("billing", "charge/later").await.status, 200);
    app.asked().await;
    let closed = call("billing", "charge").await;
    assert_eq!(told(&closed, "billing"), told(&absent, "nobody"), "whom it lets in is not told either");
    let (_, refused) = event(&mut events, "twin.caller.refused").await;
    assert_eq!(
        (&refused["data"]["caller"], &refused["data"]["method"]),
        (&json!("shop/checkout"), &json!("POST /charge"))
    );
    assert!(app.asked.try_recv().is_err(), "what was refused did not reach it");

    let twin = "/api/v1/twins/shop/checkout?behaviour=true";
    let seen = async {
        loop {
            let edges = world.done("GET", twin, Value::Null).await["behaviour"]["edges"].clone();
            if let Some(edge) = edges.as_array().unwrap().iter().find(|edge| edge["peer"] == "billing") {
                break edge.clone();
            }
        }
    };
    let edge = tokio::time::timeout(SOON, seen).await.expect("the call is no edge of its caller");
    assert_eq!(edge["kind"], "service", "{edge}");
}

#[tokio::test]
async fn an_application_is_named_in_the_head_too_and_its_stream_arrives_as_it_is_sent() {
    let world = World::new().await;
    let (checkout, feed) = (key(&world, "shop/checkout").await, key(&world, "shop/feed").await);
    grant(&world, "shop/checkout", "invoke:feed/GET /items").await;
    let connection = upgrade(&world, &feed, "shop/feed", "").await.unwrap();
    let (parts, sent) = mpsc::channel::<&'static str>(1);
    let sent = Arc::new(Mutex::new(Some(sent)));
    tokio::spawn(async move {
        let service = service_fn(move |request: Request<Incoming>| {
            let is_asked = request.uri().path() == "/items";
            let mut sent = sent.lock().take_if(|_| is_asked).unwrap_or_else(|| mpsc::channel(1).1);
            let frame =
                |text: &'static str| Ok::<_, Infallible>(hyper::body::Frame::data(Bytes::from_static(text.as_bytes())));
            let body = futures_util::stream::poll_fn(move |cx| sent.poll_recv(cx).map(|text| text.map(frame)));
            let body = http_body_util::StreamBody::new(body);
            let status = if is_asked { 200 } else { 404 };
            async move { Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap()) }
        });
        drop(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(connection, service).await,
        );
    });
    subscribed(&world, &feed, 0).await;
    let request = world.bare("GET", "/items").header("dapr-app-id", "feed").header("dapr-api-token", &checkout);
    parts.send("first").await.unwrap();
    let mut answer = request.send().await.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "first");
    parts.send("second").await.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "second");
    drop(parts);
    assert_eq!(answer.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn what_stands_beside_a_call_over_grpc_is_the_head_of_one_over_http_and_back() {
    let world = World::new().await;
    let (checkout, billing) = (key(&world, "shop/checkout").await, key(&world, "shop/billing").await);
    grant(&world, "shop/checkout", "invoke:billing/*").await;
    let mut app = App::open(&world, &billing, "shop/billing", json!([])).await;
    reached(&world, &checkout, "billing", &mut app).await;
    let mut client = DaprClient::new(Channel::from_shared(world.node.url()).unwrap().connect().await.unwrap());
    let invoke = || {
        let message =
            InvokeRequest { method: "charge".into(), content_type: "text/plain".into(), ..Default::default() };
        let mut request = tonic::Request::new(InvokeServiceRequest { id: "billing".into(), message: Some(message) });
        let forged = [("dapr-caller-app-id", "forged"), ("x-given", "7"), ("grpc-trace-bin", "AA"), ("own-bin", "AA")];
        for (name, value) in forged.into_iter().chain([("authorization", format!("Bearer {checkout}").as_str())]) {
            let headers = request.metadata_mut();
            let mut all = std::mem::take(headers).into_headers();
            all.insert(name, value.parse().unwrap());
            *headers = tonic::metadata::MetadataMap::from_headers(all);
        }
        request
    };
    app.answer_next(&[(201, "charged"), (404, "no such account")]);
    let answer = client.invoke_service(invoke()).await.unwrap();
    let beside = |metadata: &tonic::metadata::MetadataMap| {
        ["dapr-http-status", "x-own"].map(|name| metadata.get(name).unwrap().to_str().unwrap().to_owned())
    };
    assert_eq!(beside(answer.metadata()), ["201", "1"]);
    let asked = app.asked().await;
    let header = |name: &str| asked.headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!((header("x-given"), header("content-type")), (Some("7"), Some("text/plain")));
    assert_eq!((header("dapr-caller-app-id"), header("authorization")), (Some("checkout"), None));
    assert_eq!((header("own-bin"), header("grpc-trace-bin"), header("grpc-timeout")), (None, None, None));
    let refused = client.invoke_service(invoke()).await.unwrap_err();
    assert_eq!((refused.code(), beside(refused.metadata())), (tonic::Code::NotFound, ["404", "1"].map(str::to_owned)));
}

#[tokio::test]
async fn a_service_of_another_namespace_is_named_as_dapr_names_it_too() {
    let world = World::new().await;
    let (checkout, billing) = (key(&world, "shop/checkout").await, key(&world, "farm/billing").await);
    let ledger = key(&world, "shop/ledger.v2").await;
    grant(&world, "shop/checkout", "invoke:/farm/billing/*").await;
    grant(&world, "shop/checkout", "invoke:ledger.v2/*").await;
    let mut app = App::open(&world, &billing, "farm/billing", json!([])).await;
    let mut dotted = App::open(&world, &ledger, "shop/ledger.v2", json!([])).await;
    reached(&world, &checkout, "billing.farm", &mut app).await;
    reached(&world, &checkout, "farm%2Fbilling", &mut app).await;
    reached(&world, &checkout, "shop%2Fledger.v2", &mut dotted).await;
    let named = async |app: &str| {
        let request = world.bare("GET", "/items").header("dapr-app-id", app).header("dapr-api-token", &checkout);
        Answer::of(request.send().await.unwrap()).await
    };
    assert_eq!(named("billing.farm").await.status, 200);
    let asked = app.asked().await;
    assert_eq!((asked.path.as_str(), &asked.headers["dapr-caller-namespace"]), ("/items", &"shop".parse().unwrap()));
    for wrong in ["billing.", ".farm", "a.b.c", "farm/", "a/b/c"] {
        let refused = named(wrong).await;
        assert_eq!((refused.status, refused.json()["errorCode"].as_str().unwrap()), (400, "ERR_MALFORMED_REQUEST"));
        assert!(refused.json()["message"].as_str().unwrap().contains(wrong), "{}", refused.json());
    }
    assert_eq!(named("ledger.v2").await.status, 403, "that is 'ledger' in the namespace 'v2'");
}

#[tokio::test]
async fn a_service_has_a_bound_of_calls_under_way_and_each_that_ends_makes_room() {
    let world = World::with(|config| config.server.calls_per_service_max = 2).await;
    let (checkout, cart) = (key(&world, "shop/checkout").await, key(&world, "shop/cart").await);
    let billing = key(&world, "shop/billing").await;
    grant(&world, "shop/checkout", "invoke:billing/*").await;
    grant(&world, "shop/cart", "invoke:billing/*").await;
    let connection = upgrade(&world, &billing, "shop/billing", "").await.unwrap();
    let (tell, mut asked) = mpsc::channel(256);
    let answer = Arc::new(tokio::sync::Semaphore::new(0));
    let may_answer = Arc::clone(&answer);
    tokio::spawn(async move {
        let service = service_fn(move |request: Request<Incoming>| {
            let (tell, may_answer) = (tell.clone(), Arc::clone(&may_answer));
            async move {
                if request.uri().path() == "/hold" {
                    tell.try_send(()).ok();
                    may_answer.acquire().await.unwrap().forget();
                }
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
            }
        });
        drop(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(connection, service).await,
        );
    });
    let request = |key: &str, path: &str| {
        world.bare("POST", &format!("/v1.0/invoke/billing/method/{path}")).header("dapr-api-token", key)
    };
    let goes_on = async || {
        let answered = async { while request(&checkout, "first").send().await.unwrap().status() != 200 {} };
        tokio::time::timeout(SOON, answered).await.expect("there is no room");
    };
    goes_on().await;
    let hold = |key: &str| tokio::spawn(request(key, "hold").send());
    let mut held = async || tokio::time::timeout(SOON, asked.recv()).await.expect("it is not asked").unwrap();
    let two = [hold(&checkout), hold(&checkout)];
    held().await;
    held().await;
    let refused = Answer::of(request(&checkout, "third").send().await.unwrap()).await;
    assert_eq!((refused.status, refused.json()["errorCode"].as_str().unwrap()), (429, "ERR_DIRECT_INVOKE"));
    let said = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(said.contains("2 calls under way") && said.contains("server.calls_per_service_max"), "{said}");
    let mut client = DaprClient::new(Channel::from_shared(world.node.url()).unwrap().connect().await.unwrap());
    let message = InvokeRequest { method: "third".into(), ..Default::default() };
    let mut third = tonic::Request::new(InvokeServiceRequest { id: "billing".into(), message: Some(message) });
    third.metadata_mut().insert("dapr-api-token", checkout.parse().unwrap());
    assert_eq!(client.invoke_service(third).await.unwrap_err().code(), tonic::Code::ResourceExhausted);
    let other = hold(&cart);
    held().await;
    answer.add_permits(3);
    for call in two.into_iter().chain([other]) {
        assert_eq!(call.await.unwrap().unwrap().status(), 200, "nobody else's bound is touched");
    }
    goes_on().await;
    // Whoever gives up makes room, too.
    let two = [hold(&checkout), hold(&checkout)];
    held().await;
    held().await;
    two.iter().for_each(JoinHandle::abort);
    goes_on().await;
}

/// Calls an application until it answers: its channel may be a moment away.
async fn reached(world: &World, key: &str, app_id: &str, app: &mut App) {
    let path = format!("/v1.0/invoke/{app_id}/method/first");
    let call = async || world.bare("POST", &path).header("dapr-api-token", key).send().await.unwrap().status();
    tokio::time::timeout(SOON, async { while call().await != 200 {} }).await.expect("it is not reached");
    assert_eq!(app.asked().await.path, "/first");
}
