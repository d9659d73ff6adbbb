//! W3: how fast twins that are awake answer.

use std::time::Duration;

use super::{
    Arbiters, Audit, Bars, Contestant, Driver, Host, Lap, Pick, Plan, Row, Setting, Until, WINDOW, ids,
    limits::{actix_send::Actors, lock, tokio_mpsc::Tasks},
    naive::actor::Registry,
    ours::{self, Asker, Counter, Counts, Kept, Slow, counters, work},
};

const TWINS: u64 = 1_000;

/// W3 with 256 callers.
pub(crate) fn hot_asks(setting: &Setting) -> Row {
    let bar = if setting.cpus == 1 { 1.3 } else { 1.0 };
    row::<Counter>(setting, "W3", Driver::Host, "none", WINDOW, Bars { limit: Some(bar), ..Bars::default() })
}

/// W3 with the client loops on the arbiters.
pub(crate) fn hot_asks_on_arbiters(setting: &Setting) -> Row {
    row::<Counter>(setting, "W3-driver-a", Driver::Arbiters, "none", WINDOW, Bars::default())
}

/// W3 with a commit to the memory store in each turn.
pub(crate) fn hot_asks_in_memory(setting: &Setting) -> Row {
    row::<Kept>(setting, "W3+memory", Driver::Host, "memory", WINDOW, Bars::default())
}

/// W3 with one caller.
pub(crate) fn one_caller(setting: &Setting) -> Row {
    row::<Counter>(setting, "W3-window-1", Driver::Host, "none", 1, Bars { p50_us: Some(1.0), ..Bars::default() })
}

/// W3h: everybody asks one twin whose turns take 2 µs; the limit does nothing but such turns, one after the other.
pub(crate) fn one_hot_twin(setting: &Setting) -> Row {
    let (host, ids) = (Host::start(setting.cpus), ids(1));
    let (runtime, mut audit) = (ours::start_in_memory(setting.cpus), Audit::default());
    let ours = Contestant::ours(move |time| {
        let plan = Plan { window: WINDOW, until: Until::Elapsed(time), timed: true };
        let lap = host.run(plan, |_| Asker::<Slow>::new(&runtime, &ids, Pick::Hot));
        audit.check("ours", &lap, counters::<Slow>(host.handle(), &runtime, &ids));
        lap
    });
    let limit = Contestant::limit("turns alone", |time| {
        let turns = || {
            Lap::of(|| {
                (0..TURNS).for_each(|_| work());
                u64::from(TURNS)
            })
        };
        super::passes(time, turns)
    });
    Row {
        workload: "W3h",
        driver: "b",
        durability: "none",
        bars: Bars { limit: Some(0.9), p99_us: Some(1_000.0), ..Bars::default() },
        contestants: vec![ours, limit],
    }
}

/// Turns of one pass of the limit of W3h.
const TURNS: u32 = 10_000;

fn row<K: Counts>(
    setting: &Setting,
    workload: &'static str,
    driver: Driver,
    durability: &'static str,
    window: u64,
    bars: Bars,
) -> Row {
    let (cpus, ids) = (setting.cpus, ids(TWINS));
    let plan = move |time: Duration| Plan { window, until: Until::Elapsed(time), timed: window == 1 };

    let (host, runtime, of, mut audit) =
        (Host::start(cpus), ours::start_in_memory(cpus), ids.clone(), Audit::default());
    let ours = move |time| {
        let asker = |_| Asker::<K>::new(&runtime, &of, Pick::Hot);
        let lap = ours::run(driver, &host, &runtime, plan(time), asker);
        audit.check("ours", &lap, counters::<K>(host.handle(), &runtime, &of));
        lap
    };

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
    let mut contestants =
        vec![Contestant::ours(ours), Contestant::other("dashmap lock", dashmap), Contestant::naive(naive)];
    if cpus == 1 {
        contestants.push(Contestant::limit("actix send", actix));
        contestants.push(Contestant::other("tokio mpsc + oneshot", tokio));
    } else {
        contestants.push(Contestant::limit("tokio mpsc + oneshot", tokio));
        contestants.push(Contestant::other("actix send", actix));
    }
    Row { workload, driver: driver.letter(), durability, bars, contestants }
}
