//! How a key's value and its expiry lie in pages.

use serde::{Deserialize, Serialize};

use crate::{
    model::Timestamp,
    twin::{
        Rejection, from_bytes,
        part::{Bytes, PartTurn},
        to_bytes,
    },
};

/// Number of the present form of a value's page, its first byte.
const FORMAT: u8 = 1;

/// A value as its page holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Value {
    pub(super) format: u8,
    pub(super) etag: u64,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) value: Bytes,
}

impl Value {
    pub(super) fn new(etag: u64, expires_at: Option<Timestamp>, value: Bytes) -> Self {
        Self { format: FORMAT, etag, expires_at, value }
    }

    /// The value of a key that has not expired.
    pub(super) fn read(turn: &PartTurn<'_>, store: &str, key: &str) -> Result<Option<Self>, Rejection> {
        let Some(bytes) = turn.page(&page(store, key)) else { return Ok(None) };
        Self::decode(bytes).map(Some)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Rejection> {
        let value: Self = from_bytes(bytes).map_err(|error| {
            Rejection::conflict(format!("the value cannot be read ({error}); write it anew or delete it"))
        })?;
        if value.format == FORMAT {
            Ok(value)
        } else {
            Err(Rejection::conflict("the value was written by a later version of this program; use that one"))
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        to_bytes(self)
    }

    pub(super) fn is_there(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|until| now < until)
    }
}

/// The page of a key's value.
pub(super) fn page(store: &str, key: &str) -> String {
    format!("k/{store}/{key}")
}

/// The pages of what expires begin so.
pub(super) const EXPIRES: &str = "t/";

/// The page that says when a key expires; these sort by time.
pub(super) fn expiry_page(at: Timestamp, store: &str, key: &str) -> String {
    format!("{EXPIRES}{:016x}/{store}/{key}", at.unix_ms())
}

/// Time, store and key of such a page.
pub(super) fn parse_expiry(name: &str) -> Option<(Timestamp, &str, &str)> {
    let (time, rest) = name.strip_prefix(EXPIRES)?.split_once('/')?;
    let (store, key) = rest.split_once('/')?;
    Some((Timestamp::from_unix_ms(u64::from_str_radix(time, 16).ok()?), store, key))
}
