//! What a remote message and an update cost against the number of nodes and of twins.

use std::{sync::Arc, time::Duration};

use crate::{
    workloads::{
        Audit, Bars, Contestant, Pick, Plan, Row, Setting, Until, WINDOW, ids,
        ours::{Asker, Counter, Counts, Entity, counters},
    },
    world::{Member, World},
};

const TWINS: u64 = 1_024;

pub(crate) fn of_1(setting: &Setting) -> Row {
    of(setting, "nodes-1", 1)
}

pub(crate) fn of_2(setting: &Setting) -> Row {
    of(setting, "nodes-2", 2)
}

pub(crate) fn of_4(setting: &Setting) -> Row {
    of(setting, "nodes-4", 4)
}

pub(crate) fn of_8(setting: &Setting) -> Row {
    of(setting, "nodes-8", 8)
}

pub(crate) fn twins_1k(setting: &Setting) -> Row {
    over(setting, "twins-1k", 1_000)
}

pub(crate) fn twins_10k(setting: &Setting) -> Row {
    over(setting, "twins-10k", 10_000)
}

pub(crate) fn twins_100k(setting: &Setting) -> Row {
    over(setting, "twins-100k", 100_000)
}

pub(crate) fn twins_1m(setting: &Setting) -> Row {
    over(setting, "twins-1m", 1_000_000)
}

/// Callers are spread over all nodes. Each asks twins of the others only, and each updates twins of its own: how many
/// calls cross a link is then the same however many nodes there are, but for one that is alone.
fn of(setting: &Setting, workload: &'static str, nodes: usize) -> Row {
    let plan = |time: Duration| Plan { window: WINDOW, until: Until::Elapsed(time), timed: true };
    let (world, ids) = (Arc::new(World::start(setting.cpus)), ids(TWINS));
    let members = Arc::new(world.members(nodes));
    let shares = |at_home: bool| -> Vec<Arc<[String]>> {
        let share = |member: &Member| ids.iter().filter(|id| member.hosts(id) == at_home).cloned().collect();
        members.iter().map(share).collect()
    };
    let remote = shares(nodes == 1);
    let asks = lap::<Counter>(&world, &members, remote, &ids);
    let updates = lap::<Entity>(&world, &members, shares(true), &ids);
    let (mut asks, mut updates) = (asks, updates);
    let contestants = vec![
        Contestant::ours(move |time| asks(plan(time))),
        Contestant::other("updates", move |time| updates(plan(time))),
    ];
    Row { workload, driver: "b", durability: "fsync ×3", bars: Bars::default(), contestants }
}

fn lap<K: Counts>(
    world: &Arc<World>,
    members: &Arc<Vec<Member>>,
    shares: Vec<Arc<[String]>>,
    ids: &Arc<[String]>,
) -> impl FnMut(Plan) -> crate::workloads::Lap + use<K> {
    let (world, members, ids, mut audit) = (world.clone(), members.clone(), ids.clone(), Audit::default());
    move |plan| {
        let lap = world.run(plan, |me| {
            let at = usize::try_from(me).unwrap() % members.len();
            Asker::<K>::new(&members[at].runtime, &shares[at], Pick::Hot)
        });
        audit.check(K::KIND, &lap, counters::<K>(world.handle(), &members[0].runtime, &ids));
        lap
    }
}

/// One node asks, another one has the twins.
fn over(setting: &Setting, workload: &'static str, twins: usize) -> Row {
    let world = World::start(setting.cpus);
    let members = world.members(2);
    let candidates = ids(u64::try_from(twins).unwrap() * 3);
    let there: Arc<[String]> = candidates.iter().filter(|id| members[1].hosts(id)).take(twins).cloned().collect();
    assert_eq!(there.len(), twins, "about half of the ids are the other node's");
    let all = Plan { window: WINDOW, until: Until::Count(u64::try_from(twins).unwrap()), timed: false };
    let mut audit = Audit::default();
    let mut is_first = true;
    let ours = move |time| {
        let asker = |pick| Asker::<Counter>::new(&members[0].runtime, &there, pick);
        let read = || counters::<Counter>(world.handle(), &members[1].runtime, &there);
        if std::mem::take(&mut is_first) {
            let lap = world.run(all, |_| asker(Pick::InOrder));
            audit.check("first", &lap, read());
        }
        let plan = Plan { window: WINDOW, until: Until::Elapsed(time), timed: true };
        let lap = world.run(plan, |_| asker(Pick::Hot));
        audit.check("ours", &lap, read());
        lap
    };
    let contestants = vec![Contestant::ours(ours)];
    Row { workload, driver: "b", durability: "none", bars: Bars::default(), contestants }
}
