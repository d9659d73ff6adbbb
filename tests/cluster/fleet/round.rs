//! Twins that live through one fault, with their clients; what these saw is checked when the fault is over.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::{
    clients::{Book, Door, Heard, REST, Teller},
    history::{Call, Step, is_linearizable},
};

/// Twins whose clients compare and set, and twins whose clients append; clients of each.
const COUNTED: usize = 6;
const APPENDED: usize = 6;
const CLIENTS: u64 = 3;
/// How long the fleet may take to let its twins be read when it is whole.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Round {
    door: Door,
    twins: Vec<(String, Arc<Book>)>,
    tellers: Vec<JoinHandle<()>>,
    over: Arc<AtomicBool>,
}

/// What clients did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) acknowledged: usize,
    pub(crate) unknown: usize,
    pub(crate) repeated: usize,
    pub(crate) reads: usize,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.repeated += other.repeated;
        self.reads += other.reads;
    }
}

/// The paths at which a round's twins are read.
fn paths(number: usize) -> Vec<String> {
    let counted = (0..COUNTED).map(|twin| format!("fleet/r{number}-c{twin}"));
    counted.chain((0..APPENDED).map(|twin| format!("fleet/r{number}-a{twin}"))).collect()
}

impl Round {
    /// Makes twins and lets clients at them; comes back when every twin has been written.
    pub(crate) async fn begin(door: Door, number: usize, seed: u64) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let twins: Vec<_> = paths(number).into_iter().map(|twin| (twin, Arc::new(Book::default()))).collect();
        join_all(twins.iter().map(|(twin, _)| made(&door, twin))).await;
        let mut tellers = Vec::new();
        for (at, (twin, book)) in twins.iter().enumerate() {
            for client in 0..CLIENTS {
                let rng = StdRng::seed_from_u64(seed ^ (u64::try_from(number * 100 + at).unwrap() << 8 | client));
                let (door, over) = (door.clone(), Arc::clone(&over));
                let (twin, book, name) = (twin.clone(), Arc::clone(book), format!("c{client}"));
                let teller = Teller { door, twin, name, book, over, rng };
                tellers.push(if at < COUNTED { tokio::spawn(teller.count()) } else { tokio::spawn(teller.append()) });
            }
        }
        let end = Instant::now() + PATIENCE;
        while !twins.iter().all(|(_, book)| book.is_written()) {
            assert!(Instant::now() < end, "not every twin is written");
            tokio::time::sleep(REST).await;
        }
        Self { door, twins, tellers, over }
    }

    /// Whether every twin answers through each of these nodes.
    pub(crate) async fn answers(&self, by: &[usize]) -> bool {
        let asked = by.iter().flat_map(|node| {
            self.twins.iter().map(|(twin, _)| {
                let url = self.door.url(*node, &format!("{twin}/attributes"));
                self.door.send(self.door.client.get(url))
            })
        });
        join_all(asked).await.iter().all(|heard| matches!(heard, Heard::Answer(_)))
    }

    /// Lets the clients end, reads what is left, and checks all of it.
    pub(crate) async fn end(self) -> Tally {
        self.over.store(true, Ordering::Relaxed);
        for teller in self.tellers {
            teller.await.unwrap();
        }
        let mut tally = Tally::default();
        for (at, (twin, book)) in self.twins.iter().enumerate() {
            if at < COUNTED {
                let (from, path) = (Instant::now(), format!("{twin}/state/statestore/number"));
                let last = read(&self.door, &path).await.as_u64().expect("a number");
                book.calls.lock().push(Call { from, until: Some(Instant::now()), step: Step::Saw(last) });
            } else {
                judge_appends(twin, book, &journal(&self.door, twin).await);
            }
            let calls = std::mem::take(&mut *book.calls.lock());
            tally += book.tally(&calls);
            let (twin, kept) = (twin.clone(), calls.clone());
            let fine = tokio::task::spawn_blocking(move || is_linearizable(&calls)).await.unwrap();
            assert!(fine, "{twin}: no order explains what its clients saw: {}", shown(kept));
        }
        tally
    }
}

impl Book {
    fn is_written(&self) -> bool {
        let is_made = |call: &Call| matches!(call.step, Step::Made(_));
        self.calls.lock().iter().any(is_made) || self.appends.lock().iter().any(|append| append.known.is_some())
    }

    fn tally(&self, calls: &[Call]) -> Tally {
        let count = |is: fn(&Step) -> bool| calls.iter().filter(|call| is(&call.step)).count();
        let lost = self.appends.lock().iter().filter(|append| append.known.is_none()).count();
        Tally {
            acknowledged: count(|step| matches!(step, Step::Made(_))),
            unknown: count(|step| matches!(step, Step::May(_))) + lost,
            repeated: self.repeats.load(Ordering::Relaxed),
            reads: count(|step| matches!(step, Step::Saw(_))),
        }
    }
}

/// Calls in the order of their ends, a line each, in milliseconds from the first.
fn shown(mut calls: Vec<Call>) -> String {
    let Some(zero) = calls.iter().map(|call| call.from).min() else { return String::new() };
    calls.sort_by_key(|call| (call.until.is_none(), call.until));
    let line = |call: &Call| {
        let until = call.until.map_or("?".to_owned(), |until| (until - zero).as_millis().to_string());
        format!("\n{:>7}..{until:<7} {:?}", (call.from - zero).as_millis(), call.step)
    };
    calls.iter().map(line).collect()
}

async fn made(door: &Door, twin: &str) {
    let end = Instant::now() + PATIENCE;
    let key = Uuid::now_v7().to_string();
    for node in (0..door.http.len()).cycle() {
        let heard = door.send(door.client.put(door.url(node, twin)).header("idempotency-key", &key)).await;
        if matches!(heard, Heard::Answer(_)) {
            return;
        }
        assert!(Instant::now() < end, "{twin} cannot be made by way of {}: {}", node + 1, heard.why());
    }
}

/// Reads by way of every node until one answers.
async fn read(door: &Door, path: &str) -> Value {
    let end = Instant::now() + PATIENCE;
    for node in (0..door.http.len()).cycle() {
        if let Heard::Answer(answer) = door.send(door.client.get(door.url(node, path))).await
            && let Ok(value) = answer.json().await
        {
            return value;
        }
        assert!(Instant::now() < end, "{path} cannot be read");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Value::Null
}

/// A twin's whole journal: revision, idempotency key and number of changes of each entry.
async fn journal(door: &Door, twin: &str) -> Vec<(u64, Option<String>, u64)> {
    let (mut entries, mut after) = (Vec::new(), 0);
    loop {
        let page = read(door, &format!("{twin}/journal?after={after}&limit=1000")).await;
        for entry in page["entries"].as_array().expect("entries") {
            let changes = u64::try_from(entry["changes"].as_array().expect("changes").len()).unwrap();
            let key = entry["idempotency_key"].as_str().map(str::to_owned);
            entries.push((entry["revision"].as_u64().expect("a revision"), key, changes));
        }
        match page["next"].as_u64() {
            Some(next) => after = next,
            None => return entries,
        }
    }
}

/// The journal is an unbroken chain, holds every append that was acknowledged where it was said to be and every other one
/// at most once; and whoever looked saw the sum of it up to a revision. Appends and looks become calls on the revision.
fn judge_appends(twin: &str, book: &Book, journal: &[(u64, Option<String>, u64)]) {
    let mut revision = 0;
    let mut made: BTreeMap<&str, u64> = BTreeMap::new();
    for (at, (next, key, changes)) in journal.iter().enumerate() {
        assert_eq!(*next, revision + changes, "{twin}: a gap in the journal after {revision}");
        revision = *next;
        if at == 0 {
            // It was made, under a key of its own.
            continue;
        }
        if let Some(key) = key {
            assert_eq!(made.insert(key, *next), None, "{twin}: {key} took effect twice");
            assert_eq!(*changes, 1, "{twin}: one append, one change");
        }
    }
    let base = journal.first().map_or(0, |(made, ..)| *made);
    let appends = book.appends.lock();
    let mut sum: BTreeMap<u64, (&str, u64)> = BTreeMap::new();
    let mut calls = book.calls.lock();
    let mut ours = BTreeSet::new();
    for append in &*appends {
        ours.insert(&*append.key);
        let found = made.get(&*append.key).copied();
        if let Some((_, said)) = append.known {
            assert_eq!(found, Some(said), "{twin}: {} was acknowledged: {append:?}", append.key);
        }
        // What is not there after all has not happened.
        let Some(found) = found else { continue };
        sum.insert(found, (&append.name, append.value));
        let until = append.known.map(|(until, _)| until);
        calls.push(Call { from: append.from, until, step: Step::Made(found - base) });
    }
    for key in made.keys() {
        let refused = book.refused.lock().get(*key).cloned();
        assert!(ours.contains(key), "{twin}: {key} took effect, and was refused: {refused:?}");
    }
    for (from, until, (seen, values)) in &*book.sights.lock() {
        let upto = sum.range(..=seen).map(|(_, (name, value))| ((*name).to_owned(), *value));
        assert_eq!(upto.collect::<BTreeMap<_, _>>(), *values, "{twin}: seen at revision {seen}");
        calls.push(Call { from: *from, until: Some(*until), step: Step::Saw(seen.saturating_sub(base)) });
    }
}
