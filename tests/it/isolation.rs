//! What a service's token shows of another service's twin, keys, secrets, topics: nothing, not even whether they are there.
//!
//! The registry says which requests there are. Each needs a sample here, and [`every_request_of_the_registry_has_a_sample`]
//! shows with the owner's own token that the samples reach them.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use service_twin::{
    capability::{self, Registry},
    server::http::openapi::document,
    twin::part::{Part, Request},
};

use crate::{api_world::World, capabilities::Grpc};

/// The service that looks around.
const OWN: &str = "shop/main";
/// What is there and what is not, as long as each other.
const TWINS: [&str; 2] = ["cart", "none"];
const THINGS: [&str; 2] = ["here", "gone"];
/// Where the other twins are: beside the service and elsewhere.
const NAMESPACES: [&str; 2] = ["shop", "bank"];

/// One way to a request: `{thing}` is a name that is there or not, `{twin}` such a service.
enum Way {
    /// Below a twin's path in the native API.
    Native(&'static str, &'static str, &'static str),
    /// A route of Dapr's: it speaks to the caller's own twin, whatever others have.
    Dapr(&'static str, &'static str, &'static str),
}

use Way::{Dapr, Native};

/// How each request is reached, in an order in which its owner can do all of them.
const SAMPLES: &[(&str, &[Way])] = &[
    ("state-stores/1", &[Native("GET", "/state", "")]),
    ("state-add-store/1", &[Native("PUT", "/state/{thing}", "")]),
    (
        "state-write/1",
        &[
            Native("PUT", "/state/statestore/{thing}", "x"),
            Native("POST", "/state/statestore", r#"{"operations":[{"operation":"set","key":"{thing}","value":1}]}"#),
            Native("DELETE", "/state/statestore/{thing}", ""),
            Dapr("POST", "/v1.0/state/statestore", r#"[{"key":"{thing}","value":1,"etag":"9"}]"#),
            Dapr("DELETE", "/v1.0/state/statestore/{thing}", ""),
            Dapr(
                "POST",
                "/v1.0/state/statestore/transaction",
                r#"{"operations":[{"operation":"delete","request":{"key":"{thing}","etag":"9"}}]}"#,
            ),
        ],
    ),
    (
        "state-get/1",
        &[
            Native("GET", "/state/statestore/{thing}", ""),
            Dapr("GET", "/v1.0/state/statestore/{thing}", ""),
            Dapr("GET", "/v1.0/state/{thing}/key", ""),
            Dapr("POST", "/v1.0/state/statestore/bulk", r#"{"keys":["{thing}"]}"#),
        ],
    ),
    ("state-list/1", &[Native("GET", "/state/{thing}", ""), Native("GET", "/state/statestore?prefix={thing}", "")]),
    ("state-remove-store/1", &[Native("DELETE", "/state/{thing}", "")]),
    ("secrets-prepare/1", &[Native("PUT", "/secrets/{thing}", "plain")]),
    ("secrets-put/1", &[Native("PUT", "/secrets/{thing}?rotate=true", "plain")]),
    ("secrets-compare/1", &[Native("PUT", "/secrets/{thing}?unless_same=true", "plain")]),
    (
        "secrets-get/1",
        &[
            Native("GET", "/secrets/{thing}/value", ""),
            Native("GET", "/secrets/{thing}/value?version=1", ""),
            Dapr("GET", "/v1.0/secrets/secretstore/{thing}", ""),
            Dapr("GET", "/v1.0/secrets/{thing}/bulk", ""),
        ],
    ),
    ("secrets-list/1", &[Native("GET", "/secrets", ""), Native("GET", "/secrets/{thing}", "")]),
    ("secrets-ack/1", &[Native("POST", "/secrets/{thing}/ack", r#"{"instance":"i1","version":1}"#)]),
    ("secrets-delete/1", &[Native("DELETE", "/secrets/{thing}", "")]),
    ("configuration-put/1", &[Native("PATCH", "/configuration", r#"{"keys":{"{thing}":{"value":"1"}}}"#)]),
    (
        "configuration-get/1",
        &[
            Native("GET", "/configuration", ""),
            Dapr("GET", "/v1.0/configuration/configstore?key={thing}", ""),
            Dapr("GET", "/v1.0/configuration/{thing}", ""),
        ],
    ),
    ("configuration-status/1", &[Native("GET", "/configuration", "")]),
    ("configuration-applied/1", &[Native("POST", "/configuration/applied", r#"{"instance":"{thing}","version":1}"#)]),
    ("configuration-changed/1", &[Native("POST", "/configuration/rollback", r#"{"version":1}"#)]),
    ("configuration-rollback/1", &[Native("POST", "/configuration/rollback", r#"{"version":1}"#)]),
    ("components-add/1", &[Native("PUT", "/components/{thing}", r#"{"kind":"secrets"}"#)]),
    ("components-list/1", &[Native("GET", "/components", "")]),
    ("components-remove/1", &[Native("DELETE", "/components/{thing}", "")]),
    (
        "topics-subscription-set/1",
        &[Native("PUT", "/subscriptions/{thing}", r#"{"component":"pubsub","topic":"{thing}","path":"/take"}"#)],
    ),
    ("topics-subscriptions/1", &[Native("GET", "/subscriptions", "")]),
    ("topics-subscription-remove/1", &[Native("DELETE", "/subscriptions/{thing}", "")]),
    ("egress-connect/1", &[Native("PUT", "/endpoints/{thing}", r#"{"url":"http://127.0.0.1:9"}"#)]),
    ("endpoints-set/1", &[Native("PUT", "/endpoints/{thing}", r#"{"url":"http://127.0.0.1:9","protocol":"grpc"}"#)]),
    ("endpoints-list/1", &[Native("GET", "/endpoints", "")]),
    ("endpoints-remove/1", &[Native("DELETE", "/endpoints/{thing}", "")]),
    ("invoke-set-callers/1", &[Native("PUT", "/callers", r#"{"callers":[]}"#), Native("DELETE", "/callers", "")]),
    ("invoke-callers/1", &[Native("GET", "/callers", "")]),
    (
        "invoke-permit/1",
        &[
            Dapr("GET", "/v1.0/invoke/{twin}/method/x", ""),
            Dapr("POST", "/v1.0/invoke/{twin}.bank/method/{thing}", "x"),
        ],
    ),
    (
        "topics-permit/1",
        &[
            Native("POST", "/topics/replay", r#"{"component":"pubsub","topic":"{thing}","from":"oldest"}"#),
            Dapr("POST", "/v1.0/publish/pubsub/{thing}", "x"),
            Dapr("POST", "/v1.0/publish/{thing}/topic", "x"),
            Dapr("POST", "/v1.0/publish/bulk/pubsub/{thing}", r#"[{"entryId":"1","event":1}]"#),
        ],
    ),
];

/// What each public request is asked with by its name, in an order in which its owner can do all of them.
const BY_NAME: &[(&str, &str)] = &[
    ("state-stores/1", ""),
    ("state-add-store/1", r#"{"store":"{thing}"}"#),
    (
        "state-write/1",
        r#"{"store":"statestore","operations":[
            {"key":"{thing}","operation":{"set":{"value":"x"}}},{"key":"{thing}","operation":"delete"}]}"#,
    ),
    ("state-get/1", r#"{"store":"statestore","keys":["{thing}"]}"#),
    ("state-list/1", r#"{"store":"{thing}","prefix":"{thing}"}"#),
    ("state-remove-store/1", r#"{"store":"{thing}"}"#),
    ("secrets-list/1", r#"{"secret":"{thing}"}"#),
    ("secrets-ack/1", r#"{"secret":"{thing}","instance":"i1","version":1}"#),
    ("secrets-delete/1", r#"{"secret":"{thing}"}"#),
    ("configuration-put/1", r#"{"edits":[{"key":"{thing}","value":"2"}]}"#),
    ("configuration-get/1", r#"{"keys":["{thing}"]}"#),
    ("configuration-status/1", "{}"),
    ("configuration-applied/1", r#"{"instance":"{thing}","version":1}"#),
    ("configuration-changed/1", r#"{"version":2}"#),
    ("configuration-rollback/1", r#"{"version":2,"keys":["{thing}"]}"#),
    ("components-add/1", r#"{"component":{"name":"{thing}","kind":"secrets"}}"#),
    ("components-list/1", ""),
    ("components-remove/1", r#"{"name":"{thing}"}"#),
    (
        "topics-subscription-set/1",
        r#"{"subscription":{"name":"{thing}","component":"pubsub","topic":"{thing}","path":"/take"}}"#,
    ),
    ("topics-subscriptions/1", ""),
    ("topics-subscription-remove/1", r#"{"name":"{thing}"}"#),
    ("invoke-callers/1", ""),
    ("endpoints-list/1", ""),
];

/// A request as the registry knows it.
struct Known {
    name: &'static str,
    capability: &'static str,
    operation: &'static str,
    is_internal: bool,
    is_public: bool,
}

fn registered() -> Vec<Known> {
    struct Names(Vec<Known>);
    impl Registry for Names {
        fn part<P: Part>(&mut self) {}

        fn request<R: Request>(&mut self) {
            let (capability, operation) = (R::Part::NAME, R::OPERATION);
            let (is_internal, is_public) = (R::INTERNAL, R::IS_PUBLIC);
            self.0.push(Known { name: R::NAME, capability, operation, is_internal, is_public });
        }
    }
    let mut names = Names(Vec::new());
    capability::register(&mut names);
    names.0
}

/// Capability and request of each of [`BY_NAME`], with its body.
fn by_name() -> Vec<((&'static str, &'static str), &'static str)> {
    let named = |(name, body): &(&'static str, &'static str)| {
        let (name, _) = name.split_once('/').unwrap();
        (name.split_once('-').unwrap(), *body)
    };
    BY_NAME.iter().map(named).collect()
}

fn path_by_name(service: &str, (capability, request): (&str, &str)) -> String {
    format!("/api/v1/twins/{service}/capabilities/{capability}/{request}")
}

fn filled(text: &str, thing: &str) -> String {
    text.replace("{thing}", thing)
}

/// An answer as it is compared: without its date, and without the names that were asked for.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

async fn seen(world: &World, key: &str, method: &str, path: &str, body: &str) -> Seen {
    let request = world.bare(method, path).bearer_auth(key).header("content-type", "application/json");
    let answer = request.body(body.to_owned()).send().await.unwrap();
    let status = answer.status().as_u16();
    let headers = answer.headers().iter().filter(|(name, _)| *name != "date");
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    let mut body = answer.text().await.unwrap();
    for name in TWINS.iter().chain(&THINGS) {
        body = body.replace(name, "NAME");
    }
    Seen { status, headers, body }
}

async fn service_key(world: &World, service: &str) -> String {
    world.mint(json!({"kind": "service", "service": service})).await.1
}

/// The other twins, with everything that a sample could ask for; and the key of the service that asks.
async fn furnished() -> (World, String) {
    let world = World::new().await;
    for namespace in NAMESPACES {
        let (service, thing) = (format!("{namespace}/{}", TWINS[0]), THINGS[0]);
        let of = |rest: &str| format!("/api/v1/twins/{service}{rest}");
        for (method, path, body) in [
            ("PUT", of(""), json!({"attributes": {"here": 1}})),
            ("PUT", of(&format!("/instances/{thing}")), Value::Null),
            ("PUT", of("/instances/i1"), Value::Null),
            ("PUT", of(&format!("/features/{thing}/desired")), json!({"x": 1})),
            ("PUT", of(&format!("/command-definitions/{thing}")), json!({"type": "object"})),
            ("POST", of("/commands"), json!({"name": thing})),
            ("PUT", of(&format!("/state/{thing}")), Value::Null),
            ("PUT", of(&format!("/state/statestore/{thing}")), json!(1)),
            ("PUT", of(&format!("/secrets/{thing}")), json!("plain")),
            ("PATCH", of("/configuration"), json!({"keys": {thing: {"value": "1"}}})),
            ("PUT", of(&format!("/components/{thing}")), json!({"kind": "secrets"})),
            (
                "PUT",
                of(&format!("/subscriptions/{thing}")),
                json!({"component": "pubsub", "topic": thing, "path": "/take"}),
            ),
            ("PUT", of("/callers"), json!({"callers": [{"service": "shop/*", "method": "*"}]})),
            ("PATCH", of("/access"), json!({"add": [{"effect": "allow", "scope": "egress:*"}]})),
            ("PUT", of(&format!("/endpoints/{thing}")), json!({"url": "http://127.0.0.1:9"})),
        ] {
            let answer = world.send(method, &path, body).await;
            assert!(answer.status < 300, "{method} {path}: {}", String::from_utf8_lossy(&answer.body));
        }
    }
    // The topics that others have are of another namespace: those of its own it may use.
    let other = service_key(&world, &format!("bank/{}", TWINS[0])).await;
    let made = seen(&world, &other, "POST", &format!("/v1.0/publish/pubsub/{}", THINGS[0]), "x").await;
    assert_eq!(made.status, 204);
    let key = service_key(&world, OWN).await;
    (world, key)
}

#[tokio::test]
async fn every_request_of_the_registry_has_a_sample() {
    let (world, _) = furnished().await;
    let registered = registered();
    let of_doors: BTreeSet<_> = registered.iter().filter(|known| !known.is_internal).map(|known| known.name).collect();
    let sampled: BTreeSet<_> = SAMPLES.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        sampled, of_doors,
        "each request that a door asks for needs a sample in this file, and no other has one"
    );
    let owner = format!("shop/{}", TWINS[0]);
    let key = service_key(&world, &owner).await;
    allow_all(&world, &owner).await;
    for (_, ways) in SAMPLES {
        for way in *ways {
            let (method, path, body) = match way {
                Native(method, path, body) => (method, format!("/api/v1/twins/{owner}{path}"), body),
                Dapr(method, path, body) => (method, (*path).to_owned(), body),
            };
            let path = filled(&path, THINGS[0]).replace("{twin}", "other");
            seen(&world, &key, method, &path, &filled(body, THINGS[0])).await;
        }
    }
    let metrics = world.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    for Known { capability, operation, name, .. } in registered.iter().filter(|known| !known.is_internal) {
        let line = format!("capability=\"{capability}\",operation=\"{operation}\",decision=\"allowed\"");
        assert!(metrics.contains(&line), "the samples of {name} do not reach it");
    }
}

/// Grants a service what it takes to be allowed to all of it.
async fn allow_all(world: &World, service: &str) {
    let scopes: BTreeSet<_> = registered().iter().map(|known| format!("{}:*", known.capability)).collect();
    let all: Vec<_> = scopes.into_iter().map(|scope| json!({"effect": "allow", "scope": scope})).collect();
    world.done("PATCH", &format!("/api/v1/twins/{service}/access"), json!({ "add": all })).await;
}

#[tokio::test]
async fn every_public_request_of_the_registry_is_asked_by_its_name() {
    let public: BTreeSet<_> = registered().iter().filter(|known| known.is_public).map(|known| known.name).collect();
    assert_eq!(BY_NAME.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>(), public, "each needs a sample here");
    let (world, _) = furnished().await;
    let [native, other] = NAMESPACES.map(|namespace| format!("{namespace}/{}", TWINS[0]));
    let mut grpc = Grpc::to(&world).await;
    let keys = [service_key(&world, &native).await, service_key(&world, &other).await];
    allow_all(&world, &native).await;
    allow_all(&world, &other).await;
    for (request, body) in by_name() {
        let body = filled(body, THINGS[0]);
        let answer = seen(&world, &keys[0], "POST", &path_by_name(&native, request), &body).await;
        assert_eq!(answer.status, 200, "{request:?}: {}", answer.body);
        let said = grpc.call(&keys[1], &other, request, &body).await;
        assert!(said.is_ok(), "{request:?}: {said:?}");
    }
}

/// Every document that has one field more than this one, in whichever of its objects.
fn with_one_more(document: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    match document {
        Value::Object(fields) => {
            let mut more = fields.clone();
            more.insert("unknown".into(), json!(1));
            all.push(Value::Object(more));
            for (name, inner) in fields {
                for changed in with_one_more(inner) {
                    let mut fields = fields.clone();
                    fields.insert(name.clone(), changed);
                    all.push(Value::Object(fields));
                }
            }
        }
        Value::Array(items) => {
            for (at, inner) in items.iter().enumerate() {
                for changed in with_one_more(inner) {
                    let mut items = items.clone();
                    items[at] = changed;
                    all.push(Value::Array(items));
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    all
}

#[tokio::test]
async fn no_public_request_takes_a_field_that_it_does_not_know() {
    let world = World::new().await;
    for (request, body) in by_name() {
        let body = if body.is_empty() { "{}".to_owned() } else { filled(body, THINGS[0]) };
        for wrong in with_one_more(&serde_json::from_str(&body).unwrap()) {
            let path = path_by_name(OWN, request);
            let answer = seen(&world, &world.operator, "POST", &path, &wrong.to_string()).await;
            assert_eq!(answer.status, 400, "{request:?} took {wrong}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn no_request_by_its_name_shows_whether_anything_of_another_service_is_there() {
    let (world, key) = furnished().await;
    let mut grpc = Grpc::to(&world).await;
    for (request, body) in by_name() {
        let (mut native, mut over_grpc) = (Vec::new(), Vec::new());
        for namespace in NAMESPACES {
            for (twin, thing) in TWINS.iter().flat_map(|twin| THINGS.map(|thing| (twin, thing))) {
                let (service, body) = (format!("{namespace}/{twin}"), filled(body, thing));
                native.push(seen(&world, &key, "POST", &path_by_name(&service, request), &body).await);
                let status = grpc.call(&key, &service, request, &body).await.unwrap_err();
                let mut headers = status.metadata().clone().into_headers();
                headers.remove("date");
                over_grpc.push((status.code(), status.message().to_owned(), status.details().to_vec(), headers));
            }
        }
        assert_eq!(native[0].status, 403, "{request:?}: {}", native[0].body);
        assert_eq!(over_grpc[0].0, tonic::Code::PermissionDenied, "{request:?}: {}", over_grpc[0].1);
        assert!(native.windows(2).all(|pair| pair[0] == pair[1]), "{request:?}: {native:#?}");
        assert!(over_grpc.windows(2).all(|pair| pair[0] == pair[1]), "{request:?}: {over_grpc:#?}");
    }
}

#[tokio::test]
async fn no_request_of_a_capability_shows_whether_anything_of_another_service_is_there() {
    let (world, key) = furnished().await;
    for (name, ways) in SAMPLES {
        for way in *ways {
            let mut answers = Vec::new();
            match way {
                Native(method, path, body) => {
                    for namespace in NAMESPACES {
                        for (twin, thing) in TWINS.iter().flat_map(|twin| THINGS.map(|thing| (twin, thing))) {
                            let path = format!("/api/v1/twins/{namespace}/{twin}{}", filled(path, thing));
                            answers.push(seen(&world, &key, method, &path, &filled(body, thing)).await);
                        }
                    }
                    assert_eq!(answers[0].status, 403, "{name} {method} {path}: {}", answers[0].body);
                }
                Dapr(method, path, body) => {
                    for (twin, thing) in TWINS.into_iter().zip(THINGS) {
                        let path = filled(path, thing).replace("{twin}", twin);
                        answers.push(seen(&world, &key, method, &path, &filled(body, thing)).await);
                    }
                }
            }
            assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{name}: {answers:#?}");
        }
    }
}

#[tokio::test]
async fn no_operation_on_a_twin_shows_whether_another_service_is_there() {
    let (world, key) = furnished().await;
    let mut met = 0;
    for (path, item) in document()["paths"].as_object().unwrap() {
        let Some(rest) = path.strip_prefix("/api/v1/twins/{namespace}/{name}") else { continue };
        for method in item.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            let mut answers = Vec::new();
            for namespace in NAMESPACES {
                for (twin, thing) in TWINS.iter().flat_map(|twin| THINGS.map(|thing| (twin, thing))) {
                    let words = rest.split('/').map(|word| if word.starts_with('{') { thing } else { word });
                    let path = format!("/api/v1/twins/{namespace}/{twin}{}", words.collect::<Vec<_>>().join("/"));
                    answers.push(seen(&world, &key, &method.to_uppercase(), &path, "{}").await);
                }
            }
            assert!((400..500).contains(&answers[0].status), "{method} {path}: {:?}", answers[0]);
            assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{method} {path}: {answers:#?}");
            met += 1;
        }
    }
    assert!(met >= 40, "only {met} operations");
}

mod timing {
    //! Whether the time of a refusal tells what the refusal does not.
    #![expect(clippy::disallowed_methods, reason = "the time of an answer is what is measured")]
    #![expect(clippy::print_stdout, reason = "figures for whoever runs it by name")]

    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
        time::Instant,
    };

    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    /// Samples of each side in a plain run, and how well they may be told apart. Of equal distributions 60 % are 6
    /// standard deviations away with so few, so that chance alone does not fail.
    const FEW: (usize, f64) = (1_000, 0.60);
    /// By name: 5 standard deviations of it are 2.5 %.
    const MANY: (usize, f64) = (10_000, 0.55);

    struct Connection(TcpStream);

    impl Connection {
        fn open(world: &World) -> Self {
            let stream = TcpStream::connect(world.node.url().strip_prefix("http://").unwrap()).unwrap();
            stream.set_nodelay(true).unwrap();
            Self(stream)
        }

        /// Nanoseconds from the first byte sent to the last byte of the answer's head and body.
        fn ask(&mut self, request: &[u8]) -> u64 {
            let mut buffer = [0; 4096];
            let started = Instant::now();
            self.0.write_all(request).unwrap();
            let mut have = 0;
            loop {
                have += self.0.read(&mut buffer[have..]).unwrap();
                let text = std::str::from_utf8(&buffer[..have]).unwrap();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    if length.map_or(0, |length| length.parse().unwrap()) == body.len() {
                        return u64::try_from(started.elapsed().as_nanos()).unwrap();
                    }
                }
            }
        }
    }

    fn request(key: &str, method: &str, path: &str) -> Vec<u8> {
        format!("{method} {path} HTTP/1.1\r\nhost: node\r\nauthorization: Bearer {key}\r\ncontent-length: 0\r\n\r\n")
            .into()
    }

    /// Asks both in an order drawn at random; answers the times of each.
    fn sample(connection: &mut Connection, sides: &[Vec<u8>; 2], count: usize, seed: u64) -> [Vec<u64>; 2] {
        let mut random = StdRng::seed_from_u64(seed);
        for side in sides.iter().cycle().take(200) {
            connection.ask(side);
        }
        let mut times = [Vec::new(), Vec::new()];
        while times.iter().any(|times| times.len() < count) {
            let side = usize::from(random.random_bool(0.5));
            let time = connection.ask(&sides[side]);
            if times[side].len() < count {
                times[side].push(time);
            }
        }
        times
    }

    /// Learns the best threshold on every other sample, and answers how many of the rest it tells right.
    fn told_apart(times: &[Vec<u64>; 2]) -> f64 {
        let half = |odd: usize| -> Vec<(u64, usize)> {
            let side = |side: usize| times[side].iter().skip(odd).step_by(2).map(move |time| (*time, side));
            side(0).chain(side(1)).collect()
        };
        let (mut train, test) = (half(0), half(1));
        train.sort_unstable();
        let seconds = train.iter().filter(|(_, side)| *side == 1).count();
        // Right so far if everything up to here counts as the first side and the rest as the second.
        let (mut right, mut best) = (seconds, (seconds, 0, false));
        for (time, side) in &train {
            right = if *side == 0 { right + 1 } else { right - 1 };
            for (score, is_turned) in [(right, false), (train.len() - right, true)] {
                best = best.max((score, *time, is_turned));
            }
        }
        let (_, threshold, is_turned) = best;
        let is_right = |(time, side): &&(u64, usize)| ((*time > threshold) != is_turned) == (*side == 1);
        let right = test.iter().filter(is_right).count();
        f64::from(u32::try_from(right).unwrap()) / f64::from(u32::try_from(test.len()).unwrap())
    }

    fn measure(world: &World, key: &str, (count, bar): (usize, f64)) {
        let mut connection = Connection::open(world);
        let [there, absent] = TWINS.map(|twin| format!("/api/v1/twins/bank/{twin}"));
        let native = |method: &str, rest: &str| {
            let of = |twin: &str, thing| request(key, method, &format!("{twin}{}", filled(rest, thing)));
            [of(&there, THINGS[0]), of(&absent, THINGS[1])]
        };
        let dapr = |path: &str| THINGS.map(|thing| request(key, "GET", &filled(path, thing)));
        let rows = [
            ("a twin", native("GET", "")),
            ("a value", native("GET", "/state/statestore/{thing}")),
            ("a value, deleted", native("DELETE", "/state/statestore/{thing}")),
            ("a secret", native("GET", "/secrets/{thing}/value")),
            ("a secret, set", native("PUT", "/secrets/{thing}")),
            ("the configuration", native("GET", "/configuration")),
            ("a value, by Dapr", dapr("/v1.0/state/statestore/{thing}")),
            ("a secret, by Dapr", dapr("/v1.0/secrets/secretstore/{thing}")),
        ];
        let mut told = Vec::new();
        for (seed, (name, sides)) in (1..).zip(rows) {
            let share = told_apart(&sample(&mut connection, &sides, count, seed));
            println!("{name}: told apart by {:.1} % of {count} samples each", 100.0 * share);
            told.push((name, share));
        }
        let worst = told.iter().filter(|(_, share)| *share > bar).collect::<Vec<_>>();
        assert!(worst.is_empty(), "told apart by more than {bar}: {worst:?}");
        // A difference that is there is found: a refusal at the door, and a turn of the own twin.
        let own = request(key, "GET", &format!("/api/v1/twins/{OWN}/state/statestore/{}", THINGS[1]));
        let other = request(key, "GET", &format!("{there}/state/statestore/{}", THINGS[1]));
        let control = told_apart(&sample(&mut connection, &[own, other], count, 0));
        println!("control: told apart by {:.1} %", 100.0 * control);
        assert!(control > 0.75, "a difference that is there was told by {control} only");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_time_of_a_refusal_tells_nothing() {
        let (world, key) = furnished().await;
        tokio::task::block_in_place(|| measure(&world, &key, FEW));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "asked for by name: ./scripts/test timing"]
    async fn ten_thousand_refusals_each_are_not_told_apart_by_their_time() {
        let (world, key) = furnished().await;
        tokio::task::block_in_place(|| measure(&world, &key, MANY));
    }
}
