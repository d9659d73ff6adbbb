//! State: named stores of keys and values, owned by one service.
//!
//! Every key has an ETag that counts its writes, from 1, and may expire. Up to [`OPERATIONS_MAX`] writes happen in one
//! commit, all or none. Values lie in pages of their own, one a key; beside them lies an index of what expires, by time.
//!
//! Start with [`Write`] and [`Get`].

mod expire;
mod list;
mod read;
mod stores;
mod value;
mod write;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

pub use self::{
    expire::Expire,
    list::{List, Listed, Page},
    read::{Entry, Get},
    stores::{AddStore, GetStores, RemoveStore, StoreView},
    write::{Match, Op, Operation, Write, commits},
};
use super::Registry;
use crate::{
    model::{Timestamp, limits},
    twin::{Event, Rejection, part::Part},
};

/// Most keys that one request reads or writes.
pub const OPERATIONS_MAX: usize = limits::NEEDS_KEYS_MAX;
/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 384;
/// Longest name of a store, in bytes.
pub const STORE_BYTES_MAX: usize = 48;
/// Most stores of a twin.
pub const STORES_MAX: usize = 8;
/// Most bytes that one commit writes, by [`Op::bytes`].
pub const WRITE_BYTES_MAX: usize = limits::WRITE_BYTES_MAX;
/// Largest value, in bytes.
pub const VALUE_BYTES_MAX: usize = limits::PAGE_BYTES_MAX - 64;
/// The store that every service has.
pub const STORE: &str = "statestore";

/// Hands part and requests to `registry`.
pub fn register(registry: &mut impl Registry) {
    registry.part::<State>();
    registry.request::<Get>();
    registry.request::<Write>();
    registry.request::<List>();
    registry.request::<GetStores>();
    registry.request::<AddStore>();
    registry.request::<RemoveStore>();
    registry.request::<Expire>();
}

/// What the core record holds of the state: the stores and what they add up to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    stores: Vec<Store>,
    /// When what expires is looked at; never later than the first that does.
    look_at: Option<Timestamp>,
}

/// One store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Store {
    name: CompactString,
    keys: u64,
    /// Keys and values together.
    bytes: u64,
}

impl Default for State {
    fn default() -> Self {
        Self { stores: vec![Store { name: STORE.into(), keys: 0, bytes: 0 }], look_at: None }
    }
}

/// A fact about the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A key was written.
    Put {
        /// Its store.
        store: CompactString,
        /// The key.
        key: CompactString,
        /// How often it was written by now.
        etag: u64,
        /// Bytes of key and value.
        bytes: u64,
        /// Bytes of key and value before, if it was there.
        was: Option<u64>,
        /// From when on it is not there any more.
        expires_at: Option<Timestamp>,
    },
    /// A key was deleted, or expired.
    Gone {
        /// Its store.
        store: CompactString,
        /// The key.
        key: CompactString,
        /// Bytes of key and value before.
        was: u64,
        /// Whether it expired.
        expired: bool,
    },
    /// What expires is looked at again.
    Look {
        /// When; not at all if nothing expires.
        at: Option<Timestamp>,
    },
    /// A store was added.
    StoreAdded {
        /// Its name.
        store: CompactString,
    },
    /// A store was removed; it was empty.
    StoreRemoved {
        /// Its name.
        store: CompactString,
    },
}

impl Part for State {
    const NAME: &'static str = "state";
    const SCHEMA: u16 = 1;
    type Change = Change;

    fn apply(&mut self, change: &Change, _: Timestamp) {
        match change {
            Change::Put { store, bytes, was, expires_at, .. } => {
                if let Some(at) = expires_at {
                    self.look_at = Some(self.look_at.map_or(*at, |look_at| look_at.min(*at)));
                }
                if let Some(store) = self.store_mut(store) {
                    store.keys += u64::from(was.is_none());
                    store.bytes = (store.bytes + bytes).saturating_sub(was.unwrap_or(0));
                }
            }
            Change::Gone { store, was, .. } => {
                if let Some(store) = self.store_mut(store) {
                    store.keys = store.keys.saturating_sub(1);
                    store.bytes = store.bytes.saturating_sub(*was);
                }
            }
            Change::Look { at } => self.look_at = *at,
            Change::StoreAdded { store } => self.stores.push(Store { name: store.clone(), keys: 0, bytes: 0 }),
            Change::StoreRemoved { store } => self.stores.retain(|known| known.name != *store),
        }
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.look_at
    }

    fn wake(&self, turn: &crate::twin::part::PartTurn<'_>) -> crate::twin::part::Ruling<Change, ()> {
        expire::wake(turn)
    }

    fn event(&self, change: &Change) -> Option<Event> {
        let (name, data) = match change {
            Change::Put { store, key, etag, expires_at, .. } => (
                "twin.state.changed",
                serde_json::json!({ "store": store, "key": key, "etag": etag, "expires_at": expires_at }),
            ),
            Change::Gone { store, key, expired, .. } => {
                ("twin.state.deleted", serde_json::json!({ "store": store, "key": key, "expired": expired }))
            }
            Change::StoreAdded { store } => ("twin.state.store.added", serde_json::json!({ "store": store })),
            Change::StoreRemoved { store } => ("twin.state.store.removed", serde_json::json!({ "store": store })),
            Change::Look { .. } => return None,
        };
        Some(Event { name: name.into(), data: data.to_string().into_bytes().into() })
    }

    fn heap_bytes(&self) -> usize {
        self.stores.capacity() * size_of::<Store>()
    }
}

impl State {
    fn store(&self, name: &str) -> Result<&Store, Rejection> {
        let store = self.stores.iter().find(|store| store.name == name);
        store.ok_or_else(|| {
            let known: Vec<_> = self.stores.iter().map(|store| store.name.as_str()).collect();
            Rejection::not_found(format!("state store '{}' (there are: {})", cut(name), known.join(", ")))
        })
    }

    fn store_mut(&mut self, name: &str) -> Option<&mut Store> {
        self.stores.iter_mut().find(|store| store.name == name)
    }

    fn keys(&self) -> u64 {
        self.stores.iter().map(|store| store.keys).sum()
    }

    fn bytes(&self) -> u64 {
        self.stores.iter().map(|store| store.bytes).sum()
    }
}

/// A name as grants know it: `store/key`.
fn scoped(store: &str, key: &str) -> CompactString {
    compact_str::format_compact!("{store}/{key}")
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}
