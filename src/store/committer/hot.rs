//! What the committer remembers of twins it wrote lately, so that a hot commit reads nothing.

use std::{collections::HashMap, sync::Arc};

use crate::{
    model::Timestamp,
    store::{Address, SharedTerms},
};

/// Most twins remembered in each of the two generations.
const TWINS_MAX: usize = 32 * 1024;

/// What a commit is checked against and what the indexes hold of a twin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) sequence: u64,
    pub(super) wake_at: Option<Timestamp>,
    pub(super) terms: SharedTerms,
}

/// Two generations: when the young one is full it becomes the old one, and the old one is forgotten.
#[derive(Default)]
pub(super) struct Hot {
    young: HashMap<Arc<Address>, Known, ahash::RandomState>,
    old: HashMap<Arc<Address>, Known, ahash::RandomState>,
}

impl Hot {
    /// Takes out what is known; whoever takes it puts it back.
    pub(super) fn take(&mut self, address: &Address) -> Option<Known> {
        self.young.remove(address).or_else(|| self.old.remove(address))
    }

    pub(super) fn put(&mut self, address: Arc<Address>, known: Known) {
        if self.young.len() >= TWINS_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(address, known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Key;

    #[test]
    fn the_least_recent_are_forgotten_and_never_more_than_two_generations_kept() {
        let address = |n: usize| Arc::new(Address { kind: "k".into(), key: Key::parse(&n.to_string()).unwrap() });
        let mut hot = Hot::default();
        for n in 0..3 * TWINS_MAX {
            hot.put(address(n), Known::default());
            assert!(hot.young.len() + hot.old.len() <= 2 * TWINS_MAX);
        }
        assert_eq!(hot.take(&address(0)), None);
        assert_eq!(hot.take(&address(3 * TWINS_MAX - 1)), Some(Known::default()));
    }
}
