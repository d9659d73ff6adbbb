//! A node as a process, and how it is reached while it lives.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};
use service_twin::app::KEY_FILE;
use tokio::sync::Semaphore;

use crate::FSYNC_EVERY;

/// Who writes state, who publishes, who subscribes.
pub(crate) const SERVICES: [&str; 3] = ["shop/orders", "shop/checkout", "shop/audit"];

/// A node as a process.
pub(crate) struct Node {
    process: Child,
    url: String,
    operator: String,
}

impl Node {
    pub(crate) fn start(folder: &Path, life: u64) -> Self {
        let level = if life % FSYNC_EVERY == FSYNC_EVERY - 1 { "fsync" } else { "flushed" };
        let mut process = Command::new(env!("CARGO_BIN_EXE_twin"))
            .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json", "--data-dir"])
            .arg(folder)
            .env("TWIN_STORE__LEVEL", level)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let url = loop {
            let Some(line) = lines.next() else { panic!("life {life}: the node did not start: {said:?}") };
            let told: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(url) = told["url"].as_str() {
                break url.to_owned();
            }
            said.push(line);
        };
        // Read to the end, so that the node never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        let operator = std::fs::read_to_string(folder.join(KEY_FILE)).unwrap().trim().to_owned();
        Self { process, url, operator }
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// An answer: status, headers, body.
pub(crate) type Answer = (u16, HeaderMap, Vec<u8>);

/// A node as long as it lives, and the keys of the services.
#[derive(Clone)]
pub(crate) struct Reached {
    client: reqwest::Client,
    pub(crate) url: String,
    keys: [String; 3],
    /// One permit for each acknowledgement.
    acks: Arc<Semaphore>,
    /// How many messages may be published that a subscriber has not taken; one for each subscriber. Closed with it.
    pub(crate) room: [Arc<Semaphore>; 2],
}

/// Messages on their way at once. What a subscriber has when the node dies comes again after its lease, a minute; a
/// group has 256 leases, so that more would stop it until then.
const UNDER_WAY: usize = 4;

impl Reached {
    /// Makes the keys if there are none yet.
    pub(crate) async fn new(node: &Node, keys: &mut Option<[String; 3]>, acks: Arc<Semaphore>) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        if keys.is_none() {
            let mut made = Vec::new();
            for service in SERVICES {
                let body = json!({"kind": "service", "service": service});
                let request = client.post(format!("{}/api/v1/keys", node.url)).bearer_auth(&node.operator).json(&body);
                let answer: Value = request.send().await.unwrap().json().await.unwrap();
                made.push(answer["key"].as_str().unwrap().to_owned());
            }
            *keys = made.try_into().ok();
        }
        let room = std::array::from_fn(|_| Arc::new(Semaphore::new(UNDER_WAY)));
        Self { client, url: node.url.clone(), keys: keys.clone().unwrap(), acks, room }
    }

    pub(crate) fn key(&self, service: &str) -> &str {
        &self.keys[SERVICES.iter().position(|known| *known == service).unwrap()]
    }

    pub(crate) fn acknowledged(&self) {
        self.acks.add_permits(1);
    }

    /// Sends a request; `None` if the node is gone, and with it the answer.
    pub(crate) async fn send(
        &self,
        service: &str,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Option<Answer> {
        let mut request = self.client.request(method, format!("{}{path}", self.url)).bearer_auth(self.key(service));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.body(body).send().await.ok()?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Some((status, headers, answer.bytes().await.ok()?.to_vec()))
    }
}

/// The ETag of an answer.
pub(crate) fn etag(headers: &HeaderMap) -> u64 {
    headers["etag"].to_str().unwrap().trim_matches('"').parse().unwrap()
}

/// Whether the node was too busy, and did nothing.
pub(crate) fn is_busy(status: u16) -> bool {
    [429, 503].contains(&status)
}
