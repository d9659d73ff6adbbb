//! Who publishes to the topic and who takes from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use dapr::dapr::proto::runtime::v1::{
    SubscribeTopicEventsRequestAlpha1, SubscribeTopicEventsRequestInitialAlpha1,
    SubscribeTopicEventsRequestProcessedAlpha1, TopicEventRequest, TopicEventResponse, dapr_client::DaprClient,
    subscribe_topic_events_request_alpha1::SubscribeTopicEventsRequestType as Said,
    subscribe_topic_events_response_alpha1::SubscribeTopicEventsResponseType as Heard,
    topic_event_response::TopicEventResponseStatus as Status,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use reqwest::Method;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tonic::{Request, Streaming, transport::Channel};

use super::node::{Reached, is_busy};

pub(crate) const TOPIC: &str = "numbers";
/// A subscriber that is cut off takes at most so many messages before.
const TAKEN_MAX: u32 = 120;

/// What was published, and which content each number turned out to have.
pub(crate) struct Book {
    sent: Mutex<Vec<u64>>,
    acknowledged: Mutex<Vec<u64>>,
    contents: Mutex<BTreeMap<(usize, u64), String>>,
}

impl Book {
    pub(crate) fn new(producers: usize) -> Self {
        let none = || Mutex::new(vec![0; producers]);
        Self { sent: none(), acknowledged: none(), contents: Mutex::default() }
    }

    pub(crate) fn sent(&self) -> Vec<u64> {
        self.sent.lock().unwrap().clone()
    }

    pub(crate) fn acknowledged(&self) -> Vec<u64> {
        self.acknowledged.lock().unwrap().clone()
    }

    /// Takes note of a message; it is the same wherever and however often it is met.
    pub(crate) fn met(&self, id: &str, content: &str) -> (usize, u64) {
        let words: Vec<_> = content.split(' ').collect();
        let place = (words[0].parse().unwrap(), words[1].parse().unwrap());
        assert_eq!(id, format!("{}-{}", place.0, place.1), "id and content belong together");
        let mut contents = self.contents.lock().unwrap();
        let known = contents.entry(place).or_insert_with(|| content.to_owned());
        assert_eq!(known, content, "message {id} has two contents");
        place
    }
}

/// Publishes its numbers one after the other, each until it was acknowledged.
pub(crate) struct Publisher {
    producer: usize,
    attempts: u64,
    book: Arc<Book>,
}

impl Publisher {
    pub(crate) fn new(producer: usize, book: Arc<Book>) -> Self {
        Self { producer, attempts: 0, book }
    }

    pub(crate) async fn work(&mut self, node: &Reached) {
        let producer = self.producer;
        loop {
            for room in &node.room {
                let Ok(permit) = room.acquire().await else { return };
                permit.forget();
            }
            let number = self.book.acknowledged.lock().unwrap()[producer] + 1;
            self.book.sent.lock().unwrap()[producer] = number;
            self.attempts += 1;
            let path = format!("/v1.0/publish/pubsub/{TOPIC}?metadata.cloudevent.id={producer}-{number}");
            // Each attempt has a content of its own, of which one is kept.
            let content = format!("{producer} {number} {}", self.attempts);
            let plain = [("content-type", "text/plain")];
            let Some((status, _, body)) = node.send("shop/checkout", Method::POST, &path, &plain, content).await else {
                return;
            };
            if status == 204 {
                self.book.acknowledged.lock().unwrap()[producer] = number;
                node.acknowledged();
            } else {
                node.room.iter().for_each(|room| room.add_permits(1));
                assert!(is_busy(status), "{status} {}", String::from_utf8_lossy(&body));
            }
        }
    }
}

/// A service that takes the messages; it may be cut off now and then.
pub(crate) struct Subscriber {
    service: &'static str,
    is_cut: bool,
    random: StdRng,
    heard: BTreeSet<(usize, u64)>,
}

struct Taking {
    say: mpsc::Sender<SubscribeTopicEventsRequestAlpha1>,
    answers: Streaming<dapr::dapr::proto::runtime::v1::SubscribeTopicEventsResponseAlpha1>,
}

impl Taking {
    /// `None` if the node is gone.
    async fn begin(node: &Reached, service: &str) -> Option<Self> {
        let channel = Channel::from_shared(node.url.clone()).unwrap().connect().await.ok()?;
        let (say, words) = mpsc::channel(64);
        let initial = SubscribeTopicEventsRequestInitialAlpha1 {
            pubsub_name: "pubsub".into(),
            topic: TOPIC.into(),
            ..Default::default()
        };
        say.send(said(Said::InitialRequest(initial))).await.unwrap();
        let words = futures_util::stream::unfold(words, async |mut words| Some((words.recv().await?, words)));
        let mut request = Request::new(words);
        let key = format!("Bearer {}", node.key(service)).parse().unwrap();
        request.metadata_mut().insert("authorization", key);
        let mut answers = DaprClient::new(channel).subscribe_topic_events_alpha1(request).await.ok()?.into_inner();
        answers.message().await.ok()??;
        Some(Self { say, answers })
    }

    async fn next(&mut self) -> Option<TopicEventRequest> {
        match self.answers.message().await.ok()??.subscribe_topic_events_response_type {
            Some(Heard::EventMessage(event)) => Some(event),
            other => panic!("{other:?}"),
        }
    }

    async fn settle(&self, id: String, status: Status) {
        let status = Some(TopicEventResponse { status: i32::from(status) });
        let processed = SubscribeTopicEventsRequestProcessedAlpha1 { id, status };
        // Nobody hears it if the node is gone.
        drop(self.say.send(said(Said::EventProcessed(processed))).await);
    }
}

fn said(kind: Said) -> SubscribeTopicEventsRequestAlpha1 {
    SubscribeTopicEventsRequestAlpha1 { subscribe_topic_events_request_type: Some(kind) }
}

impl Subscriber {
    pub(crate) fn new(service: &'static str, is_cut: bool, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed ^ u64::from(is_cut));
        Self { service, is_cut, random, heard: BTreeSet::new() }
    }

    fn room<'a>(&self, node: &'a Reached) -> &'a Semaphore {
        &node.room[usize::from(self.is_cut)]
    }

    pub(crate) fn service(&self) -> &'static str {
        self.service
    }

    pub(crate) fn heard(&self) -> usize {
        self.heard.len()
    }

    pub(crate) fn has_heard(&self, place: (usize, u64)) -> bool {
        self.heard.contains(&place)
    }

    /// Subscribes, and then takes messages until the node is gone.
    pub(crate) async fn begin(mut self, node: &Reached, book: Arc<Book>) -> JoinHandle<Self> {
        let mut taking = Taking::begin(node, self.service).await.expect("the node lives");
        let node = node.clone();
        tokio::spawn(async move {
            // What is published from here on comes to the first subscription of a life in order.
            let mut before = Some(book.sent());
            loop {
                let most = if self.is_cut { self.random.random_range(1..TAKEN_MAX) } else { u32::MAX };
                if !self.take(&node, &mut taking, most, &book, before.take()).await {
                    break;
                }
                // Cut off with what it has not settled: dropped in the middle, as a process that dies does it.
                drop(taking);
                let Some(again) = Taking::begin(&node, self.service).await else { break };
                taking = again;
            }
            // Nobody waits for room of a dead node.
            self.room(&node).close();
            self
        })
    }

    /// Takes so many messages; answers whether the node still lives.
    async fn take(
        &mut self,
        node: &Reached,
        taking: &mut Taking,
        most: u32,
        book: &Book,
        mut newest: Option<Vec<u64>>,
    ) -> bool {
        for _ in 0..most {
            let Some(event) = taking.next().await else { return false };
            self.room(node).add_permits(1);
            let place = book.met(&event.id, std::str::from_utf8(&event.data).unwrap());
            if let Some(newest) = newest.as_mut().map(|newest| &mut newest[place.0])
                && place.1 > *newest
            {
                assert_eq!(place.1, *newest + 1, "{}: producer {} out of order", self.service, place.0);
                *newest = place.1;
            }
            self.heard.insert(place);
            match self.random.random_range(0..20) {
                0 if self.is_cut => {}
                1 if self.is_cut => taking.settle(event.id, Status::Retry).await,
                _ => taking.settle(event.id, Status::Success).await,
            }
        }
        true
    }
}
