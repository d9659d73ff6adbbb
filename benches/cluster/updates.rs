//! Durable updates of many twins on three servers, beside a bare client that sends the same batches.

use std::time::Duration;

use service_twin::store::{Epoch, Slot};

use crate::{
    nats_batch::{Raw, Records},
    workloads::{
        Audit, Bars, Contestant, Host, Pick, Plan, Row, Setting, Until, WINDOW, ids,
        ours::{Asker, Entity, counters},
    },
    world::{STREAMS, World, connect},
};

const TWINS: u64 = 4_096;
/// A record of ours: its frame and the 1,027 bytes of the state.
const RECORD_BYTES: usize = 1_064;

/// 256 callers of a cluster of one node.
pub(crate) fn fenced(setting: &Setting) -> Row {
    let plan = |time: Duration| Plan { window: WINDOW, until: Until::Elapsed(time), timed: true };
    let (world, ids) = (World::start(setting.cpus), ids(TWINS));
    let (members, host) = (world.members(1), Host::start(setting.cpus));

    let config = world.config("raw", "raw");
    let nats = host.handle().block_on(connect(&config));
    let store = world.store("raw", "raw");
    let wanted: Vec<_> = (0..Slot::COUNT).map(|slot| (Slot(slot), None)).collect();
    let mut epochs = vec![Epoch(0); wanted.len()];
    for (slot, claimed) in host.handle().block_on(store.claim_many(&wanted)) {
        epochs[usize::from(slot.0)] = claimed.unwrap();
    }
    let records = Records { prefix: "raw", ids: ids.clone(), epochs, record: vec![7; RECORD_BYTES].into() };
    let raw = Raw::start(host.handle(), &nats, STREAMS, records);

    let mut audit = Audit::default();
    let ours = move |time| {
        let lap = world.run(plan(time), |_| Asker::<Entity>::new(&members[0].runtime, &ids, Pick::Hot));
        audit.check("ours", &lap, counters::<Entity>(world.handle(), &members[0].runtime, &ids));
        lap
    };
    drop(store);
    let limit = move |time| host.run(plan(time), |_| raw.clone());
    let bars = Bars { limit: Some(0.7), ..Bars::default() };
    let contestants = vec![Contestant::ours(ours), Contestant::limit("bare atomic batches", limit)];
    Row { workload: "fenced-updates", driver: "b", durability: "fsync ×3", bars, contestants }
}
