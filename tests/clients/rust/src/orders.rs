//! An order processor that the runtime calls over gRPC, and the checkout before it.

use std::collections::HashMap;
use std::env;
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dapr::appcallback::{AppCallbackService, Handler, HandlerMethod, TopicEventRequest, TopicEventResponse};
use dapr::dapr::proto::runtime::v1::app_callback_server::AppCallbackServer;
use tonic::{Response, Status};

use crate::{Dapr, Outcome, name_of, ok};

const WITHIN: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);
// What the processor does with them; the others it takes.
const AGAIN: u64 = 7;
const BAD: u64 = 13;
// TopicEventResponseStatus.
const SUCCESS: i32 = 0;
const RETRY: i32 = 1;
const DROP: i32 = 2;

fn orders() -> Vec<serde_json::Value> {
    serde_json::from_str(&name_of("orders")).expect("the runner gives a list")
}

pub(crate) async fn publish(dapr: &mut Dapr) -> Outcome {
    let (pubsub, topic) = (name_of("pubsub"), name_of("topic"));
    for order in orders() {
        let data = serde_json::to_vec(&order)?;
        dapr.publish_event(pubsub.as_str(), topic.as_str(), "application/json", data, None).await?;
    }
    ok("orders are published");
    Ok(())
}

/// How often each order came, and the dead letters.
type Received = Arc<Mutex<(HashMap<u64, u32>, Vec<u64>)>>;

struct Topic {
    dead: bool,
    received: Received,
}

#[tonic::async_trait]
impl HandlerMethod for Topic {
    async fn handler(&self, request: TopicEventRequest) -> Result<Response<TopicEventResponse>, Status> {
        let event: serde_json::Value =
            serde_json::from_slice(&request.data).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let order = event["orderId"].as_u64().ok_or_else(|| Status::invalid_argument("no order"))?;
        let mut received = self.received.lock().expect("nobody panics with it");
        let status = if self.dead {
            received.1.push(order);
            SUCCESS
        } else {
            let count = received.0.entry(order).or_default();
            *count += 1;
            match order {
                BAD => DROP,
                AGAIN if *count == 1 => RETRY,
                _ => SUCCESS,
            }
        };
        Ok(Response::new(TopicEventResponse { status }))
    }
}

pub(crate) async fn receive() -> Outcome {
    let received = Received::default();
    let mut service = AppCallbackService::new();
    for (topic, dead) in [(name_of("topic"), false), (format!("{}-dead", name_of("topic")), true)] {
        let handler = Box::new(Topic { dead, received: received.clone() });
        service.add_handler(Handler { pub_sub_name: name_of("pubsub"), topic, handler });
    }
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{}", env::var("APP_PORT")?)).await?;
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = tonic::transport::Server::builder().add_service(AppCallbackServer::new(service));
    tokio::spawn(server.serve_with_incoming(incoming));
    println!("ready");
    // The runner closes our input when everything is published.
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;

    let until = Instant::now() + WITHIN;
    while !complete(&received) {
        assert!(Instant::now() < until, "received only {received:?}");
        tokio::time::sleep(PAUSE).await;
    }
    ok("orders are received");
    ok("an order to retry comes again");
    // This SDK cannot name a topic for dead letters.
    let received = received.lock().expect("nobody panics with it");
    assert_eq!((received.0.get(&BAD), received.1.as_slice()), (Some(&1), &[][..]));
    ok("a dropped order is dropped");
    Ok(())
}

fn complete(received: &Received) -> bool {
    let received = received.lock().expect("nobody panics with it");
    let enough = |order: u64| received.0.get(&order).is_some_and(|count| *count >= if order == AGAIN { 2 } else { 1 });
    orders().iter().all(|order| order["orderId"].as_u64().is_some_and(enough))
}
