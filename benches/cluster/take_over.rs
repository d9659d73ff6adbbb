//! What a node has to do that takes slots: claim them, and read their twins when they are asked.

use std::{sync::Arc, time::Duration};

use crate::{
    nats_read::Reader as Bare,
    servers::until,
    workloads::{
        Bars, Contestant, Host, Lap, Pick, Plan, Row, Setting, Until, WINDOW, ids,
        ours::{Asker, Entity, Reader},
        passes,
    },
    world::{Member, World, connect, is_whole},
};

/// Activations after the slots went to another node.
pub(crate) fn first_asks(setting: &Setting) -> Row {
    let (world, ids) = (World::start(setting.cpus), ids(if setting.quick { 2_048 } else { 8_192 }));
    let plan = Plan { window: WINDOW, until: Until::Count(count(&ids)), timed: true };
    let mut old = world.members(1).remove(0);
    store(&world, &old, &ids);
    let host = Host::start(setting.cpus);
    let nats = host.handle().block_on(connect(&world.config("tw", "bare")));
    let mut lives = 0;
    let of = ids.clone();
    let ours = move |time| {
        passes(time, || {
            lives += 1;
            let new = world.member(&format!("m{lives}"));
            until("the new node being there", || new.node.held() > 0);
            let gone = std::mem::replace(&mut old, new);
            world.leave(&gone);
            until("the new node having everything", || is_whole(std::slice::from_ref(&old)));
            let lap = world.run(plan, |_| Reader(Asker::<Entity>::new(&old.runtime, &of, Pick::InOrder)));
            assert_eq!(lap.sum, count(&of), "each twin was found as it was stored");
            lap
        })
    };
    let limit = move |time: Duration| passes(time, || host.run(plan, |_| Bare::new(nats.clone(), "tw", &ids)));
    let bars = Bars { limit: Some(0.5), ..Bars::default() };
    let contestants = vec![Contestant::ours(ours), Contestant::limit("bare multi_last", limit)];
    Row { workload: "take-over", driver: "b", durability: "fsync ×3", bars, contestants }
}

/// A lone node's claims, from its start until it has every slot.
pub(crate) fn claims(setting: &Setting) -> Row {
    let (world, ids) = (World::start(setting.cpus), ids(if setting.quick { 1_000 } else { 10_000 }));
    let first = world.members(1).remove(0);
    store(&world, &first, &ids);
    world.leave(&first);
    let mut lives = 0;
    let mut begun = None;
    let ours = move |_| {
        if let Some(before) = begun.take() {
            world.leave(&before);
        }
        lives += 1;
        Lap::of(|| {
            let new = world.member(&format!("m{lives}"));
            until("the node having everything", || is_whole(std::slice::from_ref(&new)));
            let held = u64::try_from(new.node.held()).unwrap();
            begun = Some(new);
            held
        })
    };
    let contestants = vec![Contestant::ours(ours)];
    Row { workload: "claims", driver: "b", durability: "fsync ×3", bars: Bars::default(), contestants }
}

/// Increments each once.
fn store(world: &World, member: &Member, ids: &Arc<[String]>) {
    let plan = Plan { window: WINDOW, until: Until::Count(count(ids)), timed: false };
    world.run(plan, |_| Asker::<Entity>::new(&member.runtime, ids, Pick::InOrder));
}

fn count(ids: &Arc<[String]>) -> u64 {
    u64::try_from(ids.len()).unwrap()
}
