//! An ask of one node to a twin of another, beside a bare echo over tonic.

use std::time::Duration;

use crate::{
    tonic_echo::Echo,
    workloads::{
        Audit, Bars, Contestant, Host, Pick, Plan, Row, Setting, Until, WINDOW, ids,
        ours::{Asker, Counter, counters},
    },
    world::World,
};

const TWINS: usize = 1_000;
/// Bytes of the echo's messages, there and back: as many as a call of ours has with its head.
const ECHO_BYTES: usize = 48;

/// With 256 callers; rio-rs reaches 80 k/s at most, coerce 15 k/s.
pub(crate) fn asks(setting: &Setting) -> Row {
    row(setting, "remote-ask", WINDOW, Bars { limit: Some(0.5), per_s: Some(160_000.0), ..Bars::default() })
}

/// With one caller.
pub(crate) fn one_caller(setting: &Setting) -> Row {
    row(setting, "remote-ask-window-1", 1, Bars { p50_ratio: Some(2.0), ..Bars::default() })
}

fn row(setting: &Setting, workload: &'static str, window: u64, bars: Bars) -> Row {
    let plan = move |time: Duration| Plan { window, until: Until::Elapsed(time), timed: true };
    let world = World::start(setting.cpus);
    let members = world.members(2);
    let there = ids(8 * 1_000).iter().filter(|id| members[1].hosts(id)).take(TWINS).cloned().collect();
    let mut audit = Audit::default();
    let ours = move |time| {
        let lap = world.run(plan(time), |_| Asker::<Counter>::new(&members[0].runtime, &there, Pick::Hot));
        audit.check("ours", &lap, counters::<Counter>(world.handle(), &members[1].runtime, &there));
        lap
    };
    let host = Host::start(setting.cpus);
    let echo = Echo::start(host.handle(), ECHO_BYTES);
    let limit = move |time| host.run(plan(time), |_| echo.clone());
    let contestants = vec![Contestant::ours(ours), Contestant::limit("tonic stream echo", limit)];
    Row { workload, driver: "b", durability: "none", bars, contestants }
}
