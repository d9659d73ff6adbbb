//! What the topic itself holds, read from the folder without a node.

use std::{path::Path, sync::Arc, time::Duration};

use service_twin::{
    bus::{Lease, Outcome, Read, Settle, Settled, Stored, Topic, topic::Start},
    model::{Clock, SystemClock, Timestamp},
    runtime::{Config, Runtime},
    store::{
        Level,
        sled::{Options, SledStore},
    },
};

use super::topic::{Book, Subscriber, TOPIC};

/// By how much the clock goes ahead: every lease is over by then.
const AHEAD: Duration = Duration::from_secs(3600);

struct Later;

impl Clock for Later {
    fn now(&self) -> Timestamp {
        SystemClock.now().after(AHEAD)
    }
}

/// Compares the log with what was published, and what the services heard and still have to hear with the log. Answers
/// how many messages they still had to hear.
pub(crate) async fn compare(folder: &Path, book: &Book, subscribers: &[Subscriber]) -> usize {
    let options = Options { level: Level::Flushed, cache_bytes: 16 << 20, ..Options::default() };
    let store = Arc::new(SledStore::open(&folder.join("store"), options).unwrap());
    let config = Config { arbiters: 1, shards_per_arbiter: 4, ..Config::default() };
    let runtime = Runtime::builder().config(config).store(store).clock(Arc::new(Later)).kind::<Topic>();
    let runtime = runtime.start().unwrap();
    let topic = format!("shop/pubsub/{TOPIC}");
    let mut log: Vec<(usize, u64)> = Vec::new();
    loop {
        let from = u64::try_from(log.len()).unwrap() + 1;
        let read = runtime.twin(&topic).ask(Read { from, limit: 64 }).await.unwrap();
        if read.is_empty() {
            break;
        }
        for (number, message) in read {
            assert_eq!(number, u64::try_from(log.len()).unwrap() + 1, "the topic's numbers have no gap");
            log.push(met(book, &message));
        }
    }
    for (producer, (sent, acknowledged)) in book.sent().into_iter().zip(book.acknowledged()).enumerate() {
        let entered: Vec<_> = log.iter().filter(|place| place.0 == producer).map(|place| place.1).collect();
        let count = u64::try_from(entered.len()).unwrap();
        assert!(entered.iter().copied().eq(1..=count), "producer {producer}: each number once, in order: {entered:?}");
        assert!((acknowledged..=sent).contains(&count), "producer {producer}: {acknowledged} ≤ {count} ≤ {sent}");
    }
    let mut left = 0;
    for subscriber in subscribers {
        let rest = rest(&runtime, &topic, subscriber.service()).await;
        for (number, place) in (1..).zip(&log) {
            let (heard, comes) = (subscriber.has_heard(*place), rest.contains(&number));
            assert!(heard || comes, "{}: message {number} was published and never comes", subscriber.service());
        }
        left += rest.len();
    }
    assert_eq!(runtime.drain(Duration::from_secs(20)).await.unsettled, 0);
    left
}

/// The event's data, beside its id.
fn met(book: &Book, message: &Stored) -> (usize, u64) {
    let event: serde_json::Value = serde_json::from_slice(&message.body.0).unwrap();
    book.met(&message.id, event["data"].as_str().unwrap())
}

/// What a group has not settled.
async fn rest(runtime: &Runtime, topic: &str, group: &str) -> Vec<u64> {
    let mut rest = Vec::new();
    loop {
        let lease = Lease { group: group.into(), max: 64, lease_ms: 60_000, from: Start::Now, settle: Vec::new() };
        let leased = runtime.twin(topic).ask(lease).await.unwrap().messages;
        if leased.is_empty() {
            return rest;
        }
        let outcomes =
            leased.iter().map(|&(number, attempts)| Settled { number, attempts, outcome: Outcome::Done }).collect();
        runtime.twin(topic).ask(Settle { group: group.into(), outcomes }).await.unwrap();
        rest.extend(leased.iter().map(|(number, _)| *number));
    }
}
