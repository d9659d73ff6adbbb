//! Limit of fenced updates: for each stream a loop that makes one atomic batch of what waits, with the headers and sizes
//! of ours, and waits for its acknowledgement.

use std::{collections::HashSet, sync::Arc};

use async_nats::{Client as Nats, HeaderMap, header};
use bytes::Bytes;
use service_twin::{
    model::Key,
    store::{Epoch, Slot},
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use crate::{
    workloads::{Client, hot},
    world::place_of,
};

/// Most messages of a batch, and callers that wait for one.
const BATCH_MAX: usize = 200;

struct Update {
    at: usize,
    reply: oneshot::Sender<()>,
}

/// What is written, and under which epochs of the slots.
pub(crate) struct Records {
    pub(crate) prefix: &'static str,
    pub(crate) ids: Arc<[String]>,
    pub(crate) epochs: Vec<Epoch>,
    pub(crate) record: Bytes,
}

/// Callers of the loops.
#[derive(Clone)]
pub(crate) struct Raw {
    records: Arc<Records>,
    loops: Arc<[mpsc::Sender<Update>]>,
}

impl Raw {
    /// Starts a loop for each stream.
    pub(crate) fn start(handle: &Handle, nats: &Nats, streams: u16, records: Records) -> Self {
        let records = Arc::new(records);
        let loops = (0..streams).map(|_| {
            let (send, receive) = mpsc::channel(1_024);
            handle.spawn(write(nats.clone(), records.clone(), receive));
            send
        });
        Self { loops: loops.collect(), records }
    }
}

async fn write(nats: Nats, records: Arc<Records>, mut waiting: mpsc::Receiver<Update>) {
    let mut batches = 0_u64;
    while let Some(first) = waiting.recv().await {
        let mut updates = vec![first];
        while updates.len() < BATCH_MAX
            && let Ok(next) = waiting.try_recv()
        {
            updates.push(next);
        }
        batches += 1;
        // As long as the number that ours makes.
        let id = format!("{:p}{batches:018}", &raw const *records);
        let mut slots = HashSet::new();
        for (at, update) in updates.iter().enumerate() {
            let key = &records.ids[update.at];
            let slot = Slot::of(Key::hash_of(key));
            let (start, epoch) =
                (format!("{}.{}.{}", records.prefix, place_of(slot), slot.0), records.epochs[usize::from(slot.0)].0);
            let mut headers = HeaderMap::new();
            headers.insert("Tw-Sequence", batches.to_string());
            headers.insert("Tw-Epoch", epoch.to_string());
            if slots.insert(slot) {
                headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, epoch.to_string());
                headers.insert("Nats-Expected-Last-Subject-Sequence-Subject", format!("{start}.own"));
            }
            headers.insert(header::NATS_BATCH_ID, id.as_str());
            headers.insert(header::NATS_BATCH_SEQUENCE, (at + 1).to_string());
            let subject = format!("{start}.c.entity.{key}");
            if at + 1 < updates.len() {
                nats.publish_with_headers(subject, headers, records.record.clone()).await.unwrap();
            } else {
                headers.insert(header::NATS_BATCH_COMMIT, header::NATS_BATCH_COMMIT_FINAL);
                let answer = nats.request_with_headers(subject, headers, records.record.clone()).await.unwrap();
                let text = String::from_utf8_lossy(&answer.payload).into_owned();
                assert!(!text.contains("error"), "{text}");
            }
        }
        for update in updates {
            update.reply.send(()).unwrap();
        }
    }
}

impl Client for Raw {
    async fn call(&mut self, at: u64) -> u64 {
        let at = hot(at, self.records.ids.len());
        let place = place_of(Slot::of(Key::hash_of(&self.records.ids[at])));
        let (reply, answer) = oneshot::channel();
        let sent = self.loops[usize::from(place)].try_send(Update { at, reply });
        assert!(sent.is_ok(), "the channel holds more than the window");
        answer.await.unwrap();
        1
    }
}
