//! Who may enter, and where to.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use serde_json::{Value, json};
use service_twin::app::KEY_FILE;

use crate::api_world::{Answer, World, event};

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
    assert!(!String::from_utf8_lossy(&listed.body).contains("twk_"), "no secret is listed");
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
    let wrong = format!("twk_{}_{}", "0".repeat(16), "0".repeat(64));
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
