//! What a node does about one slot, or about one silent node: each a compare-and-set, and what follows from its answer.

use std::sync::Arc;

use tokio::time::sleep;

use super::{
    Incarnation, Node, NodeId, Owner, Revision,
    engine::{Error, Sighting},
    link::{Note, Peer},
    membership::Suspect,
    node::{Inner, Order},
};
use crate::store::{Epoch, Slot};

/// Takes a slot out of a set when the deed is over, however it ends.
struct Busy<'a> {
    node: &'a Node,
    slot: Slot,
    of: fn(&mut Inner) -> &mut std::collections::BTreeSet<Slot>,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        (self.of)(&mut self.node.state.lock()).remove(&self.slot);
        self.node.changed();
    }
}

impl Node {
    fn busy(&self, slot: Slot) -> Busy<'_> {
        Busy { node: self, slot, of: |state| &mut state.busy }
    }

    pub(super) async fn claim(self: Arc<Self>, life: Incarnation, slot: Slot, expected: Option<Epoch>) {
        let _busy = self.busy(slot);
        match self.asked(self.engine.claim(slot, self.config.node.clone(), life, expected)).await {
            Ok(epoch) => {
                self.counts.claims_won.more();
                self.owned(life, slot, epoch);
            }
            Err(error) => {
                tracing::debug!(slot = slot.0, ?expected, %error, "a slot could not be claimed yet");
                self.claim_failed(&error);
                let pause = match error {
                    Error::Conflict | Error::Busy => self.config.retry_min,
                    Error::Unknown(_) | Error::Unavailable(_) => self.config.retry_max,
                };
                sleep(pause).await;
                self.read(slot).await;
            }
        }
    }

    fn claim_failed(&self, error: &Error) {
        match error {
            Error::Conflict => self.counts.claims_lost.more(),
            Error::Busy | Error::Unknown(_) | Error::Unavailable(_) => self.counts.claims_retried.more(),
        }
    }

    pub(super) async fn hand_over(self: Arc<Self>, life: Incarnation, slot: Slot, to: Option<NodeId>) {
        let _busy = self.busy(slot);
        if let Some(host) = self.host() {
            host.hand_over(slot).await;
        }
        let mut pauses = self.pauses(u64::from(slot.0) << 8);
        // Whoever learns meanwhile that the slot is lost takes it out of what is held.
        while let Some(epoch) = self.holds(life, slot) {
            match self.asked(self.engine.release(slot, self.config.node.clone(), life, epoch)).await {
                Ok(number) => {
                    self.counts.handed_over.more();
                    let owner =
                        Owner { node: self.config.node.clone(), incarnation: life, released: true, epoch: number };
                    self.learned(slot, owner.clone());
                    if let Some(peer) = to.and_then(|node| self.peer(&node)) {
                        self.links.tell(peer, Note::Released { slot, owner });
                    }
                    return;
                }
                Err(error) => {
                    tracing::debug!(slot = slot.0, %error, "a slot could not be released yet");
                    self.read(slot).await;
                    sleep(pauses.next().unwrap_or(self.config.retry_max)).await;
                }
            }
        }
    }

    /// Claims a slot over its own epoch: once that is acknowledged, every earlier commit was done or never will be.
    pub(super) async fn claim_once_more(self: Arc<Self>, life: Incarnation, slot: Slot, epoch: Epoch) {
        let _busy = Busy { node: &self, slot, of: |state| &mut state.doubted };
        let mut pauses = self.pauses(u64::from(slot.0) << 24);
        while self.holds(life, slot) == Some(epoch) {
            match self.asked(self.engine.claim(slot, self.config.node.clone(), life, Some(epoch))).await {
                Ok(epoch) => {
                    self.counts.claims_won.more();
                    return self.owned(life, slot, epoch);
                }
                Err(error) => {
                    self.claim_failed(&error);
                    tracing::debug!(slot = slot.0, %error, "a slot could not be claimed again yet");
                    self.read(slot).await;
                    if let Some(done) = self.mine_since(life, slot, epoch) {
                        return self.owned(life, slot, done);
                    }
                    sleep(pauses.next().unwrap_or(self.config.retry_max)).await;
                }
            }
        }
        // The host holds an epoch that is not in force any more, and may have missed why.
        let mut state = self.state.lock();
        if state.life == Some(life) {
            let order = state.held.get(&slot).map_or(Order::Disown(slot), |epoch| Order::Own(slot, *epoch));
            state.orders.push_back(order);
        }
        drop(state);
        self.tell_host();
    }

    pub(super) async fn check(self: Arc<Self>, slot: Slot) {
        self.read(slot).await;
    }

    /// The second step of declaring a node dead: only who wins this knows that it did not renew meanwhile.
    pub(super) async fn declare_dead(self: Arc<Self>, suspect: Suspect) {
        let Suspect { node, dead, expected } = suspect;
        match self.asked(self.engine.put_presence(node.clone(), dead.clone(), expected)).await {
            Ok(revision) => {
                tracing::warn!(%node, by = %self.config.node, "a node is silent and was declared dead");
                self.sighted(Sighting { node, presence: Some(dead), revision });
            }
            Err(_) => self.look_at(&node, expected).await,
        }
    }

    /// Reads a presence record that was not at the expected number.
    pub(super) async fn look_at(&self, node: &NodeId, expected: Revision) {
        match self.asked(self.engine.presence(node.clone())).await {
            Ok(Some((presence, revision))) => {
                self.sighted(Sighting { node: node.clone(), presence: Some(presence), revision });
            }
            Ok(None) => {
                self.state.lock().view.forget(node, expected);
                self.viewed();
            }
            Err(_) => {}
        }
    }

    /// Reads a slot's record. It may be stale, and then changes nothing.
    async fn read(&self, slot: Slot) {
        if let Ok(Some(owner)) = self.asked(self.engine.owner(slot)).await {
            self.learned(slot, owner);
        }
    }

    /// Takes in a slot's record; whoever hosted it under a lower epoch has lost it.
    pub(super) fn learned(&self, slot: Slot, owner: Owner) {
        let mut state = self.state.lock();
        let is_mine = !owner.released && owner.node == self.config.node && Some(owner.incarnation) == state.life;
        let epoch = owner.epoch;
        if !state.table.apply(slot, owner) {
            return;
        }
        if !is_mine && state.held.get(&slot).is_some_and(|held| *held < epoch) {
            state.held.remove(&slot);
            state.orders.push_back(Order::Disown(slot));
        }
        drop(state);
        self.tell_host();
        self.announce(slot);
    }

    /// A claim was done.
    pub(super) fn owned(&self, life: Incarnation, slot: Slot, epoch: Epoch) {
        let mut state = self.state.lock();
        if state.life != Some(life) {
            return;
        }
        state.table.apply(slot, Owner { node: self.config.node.clone(), incarnation: life, released: false, epoch });
        // Another may have it already, or a claim of ours that came after this one.
        let is_latest = state.table.get(slot).is_some_and(|owner| owner.epoch == epoch);
        if is_latest && state.held.insert(slot, epoch) != Some(epoch) {
            state.orders.push_back(Order::Own(slot, epoch));
        }
        drop(state);
        self.tell_host();
        self.announce(slot);
    }

    fn announce(&self, slot: Slot) {
        if let Some(news) = self.news.get(usize::from(slot.0)) {
            news.notify_waiters();
        }
        self.changed();
    }

    /// The epoch under which this life hosts a slot.
    fn holds(&self, life: Incarnation, slot: Slot) -> Option<Epoch> {
        let state = self.state.lock();
        if state.life == Some(life) { state.held.get(&slot).copied() } else { None }
    }

    /// The epoch of a slot's record if it says that this life owns it, by a claim after `epoch`.
    fn mine_since(&self, life: Incarnation, slot: Slot, epoch: Epoch) -> Option<Epoch> {
        let state = self.state.lock();
        let owner = state.table.get(slot)?;
        let is_mine = !owner.released && owner.node == self.config.node && owner.incarnation == life;
        (is_mine && owner.epoch > epoch).then_some(owner.epoch)
    }

    /// How another node is reached.
    pub(super) fn peer(&self, node: &NodeId) -> Option<Peer> {
        let state = self.state.lock();
        let seen = state.view.get(node)?;
        Some(Peer { node: node.clone(), address: seen.presence.address.clone() })
    }
}
