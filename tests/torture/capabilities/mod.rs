//! State, transactions and topics of a real node that is killed with `kill -9` under load, again and again.
//!
//! Each writer knows what it was told and what it sent without an answer; after every kill it compares that with what is
//! there. What subscribers heard is compared with the topic's own log, read from the folder that the last kill left.

mod log;
mod node;
mod state;
mod topic;

use std::sync::Arc;

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::sync::Semaphore;

use self::{
    node::{Node, Reached},
    state::{Shared, Single, Transactions},
    topic::{Book, Publisher, Subscriber},
};

/// Writers of each sort.
const WRITERS: u64 = 2;
/// Producers of the topic.
const PRODUCERS: usize = 3;
/// A life is killed after at most so many acknowledgements.
const ACKS_MAX: u32 = 1_500;
/// How long a life may take for them.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Everything that writes, with what it knows.
struct Writers {
    single: Vec<Single>,
    transactions: Vec<Transactions>,
    publishers: Vec<Publisher>,
    shared: Arc<Shared>,
}

impl Writers {
    /// Compares what is there with what was acknowledged; what was sent without an answer is known afterwards.
    async fn compare(&mut self, node: &Reached) {
        for writer in &mut self.single {
            writer.compare(node).await;
        }
        for writer in &mut self.transactions {
            writer.compare(node).await;
        }
        self.shared.read(node).await.expect("the node answers");
    }

    /// Writes until the node is gone.
    async fn work(self, node: &Reached) -> Self {
        let Self { single, transactions, publishers, shared } = self;
        let racers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let (shared, node) = (Arc::clone(&shared), node.clone());
                tokio::spawn(async move { shared.work(&node).await })
            })
            .collect();
        let single = single.into_iter().map(|mut writer| {
            let node = node.clone();
            tokio::spawn(async move {
                writer.work(&node).await;
                writer
            })
        });
        let transactions = transactions.into_iter().map(|mut writer| {
            let node = node.clone();
            tokio::spawn(async move {
                writer.work(&node).await;
                writer
            })
        });
        let publishers = publishers.into_iter().map(|mut writer| {
            let node = node.clone();
            tokio::spawn(async move {
                writer.work(&node).await;
                writer
            })
        });
        let (single, transactions, publishers): (Vec<_>, Vec<_>, Vec<_>) =
            (single.collect(), transactions.collect(), publishers.collect());
        for racer in racers {
            racer.await.unwrap();
        }
        Self {
            single: ended(single).await,
            transactions: ended(transactions).await,
            publishers: ended(publishers).await,
            shared,
        }
    }
}

async fn ended<T>(tasks: Vec<tokio::task::JoinHandle<T>>) -> Vec<T> {
    let mut all = Vec::new();
    for task in tasks {
        all.push(task.await.unwrap());
    }
    all
}

/// Kills a node so many times.
pub(crate) async fn torture(kills: u64, seed: u64) {
    let home = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    let book = Arc::new(Book::new(PRODUCERS));
    let mut writers = Writers {
        single: (0..WRITERS).map(Single::new).collect(),
        transactions: (0..WRITERS).map(Transactions::new).collect(),
        publishers: (0..PRODUCERS).map(|producer| Publisher::new(producer, Arc::clone(&book))).collect(),
        shared: Arc::new(Shared::default()),
    };
    let mut subscribers = [Subscriber::new("shop/audit", false, seed), Subscriber::new("shop/orders", true, seed)];
    let mut keys = None;
    let mut acknowledged = 0;
    for kill in 0..=kills {
        let mut node = Node::start(home.path(), kill);
        let acks = Arc::new(Semaphore::new(0));
        let reached = Reached::new(&node, &mut keys, Arc::clone(&acks)).await;
        writers.compare(&reached).await;
        if kill == kills {
            node.kill();
            break;
        }
        let mut listening = Vec::new();
        for subscriber in subscribers {
            listening.push(subscriber.begin(&reached, Arc::clone(&book)).await);
        }
        let enough = random.random_range(1..=ACKS_MAX);
        let killer = tokio::spawn(async move {
            let had = tokio::time::timeout(PATIENCE, acks.acquire_many(enough)).await;
            node.kill();
            had.expect("a life has enough answers in time").unwrap().forget();
            acks.available_permits() + usize::try_from(enough).unwrap()
        });
        writers = writers.work(&reached).await;
        acknowledged += killer.await.unwrap();
        subscribers = ended(listening).await.try_into().ok().unwrap();
    }
    let left = log::compare(home.path(), &book, &subscribers).await;
    let [heard, cut] = subscribers.map(|subscriber| subscriber.heard());
    let published: u64 = book.acknowledged().iter().sum();
    println!(
        "{kills} kills, {acknowledged} acknowledged, {published} of them messages; {heard} and {cut} were heard, \
         {left} still to come at the end"
    );
    assert!(acknowledged > usize::try_from(kills).unwrap() * 20, "only {acknowledged} in {kills} lives");
    let most = u64::try_from(heard.min(cut)).unwrap();
    assert!(most > published / 2, "the subscribers heard too little for the order to mean anything");
}
