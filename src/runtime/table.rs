//! A shard's activations: a slab found by key, without an allocation per twin.

use hashbrown::HashTable;

use super::activation::Activation;
use crate::{model::Key, store::Slot, twin::Twin};

const CHUNK: usize = 128;

/// Activations in chunks of 128, with a table of (32 bits of hash, index) over them.
pub(super) struct Table<K: Twin> {
    index: HashTable<(u32, u32)>,
    chunks: Vec<Vec<Option<Activation<K>>>>,
    free: Vec<u32>,
    len: u32,
    removals: u64,
    /// Who is in each slot; empty where all ids are in one.
    slots: Vec<Vec<u32>>,
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "indices stay below 2^32: `insert` refuses more; u32 to usize widens; 32 bits of the hash are wanted"
)]
impl<K: Twin> Table<K> {
    /// With `slotted`, it knows who is in each slot, which costs 4 bytes a twin.
    pub(super) fn new(slotted: bool) -> Self {
        let slots = if slotted { vec![Vec::new(); usize::from(Slot::COUNT)] } else { Vec::new() };
        Self { index: HashTable::new(), chunks: Vec::new(), free: Vec::new(), len: 0, removals: 0, slots }
    }

    /// The activations of a slot, by index.
    pub(super) fn of_slot(&self, slot: Slot) -> Vec<u32> {
        self.slots.get(usize::from(slot.0)).cloned().unwrap_or_default()
    }

    /// Activations present.
    pub(super) fn len(&self) -> usize {
        self.len as usize - self.free.len()
    }

    /// How many activations ended: none did between two looks that see the same.
    pub(super) fn removals(&self) -> u64 {
        self.removals
    }

    /// One past the highest index ever used.
    pub(super) fn end(&self) -> u32 {
        self.len
    }

    pub(super) fn find(&self, hash: u64, key: &str) -> Option<u32> {
        let hash = hash as u32;
        self.index
            .find(spread(hash), |(found, at)| *found == hash && self.get(*at).is_some_and(|twin| &*twin.key == key))
            .map(|(_, at)| *at)
    }

    pub(super) fn get(&self, at: u32) -> Option<&Activation<K>> {
        self.chunks.get(at as usize / CHUNK)?.get(at as usize % CHUNK)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut Activation<K>> {
        self.chunks.get_mut(at as usize / CHUNK)?.get_mut(at as usize % CHUNK)?.as_mut()
    }

    /// Adds an activation that is not there yet.
    pub(super) fn insert(&mut self, hash: u64, twin: Activation<K>) -> u32 {
        let at = if let Some(at) = self.free.pop() {
            self.chunks[at as usize / CHUNK][at as usize % CHUNK] = Some(twin);
            at
        } else {
            let at = self.len;
            self.len = at.checked_add(1).expect("a shard holds fewer than 2^32 twins: memory ends long before");
            if (at as usize).is_multiple_of(CHUNK) {
                self.chunks.push(Vec::with_capacity(CHUNK));
            }
            self.chunks[at as usize / CHUNK].push(Some(twin));
            at
        };
        self.index.insert_unique(spread(hash as u32), (hash as u32, at), |(hash, _)| spread(*hash));
        if let Some(slot) = self.slots.get_mut(usize::from(Slot::of(hash).0)) {
            slot.push(at);
        }
        at
    }

    pub(super) fn remove(&mut self, at: u32) -> Option<Activation<K>> {
        let twin = self.chunks.get_mut(at as usize / CHUNK)?.get_mut(at as usize % CHUNK)?.take()?;
        if let Ok(entry) = self.index.find_entry(spread(twin.hash), |(_, found)| *found == at) {
            entry.remove();
        }
        if !self.slots.is_empty() {
            let slot = &mut self.slots[usize::from(Slot::of(Key::hash_of(&twin.key)).0)];
            slot.iter().position(|listed| *listed == at).map(|place| slot.swap_remove(place));
        }
        self.free.push(at);
        self.removals += 1;
        Some(twin)
    }
}

/// The table takes its tag from the top bits, which 32 bits of hash do not have.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
