//! A service's secrets: set, read, rotated; and never in the clear where they lie.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use std::path::Path;

use serde_json::{Value, json};
use service_twin::config::StoreKind;

use crate::api_world::{Answer, World, config};

const OWN: &str = "/api/v1/twins/shop/orders";
const PLAIN: &str = "hunter2-in-the-clear";

async fn as_service(world: &World, key: &str, method: &str, path: &str, body: Value) -> Answer {
    let request = world.bare(method, path).bearer_auth(key);
    let request = if body.is_null() { request } else { request.json(&body) };
    Answer::of(request.send().await.unwrap()).await
}

async fn set(world: &World, query: &str, value: &str) -> u64 {
    let request = world.request("PUT", &format!("{OWN}/secrets/db{query}")).body(value.to_owned());
    let answer = Answer::of(request.header("content-type", "application/octet-stream").send().await.unwrap()).await;
    answer.json()["version"].as_u64().unwrap()
}

/// Every file below a folder that holds these bytes.
fn holding(folder: &Path, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path, needle));
        } else if std::fs::read(&path).unwrap().windows(needle.len()).any(|window| window == needle) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test]
async fn a_value_that_is_there_already_is_not_set_again_if_so_wished_by_who_may_read_it() {
    let world = World::new().await;
    let (_, key) = world.mint(json!({"kind": "service", "service": "shop/orders"})).await;
    assert_eq!(set(&world, "?unless_same=true", "x").await, 1);
    let journal = async || world.done("GET", &format!("{OWN}/journal"), Value::Null).await["entries"].clone();
    let before = journal().await;
    assert_eq!(set(&world, "?unless_same=true", "x").await, 1);
    assert_eq!(journal().await, before, "nothing was set, and nobody has read it");
    assert_eq!(set(&world, "?unless_same=true&rotate=true", "y").await, 2);
    assert_eq!(set(&world, "", "y").await, 3);
    let grants = json!({"add": [{"effect": "allow", "operations": ["set"], "scope": "secrets:*"},
                                {"effect": "deny", "operations": ["get"], "scope": "secrets:db"}]});
    world.done("PATCH", &format!("{OWN}/access"), grants).await;
    let guess = as_service(&world, &key, "PUT", &format!("{OWN}/secrets/db?unless_same=true"), json!("y")).await;
    assert_eq!(guess.problem(), (403, "denied".into()), "who may not read it, may not find it out by guessing");
    assert_eq!(as_service(&world, &key, "PUT", &format!("{OWN}/secrets/db"), json!("z")).await.status, 200);
}

#[tokio::test]
async fn a_secret_is_read_by_its_service_and_each_read_is_journaled() {
    let world = World::new().await;
    let (_, key) = world.mint(json!({"kind": "service", "service": "shop/orders"})).await;
    assert_eq!(set(&world, "", PLAIN).await, 1);
    let value = format!("{OWN}/secrets/db/value");
    let read = as_service(&world, &key, "GET", &value, Value::Null).await;
    assert_eq!((read.status, read.body.as_slice()), (200, PLAIN.as_bytes()));
    let journal = world.done("GET", &format!("{OWN}/journal"), Value::Null).await;
    let journal = journal.to_string();
    assert!(journal.contains("\"change\":\"secrets.read\"") && journal.contains("service:shop/orders:"), "{journal}");
    assert!(!journal.contains(PLAIN));
    assert_eq!(as_service(&world, &key, "PUT", &format!("{OWN}/secrets/db"), json!("x")).await.problem().1, "denied");
    let (_, other) = world.mint(json!({"kind": "service", "service": "shop/cart"})).await;
    let there = as_service(&world, &other, "GET", &value, Value::Null).await;
    let absent = as_service(&world, &other, "GET", &format!("{OWN}/secrets/none/value"), Value::Null).await;
    assert_eq!(there.problem(), (403, "denied".into()));
    assert_eq!(there.body, absent.body);
}

#[tokio::test]
async fn a_rotation_ends_when_every_live_instance_has_moved_on() {
    let world = World::new().await;
    for instance in ["a", "b"] {
        world.done("PUT", &format!("{OWN}/instances/{instance}"), Value::Null).await;
    }
    set(&world, "", "one").await;
    assert_eq!(set(&world, "?rotate=true&overlap_s=600", "two").await, 2);
    let status = async || world.done("GET", &format!("{OWN}/secrets/db"), Value::Null).await;
    let read = async |version: u64| {
        let path = format!("{OWN}/secrets/db/value?version={version}");
        let answer = Answer::of(world.request("GET", &path).send().await.unwrap()).await;
        (answer.status, String::from_utf8(answer.body).unwrap())
    };
    let ack = async |instance: &str, version: u64| {
        let body = json!({"instance": instance, "version": version});
        assert_eq!(world.send("POST", &format!("{OWN}/secrets/db/ack"), body).await.status, 204);
    };
    assert_eq!(status().await["previous"], 1);
    assert_eq!((read(1).await, read(2).await), ((200, "one".into()), (200, "two".into())));
    ack("a", 2).await;
    ack("b", 1).await;
    assert_eq!(status().await["previous"], 1, "one instance still uses it");
    ack("b", 2).await;
    let after = status().await;
    assert_eq!(after["previous"], Value::Null);
    assert_eq!(after["instances"].as_array().unwrap().len(), 2);
    assert_eq!(read(1).await.0, 404);
    assert_eq!(read(2).await, (200, "two".into()));
}

#[tokio::test]
async fn a_rotation_whose_time_is_over_names_who_had_not_moved_on() {
    let world = World::new().await;
    world.done("PUT", &format!("{OWN}/instances/late"), Value::Null).await;
    set(&world, "", "one").await;
    set(&world, "?rotate=true&overlap_s=10", "two").await;
    // Long enough for the twin to look again, and short enough for its instance to be there.
    world.clock.pass(std::time::Duration::from_secs(20));
    let over = async {
        while world.done("GET", &format!("{OWN}/secrets/db"), Value::Null).await["previous"] != Value::Null {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), over).await.expect("it did not end within 30 s");
    let journal = world.done("GET", &format!("{OWN}/journal"), Value::Null).await.to_string();
    assert!(journal.contains("\"stragglers\":[\"late\"]"), "{journal}");
}

#[tokio::test]
async fn the_newest_version_is_read_while_others_are_set() {
    let world = World::new().await;
    set(&world, "", "0").await;
    let sets = async {
        for number in 1..100 {
            set(&world, "", &number.to_string()).await;
        }
    };
    let reads = async {
        for _ in 0..300 {
            let path = format!("{OWN}/secrets/db/value");
            let read = Answer::of(world.request("GET", &path).send().await.unwrap()).await;
            assert_eq!(read.status, 200, "{}", String::from_utf8_lossy(&read.body));
        }
    };
    tokio::join!(sets, reads);
}

#[tokio::test]
async fn a_secret_is_set_without_an_idempotency_key_and_dapr_gives_out_no_other_bytes_than_were_set() {
    let world = World::new().await;
    let put = |name: &str, value: &'static [u8]| world.request("PUT", &format!("{OWN}/secrets/{name}")).body(value);
    let keyed = put("text", b"x").header("idempotency-key", "01890a5d-ac96-774b-bcce-b302099a8057");
    let refused = Answer::of(keyed.send().await.unwrap()).await;
    assert_eq!(refused.problem(), (400, "idempotency-not-kept".into()));
    assert_eq!(put("text", "grün".as_bytes()).send().await.unwrap().status(), 200);
    let (_, key) = world.mint(json!({"kind": "service", "service": "shop/orders"})).await;
    let dapr = async |name: &str| {
        let answer = as_service(&world, &key, "GET", &format!("/v1.0/secrets/secretstore/{name}"), Value::Null).await;
        (answer.status, answer.json())
    };
    assert_eq!(dapr("bulk").await, (200, json!({"text": {"text": "grün"}})));
    assert_eq!(put("binary", &[0, 255]).send().await.unwrap().status(), 200);
    for name in ["binary", "bulk"] {
        let (status, answer) = dapr(name).await;
        let said = answer["message"].as_str().unwrap().to_owned();
        assert!(status == 500 && said.contains("secret binary is no UTF-8"), "{name}: {status} {said}");
    }
    assert_eq!(dapr("text").await, (200, json!({"text": "grün"})));
}

#[tokio::test]
async fn no_plaintext_of_a_secret_lies_in_files_or_leaves_with_an_export_and_it_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = config(folder.path(), StoreKind::Sled);
    let world = World::start(folder, first.clone()).await;
    set(&world, "", PLAIN).await;
    assert_eq!(set(&world, "?rotate=true", "second-in-the-clear").await, 2);
    world.done("PATCH", &format!("{OWN}/attributes"), json!({"marker": "a-text-that-is-found"})).await;
    let World { node, folder, .. } = world;
    node.shutdown().await;
    assert!(!holding(folder.path(), b"a-text-that-is-found").is_empty(), "the search finds what is there");
    assert_eq!(holding(folder.path(), PLAIN.as_bytes()), Vec::<String>::new());
    assert_eq!(holding(folder.path(), b"second-in-the-clear"), Vec::<String>::new());
    let world = World::start(folder, first).await;
    let path = format!("{OWN}/secrets/db/value?version=1");
    assert_eq!(Answer::of(world.request("GET", &path).send().await.unwrap()).await.body, PLAIN.as_bytes());
}

#[tokio::test]
async fn secrets_under_another_node_key_are_refused_and_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let first = config(folder.path(), StoreKind::Sled);
    let world = World::start(folder, first.clone()).await;
    set(&world, "", PLAIN).await;
    let World { node, folder, .. } = world;
    node.shutdown().await;
    let key_file = folder.path().join("secrets.key");
    let key = std::fs::read_to_string(&key_file).unwrap();
    std::fs::write(&key_file, "00".repeat(32)).unwrap();
    let world = World::start(folder, first.clone()).await;
    let path = format!("{OWN}/secrets/db/value");
    let refused = Answer::of(world.request("GET", &path).send().await.unwrap()).await;
    assert_eq!(refused.problem(), (409, "conflict".into()));
    let World { node, folder, .. } = world;
    node.shutdown().await;
    std::fs::write(&key_file, key).unwrap();
    let world = World::start(folder, first).await;
    assert_eq!(Answer::of(world.request("GET", &path).send().await.unwrap()).await.body, PLAIN.as_bytes());
}
