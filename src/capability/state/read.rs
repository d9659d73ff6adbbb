//! Reading values.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{
    Change, State, scoped,
    value::{Value, page},
};
use crate::{
    model::Timestamp,
    twin::{
        Needs, Rejection,
        part::{Bytes, PartTurn, Request, Ruling},
    },
};

/// Reads some keys of a store; at most [`super::OPERATIONS_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Get {
    /// The store.
    pub store: CompactString,
    /// The keys.
    pub keys: Vec<CompactString>,
}

/// A key's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// How often the key was written by now.
    pub etag: u64,
    /// From when on it is not there any more.
    pub expires_at: Option<Timestamp>,
}

impl Request for Get {
    type Part = State;
    type Reply = Vec<Option<Entry>>;
    const OPERATION: &'static str = "get";
    const NAME: &'static str = "state-get/1";
    const CREATES: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        for key in &self.keys {
            each(&scoped(&self.store, key), "get");
        }
    }

    fn needs(&self) -> Needs {
        Needs::Pages(self.keys.iter().map(|key| page(&self.store, key)).collect())
    }

    fn heap_bytes(&self) -> usize {
        self.keys.iter().map(|key| size_of_val(key) + key.len()).sum()
    }

    fn decide(&self, state: &State, turn: &PartTurn<'_>) -> Result<Ruling<Change, Self::Reply>, Rejection> {
        state.store(&self.store)?;
        let read = |key: &CompactString| -> Result<Option<Entry>, Rejection> {
            let value = Value::read(turn, &self.store, key)?.filter(|value| value.is_there(turn.now));
            Ok(value.map(|Value { value, etag, expires_at, .. }| Entry { value, etag, expires_at }))
        };
        Ok(Ruling::new(self.keys.iter().map(read).collect::<Result<_, _>>()?))
    }
}
