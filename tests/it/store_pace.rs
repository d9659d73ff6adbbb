//! How near the committer comes to a bare loop over sled. Run by hand, best on an idle machine:
//! `cargo test --release --test it store_pace -- --ignored --nocapture --test-threads 1`.

#![allow(clippy::unwrap_used, reason = "a helper of tests")]
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use service_twin::{
    model::{Key, Timestamp},
    store::{
        Address, Commit, Committed, Ended, Entry, Epoch, Level, PageWrite, Scan, SharedTerms, Slot, Store,
        sled::{Options, SledStore},
    },
};

const TWINS: usize = 1000;
const RECORD_BYTES: usize = 1024;
const WINDOW: usize = 256;
const SLICE: Duration = Duration::from_millis(700);
const ROUNDS: usize = 7;

struct Ears(mpsc::Sender<Vec<Ended>>);

impl Committed for Ears {
    fn ended(&self, commits: Vec<Ended>) {
        drop(self.0.send(commits));
    }
}

fn addresses(count: usize) -> Vec<Arc<Address>> {
    let key = |n| Key::parse(&format!("default/service-{n:07}")).unwrap();
    (0..count).map(|n| Arc::new(Address { kind: "service".into(), key: key(n) })).collect()
}

fn fill(buffer: &mut Vec<u8>, n: u64) {
    buffer.clear();
    buffer.resize(RECORD_BYTES, 7);
    for at in (0..RECORD_BYTES).step_by(64) {
        buffer[at..at + 8].copy_from_slice(&n.to_le_bytes());
    }
}

struct Raw {
    db: sled::Db,
    file: std::fs::File,
    n: u64,
    keys: Vec<Vec<u8>>,
}

impl Raw {
    fn open(path: &std::path::Path, segment: usize) -> Self {
        let config = sled::Config::new().path(path).flush_every_ms(None).cache_capacity(64 << 20).segment_size(segment);
        let db = config.open().unwrap();
        let file = std::fs::File::options().write(true).open(path.join("db")).unwrap();
        let keys =
            addresses(TWINS).into_iter().map(|address| format!("c{}\0{}", address.kind, address.key).into_bytes());
        Self { db, file, n: 0, keys: keys.collect() }
    }

    fn rate(&mut self, batch: bool) -> f64 {
        let (start, mut done) = (Instant::now(), 0_u32);
        let mut buffer = Vec::new();
        while start.elapsed() < SLICE {
            let mut writes = sled::Batch::default();
            for _ in 0..WINDOW {
                self.n += 1;
                fill(&mut buffer, self.n);
                let key = &self.keys[usize::try_from(self.n).unwrap() % TWINS];
                if batch {
                    writes.insert(key.as_slice(), buffer.as_slice());
                } else {
                    self.db.insert(key, buffer.as_slice()).unwrap();
                }
                done += 1;
            }
            if batch {
                self.db.apply_batch(writes).unwrap();
            }
            self.db.flush().unwrap();
            self.file.sync_data().unwrap();
        }
        f64::from(done) / start.elapsed().as_secs_f64()
    }
}

struct Ours {
    store: SledStore,
    addresses: Vec<Arc<Address>>,
    sequences: Vec<u64>,
    to: Arc<Ears>,
    ended: mpsc::Receiver<Vec<Ended>>,
    next: usize,
    n: u64,
    /// Whether half of each record lies in a page.
    pages: bool,
}

impl Ours {
    fn open(path: &std::path::Path) -> Self {
        let store = SledStore::open(path, Options { level: Level::Fsync, ..Options::default() }).unwrap();
        store.claim(Slot(0), None, Box::new(|epoch| assert_eq!(epoch, Ok(Epoch(1)))));
        let (send, ended) = mpsc::channel();
        Self {
            store,
            addresses: addresses(TWINS),
            sequences: vec![0; TWINS],
            to: Arc::new(Ears(send)),
            ended,
            next: 0,
            n: 0,
            pages: false,
        }
    }

    fn hand_in(&mut self, buffer: Option<Vec<u8>>) {
        let twin = self.next;
        self.next = (self.next + 1) % TWINS;
        self.sequences[twin] += 1;
        self.n += 1;
        let mut core = buffer.unwrap_or_default();
        fill(&mut core, self.n);
        let pages = if self.pages {
            vec![PageWrite { name: "journal".into(), value: Some(core.split_off(RECORD_BYTES / 2)) }]
        } else {
            Vec::new()
        };
        let commit = Commit {
            address: self.addresses[twin].clone(),
            slot: Slot(0),
            epoch: Epoch(1),
            sequence: self.sequences[twin],
            core: Some(core),
            pages,
            wake_at: None,
            terms: SharedTerms::default(),
            riders: Vec::new(),
            token: 0,
            to: self.to.clone(),
        };
        self.store.commit(commit).unwrap();
    }

    fn rate(&mut self, window: usize) -> f64 {
        let (start, mut done) = (Instant::now(), 0_u32);
        let mut waiting = window;
        (0..window).for_each(|_| self.hand_in(None));
        while waiting > 0 {
            for ended in self.ended.recv().unwrap() {
                assert_eq!(ended.result, Ok(()));
                done += 1;
                if start.elapsed() < SLICE {
                    self.hand_in(ended.buffer);
                } else {
                    waiting -= 1;
                }
            }
        }
        f64::from(done) / start.elapsed().as_secs_f64()
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
#[ignore = "a measurement"]
fn the_committer_keeps_the_pace_of_a_bare_loop() {
    let directories: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut small = Raw::open(directories[0].path(), 512 << 10);
    let mut large = Raw::open(directories[1].path(), 4 << 20);
    let mut ours = Ours::open(directories[2].path());
    let mut rates: [Vec<f64>; 5] = Default::default();
    for _ in 0..ROUNDS {
        let round = [small.rate(false), small.rate(true), large.rate(false), ours.rate(WINDOW), ours.rate(1)];
        println!(
            "512K insert {:.0}  512K batch {:.0}  4M insert {:.0}  ours {:.0}  ours window 1 {:.0}",
            round[0], round[1], round[2], round[3], round[4]
        );
        rates.iter_mut().zip(round).for_each(|(all, rate)| all.push(rate));
    }
    let ratios = (0..ROUNDS).map(|n| rates[3][n] / rates[0][n].max(rates[1][n])).collect();
    println!("medians {:?}, ours against the faster loop {:.2}", rates.map(median), median(ratios));
}

#[test]
#[ignore = "a measurement"]
fn a_page_of_100_of_a_million_is_found_within_10_ms() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { level: Level::Buffered, cache_bytes: 1 << 30, ..Options::default() };
    let store = SledStore::open(directory.path(), options).unwrap();
    store.claim(Slot(0), None, Box::new(|epoch| assert_eq!(epoch, Ok(Epoch(1)))));
    let (send, ended) = mpsc::channel();
    let to = Arc::new(Ears(send));
    let start = Instant::now();
    let mut waiting = 0;
    for (n, address) in addresses(1_000_000).into_iter().enumerate() {
        let health = if n % 10_000 == 7 { "health=down" } else { "health=up" };
        let mut commit = Some(Commit {
            address,
            slot: Slot(0),
            epoch: Epoch(1),
            sequence: 1,
            core: Some(vec![7; 100]),
            pages: Vec::new(),
            wake_at: (n % 1000 == 0).then(|| Timestamp::from_unix_ms(u64::try_from(n).unwrap())),
            terms: [health.into(), format!("team={}", n % 1000).into(), "tier=1".into()].into_iter().collect(),
            riders: Vec::new(),
            token: 0,
            to: to.clone(),
        });
        waiting += 1;
        while let Some(again) = commit.take() {
            match store.commit(again) {
                Ok(()) => {}
                Err(back) => {
                    waiting -= ended.recv().unwrap().len();
                    commit = Some(*back.commit);
                }
            }
        }
    }
    while waiting > 0 {
        waiting -= ended.recv().unwrap().len();
    }
    println!("filled in {:?}", start.elapsed());
    for terms in [
        vec!["health=down"],
        vec!["team=77"],
        vec!["health=up"],
        vec!["health=up", "team=77"],
        vec!["health=up", "tier=1"],
        vec!["health=d*", "tier=1"],
        vec!["health=*", "team=77"],
        vec!["team=77*"],
        vec!["tier=*"],
        vec![],
    ] {
        let mut times = Vec::new();
        let mut count = 0;
        for _ in 0..9 {
            let (send, answer) = mpsc::channel();
            let start = Instant::now();
            let wanted = terms.iter().map(|term| (*term).into()).collect();
            let scan = Scan::Find { kind: "service".into(), terms: wanted, after: None, limit: 100 };
            store.scan(scan, Box::new(move |walked| send.send(walked.unwrap()).unwrap()));
            count = answer.recv().unwrap().entries.len();
            times.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        println!("{terms:?}: {count} found in {:.2} ms", median(times));
    }
    let (send, answer) = mpsc::channel();
    let start = Instant::now();
    let scan = Scan::Wake { until: Timestamp::MAX, after: None, limit: 1000 };
    store.scan(scan, Box::new(move |walked| send.send(walked.unwrap()).unwrap()));
    let entries = answer.recv().unwrap().entries;
    assert!(matches!(entries[0], Entry::Wake { .. }));
    println!("{} wake entries in {:?}", entries.len(), start.elapsed());
}

/// Two keys of 512 bytes a commit, as a command that appends to a journal page writes.
#[test]
#[ignore = "a measurement"]
fn commits_of_two_keys_keep_the_pace_of_a_bare_loop() {
    let directories: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut raws: Vec<Raw> = directories[1..].iter().map(|at| Raw::open(at.path(), 512 << 10)).collect();
    let mut ours = Ours::open(directories[0].path());
    ours.pages = true;
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let inserts = raws[0].pairs(0);
        let each = raws[1].pairs(1);
        let whole = raws[2].pairs(WINDOW);
        let rate = ours.rate(WINDOW);
        println!("inserts {inserts:.0}  a batch each {each:.0}  a batch a round {whole:.0}  ours {rate:.0}");
        ratios.push(rate / inserts.max(whole));
    }
    println!("ours against the faster loop {:.2}", median(ratios));
}

impl Raw {
    /// Commits of two keys a second, `batched` of them in one batch.
    fn pairs(&mut self, batched: usize) -> f64 {
        let (start, mut done) = (Instant::now(), 0_u32);
        let mut buffer = Vec::new();
        while start.elapsed() < SLICE {
            let mut writes = sled::Batch::default();
            for at in 1..=WINDOW {
                self.n += 1;
                fill(&mut buffer, self.n);
                let key = &self.keys[usize::try_from(self.n).unwrap() % TWINS];
                let page = [b"p".as_slice(), key].concat();
                if batched == 0 {
                    self.db.insert(key, &buffer[..512]).unwrap();
                    self.db.insert(page, &buffer[..512]).unwrap();
                } else {
                    writes.insert(key.as_slice(), &buffer[..512]);
                    writes.insert(page, &buffer[..512]);
                    if at % batched == 0 {
                        self.db.apply_batch(std::mem::take(&mut writes)).unwrap();
                    }
                }
                done += 1;
            }
            self.db.flush().unwrap();
            self.file.sync_data().unwrap();
        }
        f64::from(done) / start.elapsed().as_secs_f64()
    }
}
