//! The stores themselves.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{Change, STORE_BYTES_MAX, STORES_MAX, State};
use crate::twin::{
    Rejection,
    part::{PartTurn, Request, Ruling},
};

/// One store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreView {
    /// Its name.
    pub store: CompactString,
    /// Keys in it.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

/// Lists the stores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetStores;

/// Adds a store; one that is there stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddStore {
    /// Its name.
    pub store: CompactString,
}

/// Removes an empty store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveStore {
    /// Its name.
    pub store: CompactString,
}

impl Request for GetStores {
    type Part = State;
    type Reply = Vec<StoreView>;
    const OPERATION: &'static str = "list";
    const NAME: &'static str = "state-stores/1";
    const CREATES: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each("", "list");
    }

    fn decide(&self, state: &State, _: &PartTurn<'_>) -> Result<Ruling<Change, Self::Reply>, Rejection> {
        let view = |store: &super::Store| StoreView { store: store.name.clone(), keys: store.keys, bytes: store.bytes };
        Ok(Ruling::new(state.stores.iter().map(view).collect()))
    }
}

impl Request for AddStore {
    type Part = State;
    type Reply = ();
    const OPERATION: &'static str = "add-store";
    const NAME: &'static str = "state-add-store/1";
    const CREATES: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each(&self.store, "add-store");
    }

    fn decide(&self, state: &State, _: &PartTurn<'_>) -> Result<Ruling<Change, ()>, Rejection> {
        let name = &self.store;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > STORE_BYTES_MAX || !name.bytes().all(is_name) {
            return Err(Rejection::invalid(format!(
                "the name of a store has 1 to {STORE_BYTES_MAX} letters, digits, '-', '_' or '.'"
            )));
        }
        if state.stores.iter().any(|store| store.name == *name) {
            return Ok(Ruling::new(()));
        }
        Rejection::within("state stores", STORES_MAX, state.stores.len() + 1)?;
        Ok(Ruling::new(()).change(Change::StoreAdded { store: name.clone() }))
    }
}

impl Request for RemoveStore {
    type Part = State;
    type Reply = ();
    const OPERATION: &'static str = "remove-store";
    const NAME: &'static str = "state-remove-store/1";

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each(&self.store, "remove-store");
    }

    fn decide(&self, state: &State, _: &PartTurn<'_>) -> Result<Ruling<Change, ()>, Rejection> {
        let store = state.store(&self.store)?;
        if store.keys > 0 {
            return Err(Rejection::conflict(format!(
                "store '{}' has {} keys; delete them first",
                store.name, store.keys
            )));
        }
        Ok(Ruling::new(()).change(Change::StoreRemoved { store: store.name.clone() }))
    }
}
