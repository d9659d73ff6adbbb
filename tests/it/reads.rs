//! What reading twins promises: when an answer may be kept, what is found, and how the past is told.

use serde_json::{Value, json};

use crate::api_world::{Answer, World};

const TWIN: &str = "/api/v1/twins/shop/orders";

#[tokio::test]
async fn an_answer_with_observed_values_has_no_etag_and_is_never_304() {
    let world = World::new().await;
    world.done("PUT", &format!("{TWIN}/instances/pod-1"), json!({})).await;
    for query in ["", "?behaviour=true"] {
        let path = format!("{TWIN}{query}");
        let read = world.send("GET", &path, Value::Null).await;
        assert_eq!(read.etag, None, "{path}");
        let revision = read.json()["revision"].to_string();
        let again =
            world.request("GET", &path).header("if-none-match", format!("\"{revision}\"")).send().await.unwrap();
        assert_eq!(again.status(), 200, "{path}");
        let patch = world.request("PATCH", &format!("{TWIN}/attributes")).header("if-match", revision);
        let patched = Answer::of(patch.json(&json!({ "read": path })).send().await.unwrap()).await;
        assert_eq!(patched.status, 200, "the revision of the body is good for If-Match");
    }
}

#[tokio::test]
async fn a_search_for_what_no_twin_can_have_is_refused_with_what_it_can() {
    let world = World::new().await;
    world.done("PUT", TWIN, Value::Null).await;
    let cases = [
        ("health=bad", "unknown, healthy, degraded, unhealthy"),
        ("in_sync=maybe", "true, false"),
        ("instances=few", "a number"),
        ("limit=100000", "between 1 and 1000"),
    ];
    for (query, says) in cases {
        let refused = world.send("GET", &format!("/api/v1/twins?{query}"), Value::Null).await;
        assert_eq!(refused.problem(), (400, "bad-query".into()), "{query}");
        assert!(refused.json()["detail"].as_str().unwrap().contains(says), "{}", refused.json());
    }
    for query in ["instances=0", "in_sync=true", "health=un*"] {
        let found = world.done("GET", &format!("/api/v1/twins?{query}"), Value::Null).await;
        assert_eq!(found["twins"][0]["id"], "shop/orders", "{query}");
    }
}

#[tokio::test]
async fn a_removed_twin_is_listed_no_more() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        world.done("PUT", &format!("/api/v1/twins/shop/{name}"), Value::Null).await;
    }
    world.done("DELETE", "/api/v1/twins/shop/b", Value::Null).await;
    let page = world.done("GET", "/api/v1/twins?limit=2", Value::Null).await;
    let ids: Vec<&str> = page["twins"].as_array().unwrap().iter().filter_map(|twin| twin["id"].as_str()).collect();
    assert_eq!((ids, page.get("next")), (vec!["shop/a", "shop/c"], None));
}

#[tokio::test]
async fn a_service_finds_itself_where_the_terms_hold() {
    let world = World::new().await;
    for name in ["orders", "orders2"] {
        world.done("PUT", &format!("/api/v1/twins/shop/{name}"), json!({"attributes": {"tier": 1}})).await;
    }
    let (_, key) = world.mint(json!({"kind": "service", "service": "shop/orders"})).await;
    let found = async |query: &str| {
        let request = world.bare("GET", &format!("/api/v1/twins{query}")).bearer_auth(&key);
        Answer::of(request.send().await.unwrap()).await.json()["twins"].clone()
    };
    let itself = found("").await;
    assert_eq!((itself.as_array().unwrap().len(), &itself[0]["id"]), (1, &json!("shop/orders")));
    assert_eq!(itself[0]["terms"]["attr.tier"], "1");
    assert_eq!(found("?attr.tier=1&name=orders*").await, itself);
    for nothing in ["?attr.tier=2", "?name=orders2", "?after=shop/orders"] {
        assert_eq!(found(nothing).await, json!([]), "{nothing}");
    }
}

#[tokio::test]
async fn each_way_to_bring_a_twin_into_being_counts() {
    let world = World::with(|config| config.server.new_twins_per_hour = 1).await;
    world.done("POST", &format!("{TWIN}/commands"), json!({"name": "restart"})).await;
    let ways = [
        ("PUT", "", Value::Null),
        ("POST", "/commands", json!({"name": "restart"})),
        ("PUT", "/command-definitions/restart", json!({})),
        ("PUT", "/features/limits/desired", json!(1)),
        ("POST", "/features/limits/report", json!({"reported": 1})),
        ("PUT", "/instances/pod-1", json!({})),
        ("PATCH", "/attributes", json!({})),
    ];
    for (method, rest, body) in ways {
        let refused = world.send(method, &format!("/api/v1/twins/shop/second{rest}"), body).await;
        assert_eq!(refused.problem(), (429, "new-twins-limited".into()), "{method} {rest}");
    }
    world.done("POST", &format!("{TWIN}/commands"), json!({"name": "restart"})).await;
}

#[tokio::test]
async fn a_revision_inside_a_commit_is_answered_as_the_commit_left_the_twin() {
    let world = World::new().await;
    let set = world.done("PUT", &format!("{TWIN}/features/limits/desired"), json!({"rps": 5})).await;
    let last = set["revision"].as_u64().unwrap();
    assert!(last > 1, "one request, several changes: {set}");
    for at in 1..=last {
        let past = world.done("GET", &format!("{TWIN}?at={at}"), Value::Null).await;
        let told = (past["revision"].as_u64(), past["in_sync"].as_bool(), &past["features"][0]["delta"]);
        assert_eq!(told, (Some(last), Some(false), &json!({"rps": 5})), "at={at}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_said_once_and_in_words_of_the_api() {
    let world = World::new().await;
    world.done("PUT", TWIN, Value::Null).await;
    let detail = async |method: &str, path: &str, body: Value| {
        let refused = world.send(method, path, body).await;
        assert_eq!(refused.kind, "application/problem+json");
        refused.json()["detail"].as_str().unwrap().to_owned()
    };
    let again = detail("PUT", TWIN, Value::Null).await;
    assert_eq!(again, "service 'shop/orders' exists");
    let health = detail("PUT", &format!("{TWIN}/instances/pod-1"), json!({"health": "fine"})).await;
    assert!(!health.contains("SelfHealth") && health.starts_with("the body: "), "{health}");
    let query = detail("GET", &format!("{TWIN}?color=red"), Value::Null).await;
    assert!(!query.contains("deserialize") && query.contains("color"), "{query}");
    let limit = detail("GET", &format!("{TWIN}/journal?limit=100000"), Value::Null).await;
    assert!(limit.contains("between 1 and 1000"), "{limit}");
}
