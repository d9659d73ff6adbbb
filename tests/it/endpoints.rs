//! Applications that the node connects to, where the grants of their service let it.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use std::convert::Infallible;

use dapr::dapr::proto::runtime::v1::app_callback_server::AppCallbackServer;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use serde_json::{Value, json};
use service_twin::{config::StoreKind, model::ServiceId};
use tokio::{net::TcpListener, sync::mpsc};

use crate::{
    api_world::{Answer, World, config},
    applications::{Callback, SOON, grant, key, publish, subscribed},
};

const ENDPOINT: &str = "/api/v1/twins/shop/orders/endpoints/i1";

/// An application at a port of this machine, with one subscription: what it is asked, and whether it is asked.
struct App {
    port: u16,
    asked: mpsc::Receiver<(String, Vec<u8>)>,
}

impl App {
    async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, asked) = mpsc::channel(256);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let tell = tell.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let tell = tell.clone();
                    async move {
                        let path = request.uri().path().to_owned();
                        let answer = |status: u16, text: &'static str| {
                            let answer = Response::builder().status(status).header("location", "/elsewhere");
                            Ok::<_, Infallible>(answer.body(Full::<Bytes>::from(text)).unwrap())
                        };
                        if path == "/dapr/subscribe" {
                            return answer(200, r#"[{"pubsubname": "pubsub", "topic": "new", "route": "/new"}]"#);
                        }
                        let body = request.into_body().collect().await.unwrap().to_bytes().to_vec();
                        let status = if path == "/away" { 307 } else { 200 };
                        tell.try_send((path, body)).ok();
                        answer(status, "")
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { port, asked }
    }

    async fn asked(&mut self) -> (String, Vec<u8>) {
        tokio::time::timeout(SOON, self.asked.recv()).await.expect("it is not asked").unwrap()
    }

    /// Waits until this is pushed to it; what is not settled when a way ends comes again before.
    async fn is_pushed(&mut self, data: u32) {
        loop {
            let (path, body) = self.asked().await;
            if path == "/new" && serde_json::from_slice::<Value>(&body).unwrap()["data"] == data {
                return;
            }
        }
    }
}

async fn register(world: &World, host: &str, port: u16) -> Answer {
    world.send("PUT", ENDPOINT, json!({"url": format!("http://{host}:{port}")})).await
}

async fn edit(world: &World, what: &str, scope: &str, operations: &[&str]) {
    let edit = json!({what: [{"effect": "allow", "scope": scope, "operations": operations}]});
    world.done("PATCH", "/api/v1/twins/shop/orders/access", edit).await;
}

async fn call(world: &World, key: &str, app: &str, path: &str) -> Answer {
    let path = format!("/v1.0/invoke/{app}/method/{path}");
    Answer::of(world.bare("POST", &path).header("dapr-api-token", key).body("42").send().await.unwrap()).await
}

/// Registers an application that its service may be connected to.
async fn registered(world: &World, host: &str, app: &App) {
    grant(world, "shop/orders", &format!("egress:{host}:{}", app.port)).await;
    let answer = register(world, host, app.port).await;
    assert_eq!(answer.status, 204, "{}", String::from_utf8_lossy(&answer.body));
}

#[tokio::test]
async fn an_endpoint_takes_a_right_to_connect_and_an_inner_address_one_more() {
    let world = World::new().await;
    let mut app = App::listen().await;
    world.done("PUT", "/api/v1/twins/shop/orders", json!({})).await;
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let scope = format!("egress:{host}:{}", app.port);
        let refused = async |what: &str| {
            let answer = register(&world, host, app.port).await;
            assert_eq!(answer.problem(), (403, "denied".into()));
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains(&format!("{what} on {scope}")), "{detail}");
        };
        refused("connect").await;
        edit(&world, "add", &scope, &["connect-inner"]).await;
        refused("connect").await;
        edit(&world, "remove", &scope, &["connect-inner"]).await;
        edit(&world, "add", &scope, &["connect"]).await;
        refused("connect-inner").await;
    }
    assert_eq!(world.done("GET", "/api/v1/twins/shop/orders/endpoints", Value::Null).await, json!([]));
    assert!(app.asked.try_recv().is_err());

    // The service itself needs a right to register, too.
    let own = key(&world, "shop/orders").await;
    let scope = format!("egress:127.0.0.1:{}", app.port);
    edit(&world, "add", &scope, &["connect-inner"]).await;
    let body = json!({"url": format!("http://127.0.0.1:{}", app.port)});
    let put =
        async || Answer::of(world.bare("PUT", ENDPOINT).bearer_auth(&own).json(&body).send().await.unwrap()).await;
    let refused = put().await;
    assert!(refused.json()["detail"].as_str().unwrap().contains("set on endpoints:i1"), "{}", refused.json());
    grant(&world, "shop/orders", "endpoints:*").await;
    assert_eq!(put().await.status, 204);
    let expected = json!([{"instance": "i1", "url": body["url"], "protocol": "http"}]);
    assert_eq!(world.done("GET", "/api/v1/twins/shop/orders/endpoints", Value::Null).await, expected);
}

#[tokio::test]
async fn an_endpoint_is_invoked_and_pushed_to_while_its_service_may_be_connected_to() {
    let world = World::new().await;
    let (checkout, orders) = (key(&world, "shop/checkout").await, key(&world, "shop/orders").await);
    grant(&world, "shop/checkout", "invoke:orders/*").await;
    grant(&world, "shop/checkout", "invoke:nobody/*").await;
    let mut app = App::listen().await;
    registered(&world, "localhost", &app).await;
    assert_eq!(call(&world, &checkout, "orders", "pack").await.status, 200);
    assert_eq!(app.asked().await, ("/pack".to_owned(), b"42".to_vec()));
    subscribed(&world, &orders, 1).await;
    publish(&world, &orders, "new", 1).await;
    app.is_pushed(1).await;

    let absent = call(&world, &checkout, "nobody", "pack").await;
    let told = |answer: &Answer| (answer.status, String::from_utf8_lossy(&answer.body).replace("nobody", "orders"));
    let scope = format!("egress:localhost:{}", app.port);
    let grants = json!([{"effect": "allow", "scope": scope}]);
    world.done("PATCH", "/api/v1/twins/shop/orders/access", json!({ "remove": grants })).await;
    let refused = call(&world, &checkout, "orders", "pack").await;
    assert_eq!(told(&refused), told(&absent), "also over a connection that is open; a caller is not told why");
    let journal = world.done("GET", "/api/v1/twins/shop/orders/journal", Value::Null).await.to_string();
    assert!(journal.contains(&scope["egress:".len()..]), "its owner is: {journal}");
    world.done("PATCH", "/api/v1/twins/shop/orders/access", json!({ "add": grants })).await;
    assert_eq!(call(&world, &checkout, "orders", "pack").await.status, 200);
    subscribed(&world, &orders, 1).await;

    assert_eq!(world.send("DELETE", ENDPOINT, Value::Null).await.status, 204);
    assert_eq!(told(&call(&world, &checkout, "orders", "pack").await), told(&absent));
    subscribed(&world, &orders, 0).await;
    publish(&world, &orders, "new", 2).await;
    registered(&world, "localhost", &app).await;
    // It was kept, as for any application that is away.
    app.is_pushed(2).await;
    assert_eq!(world.send("DELETE", ENDPOINT, Value::Null).await.status, 204);
    assert_eq!(world.send("DELETE", ENDPOINT, Value::Null).await.problem(), (404, "not-found".into()));
}

#[tokio::test]
async fn an_endpoint_leaves_with_its_twin() {
    let world = World::new().await;
    let app = App::listen().await;
    registered(&world, "127.0.0.1", &app).await;
    let service = ServiceId::parse("shop/orders").unwrap();
    let way = world.node.server().way_to(&service).unwrap();
    assert_eq!(way.instance, "i1");
    world.done("DELETE", "/api/v1/twins/shop/orders", Value::Null).await;
    assert!(world.node.server().way_to(&service).is_none());
}

#[tokio::test]
async fn a_redirect_of_an_endpoint_is_its_answer() {
    let world = World::new().await;
    let checkout = key(&world, "shop/checkout").await;
    grant(&world, "shop/checkout", "invoke:orders/*").await;
    let mut app = App::listen().await;
    registered(&world, "127.0.0.1", &app).await;
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let url = format!("{}/v1.0/invoke/orders/method/away", world.node.url());
    let answer = client.post(url).header("dapr-api-token", &checkout).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["location"]), (307, &"/elsewhere".parse().unwrap()));
    assert_eq!(app.asked().await.0, "/away");
    assert!(app.asked.try_recv().is_err());
}

#[tokio::test]
async fn endpoints_outlive_a_restart_and_are_pushed_to_without_being_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let first = config(folder.path(), StoreKind::Sled);
    let world = World::start(folder, first.clone()).await;
    let mut app = App::listen().await;
    let orders = key(&world, "shop/orders").await;
    registered(&world, "127.0.0.1", &app).await;
    subscribed(&world, &orders, 1).await;
    let World { node, folder, .. } = world;
    node.shutdown().await;
    let world = World::start(folder, first).await;
    publish(&world, &orders, "new", 1).await;
    app.is_pushed(1).await;
}

#[tokio::test]
async fn an_endpoint_that_speaks_grpc_is_pushed_to_and_invoked() {
    let world = World::new().await;
    let (checkout, orders) = (key(&world, "shop/checkout").await, key(&world, "shop/orders").await);
    grant(&world, "shop/checkout", "invoke:orders/*").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, mut told) = mpsc::channel(256);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(AppCallbackServer::new(Callback(tell.clone())));
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    let mut next = async || tokio::time::timeout(SOON, told.recv()).await.expect("it is not asked").unwrap();
    grant(&world, "shop/orders", &format!("egress:127.0.0.1:{port}")).await;
    let endpoint = json!({"url": format!("http://127.0.0.1:{port}"), "protocol": "grpc"});
    assert_eq!(world.send("PUT", ENDPOINT, endpoint).await.status, 204);
    subscribed(&world, &orders, 1).await;
    publish(&world, &checkout, "new", 7).await;
    assert_eq!(next().await, ("new".to_owned(), b"7".to_vec()));
    assert_eq!(call(&world, &checkout, "orders", "pack").await.status, 200);
    assert_eq!(next().await, ("pack".to_owned(), b"42".to_vec()));
}
