//! A node's store, and somebody who listens.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use service_twin::{
    model::Key,
    store::{
        Address, Commit, Committed, Done, Ended, Epoch, Error, Load, Loaded, SharedTerms, Slot, Store,
        nats::{NatsConfig, NatsStore},
    },
};

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Node {
    pub(crate) store: Arc<NatsStore>,
    to: Arc<Ears>,
    pub(crate) ended: Receiver<Ended>,
}

struct Ears(Mutex<Sender<Ended>>);

impl Committed for Ears {
    fn ended(&self, commits: Vec<Ended>) {
        let sender = self.0.lock().unwrap();
        for ended in commits {
            drop(sender.send(ended));
        }
    }
}

pub(crate) fn wait<T: Send + 'static>(call: impl FnOnce(Done<T>)) -> Result<T, Error> {
    let (send, answer) = channel();
    call(Box::new(move |result| drop(send.send(result))));
    answer.recv_timeout(PATIENCE).expect("the store answers in time")
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

pub(crate) fn address(key: &str) -> Arc<Address> {
    Arc::new(Address { kind: "thing".into(), key: Key::parse(key).unwrap() })
}

/// This many keys of one slot.
pub(crate) fn keys_of(slot: Slot, count: usize) -> Vec<String> {
    let keys = (0_u64..).map(|n| format!("t/{n}")).filter(|key| Slot::of(Key::hash_of(key)) == slot);
    keys.take(count).collect()
}

impl Node {
    pub(crate) fn open(config: NatsConfig) -> Self {
        let (send, ended) = channel();
        let store = Arc::new(NatsStore::open(config).unwrap());
        Self { store, to: Arc::new(Ears(Mutex::new(send))), ended }
    }

    pub(crate) fn claim(&self, slot: Slot) -> Epoch {
        wait(|done| self.store.claim(slot, None, done)).unwrap()
    }

    pub(crate) fn core(&self, key: &str, epoch: Epoch, sequence: u64, core: &str) -> Commit {
        Commit {
            address: address(key),
            slot: self.store.slot_of(key),
            epoch,
            sequence,
            core: Some(core.as_bytes().to_vec()),
            pages: Vec::new(),
            wake_at: None,
            terms: SharedTerms::default(),
            riders: Vec::new(),
            token: sequence,
            to: self.to.clone(),
        }
    }

    pub(crate) fn hand_in(&self, commit: Commit) {
        self.store.commit(commit).expect("the queue has room");
    }

    pub(crate) fn next(&self) -> Ended {
        self.ended.recv_timeout(PATIENCE).expect("a commit that was taken ends")
    }

    pub(crate) fn commit(&self, commit: Commit) -> Result<(), Error> {
        self.hand_in(commit);
        self.next().result
    }

    pub(crate) fn load(&self, key: &str, under: Option<Epoch>) -> Result<Loaded, Error> {
        let load = Load { address: address(key), core: true, pages: Vec::new(), prefix: None, under };
        wait(|done| self.store.load(load, done))
    }

    /// The core as text, as the owner reads it.
    pub(crate) fn read(&self, key: &str, under: Epoch) -> Option<String> {
        self.load(key, Some(under)).unwrap().core.map(|core| String::from_utf8(core).unwrap())
    }
}
