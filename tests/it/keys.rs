//! Who may enter, and where to.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use std::time::Duration;

use serde_json::{Value, json};
use service_twin::{
    app::{Error, KEY_FILE, Node, TOKEN_KEY_FILE},
    config::StoreKind,
    model::{
        Clock as _, Timestamp,
        rights::{Attenuation, Narrowing},
        scope::{Operations, Pattern},
    },
    token,
};

use crate::api_world::{Answer, World, config, event};

const OWN: &str = "/api/v1/twins/shop/orders";
const OTHER: &str = "/api/v1/twins/shop/cart";
const NEVER: &str = "/api/v1/twins/shop/never";

async fn with(world: &World, key: &str, method: &str, path: &str) -> Answer {
    let request = world.bare(method, path).bearer_auth(key);
    Answer::of(request.header("content-type", "application/json").body("{}").send().await.unwrap()).await
}

#[tokio::test]
async fn a_service_key_reaches_its_own_twin_and_cannot_tell_whether_another_one_exists() {
    let world = World::new().await;
    world.done("PUT", OWN, Value::Null).await;
    world.done("PUT", OTHER, Value::Null).await;
    let (_, key) = world.mint(json!({"kind": "service", "service": "shop/orders", "label": "orders"})).await;
    assert_eq!(with(&world, &key, "GET", OWN).await.status, 200);
    let listed = with(&world, &key, "GET", "/api/v1/twins").await.json();
    assert_eq!(listed["twins"].as_array().unwrap().len(), 1);
    for method in ["GET", "DELETE"] {
        let (exists, never) = (with(&world, &key, method, OTHER).await, with(&world, &key, method, NEVER).await);
        assert_eq!(exists.problem(), (403, "denied".into()));
        assert_eq!(exists.body, never.body);
    }
    for (method, path) in [
        ("DELETE", OWN.to_owned()),
        ("PATCH", format!("{OWN}/attributes")),
        ("PUT", format!("{OWN}/features/f/desired")),
        ("POST", format!("{OWN}/commands")),
        ("GET", "/api/v1/events".to_owned()),
        ("GET", "/api/v1/keys".to_owned()),
        ("GET", "/metrics".to_owned()),
    ] {
        let answer = with(&world, &key, method, &path).await;
        assert!([400, 403].contains(&answer.status), "{method} {path}: {}", answer.status);
        if path != format!("{OWN}/commands") {
            assert_eq!(answer.problem().1, "denied", "{method} {path}");
        }
    }
    assert_eq!(with(&world, &key, "PUT", &format!("{OWN}/instances/i1")).await.status, 200);
}

#[tokio::test]
async fn an_ingest_key_reads_nothing() {
    let world = World::new().await;
    world.done("PUT", OWN, Value::Null).await;
    let (_, key) = world.mint(json!({"kind": "ingest", "namespace": "shop"})).await;
    for path in [OWN, "/api/v1/twins", "/api/v1/keys"] {
        assert_eq!(with(&world, &key, "GET", path).await.problem(), (403, "denied".into()), "{path}");
    }
}

#[tokio::test]
async fn a_revoked_key_is_refused_by_the_next_request() {
    let world = World::new().await;
    let (id, key) = world.mint(json!({"kind": "operator", "label": "ci"})).await;
    assert_eq!(with(&world, &key, "GET", "/api/v1/twins").await.status, 200);
    world.done("DELETE", &format!("/api/v1/keys/{id}"), Value::Null).await;
    assert_eq!(with(&world, &key, "GET", "/api/v1/twins").await.problem(), (401, "key-revoked".into()));
    let listed = Answer::of(world.request("GET", "/api/v1/keys").send().await.unwrap()).await;
    assert!(!String::from_utf8_lossy(&listed.body).contains("twk_"), "no key is listed");
    let keys = listed.json();
    let revoked = keys["keys"].as_array().unwrap().iter().find(|found| found["id"] == id.as_str()).unwrap().clone();
    assert_eq!((revoked["label"].as_str(), revoked["revoked_at"].is_u64()), (Some("ci"), true));
}

#[tokio::test]
async fn an_open_stream_ends_with_the_reason_when_its_key_is_revoked_and_others_go_on() {
    let world = World::new().await;
    world.done("PUT", OWN, Value::Null).await;
    world.done("PUT", &format!("{OWN}/instances/i1"), Value::Null).await;
    let commands = format!("{OWN}/instances/i1/commands");
    let mut kept = world.request("GET", "/api/v1/events").send().await.unwrap();
    let (id, key) = world.mint(json!({"kind": "operator", "label": "ci"})).await;
    let mut streams = Vec::new();
    for path in ["/api/v1/events".to_owned(), format!("{OWN}/events"), commands] {
        let stream = world.bare("GET", &path).bearer_auth(&key).send().await.unwrap();
        assert_eq!(stream.status(), 200, "{path}");
        streams.push((path, stream));
    }
    world.done("DELETE", &format!("/api/v1/keys/{id}"), Value::Null).await;
    world.done("PATCH", &format!("{OWN}/attributes"), json!({"secret": "not for this key any more"})).await;
    for (path, mut stream) in streams {
        let mut text = String::new();
        while let Some(chunk) = stream.chunk().await.unwrap() {
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        assert!(text.contains("event: end") && text.contains("key-revoked"), "{path}: {text}");
        assert!(!text.contains("not for this key"), "{path}: {text}");
    }
    event(&mut kept, "twin.attributes.changed").await;
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_a_guesser_throttled_while_the_operator_goes_on() {
    let world = World::new().await;
    assert_eq!(world.bare("GET", OWN).send().await.unwrap().status(), 401);
    world.done("PUT", OWN, Value::Null).await;
    let wrong = format!("{}A", world.operator);
    for _ in 0..20 {
        assert_eq!(with(&world, &wrong, "GET", OWN).await.problem(), (401, "key-invalid".into()));
    }
    assert_eq!(with(&world, &wrong, "GET", OWN).await.problem(), (429, "key-throttled".into()));
    assert_eq!(world.send("GET", OWN, Value::Null).await.status, 200);
    for wrong in [json!({"kind": "ingest"}), json!({"kind": "service", "service": "a/b/c"}), json!({"kind": "king"})] {
        assert_eq!(
            world.send("POST", "/api/v1/keys", wrong.clone()).await.problem(),
            (400, "invalid".into()),
            "{wrong}"
        );
    }
}

/// A key that reaches less far.
fn narrowed(key: &str, operations: &[&str], scopes: &[&str]) -> String {
    let operations = match operations {
        [] => Operations::All,
        some => Operations::Some(some.iter().map(|&name| name.into()).collect()),
    };
    let scopes: Vec<_> = scopes.iter().map(|scope| Pattern::parse(scope).unwrap()).collect();
    let narrowing = Narrowing { operations, scopes: Some(scopes).filter(|scopes| !scopes.is_empty()) };
    token::attenuate(key, &Attenuation { narrowing, ..Attenuation::default() }).unwrap()
}

#[tokio::test]
async fn a_narrowed_key_does_what_is_left_of_it_and_nothing_else() {
    let world = World::new().await;
    world.done("PUT", OWN, json!({"attributes": {"owner": "team-a"}})).await;
    world.done("PUT", OTHER, Value::Null).await;
    let reads = narrowed(&world.operator, &["get"], &["twin:shop/orders*", "node:metrics"]);
    for path in [OWN, &format!("{OWN}/attributes"), &format!("{OWN}/attributes/owner"), "/metrics"] {
        assert_eq!(with(&world, &reads, "GET", path).await.status, 200, "{path}");
    }
    for (method, path) in [
        ("GET", OTHER),
        ("GET", NEVER),
        ("PUT", OWN),
        ("DELETE", OWN),
        ("GET", "/api/v1/twins"),
        ("GET", "/api/v1/events"),
        ("GET", "/api/v1/keys"),
        ("GET", &format!("{OWN}/events")),
        ("DELETE", "/api/v1/keys/0123456789abcdef"),
    ] {
        assert_eq!(with(&world, &reads, method, path).await.problem(), (403, "denied".into()), "{method} {path}");
    }
    let part = narrowed(&world.operator, &[], &["twin:shop/orders/features/limits/*"]);
    let limits = format!("{OWN}/features/limits/desired");
    assert_eq!(with(&world, &part, "PUT", &limits).await.status, 200);
    let encoded = format!("{OWN}/features/%6Cimits/desired");
    assert_eq!(with(&world, &part, "PUT", &encoded).await.status, 200, "a path is what it decodes to");
    let other = format!("{OWN}/features/other/desired");
    let refused = with(&world, &part, "PUT", &other).await;
    assert_eq!(refused.problem(), (403, "denied".into()));
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("'set' on 'twin:shop/orders/features/other/desired'"), "{detail}");
}

#[tokio::test]
async fn a_key_that_may_change_a_twin_does_not_decide_what_its_service_may_do() {
    let world = World::new().await;
    let edit = async |operation: &str| {
        let key = narrowed(&world.operator, &[operation], &["twin:shop/orders*"]);
        let body = json!({"add": [{"effect": "allow", "scope": "secrets:*"}]});
        let request = world.bare("PATCH", &format!("{OWN}/access")).bearer_auth(&key).json(&body);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!((edit("set").await, edit("grant").await), (403, 200));
}

#[tokio::test]
async fn a_narrowed_key_makes_no_keys() {
    let world = World::new().await;
    let keys = narrowed(&world.operator, &["set"], &["node:keys"]);
    let (id, _) = world.mint(json!({"kind": "operator"})).await;
    let mint = world.bare("POST", "/api/v1/keys").bearer_auth(&keys).json(&json!({"kind": "operator"}));
    assert_eq!(Answer::of(mint.send().await.unwrap()).await.problem(), (403, "denied".into()));
    let rotated = with(&world, &keys, "POST", &format!("/api/v1/keys/{id}/rotate")).await;
    assert_eq!(rotated.problem(), (403, "denied".into()));
    assert_eq!(with(&world, &keys, "DELETE", &format!("/api/v1/keys/{id}")).await.status, 200, "it may revoke them");
}

#[tokio::test]
async fn a_key_of_one_instance_speaks_for_no_other() {
    let world = World::new().await;
    let (_, key) = world.mint(json!({"kind": "service", "service": "shop/orders"})).await;
    let by = Attenuation { instances: Some(vec!["i1".into()]), ..Attenuation::default() };
    let key = token::attenuate(&key, &by).unwrap();
    assert_eq!(with(&world, &key, "PUT", &format!("{OWN}/instances/i1")).await.status, 200);
    assert_eq!(with(&world, &key, "GET", OWN).await.status, 200, "this names no instance");
    for (method, path) in [("PUT", "i2"), ("DELETE", "i2"), ("GET", "i2/commands")] {
        let answer = with(&world, &key, method, &format!("{OWN}/instances/{path}")).await;
        assert_eq!(answer.problem(), (403, "denied".into()), "{method} {path}");
    }
    world.done("PUT", &format!("{OWN}/secrets/db"), json!("hunter2")).await;
    world.done("PATCH", &format!("{OWN}/configuration"), json!({"keys": {"rps": {"value": "5"}}})).await;
    for path in ["secrets/db/ack", "configuration/applied"] {
        for (instance, status) in [("i1", 204), ("i2", 403)] {
            let request = world.bare("POST", &format!("{OWN}/{path}")).bearer_auth(&key);
            let answer = request.json(&json!({"instance": instance, "version": 1})).send().await.unwrap();
            assert_eq!(answer.status(), status, "{path} {instance}");
        }
    }
    for (path, secret) in [("secrets/ack", Some("db")), ("configuration/applied", None)] {
        for (instance, status) in [("i1", 200), ("i2", 403)] {
            let mut body = json!({"instance": instance, "version": 1});
            if let Some(secret) = secret {
                body["secret"] = secret.into();
            }
            let request = world.bare("POST", &format!("{OWN}/capabilities/{path}")).bearer_auth(&key);
            let answer = request.json(&body).send().await.unwrap();
            assert_eq!(answer.status(), status, "by its name: {path} {instance}");
        }
    }
    let logs = |instance: &str| {
        let attribute = |name: &str, value: &str| json!({"key": name, "value": {"stringValue": value}});
        let attributes = [
            attribute("service.name", "orders"),
            attribute("service.namespace", "shop"),
            attribute("service.instance.id", instance),
        ];
        let records = json!([{"body": {"stringValue": "x"}, "severityNumber": 9}]);
        json!({"resourceLogs": [{"resource": {"attributes": attributes}, "scopeLogs": [{"logRecords": records}]}]})
    };
    for (instance, refused) in [("i1", false), ("i2", true)] {
        let sent = world.bare("POST", "/v1/logs").bearer_auth(&key).json(&logs(instance)).send().await.unwrap();
        let answer = Answer::of(sent).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["partialSuccess"].is_object(), refused, "{instance}: {}", answer.json());
    }
}

#[tokio::test]
async fn a_key_for_telemetry_sends_that_and_reads_nothing() {
    let world = World::new().await;
    world.done("PUT", OWN, Value::Null).await;
    let (_, key) = world.mint(json!({"kind": "service", "service": "shop/orders"})).await;
    let key = narrowed(&key, &["write"], &["telemetry:*"]);
    let attributes = json!([
        {"key": "service.name", "value": {"stringValue": "orders"}},
        {"key": "service.namespace", "value": {"stringValue": "shop"}},
    ]);
    let logs = json!({"resourceLogs": [{"resource": {"attributes": attributes},
        "scopeLogs": [{"logRecords": [{"body": {"stringValue": "x"}}]}]}]});
    let sent = world.bare("POST", "/v1/logs").bearer_auth(&key).json(&logs).send().await.unwrap();
    let answer = Answer::of(sent).await;
    assert_eq!((answer.status, answer.json()["partialSuccess"].is_null()), (200, true));
    assert_eq!(with(&world, &key, "GET", OWN).await.problem(), (403, "denied".into()));
    assert_eq!(with(&world, &key, "GET", "/api/v1/twins").await.problem(), (403, "denied".into()));
}

#[tokio::test]
async fn an_expired_key_is_refused_and_a_stream_opened_with_it_ends_with_the_reason() {
    let world = World::new().await;
    let until = |at: Timestamp| {
        token::attenuate(&world.operator, &Attenuation { expires_at: Some(at), ..Attenuation::default() }).unwrap()
    };
    let past = until(Timestamp::from_unix_ms(1000));
    assert_eq!(with(&world, &past, "GET", "/api/v1/twins").await.problem(), (401, "key-expired".into()));
    let soon = until(world.clock.now().after(Duration::from_secs(3600)));
    let mut stream = world.bare("GET", "/api/v1/events").bearer_auth(&soon).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    world.clock.pass(Duration::from_secs(3600));
    world.done("PUT", OWN, Value::Null).await;
    let mut text = String::new();
    while let Some(chunk) = stream.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(text.contains("event: end") && text.contains("key-expired"), "{text}");
    assert!(!text.contains("shop/orders"), "{text}");
}

#[tokio::test]
async fn a_revocation_reaches_keys_that_were_narrowed_from_it_and_their_streams() {
    let world = World::new().await;
    let (id, key) = world.mint(json!({"kind": "operator"})).await;
    let key = narrowed(&key, &["watch", "list"], &[]);
    let mut stream = world.bare("GET", "/api/v1/events").bearer_auth(&key).send().await.unwrap();
    assert_eq!(with(&world, &key, "GET", "/api/v1/twins").await.status, 200);
    world.done("DELETE", &format!("/api/v1/keys/{id}"), Value::Null).await;
    assert_eq!(with(&world, &key, "GET", "/api/v1/twins").await.problem(), (401, "key-revoked".into()));
    let mut text = String::new();
    while let Some(chunk) = stream.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(text.contains("key-revoked"), "{text}");
}

#[tokio::test]
async fn a_key_and_the_one_in_its_place_both_count_for_a_while() {
    let world = World::new().await;
    let (id, old) = world.mint(json!({"kind": "service", "service": "shop/orders", "label": "orders"})).await;
    world.done("PUT", OWN, Value::Null).await;
    let rotate = format!("/api/v1/keys/{id}/rotate");
    let made = world.done("POST", &rotate, json!({"overlap_s": 3600})).await;
    assert_eq!((&made["service"], &made["label"]), (&json!("shop/orders"), &json!("orders")));
    assert_eq!(made["replaces"]["id"], id.as_str());
    let new = made["key"].as_str().unwrap().to_owned();
    for key in [&old, &new] {
        assert_eq!(with(&world, key, "GET", OWN).await.status, 200);
    }
    let again = world.done("POST", &rotate, json!({"overlap_s": 0})).await;
    assert_eq!(with(&world, &old, "GET", OWN).await.problem(), (401, "key-revoked".into()));
    assert_eq!(with(&world, again["key"].as_str().unwrap(), "GET", OWN).await.status, 200);
    assert_eq!(world.send("POST", &rotate, Value::Null).await.problem(), (409, "conflict".into()));
    assert_eq!(
        world.send("POST", "/api/v1/keys/0000000000000000/rotate", Value::Null).await.problem(),
        (404, "not-found".into())
    );
    let long = json!({"overlap_s": 90 * 24 * 3600 + 1});
    assert_eq!(world.send("POST", &rotate, long).await.problem(), (400, "invalid".into()));
}

#[tokio::test]
async fn the_keys_of_a_service_that_were_made_before_a_time_are_revoked_at_once_and_no_others() {
    let world = World::new().await;
    let service = |name: &str| json!({"kind": "service", "service": name});
    let (first, first_key) = world.mint(service("shop/orders")).await;
    let (_, other_key) = world.mint(service("shop/orders-2")).await;
    let revoke = |body: Value| world.done("POST", "/api/v1/keys/revoke", body);
    let none = revoke(json!({"service": "shop/orders", "issued_before": "2020-01-01T00:00:00Z"})).await;
    assert_eq!(none["keys"], json!([]));
    assert_eq!(revoke(json!({"service": "shop/ord*"})).await["keys"], json!([]), "a service of its own");
    assert_eq!(with(&world, &first_key, "GET", "/api/v1/twins").await.status, 200);
    world.clock.pass(Duration::from_millis(1));
    let revoked = revoke(json!({"service": "shop/orders"})).await;
    let ids: Vec<_> = revoked["keys"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [first.as_str()]);
    assert_eq!(with(&world, &first_key, "GET", "/api/v1/twins").await.problem(), (401, "key-revoked".into()));
    assert_eq!(with(&world, &other_key, "GET", "/api/v1/twins").await.status, 200);
    let (_, later) = world.mint(service("shop/orders")).await;
    assert_eq!(with(&world, &later, "GET", "/api/v1/twins").await.status, 200);
}

#[tokio::test]
async fn a_key_comes_in_either_header_but_not_two_different_ones() {
    let world = World::new().await;
    let (_, other) = world.mint(json!({"kind": "operator"})).await;
    let asked = |request: reqwest::RequestBuilder| async { Answer::of(request.send().await.unwrap()).await };
    let dapr = |key: &str| world.bare("GET", "/api/v1/twins").header("dapr-api-token", key);
    assert_eq!(asked(dapr(&world.operator)).await.status, 200);
    assert_eq!(asked(dapr(&world.operator).bearer_auth(&world.operator)).await.status, 200);
    assert_eq!(asked(dapr(&other).bearer_auth(&world.operator)).await.problem(), (401, "key-invalid".into()));
    assert_eq!(asked(dapr("nonsense")).await.problem(), (401, "key-invalid".into()));
}

#[tokio::test]
async fn a_key_of_another_node_or_audience_is_refused() {
    let (world, other) = (World::new().await, World::with(|config| config.server.audience = Some("east".into())).await);
    assert_eq!(with(&world, &other.operator, "GET", "/api/v1/twins").await.problem(), (401, "key-invalid".into()));
    let for_audience = |world: &World, name: &str| {
        let by = Attenuation { audiences: Some(vec![name.into()]), ..Attenuation::default() };
        token::attenuate(&world.operator, &by).unwrap()
    };
    assert_eq!(with(&other, &for_audience(&other, "east"), "GET", "/api/v1/twins").await.status, 200);
    for (world, name) in [(&other, "west"), (&world, "east")] {
        let answer = with(world, &for_audience(world, name), "GET", "/api/v1/twins").await;
        assert_eq!(answer.problem(), (401, "key-invalid".into()));
        assert!(answer.json()["detail"].as_str().unwrap().contains("server.audience"));
    }
}

#[tokio::test]
async fn keys_count_after_a_restart_as_long_as_the_key_that_signs_them_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let start = || Node::start(config(folder.path(), StoreKind::Sled));
    let ask = async |node: &Node, key: &str| {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.get(format!("{}/api/v1/twins", node.url())).bearer_auth(key);
        request.send().await.unwrap().status().as_u16()
    };
    let operator = || std::fs::read_to_string(folder.path().join(KEY_FILE)).unwrap().trim().to_owned();
    start().await.unwrap().shutdown().await;
    let first = operator();
    let node = start().await.unwrap();
    assert_eq!((ask(&node, &first).await, operator()), (200, first.clone()));
    node.shutdown().await;
    std::fs::write(folder.path().join(TOKEN_KEY_FILE), "nonsense").unwrap();
    assert!(matches!(start().await, Err(Error::TokenKey { .. })), "it is not made anew over something else");
    std::fs::remove_file(folder.path().join(TOKEN_KEY_FILE)).unwrap();
    let node = start().await.unwrap();
    let second = operator();
    assert_eq!((ask(&node, &first).await, ask(&node, &second).await), (401, 200), "nobody is locked out");
    node.shutdown().await;
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_of_the_data_folder_reads_the_first_key() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new().await;
    let mode = std::fs::metadata(world.folder.path().join(KEY_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_caller_from_this_machine_needs_no_key_only_if_the_node_was_told_so() {
    let world = World::with(|config| config.server.anonymous_loopback = true).await;
    assert_eq!(world.bare("PUT", OWN).send().await.unwrap().status(), 201);
    let foreign = world.bare("GET", OWN).header("origin", "https://elsewhere.example").send().await.unwrap();
    assert_eq!(Answer::of(foreign).await.problem(), (401, "key-missing".into()));
}
