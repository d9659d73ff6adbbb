//! A node on a free port with nothing in it, and a client that holds its first operator key.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use service_twin::{
    app::{KEY_FILE, Node},
    config::{Config, StoreConfig, StoreKind},
    model::{Clock, SystemClock, Timestamp},
};

use crate::described;

/// The machine's clock, which a test puts forward.
#[derive(Default)]
pub(crate) struct Ahead(AtomicU64);

impl Ahead {
    /// Lets time pass.
    pub(crate) fn pass(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        SystemClock.now().after(Duration::from_millis(self.0.load(Ordering::Relaxed)))
    }
}

/// A running node and what it needs.
pub(crate) struct World {
    pub(crate) clock: Arc<Ahead>,
    pub(crate) node: Node,
    pub(crate) client: reqwest::Client,
    pub(crate) operator: String,
    pub(crate) folder: tempfile::TempDir,
}

/// An answer, read whole.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) etag: Option<String>,
    pub(crate) kind: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) async fn of(response: Response) -> Self {
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (etag, kind) = (header("etag"), header("content-type").unwrap_or_default());
        Self { status: response.status().as_u16(), etag, kind, body: response.bytes().await.unwrap().to_vec() }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }

    /// The problem's code; fails if it is none.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(self.kind, "application/problem+json", "{}", String::from_utf8_lossy(&self.body));
        let problem = self.json();
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        (self.status, problem["code"].as_str().unwrap().to_owned())
    }
}

pub(crate) fn config(folder: &Path, kind: StoreKind) -> Config {
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: folder.to_path_buf(),
        drain_s: 10,
        store: StoreConfig { kind, ..StoreConfig::default() },
        ..Config::default()
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path(), StoreKind::Memory);
        change(&mut config);
        Self::start(folder, config).await
    }

    pub(crate) async fn start(folder: tempfile::TempDir, config: Config) -> Self {
        let clock = Arc::new(Ahead::default());
        let node = Node::start_by(config, clock.clone()).await.unwrap();
        let operator = std::fs::read_to_string(folder.path().join(KEY_FILE)).unwrap().trim().to_owned();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
        Self { clock, node, client, operator, folder }
    }

    /// A request without a key.
    pub(crate) fn bare(&self, method: &str, path: &str) -> RequestBuilder {
        self.client.request(Method::from_bytes(method.as_bytes()).unwrap(), format!("{}{path}", self.node.url()))
    }

    /// A request with the operator's key.
    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.bare(method, path).bearer_auth(&self.operator)
    }

    /// The same, sent, with a body if it is not null; the answer is as the node describes it.
    pub(crate) async fn send(&self, method: &str, path: &str, body: Value) -> Answer {
        let request = self.request(method, path);
        let request = if body.is_null() { request } else { request.json(&body) };
        let answer = Answer::of(request.send().await.unwrap()).await;
        described::check(method, path, &answer);
        answer
    }

    /// The same, which must go well.
    pub(crate) async fn done(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.send(method, path, body).await;
        let fine = StatusCode::from_u16(answer.status).unwrap().is_success();
        assert!(fine, "{method} {path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    /// A fresh key.
    pub(crate) async fn mint(&self, body: Value) -> (String, String) {
        let made = self.done("POST", "/api/v1/keys", body).await;
        (made["id"].as_str().unwrap().to_owned(), made["key"].as_str().unwrap().to_owned())
    }
}

/// Reads server-sent events until one is of this type.
pub(crate) async fn event(response: &mut Response, kind: &str) -> (String, Value) {
    let mut text = String::new();
    loop {
        let chunk = response.chunk().await.unwrap().expect("the stream ended early");
        text.push_str(std::str::from_utf8(&chunk).unwrap());
        for block in text.split("\n\n") {
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name).map(str::trim));
            if let (Some(found), Some(data)) = (field("event:"), field("data:"))
                && found == kind
                && let Ok(data) = serde_json::from_str(data)
            {
                described::is_event(kind, &data);
                return (field("id:").unwrap_or_default().to_owned(), data);
            }
        }
    }
}
