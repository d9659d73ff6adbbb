//! SIGTERM in the middle of work: the node ends well and soon, and has afterwards what it had answered for.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
};

use crate::{
    api_world::World,
    bad_input::trace_of,
    process::{Node, twin},
};

const TWINS: u64 = 24;
/// Each has twins of its own, so that it knows what they were told last.
const CALLERS: u64 = 12;
/// Each has a service of its own, which callers change meanwhile.
const SENDERS: u64 = 6;
const SPANS: u64 = 50;
/// Answers before each SIGTERM.
const ANSWERS: [u32; 3] = [150, 600, 1_200];
/// Longer than a drain may take (`drain_s`).
const END_MAX: Duration = Duration::from_secs(40);

/// What became of a request.
enum Outcome {
    Done(Vec<u8>),
    /// Certainly not applied; `last` if the node is going away.
    Not {
        last: bool,
    },
    /// The connection ended before the answer.
    Unknown,
}

struct Load {
    client: reqwest::Client,
    url: String,
    key: String,
    answered: Semaphore,
}

fn path(twin: u64) -> String {
    format!("/api/v1/twins/shop/s{twin}")
}

impl Load {
    fn new(node: &Node) -> Self {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
        Self { client, url: node.url.clone(), key: node.operator(), answered: Semaphore::new(0) }
    }

    async fn send(&self, method: Method, path: &str, kind: &str, body: Vec<u8>) -> Outcome {
        let request = self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key);
        let response = match request.header("content-type", kind).body(body).send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Outcome::Not { last: true },
            Err(error) => {
                assert!(!error.is_timeout(), "a request without an answer: {error}");
                return Outcome::Unknown;
            }
        };
        let status = response.status().as_u16();
        let Ok(body) = response.bytes().await else { return Outcome::Unknown };
        match status {
            200 | 201 => {
                self.answered.add_permits(1);
                Outcome::Done(body.to_vec())
            }
            503 => {
                let problem: Value = serde_json::from_slice(&body).unwrap();
                Outcome::Not { last: problem["code"] == "stopping" }
            }
            _ => panic!("{path}: {status} {}", String::from_utf8_lossy(&body)),
        }
    }

    /// Counts its twins up in turn until the node goes away; answers for each the least and the most it may be at.
    async fn command(self: Arc<Self>, caller: u64, from: u64) -> Vec<(u64, u64, u64)> {
        let mut told: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for n in from + 1.. {
            let twin = caller + CALLERS * (n % (TWINS / CALLERS));
            let (path, body) = (format!("{}/attributes", path(twin)), json!({"n": n}).to_string().into_bytes());
            match self.send(Method::PATCH, &path, "application/json", body).await {
                Outcome::Done(_) => drop(told.insert(twin, (n, n))),
                Outcome::Not { last: false } => {}
                Outcome::Not { last: true } => break,
                Outcome::Unknown => {
                    let least = told.get(&twin).map_or(0, |told| told.0);
                    told.insert(twin, (least, n));
                    break;
                }
            }
        }
        told.into_iter().map(|(twin, (least, most))| (twin, least, most)).collect()
    }

    /// Sends spans until the node goes away; answers how many were accepted, and how many more may have been.
    async fn observe(self: Arc<Self>, service: u64, from: u64) -> (u64, u64, u64) {
        let mut accepted = 0;
        for request in 0.. {
            let names = (0..SPANS).map(|_| "GET /orders".to_owned());
            let body = trace_of(&format!("s{service}"), names, from + request * SPANS);
            match self.send(Method::POST, "/v1/traces", "application/x-protobuf", body).await {
                Outcome::Done(body) => {
                    let refused = ExportTraceServiceResponse::decode(&body[..]).unwrap().partial_success;
                    let refused = refused.map_or(0, |refused| refused.rejected_spans);
                    accepted += SPANS - u64::try_from(refused).unwrap();
                }
                Outcome::Not { last: false } => {}
                Outcome::Not { last: true } => break,
                Outcome::Unknown => return (service, accepted, SPANS),
            }
        }
        (service, accepted, 0)
    }

    async fn read(&self, twin: u64) -> Value {
        let path = format!("{}?behaviour=true", path(twin));
        let Outcome::Done(body) = self.send(Method::GET, &path, "application/json", Vec::new()).await else {
            panic!("'{path}' was not answered");
        };
        serde_json::from_slice(&body).unwrap()
    }
}

/// What the twins must show.
#[derive(Default)]
struct Expected {
    /// The least and the most that each was told.
    told: BTreeMap<u64, (u64, u64)>,
    /// Spans that were accepted, and those of which nobody knows.
    spans: BTreeMap<u64, (u64, u64)>,
}

impl Expected {
    /// Compares, and takes what was found for what is so.
    async fn compare(&mut self, load: &Load) {
        for (twin, (least, most)) in &mut self.told {
            let found = load.read(*twin).await["attributes"]["n"].as_u64().unwrap_or_default();
            assert!(found == *least || found == *most, "{twin} is at {found}, was told {least} and maybe {most}");
            (*least, *most) = (found, found);
        }
        for (service, (accepted, maybe)) in &mut self.spans {
            let view = load.read(*service).await;
            let found = view["behaviour"]["operations"][0]["count"].as_u64().unwrap_or_default();
            let possible = [*accepted, *accepted + *maybe];
            assert!(
                possible.contains(&found),
                "{service} counted {found} of {accepted} accepted and maybe {maybe} spans"
            );
            (*accepted, *maybe) = (found, 0);
        }
    }
}

fn start(folder: &Path) -> Node {
    let mut command = twin();
    command.args(["serve", "--durability", "fsync"]);
    Node::spawn(command, folder)
}

/// Ends it as an operator would; it must end well and within its time.
async fn terminate(node: Node) {
    let (send, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || send.send(node.terminate()));
    let ended = tokio::time::timeout(END_MAX, ended).await.expect("the drain did not end").unwrap();
    assert!(ended, "the drain did not end with 0");
}

#[tokio::test]
async fn sigterm_under_load_drains_and_loses_nothing_that_was_answered() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = Expected::default();
    let (mut from, mut spans) = (0, 0);
    let mut node = start(folder.path());
    for twin in 0..TWINS {
        let made = Load::new(&node).send(Method::PUT, &path(twin), "application/json", b"{}".to_vec()).await;
        assert!(matches!(made, Outcome::Done(_)), "{twin} was not made");
    }
    for answers in ANSWERS {
        let load = Arc::new(Load::new(&node));
        let (mut callers, mut senders) = (JoinSet::new(), JoinSet::new());
        for caller in 0..CALLERS {
            callers.spawn(Arc::clone(&load).command(caller, from));
        }
        for service in 0..SENDERS {
            senders.spawn(Arc::clone(&load).observe(service, spans));
        }
        drop(load.answered.acquire_many(answers).await.unwrap());
        terminate(node).await;
        for (twin, least, most) in callers.join_all().await.into_iter().flatten() {
            let told = expected.told.entry(twin).or_default();
            *told = (least.max(told.0), most);
            from = from.max(most);
        }
        for (service, accepted, maybe) in senders.join_all().await {
            let sum = expected.spans.entry(service).or_default();
            (sum.0, sum.1) = (sum.0 + accepted, maybe);
        }
        // Ids of spans and numbers of commands go on where nobody was.
        (from, spans) = (from + 1, spans + 10_000_000);
        node = start(folder.path());
        expected.compare(&Load::new(&node)).await;
    }
    terminate(node).await;
    let answered: u64 = expected.spans.values().map(|spans| spans.0).sum();
    assert!(answered > 0 && expected.told.len() == usize::try_from(TWINS).unwrap(), "there was no load");
}

/// One answer whose body is one line.
async fn ready(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with('\n') || answer.ends_with("\r\n") {
        let mut some = [0; 1024];
        let length = stream.read(&mut some).await.unwrap();
        assert!(length > 0, "the connection ended without an answer");
        answer.push_str(std::str::from_utf8(&some[..length]).unwrap());
    }
    answer
}

#[tokio::test]
async fn who_asks_while_the_node_begins_to_stop_hears_so_before_the_connection_ends() {
    let World { node, folder, .. } = World::new().await;
    let address = node.address();
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert!(ready(&mut stream).await.starts_with("HTTP/1.1 200"));
    let ended = tokio::spawn(node.shutdown());
    // Once nobody listens, the node is stopping.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let answer = ready(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("stopping\n"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "it ends with its answer");
    assert_eq!(ended.await.unwrap().unsettled, 0);
    drop(folder);
}
