//! W1 and W2: how fast twins come to life, from nothing and from sled.

use std::{path::Path, sync::Arc, time::Duration};

use service_twin::store::Level;

use super::{
    Arbiters, Bars, Contestant, Driver, Host, Lap, Ledger, Pick, Plan, Row, Setting, Until, WINDOW, ids, ledger_to,
    limits::{lock, sled_read},
    naive::{self, durable::Disk},
    ours::{self, Asker, Counter, Counts, Entity, Kept, Reader},
    passes,
};

const IDS: u64 = 100_000;

/// One call to each id.
const ONCE: Plan = Plan { window: WINDOW, until: Until::Count(IDS), timed: false };

/// What every stored ledger counts before W2.
const STORED: u64 = 3;

/// Bytes of sled's page cache, for everybody.
pub(crate) const CACHE_BYTES: u64 = 256 << 20;

/// W1.
pub(crate) fn cold(setting: &Setting) -> Row {
    let bars = Bars { limit: Some(1.2), naive: Some(3.0), ..Bars::default() };
    activations::<Counter>(setting, "W1", Driver::Host, "none", bars)
}

/// W1 with the client loops on the arbiters.
pub(crate) fn cold_on_arbiters(setting: &Setting) -> Row {
    activations::<Counter>(setting, "W1-driver-a", Driver::Arbiters, "none", Bars::default())
}

/// W1 with a commit to the memory store in each turn.
pub(crate) fn cold_in_memory(setting: &Setting) -> Row {
    let bars = Bars { limit: Some(0.7), naive: Some(2.0), ..Bars::default() };
    activations::<Kept>(setting, "W1+memory", Driver::Host, "memory", bars)
}

fn activations<K: Counts>(
    setting: &Setting,
    workload: &'static str,
    driver: Driver,
    durability: &'static str,
    bars: Bars,
) -> Row {
    let (cpus, ids) = (setting.cpus, ids(IDS));

    let (host, of) = (Host::start(cpus), ids.clone());
    let ours = Contestant::ours(move |time| {
        passes(time, || {
            let runtime = ours::start_in_memory(cpus);
            let asker = |_| Asker::<K>::new(&runtime, &of, Pick::InOrder);
            let lap = answered(1, ours::run(driver, &host, &runtime, ONCE, asker));
            ours::stop(host.handle(), runtime);
            lap
        })
    });

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
    Row { workload, driver: driver.letter(), durability, bars, contestants: vec![ours, limit, naive] }
}

/// W2.
pub(crate) fn again(setting: &Setting) -> Row {
    let (cpus, ids) = (setting.cpus, ids(IDS));
    let path = stored_by_us(setting, &ids);
    let (host, of) = (Host::start(cpus), ids.clone());
    let ours = Contestant::ours(move |time| {
        passes(time, || {
            let runtime = ours::start_on_disk(cpus, &path, Level::Fsync);
            let read = |_| Reader(Asker::<Entity>::new(&runtime, &of, Pick::InOrder));
            let lap = answered(STORED, host.run(ONCE, read));
            ours::stop(host.handle(), runtime);
            lap
        })
    });

    let (path, of) = (stored_by_hand(setting, &ids), ids.clone());
    let limit = limit_of_reads(path.clone(), of, cpus);
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
        durability: "fsync",
        bars: Bars { limit: Some(0.5), naive: Some(1.3), ..Bars::default() },
        contestants: vec![ours, limit, naive],
    }
}

/// W2 by an increment.
pub(crate) fn again_writing(setting: &Setting) -> Row {
    let (cpus, ids) = (setting.cpus, ids(IDS));
    let path = stored_by_us(setting, &ids);
    let (host, of, mut count) = (Host::start(cpus), ids.clone(), STORED);
    let ours = Contestant::ours(move |time| {
        passes(time, || {
            count += 1;
            let runtime = ours::start_on_disk(cpus, &path, Level::Fsync);
            let lap = answered(count, host.run(ONCE, |_| Asker::<Entity>::new(&runtime, &of, Pick::InOrder)));
            ours::stop(host.handle(), runtime);
            lap
        })
    });
    let limit = limit_of_reads(stored_by_hand(setting, &ids), ids, cpus);
    let contestants = vec![ours, limit];
    Row { workload: "W2+write", driver: "b", durability: "fsync", bars: Bars::default(), contestants }
}

fn limit_of_reads(path: std::path::PathBuf, ids: Arc<[String]>, cpus: usize) -> Contestant {
    Contestant::limit("sled get + decode + insert", move |time: Duration| {
        passes(time, || {
            let lap = sled_read::read_all(&open(&path), &ids, cpus);
            assert_eq!(lap.ops, STORED * IDS, "what was read is what was stored");
            Lap { ops: IDS, ..lap }
        })
    })
}

/// Every ledger in the runtime's own store, counting [`STORED`].
fn stored_by_us(setting: &Setting, ids: &Arc<[String]>) -> std::path::PathBuf {
    let (path, host) = (setting.dir.join("ours"), Host::start(setting.cpus));
    let runtime = ours::start_on_disk(setting.cpus, &path, Level::Flushed);
    for count in 1..=STORED {
        answered(count, host.run(ONCE, |_| Asker::<Entity>::new(&runtime, ids, Pick::InOrder)));
    }
    ours::stop(host.handle(), runtime);
    path
}

/// Every ledger in a plain database.
fn stored_by_hand(setting: &Setting, ids: &Arc<[String]>) -> std::path::PathBuf {
    let path = setting.dir.join("raw");
    let (db, value) = (open(&path), ledger_to(&Ledger::counting(STORED)));
    for id in &**ids {
        db.insert(id, &*value).expect("sled writes");
    }
    db.flush().expect("sled flushes");
    path
}

/// Every one of the calls was answered with `reply`, or one more and another less: none is below it.
fn answered(reply: u64, lap: Lap) -> Lap {
    assert_eq!(lap.sum, reply * lap.ops, "some reply was wrong");
    lap
}

/// Opens a database as every contestant does: a bounded cache, flushed by whoever writes.
pub(crate) fn open(path: &Path) -> sled::Db {
    let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    for _ in 0..500 {
        match config.open() {
            Ok(db) => return db,
            Err(sled::Error::Io(_)) => pause(),
            Err(error) => panic!("sled does not open {}: {error}", path.display()),
        }
    }
    panic!("{} is in use by another process", path.display());
}

/// Waits until nobody holds a database that was closed: its threads end a little later.
pub(crate) fn settled(path: &Path) {
    let file = std::fs::File::open(path.join("db")).expect("sled's file is there");
    while file.try_lock().is_err() {
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "the bench waits for the lock of a database that was just closed")]
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(10));
}
