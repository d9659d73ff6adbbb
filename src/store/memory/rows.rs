//! The twins of one shard: a table of small rows.

use std::sync::Arc;

use compact_str::CompactString;
use hashbrown::{HashTable, hash_table::Entry};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{
    model::{Key, Timestamp},
    store::{Address, Epoch, Item, Load, Loaded, PageWrite, SharedTerms, Slot, index::Beside},
};

/// Unused bytes that a record taken over with its buffer may have before it is copied instead.
const SLACK_BYTES_MAX: usize = 64;

/// Places an address.
pub(super) fn hash(address: &Address) -> u64 {
    xxh3_64_with_seed(address.kind.as_bytes(), Key::hash_of(&address.key))
}

/// One twin.
pub(super) struct Row {
    hash: u64,
    address: Arc<Address>,
    pub(super) core: Option<Vec<u8>>,
    pub(super) sequence: u64,
    rare: Option<Box<Rare>>,
    keeps_chain: bool,
}

/// What most twins do not have.
#[derive(Default)]
struct Rare {
    wake_at: Option<Timestamp>,
    terms: SharedTerms,
    pages: std::collections::BTreeMap<CompactString, Vec<u8>>,
    chain: Vec<(u64, Epoch)>,
}

impl Row {
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        self.rare.as_ref().and_then(|rare| rare.wake_at)
    }

    pub(super) fn terms(&self) -> &[CompactString] {
        self.rare.as_ref().map_or(&[], |rare| &rare.terms)
    }

    pub(super) fn beside(&self) -> Beside<'_> {
        (self.wake_at(), self.terms())
    }

    pub(super) fn chain(&self) -> &[(u64, Epoch)] {
        self.rare.as_ref().map_or(&[], |rare| &rare.chain)
    }

    /// Whether anything of it must be kept.
    pub(super) fn is_written(&self) -> bool {
        self.sequence > 0 || self.core.is_some() || self.rare.as_ref().is_some_and(|rare| !rare.pages.is_empty())
    }

    pub(super) fn bytes(&self) -> usize {
        let pages = self.rare.iter().flat_map(|rare| &rare.pages).map(|(name, value)| name.len() + value.len());
        self.core.as_ref().map_or(0, Vec::len) + pages.sum::<usize>()
    }

    pub(super) fn set_beside(&mut self, wake_at: Option<Timestamp>, terms: SharedTerms) {
        let rare = self.rare.get_or_insert_default();
        rare.wake_at = wake_at;
        rare.terms = terms;
    }

    pub(super) fn remember(&mut self, sequence: u64, epoch: Epoch) {
        if self.keeps_chain {
            self.rare.get_or_insert_default().chain.push((sequence, epoch));
        }
    }

    /// Takes the bytes; hands a buffer back: the old record's, or the given one if it is much too large to keep.
    pub(super) fn write_core(&mut self, core: Vec<u8>) -> Option<Vec<u8>> {
        if core.capacity() - core.len() <= SLACK_BYTES_MAX {
            return self.core.replace(core);
        }
        match &mut self.core {
            Some(old) if old.capacity() >= core.len() => {
                old.clear();
                old.extend_from_slice(&core);
            }
            old => *old = Some(core.as_slice().to_vec()),
        }
        Some(core)
    }

    pub(super) fn write_pages(&mut self, pages: &mut Vec<PageWrite>) {
        if pages.is_empty() {
            return;
        }
        let rare = self.rare.get_or_insert_default();
        for PageWrite { name, value } in pages.drain(..) {
            match value {
                Some(value) => drop(rare.pages.insert(name, value)),
                None => drop(rare.pages.remove(&name)),
            }
        }
    }

    pub(super) fn read(&self, load: &Load) -> Loaded {
        let mut loaded = Loaded { core: if load.core { self.core.clone() } else { None }, pages: Vec::new() };
        let Some(rare) = &self.rare else { return loaded };
        let named = load.pages.iter().filter_map(|name| Some((name.clone(), rare.pages.get(name)?.clone())));
        loaded.pages.extend(named);
        if let Some(wanted) = &load.prefix {
            let from = wanted.after.as_ref().filter(|after| **after >= wanted.prefix);
            let range = match from {
                Some(after) => (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded),
                None => (std::ops::Bound::Included(&wanted.prefix), std::ops::Bound::Unbounded),
            };
            let run = rare.pages.range::<CompactString, _>(range);
            let run = run.take_while(|(name, _)| name.starts_with(wanted.prefix.as_str())).take(wanted.limit);
            loaded.pages.extend(run.map(|(name, value)| (name.clone(), value.clone())));
        }
        loaded.pages.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        loaded.pages.dedup_by(|(one, _), (other, _)| one == other);
        loaded
    }

    /// Gives the row as items with their sizes.
    pub(super) fn items(&self, give: &mut impl FnMut(Item, usize)) {
        let Address { kind, key } = &*self.address;
        if let Some(core) = &self.core {
            let item = Item::Core {
                kind: kind.clone(),
                key: key.clone(),
                sequence: self.sequence,
                core: core.clone(),
                wake_at: self.wake_at(),
                terms: self.terms().to_vec(),
            };
            give(item, core.len() + key.len());
        }
        for (name, value) in self.rare.iter().flat_map(|rare| &rare.pages) {
            let item = Item::Page { kind: kind.clone(), key: key.clone(), name: name.clone(), value: value.clone() };
            give(item, value.len() + name.len() + key.len());
        }
    }
}

/// The rows of a shard and the epochs in force.
pub(super) struct Rows {
    table: HashTable<Row>,
    epochs: Vec<(Slot, Epoch)>,
    bytes: usize,
    keeps_chains: bool,
    /// Commits that took effect.
    pub(super) commits: u64,
}

impl Rows {
    pub(super) fn new(keeps_chains: bool) -> Self {
        Self { table: HashTable::new(), epochs: Vec::new(), bytes: 0, keeps_chains, commits: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.table.iter().filter(|row| row.core.is_some()).count()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Row> {
        self.table.iter()
    }

    pub(super) fn epochs(&self) -> Vec<(Slot, Epoch)> {
        self.epochs.clone()
    }

    pub(super) fn epoch(&self, slot: Slot) -> Epoch {
        self.epochs.iter().find(|(of, _)| *of == slot).map_or(Epoch(0), |(_, epoch)| *epoch)
    }

    pub(super) fn set_epoch(&mut self, slot: Slot, epoch: Epoch) {
        match self.epochs.iter_mut().find(|(of, _)| *of == slot) {
            Some((_, present)) => *present = epoch,
            None => self.epochs.push((slot, epoch)),
        }
    }

    pub(super) fn find(&self, hash: u64, address: &Address) -> Option<&Row> {
        self.table.find(hash, |row| *row.address == *address)
    }

    /// The row of an address, made if it is not there.
    pub(super) fn entry(&mut self, hash: u64, address: &Arc<Address>) -> &mut Row {
        let keeps_chain = self.keeps_chains;
        match self.table.entry(hash, |row| *row.address == **address, |row| row.hash) {
            Entry::Occupied(row) => row.into_mut(),
            Entry::Vacant(vacant) => {
                let row = Row { hash, address: address.clone(), core: None, sequence: 0, rare: None, keeps_chain };
                vacant.insert(row).into_mut()
            }
        }
    }

    /// Takes a row away again that was made for a commit that wrote nothing.
    pub(super) fn remove_unwritten(&mut self, hash: u64, address: &Address) {
        if let Ok(row) = self.table.find_entry(hash, |row| *row.address == *address)
            && !row.get().is_written()
        {
            row.remove();
        }
    }

    pub(super) fn resized(&mut self, before: usize, after: usize) {
        self.bytes = self.bytes + after - before;
    }
}
