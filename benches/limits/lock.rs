//! Limit of W1, W3 and W5: an entry of a dashmap (ahash) and an increment under its lock. No actor, no message.

use std::sync::Arc;

use dashmap::DashMap;

use super::super::{Client, State, hot};

/// States by id.
pub(crate) type Map = Arc<DashMap<String, State, ahash::RandomState>>;

/// Ids never seen: one `entry` each.
#[derive(Clone)]
pub(crate) struct Cold {
    pub(crate) map: Map,
    pub(crate) ids: Arc<[String]>,
}

impl Client for Cold {
    async fn call(&mut self, at: u64) -> u64 {
        let id = &self.ids[usize::try_from(at).expect("an index")];
        let mut state = self.map.entry(id.clone()).or_default();
        state.count += 1;
        state.count
    }
}

/// Ids that are there: one `get_mut` each.
#[derive(Clone)]
pub(crate) struct Hot {
    pub(crate) map: Map,
    pub(crate) ids: Arc<[String]>,
}

impl Hot {
    /// Every id with a fresh state.
    pub(crate) fn new(ids: &Arc<[String]>) -> Self {
        let map = Map::default();
        for id in &**ids {
            map.insert(id.clone(), State::default());
        }
        Self { map, ids: ids.clone() }
    }

    /// All counters in id order.
    pub(crate) fn counters(&self) -> Vec<u64> {
        self.ids.iter().map(|id| self.map.get(id).map_or(0, |state| state.count)).collect()
    }
}

impl Client for Hot {
    async fn call(&mut self, at: u64) -> u64 {
        let id = &self.ids[hot(at, self.ids.len())];
        let mut state = self.map.get_mut(id).expect("every id is there");
        state.count += 1;
        state.count
    }
}
