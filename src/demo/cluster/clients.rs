//! The load: each client counts on a twin of its own, through any node that it reaches, and remembers what it was told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use reqwest::{
    Client, StatusCode,
    header::{CONTENT_TYPE, ETAG, HeaderValue, IF_MATCH, IF_NONE_MATCH},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// Clients, and twins.
pub(super) const COUNT: usize = 24;
/// How long a client waits for an answer before it asks another node.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two numbers of one client, and before it tries again.
const PAUSE: Duration = Duration::from_millis(10);

/// What the clients met with.
#[derive(Default)]
pub(super) struct Tally {
    /// Numbers that were acknowledged.
    pub(super) acknowledged: AtomicU64,
    /// Times a node did not answer, or said that it could not.
    pub(super) retried: AtomicU64,
    /// How long a client waited for a number at most, over all its tries, in milliseconds.
    pub(super) longest_ms: AtomicU64,
    /// The last number each client was told is stored.
    last: [AtomicU64; COUNT],
    over: AtomicBool,
}

/// Where the twins are asked.
#[derive(Clone)]
pub(super) struct Door {
    client: Client,
    nodes: Arc<[String]>,
    key: Arc<str>,
}

impl Door {
    pub(super) fn new(nodes: impl IntoIterator<Item = String>, key: &str) -> reqwest::Result<Self> {
        let client = Client::builder().no_proxy().timeout(PATIENCE).build()?;
        Ok(Self { client, nodes: nodes.into_iter().collect(), key: key.into() })
    }

    /// A twin's path through any node.
    fn twin(&self, number: usize, rest: &str) -> String {
        let node = rand::random_range(0..self.nodes.len());
        format!("{}/api/v1/twins/demo/counter-{number}{rest}", self.nodes[node])
    }

    /// Makes a twin, if it is not there yet.
    async fn make(&self, number: usize) -> bool {
        let put = self.client.put(self.twin(number, "")).bearer_auth(&self.key).send().await;
        put.is_ok_and(|answer| answer.status().is_success())
    }

    /// What a twin has, and its version.
    async fn stored(&self, number: usize) -> Option<(u64, Option<HeaderValue>)> {
        let answer = self.client.get(self.twin(number, NUMBER)).bearer_auth(&self.key).send().await.ok()?;
        if matches!(answer.status(), StatusCode::NOT_FOUND | StatusCode::NO_CONTENT) {
            return Some((0, None));
        }
        let answer = answer.error_for_status().ok()?;
        let version = answer.headers().get(ETAG).cloned();
        Some((answer.text().await.ok()?.parse().ok()?, version))
    }

    /// Writes the next number, unless somebody wrote since: a try of ours that was late, or whose answer was lost.
    async fn advance(&self, number: usize, next: u64) -> bool {
        let Some((stored, version)) = self.stored(number).await else { return false };
        if stored >= next {
            return true;
        }
        let put = self.client.put(self.twin(number, NUMBER)).bearer_auth(&self.key);
        let put = match version {
            Some(version) => put.header(IF_MATCH, version),
            None => put.header(IF_NONE_MATCH, "*"),
        };
        let put = put.header(CONTENT_TYPE, "application/json").body(next.to_string());
        put.send().await.is_ok_and(|answer| answer.status().is_success())
    }
}

/// Where a counter has its number.
const NUMBER: &str = "/state/statestore/number";

impl Tally {
    fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// The clients end after the number they are at.
    pub(super) fn end(&self) {
        self.over.store(true, Relaxed);
    }

    /// Numbers that were acknowledged and that the twins do not have: none, if all is well.
    pub(super) async fn lost(&self, door: &Door) -> Result<u64, String> {
        let mut lost = 0;
        for (number, last) in self.last.iter().enumerate() {
            let began = Instant::now();
            let stored = loop {
                match door.stored(number).await {
                    Some((stored, _)) => break stored,
                    None if began.elapsed() > PATIENCE * 10 => {
                        return Err(format!("the twin demo/counter-{number} does not answer"));
                    }
                    None => sleep(PAUSE).await,
                }
            };
            lost += last.load(Relaxed).saturating_sub(stored);
        }
        Ok(lost)
    }
}

/// Starts the clients; they go on until [`Tally::end`].
pub(super) fn start(door: &Door, tally: &Arc<Tally>) -> JoinSet<()> {
    let client = |number| count(number, door.clone(), Arc::clone(tally));
    (0..COUNT).map(client).collect()
}

async fn count(number: usize, door: Door, tally: Arc<Tally>) {
    while !tally.is_over() && !door.make(number).await {
        sleep(PAUSE).await;
    }
    for next in 1.. {
        let began = Instant::now();
        while !door.advance(number, next).await {
            if tally.is_over() {
                return;
            }
            tally.retried.fetch_add(1, Relaxed);
            sleep(PAUSE).await;
        }
        tally.last[number].store(next, Relaxed);
        tally.acknowledged.fetch_add(1, Relaxed);
        tally.longest_ms.fetch_max(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
        if tally.is_over() {
            return;
        }
        sleep(PAUSE).await;
    }
}
