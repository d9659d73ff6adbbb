//! A service's configuration: set in commits, pushed to who follows it, taken back.

use dapr::dapr::proto::runtime::v1::{self as wire, dapr_client::DaprClient};
use serde_json::{Value, json};
use service_twin::model::Clock as _;
use tonic::{Code, Request, transport::Channel};

use crate::{
    api_world::{Answer, World, event},
    applications::{App, SOON, key},
};

const OWN: &str = "/api/v1/twins/shop/orders";
const PATH: &str = "/api/v1/twins/shop/orders/configuration";

#[tokio::test]
async fn keys_change_together_and_a_version_can_be_taken_back() {
    let world = World::new().await;
    let put = async |keys: Value| world.send("PATCH", PATH, json!({ "keys": keys })).await;
    let schema = json!({"type": "object", "properties": {"rps": {"type": "integer"}}, "required": ["rps"]});
    let first = json!({"limits": {"value": "{\"rps\":5}", "schema": schema}, "colour": {"value": "red"}});
    assert_eq!(put(first).await.json()["version"], 1);
    let wrong = put(json!({"limits": {"value": "{\"rps\":\"many\"}"}, "colour": {"value": "blue"}})).await;
    assert_eq!(wrong.problem(), (400, "invalid".into()));
    let read = async || world.done("GET", PATH, Value::Null).await;
    assert_eq!(read().await["keys"]["colour"], json!({"value": "red", "version": 1}), "all or none");
    assert_eq!(put(json!({"colour": null, "size": {"value": "l"}})).await.json()["version"], 2);
    assert_eq!(read().await["keys"].as_object().unwrap().len(), 2);
    let back = world.done("POST", &format!("{PATH}/rollback"), json!({"version": 2})).await;
    assert_eq!(back["version"], 3);
    let keys = read().await["keys"].clone();
    assert_eq!((&keys["colour"]["value"], &keys["size"]), (&json!("red"), &Value::Null));
    let stale = world.request("PATCH", PATH).header("if-match", "2").json(&json!({"keys": {}}));
    assert_eq!(stale.send().await.unwrap().status(), 412);
}

#[tokio::test]
async fn it_is_in_sync_when_every_live_instance_has_applied_it() {
    let world = World::new().await;
    world.done("PUT", &format!("{OWN}/instances/a"), Value::Null).await;
    world.done("PATCH", PATH, json!({"keys": {"colour": {"value": "red"}}})).await;
    let in_sync = async || world.done("GET", PATH, Value::Null).await["in_sync"].clone();
    assert_eq!(in_sync().await, false);
    let applied = async |body: Value| world.send("POST", &format!("{PATH}/applied"), body).await.status;
    assert_eq!(applied(json!({"instance": "a", "version": 1, "error": "no such colour"})).await, 204);
    assert_eq!(in_sync().await, false);
    assert_eq!(applied(json!({"instance": "a", "version": 1})).await, 204);
    assert_eq!(in_sync().await, true);
    assert_eq!(applied(json!({"instance": "a", "version": 9})).await, 409);
    let known = world.request("GET", PATH).header("if-none-match", "\"1\"").send().await.unwrap();
    assert_eq!((known.status().as_u16(), &known.headers()["etag"]), (200, &"\"1\"".parse().unwrap()));
}

#[tokio::test]
async fn a_change_reaches_those_who_follow_the_twin_and_those_who_subscribed_to_its_key() {
    let world = World::new().await;
    world.done("PUT", OWN, Value::Null).await;
    let (_, key) = world.mint(json!({"kind": "service", "service": "shop/orders"})).await;
    let mut events = world.request("GET", &format!("{OWN}/events")).send().await.unwrap();
    let channel = Channel::from_shared(world.node.url()).unwrap().connect().await.unwrap();
    let mut client = DaprClient::new(channel);
    let message = |keys: &[&str]| {
        let keys = keys.iter().map(|&key| key.to_owned()).collect();
        let mut request = Request::new(wire::SubscribeConfigurationRequest {
            store_name: "configstore".into(),
            keys,
            ..Default::default()
        });
        request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
        request
    };
    let mut stream = client.subscribe_configuration(message(&["colour"])).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert!(!first.id.is_empty() && first.items.is_empty());
    world.done("PATCH", PATH, json!({"keys": {"size": {"value": "l"}}})).await;
    world.done("PATCH", PATH, json!({"keys": {"colour": {"value": "red", "metadata": {"by": "us"}}}})).await;
    let (_, changed) = event(&mut events, "twin.configuration.changed").await;
    assert_eq!(changed["data"]["keys"], json!(["size"]));
    let pushed = stream.message().await.unwrap().unwrap();
    assert_eq!(pushed.items.keys().collect::<Vec<_>>(), ["colour"]);
    assert_eq!((pushed.items["colour"].value.as_str(), pushed.items["colour"].version.as_str()), ("red", "2"));
    let mut end =
        Request::new(wire::UnsubscribeConfigurationRequest { store_name: "configstore".into(), id: first.id });
    end.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    assert!(client.unsubscribe_configuration(end).await.unwrap().into_inner().ok);
    assert!(stream.message().await.unwrap().is_none(), "the stream ends with its subscription");
}

#[tokio::test]
async fn a_change_is_taken_back_once_under_one_idempotency_key() {
    let world = World::new().await;
    for value in ["red", "blue"] {
        world.done("PATCH", PATH, json!({"keys": {"colour": {"value": value}}})).await;
    }
    for _ in 0..2 {
        let request = world.request("POST", &format!("{PATH}/rollback")).json(&json!({"version": 2}));
        let key = ("idempotency-key-time", world.clock.now().to_string());
        let answer = request.header("idempotency-key", "back").header(key.0, key.1).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.json::<Value>().await.unwrap()["version"], 3);
    }
    assert_eq!(world.done("GET", PATH, Value::Null).await["keys"]["colour"]["value"], "red");
}

#[tokio::test]
async fn who_follows_many_keys_hears_the_last_value_of_each_and_too_many_are_refused() {
    let world = World::new().await;
    world.done("PUT", OWN, Value::Null).await;
    let (_, key) = world.mint(json!({"kind": "service", "service": "shop/orders"})).await;
    let channel = Channel::from_shared(world.node.url()).unwrap().connect().await.unwrap();
    let mut client = DaprClient::new(channel);
    let message = |count: usize| {
        let keys = (0..count).map(|key| format!("k{key}")).collect();
        let store_name = "configstore".into();
        let mut request = Request::new(wire::SubscribeConfigurationRequest { store_name, keys, ..Default::default() });
        request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
        request
    };
    let many = client.subscribe_configuration(message(1025)).await.unwrap_err();
    assert_eq!((many.code(), many.message().contains("1024")), (Code::ResourceExhausted, true), "{many}");
    let mut stream = client.subscribe_configuration(message(200)).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    for round in 0..100 {
        // The second change comes while the first is being read.
        for value in [format!("{round}"), format!("{round} again")] {
            world.done("PATCH", PATH, json!({"keys": {"k0": {"value": value}}})).await;
        }
        let last =
            async { while stream.message().await.unwrap().unwrap().items["k0"].value != format!("{round} again") {} };
        let heard = tokio::time::timeout(std::time::Duration::from_secs(30), last).await;
        heard.unwrap_or_else(|_| panic!("the change of round {round} was not told within 30 s"));
    }
}

#[tokio::test]
async fn a_version_of_as_many_keys_as_may_change_at_once_can_be_taken_back_and_one_more_is_refused() {
    let world = World::new().await;
    let put = async |count: u32, value: &str| {
        let keys: serde_json::Map<_, _> = (0..count).map(|key| (format!("k{key}"), json!({"value": value}))).collect();
        world.send("PATCH", PATH, json!({ "keys": keys })).await
    };
    assert_eq!(put(16, "x").await.problem(), (422, "limit-exceeded".into()));
    assert_eq!(put(15, "one").await.json()["version"], 1);
    assert_eq!(put(15, "two").await.json()["version"], 2);
    assert_eq!(world.done("POST", &format!("{PATH}/rollback"), json!({"version": 2})).await["version"], 3);
    let keys = world.done("GET", PATH, Value::Null).await["keys"].clone();
    assert!(keys.as_object().unwrap().values().all(|key| key["value"] == "one"), "{keys}");
    let keyed =
        world.request("POST", &format!("{PATH}/rollback")).header("idempotency-key", uuid::Uuid::now_v7().to_string());
    assert_eq!(keyed.json(&json!({"version": 3})).send().await.unwrap().status(), 200, "also under a key");
}

const SUBSCRIBE: &str = "/v1.0/configuration/configstore/subscribe";

async fn get(world: &World, key: &str, path: &str) -> Answer {
    Answer::of(world.bare("GET", path).header("dapr-api-token", key).send().await.expect("an answer")).await
}

/// Subscribes on behalf of an application whose channel may be a moment away.
async fn subscription(world: &World, key: &str, path: &str) -> String {
    let answered = async {
        loop {
            let answer = get(world, key, path).await;
            if answer.status == 200 {
                break answer.json()["id"].as_str().expect("an id").to_owned();
            }
            assert_eq!(answer.json()["errorCode"], "ERR_APP_CHANNEL_NIL");
        }
    };
    tokio::time::timeout(SOON, answered).await.expect("its channel is not open")
}

#[tokio::test]
async fn who_subscribed_over_http_is_told_over_its_channel_until_it_unsubscribes() {
    let world = World::new().await;
    world.done("PUT", OWN, Value::Null).await;
    let key = key(&world, "shop/orders").await;
    let change = async |keys: Value| world.done("PATCH", PATH, json!({ "keys": keys })).await;
    let refused = get(&world, &key, &format!("{SUBSCRIBE}?key=colour")).await;
    assert_eq!((refused.status, &refused.json()["errorCode"]), (500, &json!("ERR_APP_CHANNEL_NIL")));
    assert!(refused.json()["message"].as_str().unwrap().contains("twin run --app-port"), "it says what to do");

    let mut app = App::open(&world, &key, "shop/orders", json!([])).await;
    let id = subscription(&world, &key, &format!("{SUBSCRIBE}?key=colour&key=shade")).await;
    let other = subscription(&world, &key, &format!("{}?key=a/b", SUBSCRIBE.replace("v1.0", "v1.0-alpha1"))).await;
    change(json!({"size": {"value": "l"}})).await;
    app.answer_next(&[(503, "")]);
    change(json!({"colour": {"value": "red", "metadata": {"by": "us"}}})).await;
    for _ in 0..2 {
        let asked = app.asked().await;
        assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/configuration/configstore/colour"));
        let told: Value = serde_json::from_slice(&asked.body).unwrap();
        let item = json!({"value": "red", "version": "2", "metadata": {"by": "us"}});
        assert_eq!(told, json!({"id": id, "items": {"colour": item}}), "and again, for it did not take it");
    }
    let unsubscribe = format!("/v1.0/configuration/configstore/{id}/unsubscribe");
    assert_eq!(get(&world, &key, &unsubscribe).await.json(), json!({"ok": true}));
    let again = get(&world, &key, &unsubscribe).await;
    assert_eq!((again.status, &again.json()["ok"]), (500, &json!(false)));
    for value in ["1", "2"] {
        change(json!({"colour": {"value": value}, "a/b": {"value": value}})).await;
        let asked = app.asked().await;
        assert_eq!(asked.path, "/configuration/configstore/a%2Fb", "the other subscription goes on alone");
        assert_eq!(serde_json::from_slice::<Value>(&asked.body).unwrap()["id"], other);
    }
}

#[tokio::test]
async fn who_subscribed_over_http_is_told_while_its_service_has_the_right_to_it() {
    let world = World::new().await;
    world.done("PUT", OWN, Value::Null).await;
    let key = key(&world, "shop/orders").await;
    let mut app = App::open(&world, &key, "shop/orders", json!([])).await;
    subscription(&world, &key, SUBSCRIBE).await;
    let mut events = world.request("GET", &format!("{OWN}/events")).send().await.unwrap();
    let denied = json!([{"effect": "deny", "scope": "configuration:*", "operations": ["get"]}]);
    world.done("PATCH", &format!("{OWN}/access"), json!({ "add": denied })).await;
    world.done("PATCH", PATH, json!({"keys": {"colour": {"value": "red"}}})).await;
    event(&mut events, "twin.denied").await;
    assert!(app.asked.try_recv().is_err(), "nothing is told without the right");
    world.done("PATCH", &format!("{OWN}/access"), json!({ "remove": denied })).await;
    let told: Value = serde_json::from_slice(&app.asked().await.body).unwrap();
    assert_eq!(told["items"]["colour"]["value"], "red", "what changed meanwhile is told once it is back");
}

#[tokio::test]
async fn subscriptions_over_http_end_with_their_channel_and_an_instance_has_its_bound() {
    let world = World::new().await;
    world.done("PUT", OWN, Value::Null).await;
    let key = key(&world, "shop/orders").await;
    let app = App::open(&world, &key, "shop/orders", json!([])).await;
    let first = subscription(&world, &key, SUBSCRIBE).await;
    for _ in 1..32 {
        assert_eq!(get(&world, &key, SUBSCRIBE).await.status, 200);
    }
    let refused = get(&world, &key, SUBSCRIBE).await;
    assert_eq!((refused.status, &refused.json()["errorCode"]), (429, &json!("ERR_CONFIGURATION_SUBSCRIBE")));
    assert!(refused.json()["message"].as_str().unwrap().contains("at most 32"), "{}", refused.json());
    app.served.abort();
    let gone = async { while get(&world, &key, SUBSCRIBE).await.status == 429 {} };
    tokio::time::timeout(SOON, gone).await.expect("they are still there");
    let unsubscribe = format!("/v1.0/configuration/configstore/{first}/unsubscribe");
    let gone = async { while get(&world, &key, &unsubscribe).await.status != 500 {} };
    tokio::time::timeout(SOON, gone).await.expect("it is still there");
}
