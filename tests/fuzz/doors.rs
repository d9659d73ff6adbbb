//! The doors of a node on generated input: tokens, the routes of Dapr's HTTP, `CloudEvents`, resource files.
//!
//! The law: no panic, no failure of the node, and each refusal says why in the form that is documented.

use std::sync::{Arc, OnceLock};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
};
use http_body_util::BodyExt as _;
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, select},
};
use serde_json::{Value, json};
use service_twin::{
    app,
    capability::secrets::seal::NodeKey,
    cli::run::resources::{self, Resources},
    metrics::Metrics,
    model::{ServiceId, SystemClock},
    runtime::{Config, Runtime},
    server::{self, Phase, Server, http},
    store::memory::MemoryStore,
    token::RootKey,
    twin::keyring::Covers,
};
use tower::ServiceExt as _;

/// Cases of each property.
const CASES: u32 = 1024;

/// A node without a listener, and the token of one service.
struct Node {
    tokio: tokio::runtime::Runtime,
    router: Router,
    token: String,
}

/// An answer: status, media type, body.
type Answer = (StatusCode, String, Vec<u8>);

impl Node {
    fn get() -> &'static Self {
        static NODE: OnceLock<Node> = OnceLock::new();
        NODE.get_or_init(Self::start)
    }

    fn start() -> Self {
        let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let config = Config { arbiters: 1, ..Config::default() };
        let builder = app::kinds(Runtime::builder().config(config).store(Arc::new(MemoryStore::new())));
        let doors = server::Config { wrong_keys_per_minute: u32::MAX, ..server::Config::default() };
        let metrics = Arc::new(Metrics::new(|_| ()));
        let clock = Arc::new(SystemClock);
        let server =
            Server::new(builder.start().unwrap(), clock, metrics, doors, RootKey::generate(), NodeKey::draw().0);
        server.enter(Phase::Ready);
        let service = ServiceId::parse("shop/orders").unwrap();
        let minted = tokio.block_on(server.mint(Covers::Service { service }, "fuzz"));
        let Ok((fresh, _)) = minted else { panic!("a key is made") };
        Self { router: http::router(server), tokio, token: fresh.key }
    }

    fn send(&self, request: Request<Body>) -> Answer {
        self.tokio.block_on(async {
            let Ok(answer) = self.router.clone().oneshot(request).await;
            let status = answer.status();
            let kind = answer.headers().get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
            (status, kind.unwrap_or_default(), answer.into_body().collect().await.unwrap().to_bytes().to_vec())
        })
    }
}

/// The statuses from 500 on that Dapr's API has by itself: (`errorCode`, status).
const DOCUMENTED: [(&str, u16); 5] = [
    ("ERR_API_UNIMPLEMENTED", 501),
    ("ERR_CONFIGURATION_STORE_NOT_FOUND", 500),
    ("ERR_DIRECT_INVOKE", 500),
    ("ERR_PUBSUB_PUBLISH_MESSAGE", 500),
    ("ERR_SECRET_GET", 500),
];

/// Whether an answer of Dapr's routes is one that is documented.
fn is_documented((status, kind, body): &Answer) -> Result<(), String> {
    let code = status.as_u16();
    if code < 400 {
        return Ok(());
    }
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = said["errorCode"].as_str().unwrap_or_default();
    let has_reason = said["message"].as_str().is_some_and(|message| !message.is_empty());
    let form = kind == "application/json" && !error.is_empty() && (has_reason || said["failedEntries"].is_array());
    if form && (code < 500 || DOCUMENTED.contains(&(error, code))) {
        return Ok(());
    }
    // What is no path of Dapr's at all.
    if code == 404 && kind == "application/problem+json" && said["code"] == "no-such-path" {
        return Ok(());
    }
    Err(format!("{code} {kind}: {}", String::from_utf8_lossy(body)))
}

/// Paths of Dapr's API, with what a client may put into them.
fn paths() -> impl Strategy<Value = String> {
    let begin = select(vec![
        "/v1.0/state/statestore",
        "/v1.0/state/statestore/",
        "/v1.0/state/statestore/bulk",
        "/v1.0/state/statestore/transaction",
        "/v1.0/state/",
        "/v1.0/secrets/secretstore/",
        "/v1.0/secrets/",
        "/v1.0/configuration/configstore",
        "/v1.0-alpha1/configuration/",
        "/v1.0/publish/pubsub/",
        "/v1.0/publish/",
        "/v1.0/publish/bulk/pubsub/",
        "/v1.0-alpha1/publish/bulk/pubsub/",
        "/v1.0/invoke/",
        "/v1.0/invoke/billing/method",
        "/v1.0/metadata",
        "/v1.0/metadata/",
        "/v1.0/healthz",
        "/v1.0/",
        "/v1.0-alpha1/",
        "/v1.0-alpha2/",
        "/v1.0-beta1/",
    ]);
    let rest = vec(
        select(vec!["a", "bulk", "%C3%BC", "%FF", "%00", "%2F", "%", "%zz", "//", "..", "||", "/", "b c+", "é"]),
        0..4,
    );
    (begin, rest).prop_map(|(begin, rest)| format!("{begin}{}", rest.concat()))
}

fn queries() -> impl Strategy<Value = String> {
    let pair = select(vec![
        "key=a",
        "key=",
        "metadata.ttlInSeconds=5",
        "metadata.ttlInSeconds=-1",
        "metadata.ttlInSeconds=soon",
        "metadata.ttlInSeconds=99999999999999999999",
        "metadata.rawPayload=true",
        "metadata.cloudevent.id=%FF",
        "metadata.cloudevent.id=",
        "metadata.cloudevent.data=x",
        "concurrency=first-write",
        "concurrency=never",
        "consistency=strong",
        "%",
        "&&=",
        "a=%zz",
    ]);
    vec(pair, 0..3).prop_map(|pairs| pairs.join("&"))
}

/// JSON that is near what is asked for.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        "\\PC{0,8}".prop_map(Value::from),
        select(vec!["a", "1", "upsert", "delete", "first-write", "application/json", "2.0"]).prop_map(Value::from),
    ];
    let names = select(vec![
        "key",
        "keys",
        "value",
        "etag",
        "metadata",
        "options",
        "concurrency",
        "operations",
        "operation",
        "request",
        "entryId",
        "event",
        "contentType",
        "ttlInSeconds",
        "id",
        "source",
        "type",
        "specversion",
        "data",
        "data_base64",
        "datacontenttype",
        "topic",
        "time",
        "traceparent",
        "expiration",
    ]);
    leaf.prop_recursive(4, 24, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((names.clone(), inner), 0..6)
                .prop_map(|pairs| pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..64),
        values().prop_map(|value| value.to_string().into_bytes()),
        (values(), any::<Index>()).prop_map(|(value, cut)| {
            let mut bytes = value.to_string().into_bytes();
            bytes.truncate(cut.index(bytes.len() + 1));
            bytes
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_token_that_was_changed_enters(
        flips in vec((any::<Index>(), 1_u8..=255), 0..3),
        cut in option::of(any::<Index>()),
        more in "[A-Za-z0-9_=.-]{0,8}",
        dapr in any::<bool>(),
    ) {
        let node = Node::get();
        let mut bytes = node.token.clone().into_bytes();
        for (at, with) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= with;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes.extend(more.bytes());
        let is_whole = bytes == node.token.as_bytes();
        let (name, value) = if dapr { ("dapr-api-token", bytes) } else { ("authorization", [b"Bearer ", &bytes[..]].concat()) };
        let Ok(value) = header::HeaderValue::from_bytes(&value) else { return Ok(()) };
        let request = Request::get("/v1.0/metadata").header(name, value).body(Body::empty()).unwrap();
        let answer = node.send(request);
        prop_assert_eq!(answer.0.as_u16(), if is_whole { 200 } else { 401 });
        prop_assert_eq!(is_documented(&answer), Ok(()));
    }

    #[test]
    fn no_bytes_are_a_token(bytes in vec(any::<u8>(), 0..200), prefixed in any::<bool>()) {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        let token = if prefixed { format!("twk_{}", URL_SAFE_NO_PAD.encode(&bytes)).into_bytes() } else { bytes };
        let Ok(value) = header::HeaderValue::from_bytes(&token) else { return Ok(()) };
        let answer = Node::get().send(Request::get("/v1.0/metadata").header("dapr-api-token", value).body(Body::empty()).unwrap());
        prop_assert_eq!(answer.0.as_u16(), 401);
        prop_assert_eq!(is_documented(&answer), Ok(()));
    }

    #[test]
    fn daprs_routes_answer_anything_as_documented(
        method in select(vec!["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]),
        path in paths(),
        query in queries(),
        body in bodies(),
        headers in vec((
            select(vec!["content-type", "if-match", "traceparent", "content-length", "metadata.x", "dapr-app-id"]),
            select(vec!["", "application/json", "application/cloudevents+json", "text/plain; charset=x", "1", "\"1\"", "*", "-1"]),
        ), 0..3),
        with_token in prop::bool::weighted(0.9),
    ) {
        let node = Node::get();
        let uri = if query.is_empty() { path } else { format!("{path}?{query}") };
        let mut request = Request::builder().method(method).uri(&uri);
        if with_token {
            request = request.header("dapr-api-token", &node.token);
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        // What is no request does not get here.
        let Ok(request) = request.body(Body::from(body)) else { return Ok(()) };
        let answer = node.send(request);
        if method != "HEAD" {
            prop_assert_eq!(is_documented(&answer), Ok(()), "{} {}", method, uri);
        }
    }

    #[test]
    fn an_event_is_taken_or_refused_with_the_reason(event in values(), bulk in any::<bool>(), raw in any::<bool>()) {
        let node = Node::get();
        let (path, body) = if bulk {
            let entries = json!([{"entryId": "1", "event": event, "contentType": "application/cloudevents+json"}]);
            ("/v1.0/publish/bulk/pubsub/events", entries)
        } else {
            ("/v1.0/publish/pubsub/events", event)
        };
        let uri = format!("{path}?metadata.rawPayload={raw}");
        let request = Request::post(uri).header("dapr-api-token", &node.token);
        let request = request.header("content-type", "application/cloudevents+json").body(Body::from(body.to_string()));
        let answer = node.send(request.unwrap());
        prop_assert!([204, 400, 413, 429, 500].contains(&answer.0.as_u16()), "{:?}", answer);
        prop_assert_eq!(is_documented(&answer), Ok(()));
    }

    #[test]
    fn a_resource_file_that_is_refused_is_named_with_the_place(
        lines in vec(select(vec![
            "apiVersion: dapr.io/v1alpha1", "apiVersion: dapr.io/v2alpha1", "apiVersion: 7", "kind: Component",
            "kind: Subscription", "kind: [", "metadata:", "  name: a", "  name: {", "spec:", "  type: state.redis", "  topic: t",
            "  pubsubname: p", "  route: /r", "  routes:", "    default: /d", "  metadata:", "  - name: x", "    value: 1",
            "scopes:", "- orders", "---", "\t", "&a *a", "? :", "!!binary x", "- -", "'", "...", "%YAML 1.1", "<<: *b",
        ]), 0..14),
        junk in "\\PC{0,6}",
    ) {
        let text = lines.join("\n") + &junk;
        let mut read = Resources::default();
        if let Err(error) = resources::read("folder/file.yaml", &text, "orders", &mut read) {
            let said = error.to_string();
            let place = said.strip_prefix("folder/file.yaml").unwrap_or_default();
            let has_line = place.starts_with(|sign: char| ":,".contains(sign)) && place.contains(char::is_numeric);
            prop_assert!(has_line && !said.contains('\n'), "{:?} of {:?}", said, text);
        }
    }
}
