//! A process that commits is killed in the middle of it, again and again: what it heard of is there, whole.

#![allow(clippy::unwrap_used, reason = "a helper of tests")]

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use service_twin::{
    model::{Key, Timestamp},
    store::{
        Address, Commit, Committed, Ended, Entry, Epoch, Level, Load, Loaded, PageWrite, Scan, Slot, Store,
        sled::{Options, SledStore},
    },
};

const DIRECTORY: &str = "SERVICE_TWIN_TEST_DIRECTORY";
const KILLS: u64 = 12;
const TWINS: u64 = 24;
/// Twins from here on write two pages, a wake time and terms with their core.
const SINGLE: u64 = 12;
const BLOB_BYTES: usize = 150_000;

fn open(path: &Path, level: Level) -> SledStore {
    SledStore::open(path, Options { level, cache_bytes: 8 << 20, ..Options::default() }).unwrap()
}

fn address(twin: u64) -> Arc<Address> {
    Arc::new(Address { kind: "thing".into(), key: Key::parse(&format!("t/{twin:02}")).unwrap() })
}

/// Bytes that say which commit wrote them.
fn stamped(sequence: u64, bytes: usize) -> Vec<u8> {
    let mut out = sequence.to_le_bytes().to_vec();
    out.resize(bytes.max(8), sequence.to_le_bytes()[0]);
    out
}

fn stamp(bytes: &[u8]) -> u64 {
    let sequence = u64::from_le_bytes(*bytes.first_chunk().unwrap());
    assert!(bytes[8..].iter().all(|byte| *byte == sequence.to_le_bytes()[0]), "bytes of two commits are mixed");
    sequence
}

fn wake_of(twin: u64, sequence: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_000_000 + sequence * 100 + twin)
}

fn load(store: &SledStore, twin: u64) -> Loaded {
    let (send, answer) = mpsc::channel();
    let load =
        Load { address: address(twin), core: true, pages: vec!["a".into(), "b".into()], prefix: None, under: None };
    store.load(load, Box::new(move |loaded| send.send(loaded.unwrap()).unwrap()));
    answer.recv().unwrap()
}

struct Ears(mpsc::Sender<Heard>);

enum Heard {
    Commits(Vec<Ended>),
    Blob([u8; 16]),
}

impl Committed for Ears {
    fn ended(&self, commits: Vec<Ended>) {
        drop(self.0.send(Heard::Commits(commits)));
    }
}

fn commit(twin: u64, sequence: u64, epoch: Epoch, to: &Arc<Ears>) -> Commit {
    let multi = twin >= SINGLE;
    let size = usize::try_from(100 + (sequence * 37 + twin * 101) % 3000).unwrap();
    let page = |name: &str| PageWrite { name: name.into(), value: Some(stamped(sequence, size / 2)) };
    Commit {
        address: address(twin),
        slot: Slot(0),
        epoch,
        sequence,
        core: Some(stamped(sequence, size)),
        pages: if multi { vec![page("a"), page("b")] } else { Vec::new() },
        wake_at: multi.then(|| wake_of(twin, sequence)),
        terms: multi.then(|| format!("at={sequence}").into()).into_iter().collect(),
        riders: Vec::new(),
        token: twin,
        to: to.clone(),
    }
}

/// What the killed process does: goes on with every twin, one commit in flight each, and prints what it hears.
#[test]
#[ignore = "is started, and killed, by the test below"]
fn child() {
    #[expect(clippy::disallowed_methods, reason = "how the parent tells its child the directory")]
    let directory = std::env::var(DIRECTORY).map(PathBuf::from).expect("only the parent starts this");
    let level = if directory.ends_with("fsync") { Level::Fsync } else { Level::Flushed };
    let store = open(&directory, level);
    let (send, heard) = mpsc::channel();
    let claimed = mpsc::channel();
    store.claim(Slot(0), None, Box::new(move |epoch| claimed.0.send(epoch.unwrap()).unwrap()));
    let epoch = claimed.1.recv().unwrap();
    let to = Arc::new(Ears(send.clone()));
    let mut sequences: Vec<u64> =
        (0..TWINS).map(|twin| load(&store, twin).core.map_or(0, |core| stamp(&core))).collect();
    let put = |number: u64| {
        let send = send.clone();
        let done = move |id: Result<[u8; 16], _>| drop(send.send(Heard::Blob(id.unwrap())));
        store.put_blob(stamped(number, BLOB_BYTES), Box::new(done));
    };
    let mut next = |twin: u64| {
        let sequence = &mut sequences[usize::try_from(twin).unwrap()];
        *sequence += 1;
        store.commit(commit(twin, *sequence, epoch, &to)).unwrap();
        *sequence
    };
    let mut in_flight: Vec<u64> = (0..TWINS).map(&mut next).collect();
    let mut blobs = 0;
    put(blobs);
    loop {
        match heard.recv().unwrap() {
            Heard::Commits(commits) => {
                for ended in commits {
                    ended.result.unwrap();
                    let at = usize::try_from(ended.token).unwrap();
                    println!("commit {} {}", ended.token, in_flight[at]);
                    in_flight[at] = next(ended.token);
                }
            }
            Heard::Blob(id) => {
                println!("blob {} {blobs}", u128::from_be_bytes(id));
                blobs += 1;
                put(blobs);
            }
        }
    }
}

fn start(directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store_crash::child", "--ignored", "--nocapture", "--test-threads", "1"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What the dead process was told.
#[derive(Default)]
struct Acknowledged {
    sequences: HashMap<u64, u64>,
    blobs: HashMap<u128, u64>,
    lines: u64,
}

impl Acknowledged {
    fn hear(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("commit"), Some(twin), Some(sequence)) => {
                let previous = self.sequences.insert(twin.parse().unwrap(), sequence.parse().unwrap());
                assert!(previous.is_none_or(|previous| previous < sequence.parse().unwrap()));
            }
            (Some("blob"), Some(id), Some(number)) => {
                self.blobs.insert(id.parse().unwrap(), number.parse().unwrap());
            }
            _ => return,
        }
        self.lines += 1;
    }

    /// Checks, and takes what is there for known: the next process goes on from it.
    fn check(&mut self, store: &SledStore) {
        let wakes = scan(store, Scan::Wake { until: Timestamp::MAX, after: None, limit: 1000 });
        for twin in 0..TWINS {
            let loaded = load(store, twin);
            let found = loaded.core.as_deref().map_or(0, stamp);
            let acknowledged = self.sequences.get(&twin).copied().unwrap_or(0);
            assert!(found >= acknowledged, "twin {twin}: {acknowledged} was acknowledged, {found} is there");
            assert!(found <= acknowledged + 1, "twin {twin}: {found} was never handed in");
            self.sequences.insert(twin, found);
            if twin < SINGLE || found == 0 {
                continue;
            }
            let pages: Vec<_> = loaded.pages.iter().map(|(_, value)| stamp(value)).collect();
            assert_eq!(pages, [found, found], "twin {twin}: its pages are not of the commit of its core");
            let address = Address::clone(&address(twin));
            let at = wake_of(twin, found);
            assert!(wakes.contains(&Entry::Wake { at, address: address.clone(), sequence: found }));
            let terms = vec![format!("at={found}").into()];
            let found = scan(store, Scan::Find { kind: "thing".into(), terms, after: None, limit: 100 });
            assert!(found.iter().any(|entry| matches!(entry, Entry::Found { key, .. } if *key == address.key)));
        }
        assert!(wakes.len() <= usize::try_from(TWINS - SINGLE).unwrap(), "a wake entry was left behind");
        for (id, number) in &self.blobs {
            let (send, answer) = mpsc::channel();
            store.get_blob(id.to_be_bytes(), Box::new(move |blob| send.send(blob.unwrap()).unwrap()));
            assert!(answer.recv().unwrap() == Some(stamped(*number, BLOB_BYTES)), "blob {number} is not whole");
        }
    }
}

fn scan(store: &SledStore, scan: Scan) -> Vec<Entry> {
    let (send, answer) = mpsc::channel();
    store.scan(scan, Box::new(move |walked| send.send(walked.unwrap().entries).unwrap()));
    answer.recv().unwrap()
}

fn torture(level: &str, kills: u64) {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join(level);
    let mut random = StdRng::seed_from_u64(kills);
    let mut acknowledged = Acknowledged::default();
    for kill in 0..kills {
        let mut child = start(&directory);
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let enough = acknowledged.lines + random.random_range(1..600_u64);
        let mut killed = false;
        let mut line = String::new();
        // After the kill the pipe still holds what the process printed; a line cut short was not printed.
        while output.read_line(&mut line).unwrap() > 0 {
            if line.ends_with('\n') {
                acknowledged.hear(&line);
            }
            line.clear();
            if acknowledged.lines >= enough && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "kill {kill}: the process ended by itself");
        acknowledged.check(&open(&directory, Level::Flushed));
    }
    assert!(acknowledged.blobs.len() > 1 && acknowledged.lines > kills * 10);
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_half_there_after_kill_9() {
    torture("flushed", KILLS);
    torture("fsync", KILLS / 2);
}

#[test]
#[ignore = "a long run"]
fn five_hundred_kills_lose_nothing() {
    torture("flushed", 400);
    torture("fsync", 100);
}
