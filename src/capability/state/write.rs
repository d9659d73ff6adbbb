//! Writing values: one key or several, all or none.

use std::time::Duration;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{
    Change, KEY_BYTES_MAX, OPERATIONS_MAX, State, VALUE_BYTES_MAX, WRITE_BYTES_MAX, scoped,
    value::{Value, expiry_page, page},
};
use crate::capability::check_text;
use crate::twin::{
    Needs, Rejection,
    part::{Bytes, PartTurn, Request, Ruling},
    service::Settings,
    to_bytes,
};

/// Bytes of a page's name beside store and key, at most.
const NAME_BYTES: usize = 32;
/// Bytes of a value's page beside the value, and of its expiry's.
const FORM_BYTES: usize = 96;

/// What must hold of a key for an operation to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// Nothing: the last write wins.
    #[default]
    Any,
    /// It has this ETag.
    Etag(u64),
    /// It is not there.
    Absent,
}

/// What happens to a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// It is written.
    Set {
        /// The value; at most [`VALUE_BYTES_MAX`].
        value: Bytes,
        /// How long it is there, in seconds; for ever if `None`.
        ttl_s: Option<u64>,
    },
    /// It is deleted; one that is not there stays so.
    Delete,
}

/// One operation on one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Op {
    /// The key.
    pub key: CompactString,
    /// What must hold.
    #[serde(default)]
    pub matching: Match,
    /// What happens.
    pub operation: Operation,
}

impl Op {
    /// Bytes that this may write, at most: the value, and the names of three pages.
    pub fn bytes(&self, store: &str) -> usize {
        let value = match &self.operation {
            Operation::Set { value, .. } => value.0.len(),
            Operation::Delete => 0,
        };
        value + FORM_BYTES + 3 * (NAME_BYTES + store.len() + self.key.len())
    }
}

/// Cuts operations into such as fit one commit each, in their order; an operation that fits none stands alone.
pub fn commits(store: &str, operations: Vec<Op>) -> Vec<Vec<Op>> {
    let mut commits: Vec<Vec<Op>> = Vec::new();
    let mut bytes = 0;
    for op in operations {
        let more = op.bytes(store);
        match commits.last_mut() {
            Some(last) if last.len() < OPERATIONS_MAX && bytes + more <= WRITE_BYTES_MAX => {
                bytes += more;
                last.push(op);
            }
            Some(_) | None => {
                bytes = more;
                commits.push(vec![op]);
            }
        }
    }
    commits
}

/// Does at most [`OPERATIONS_MAX`] operations in order, all or none; answers with the ETags they made, `None` for a
/// deletion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Write {
    /// The store.
    pub store: CompactString,
    /// The operations.
    pub operations: Vec<Op>,
}

impl Request for Write {
    type Part = State;
    type Reply = Vec<Option<u64>>;
    const OPERATION: &'static str = "set";
    const NAME: &'static str = "state-write/1";
    const CREATES: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        for op in &self.operations {
            let operation = match op.operation {
                Operation::Set { .. } => "set",
                Operation::Delete => "delete",
            };
            each(&scoped(&self.store, &op.key), operation);
        }
    }

    fn needs(&self) -> Needs {
        let mut names: Vec<_> = self.operations.iter().map(|op| page(&self.store, &op.key)).collect();
        names.sort_unstable();
        names.dedup();
        Needs::Pages(names)
    }

    fn heap_bytes(&self) -> usize {
        let bytes = |op: &Op| match &op.operation {
            Operation::Set { value, .. } => value.0.len(),
            Operation::Delete => 0,
        };
        self.operations.iter().map(|op| size_of_val(op) + op.key.len() + bytes(op)).sum()
    }

    fn decide(&self, state: &State, turn: &PartTurn<'_>) -> Result<Ruling<Change, Self::Reply>, Rejection> {
        state.store(&self.store)?;
        Rejection::within("state operations", OPERATIONS_MAX, self.operations.len())?;
        let mut after = After { store: &self.store, turn, keys: Vec::new(), ruling: Ruling::new(Vec::new()) };
        for op in &self.operations {
            check_text("a key", &op.key, KEY_BYTES_MAX)?;
            after.operate(op)?;
        }
        after.check_quota(state)?;
        Ok(after.ruling)
    }
}

/// The keys as the operations so far leave them.
struct After<'a> {
    store: &'a CompactString,
    turn: &'a PartTurn<'a>,
    keys: Vec<(&'a CompactString, Option<Value>)>,
    ruling: Ruling<Change, Vec<Option<u64>>>,
}

impl<'a> After<'a> {
    fn operate(&mut self, op: &'a Op) -> Result<(), Rejection> {
        let before = self.before(&op.key)?;
        // An expired value still takes room until it is swept.
        let there = before.as_ref().filter(|value| value.is_there(self.turn.now));
        let found = there.map_or(0, |value| value.etag);
        match op.matching {
            Match::Any => {}
            Match::Etag(expected) if expected == found => {}
            Match::Etag(expected) => return Err(Rejection::Precondition { expected, found }),
            Match::Absent if there.is_none() => {}
            Match::Absent => return Err(Rejection::Precondition { expected: 0, found }),
        }
        let was = before.as_ref().map(|value| size(&op.key, value));
        if let Some(at) = before.as_ref().and_then(|value| value.expires_at) {
            self.page(expiry_page(at, self.store, &op.key), None);
        }
        let after = match &op.operation {
            Operation::Delete => {
                if let Some(was) = was {
                    self.page(page(self.store, &op.key), None);
                    let (store, key) = (self.store.clone(), op.key.clone());
                    self.ruling.changes.push(Change::Gone { store, key, was, expired: there.is_none() });
                }
                None
            }
            Operation::Set { value, ttl_s } => Some(self.set(op, value, *ttl_s, found + 1, was)?),
        };
        self.ruling.reply.push(after.as_ref().map(|value| value.etag));
        self.keys.retain(|(key, _)| **key != op.key);
        self.keys.push((&op.key, after));
        Ok(())
    }

    fn set(
        &mut self,
        op: &Op,
        value: &Bytes,
        ttl_s: Option<u64>,
        etag: u64,
        was: Option<u64>,
    ) -> Result<Value, Rejection> {
        Rejection::within("state value bytes", VALUE_BYTES_MAX, value.0.len())?;
        let expires_at = ttl_s.map(|seconds| self.turn.now.after(Duration::from_secs(seconds)));
        let value = Value::new(etag, expires_at, value.clone());
        let bytes = size(&op.key, &value);
        self.page(page(self.store, &op.key), Some(value.encode()));
        if let Some(at) = expires_at {
            self.page(expiry_page(at, self.store, &op.key), Some(to_bytes(&bytes)));
        }
        let (store, key) = (self.store.clone(), op.key.clone());
        self.ruling.changes.push(Change::Put { store, key, etag, bytes, was, expires_at });
        Ok(value)
    }

    fn before(&self, key: &str) -> Result<Option<Value>, Rejection> {
        match self.keys.iter().find(|(known, _)| *known == key) {
            Some((_, value)) => Ok(value.clone()),
            None => Value::read(self.turn, self.store, key),
        }
    }

    /// The last write of a page counts.
    fn page(&mut self, name: String, value: Option<Vec<u8>>) {
        self.ruling.pages.retain(|page| page.name != name);
        self.ruling.pages.push(crate::twin::PageWrite { name: name.into(), value });
    }

    /// Refuses to grow beyond what a twin may keep; shrinking is always possible.
    fn check_quota(&self, state: &State) -> Result<(), Rejection> {
        let (mut keys, mut bytes) = (i128::from(state.keys()), i128::from(state.bytes()));
        let (keys_before, bytes_before) = (keys, bytes);
        for change in &self.ruling.changes {
            match change {
                Change::Put { bytes: now, was, .. } => {
                    keys += i128::from(was.is_none());
                    bytes += i128::from(*now) - i128::from(was.unwrap_or(0));
                }
                Change::Gone { was, .. } => {
                    keys -= 1;
                    bytes -= i128::from(*was);
                }
                Change::Look { .. } | Change::StoreAdded { .. } | Change::StoreRemoved { .. } => {}
            }
        }
        let Settings { state_keys_max, state_bytes_max, .. } = Settings::chosen();
        let wide = |number: i128| u64::try_from(number).unwrap_or(0);
        if keys > keys_before && wide(keys) > *state_keys_max {
            let limit = "service.state_keys_max".into();
            return Err(Rejection::Limit { limit, max: *state_keys_max, actual: wide(keys) });
        }
        if bytes > bytes_before && wide(bytes) > *state_bytes_max {
            let limit = "service.state_bytes_max".into();
            return Err(Rejection::Limit { limit, max: *state_bytes_max, actual: wide(bytes) });
        }
        Ok(())
    }
}

/// What a key and its value count.
fn size(key: &str, value: &Value) -> u64 {
    u64::try_from(key.len() + value.value.0.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        capability::state::{STORE, Store},
        model::{Header, Key, Timestamp},
        twin::{Pages, Turn, part::Around},
    };

    struct Alone;

    impl Around for Alone {
        fn instances_up(&self) -> Vec<&str> {
            Vec::new()
        }
    }

    fn write(
        state: &State,
        pages: &Pages,
        operation: Operation,
    ) -> Result<Ruling<Change, Vec<Option<u64>>>, Rejection> {
        let (key, header) = (Key::parse("shop/orders").unwrap(), Header::default());
        let turn = Turn::new(Timestamp::from_unix_ms(1_000), &key, 0, &header).with_pages(pages);
        let op = Op { key: "k".into(), matching: Match::Any, operation };
        Write { store: STORE.into(), operations: vec![op] }.decide(state, &PartTurn::new(&turn, "state", &Alone))
    }

    #[test]
    fn a_twin_that_keeps_as_much_as_it_may_takes_nothing_more_and_lets_go() {
        let Settings { state_keys_max: keys, state_bytes_max: bytes, .. } = *Settings::chosen();
        let set = |length| Operation::Set { value: Bytes(vec![0; length]), ttl_s: None };
        let full = State { stores: vec![Store { name: STORE.into(), keys, bytes: 10 }], look_at: None };
        assert!(matches!(write(&full, &Pages::new(), set(1)), Err(Rejection::Limit { .. })));
        let held = Value::new(1, None, Bytes(vec![0; 5])).encode();
        let pages = Pages::from([("state/k/statestore/k".to_owned(), held)]);
        assert!(write(&full, &pages, set(1)).is_ok(), "a key that is there is no further one");
        let heavy = State { stores: vec![Store { name: STORE.into(), keys: 1, bytes }], look_at: None };
        assert!(matches!(write(&heavy, &pages, set(6)), Err(Rejection::Limit { .. })));
        assert!(write(&heavy, &pages, set(5)).is_ok(), "no more than before");
        assert!(write(&heavy, &pages, Operation::Delete).is_ok());
    }

    #[test]
    fn operations_are_cut_into_commits_that_hold_them_whatever_they_write() {
        let (store, key) = ("s".repeat(48), |number: usize| format!("{number:0>384}"));
        let set = |number, length| {
            let operation = Operation::Set { value: Bytes(vec![0; length]), ttl_s: Some(1) };
            Op { key: key(number).into(), matching: Match::Any, operation }
        };
        let lengths: Vec<_> = (0..40).map(|number| (number * 7919) % (VALUE_BYTES_MAX + 1)).collect();
        let operations: Vec<_> = lengths.iter().enumerate().map(|(number, length)| set(number, *length)).collect();
        let cut = commits(&store, operations.clone());
        assert_eq!(cut.concat(), operations, "all of them, in their order");
        let expired = Value::new(1, Some(Timestamp::ZERO), Bytes(Vec::new())).encode();
        let pages: Pages =
            (0..40).map(|number| (format!("state/{}", page(&store, &key(number))), expired.clone())).collect();
        let state =
            State { stores: vec![Store { name: store.as_str().into(), keys: 40, bytes: 40 * 384 }], look_at: None };
        for operations in cut {
            let (twin, header) = (Key::parse("shop/orders").unwrap(), Header::default());
            let turn = Turn::new(Timestamp::from_unix_ms(1_000), &twin, 0, &header).with_pages(&pages);
            let write = Write { store: store.as_str().into(), operations };
            let ruling = write.decide(&state, &PartTurn::new(&turn, "state", &Alone)).unwrap();
            let size = |page: &crate::twin::PageWrite| {
                "state/".len() + page.name.len() + page.value.as_ref().map_or(0, Vec::len)
            };
            assert!(ruling.pages.iter().map(size).sum::<usize>() <= WRITE_BYTES_MAX);
        }
    }

    #[test]
    fn a_value_that_is_too_large_is_refused_with_the_bound() {
        let large = Operation::Set { value: Bytes(vec![0; VALUE_BYTES_MAX + 1]), ttl_s: None };
        assert!(matches!(write(&State::default(), &Pages::new(), large), Err(Rejection::Limit { .. })));
        let largest = Operation::Set { value: Bytes(vec![0; VALUE_BYTES_MAX]), ttl_s: Some(1) };
        let ruling = write(&State::default(), &Pages::new(), largest).unwrap();
        let page = ruling.pages.iter().find_map(|page| page.value.as_ref()).unwrap();
        assert!(page.len() <= crate::model::limits::PAGE_BYTES_MAX);
    }
}
