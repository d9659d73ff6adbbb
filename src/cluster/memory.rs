//! A shared store in memory: for simulations, for tests, and as the reference of what an [`Engine`] promises.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{
    Engine, Incarnation, NodeId, Owner, Presence, Revision, Soon,
    engine::{Error, Sighting, Watched, Watching},
};
use crate::store::{Epoch, Slot};

/// Changes that wait for one watch; one that falls further behind is broken.
const WATCH_MAX: usize = 16_384;

/// What lies between a node and the shared store. Everything passes it, on the way there and on the way back.
pub trait Way: Send + Sync + 'static {
    /// Waits as long as one passage takes; `false` if what was on its way is lost.
    fn pass(&self) -> Soon<'_, bool>;
}

/// A way without length.
#[derive(Clone, Copy, Debug)]
pub struct Direct;

impl Way for Direct {
    fn pass(&self) -> Soon<'_, bool> {
        Box::pin(std::future::ready(true))
    }
}

/// The records themselves, seen by every node alike.
#[derive(Clone, Default)]
pub struct Records(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// Number of the last write.
    last: u64,
    nodes: BTreeMap<NodeId, (Presence, Revision)>,
    owners: BTreeMap<Slot, Owner>,
    presence_watches: Vec<mpsc::Sender<Sighting>>,
    owner_watches: Vec<mpsc::Sender<(Slot, Owner)>>,
}

impl Records {
    /// The shared store as a node reaches it by this way.
    pub fn by(&self, way: Arc<dyn Way>) -> MemoryEngine {
        MemoryEngine { records: self.clone(), way }
    }

    /// Who owns a slot, as nobody but an observer from outside can know.
    pub fn owner(&self, slot: Slot) -> Option<Owner> {
        self.0.lock().owners.get(&slot).cloned()
    }

    /// Every presence record.
    pub fn nodes(&self) -> Vec<(NodeId, Presence)> {
        self.0.lock().nodes.iter().map(|(node, (presence, _))| (node.clone(), presence.clone())).collect()
    }

    /// Loses every presence record, as a store does that keeps them in memory only. No watch shows it.
    pub fn lose_presence(&self) {
        let mut inner = self.0.lock();
        inner.nodes.clear();
        inner.presence_watches.clear();
    }
}

impl Inner {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn put_presence(
        &mut self,
        node: NodeId,
        presence: Option<Presence>,
        expected: Revision,
    ) -> Result<Revision, Error> {
        if self.nodes.get(&node).map_or(Revision(0), |(_, revision)| *revision) != expected {
            return Err(Error::Conflict);
        }
        let revision = Revision(self.next());
        match presence.clone() {
            Some(presence) => drop(self.nodes.insert(node.clone(), (presence, revision))),
            None => drop(self.nodes.remove(&node)),
        }
        let sighting = Sighting { node, presence, revision };
        self.presence_watches.retain(|watch| watch.try_send(sighting.clone()).is_ok());
        Ok(revision)
    }

    fn put_owner(
        &mut self,
        slot: Slot,
        node: NodeId,
        incarnation: Incarnation,
        released: bool,
        expected: Option<Epoch>,
    ) -> Result<Epoch, Error> {
        if self.owners.get(&slot).map(|owner| owner.epoch) != expected {
            return Err(Error::Conflict);
        }
        let epoch = Epoch(self.next());
        let owner = Owner { node, incarnation, released, epoch };
        self.owners.insert(slot, owner.clone());
        self.owner_watches.retain(|watch| watch.try_send((slot, owner.clone())).is_ok());
        Ok(epoch)
    }
}

/// [`Records`] as one node reaches them.
pub struct MemoryEngine {
    records: Records,
    way: Arc<dyn Way>,
}

impl MemoryEngine {
    fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&mut Inner) -> Result<T, Error> + Send + 'static,
    ) -> Soon<'_, Result<T, Error>> {
        let (records, way) = (self.records.clone(), Arc::clone(&self.way));
        // Who asked may have given up when it arrives.
        let sent = tokio::spawn(async move {
            if !way.pass().await {
                return None;
            }
            let written = write(&mut records.0.lock());
            way.pass().await.then_some(written)
        });
        Box::pin(async { sent.await.ok().flatten().unwrap_or_else(|| Err(Error::Unknown("no answer".into()))) })
    }

    /// Shows what is there, then what comes, at the pace of the way.
    fn show<T: Send + 'static>(&self, there: Vec<T>, mut coming: mpsc::Receiver<T>) -> Watching<T> {
        let (show, shown) = mpsc::channel(64);
        let way = Arc::clone(&self.way);
        tokio::spawn(async move {
            for seen in there {
                if show.send(Watched::Seen(seen)).await.is_err() {
                    return;
                }
            }
            if !way.pass().await || show.send(Watched::Current).await.is_err() {
                return;
            }
            loop {
                let seen = tokio::select! {
                biased;
                               seen = coming.recv() => seen,
                               () = show.closed() => None,
                           };
                let Some(seen) = seen else { return };
                if !way.pass().await || show.send(Watched::Seen(seen)).await.is_err() {
                    return;
                }
            }
        });
        shown
    }
}

impl Engine for MemoryEngine {
    fn put_presence(&self, node: NodeId, presence: Presence, expected: Revision) -> Soon<'_, Result<Revision, Error>> {
        self.write(move |inner| inner.put_presence(node, Some(presence), expected))
    }

    fn remove_presence(&self, node: NodeId, expected: Revision) -> Soon<'_, Result<(), Error>> {
        self.write(move |inner| inner.put_presence(node, None, expected).map(drop))
    }

    fn presence(&self, node: NodeId) -> Soon<'_, Result<Option<(Presence, Revision)>, Error>> {
        self.write(move |inner| Ok(inner.nodes.get(&node).cloned()))
    }

    fn watch_presence(&self) -> Soon<'_, Result<Watching<Sighting>, Error>> {
        let begun = self.write(|inner| {
            let (watch, coming) = mpsc::channel(WATCH_MAX);
            inner.presence_watches.push(watch);
            let sighting = |(node, (presence, revision)): (&NodeId, &(Presence, Revision))| Sighting {
                node: node.clone(),
                presence: Some(presence.clone()),
                revision: *revision,
            };
            Ok((inner.nodes.iter().map(sighting).collect(), coming))
        });
        Box::pin(async {
            let (there, coming) = begun.await?;
            Ok(self.show(there, coming))
        })
    }

    fn claim(
        &self,
        slot: Slot,
        node: NodeId,
        incarnation: Incarnation,
        expected: Option<Epoch>,
    ) -> Soon<'_, Result<Epoch, Error>> {
        self.write(move |inner| inner.put_owner(slot, node, incarnation, false, expected))
    }

    fn release(
        &self,
        slot: Slot,
        node: NodeId,
        incarnation: Incarnation,
        epoch: Epoch,
    ) -> Soon<'_, Result<Epoch, Error>> {
        self.write(move |inner| inner.put_owner(slot, node, incarnation, true, Some(epoch)))
    }

    fn owner(&self, slot: Slot) -> Soon<'_, Result<Option<Owner>, Error>> {
        self.write(move |inner| Ok(inner.owners.get(&slot).cloned()))
    }

    fn watch_owners(&self) -> Soon<'_, Result<Watching<(Slot, Owner)>, Error>> {
        let begun = self.write(|inner| {
            let (watch, coming) = mpsc::channel(WATCH_MAX);
            inner.owner_watches.push(watch);
            Ok((inner.owners.iter().map(|(slot, owner)| (*slot, owner.clone())).collect(), coming))
        });
        Box::pin(async {
            let (there, coming) = begun.await?;
            Ok(self.show(there, coming))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::State;

    #[tokio::test]
    async fn each_write_is_a_compare_and_set_and_a_watch_shows_it() {
        let engine = Records::default().by(Arc::new(Direct));
        let (node, life) = (NodeId::parse("a").unwrap(), Incarnation(1));
        let presence =
            Presence { incarnation: life, address: "".into(), http: "".into(), state: State::Joining, load: 0 };
        let created = engine.put_presence(node.clone(), presence.clone(), Revision(0)).await.unwrap();
        assert_eq!(engine.put_presence(node.clone(), presence.clone(), Revision(0)).await, Err(Error::Conflict));
        let mut seen = engine.watch_presence().await.unwrap();
        let renewed = engine.put_presence(node.clone(), presence.clone(), created).await.unwrap();
        assert_eq!(engine.remove_presence(node.clone(), created).await, Err(Error::Conflict));
        engine.remove_presence(node.clone(), renewed).await.unwrap();
        for (presence, revision) in [(Some(&presence), created), (Some(&presence), renewed), (None, Revision(3))] {
            if revision == renewed {
                assert_eq!(seen.recv().await, Some(Watched::Current));
            }
            let sighting = Sighting { node: node.clone(), presence: presence.cloned(), revision };
            assert_eq!(seen.recv().await, Some(Watched::Seen(sighting)));
        }

        let epoch = engine.claim(Slot(7), node.clone(), life, None).await.unwrap();
        assert_eq!(engine.claim(Slot(7), node.clone(), life, None).await, Err(Error::Conflict));
        let again = engine.claim(Slot(7), node.clone(), life, Some(epoch)).await.unwrap();
        assert!(again > epoch);
        assert_eq!(engine.release(Slot(7), node.clone(), life, epoch).await, Err(Error::Conflict));
        let released = engine.release(Slot(7), node.clone(), life, again).await.unwrap();
        let owner = Owner { node, incarnation: life, released: true, epoch: released };
        assert_eq!(engine.owner(Slot(7)).await, Ok(Some(owner)));
    }
}
