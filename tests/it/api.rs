//! The native API over real HTTP.

use serde_json::{Value, json};
use service_twin::{config::StoreKind, server::OPEN_STREAMS_MAX};

use crate::api_world::{Answer, World, config, event};

/// Method, path, headers, body; status and code of the answer.
type Case<'a> = (&'a str, String, &'a [(&'a str, &'a str)], &'a str, u16, &'a str);

const TWIN: &str = "/api/v1/twins/shop/orders";

fn path(rest: &str) -> String {
    format!("{TWIN}{rest}")
}

#[tokio::test]
async fn a_twin_is_created_read_changed_and_removed() {
    let world = World::new().await;
    assert_eq!(world.send("GET", TWIN, Value::Null).await.problem(), (404, "not-found".into()));
    let created = world.send("PUT", TWIN, json!({"attributes": {"owner": "team-a"}})).await;
    assert_eq!((created.status, created.json()["revision"].as_u64()), (201, Some(1)));
    let read = world.send("GET", TWIN, Value::Null).await;
    let etag = read.etag.clone().unwrap();
    assert_eq!((read.json()["id"].as_str(), etag.as_str()), (Some("shop/orders"), "\"1\""));
    let again = world.request("GET", TWIN).header("if-none-match", &etag).send().await.unwrap();
    assert_eq!(again.status(), 304);

    let patch = |etag: &str| {
        let request = world.request("PATCH", &path("/attributes")).header("if-match", etag);
        request.json(&json!({"tier": 1, "owner": "größe"}))
    };
    let stale = Answer::of(patch("\"7\"").send().await.unwrap()).await;
    assert_eq!(stale.problem(), (412, "precondition-failed".into()));
    let patched = Answer::of(patch(&etag).send().await.unwrap()).await;
    assert_eq!((patched.status, patched.etag.as_deref()), (200, Some("\"2\"")));
    assert_eq!(world.done("GET", &path("/attributes/owner"), Value::Null).await, json!("größe"));
    assert_eq!(world.send("GET", &path("/attributes/none"), Value::Null).await.status, 404);

    assert_eq!(world.done("GET", &path("?at=1"), Value::Null).await["attributes"], json!({"owner": "team-a"}));
    let journal = world.done("GET", &path("/journal?limit=1"), Value::Null).await;
    assert_eq!((journal["entries"][0]["revision"].as_u64(), journal["next"].as_u64()), (Some(1), Some(1)));
    let who = journal["entries"][0]["principal"].as_str().unwrap();
    assert!(who.starts_with("operator:"), "{who}");

    assert_eq!(world.send("DELETE", TWIN, Value::Null).await.status, 200);
    for past in ["", "?at=1", "?at=3", "/journal", "/journal?after=1"] {
        assert_eq!(world.send("GET", &path(past), Value::Null).await.problem(), (410, "removed".into()), "{past}");
    }
    world.done("PUT", TWIN, Value::Null).await;
    for past in ["?at=1", "?at=3", "/journal"] {
        assert_eq!(world.send("GET", &path(past), Value::Null).await.problem(), (410, "history-gone".into()), "{past}");
    }
    assert_eq!(world.done("GET", &path("?at=4"), Value::Null).await["attributes"], json!({}));
    let journal = world.done("GET", &path("/journal?after=3"), Value::Null).await;
    assert_eq!(journal["entries"][0]["revision"].as_u64(), Some(4), "{journal}");
}

#[tokio::test]
async fn bad_input_is_answered_with_a_problem_that_names_it() {
    let world = World::new().await;
    world.done("PUT", TWIN, Value::Null).await;
    let cases: [Case<'_>; 25] = [
        ("GET", "/api/v1/nothing".into(), &[], "", 404, "no-such-path"),
        ("POST", TWIN.into(), &[], "", 405, "method-not-allowed"),
        ("GET", path("?color=red"), &[], "", 400, "bad-query"),
        ("GET", path("?at=yesterday"), &[], "", 400, "bad-query"),
        ("GET", path("?at=99"), &[], "", 404, "not-found"),
        ("GET", "/api/v1/twins?color=red".into(), &[], "", 400, "bad-query"),
        ("GET", "/api/v1/twins?limit=100000".into(), &[], "", 400, "bad-query"),
        ("GET", path("/commands/seven"), &[], "", 400, "invalid"),
        ("GET", "/api/v1/twins/shop/%0A".into(), &[], "", 400, "invalid"),
        ("PATCH", path("/attributes"), &[("if-match", "soon")], "{}", 400, "bad-header"),
        ("PATCH", path("/attributes"), &[("idempotency-key", "mine")], "{}", 400, "bad-header"),
        ("PATCH", path("/attributes"), &[("request-timeout", "soon")], "{}", 400, "bad-header"),
        ("GET", path(""), &[("twin-consistency", "strong")], "", 400, "bad-header"),
        ("GET", "/api/v1/twins".into(), &[("twin-consistency", "strict")], "", 501, "unsupported"),
        ("PATCH", path("/attributes"), &[("request-timeout", "0")], "{}", 504, "deadline-exceeded"),
        ("PATCH", path("/attributes"), &[("content-type", "text/plain")], "{}", 415, "unsupported-media-type"),
        ("PATCH", path("/attributes"), &[], "{\"a\":", 400, "malformed-body"),
        ("POST", path("/commands"), &[], "{\"nome\":\"x\"}", 400, "invalid"),
        ("GET", path("/events"), &[("last-event-id", "x")], "", 400, "bad-header"),
        ("PATCH", path("/attributes"), &[("idempotency-key-time", "soon")], "{}", 400, "bad-header"),
        ("PUT", path("/instances/i1"), &[], "[]", 400, "invalid"),
        ("PUT", path("/instances/i1"), &[], r#"{"health": ["healthy", ""]}"#, 400, "invalid"),
        (
            "PUT",
            path("/instances/i1"),
            &[],
            r#"{"health": {"status": "healthy", "reason": "", "x": 1}}"#,
            400,
            "invalid",
        ),
        ("POST", "/api/v1/keys".into(), &[], r#"["operator", null, null, ""]"#, 400, "invalid"),
        ("GET", "/problems/%FF".into(), &[], "", 400, "invalid"),
    ];
    for (method, path, headers, body, status, code) in cases {
        let mut request = world.request(method, &path).body(body.to_owned());
        if headers.iter().all(|(name, _)| *name != "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert_eq!(answer.problem(), (status, code.to_owned()), "{method} {path} {headers:?} {body}");
        let page = format!("/problems/{code}");
        assert!(Answer::of(world.bare("GET", &page).send().await.unwrap()).await.body.starts_with(b"# "));
    }
    let large = world.request("PATCH", &path("/attributes")).header("content-type", "application/json");
    let large = large.body(vec![b' '; 5 << 20]).send().await.unwrap();
    assert_eq!(Answer::of(large).await.problem(), (413, "body-too-large".into()));
}

#[tokio::test]
async fn a_method_that_is_not_served_is_answered_with_those_that_are() {
    let world = World::new().await;
    for (method, path, allowed) in [
        ("POST", path("/attributes"), "GET,HEAD,PATCH"),
        ("GET", "/v1/traces".into(), "POST"),
        ("PUT", "/livez".into(), "GET,HEAD"),
    ] {
        let answer = world.request(method, &path).send().await.unwrap();
        let allow = answer.headers().get("allow").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!((answer.status().as_u16(), allow.as_deref()), (405, Some(allowed)), "{method} {path}");
    }
}

#[tokio::test]
async fn a_repeat_under_the_same_key_changes_nothing_and_another_request_under_it_is_refused() {
    let world = World::new().await;
    world.done("PUT", TWIN, Value::Null).await;
    let key = uuid::Uuid::now_v7().to_string();
    let send = async |body: Value| {
        let request = world.request("POST", &path("/commands")).header("idempotency-key", &key).json(&body);
        Answer::of(request.send().await.unwrap()).await
    };
    let (first, second) = (send(json!({"name": "restart"})).await, send(json!({"name": "restart"})).await);
    assert_eq!((first.status, second.status), (202, 202));
    assert_eq!(first.json(), second.json());
    assert_eq!(send(json!({"name": "stop"})).await.problem(), (422, "idempotency-key-reused".into()));
    let listed = world.done("GET", &path("/commands"), Value::Null).await;
    assert_eq!(listed["commands"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn twins_are_found_by_attribute_and_health_page_by_page() {
    let world = World::new().await;
    for number in 0..5 {
        let owner = if number % 2 == 0 { "even" } else { "odd" };
        world.done("PUT", &format!("/api/v1/twins/shop/s{number}"), json!({"attributes": {"owner": owner}})).await;
    }
    let first = world.done("GET", "/api/v1/twins?attr.owner=even&limit=2", Value::Null).await;
    assert_eq!(first["twins"][1]["id"], "shop/s2");
    assert_eq!(first["twins"][1]["terms"]["attr.owner"], "even");
    let next = format!("/api/v1/twins?attr.owner=even&limit=2&after={}", first["next"].as_str().unwrap());
    let second = world.done("GET", &next, Value::Null).await;
    assert_eq!((second["twins"][0]["id"].as_str(), second.get("next")), (Some("shop/s4"), None));
    let healthy = world.done("GET", "/api/v1/twins?health=degraded", Value::Null).await;
    assert_eq!(healthy["twins"], json!([]));
    let named = world.done("GET", "/api/v1/twins?name=s*&limit=1", Value::Null).await;
    assert_eq!(named["twins"][0]["id"], "shop/s0");
}

#[tokio::test]
async fn what_is_desired_and_not_reported_is_the_delta() {
    let world = World::new().await;
    world.done("PUT", &path("/features/limits/desired"), json!({"rps": 50, "burst": 5})).await;
    let delta = world.done("GET", &path("/features/limits/delta"), Value::Null).await;
    assert_eq!((delta["delta"].clone(), delta["in_sync"].as_bool()), (json!({"rps": 50, "burst": 5}), Some(false)));
    world.done("POST", &path("/features/limits/report"), json!({"reported": {"rps": 50, "burst": 5}})).await;
    assert_eq!(world.done("GET", &path("/features/limits/delta"), Value::Null).await["in_sync"], true);
    let both = world.send("POST", &path("/features/limits/report"), json!({"reported": 1, "reported_patch": 2})).await;
    assert_eq!(both.problem(), (400, "invalid".into()));
    world.done("PATCH", &path("/features/limits/desired"), json!({"burst": null})).await;
    let features = world.done("GET", &path("/features"), Value::Null).await;
    assert_eq!(features[0]["desired"], json!({"rps": 50}));
    world.done("DELETE", &path("/features/limits/desired"), Value::Null).await;
}

#[tokio::test]
async fn what_takes_away_makes_no_twin() {
    let world = World::new().await;
    for rest in ["/features/limits/desired", "/command-definitions/drain", "/instances/i1", ""] {
        assert_eq!(world.send("DELETE", &path(rest), Value::Null).await.problem(), (404, "not-found".into()), "{rest}");
    }
    assert_eq!(world.send("GET", TWIN, Value::Null).await.status, 404);
}

#[tokio::test]
async fn a_command_reaches_the_stream_of_an_instance_and_its_result_comes_back() {
    let world = World::new().await;
    world.done("PUT", &path("/instances/i1"), json!({"version": "1.2"})).await;
    let mut stream = world.request("GET", &path("/instances/i1/commands")).send().await.unwrap();
    let posted = world.done("POST", &path("/commands"), json!({"name": "drain", "parameters": {"s": 3}})).await;
    let (_, command) = event(&mut stream, "command").await;
    assert_eq!((command["id"].clone(), command["parameters"].clone()), (posted["id"].clone(), json!({"s": 3})));
    let of = |rest: &str| path(&format!("/commands/{}{rest}", posted["id"]));
    world.done("POST", &of("/ack"), json!({"instance": "i1"})).await;
    world.done("POST", &of("/result"), json!({"instance": "i1", "result": {"ok": true}})).await;
    let view = world.done("GET", &of(""), Value::Null).await;
    assert_eq!((view["state"].as_str(), view["result"].clone()), (Some("succeeded"), json!({"ok": true})));

    let second = world.done("POST", &path("/commands"), json!({"name": "drain", "target": {"instance": "i1"}})).await;
    let cancel = path(&format!("/commands/{}/cancel", second["id"]));
    world.done("POST", &cancel, Value::Null).await;
    let view = world.done("GET", &path(&format!("/commands/{}", second["id"])), Value::Null).await;
    assert_eq!(view["state"], "cancelled");
}

#[tokio::test]
async fn commands_that_nobody_acknowledges_hide_none_that_come_after_them_and_each_is_handed_over_once() {
    let world = World::new().await;
    world.done("PUT", &path("/instances/i1"), json!({"version": "1.2"})).await;
    let post = async || {
        let posted = world.done("POST", &path("/commands"), json!({"name": "drain"})).await;
        posted["id"].as_u64().unwrap()
    };
    let mut stream = world.request("GET", &path("/instances/i1/commands")).send().await.unwrap();
    let (mut posted, mut handed, mut text) = (Vec::new(), Vec::new(), String::new());
    for _ in 0..20 {
        posted.push(post().await);
        while handed.len() < posted.len() {
            text.push_str(std::str::from_utf8(&stream.chunk().await.unwrap().unwrap()).unwrap());
            while let Some((block, rest)) = text.split_once("\n\n") {
                let id = block.lines().find_map(|line| line.strip_prefix("id: "));
                handed.extend(id.map(|id| id.parse::<u64>().unwrap()));
                text = rest.to_owned();
            }
        }
    }
    assert_eq!(handed, posted);
    world.node.shutdown().await;
    while let Some(chunk) = stream.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(text.contains("event: end") && !text.contains("event: command"), "{text}");
}

#[tokio::test]
async fn more_streams_than_the_bound_are_refused_with_a_reason() {
    let world = World::new().await;
    world.done("PUT", &path("/instances/i1"), json!({"version": "1.2"})).await;
    let mut room: Vec<_> = (0..OPEN_STREAMS_MAX).map(|_| world.node.server().stream().unwrap()).collect();
    let streams = ["/api/v1/events".to_owned(), path("/events"), path("/instances/i1/commands")];
    for stream in &streams {
        assert_eq!(world.send("GET", stream, Value::Null).await.problem(), (503, "overloaded".into()), "{stream}");
    }
    room.truncate(OPEN_STREAMS_MAX - 1);
    let open = world.request("GET", &streams[0]).send().await.unwrap();
    assert_eq!((open.status().as_u16(), world.send("GET", &streams[1], Value::Null).await.status), (200, 503));
}

#[tokio::test]
async fn a_stream_of_events_goes_on_after_the_last_one_that_was_seen() {
    let world = World::new().await;
    let mut stream = world.request("GET", "/api/v1/events").send().await.unwrap();
    world.done("PUT", TWIN, json!({"attributes": {"n": 0}})).await;
    let (id, created) = event(&mut stream, "twin.created").await;
    assert_eq!((created["subject"].as_str(), created["specversion"].as_str()), (Some("shop/orders"), Some("1.0")));
    drop(stream);
    world.done("PATCH", &path("/attributes"), json!({"n": 1})).await;
    let revision = created["revision"].to_string();
    let resumed = world.request("GET", &path("/events")).header("last-event-id", &revision);
    let (_, changed) = event(&mut resumed.send().await.unwrap(), "twin.attributes.changed").await;
    assert_eq!(changed["data"]["attributes"], json!({"n": 1}));
    let start = id.split_once('.').unwrap().0;
    for elsewhere in ["7.1".to_owned(), format!("{start}.{}", u64::MAX)] {
        let foreign = world.request("GET", "/api/v1/events").header("last-event-id", elsewhere);
        event(&mut foreign.send().await.unwrap(), "gap").await;
    }
}

#[tokio::test]
async fn every_described_operation_is_served_and_asks_for_a_key() {
    let world = World::new().await;
    let document = world.done("GET", "/api/v1/openapi.json", Value::Null).await;
    assert_eq!(document["openapi"], "3.1.0");
    for (path, item) in document["paths"].as_object().unwrap() {
        let concrete = path.replace("{id}", "1").replace(['{', '}'], "");
        for method in ["get", "put", "post", "patch", "delete"] {
            let status = world.bare(&method.to_uppercase(), &concrete).send().await.unwrap().status().as_u16();
            match item.get(method) {
                Some(operation) if operation["security"] == json!([]) => {
                    assert!(status == 200 || path.starts_with("/problems/"), "{method} {path}");
                }
                Some(_) => assert_eq!(status, 401, "{method} {path}"),
                None => assert_eq!(status, 405, "{method} {path}"),
            }
        }
    }
}

#[tokio::test]
async fn health_needs_no_key_and_metrics_count_requests() {
    let world = World::new().await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(world.bare("GET", path).send().await.unwrap().status(), 200);
    }
    assert_eq!(world.bare("GET", "/metrics").send().await.unwrap().status(), 401);
    world.done("PUT", TWIN, Value::Null).await;
    let metrics = world.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    for line in ["twin_requests_total{door=\"api\",status=\"2xx\"} 1", "twin_turns_total{kind=\"service\"}", "# EOF"] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
}

#[tokio::test]
async fn every_metric_is_listed_under_the_name_it_is_exported_with() {
    let world = World::new().await;
    let metrics = world.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    let listed = include_str!("../../docs/operations.md");
    let exported: Vec<String> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| if kind == "counter" { format!("`{name}_total`") } else { format!("`{name}`") })
        .collect();
    assert!(exported.len() > 20, "{metrics}");
    let missing: Vec<&String> = exported.iter().filter(|name| !listed.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?} are not in docs/operations.md");
}

#[tokio::test]
async fn a_drained_node_ends_its_streams_and_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let settings = config(folder.path(), StoreKind::Sled);
    let world = World::start(folder, settings.clone()).await;
    world.done("PUT", TWIN, json!({"attributes": {"owner": "a"}})).await;
    let mut stream = world.request("GET", "/api/v1/events").send().await.unwrap();
    let World { node, operator, folder, .. } = world;
    assert_eq!(node.shutdown().await.unsettled, 0);
    while stream.chunk().await.unwrap().is_some() {}

    let world = World::start(folder, settings).await;
    assert_eq!(world.operator, operator, "the first key is made once");
    assert_eq!(world.done("GET", &path("/attributes/owner"), Value::Null).await, json!("a"));
    assert_eq!(world.node.shutdown().await.unsettled, 0);
}

#[tokio::test]
async fn a_peer_that_never_ends_its_request_is_let_go_and_the_rest_is_served() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = World::with(|config| config.server.header_timeout_s = 1).await;
    for start in ["", "P", "GET /livez HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = tokio::net::TcpStream::connect(world.node.address()).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        // Ends when the node closes the connection; the test's bound is the header timeout itself.
        let ended = stream.read_to_end(&mut rest).await;
        assert!(ended.is_err() || rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{start:?}");
    }
    world.done("PUT", TWIN, Value::Null).await;
}

#[tokio::test]
async fn more_connections_than_the_bound_are_turned_away_with_a_reason() {
    use tokio::io::AsyncReadExt as _;
    let world = World::with(|config| config.server.connections_max = 2).await;
    let connect = async || tokio::net::TcpStream::connect(world.node.address()).await.unwrap();
    let held = [connect().await, connect().await];
    let mut rest = String::new();
    let mut third = connect().await;
    third.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 503"), "{rest}");
    drop(held);
}

#[tokio::test]
async fn a_reader_that_falls_behind_hears_of_the_gap_and_goes_on_after_it() {
    let world = World::with(|config| config.runtime.events_kept = 4).await;
    world.done("PUT", TWIN, json!({"attributes": {"n": 0}})).await;
    let mut stream = world.request("GET", "/api/v1/events").send().await.unwrap();
    world.done("PATCH", &path("/attributes"), json!({"n": 1})).await;
    let (id, _) = event(&mut stream, "twin.attributes.changed").await;
    drop(stream);
    for n in 2..20 {
        world.done("PATCH", &path("/attributes"), json!({"n": n})).await;
    }
    let resumed = world.request("GET", "/api/v1/events").header("last-event-id", &id);
    let mut stream = resumed.send().await.unwrap();
    event(&mut stream, "gap").await;
    let (_, after) = event(&mut stream, "twin.attributes.changed").await;
    assert!(after["data"]["attributes"]["n"].as_u64().unwrap() > 10, "{after}");
}

#[tokio::test]
async fn names_beyond_ascii_go_in_and_come_out_as_they_are() {
    let world = World::new().await;
    let twin = "/api/v1/twins/l%C3%A4den/%E6%B3%A8%E6%96%87%F0%9F%90%84";
    let named = json!({"größe": "ü\u{2028}\"\\", "注文": "🐄"});
    world.done("PUT", twin, json!({"attributes": {}})).await;
    world.done("PATCH", &format!("{twin}/attributes"), named.clone()).await;
    world.done("PUT", &format!("{twin}/features/gr%C3%B6%C3%9Fe/desired"), json!({"日": 1})).await;
    world.done("PUT", &format!("{twin}/instances/pod-%C3%A9"), json!({"version": "1.0-β"})).await;
    let view = world.done("GET", twin, Value::Null).await;
    assert_eq!((view["id"].as_str(), &view["attributes"]), (Some("läden/注文🐄"), &named));
    assert_eq!((&view["features"][0]["name"], &view["features"][0]["desired"]), (&json!("größe"), &json!({"日": 1})));
    assert_eq!((&view["instances"][0]["id"], &view["instances"][0]["version"]), (&json!("pod-é"), &json!("1.0-β")));
    let found = world.done("GET", "/api/v1/twins?namespace=l%C3%A4den", Value::Null).await;
    assert_eq!(found["twins"][0]["id"], "läden/注文🐄");
}
