//! Peers that send too much, too many different things, or take too little; and how the rest is served meanwhile.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]
#![expect(clippy::disallowed_methods, reason = "how long an answer takes is measured")]

use std::{
    process::Command,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::{
    api_world::{Answer, World},
    otlp::named,
    process::{Node, TWIN, twin},
};

const MIB: usize = 1 << 20;
const PROTOBUF: &str = "application/x-protobuf";

/// Sends a body of 100 MB for as long as the node takes it; answers how much that was, and what the node said.
async fn send_100_mb(world: &World, path: &str, kind: &str) -> (usize, String) {
    let stream = TcpStream::connect(world.node.address()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: {kind}\r\n\
         transfer-encoding: chunked\r\n\r\n",
        world.operator
    );
    write.write_all(head.as_bytes()).await.unwrap();
    let answer = tokio::spawn(async move {
        let mut answer = Vec::new();
        // The node closes without having read all, which may end in a reset behind the answer.
        drop(read.read_to_end(&mut answer).await);
        String::from_utf8(answer).unwrap()
    });
    let mut chunk = b"10000\r\n".to_vec();
    chunk.resize(chunk.len() + 0x1_0000, b' ');
    chunk.extend_from_slice(b"\r\n");
    let mut sent = 0;
    while sent < 100 * MIB && write.write_all(&chunk).await.is_ok() {
        sent += 0x1_0000;
    }
    (sent, answer.await.unwrap())
}

#[tokio::test]
async fn a_body_of_100_mb_in_chunks_is_refused_at_the_bound() {
    let world = World::with(|config| config.server.otlp_bytes_max = MIB).await;
    for (path, kind) in
        [("/v1/traces", PROTOBUF), ("/v1/logs", "application/json"), ("/api/v1/keys", "application/json")]
    {
        let (sent, answer) = send_100_mb(&world, path, kind).await;
        assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body-too-large"), "{path}: {answer}");
        // What the bound lets in, and what both ends' sockets hold.
        assert!(sent < 32 * MIB, "{path}: {sent}");
    }
    world.done("GET", "/api/v1/twins", Value::Null).await;
}

#[tokio::test]
async fn a_message_that_unpacks_to_100_mb_is_refused_over_grpc() {
    use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
    use tonic::codec::CompressionEncoding;
    let world = World::new().await;
    let channel = tonic::transport::Endpoint::from_shared(world.node.url()).unwrap().connect().await.unwrap();
    let mut client = TraceServiceClient::new(channel).send_compressed(CompressionEncoding::Gzip);
    let span = Span { name: "a".repeat(100 * MIB), ..Span::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    let request =
        ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] };
    let mut request = tonic::Request::new(request);
    request.metadata_mut().insert("authorization", format!("Bearer {}", world.operator).parse().unwrap());
    let refused = client.export(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("limit"), "{refused}");
}

/// Idle connections, all of which have spoken once.
const IDLE: u64 = 10_000;

#[cfg(unix)]
#[tokio::test]
async fn a_node_with_10_000_idle_connections_answers_as_quickly_as_ever() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let room = maximum.unwrap_or(u64::MAX).saturating_sub(500);
    let idle = IDLE.min(room);
    if idle < IDLE {
        eprintln!("THIS SYSTEM LETS A PROCESS OPEN ONLY {room} FILES MORE: {idle} idle connections instead of {IDLE}");
    }
    // The node starts with what shells give, and must help itself.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 1024 && exec \"$@\"", "sh", TWIN, "serve", "--memory"]);
    command.env("TWIN_SERVER__HEADER_TIMEOUT_S", "600");
    let folder = tempfile::tempdir().unwrap();
    let node = Node::spawn(command, folder.path());
    let address = node.url.strip_prefix("http://").unwrap();

    let mut held = Vec::new();
    for number in 0..idle {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap_or_else(|error| panic!("connection {number}: {error}"));
        assert_eq!(&answer, b"HTTP/1.1 200", "connection {number}");
        held.push(stream);
    }
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let key = node.operator();
    let twin = format!("{}/api/v1/twins/shop/orders", node.url);
    assert_eq!(client.put(&twin).bearer_auth(&key).send().await.unwrap().status(), 201);
    let mut longest = Duration::ZERO;
    for _ in 0..200 {
        let began = Instant::now();
        assert_eq!(client.get(&twin).bearer_auth(&key).send().await.unwrap().status(), 200);
        longest = longest.max(began.elapsed());
    }
    eprintln!("{idle} idle connections: the slowest of 200 answers took {longest:?}");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    let metrics = client.get(format!("{}/metrics", node.url)).bearer_auth(&key).send().await.unwrap().text().await;
    let metrics = metrics.unwrap();
    let open = metrics.lines().find_map(|line| line.strip_prefix("twin_connections ")).unwrap();
    assert!(open.parse::<u64>().unwrap() > idle, "{open} connections are open at the same time");
    drop(held);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_let_go_and_finds_its_place_again() {
    let world = World::with(|config| {
        config.server.stall_timeout_s = 1;
        config.runtime.events_kept = 64;
    })
    .await;
    let attributes = "/api/v1/twins/shop/orders/attributes";
    world.done("PUT", "/api/v1/twins/shop/orders", Value::Null).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stuck = socket.connect(world.node.address()).await.unwrap();
    let head = format!("GET /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", world.operator);
    stuck.write_all(head.as_bytes()).await.unwrap();
    stuck.readable().await.unwrap();

    let streams = || world.node.server().metrics.streams.get();
    assert_eq!(streams(), 1);
    let filling = "x".repeat(1500);
    let mut last = 0;
    // The kernel's buffers take some megabytes; then the node waits for a second, while everybody else goes on.
    for n in 1..20_000_u64 {
        world.done("PATCH", attributes, json!({"n": n, "filling": filling})).await;
        last = n;
        if streams() == 0 {
            break;
        }
    }
    assert_eq!(streams(), 0, "the stream is still open after {last} events");

    let mut text = Vec::new();
    drop(stuck.read_to_end(&mut text).await);
    let text = String::from_utf8_lossy(&text);
    let id = text.rsplit("\n\n").find_map(|block| block.lines().find_map(|line| line.strip_prefix("id: "))).unwrap();
    let resumed = world.request("GET", "/api/v1/events").header("last-event-id", id);
    let mut resumed = resumed.send().await.unwrap();
    let (after, _) = crate::api_world::event(&mut resumed, "gap").await;
    let number = |id: &str| id.split_once('.').unwrap().1.parse::<u64>().unwrap();
    assert!(number(&after) > number(id) && number(&after) <= last, "from {id} on to {after} of {last}");
    drop(resumed);
    let again = world.request("GET", "/api/v1/events").header("last-event-id", &after);
    let (next, _) = crate::api_world::event(&mut again.send().await.unwrap(), "twin.attributes.changed").await;
    assert_eq!(number(&next), number(&after) + 1, "nothing is missing behind the gap");
}

#[test]
fn an_instance_is_lost_after_the_silence_that_an_operator_chose() {
    let node = Node::start_in(
        tempfile::tempdir().unwrap(),
        &["--memory", "--set", "service.presence_timeout_s=1", "--set", "service.operations_max=1"],
    );
    let key = node.operator();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
        let url = |path: &str| format!("{}{path}", node.url);
        let mut stream = client.get(url("/api/v1/events")).bearer_auth(&key).send().await.unwrap();
        let beat = client.put(url("/api/v1/twins/shop/orders/instances/i1")).bearer_auth(&key).json(&json!({}));
        assert_eq!(beat.send().await.unwrap().status(), 200);
        let names = ["GET /a", "GET /b", "GET /c"].map(str::to_owned).into_iter();
        let traces = client.post(url("/v1/traces")).bearer_auth(&key).header("content-type", PROTOBUF);
        assert_eq!(traces.body(trace_of("orders", names, 0)).send().await.unwrap().status(), 200);
        // Far sooner than the minute that is the default, and than the patience of this client.
        let mut heard = String::new();
        while !heard.contains("\"presence\":\"lost\"") {
            heard.push_str(std::str::from_utf8(&stream.chunk().await.unwrap().unwrap()).unwrap());
        }
        let behaviour = client.get(url("/api/v1/twins/shop/orders/behaviour")).bearer_auth(&key).send().await.unwrap();
        let operations = Answer::of(behaviour).await.json()["operations"].clone();
        let names: Vec<_> = operations.as_array().unwrap().iter().map(|one| one["operation"].clone()).collect();
        assert_eq!(names, [json!("GET /a"), json!("_other")]);
    });
}

/// Different values of each kind: in the test command, and in the run that is asked for by name.
const VALUES: u64 = 100_000;
const VALUES_NAMED: u64 = 1_000_000;
/// Different values in one request.
const AT_ONCE: u64 = 10_000;
/// What a node may take more for one service's million of values, its own buffers included.
const GROWTH_KIB_MAX: u64 = 160 * 1024;
/// Most bytes that two twins and a key take in an export: a core, 64 KiB of observed pages, a journal of 16 pages each.
const STORED_BYTES_MAX: u64 = 512 * 1024;

fn resource(service: &str, extra: &[(&str, &str)]) -> Resource {
    let mut attributes = vec![named("service.namespace", "shop"), named("service.name", service)];
    attributes.extend(extra.iter().map(|(key, value)| named(key, value)));
    Resource { attributes, ..Resource::default() }
}

fn now_nanos() -> u64 {
    let now = service_twin::model::Clock::now(&service_twin::model::SystemClock);
    now.unix_ms() * 1_000_000
}

fn spans(service: &str, extra: &[(&str, &str)], names: impl Iterator<Item = String>, first: u64) -> ResourceSpans {
    let end = now_nanos();
    let span = |(name, id): (String, u64)| Span {
        trace_id: vec![1; 16],
        span_id: (id + 1).to_be_bytes().to_vec(),
        name,
        kind: 2,
        start_time_unix_nano: end - 1_000_000,
        end_time_unix_nano: end,
        ..Span::default()
    };
    let spans = names.zip(first..).map(span).collect();
    ResourceSpans {
        resource: Some(resource(service, extra)),
        scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    }
}

/// A request with one span of a service for each name, encoded.
pub(crate) fn trace_of(service: &str, names: impl Iterator<Item = String>, first: u64) -> Vec<u8> {
    ExportTraceServiceRequest { resource_spans: vec![spans(service, &[], names, first)] }.encode_to_vec()
}

/// One point for each number, each with another value of a label, and each of another metric if it shall be.
fn points(service: &str, numbers: std::ops::Range<u64>, is_other_metric: bool) -> ExportMetricsServiceRequest {
    let time = now_nanos();
    let point = |number: u64| NumberDataPoint {
        attributes: vec![named("user.id", &format!("user-{number}"))],
        time_unix_nano: time,
        value: Some(number_data_point::Value::AsDouble(1.0)),
        ..NumberDataPoint::default()
    };
    let gauge = |name: String, points: Vec<NumberDataPoint>| Metric {
        name,
        data: Some(metric::Data::Gauge(Gauge { data_points: points })),
        ..Metric::default()
    };
    let metrics = if is_other_metric {
        numbers.map(|number| gauge(format!("metric.{number}"), vec![point(number)])).collect()
    } else {
        vec![gauge("queue.length".into(), numbers.map(point).collect())]
    };
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let resource_metrics =
        ResourceMetrics { resource: Some(resource(service, &[])), scope_metrics, ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] }
}

/// A node as a process, whose memory can be weighed.
struct Flooded {
    node: Node,
    client: reqwest::Client,
    key: String,
}

impl Flooded {
    /// Sends until it is taken: a busy node says so, and nothing was counted.
    async fn export(&self, signal: &str, body: Vec<u8>) {
        loop {
            let request = self.client.post(format!("{}/v1/{signal}", self.node.url)).bearer_auth(&self.key);
            let request = request.header("content-type", PROTOBUF).body(body.clone());
            let answer = Answer::of(request.send().await.unwrap()).await;
            match answer.status {
                200 if answer.body.is_empty() => return,
                // In part: the rest was refused with its reason, and is not to be sent again.
                200 => assert!(String::from_utf8_lossy(&answer.body).contains("is full"), "{:?}", answer.body),
                503 => continue,
                other => panic!("{other}: {}", String::from_utf8_lossy(&answer.body)),
            }
            return;
        }
    }

    async fn get(&self, path: &str) -> Value {
        let url = format!("{}/api/v1/twins/shop/{path}", self.node.url);
        let answer = Answer::of(self.client.get(url).bearer_auth(&self.key).send().await.unwrap()).await;
        assert_eq!(answer.status, 200, "{path}");
        answer.json()
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.node.process.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse().unwrap())
    }

    async fn quiet(&self, first: u64) {
        let names = (0..10).map(|_| "GET /".to_owned());
        self.export("traces", trace_of("quiet", names, first)).await;
    }
}

async fn flood(values: u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = twin();
    command.args(["serve", "--durability", "flushed"]);
    let node = Node::spawn(command, folder.path());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let world = Flooded { key: node.operator(), node, client };
    world.quiet(0).await;
    for metrics in [points("orders", 0..1, false), points("orders", 0..1, true)] {
        world.export("metrics", metrics.encode_to_vec()).await;
    }
    let before = world.resident_kib();
    for first in (0..values).step_by(usize::try_from(AT_ONCE).unwrap()) {
        let numbers = first..first + AT_ONCE;
        world.export("metrics", points("orders", numbers.clone(), false).encode_to_vec()).await;
        world.export("metrics", points("orders", numbers.clone(), true).encode_to_vec()).await;
        let names = numbers.clone().map(|number| format!("GET /users/{number}"));
        world.export("traces", trace_of("orders", names, first)).await;
        // Each with a version and an instance of its own.
        let sender = |number: u64| {
            let (version, instance) = (format!("1.0.{number}"), format!("pod-{number}"));
            let extra = [("service.version", version.as_str()), ("service.instance.id", instance.as_str())];
            spans("orders", &extra, std::iter::once("GET /".to_owned()), values + number)
        };
        let resources = ExportTraceServiceRequest { resource_spans: numbers.map(sender).collect() };
        world.export("traces", resources.encode_to_vec()).await;
        world.quiet(first + 1000).await;
    }
    let grown = world.resident_kib().saturating_sub(before);
    eprintln!("{values} values of five kinds: {grown} KiB more than before");
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB");

    let behaviour = world.get("orders/behaviour").await;
    let operations = behaviour["operations"].as_array().unwrap();
    let series = behaviour["series"].as_array().unwrap();
    let is_other = |name: &'static str| move |one: &Value| one[name] == "_other";
    assert!(operations.len() <= 25 && operations.iter().any(is_other("operation")), "{}", operations.len());
    assert!(series.len() <= 33 && series.iter().any(is_other("name")), "{}", series.len());
    let instances = world.get("orders/instances").await;
    let instances = instances.as_array().or(instances["instances"].as_array()).unwrap().len();
    assert!((1..=64).contains(&instances), "{instances}");

    let quiet = world.get("quiet/behaviour").await;
    let sent = 10 * (values / AT_ONCE + 1);
    assert_eq!(quiet["operations"][0]["count"].as_u64(), Some(sent), "the neighbour misses nothing");

    // What is stored of all of it, in the form that says every byte once.
    assert!(world.node.terminate());
    let file = folder.path().join("all.twins");
    let exported = twin().arg("export").arg(&file).env("TWIN_DATA_DIR", folder.path()).output().unwrap();
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let stored = std::fs::metadata(&file).unwrap().len();
    eprintln!("{stored} bytes stored");
    assert!(stored < STORED_BYTES_MAX, "{stored}");
}

#[tokio::test]
async fn a_hundred_thousand_label_values_stay_within_the_bounds_of_one_twin() {
    flood(VALUES).await;
}

#[tokio::test]
#[ignore = "takes minutes; asked for by name"]
async fn a_million_label_values_stay_within_the_bounds_of_one_twin() {
    flood(VALUES_NAMED).await;
}
