//! A node of a cluster hosts a runtime, and is the cluster that the runtime sees.

use std::{sync::Arc, time::Duration};

use compact_str::CompactString;

use super::{Cluster, ClusterView, NodeView, Runtime};
use crate::{
    cluster::{Counts, Forwarded, Hosting, Node, ServedTo, Soon, State},
    model::Timestamp,
    store::{Epoch, Slot},
};

/// How long the twins of a slot that moves may take to settle; whoever still waits then hears that it was not applied.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Hosting for Runtime {
    fn own(&self, slot: Slot, epoch: Epoch) {
        self.own(slot, epoch);
    }

    fn disown(&self, slot: Slot) {
        self.disown(slot);
    }

    fn hand_over(&self, slot: Slot) -> Soon<'_, ()> {
        Box::pin(async move {
            let unsettled = self.hand_over(slot, SETTLE_TIMEOUT).await;
            if unsettled > 0 {
                tracing::warn!(slot = slot.0, unsettled, "a slot moves before all of its twins have settled");
            }
        })
    }

    fn serve(&self, slot: Slot, call: Vec<u8>, done: ServedTo) {
        self.serve(slot, &call, done);
    }

    fn serve_node(&self, call: Vec<u8>, done: ServedTo) {
        self.serve_node(&call, done);
    }
}

/// What a runtime is built with; the node then runs on behalf of that runtime ([`Node::run`]).
impl Cluster for Arc<Node> {
    fn forward(&self, slot: Slot, call: Vec<u8>, deadline: Option<Timestamp>, done: Forwarded) {
        Node::forward(self, slot, call, deadline, done);
    }

    fn call(&self, node: &str, call: Vec<u8>, within: Duration, done: Forwarded) {
        Node::call(self, node, call, within, done);
    }

    fn others(&self) -> Vec<CompactString> {
        Node::others(self)
    }

    fn view(&self) -> ClusterView {
        let places = self.places();
        let nodes = places.nodes.into_iter().map(|place| NodeView {
            state: match place.presence.state {
                State::Joining => "joining",
                State::Up => "up",
                State::Draining => "draining",
                State::Dead => "dead",
            }
            .into(),
            node: place.node.into(),
            address: place.presence.address,
            http: place.presence.http,
            owned: place.owned,
            wished: place.wished,
            silent_ms: millis(place.silence),
        });
        ClusterView {
            node: self.id().clone().into(),
            nodes: nodes.collect(),
            slots: Slot::COUNT,
            unowned: places.unowned,
            misplaced: places.misplaced,
            moving: places.moving,
            lease_left_ms: millis(self.lease_left()),
            waiting: self.waiting(),
            ..ClusterView::default()
        }
    }

    fn counts(&self) -> Counts {
        Node::counts(self)
    }

    fn holds_lease(&self) -> bool {
        Node::holds_lease(self)
    }

    fn claim_again(&self, slot: Slot, epoch: Epoch) {
        Node::claim_again(self, slot, epoch);
    }
}
