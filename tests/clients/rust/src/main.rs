//! A service over the ordinary Dapr SDK for Rust, which checks one block of the API and says what held.
//!
//! Called with the name of the block. It prints `ok NAME` for each claim that held, and ends with a complaint at the
//! first that did not; `want WHAT…` asks the runner for what only an operator can do. This SDK has no transactions,
//! no bulk reads, no streaming subscriptions and no shutdown; what it has is here.

mod orders;
mod state;

use std::collections::HashMap;
use std::env;
use std::fmt::Debug;
use std::io;
use std::time::{Duration, Instant};

use dapr::Client;
use dapr::client::{ClientOptions, JobBuilder, TonicClientWithAuth};
use dapr::error::Error;

pub(crate) type Dapr = Client<TonicClientWithAuth>;
pub(crate) type Outcome = Result<(), Box<dyn std::error::Error>>;

const AT_ONCE: Duration = Duration::from_secs(5);
const WITHIN: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Outcome {
    let block = env::args().nth(1).expect("the name of a block");
    if block == "orders" {
        return orders::receive().await;
    }
    let began = Instant::now();
    let mut dapr = Client::new().await?;
    assert!(began.elapsed() < AT_ONCE, "the client waited for the runtime");
    match block.as_str() {
        "startup" => startup(&mut dapr).await,
        "metadata" => metadata(&mut dapr).await,
        "state" => state::check(&mut dapr).await,
        "secret" => secret(&mut dapr).await,
        "configuration" => configuration(&mut dapr).await,
        "publish" => publish(&mut dapr).await,
        "checkout" => orders::publish(&mut dapr).await,
        "unserved" => unserved(&mut dapr).await,
        _ => panic!("no block is called '{block}'"),
    }
}

pub(crate) fn ok(name: &str) {
    println!("ok {name}");
}

/// The name under which the runner has seeded something, such as `state` for the store of states.
pub(crate) fn name_of(what: &str) -> String {
    let variable = format!("TWIN_{}", what.to_uppercase());
    env::var(&variable).unwrap_or_else(|_| panic!("{variable} is not set"))
}

fn want(words: &[&str]) {
    println!("want {}", words.join(" "));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).expect("the runner answers");
    assert_eq!(answer.trim(), "done", "the answer to 'want {}'", words.join(" "));
}

/// What has to be refused with a code. The SDK keeps the status to itself, but shows it when it is printed.
pub(crate) fn refused<T: Debug>(what: &str, answer: Result<T, Error>, code: tonic::Code) -> String {
    let Err(Error::GrpcError(error)) = &answer else { panic!("{what}: {answer:?} instead of {code:?}") };
    let told = format!("{error:?}");
    assert!(told.contains(&format!("code: {code:?},")), "{what}: {told} instead of {code:?}");
    told
}

async fn startup(dapr: &mut Dapr) -> Outcome {
    for variable in ["DAPR_HTTP_PORT", "DAPR_GRPC_PORT"] {
        assert!(env::var(variable).is_err(), "{variable} is set, so the endpoints prove nothing");
    }
    assert_eq!(dapr.get_metadata().await?.id, name_of("service"));
    ok("two variables are enough");
    let address = format!("http://{}", name_of("grpc_address"));
    let options = ClientOptions::new().with_address(address).with_timeout(AT_ONCE);
    assert_eq!(Client::from_options(options).await?.get_metadata().await?.id, name_of("service"));
    ok("an explicit address is taken");
    Ok(())
}

async fn metadata(dapr: &mut Dapr) -> Outcome {
    let metadata = dapr.get_metadata().await?;
    assert!(!metadata.runtime_version.is_empty(), "no version");
    let components: HashMap<_, _> =
        metadata.registered_components.iter().map(|each| (&each.name, &each.r#type)).collect();
    for (kind, name) in
        [("state", "state"), ("pubsub", "pubsub"), ("secretstores", "secrets"), ("configuration", "configuration")]
    {
        let found = components.get(&name_of(name)).is_some_and(|found| found.starts_with(&format!("{kind}.")));
        assert!(found, "{} is not a {kind} among {components:?}", name_of(name));
    }
    ok("the stores are among the components");
    dapr.set_metadata("team", "größe a/b").await?;
    assert_eq!(dapr.get_metadata().await?.extended_metadata.get("team").map(String::as_str), Some("größe a/b"));
    ok("an attribute is set and read");
    Ok(())
}

async fn secret(dapr: &mut Dapr) -> Outcome {
    let store = name_of("secrets");
    let seeded: HashMap<String, String> = serde_json::from_str(&name_of("seeded_secrets"))?;
    for (name, value) in &seeded {
        let found = dapr.get_secret(store.as_str(), name.as_str()).await?.data;
        assert_eq!(found, HashMap::from([(name.clone(), value.clone())]));
    }
    ok("a secret is read");
    let all: HashMap<String, String> =
        dapr.get_bulk_secret(store.as_str(), None).await?.data.into_iter().flat_map(|(_, each)| each.secrets).collect();
    assert_eq!(all, seeded);
    ok("all secrets are read, and only ours");
    refused("an unknown store", dapr.get_secret("unknown", "a").await, tonic::Code::InvalidArgument);
    ok("an unknown store is refused");
    Ok(())
}

async fn configuration(dapr: &mut Dapr) -> Outcome {
    let store = name_of("configuration");
    let seeded: HashMap<String, String> = serde_json::from_str(&name_of("seeded_configuration"))?;
    let mut names: Vec<&str> = seeded.keys().map(String::as_str).collect();
    names.sort_unstable();
    let items = dapr.get_configuration(store.as_str(), names.clone(), None).await?.items;
    let found: HashMap<String, String> = items.into_iter().map(|(key, item)| (key, item.value)).collect();
    assert_eq!(found, seeded);
    ok("several keys are read");
    refused(
        "an unknown store",
        dapr.get_configuration("unknown", names.clone(), None).await,
        tonic::Code::InvalidArgument,
    );
    ok("an unknown store is refused");

    let (watched, other) = (names[0], names[1]);
    let mut stream = dapr.subscribe_configuration(store.as_str(), vec![watched], None).await?;
    let first = tokio::time::timeout(WITHIN, stream.message()).await??.expect("a first frame");
    assert!(!first.id.is_empty(), "the first frame has no id");
    ok("a subscription has an id");
    want(&["configuration", other, "not asked for"]);
    want(&["configuration", watched, "changed"]);
    loop {
        let frame = tokio::time::timeout(WITHIN, stream.message()).await??.expect("a frame");
        assert_eq!(frame.id, first.id);
        assert!(frame.items.keys().all(|key| key == watched), "told of {:?}", frame.items);
        if frame.items.get(watched).is_some_and(|item| item.value == "changed") {
            break;
        }
    }
    ok("a change is told, and no other key's");
    assert!(
        dapr.unsubscribe_configuration(store.as_str(), first.id.as_str()).await?.ok,
        "the subscription was not ended"
    );
    while let Some(frame) = tokio::time::timeout(WITHIN, stream.message()).await?? {
        assert!(frame.items.is_empty(), "told after the end: {frame:?}");
    }
    ok("the end ends the stream");
    Ok(())
}

async fn publish(dapr: &mut Dapr) -> Outcome {
    let (pubsub, topic) = (name_of("pubsub"), format!("{}/forms", name_of("topic")));
    let metadata = HashMap::from([("ttlInSeconds".to_string(), "600".to_string())]);
    for (what, form, data, metadata) in [
        ("text", "text/plain", "größe".as_bytes(), None),
        ("JSON", "application/json", br#"{"orderId": 1}"#, None),
        ("bytes", "application/octet-stream", b"\x00\xff", None),
        ("an end", "text/plain", b"a", Some(metadata)),
    ] {
        dapr.publish_event(pubsub.as_str(), topic.as_str(), form, data.to_vec(), metadata).await?;
        ok(what);
    }
    let unknown = dapr.publish_event("unknown", "a", "text/plain", b"a".to_vec(), None).await;
    refused("an unknown pubsub", unknown, tonic::Code::InvalidArgument);
    ok("an unknown pubsub is refused");
    Ok(())
}

async fn unserved(dapr: &mut Dapr) -> Outcome {
    let not = tonic::Code::Unimplemented;
    refused(
        "a job",
        dapr.schedule_job(JobBuilder::new("unserved").with_schedule("@every 1h").build(), None).await,
        not,
    );
    refused("a look at a job", dapr.get_job("unserved").await, not);
    ok("jobs");
    refused("a binding", dapr.invoke_binding("binding", b"{}".to_vec(), "create", None).await, not);
    ok("bindings");
    refused("a query", dapr.query_state_alpha1("statestore", serde_json::json!({}), None).await, not);
    ok("queries");
    Ok(())
}
