//! W3: how fast twins that are awake answer.

use std::time::Duration;

use super::{
    Arbiters, Audit, Bars, Contestant, Host, Pick, Plan, Row, Setting, Until, WINDOW, ids,
    limits::{actix_send::Actors, lock, tokio_mpsc::Tasks},
    naive::actor::Registry,
};

const TWINS: u64 = 1_000;

/// W3 with 256 callers.
pub(crate) fn hot_asks(setting: &Setting) -> Row {
    let bar = if setting.cpus == 1 { 1.3 } else { 1.0 };
    row(setting, "W3", WINDOW, Bars { limit: Some(bar), ..Bars::default() })
}

/// W3 with one caller.
pub(crate) fn one_caller(setting: &Setting) -> Row {
    row(setting, "W3-window-1", 1, Bars { p50_us: Some(1.0), ..Bars::default() })
}

fn row(setting: &Setting, workload: &'static str, window: u64, bars: Bars) -> Row {
    let (cpus, ids) = (setting.cpus, ids(TWINS));
    let plan = move |time: Duration| Plan { window, until: Until::Elapsed(time), timed: window == 1 };

    let (host, client, mut audit) = (Host::start(cpus), lock::Hot::new(&ids), Audit::default());
    let dashmap = move |time| {
        let lap = host.run(plan(time), |_| client.clone());
        audit.check("dashmap", &lap, client.counters());
        lap
    };

    let (host, mut audit) = (Host::start(cpus), Audit::default());
    let tasks = Tasks::new(&ids, host.handle());
    let tokio = move |time| {
        let lap = host.run(plan(time), |_| tasks.clone());
        audit.check("tokio", &lap, tasks.counters(host.handle()));
        lap
    };

    let (host, arbiters, mut audit) = (Host::start(1), Arbiters::start(cpus), Audit::default());
    let actors = Actors::new(ids.len(), &arbiters, cpus);
    let actix = move |time| {
        let lap = arbiters.run(plan(time), |_| actors.clone());
        audit.check("actix", &lap, actors.counters(host.handle()));
        lap
    };

    let (host, arbiters, mut audit) = (Host::start(1), Arbiters::start(cpus), Audit::default());
    let registry = Registry::new(&ids, Pick::Hot);
    let naive = move |time| {
        let lap = arbiters.run(plan(time), |_| registry.clone());
        audit.check("naive", &lap, registry.counters(host.handle()));
        lap
    };

    // The limit of the bar: actix's own send with one CPU, raw tokio with two; the other one is printed beside it.
    let mut contestants = vec![Contestant::other("dashmap lock", dashmap), Contestant::naive(naive)];
    if cpus == 1 {
        contestants.push(Contestant::limit("actix send", actix));
        contestants.push(Contestant::other("tokio mpsc + oneshot", tokio));
    } else {
        contestants.push(Contestant::limit("tokio mpsc + oneshot", tokio));
        contestants.push(Contestant::other("actix send", actix));
    }
    Row { workload, driver: "b", durability: "none", bars, contestants }
}
