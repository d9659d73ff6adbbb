//! What the killed process does.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use service_twin::{
    model::{Key, RequestKey, Rider, Sealed, Timestamp},
    runtime::{Config, Runtime},
    store::{
        Commit, Layer, Level, Refused, Store,
        sled::{Options, SledStore},
    },
    twin::{Failure, Rejection},
};

use crate::account::{Account, Hear, Put, ear};

pub(crate) const DIRECTORY: &str = "SERVICE_TWIN_TORTURE_DIRECTORY";
pub(crate) const LEVEL: &str = "SERVICE_TWIN_TORTURE_LEVEL";
pub(crate) const TASK: &str = "SERVICE_TWIN_TORTURE_TASK";
pub(crate) const FSYNC: &str = "fsync";
pub(crate) const RETRIES: &str = "retries";
const CLIENTS: u64 = 8;

/// Opens a directory and starts a runtime on it.
pub(crate) fn open(directory: &std::path::Path, level: Level, dies_after: Option<&str>) -> Runtime {
    let options = Options { level, cache_bytes: 16 << 20, ..Options::default() };
    let sled = SledStore::open(directory, options).unwrap();
    let store: Arc<dyn Store> = match dies_after {
        None => Arc::new(sled),
        Some(key) => Arc::new(Mortal { inner: sled, key: Key::parse(key).unwrap() }),
    };
    let config = Config { arbiters: 1, shards_per_arbiter: 4, ..Config::default() };
    Runtime::builder().config(config).store(store).kind::<Account>().wire::<Hear>().start().unwrap()
}

pub(crate) fn run() {
    // Ends the line that the test harness has begun.
    println!();
    let directory = PathBuf::from(std::env::var(DIRECTORY).expect("only the parent starts this"));
    let level = if std::env::var(LEVEL).unwrap() == FSYNC { Level::Fsync } else { Level::Flushed };
    let task = std::env::var(TASK).unwrap();
    let mut words = task.split(' ');
    let (what, argument) = (words.next().unwrap(), words.next().unwrap());
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match what {
        "work" => {
            let life: u64 = argument.parse().unwrap();
            let runtime = open(&directory, level, None);
            tokio.block_on(work(&runtime, life, &directory));
        }
        "die" => {
            let runtime = open(&directory, level, Some(argument));
            let died = tokio.block_on(async { runtime.twin(argument).ask(Put { id: 1, on_page: false }).await });
            println!("WRONG: answered {died:?} after the end");
        }
        "wait" => {
            let runtime = open(&directory, level, None);
            tokio.block_on(wait(&runtime, &ear(argument)));
        }
        other => panic!("no such task: {other}"),
    }
}

/// One command as it is sent, and sent again.
#[derive(Clone)]
struct Order {
    twin: String,
    id: u32,
    made_at: Timestamp,
    on_page: bool,
}

/// Sends commands until the end; what an earlier life sent without an answer is sent again first.
async fn work(runtime: &Runtime, life: u64, directory: &std::path::Path) {
    let retries = std::fs::read_to_string(directory.with_file_name(RETRIES)).unwrap_or_default();
    for line in retries.lines() {
        let words: Vec<_> = line.split('\t').collect();
        let order = Order {
            twin: words[0].to_owned(),
            id: words[1].parse().unwrap(),
            made_at: Timestamp::from_unix_ms(words[2].parse().unwrap()),
            on_page: words[3] == "true",
        };
        send(runtime, &order).await;
    }
    let clients = (0..CLIENTS).map(|client| {
        let runtime = runtime.clone();
        tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(life * CLIENTS + client);
            let mut known: Vec<(Order, (u32, u64))> = Vec::new();
            for number in 0.. {
                if !known.is_empty() && random.random_bool(0.1) {
                    // As a caller does that lost the answer, however long ago.
                    let (order, before) = &known[random.random_range(0..known.len())];
                    if let Some(now) = send(&runtime, order).await
                        && now != *before
                    {
                        println!("WRONG: command {} was entered as {before:?} and as {now:?}", order.id);
                    }
                    continue;
                }
                let which = random.random_range(0..8);
                let on_page = which < 4;
                // A record holds some thousand commands, so those of later lives go to others.
                let twin = if on_page { format!("pages {which}") } else { format!("record {which} of {}", life / 10) };
                let id = u32::try_from(life * 1_000_000 + client * 100_000 + number).unwrap();
                let order = Order { twin, id, made_at: runtime.now(), on_page };
                println!("send\t{}\t{id}\t{}\t{on_page}", order.twin, order.made_at.unix_ms());
                if let Some(place) = send(&runtime, &order).await {
                    known.push((order, place));
                }
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}

async fn send(runtime: &Runtime, order: &Order) -> Option<(u32, u64)> {
    let put = Put { id: order.id, on_page: order.on_page };
    let key = RequestKey::new(&format!("key {}", order.id), order.made_at);
    match runtime.twin(&order.twin).ask(put).key(key).await {
        Ok(place) => {
            println!("ack\t{}\t{}\t{}\t{}", order.twin, order.id, place.0, place.1);
            Some(place)
        }
        Err(Failure::Rejected(Rejection::KeyTooOld { .. })) => {
            println!("old\t{}\t{}", order.twin, order.id);
            None
        }
        Err(other) => {
            // The outbox or the record may be full for a moment: certainly not applied.
            println!("not\t{}\t{}\t{:?}\t{other}", order.twin, order.id, other.outcome());
            None
        }
    }
}

/// Waits, calling nobody, until a twin is found that heard something.
async fn wait(runtime: &Runtime, key: &Key) {
    loop {
        let (found, _) = runtime.find::<Account>(vec!["heard=yes".into()], None, 1_000).await.unwrap();
        if found.iter().any(|found| found.key == *key) {
            println!("arrived");
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    runtime.drain(Duration::from_secs(10)).await;
}

/// A store whose process dies as soon as a twin's first commit is durable, before anybody hears of it.
struct Mortal {
    inner: SledStore,
    key: Key,
}

struct Death;

impl Rider for Death {
    fn release(&self, sealed: &Sealed) {
        assert_eq!(*sealed, Sealed::Durable);
        let me = std::process::id().to_string();
        std::process::Command::new("kill").args(["-9", &me]).status().unwrap();
    }
}

impl Layer for Mortal {
    fn below(&self) -> &dyn Store {
        &self.inner
    }
    fn commit(&self, mut commit: Commit) -> Result<(), Refused> {
        if commit.address.key == self.key {
            commit.riders.insert(0, Arc::new(Death));
        }
        self.inner.commit(commit)
    }
}
