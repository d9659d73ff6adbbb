//! `twin run`: a service as a child of the real binary.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use std::{
    convert::Infallible,
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStdout, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http_body_util::Empty;
use hyper::{
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::process::{Node, Ran, twin};

/// How often is looked for what must be there soon.
const LOOKS_MAX: u32 = 1000;

/// A service that runs until it is told to end, and says how it goes.
const SERVICE: &str = "trap 'echo ending; exit 0' TERM; trap 'echo reloaded' HUP; echo ready; \
                       while :; do sleep 0.02; done";

struct Run {
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl Run {
    fn start(node: &Node, args: &[&str], script: &str) -> Self {
        let args = [&["run", "--app-id", "shop/orders"], args, &["--", "sh", "-c", script]].concat();
        let mut process = node.command(&args).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        Self { process, lines }
    }

    /// The next line of the service, without what stands before it.
    fn says(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.strip_prefix("== APP == ").unwrap_or_else(|| panic!("'{line}'")).trim_end().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Its exit code, and what was said until then.
    fn ended(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        (self.process.wait().unwrap().code(), rest)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Asked, so that its child does not outlive it.
        if let Ok(None) = self.process.try_wait() {
            kill_process(Pid::from_child(&self.process), Signal::TERM).ok();
            drop(self.process.wait());
        }
    }
}

/// Looks again and again, each time with a process of its own, until it is so.
fn until(it_is: impl Fn() -> bool) {
    assert!((0..LOOKS_MAX).any(|_| it_is()), "it is not so after {LOOKS_MAX} looks");
}

fn instances(node: &Node) -> Vec<Value> {
    let ran = node.run(&["get", "shop/orders", "--json"]);
    let twin: Value = serde_json::from_str(&ran.text).unwrap_or(Value::Null);
    twin["instances"].as_array().cloned().unwrap_or_default()
}

#[test]
fn a_service_finds_its_door_and_its_name_in_its_environment_and_its_exit_code_is_passed_on() {
    let node = Node::start();
    let script = "echo $APP_ID $APP_PORT $DAPR_HTTP_PORT $DAPR_GRPC_PORT $OTEL_SERVICE_NAME; \
                  echo $OTEL_EXPORTER_OTLP_ENDPOINT $OTEL_RESOURCE_ATTRIBUTES; echo ${TWIN_KEY-none}; \
                  test -n \"$DAPR_API_TOKEN\" && echo to stderr >&2; exit 7";
    let ran = node
        .command(&["run", "--app-id", "shop/orders", "--instance", "i1", "--app-port", "1", "--", "sh", "-c", script])
        .env("TWIN_KEY", node.operator())
        .env("OTEL_RESOURCE_ATTRIBUTES", "service.version=2")
        .output()
        .unwrap();
    let ran = Ran::from(ran);
    assert_eq!(ran.code, 7, "{}", ran.errors);
    let lines: Vec<&str> = ran.text.lines().map(|line| line.strip_prefix("== APP == ").unwrap()).collect();
    let words: Vec<&str> = lines[0].split(' ').collect();
    let [app_id, app_port, http, grpc, name] = words[..] else { panic!("{}", lines[0]) };
    assert_eq!((app_id, app_port, name), ("orders", "1", "orders"));
    assert_ne!(http, grpc);
    let telemetry = format!("http://127.0.0.1:{http} service.version=2,service.namespace=shop,service.instance.id=i1");
    assert_eq!(lines[1..], [telemetry.as_str(), "none"], "no operator's key");
    assert!(ran.errors.contains("== APP == to stderr"), "{}", ran.errors);

    let keys = node.json(&["key", "ls"]);
    let made: Vec<&Value> = keys["keys"].as_array().unwrap().iter().filter(|key| key["label"] == "twin run").collect();
    assert!(made.len() == 1 && !made[0]["revoked_at"].is_null(), "its key has ended with it: {keys}");
}

#[test]
fn a_service_is_an_instance_while_it_is_up_and_gone_once_it_has_ended_as_asked() {
    let node = Node::start();
    let mut run = Run::start(&node, &["--instance", "i1"], SERVICE);
    assert_eq!(run.says(), "ready");
    until(|| instances(&node).iter().any(|instance| instance["id"] == "i1" && instance["health"] == "healthy"));
    run.signal(Signal::TERM);
    let (code, rest) = run.ended();
    assert_eq!((code, rest.as_str()), (Some(0), "== APP == ending\n"), "it was asked, and had its time");
    assert!(instances(&node).is_empty(), "{:?}", instances(&node));
}

#[test]
fn a_service_that_dies_stays_as_an_unwell_instance_and_its_code_is_ours() {
    let node = Node::start();
    let run = Run::start(&node, &["--instance", "i1"], "kill -9 $$");
    let (code, _) = run.ended();
    assert_eq!(code, Some(137), "as a shell would say it");
    let [instance] = &instances(&node)[..] else { panic!("{:?}", instances(&node)) };
    assert!(instance["health"] == "unhealthy" && instance.to_string().contains("137"), "{instance}");
}

#[test]
fn a_service_that_does_not_end_is_killed_after_its_time() {
    let node = Node::start();
    let mut run = Run::start(&node, &["--stop-grace", "0"], "trap '' TERM; echo deaf; while :; do sleep 0.02; done");
    assert_eq!(run.says(), "deaf");
    run.signal(Signal::TERM);
    assert_eq!(run.ended().0, Some(137));
}

#[test]
fn a_command_is_carried_out_as_the_command_line_says() {
    let node = Node::start();
    let mut run = Run::start(&node, &["--instance", "i1", "--on-command", "reload=signal:HUP"], SERVICE);
    assert_eq!(run.says(), "ready");
    until(|| !instances(&node).is_empty());
    let post = |name: &str| node.run(&["command", "shop/orders", "post", name, "--target", "i1", "--wait", "--json"]);
    let done = post("reload");
    assert_eq!(done.code, 0, "{} {}", done.text, done.errors);
    assert_eq!(run.says(), "reloaded");
    let unknown = post("explode");
    assert_ne!(unknown.code, 0);
    assert!(unknown.text.contains("--on-command"), "it says how to map it: {}", unknown.text);
}

#[test]
fn a_command_may_be_a_call_of_the_service() {
    use std::io::Write as _;
    let node = Node::start();
    let app = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = app.local_addr().unwrap().port().to_string();
    let heard = std::thread::spawn(move || {
        loop {
            let (mut stream, _) = app.accept().unwrap();
            let (mut heard, mut bytes) = (String::new(), [0; 1024]);
            while !heard.contains('}') && !heard.starts_with("GET ") {
                // One connection only sees that somebody listens.
                let Ok(read @ 1..) = stream.read(&mut bytes) else { break };
                heard.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
            }
            if heard.starts_with("POST ") {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"workers\":4}").unwrap();
                return heard;
            }
            // Its node asks for its subscriptions; it has none.
            drop(stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"));
        }
    });
    let handler = "reload=http:/admin/reload";
    let _run = Run::start(&node, &["--instance", "i1", "--app-port", &port, "--on-command", handler], SERVICE);
    until(|| !instances(&node).is_empty());
    let post = ["command", "shop/orders", "post", "reload", r#"{"level":"debug"}"#, "--target", "i1", "--wait"];
    let done = node.json(&post);
    assert_eq!(done["result"], json!({"workers": 4}), "{done}");
    let heard = heard.join().unwrap();
    assert!(heard.starts_with("POST /admin/reload ") && heard.ends_with(r#"{"level":"debug"}"#), "{heard}");
}

#[test]
fn a_node_is_started_if_asked_for_and_ends_with_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let run = twin()
        .args(["run", "--app-id", "orders", "--node-port", "0", "--json", "--data-dir"])
        .arg(folder.path())
        .args(["--", "sh", "-c", "sleep 0.3; echo hello"])
        .output()
        .unwrap();
    let ran = Ran::from(run);
    assert_eq!(ran.code, 0, "{}", ran.errors);
    let said: Vec<Value> = ran.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<&Value> = said.iter().map(|said| &said["event"]).collect();
    assert_eq!(events, ["up", "ended"], "{}", ran.text);
    assert_eq!(said[0]["service"], "default/orders");
    assert!(ran.errors.contains("== APP == hello"), "the service's lines make way: {}", ran.errors);
    let url = said[0]["node"].as_str().unwrap();
    assert_eq!(Ran::from(twin().args(["--node", url, "ls"]).output().unwrap()).code, 6, "it has ended, too");
}

#[test]
fn what_cannot_be_run_is_said_with_what_to_do() {
    let node = Node::start();
    let run = |args: &[&str]| node.run(&[&["run"], args].concat());
    let missing = run(&["--app-id", "orders", "--", "/no/such/program"]);
    assert!(missing.code == 1 && missing.errors.contains("/no/such/program"), "{}", missing.errors);
    let file = run(&["-f", "dapr.yaml", "--app-id", "orders", "true"]);
    assert!(file.code == 2 && file.errors.contains("its own 'twin run'"), "{}", file.errors);
    let nobody = Ran::from(twin().args(["--node", "http://127.0.0.1:1", "run", "-a", "a", "true"]).output().unwrap());
    assert_eq!(nobody.code, 6, "a node that was named is not replaced by another: {}", nobody.errors);
    let noted = run(&["--app-id", "orders", "--metrics-port", "9090", "--", "true"]);
    assert!(noted.code == 0 && noted.errors.contains("--metrics-port changes nothing"), "{}", noted.errors);
}

#[test]
fn resources_are_read_and_a_store_that_is_not_there_is_refused_unless_mapped() {
    let node = Node::start();
    let folder = tempfile::tempdir().unwrap();
    let component = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: { name: statestore }\n\
                     spec: { type: state.redis, version: v1 }\n";
    std::fs::write(folder.path().join("state.yaml"), component).unwrap();
    let path = folder.path().to_str().unwrap();
    let run = |args: &[&str]| {
        node.run(&[&["run", "--app-id", "orders", "--resources-path", path], args, &["--", "true"]].concat())
    };
    let refused = run(&[]);
    assert!(refused.code == 2 && refused.errors.contains("--map-components"), "{}", refused.errors);
    let mapped = run(&["--map-components"]);
    assert!(mapped.code == 0 && mapped.errors.contains("in the place of state.redis"), "{}", mapped.errors);
    std::fs::write(folder.path().join("wrong.yml"), "apiVersion: dapr.io/v1alpha1\nkind: Component\n").unwrap();
    let wrong = run(&[]);
    assert!(
        wrong.code == 2 && wrong.errors.contains("wrong.yml, document 1: 'metadata' is missing"),
        "{}",
        wrong.errors
    );
}

/// Runs `true` as shop/orders with resources in a folder.
fn with_resources(node: &Node, folder: &std::path::Path, args: &[&str]) -> Ran {
    let path = folder.to_str().unwrap();
    let run = ["run", "--app-id", "shop/orders", "--instance", "i1", "--resources-path", path];
    node.run(&[&run, args, &["--", "true"]].concat())
}

fn write(folder: &std::path::Path, name: &str, kind: &str, rest: &str) {
    let version = if kind == "Subscription" { "v2alpha1" } else { "v1alpha1" };
    let text = format!("apiVersion: dapr.io/{version}\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec:\n  {rest}\n");
    std::fs::write(folder.join(format!("{name}.yaml")), text).unwrap();
}

/// The changes in the journal that are not about the instance that comes and goes.
fn changes(node: &Node) -> Vec<String> {
    let journal = node.json(&["journal", "shop/orders"]);
    let changes = journal["entries"].as_array().unwrap().iter().flat_map(|entry| entry["changes"].as_array().unwrap());
    changes.map(Value::to_string).filter(|change| !change.contains("nstance") && !change.contains("ealth")).collect()
}

#[test]
fn resources_get_into_the_twin_and_unchanged_ones_change_nothing() {
    let node = Node::start();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let secrets = folder.join("secrets.json");
    std::fs::write(&secrets, r#"{"db": {"password": "hunter2"}}"#).unwrap();
    write(folder, "cache", "Component", "type: state.redis");
    write(
        folder,
        "broker",
        "Component",
        "type: pubsub.twin\n  metadata:\n  - { name: publishingScopes, value: 'orders=new,old;cart=' }",
    );
    let source = format!("type: secretstores.local.file\n  metadata:\n  - {{ name: secretsFile, value: {secrets:?} }}");
    write(folder, "vault", "Component", &source);
    write(
        folder,
        "incoming",
        "Subscription",
        "pubsubname: broker\n  topic: incoming\n  deadLetterTopic: dead\n  routes:\n    default: orders\n    rules:\n    \
         - { match: 'event.type == \"x\"', path: /x }\n  metadata: { isRaw: 'true' }\nscopes: [orders]",
    );
    write(
        folder,
        "others",
        "Subscription",
        "pubsubname: broker\n  topic: x\n  routes: { default: /x }\nscopes: [cart]",
    );
    write(
        folder,
        "policy",
        "Configuration",
        "accessControl: { defaultAction: deny }\n  secrets:\n    scopes:\n    \
         - { storeName: vault, defaultAccess: deny, allowedSecrets: ['db:password'] }",
    );
    let first = with_resources(&node, folder, &["--map-components"]);
    assert_eq!(first.code, 0, "{}", first.errors);
    for said in [
        "component 'cache': state, state.twin, in the place of state.redis (--map-components)",
        "subscription 'incoming': rules come later; the default route is used",
        "Subscription 'others' is for cart; it is left out",
        "callers: nobody may call this service",
        "secret 'db:password': version 1",
    ] {
        assert!(first.errors.contains(said), "'{said}' is not said: {}", first.errors);
    }
    assert!(!first.errors.contains("hunter2"), "{}", first.errors);
    assert_eq!(node.run(&["secret", "get", "shop/orders", "db:password", "--reveal"]).text, "hunter2");
    assert!(node.run(&["state", "ls", "shop/orders"]).text.contains("cache"));
    let allowed = |operation: &str, scope: &str| {
        node.json(&["grant", "explain", "shop/orders", operation, scope])["allowed"] == true
    };
    assert!(allowed("publish", "topics:broker/new") && !allowed("publish", "topics:broker/incoming"));
    assert!(allowed("subscribe", "topics:broker/incoming"), "only publishing is scoped");
    assert!(allowed("get", "secrets:db:password") && !allowed("get", "secrets:other"));
    let key = node.json(&["key", "new", "service", "shop/orders"])["key"].as_str().unwrap().to_owned();
    let subscriptions = get(&node, &key, "/api/v1/twins/shop/orders/subscriptions");
    let expected = json!([{"name": "incoming", "component": "broker", "topic": "incoming", "path": "/orders",
                           "dead_letter": "dead", "metadata": {"isRaw": "true"}}]);
    assert_eq!(subscriptions, expected);

    let before = changes(&node);
    let second = with_resources(&node, folder, &["--map-components"]);
    assert!(
        second.code == 0 && second.errors.contains("secret 'db:password': version 1 (as it was)"),
        "{}",
        second.errors
    );
    assert_eq!(changes(&node), before);
    std::fs::write(&secrets, r#"{"db": {"password": "hunter3"}}"#).unwrap();
    let third = with_resources(&node, folder, &["--map-components"]);
    assert!(third.errors.contains("secret 'db:password': version 2\n"), "{}", third.errors);
    assert_eq!(changes(&node).len(), before.len() + 1, "only what has changed is new");
}

#[test]
fn secrets_of_the_environment_get_into_the_twin_only_if_they_are_named() {
    let node = Node::start();
    let folder = tempfile::tempdir().unwrap();
    let prefix = "type: secretstores.local.env\n  metadata:\n  - { name: secretsPrefix, value: APP_ }";
    write(folder.path(), "vault", "Component", prefix);
    let args = ["run", "--app-id", "shop/orders", "-d", folder.path().to_str().unwrap(), "--", "true"];
    let ran = Ran::from(node.command(&args).env("APP_DB", "hunter2").env("OTHER", "x").output().unwrap());
    assert!(ran.code == 0 && ran.errors.contains("secret 'DB': version 1"), "{}", ran.errors);
    let secrets = node.json(&["secret", "ls", "shop/orders"]);
    let names: Vec<&Value> = secrets.as_array().unwrap().iter().map(|secret| &secret["secret"]).collect();
    assert_eq!(names, ["DB"]);
}

#[test]
fn who_may_not_put_resources_there_hears_what_to_do() {
    let node = Node::start();
    let key = node.json(&["key", "new", "service", "shop/orders"])["key"].as_str().unwrap().to_owned();
    let elsewhere = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, kind: &str, rest: &str| {
        write(folder.path(), name, kind, rest);
        let path = folder.path().to_str().unwrap();
        let args = ["run", "--app-id", "shop/orders", "--token", &key, "-d", path, "--", "true"];
        Ran::from(node.command(&args).env("TWIN_DATA_DIR", elsewhere.path()).output().unwrap())
    };
    let own = run("incoming", "Subscription", "pubsubname: pubsub\n  topic: incoming\n  routes: { default: /orders }");
    assert_eq!(own.code, 0, "what is its own it may put there itself: {}", own.errors);
    let refused = run("vault", "Component", "type: secretstores.twin");
    assert_eq!(refused.code, 5, "{}", refused.errors);
    for said in ["component 'vault' did not get into the twin", "operator's key", "twin grant allow shop/orders"] {
        assert!(refused.errors.contains(said), "{}", refused.errors);
    }
}

#[test]
fn access_control_becomes_the_list_of_callers_and_never_a_wider_one() {
    let node = Node::start();
    let folder = tempfile::tempdir().unwrap();
    let control = "accessControl:\n    defaultAction: deny\n    trustDomain: public\n    policies:\n    \
         - appId: checkout\n      defaultAction: deny\n      namespace: shop\n      operations:\n      \
         - { name: /charge, httpVerb: [POST], action: allow }\n      \
         - { name: '/items/**', httpVerb: [GET], action: allow }\n    \
         - appId: audit\n      defaultAction: allow\n      namespace: farm\n    \
         - appId: cart\n      defaultAction: allow\n      operations:\n      \
         - { name: /refund, httpVerb: ['*'], action: deny }";
    write(folder.path(), "control", "Configuration", control);
    let callers = || {
        let key = node.operator();
        get(&node, &key, "/api/v1/twins/shop/orders/callers")["callers"].clone()
    };
    let first = with_resources(&node, folder.path(), &[]);
    assert_eq!(first.code, 0, "{}", first.errors);
    assert!(first.errors.contains("caller: shop/checkout may call 'POST /charge'\n"), "{}", first.errors);
    let said = "'defaultAction: allow' of 'shop/cart' with exceptions cannot be expressed";
    assert!(first.errors.contains(said), "{}", first.errors);
    let expected = json!([
        {"service": "shop/checkout", "method": "POST /charge"},
        {"service": "shop/checkout", "method": "GET /items/*"},
        {"service": "farm/audit", "method": "*"},
    ]);
    assert_eq!(callers(), expected);
    let before = changes(&node);
    let second = with_resources(&node, folder.path(), &[]);
    assert!(second.errors.contains("farm/audit may call '*' (as it was)"), "{}", second.errors);
    assert_eq!(changes(&node), before);

    write(folder.path(), "control", "Configuration", "accessControl: { defaultAction: deny }");
    let closed = with_resources(&node, folder.path(), &[]);
    for said in ["callers: nobody may call this service\n", "another list of callers was there, and is replaced"] {
        assert!(closed.errors.contains(said), "{}", closed.errors);
    }
    assert_eq!(callers(), json!([]));
}

/// An application over HTTP/1.1: it answers at once, but for `/slow`, which waits for `release`.
async fn application(release: tokio::sync::watch::Receiver<bool>) -> (u16, Arc<[AtomicUsize; 2]>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::<[AtomicUsize; 2]>::default();
    let counts = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (release, counts) = (release.clone(), Arc::clone(&counts));
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                let (mut release, counts) = (release.clone(), Arc::clone(&counts));
                async move {
                    let status = match request.uri().path() {
                        "/fast" => {
                            counts[0].fetch_add(1, Ordering::Relaxed);
                            200
                        }
                        "/slow" => {
                            counts[1].fetch_add(1, Ordering::Relaxed);
                            release.wait_for(|release| *release).await.unwrap();
                            200
                        }
                        _ => 404,
                    };
                    let answer = hyper::Response::builder().status(status);
                    Ok::<_, Infallible>(answer.body(Empty::<Bytes>::new()).unwrap())
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (port, asked)
}

/// Waits, and not for ever.
async fn soon(until: impl Future<Output = ()>) {
    tokio::time::timeout(crate::applications::SOON, until).await.expect("it is not so in time");
}

async fn is_so(it_is: impl Fn() -> bool) {
    while !it_is() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_leaves_under_load_finishes_what_is_under_way() {
    const SLOW: usize = 8;
    let node = Arc::new(Node::start());
    let (let_go, release) = tokio::sync::watch::channel(false);
    let (leaving, leaving_asked) = application(release.clone()).await;
    let (staying, staying_asked) = application(release).await;
    let (at, run_node) = (node.url.clone(), Arc::clone(&node));
    let start = move |instance: &'static str, port: u16| {
        let port = port.to_string();
        let args = ["run", "--app-id", "shop/orders", "--instance", instance, "--app-port", &port];
        let args = [&args[..], &["--", "sh", "-c", SERVICE]].concat();
        let mut process = run_node.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        let errors = BufReader::new(process.stderr.take().unwrap());
        (Run { process, lines }, errors)
    };
    let key = tokio::task::spawn_blocking(move || {
        node.run(&["grant", "allow", "shop/checkout", "invoke:orders/*"]);
        node.json(&["key", "new", "service", "shop/checkout"])["key"].as_str().unwrap().to_owned()
    });
    let key = key.await.unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let call = move |path: &'static str| {
        let request = client.post(format!("{at}/v1.0/invoke/orders/method/{path}")).header("dapr-api-token", &key);
        async move { request.send().await.unwrap().status().as_u16() }
    };

    let (mut first, mut errors) = start("i1", leaving);
    soon(async { while call("fast").await != 200 {} }).await;
    let slow: Vec<_> = (0..SLOW).map(|_| tokio::spawn(call("slow"))).collect();
    soon(is_so(|| leaving_asked[1].load(Ordering::Relaxed) == SLOW)).await;
    let (second, _errors) = start("i2", staying);
    let both = async {
        while staying_asked[0].load(Ordering::Relaxed) == 0 {
            assert_eq!(call("fast").await, 200);
        }
    };
    soon(both).await;

    // More at once than the first one has to do, so that both are asked.
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let load: Vec<_> = (0..SLOW * 3)
        .map(|_| {
            let (call, stopped) = (call.clone(), stopped.clone());
            tokio::spawn(async move {
                let mut statuses = Vec::new();
                while !*stopped.borrow() {
                    statuses.push(call("fast").await);
                }
                statuses
            })
        })
        .collect();
    let before = leaving_asked[0].load(Ordering::Relaxed);
    soon(is_so(|| leaving_asked[0].load(Ordering::Relaxed) > before)).await;
    first.signal(Signal::TERM);
    tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        while !line.contains("ending;") {
            line.clear();
            assert_ne!(errors.read_line(&mut line).unwrap(), 0, "it does not say that it ends");
        }
        // Read on, so that it never waits for us.
        std::thread::spawn(move || drop(errors.read_to_string(&mut line)));
    })
    .await
    .unwrap();
    assert!(slow.iter().all(|call| !call.is_finished()), "they are under way");
    let_go.send_replace(true);
    for call in slow {
        assert_eq!(call.await.unwrap(), 200, "what was under way is finished");
    }
    let ended = tokio::task::spawn_blocking(move || {
        assert_eq!(first.says(), "ready");
        first.ended()
    });
    assert_eq!(ended.await.unwrap(), (Some(0), "== APP == ending\n".to_owned()));
    let after = staying_asked[0].load(Ordering::Relaxed);
    soon(is_so(|| staying_asked[0].load(Ordering::Relaxed) > after)).await;
    stop.send_replace(true);
    for calls in load {
        // Nobody hears of it in another way than of an instance that is away.
        let statuses = calls.await.unwrap();
        assert!(statuses.iter().all(|status| [200, 500].contains(status)), "{statuses:?}");
        assert_eq!(statuses.last(), Some(&200), "the other one answers");
    }
    tokio::task::spawn_blocking(move || drop(second)).await.unwrap();
}

/// Reads a document of the node.
fn get(node: &Node, key: &str, path: &str) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(format!("{}{path}", node.url)).bearer_auth(key).send().await.unwrap().json().await.unwrap()
    })
}
