//! W4: how fast updates become durable.

use std::{fs::File, sync::Arc, time::Duration};

use super::{
    Arbiters, Bars, Contestant, Host, Pick, Plan, Row, Setting, Until, WINDOW,
    activation::open,
    ids, ledger_bytes,
    limits::sled_commit::{How, Raw},
    naive::durable::{Disk, Registry},
};

const TWINS: u64 = 1_000;

/// W4 with 256 callers.
pub(crate) fn updates(setting: &Setting) -> Row {
    let bars = Bars { limit: Some(0.8), naive: Some(10.0), ..Bars::default() };
    row(setting, "W4", WINDOW, bars)
}

/// W4 with one caller.
pub(crate) fn one_caller(setting: &Setting) -> Row {
    row(setting, "W4-window-1", 1, Bars { p50_ratio: Some(1.25), ..Bars::default() })
}

fn row(setting: &Setting, workload: &'static str, window: u64, bars: Bars) -> Row {
    let contestants = vec![
        raw(setting, window, "raw sled, insert", How::Insert),
        raw(setting, window, "raw sled, apply_batch", How::Batch),
        naive(setting, window),
    ];
    Row { workload, driver: "b", durability: "fsync", bars, contestants }
}

fn plan(window: u64, time: Duration) -> Plan {
    Plan { window, until: Until::Elapsed(time), timed: window == 1 }
}

/// The raw loop over a database of its own.
fn raw(setting: &Setting, window: u64, name: &'static str, how: How) -> Contestant {
    let (host, path) = (Host::start(setting.cpus), setting.dir.join(name));
    let (db, value) = (open(&path), ledger_bytes());
    let client = Raw::start(db, &path, &ids(TWINS), &value, how);
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
