//! State as Dapr's clients ask for it.

use std::collections::HashMap;

use compact_str::CompactString;

use super::{Block, KEYS_MAX, Refusal, Session, refusal::Detail};
use crate::{
    capability::state::{Entry, Get, Match, OPERATIONS_MAX, Op, Operation, Write, commits},
    model::Timestamp,
    twin::part::Bytes,
};

/// Metadata of a request or an answer.
pub type Metadata = HashMap<String, String>;

/// Says how long a value is there, in seconds.
const TTL: &str = "ttlInSeconds";
/// Says when a value that was read is gone.
const EXPIRE_TIME: &str = "ttlExpireTime";
/// What stands between an app's id and a key in Dapr's stores; no key has it.
const SEPARATOR: &str = "||";

/// Most bytes of values that one answer holds: what clients of gRPC take if nobody tells them otherwise.
pub const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How a write treats one it does not know of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concurrency {
    /// Nothing is said.
    #[default]
    Unspecified,
    /// The first write wins: an ETag is checked, and without one the key must not be there.
    FirstWrite,
    /// The last write wins, whatever ETag is given.
    LastWrite,
}

/// One key to be written or deleted, as any of the SDKs says it.
#[derive(Clone, Debug, Default)]
pub struct Item {
    /// The key.
    pub key: String,
    /// The value; of no meaning for a deletion.
    pub value: Vec<u8>,
    /// The ETag it shall have.
    pub etag: Option<String>,
    /// Its metadata.
    pub metadata: Metadata,
    /// How it treats other writes.
    pub concurrency: Concurrency,
}

fn check_key(store: &str, key: &str) -> Result<CompactString, Refusal> {
    if !key.contains(SEPARATOR) {
        return Ok(key.into());
    }
    let message = format!("input key/keyPrefix '{key}' can't contain '{SEPARATOR}'");
    let details = vec![
        Detail::Error { reason: "DAPR_STATE_ILLEGAL_KEY" },
        Detail::Resource { kind: "state", name: store.to_owned() },
        Detail::Field { field: key.to_owned(), description: message.clone() },
    ];
    Err(Refusal { details, ..Refusal::malformed(message) })
}

fn matching(item: &Item, block: Block) -> Result<Match, Refusal> {
    let etag = item.etag.as_deref().filter(|etag| !etag.is_empty());
    match (item.concurrency, etag) {
        (Concurrency::LastWrite, _) | (Concurrency::Unspecified, None) => Ok(Match::Any),
        (Concurrency::FirstWrite, None) if block == Block::StateDelete => Ok(Match::Any),
        (Concurrency::FirstWrite, None) => Ok(Match::Absent),
        (Concurrency::FirstWrite | Concurrency::Unspecified, Some(etag)) => {
            let number = etag.trim_matches('"').parse();
            let invalid = |_| Refusal::malformed(format!("invalid etag value: '{etag}' is no number"));
            number.map(Match::Etag).map_err(invalid)
        }
    }
}

pub(super) fn ttl_s(metadata: &Metadata) -> Result<Option<u64>, Refusal> {
    let Some(text) = metadata.get(TTL).filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(seconds) if seconds > 0 => Ok(u64::try_from(seconds).ok()),
        Ok(_) | Err(_) => Err(Refusal::malformed(format!(
            "{TTL} is '{text}'; it must be a positive number of seconds, or -1 for ever"
        ))),
    }
}

fn set(store: &str, item: Item) -> Result<Op, Refusal> {
    let (matching, ttl_s) = (matching(&item, Block::StateSave)?, ttl_s(&item.metadata)?);
    let operation = Operation::Set { value: Bytes(item.value), ttl_s };
    Ok(Op { key: check_key(store, &item.key)?, matching, operation })
}

fn delete(store: &str, item: &Item) -> Result<Op, Refusal> {
    let matching = matching(item, Block::StateDelete)?;
    Ok(Op { key: check_key(store, &item.key)?, matching, operation: Operation::Delete })
}

/// Metadata that goes with a value that was read.
pub fn about(entry: &Entry) -> Metadata {
    let expires_at = entry.expires_at.map(|at: Timestamp| (EXPIRE_TIME.to_owned(), at.to_string()));
    expires_at.into_iter().collect()
}

impl Session {
    /// Reads some keys, in the order given.
    pub async fn state_get(&self, store: &str, keys: &[String]) -> Result<Vec<Option<Entry>>, Refusal> {
        self.within(Block::StateGet, store, "keys of a request", KEYS_MAX, keys.len())?;
        let (mut entries, mut bytes) = (Vec::with_capacity(keys.len()), 0);
        for keys in keys.chunks(OPERATIONS_MAX) {
            let keys = keys.iter().map(|key| check_key(store, key)).collect::<Result<_, _>>()?;
            let found = self.ask_for(Block::StateGet, store, Get { store: store.into(), keys }).await?;
            bytes += found.iter().flatten().map(|entry| entry.value.0.len()).sum::<usize>();
            self.within(Block::StateGet, store, "bytes of an answer", ANSWER_BYTES_MAX, bytes)?;
            entries.extend(found);
        }
        Ok(entries)
    }

    /// Saves some keys. More than a commit holds are written one commit after the other.
    pub async fn state_save(&self, store: &str, items: Vec<Item>) -> Result<(), Refusal> {
        let operations = items.into_iter().map(|item| set(store, item)).collect::<Result<Vec<_>, _>>()?;
        self.state_write(Block::StateSave, store, operations).await
    }

    /// Deletes some keys, likewise.
    pub async fn state_delete(&self, store: &str, items: Vec<Item>) -> Result<(), Refusal> {
        let operations = items.iter().map(|item| delete(store, item)).collect::<Result<Vec<_>, _>>()?;
        self.state_write(Block::StateDelete, store, operations).await
    }

    async fn state_write(&self, block: Block, store: &str, operations: Vec<Op>) -> Result<(), Refusal> {
        for operations in commits(store, operations) {
            self.ask_for(block, store, Write { store: store.into(), operations }).await?;
        }
        Ok(())
    }

    /// Does all operations, or none.
    pub async fn state_transact(&self, store: &str, operations: Vec<(String, Item)>) -> Result<(), Refusal> {
        let translate = |(operation, item): (String, Item)| match operation.as_str() {
            "upsert" => set(store, item),
            "delete" => delete(store, &item),
            other => Err(Refusal::malformed(format!("operation '{other}' is not supported: use 'upsert' or 'delete'"))),
        };
        let operations = operations.into_iter().map(translate).collect::<Result<Vec<_>, _>>()?;
        self.ask_for(Block::StateTransaction, store, Write { store: store.into(), operations }).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(etag: Option<&str>, concurrency: Concurrency) -> Item {
        Item { key: "k".into(), etag: etag.map(Into::into), concurrency, ..Item::default() }
    }

    #[test]
    fn the_first_write_wins_only_where_it_is_asked_for() {
        let save = |etag, concurrency| matching(&item(etag, concurrency), Block::StateSave);
        assert_eq!(save(None, Concurrency::Unspecified), Ok(Match::Any));
        assert_eq!(save(Some("7"), Concurrency::Unspecified), Ok(Match::Etag(7)));
        assert_eq!(save(Some("7"), Concurrency::LastWrite), Ok(Match::Any));
        assert_eq!(save(None, Concurrency::FirstWrite), Ok(Match::Absent));
        assert_eq!(save(Some(""), Concurrency::FirstWrite), Ok(Match::Absent));
        assert_eq!(matching(&item(None, Concurrency::FirstWrite), Block::StateDelete), Ok(Match::Any));
        assert!(save(Some("x"), Concurrency::Unspecified).is_err());
    }

    #[test]
    fn a_time_to_live_is_a_positive_number_of_seconds_or_minus_one() {
        let ttl = |text: &str| ttl_s(&Metadata::from([(TTL.to_owned(), text.to_owned())]));
        assert_eq!(ttl("5"), Ok(Some(5)));
        assert_eq!(ttl("-1"), Ok(None));
        assert_eq!(ttl(""), Ok(None));
        for bad in ["0", "-2", "soon", "1.5"] {
            assert!(ttl(bad).is_err(), "{bad}");
        }
    }
}
