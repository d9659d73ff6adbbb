//! W4: how fast updates become durable.

use std::{fs::File, sync::Arc, time::Duration};

use service_twin::store::Level;

use super::{
    Arbiters, Audit, Bars, Contestant, Host, Pick, Plan, Row, Setting, Until, WINDOW,
    activation::open,
    ids, ledger_bytes,
    limits::sled_commit::{How, Raw},
    naive::durable::{Disk, Registry},
    ours::{self, Asker, Entity, KeyedAsker, counters},
};

const TWINS: u64 = 1_000;

/// Callers with keys of one hot twin: its ring remembers about 128 keys, and none may be forgotten before its turn.
const KEYED_WINDOW: u64 = 64;

/// W4 with 256 callers.
pub(crate) fn updates(setting: &Setting) -> Row {
    let bars = Bars { limit: Some(0.8), naive: Some(10.0), ..Bars::default() };
    row(setting, "W4", WINDOW, bars)
}

/// W4 with one caller.
pub(crate) fn one_caller(setting: &Setting) -> Row {
    row(setting, "W4-window-1", 1, Bars { p50_ratio: Some(1.25), ..Bars::default() })
}

/// W4h: ours on one twin, the raw loop on 1,000 keys.
pub(crate) fn one_hot_twin(setting: &Setting) -> Row {
    let bars = Bars { limit: Some(3.0), ..Bars::default() };
    hot(setting, "W4h", bars, ours(setting, WINDOW, 1))
}

/// W4h with keys.
pub(crate) fn one_hot_twin_keyed(setting: &Setting) -> Row {
    let (host, ids) = (Host::start(setting.cpus), ids(1));
    let runtime = ours::start_on_disk(setting.cpus, &setting.dir.join("ours"), Level::Fsync);
    let (mut audit, keys) = (Audit::default(), ours::first_key());
    let ours = Contestant::ours(move |time| {
        let asker = |_| KeyedAsker::new(Asker::new(&runtime, &ids, Pick::Hot), &keys);
        let lap = host.run(plan(KEYED_WINDOW, time), asker);
        audit.check("ours", &lap, counters::<Entity>(host.handle(), &runtime, &ids));
        lap
    });
    hot(setting, "W4h+keys", Bars::default(), ours)
}

fn hot(setting: &Setting, workload: &'static str, bars: Bars, ours: Contestant) -> Row {
    let contestants = vec![
        ours,
        raw(setting, WINDOW, "raw sled, insert", How::Insert),
        raw(setting, WINDOW, "raw sled, apply_batch", How::Batch),
    ];
    Row { workload, driver: "b", durability: "fsync", bars, contestants }
}

fn row(setting: &Setting, workload: &'static str, window: u64, bars: Bars) -> Row {
    let contestants = vec![
        ours(setting, window, TWINS),
        raw(setting, window, "raw sled, insert", How::Insert),
        raw(setting, window, "raw sled, apply_batch", How::Batch),
        naive(setting, window),
    ];
    Row { workload, driver: "b", durability: "fsync", bars, contestants }
}

fn plan(window: u64, time: Duration) -> Plan {
    Plan { window, until: Until::Elapsed(time), timed: window == 1 }
}

/// Increments at `Fsync` over sled.
pub(crate) fn ours(setting: &Setting, window: u64, twins: u64) -> Contestant {
    let (host, ids) = (Host::start(setting.cpus), ids(twins));
    let runtime = ours::start_on_disk(setting.cpus, &setting.dir.join("ours"), Level::Fsync);
    let mut audit = Audit::default();
    Contestant::ours(move |time| {
        let lap = host.run(plan(window, time), |_| Asker::<Entity>::new(&runtime, &ids, Pick::Hot));
        audit.check("ours", &lap, counters::<Entity>(host.handle(), &runtime, &ids));
        lap
    })
}

/// The raw loop over a database of its own.
fn raw(setting: &Setting, window: u64, name: &'static str, how: How) -> Contestant {
    let (host, path) = (Host::start(setting.cpus), setting.dir.join(name));
    let (db, value) = (open(&path), ledger_bytes());
    let shapes = ids(TWINS).iter().map(|id| vec![(id.clone(), value.len())]).collect();
    let client = Raw::start(db, &path, shapes, &value, how);
    Contestant::limit(name, move |time| host.run(plan(window, time), |_| client.clone()))
}

fn naive(setting: &Setting, window: u64) -> Contestant {
    let (arbiters, path) = (Arbiters::start(setting.cpus), setting.dir.join("naive"));
    let db = open(&path);
    let file = File::options().write(true).open(path.join("db")).expect("sled's file is there");
    let disk = Disk { db, sync: Some(Arc::new(file)) };
    let registry = Registry::new(&ids(TWINS), Pick::Hot, &disk, 1);
    Contestant::naive(move |time| arbiters.run(plan(window, time), |_| registry.clone()))
}
