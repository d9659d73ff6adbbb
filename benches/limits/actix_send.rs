//! Limit of W3: actix's own `send` to actors whose addresses lie in a slice. No id is looked up.

use std::sync::Arc;

use actix::{Actor, Addr, Context, Handler, Message};

use super::super::{Arbiters, Client, State, hot};

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

/// Addresses in order.
#[derive(Clone)]
pub(crate) struct Actors(Arc<[Addr<Counter>]>);

impl Actors {
    /// Starts `count` actors, spread over the arbiters.
    pub(crate) fn new(count: usize, arbiters: &Arbiters, arbiter_count: usize) -> Self {
        let start = move |at| (0..count).skip(at).step_by(arbiter_count).map(|_| Counter(State::default()).start());
        Self(arbiters.each(move |at| start(at).collect::<Vec<_>>()).into_iter().flatten().collect())
    }

    /// All counters in order.
    pub(crate) fn counters(&self, host: &tokio::runtime::Handle) -> Vec<u64> {
        self.0.iter().map(|actor| host.block_on(actor.send(Add(0))).expect("the actor runs")).collect()
    }
}

impl Client for Actors {
    async fn call(&mut self, at: u64) -> u64 {
        self.0[hot(at, self.0.len())].send(Add(1)).await.expect("the actor runs")
    }
}
