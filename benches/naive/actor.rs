//! W1, W3, W5: one actix actor per id, its address in a dashmap, started by the first call.

use std::sync::Arc;

use actix::{Actor, Addr, Context, Handler, Message};
use dashmap::DashMap;

use super::super::{Client, Pick, State};

struct Counter(State);

impl Actor for Counter {
    type Context = Context<Self>;
}

struct Add(u64);

impl Message for Add {
    type Result = u64;
}

impl Handler<Add> for Counter {
    type Result = u64;
    fn handle(&mut self, Add(by): Add, _: &mut Context<Self>) -> u64 {
        self.0.count += by;
        self.0.count
    }
}

/// Addresses by id.
#[derive(Clone)]
pub(crate) struct Registry {
    actors: Arc<DashMap<String, Addr<Counter>, ahash::RandomState>>,
    ids: Arc<[String]>,
    pick: Pick,
}

impl Registry {
    /// Nobody is active yet.
    pub(crate) fn new(ids: &Arc<[String]>, pick: Pick) -> Self {
        Self { actors: Arc::default(), ids: ids.clone(), pick }
    }

    /// The same actors, called by other ids.
    pub(crate) fn over(&self, ids: Arc<[String]>) -> Self {
        Self { ids, ..self.clone() }
    }

    /// Finds or starts the actor and adds; runs on an arbiter.
    pub(crate) async fn add(&self, id: &str, by: u64) -> u64 {
        let found = self.actors.get(id).map(|found| found.clone());
        let actor = match found {
            Some(actor) => actor,
            None => self.actors.entry(id.to_owned()).or_insert_with(|| Counter(State::default()).start()).clone(),
        };
        actor.send(Add(by)).await.expect("the actor runs")
    }

    /// All counters in id order.
    pub(crate) fn counters(&self, host: &tokio::runtime::Handle) -> Vec<u64> {
        let read = async |id: &String| match self.actors.get(id).map(|found| found.clone()) {
            Some(actor) => actor.send(Add(0)).await.expect("the actor runs"),
            None => 0,
        };
        self.ids.iter().map(|id| host.block_on(read(id))).collect()
    }
}

impl Client for Registry {
    async fn call(&mut self, at: u64) -> u64 {
        self.add(&self.ids[self.pick.index(at, self.ids.len())], 1).await
    }
}
