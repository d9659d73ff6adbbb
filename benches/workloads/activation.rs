//! W1 and W2: how fast twins come to life, from nothing and from sled.

use std::path::Path;

use super::{
    Arbiters, Bars, Contestant, Host, Lap, Ledger, Pick, Plan, Row, Setting, Until, WINDOW, ids, ledger_to,
    limits::{lock, sled_read},
    naive::{self, durable::Disk},
    passes,
};

const IDS: u64 = 100_000;

/// One call to each id.
const ONCE: Plan = Plan { window: WINDOW, until: Until::Count(IDS), timed: false };

/// What every stored ledger counts before W2.
const STORED: u64 = 7;

/// W1.
pub(crate) fn cold(setting: &Setting) -> Row {
    let (cpus, ids) = (setting.cpus, ids(IDS));
    let (host, of) = (Host::start(cpus), ids.clone());
    let limit = Contestant::limit("dashmap entry + lock", move |time| {
        passes(time, || {
            let client = lock::Cold { map: lock::Map::default(), ids: of.clone() };
            answered(1, host.run(ONCE, |_| client.clone()))
        })
    });
    let naive = Contestant::naive(move |time| {
        passes(time, || {
            let registry = naive::actor::Registry::new(&ids, Pick::InOrder);
            answered(1, Arbiters::start(cpus).run(ONCE, |_| registry.clone()))
        })
    });
    Row {
        workload: "W1",
        driver: "b",
        durability: "none",
        bars: Bars { limit: Some(1.2), naive: Some(3.0), ..Bars::default() },
        contestants: vec![limit, naive],
    }
}

/// W2.
pub(crate) fn again(setting: &Setting) -> Row {
    let (cpus, ids, path) = (setting.cpus, ids(IDS), setting.dir.join("raw"));
    let db = open(&path);
    let value = ledger_to(&Ledger::counting(STORED));
    for id in &*ids {
        db.insert(id, &*value).expect("sled writes");
    }
    db.flush().expect("sled flushes");
    drop(db);
    let (of, at) = (ids.clone(), path.clone());
    let limit = Contestant::limit("sled get + decode + insert", move |time| {
        passes(time, || {
            let lap = sled_read::read_all(&open(&at), &of, cpus);
            assert_eq!(lap.ops, STORED * IDS, "what was read is what was stored");
            Lap { ops: IDS, ..lap }
        })
    });
    let naive = Contestant::naive(move |time| {
        passes(time, || {
            let disk = Disk { db: open(&path), sync: None };
            let registry = naive::durable::Registry::new(&ids, Pick::InOrder, &disk, 0);
            answered(STORED, Arbiters::start(cpus).run(ONCE, |_| registry.clone()))
        })
    });
    Row {
        workload: "W2",
        driver: "b",
        durability: "sled",
        bars: Bars { limit: Some(0.5), naive: Some(1.3), ..Bars::default() },
        contestants: vec![limit, naive],
    }
}

/// Every one of the calls was answered with `reply`, or one more and another less: none is below it.
fn answered(reply: u64, lap: Lap) -> Lap {
    assert_eq!(lap.sum, reply * lap.ops, "some reply was wrong");
    lap
}

/// Opens a database as every contestant does: a bounded cache, flushed by whoever writes.
pub(crate) fn open(path: &Path) -> sled::Db {
    let config = sled::Config::new().path(path).cache_capacity(256 << 20).flush_every_ms(None);
    for _ in 0..500 {
        match config.open() {
            Ok(db) => return db,
            Err(sled::Error::Io(_)) => pause(),
            Err(error) => panic!("sled does not open {}: {error}", path.display()),
        }
    }
    panic!("{} is in use by another process", path.display());
}

#[expect(clippy::disallowed_methods, reason = "the bench waits for the lock of a database that was just closed")]
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(10));
}
