//! Actors of any peer by id, and the rows they run in.

use std::{sync::Arc, time::Duration};

use dashmap::DashMap;

use crate::{
    peer::Peer,
    workloads::{Audit, Client, Contestant, Host, Pick, Plan, Until, WINDOW, memory, passes},
};

/// Actors by id; started by the first call.
struct Directory<P: Peer> {
    actors: Arc<DashMap<String, P::Actor, ahash::RandomState>>,
    ids: Arc<[String]>,
    pick: Pick,
}

impl<P: Peer> Clone for Directory<P> {
    fn clone(&self) -> Self {
        Self { actors: self.actors.clone(), ids: self.ids.clone(), pick: self.pick }
    }
}

impl<P: Peer> Directory<P> {
    fn new(ids: &Arc<[String]>, pick: Pick) -> Self {
        Self { actors: Arc::default(), ids: ids.clone(), pick }
    }

    async fn add(&self, id: &str, by: u64) -> u64 {
        let found = self.actors.get(id).map(|found| found.clone());
        let actor = match found {
            Some(actor) => actor,
            None => {
                let started = P::start().await;
                // Another caller may have been faster: then his is the one.
                self.actors.entry(id.to_owned()).or_insert(started).clone()
            }
        };
        P::add(&actor, by).await
    }
}

impl<P: Peer> Client for Directory<P> {
    async fn call(&mut self, at: u64) -> u64 {
        self.add(&self.ids[self.pick.index(at, self.ids.len())], 1).await
    }
}

/// W1 of a peer. Each pass has a runtime of its own, so that nobody's actors outlive it.
pub(crate) fn cold<P: Peer>(cpus: usize, ids: &Arc<[String]>, once: Plan) -> Contestant {
    let ids = ids.clone();
    Contestant::other(P::NAME, move |time| {
        passes(time, || {
            let (host, directory) = (Host::start(cpus), Directory::<P>::new(&ids, Pick::InOrder));
            let lap = host.run(once, |_| directory.clone());
            assert_eq!(lap.sum, lap.ops, "{}: some reply was wrong", P::NAME);
            lap
        })
    })
}

/// W3 of a peer.
pub(crate) fn hot_asks<P: Peer>(
    cpus: usize,
    ids: &Arc<[String]>,
    plan: impl Fn(Duration) -> Plan + 'static,
) -> Contestant {
    let (host, directory, mut audit) = (Host::start(cpus), Directory::<P>::new(ids, Pick::Hot), Audit::default());
    Contestant::other(P::NAME, move |time| {
        let lap = host.run(plan(time), |_| directory.clone());
        let read = async |id: &String| directory.add(id, 0).await;
        audit.check(P::NAME, &lap, directory.ids.iter().map(|id| host.handle().block_on(read(id))).collect());
        lap
    })
}

/// W5 of a peer.
pub(crate) fn resident<P: Peer>(cpus: usize) -> f64 {
    let host = Host::start(cpus);
    let mut directory = Directory::<P>::new(&Arc::from([]), Pick::InOrder);
    memory::growth(200_000, move |ids| {
        let plan = Plan { window: WINDOW, until: Until::Count(memory::SLICE), timed: false };
        directory.ids = ids;
        let lap = host.run(plan, |_| directory.clone());
        assert_eq!(lap.sum, memory::SLICE, "{}: some reply was wrong", P::NAME);
    })
}
