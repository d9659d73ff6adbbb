//! Streams without a token: whom their connection speaks for; and who asks, before what is asked.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use std::time::Duration;

use dapr::dapr::proto::runtime::v1::{self as wire, dapr_client::DaprClient};
use serde_json::{Value, json};
use tonic::{Code, Request, Status, transport::Channel};

use crate::api_world::World;

/// A connection of HTTP/2.
struct Connection(Channel);

impl Connection {
    async fn to(world: &World) -> Self {
        Self(Channel::from_shared(world.node.url()).unwrap().connect().await.unwrap())
    }

    /// A request that is no stream.
    async fn ask(&self, token: Option<&str>) -> Result<(), Status> {
        let request = with(token, wire::GetMetadataRequest {});
        DaprClient::new(self.0.clone()).get_metadata(request).await.map(drop)
    }

    /// Opens a stream, of those that may lack their token.
    async fn follow(&self, token: Option<&str>) -> Result<(), Status> {
        let store_name = "configstore".to_owned();
        let request = with(token, wire::SubscribeConfigurationRequest { store_name, ..Default::default() });
        let mut stream = DaprClient::new(self.0.clone()).subscribe_configuration(request).await?.into_inner();
        assert!(!stream.message().await?.unwrap().id.is_empty());
        Ok(())
    }

    async fn is_refused(&self) {
        assert_eq!(self.follow(None).await.unwrap_err().code(), Code::Unauthenticated);
    }
}

fn with<M>(token: Option<&str>, message: M) -> Request<M> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("dapr-api-token", token.parse().unwrap());
    }
    request
}

async fn keys_refused(world: &World) -> u64 {
    let metrics = world.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix("twin_keys_refused_total "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_stream_without_a_token_counts_as_the_only_service_heard_on_its_connection() {
    let world = World::new().await;
    let service = |name: &str| json!({"kind": "service", "service": name});
    let (_, orders) = world.mint(service("shop/orders")).await;
    let (_, same) = world.mint(service("shop/orders")).await;
    let (_, cart) = world.mint(service("shop/cart")).await;
    let connection = Connection::to(&world).await;
    connection.is_refused().await;
    connection.ask(Some(&orders)).await.unwrap();
    connection.ask(Some(&same)).await.unwrap();
    let before = keys_refused(&world).await;
    connection.follow(None).await.unwrap();
    assert_eq!(keys_refused(&world).await, before, "nothing was refused");
    assert_eq!(connection.ask(None).await.unwrap_err().code(), Code::Unauthenticated, "streams alone");
    Connection::to(&world).await.is_refused().await;
    connection.ask(Some(&cart)).await.unwrap();
    connection.is_refused().await;
    connection.ask(Some(&orders)).await.unwrap();
    connection.is_refused().await;
    connection.follow(Some(&orders)).await.unwrap();
}

#[tokio::test]
async fn a_token_that_does_not_count_leaves_its_connection_speaking_for_nobody() {
    let world = World::new().await;
    let (id, orders) = world.mint(json!({"kind": "service", "service": "shop/orders"})).await;
    let connection = Connection::to(&world).await;
    connection.ask(Some(&orders)).await.unwrap();
    assert_eq!(connection.ask(Some("twk_AAAA")).await.unwrap_err().code(), Code::Unauthenticated);
    connection.is_refused().await;
    let connection = Connection::to(&world).await;
    connection.ask(Some(&orders)).await.unwrap();
    world.done("DELETE", &format!("/api/v1/keys/{id}"), Value::Null).await;
    let refused = connection.follow(None).await.unwrap_err();
    assert_eq!((refused.code(), refused.message().contains("revoked")), (Code::Unauthenticated, true), "{refused}");
}

#[tokio::test]
async fn a_stream_without_a_token_counts_as_its_service_also_where_no_key_is_needed() {
    let world = World::with(|config| config.server.anonymous_loopback = true).await;
    let (_, orders) = world.mint(json!({"kind": "service", "service": "shop/orders"})).await;
    let connection = Connection::to(&world).await;
    assert_eq!(connection.follow(None).await.unwrap_err().code(), Code::PermissionDenied, "an operator is no service");
    connection.ask(Some(&orders)).await.unwrap();
    connection.follow(None).await.unwrap();
}

#[tokio::test]
async fn who_asks_is_settled_before_anything_of_the_message_is_read() {
    let world = World::new().await;
    let mut client = tonic::client::Grpc::new(Connection::to(&world).await.0);
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<wire::GetStateRequest, wire::GetStateResponse>::default();
    let path = "/dapr.proto.runtime.v1.Dapr/GetState".parse().unwrap();
    let never_ends = Request::new(futures_util::stream::pending());
    let asked = client.client_streaming(never_ends, path, codec);
    let answer = tokio::time::timeout(Duration::from_secs(30), asked).await.expect("it was not answered within 30 s");
    assert_eq!(answer.unwrap_err().code(), Code::Unauthenticated);
}
