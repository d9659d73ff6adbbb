//! A toy runtime: one list for each slot, appended to under the slot's epoch and read from memory under the lease.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use service_twin::{
    cluster::{
        Hosting, Served, ServedTo, Soon,
        memory::{Records, Way},
    },
    store::{Epoch, Slot},
};
use tokio::{sync::Notify, time::timeout};

use super::{net::Process, world::Fence};

/// How long the store may take before a commit's outcome is unknown.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The operation that reads.
pub const READ: u32 = 0;

/// What a call answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Appended at this place; or, for a read, how long the list is.
    Done(u32),
    /// Certainly not.
    Not,
    /// Perhaps.
    Unknown,
}

impl Told {
    pub fn encode(self) -> Vec<u8> {
        let (kind, number) = match self {
            Self::Done(number) => (0, number),
            Self::Not => (1, 0),
            Self::Unknown => (2, 0),
        };
        [&[kind][..], &u32::to_le_bytes(number)].concat()
    }

    pub fn decode(bytes: &[u8]) -> Self {
        let number = u32::from_le_bytes(bytes[1..].try_into().expect("an answer has five bytes"));
        match bytes[0] {
            0 => Self::Done(number),
            1 => Self::Not,
            _ => Self::Unknown,
        }
    }
}

/// The lists as they are stored.
pub struct Lists {
    pub records: Records,
    pub fence: Fence,
    pub of: Mutex<BTreeMap<Slot, Vec<(Epoch, u32)>>>,
    /// What must not have happened.
    pub broken: Mutex<Option<String>>,
}

impl Lists {
    fn owns(&self, slot: Slot, epoch: Epoch) -> bool {
        self.records.owner(slot).is_some_and(|owner| owner.epoch == epoch && !owner.released)
    }

    /// Appends if the epoch is in force, in one step.
    fn append(&self, slot: Slot, epoch: Epoch, operation: u32) -> bool {
        let owns = self.owns(slot, epoch);
        if !owns && self.fence == Fence::Up {
            return false;
        }
        let mut lists = self.of.lock();
        let list = lists.entry(slot).or_default();
        if !owns || list.last().is_some_and(|(last, _)| *last > epoch) {
            self.broken.lock().get_or_insert_with(|| format!("slot {} was written under a stale epoch", slot.0));
        }
        list.push((epoch, operation));
        true
    }

    /// Reads a list if the epoch is in force, in one step.
    fn load(&self, slot: Slot, epoch: Epoch) -> Option<u32> {
        let length = self.of.lock().get(&slot).map_or(0, Vec::len);
        self.owns(slot, epoch).then(|| u32::try_from(length).expect("lists are short"))
    }
}

/// A slot in memory.
struct Hosted {
    epoch: Epoch,
    shut: AtomicBool,
    under_way: AtomicUsize,
    settled: Notify,
    /// One turn at a time; how long the list is, once that is known.
    length: tokio::sync::Mutex<Option<u32>>,
}

/// What a process hosts.
pub struct Host {
    pub process: Arc<Process>,
    pub lists: Arc<Lists>,
    hosted: Mutex<BTreeMap<Slot, Arc<Hosted>>>,
}

impl Host {
    pub fn new(process: Arc<Process>, lists: Arc<Lists>) -> Arc<Self> {
        Arc::new(Self { process, lists, hosted: Mutex::default() })
    }

    pub fn slots(&self) -> Vec<(Slot, Epoch)> {
        self.hosted.lock().iter().map(|(slot, hosted)| (*slot, hosted.epoch)).collect()
    }

    /// One request to the store, which may arrive although nobody waits any more.
    async fn stored<T: Send + 'static>(&self, act: impl FnOnce(&Lists) -> T + Send + 'static) -> Option<T> {
        let (process, lists) = (Arc::clone(&self.process), Arc::clone(&self.lists));
        let sent = tokio::spawn(async move {
            if !process.pass().await {
                return None;
            }
            let done = act(&lists);
            process.pass().await.then_some(done)
        });
        timeout(COMMIT_TIMEOUT, sent).await.ok()?.ok().flatten()
    }

    async fn turn(&self, slot: Slot, hosted: &Hosted, operation: u32) -> Told {
        let node = self.process.node.lock().clone();
        let Some(node) = node else { return Told::Not };
        let epoch = hosted.epoch;
        let mut length = hosted.length.lock().await;
        let is_current = || self.hosted.lock().get(&slot).is_some_and(|now| now.epoch == epoch);
        if !is_current() {
            return Told::Not;
        }
        let known = match *length {
            Some(known) => known,
            None => match self.stored(move |lists| lists.load(slot, epoch)).await {
                Some(Some(loaded)) => loaded,
                Some(None) | None => {
                    node.claim_again(slot, epoch);
                    return Told::Not;
                }
            },
        };
        *length = Some(known);
        if operation == READ {
            let may = node.holds_lease() && is_current();
            return if may { Told::Done(known) } else { Told::Not };
        }
        match self.stored(move |lists| lists.append(slot, epoch, operation)).await {
            Some(true) => {
                *length = Some(known + 1);
                Told::Done(known)
            }
            done => {
                // The next turn is under another epoch, and reads anew.
                if is_current() {
                    self.hosted.lock().remove(&slot);
                }
                node.claim_again(slot, epoch);
                if done.is_some() { Told::Not } else { Told::Unknown }
            }
        }
    }
}

/// Sees that a slot is told to be settled, however a turn ends.
struct UnderWay(Arc<Hosted>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
        self.0.settled.notify_waiters();
    }
}

/// The runtime's side of the contract; the world holds it by an `Arc`.
pub struct Door(pub Arc<Host>);

impl Hosting for Door {
    fn own(&self, slot: Slot, epoch: Epoch) {
        let host = &self.0;
        host.process.shared.say(format_args!("{} owns {} under {}", host.process.name, slot.0, epoch.0));
        let hosted = Hosted {
            epoch,
            shut: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            settled: Notify::new(),
            length: tokio::sync::Mutex::new(None),
        };
        host.hosted.lock().insert(slot, Arc::new(hosted));
    }

    fn disown(&self, slot: Slot) {
        let host = &self.0;
        host.process.shared.say(format_args!("{} disowns {}", host.process.name, slot.0));
        host.hosted.lock().remove(&slot);
    }

    fn hand_over(&self, slot: Slot) -> Soon<'_, ()> {
        Box::pin(async move {
            let hosted = self.0.hosted.lock().get(&slot).cloned();
            let Some(hosted) = hosted else { return };
            hosted.shut.store(true, Ordering::Relaxed);
            loop {
                let settled = hosted.settled.notified();
                if hosted.under_way.load(Ordering::Relaxed) == 0 {
                    return;
                }
                settled.await;
            }
        })
    }

    fn serve_node(&self, call: Vec<u8>, done: ServedTo) {
        done(Served::Answer(call));
    }

    fn serve(&self, slot: Slot, call: Vec<u8>, done: ServedTo) {
        let host = Arc::clone(&self.0);
        let hosted = host.hosted.lock().get(&slot).cloned().filter(|hosted| !hosted.shut.load(Ordering::Relaxed));
        let Some(hosted) = hosted else { return done(Served::Elsewhere) };
        let operation = u32::from_le_bytes(call.try_into().expect("a call has four bytes"));
        hosted.under_way.fetch_add(1, Ordering::Relaxed);
        let under_way = UnderWay(hosted);
        tokio::spawn(async move {
            let told = host.turn(slot, &under_way.0, operation).await;
            drop(under_way);
            if host.process.lives() {
                done(Served::Answer(told.encode()));
            }
        });
    }
}
