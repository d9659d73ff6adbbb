//! Listing keys.

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
        part::{PartTurn, Request, Ruling},
    },
};

/// Most keys in one page; their values are read with them.
const PAGE_MAX: u16 = 100;

/// Lists keys of a store that start so, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The store.
    pub store: CompactString,
    /// What the keys start with; anything if empty.
    #[serde(default)]
    pub prefix: CompactString,
    /// Only keys greater than this.
    pub after: Option<CompactString>,
    /// Most keys to answer; at most 100.
    #[serde(default = "page_max")]
    pub limit: u16,
}

const fn page_max() -> u16 {
    PAGE_MAX
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The key.
    pub key: CompactString,
    /// How often it was written by now.
    pub etag: u64,
    /// From when on it is not there any more.
    pub expires_at: Option<Timestamp>,
    /// Bytes of the value.
    pub bytes: u64,
}

/// Some keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The keys.
    pub keys: Vec<Listed>,
    /// `after` of the next page; `None` on the last one.
    pub next: Option<CompactString>,
}

impl List {
    fn limit(&self) -> usize {
        usize::from(self.limit.clamp(1, PAGE_MAX))
    }
}

impl Request for List {
    type Part = State;
    type Reply = Page;
    const OPERATION: &'static str = "list";
    const NAME: &'static str = "state-list/1";
    const CREATES: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each(&scoped(&self.store, &self.prefix), "list");
    }

    fn needs(&self) -> Needs {
        Needs::Prefix {
            prefix: page(&self.store, &self.prefix),
            after: self.after.as_ref().map(|after| page(&self.store, after)),
            limit: self.limit() + 1,
        }
    }

    fn heap_bytes(&self) -> usize {
        self.prefix.len() + self.after.as_ref().map_or(0, CompactString::len)
    }

    fn decide(&self, state: &State, turn: &PartTurn<'_>) -> Result<Ruling<Change, Page>, Rejection> {
        state.store(&self.store)?;
        let folder = page(&self.store, "");
        let found = turn.prefix(&page(&self.store, &self.prefix));
        let key = |name: &str| CompactString::from(name.strip_prefix(&folder).unwrap_or(name));
        let next =
            (found.len() > self.limit()).then(|| found.get(self.limit() - 1)).flatten().map(|(name, _)| key(name));
        let mut keys = Vec::with_capacity(found.len());
        for (name, bytes) in found.into_iter().take(self.limit()) {
            let value = Value::decode(bytes)?;
            if value.is_there(turn.now) {
                let bytes = u64::try_from(value.value.0.len()).unwrap_or(u64::MAX);
                keys.push(Listed { key: key(name), etag: value.etag, expires_at: value.expires_at, bytes });
            }
        }
        Ok(Ruling::new(Page { keys, next }))
    }
}
