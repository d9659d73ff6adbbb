//! Subscriptions that a service declares: kept in its twin, told to who follows it, scoped like its topics.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use serde_json::{Value, json};
use service_twin::{
    config::StoreKind,
    model::{Header, ServiceId},
};

use crate::api_world::{Answer, World, config, event};

const OWN: &str = "/api/v1/twins/shop/orders";
const PATH: &str = "/api/v1/twins/shop/orders/subscriptions";

fn at(name: &str) -> String {
    format!("{PATH}/{name}")
}

fn to(topic: &str, path: &str) -> Value {
    json!({"component": "pubsub", "topic": topic, "path": path})
}

async fn declare(world: &World, name: &str, body: Value) {
    assert_eq!(world.send("PUT", &at(name), body).await.status, 204);
}

async fn entries(world: &World) -> usize {
    let journal = world.done("GET", &format!("{OWN}/journal"), Value::Null).await;
    journal["entries"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_service_declares_changes_and_removes_its_own_subscriptions() {
    let world = World::new().await;
    let (_, key) = world.mint(json!({"kind": "service", "service": "shop/orders"})).await;
    let send = async |method: &str, path: &str, body: Value| {
        Answer::of(world.bare(method, path).bearer_auth(&key).json(&body).send().await.unwrap()).await
    };
    let whole = json!({
        "component": "pubsub", "topic": "orders/new", "path": "/orders", "dead_letter": "dead",
        "metadata": {"rawPayload": "true"},
    });
    assert_eq!(send("PUT", &at("new"), whole.clone()).await.status, 204);
    assert_eq!(send("PUT", &at("cart"), to("cart", "/cart")).await.status, 204);
    let mut events = world.request("GET", &format!("{OWN}/events")).send().await.unwrap();
    assert_eq!(send("PUT", &at("cart"), to("cart", "/v2/cart")).await.status, 204);
    let mut expected = whole;
    expected["name"] = "new".into();
    let listed = send("GET", PATH, Value::Null).await.json();
    let cart = json!({"name": "cart", "component": "pubsub", "topic": "cart", "path": "/v2/cart", "dead_letter": null,
                      "metadata": {}});
    assert_eq!(listed, json!([cart, expected]), "by name, the last word counts");
    let (_, set) = event(&mut events, "twin.subscription.set").await;
    assert_eq!(set["data"]["subscription"], cart);
    assert_eq!(send("DELETE", &at("new"), Value::Null).await.status, 204);
    let (_, removed) = event(&mut events, "twin.subscription.removed").await;
    assert_eq!(removed["data"]["subscription"], json!({"name": "new"}));
    assert_eq!(send("DELETE", &at("new"), Value::Null).await.problem(), (404, "not-found".into()));
    let elsewhere = send("GET", "/api/v1/twins/shop/cart/subscriptions", Value::Null).await;
    assert_eq!(elsewhere.status, 403, "each service has its own");
}

#[tokio::test]
async fn what_is_declared_already_makes_no_entry_in_the_journal() {
    let world = World::new().await;
    declare(&world, "new", to("orders", "/orders")).await;
    let before = entries(&world).await;
    declare(&world, "new", to("orders", "/orders")).await;
    assert_eq!(entries(&world).await, before);
    declare(&world, "new", to("orders", "/other")).await;
    assert_eq!(entries(&world).await, before + 1);
}

#[tokio::test]
async fn nobody_declares_what_it_may_not_take_or_may_not_let_go() {
    let world = World::new().await;
    let (_, key) = world.mint(json!({"kind": "service", "service": "shop/orders"})).await;
    let deny = |operation: &str, topic: &str| json!({"effect": "deny", "operations": [operation], "scope": topic});
    let add = [deny("subscribe", "topics:pubsub/pay*"), deny("publish", "topics:pubsub/dead"), deny("set", "topics:x")];
    world.done("PATCH", &format!("{OWN}/access"), json!({"add": add})).await;
    let put = async |name: &str, body: Value| {
        Answer::of(world.bare("PUT", &at(name)).bearer_auth(&key).json(&body).send().await.unwrap()).await.status
    };
    let mut dead = to("orders", "/orders");
    dead["dead_letter"] = "dead".into();
    assert_eq!(put("new", to("payments", "/pay")).await, 403);
    assert_eq!(put("new", dead).await, 403);
    assert_eq!(put("x", to("orders", "/orders")).await, 403);
    assert_eq!(put("new", to("orders", "/orders")).await, 204);
    world.done("PATCH", &format!("{OWN}/access"), json!({"profile": "none"})).await;
    assert_eq!(put("new", to("orders", "/other")).await, 403, "the profile has given it");
}

#[tokio::test]
async fn a_subscription_has_its_bounds() {
    let world = World::new().await;
    let problem = async |name: &str, body: Value| world.send("PUT", &at(name), body).await.problem();
    let invalid = (400, "invalid".to_owned());
    for body in [to("", "/x"), to("orders", "x"), to(&"t".repeat(129), "/x"), to("orders", &format!("/{:0256}", 0))] {
        assert_eq!(problem("new", body.clone()).await, invalid, "{body}");
    }
    assert_eq!(problem(&"n".repeat(65), to("orders", "/x")).await, invalid);
    assert_eq!(problem("a%2Fb", to("orders", "/x")).await, invalid);
    let mut large = to("orders", "/x");
    large["metadata"] = json!({"k": "v".repeat(512)});
    assert_eq!(problem("new", large).await, (422, "limit-exceeded".into()));
    for number in 0..32 {
        declare(&world, &format!("s{number}"), to("orders", "/x")).await;
    }
    assert_eq!(problem("one-more", to("orders", "/x")).await, (422, "limit-exceeded".into()));
    declare(&world, "s7", to("orders", "/y")).await;
}

#[tokio::test]
async fn all_subscriptions_together_have_a_bound_too() {
    let world = World::new().await;
    let path = format!("/{:0255}", 0);
    let mut last = None;
    for number in 0..32 {
        let answer = world.send("PUT", &at(&format!("s{number}")), to("orders", &path)).await;
        if answer.status != 204 {
            last = Some((number, answer.problem()));
            break;
        }
    }
    let (number, problem) = last.expect("32 paths of 256 bytes do not fit");
    assert_eq!((problem, number > 20), ((422, "limit-exceeded".into()), true));
}

#[tokio::test]
async fn subscriptions_outlive_a_restart_and_are_there_for_who_hands_messages_over() {
    let folder = tempfile::tempdir().unwrap();
    let first = config(folder.path(), StoreKind::Sled);
    let world = World::start(folder, first.clone()).await;
    declare(&world, "new", to("orders", "/orders")).await;
    let World { node, folder, .. } = world;
    node.shutdown().await;
    let world = World::start(folder, first).await;
    let service = ServiceId::parse("shop/orders").unwrap();
    let known = world.node.server().subscriptions(&service, Header::default()).await.unwrap();
    let [new] = &known[..] else { panic!("one: {known:?}") };
    assert_eq!((new.name.as_str(), new.topic.as_str(), new.path.as_str()), ("new", "orders", "/orders"));
}
