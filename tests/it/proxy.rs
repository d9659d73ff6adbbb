//! The door of `twin run`, over real sockets: what it lets through as the service, and how.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, trace_service_client::TraceServiceClient,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use service_twin::{cli::run::proxy::Proxy, model::ServiceId};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tonic::{Code, Request, metadata::MetadataValue};

use crate::{api_world::World, otlp::trace};

fn orders() -> ServiceId {
    ServiceId::parse("shop/orders").unwrap()
}

/// A node, and the door of 'shop/orders' to it.
async fn door() -> (World, Proxy, String) {
    let world = World::new().await;
    let (_, key) = world.mint(json!({"kind": "service", "service": "shop/orders"})).await;
    let proxy = Proxy::open(&world.node.url(), &orders(), &key, [0, 0]).await.unwrap();
    (world, proxy, key)
}

fn url(proxy: &Proxy) -> String {
    format!("http://127.0.0.1:{}", proxy.ports()[0])
}

const TWIN: &str = "/api/v1/twins/shop/orders";

#[tokio::test]
async fn a_call_without_a_token_is_the_services() {
    let (world, proxy, _) = door().await;
    for port in proxy.ports() {
        let beat = world.client.put(format!("http://localhost:{port}{TWIN}/instances/i1")).json(&json!({}));
        assert_eq!(beat.send().await.unwrap().status(), 200, "both ports, by any loopback name");
    }
    let other = world.client.get(format!("{}/api/v1/twins/shop/cart", url(&proxy))).send().await.unwrap();
    assert_eq!(other.status(), 403, "it is the service and nobody else");
}

#[tokio::test]
async fn a_token_of_the_service_is_kept_and_the_node_judges_it() {
    let (world, proxy, key) = door().await;
    let own = format!("{}{TWIN}/subscriptions", url(&proxy));
    let from_elsewhere = world.client.get(&own).bearer_auth(&key).header("host", "twin.example");
    assert_eq!(from_elsewhere.send().await.unwrap().status(), 200, "a token decides alone");
    let (id, second) = world.mint(json!({"kind": "service", "service": "shop/orders"})).await;
    world.done("DELETE", &format!("/api/v1/keys/{id}"), Value::Null).await;
    let revoked = world.client.get(&own).header("dapr-api-token", &second).send().await.unwrap();
    assert_eq!(revoked.status(), 401, "nothing stands in for a token that is no good");
}

#[tokio::test]
async fn a_token_that_does_not_name_the_service_is_refused_at_its_door() {
    let (world, proxy, key) = door().await;
    let (_, other) = world.mint(json!({"kind": "service", "service": "shop/cart"})).await;
    let (_, ingest) = world.mint(json!({"kind": "ingest", "namespace": "shop"})).await;
    let get = async |headers: &[(&str, &str)]| {
        let mut request = world.client.get(format!("{}/v1.0/metadata", url(&proxy)));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let bearer = |token: &str| format!("Bearer {token}");
    for headers in [
        &[("dapr-api-token", other.as_str())][..],
        &[("authorization", &bearer(&other))],
        &[("authorization", &bearer(&world.operator))],
        &[("dapr-api-token", &ingest)],
        &[("dapr-api-token", "nonsense")],
        &[("authorization", "Basic b3JkZXJzOg==")],
        &[("dapr-api-token", &key), ("authorization", &bearer(&other))],
    ] {
        let (status, body) = get(headers).await;
        assert_eq!((status, &body["errorCode"]), (401, &json!("ERR_UNAUTHENTICATED")), "{headers:?}");
        assert!(body["message"].as_str().unwrap().starts_with("invalid api token"), "{body}");
    }
    assert_eq!(get(&[("dapr-api-token", &key), ("authorization", &bearer(&key))]).await.0, 200);

    let channel = tonic::transport::Endpoint::from_shared(url(&proxy)).unwrap().connect().await.unwrap();
    let mut request = Request::new(ExportTraceServiceRequest::default());
    request.metadata_mut().insert("dapr-api-token", other.parse().unwrap());
    let status = TraceServiceClient::new(channel).export(request).await.unwrap_err();
    assert_eq!((status.code(), status.message().contains("shop/orders")), (Code::Unauthenticated, true), "{status}");
}

#[tokio::test]
async fn what_a_page_of_another_site_could_send_is_refused() {
    let (world, proxy, _) = door().await;
    let refused = [
        ("host", "evil.example"),
        ("host", "127.0.0.1.evil.example"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ];
    for (name, value) in refused {
        let answer = world.client.get(format!("{}{TWIN}", url(&proxy))).header(name, value).send().await.unwrap();
        assert_eq!(answer.status(), 403, "{name}: {value}");
        let problem: Value = answer.json().await.unwrap();
        assert!(problem["detail"].as_str().unwrap().contains("no token"), "{problem}");
    }
    let own = world.client.get(format!("{}/readyz", url(&proxy))).header("origin", url(&proxy));
    assert_eq!(own.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_process_of_another_user_needs_the_services_token() {
    use std::os::unix::process::CommandExt as _;
    if !rustix::process::geteuid().is_root() {
        // Only root can be somebody else.
        println!("skipped: only root can start a process of another user");
        return;
    }
    let (_world, proxy, key) = door().await;
    let port = proxy.ports()[0];
    let ask = async |user: u32, token: &str| {
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET {TWIN}/subscriptions HTTP/1.1\\r\\nhost: localhost\\r\\n\
             {token}connection: close\\r\\n\\r\\n' >&3; cat <&3"
        );
        let mut command = std::process::Command::new("bash");
        command.args(["-c", &script]).uid(user).current_dir("/");
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let nobody = 65534;
    let refused = ask(nobody, "").await;
    assert!(refused.starts_with("HTTP/1.1 403 ") && refused.contains("another user"), "{refused}");
    let with_token = ask(nobody, &format!("dapr-api-token: {key}\\r\\n")).await;
    assert!(with_token.starts_with("HTTP/1.1 200 "), "{with_token}");
    let own = ask(0, "").await;
    assert!(own.starts_with("HTTP/1.1 200 "), "{own}");
}

#[tokio::test]
async fn telemetry_over_grpc_comes_through_with_its_trailers() {
    let (world, proxy, key) = door().await;
    let channel = tonic::transport::Endpoint::from_shared(url(&proxy)).unwrap().connect().await.unwrap();
    let mut client = TraceServiceClient::new(channel);
    let done = client.export(trace(&["orders"], 3)).await.unwrap();
    assert_eq!(done.into_inner().partial_success, None, "the service's own");
    let mut request = Request::new(trace(&["orders"], 3));
    let bearer: MetadataValue<_> = format!("Bearer {key}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    assert!(client.export(request).await.is_ok());

    let mut wrong = Request::new(ExportTraceServiceRequest::default());
    wrong.metadata_mut().insert("dapr-api-token", MetadataValue::from_static("nonsense"));
    let status = client.export(wrong).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    let mut foreign = Request::new(ExportTraceServiceRequest::default());
    foreign.metadata_mut().insert("origin", MetadataValue::from_static("https://evil.example"));
    let status = client.export(foreign).await.unwrap_err();
    assert_eq!((status.code(), status.message().contains("another site")), (Code::Unauthenticated, true), "{status}");

    drop(world);
}

#[tokio::test]
async fn a_stream_of_events_comes_through_as_it_is_said() {
    let (world, proxy, _) = door().await;
    let beat = format!("{TWIN}/instances/i1");
    world.done("PUT", &beat, json!({})).await;
    let events = world.client.get(format!("{}{beat}/commands", url(&proxy))).send();
    let mut events = events.await.unwrap();
    let posted = world.done("POST", &format!("{TWIN}/commands"), json!({"name": "drain"})).await;
    let (id, _) = crate::api_world::event(&mut events, "command").await;
    assert_eq!(id, posted["id"].to_string());
}

/// A node that keeps what it is sent, answers in two parts and waits to be asked for the second.
async fn slow_node() -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = [0; 1024];
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n";
        let mut is_answered = false;
        while let Ok(read @ 1..) = stream.read(&mut bytes).await {
            kept.lock().extend_from_slice(&bytes[..read]);
            if !is_answered && kept.lock().windows(5).any(|piece| piece == b"first") {
                is_answered = true;
                stream.write_all(head).await.unwrap();
                stream.write_all(b"5\r\nfirst\r\n").await.unwrap();
            }
            if kept.lock().windows(6).any(|piece| piece == b"second") {
                stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").await.unwrap();
            }
        }
    });
    (url, seen)
}

#[tokio::test]
async fn bodies_stream_both_ways_and_what_was_for_one_end_stays_there() {
    let (node, seen) = slow_node().await;
    let proxy = Proxy::open(&node, &orders(), "twk_test", [0, 0]).await.unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.ports()[0])).await.unwrap();
    let head = "POST /v1.0/x?a=b HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\nkeep-alive: 5\r\n\
                connection: keep-alive, x-mine\r\nx-mine: 1\r\nx-kept: 1\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(b"5\r\nfirst\r\n").await.unwrap();
    let mut answer = Vec::new();
    let read_until = async |answer: &mut Vec<u8>, stream: &mut TcpStream, end: &[u8]| {
        while !answer.windows(end.len()).any(|piece| piece == end) {
            assert!(stream.read_buf(answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(answer));
        }
    };
    read_until(&mut answer, &mut stream, b"first").await;
    stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").await.unwrap();
    read_until(&mut answer, &mut stream, b"second").await;

    let answer = String::from_utf8(answer).unwrap();
    assert!(!answer.contains("x-hop"), "{answer}");
    let seen = String::from_utf8(seen.lock().clone()).unwrap();
    assert!(seen.starts_with("POST /v1.0/x?a=b HTTP/1.1\r\n") && seen.contains("x-kept: 1"), "{seen}");
    assert!(seen.contains("dapr-api-token: twk_test"), "{seen}");
    assert!(!seen.contains("x-mine") && !seen.contains("keep-alive") && !seen.contains("localhost"), "{seen}");
}

#[tokio::test]
async fn a_node_that_is_gone_is_told_in_the_callers_protocol() {
    let proxy = Proxy::open("http://127.0.0.1:1", &orders(), "twk_test", [0, 0]).await.unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(url(&proxy)).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.text().await.unwrap().contains("http://127.0.0.1:1"));
    let channel = tonic::transport::Endpoint::from_shared(url(&proxy)).unwrap().connect().await.unwrap();
    let status = TraceServiceClient::new(channel).export(ExportTraceServiceRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = Proxy::open("http://127.0.0.1:1", &orders(), "twk_test", [port, 0]).await.map(drop).unwrap_err();
    assert!(error.to_string().contains(&format!("port {port}")), "{error}");
}
