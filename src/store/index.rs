//! The wake index and the term index of a store that keeps them in memory.

use std::collections::{BTreeMap, BTreeSet};

use compact_str::CompactString;

use super::{Address, Entry, Walked};
use crate::model::{Key, Timestamp};

/// When a twin wants to be woken, and its search terms.
pub(super) type Beside<'a> = (Option<Timestamp>, &'a [CompactString]);

#[derive(Default)]
pub(super) struct Index {
    wake: BTreeMap<(Timestamp, Address), u64>,
    terms: BTreeMap<(CompactString, CompactString), BTreeSet<Key>>,
}

impl Index {
    /// Takes out what was said of a twin so far and puts in what is said now, by a record of this sequence.
    pub(super) fn set(&mut self, address: &Address, before: Beside<'_>, after: Beside<'_>, sequence: u64) {
        let ((woken_at, had), (wake_at, terms)) = (before, after);
        if woken_at != wake_at {
            if let Some(at) = woken_at {
                self.wake.remove(&(at, address.clone()));
            }
            if let Some(at) = wake_at {
                self.wake.insert((at, address.clone()), sequence);
            }
        }
        for gone in had.iter().filter(|term| !terms.contains(term)) {
            let at = (address.kind.clone(), gone.clone());
            if let Some(keys) = self.terms.get_mut(&at) {
                keys.remove(&address.key);
                if keys.is_empty() {
                    self.terms.remove(&at);
                }
            }
        }
        for term in terms.iter().filter(|term| !had.contains(term)) {
            self.terms.entry((address.kind.clone(), term.clone())).or_default().insert(address.key.clone());
        }
    }

    pub(super) fn wake(&self, until: Timestamp, after: Option<(Timestamp, Address)>, limit: usize) -> Walked {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let mut due = self.wake.range((from, std::ops::Bound::Unbounded)).take_while(|((at, _), _)| *at <= until);
        let entries = due.by_ref().take(limit);
        let entries = entries.map(|((at, address), sequence)| Entry::Wake {
            at: *at,
            address: address.clone(),
            sequence: *sequence,
        });
        Walked { entries: entries.collect(), more: due.next().is_some(), mark: None }
    }

    /// Keys, sorted, among which are all that have every term; `None` without terms.
    pub(super) fn narrow(&self, kind: &str, terms: &[CompactString], after: Option<&Key>) -> Option<Vec<Key>> {
        let mut narrowest: Option<BTreeSet<&Key>> = None;
        for term in terms {
            let having: BTreeSet<&Key> = match term.strip_suffix('*') {
                None => self.terms.get(&(kind.into(), term.clone())).into_iter().flatten().collect(),
                Some(start) => self
                    .terms
                    .range((CompactString::new(kind), CompactString::new(start))..)
                    .take_while(|((of, term), _)| of == kind && term.starts_with(start))
                    .flat_map(|(_, keys)| keys)
                    .collect(),
            };
            if narrowest.as_ref().is_none_or(|keys| having.len() < keys.len()) {
                narrowest = Some(having);
            }
        }
        Some(narrowest?.into_iter().filter(|key| after.is_none_or(|after| *key > after)).cloned().collect())
    }
}
