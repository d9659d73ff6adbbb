//! Limit of W3: a tokio task per id behind a bounded `mpsc`, answering through a `oneshot`; found by id in a plain map.

use std::{collections::HashMap, sync::Arc};

use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use super::super::{Client, State, hot};

struct Add {
    by: u64,
    reply: oneshot::Sender<u64>,
}

/// Senders by id.
#[derive(Clone)]
pub(crate) struct Tasks {
    senders: Arc<HashMap<String, mpsc::Sender<Add>, ahash::RandomState>>,
    ids: Arc<[String]>,
}

impl Tasks {
    /// Starts a task for each id.
    pub(crate) fn new(ids: &Arc<[String]>, host: &Handle) -> Self {
        let senders = ids.iter().map(|id| {
            let (send, mut receive) = mpsc::channel::<Add>(64);
            host.spawn(async move {
                let mut state = State::default();
                while let Some(add) = receive.recv().await {
                    state.count += add.by;
                    add.reply.send(state.count).expect("the caller waits");
                }
            });
            (id.clone(), send)
        });
        Self { senders: Arc::new(senders.collect()), ids: ids.clone() }
    }

    async fn add(&self, id: &str, by: u64) -> u64 {
        let (reply, answer) = oneshot::channel();
        let sent = self.senders[id].send(Add { by, reply }).await;
        assert!(sent.is_ok(), "the task runs");
        answer.await.expect("the task answers")
    }

    /// All counters in id order.
    pub(crate) fn counters(&self, host: &Handle) -> Vec<u64> {
        let read = async |id: &String| self.add(id, 0).await;
        self.ids.iter().map(|id| host.block_on(read(id))).collect()
    }
}

impl Client for Tasks {
    async fn call(&mut self, at: u64) -> u64 {
        self.add(&self.ids[hot(at, self.ids.len())], 1).await
    }
}
