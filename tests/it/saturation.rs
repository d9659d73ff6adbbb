//! A node with as much to do as it can take, at `fsync`, for a long time: no flush may take long, nothing may be lost.
//!
//! Asked for by name: `./scripts/test saturation` (ten minutes), `SATURATION_S=20 ./scripts/test saturation` (a taste).
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]
#![expect(clippy::disallowed_methods, reason = "durations are measured, and the environment says for how long")]

use std::{
    io::Write as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    api_world::Answer,
    process::{Node, twin},
};

const SECONDS: u64 = 600;
/// What no flush may take on a quiet disk.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// A bare write that takes so long says that the disk is busy with something else, and the run would say nothing.
const QUIET_MAX: Duration = Duration::from_millis(500);
const CALLERS: usize = 64;
const TWINS_PER_CALLER: u64 = 16;
const PROBES: u32 = 200;

/// The longest of some bare writes of 64 KiB, each synced.
fn bare(folder: &Path) -> Duration {
    let mut file = std::fs::File::create(folder.join("bare")).unwrap();
    let bytes = vec![7; 65_536];
    let one = |_| {
        let began = Instant::now();
        file.write_all(&bytes).unwrap();
        file.sync_data().unwrap();
        began.elapsed()
    };
    (0..PROBES).map(one).max().unwrap()
}

struct Load {
    client: reqwest::Client,
    url: String,
    key: String,
    over: AtomicBool,
    commands: AtomicU64,
    spans: AtomicU64,
}

impl Load {
    fn twin(caller: usize, number: u64) -> String {
        format!("/api/v1/twins/shop/s{caller:03}-{number:02}")
    }

    async fn send(&self, method: reqwest::Method, path: &str, body: Value) -> Answer {
        let request = self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key);
        let request = if body.is_null() { request } else { request.json(&body) };
        Answer::of(request.send().await.unwrap()).await
    }

    /// Changes its twins in turn, for as long as the run lasts; answers what each was told last.
    async fn command(self: Arc<Self>, caller: usize) -> Vec<u64> {
        let mut last = vec![0; usize::try_from(TWINS_PER_CALLER).unwrap()];
        for number in 0..TWINS_PER_CALLER {
            let created = self.send(reqwest::Method::PUT, &Self::twin(caller, number), Value::Null).await.status;
            assert!([201, 409].contains(&created), "{created}: neither made nor there because its spans came first");
        }
        for n in 1.. {
            if self.over.load(Ordering::Relaxed) {
                break;
            }
            let number = n % TWINS_PER_CALLER;
            let path = format!("{}/attributes", Self::twin(caller, number));
            let body = json!({"n": n, "filling": format!("{n:08}").repeat(64)});
            let answer = self.send(reqwest::Method::PATCH, &path, body).await;
            assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
            last[usize::try_from(number).unwrap()] = n;
            self.commands.fetch_add(1, Ordering::Relaxed);
        }
        last
    }

    /// Sends spans for the same twins; what a busy node refuses is not sent again.
    async fn observe(self: Arc<Self>, caller: usize) {
        for first in 0.. {
            if self.over.load(Ordering::Relaxed) {
                break;
            }
            let names = (0..256).map(|n| format!("GET /{}", n % 12));
            let service = format!("s{:03}-{:02}", caller, first % TWINS_PER_CALLER);
            let request = crate::bad_input::trace_of(&service, names, first * 256);
            let sent = self.client.post(format!("{}/v1/traces", self.url)).bearer_auth(&self.key);
            let answer = sent.header("content-type", "application/x-protobuf").body(request).send().await.unwrap();
            assert!([200, 503].contains(&answer.status().as_u16()), "{}", answer.status());
            self.spans.fetch_add(256, Ordering::Relaxed);
        }
    }

    async fn longest_flush(&self) -> Duration {
        let metrics = self.send(reqwest::Method::GET, "/metrics", Value::Null).await;
        let text = String::from_utf8(metrics.body).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("twin_store_flush_longest_seconds "));
        Duration::from_secs_f64(line.unwrap_or_else(|| panic!("{text}")).parse().unwrap())
    }
}

#[tokio::test]
#[ignore = "takes ten minutes; asked for by name"]
async fn ten_minutes_of_saturation_see_no_flush_above_two_seconds_and_lose_nothing() {
    let seconds = std::env::var("SATURATION_S").map_or(SECONDS, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let quiet = bare(folder.path());
    assert!(quiet < QUIET_MAX, "THE DISK IS NOT QUIET: a bare write took {quiet:?} before the run began");
    let mut command = twin();
    command.args(["serve", "--durability", "fsync"]);
    let node = Node::spawn(command, folder.path());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let (over, commands, spans) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let load = Arc::new(Load { client, url: node.url.clone(), key: node.operator(), over, commands, spans });
    let callers: Vec<_> = (0..CALLERS).map(|caller| tokio::spawn(Arc::clone(&load).command(caller))).collect();
    let senders: Vec<_> = (0..4).map(|caller| tokio::spawn(Arc::clone(&load).observe(caller))).collect();
    let began = Instant::now();
    let mut longest = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(seconds) {
        // A caller that fails ends the run at once.
        assert!(!callers.iter().any(tokio::task::JoinHandle::is_finished), "a caller failed; its words are above");
        tokio::time::sleep(Duration::from_secs(1)).await;
        longest = load.longest_flush().await;
        assert!(longest <= FLUSH_MAX, "a flush took {longest:?}; a bare write before the run {quiet:?}");
    }
    load.over.store(true, Ordering::Relaxed);
    for (caller, told) in callers.into_iter().enumerate() {
        for (number, n) in (0..).zip(told.await.unwrap()) {
            let path = format!("{}/attributes", Load::twin(caller, number));
            let found = load.send(reqwest::Method::GET, &path, Value::Null).await.json()["n"].as_u64();
            assert_eq!(found.unwrap_or_default(), n, "{path}");
        }
    }
    for sender in senders {
        sender.await.unwrap();
    }
    let (commands, spans) = (load.commands.load(Ordering::Relaxed), load.spans.load(Ordering::Relaxed));
    eprintln!(
        "{seconds} s: {} commands/s, {} spans/s offered, the longest flush {longest:?}, the longest bare write {quiet:?}",
        commands / seconds,
        spans / seconds
    );
    assert!(node.terminate());
}
