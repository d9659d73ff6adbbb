//! API keys, one durable twin each: what a key covers and whether it was revoked.
//!
//! The twin's key is the API key's public id. Of the secret only its SHA-256 is kept, made at the door. One twin a key
//! rather than one list: a fleet has as many keys as services, which no single record holds.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Changes, Decide, Decision, Durable, Message, Rejection, Snapshot, Terms, Turn, Twin, Wire};
use crate::model::{Lane, ServiceId, Timestamp};

/// Longest label of a key, in bytes.
pub const LABEL_BYTES_MAX: usize = 128;

/// What a key may do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Covers {
    /// Everything.
    Operator,
    /// Telemetry for the services of one namespace.
    Ingest {
        /// The namespace.
        namespace: Arc<str>,
    },
    /// One service, as itself.
    Service {
        /// The service.
        service: ServiceId,
    },
}

impl Covers {
    /// The kind of key, as it is written.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Ingest { .. } => "ingest",
            Self::Service { .. } => "service",
        }
    }
}

/// One API key as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// SHA-256 of the whole key.
    pub hash: [u8; 32],
    /// What it covers.
    pub covers: Covers,
    /// For people.
    pub label: Arc<str>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// The twin of one API key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyring {
    entry: Option<Entry>,
}

/// What happens to a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// It was made.
    Minted(Entry),
    /// It counts no more.
    Revoked(Timestamp),
}

/// Keeps a new key. The twin's key is its id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MintKey {
    /// SHA-256 of the whole key.
    pub hash: [u8; 32],
    /// What it covers.
    pub covers: Covers,
    /// For people; at most [`LABEL_BYTES_MAX`].
    pub label: Arc<str>,
}

/// Revokes a key; a second time changes nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RevokeKey;

/// Reads a key; `None` if there never was one of this id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LookUp;

impl Twin for Keyring {
    const KIND: &'static str = "key";
    const RING_ENTRIES: usize = 16;
    type Persistence = Durable;
    type Change = Change;

    fn create(_: &str) -> Self {
        Self::default()
    }

    fn apply(&mut self, change: &Change, _: Timestamp) {
        match change {
            Change::Minted(entry) => self.entry = Some(entry.clone()),
            Change::Revoked(at) => {
                if let Some(entry) = &mut self.entry {
                    entry.revoked_at = Some(*at);
                }
            }
        }
    }

    fn index(&self, terms: &mut Terms) {
        let Some(entry) = &self.entry else { return };
        terms.add("covers", entry.covers.name());
        terms.add("revoked", if entry.revoked_at.is_some() { "yes" } else { "no" });
    }

    fn heap_bytes(&self) -> usize {
        self.entry.as_ref().map_or(0, |entry| {
            entry.label.len()
                + match &entry.covers {
                    Covers::Operator => 0,
                    Covers::Ingest { namespace } => namespace.len(),
                    Covers::Service { service } => service.as_str().len(),
                }
        })
    }
}

impl Snapshot for Keyring {
    const SCHEMA: u16 = 1;
    const FIELDS: &'static str = "entry:option<hash:[u8;32] covers:{operator|ingest{namespace:str}|service{id:str}} \
                                  label:str created:u64 revoked:option<u64>>";
}

impl Message for MintKey {
    type Twin = Keyring;
    type Reply = Entry;
    const LANE: Lane = Lane::Control;
}

impl Wire for MintKey {
    const NAME: &'static str = "mint/1";
}

impl Decide<MintKey> for Keyring {
    fn decide(&self, mint: &MintKey, turn: &Turn<'_>) -> Result<Decision<Change, Entry>, Rejection> {
        if self.entry.is_some() {
            return Err(Rejection::conflict("a key of this id exists; ask for another one"));
        }
        if mint.label.len() > LABEL_BYTES_MAX || mint.label.contains(char::is_control) {
            return Err(Rejection::invalid("a label has at most 128 bytes and no control characters"));
        }
        let entry = Entry {
            hash: mint.hash,
            covers: mint.covers.clone(),
            label: mint.label.clone(),
            created_at: turn.now,
            revoked_at: None,
        };
        Ok(Decision::new(entry.clone()).change(Change::Minted(entry)))
    }
}

impl Message for RevokeKey {
    type Twin = Keyring;
    type Reply = Entry;
    const LANE: Lane = Lane::Control;
}

impl Wire for RevokeKey {
    const NAME: &'static str = "revoke/1";
}

impl Decide<RevokeKey> for Keyring {
    fn decide(&self, _: &RevokeKey, turn: &Turn<'_>) -> Result<Decision<Change, Entry>, Rejection> {
        let mut entry = self.entry.clone().ok_or_else(|| Rejection::not_found("key"))?;
        let mut changes = Changes::new();
        if entry.revoked_at.is_none() {
            entry.revoked_at = Some(turn.now);
            changes.push(Change::Revoked(turn.now));
        }
        Ok(Decision::new(entry).changes(changes))
    }
}

impl Message for LookUp {
    type Twin = Keyring;
    type Reply = Option<Entry>;
}

impl Wire for LookUp {
    const NAME: &'static str = "look_up/1";
}

impl Decide<LookUp> for Keyring {
    fn decide(&self, _: &LookUp, _: &Turn<'_>) -> Result<Decision<Change, Option<Entry>>, Rejection> {
        Ok(Decision::new(self.entry.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Header, Key},
        twin::{Persistence, Shape, from_bytes, to_bytes},
    };

    fn turn<M>(twin: &mut Keyring, message: &M, now: u64) -> Result<M::Reply, Rejection>
    where
        M: Message<Twin = Keyring>,
        Keyring: Decide<M>,
    {
        let (key, header) = (Key::parse("k").unwrap(), Header::default());
        let turn = Turn::new(Timestamp::from_unix_ms(now), &key, 0, &header);
        let decision = twin.decide(message, &turn)?;
        for change in &decision.changes {
            twin.apply(change, turn.now);
        }
        Ok(decision.reply)
    }

    #[test]
    fn a_key_is_made_once_and_revoked_once() {
        let mut twin = Keyring::create("k");
        assert_eq!(turn(&mut twin, &LookUp, 1).unwrap(), None);
        assert_eq!(turn(&mut twin, &RevokeKey, 1), Err(Rejection::not_found("key")));
        let mint = MintKey { hash: [7; 32], covers: Covers::Operator, label: "first".into() };
        assert_eq!(turn(&mut twin, &mint, 2).unwrap().created_at, Timestamp::from_unix_ms(2));
        assert!(turn(&mut twin, &mint, 3).is_err());
        turn(&mut twin, &RevokeKey, 4).unwrap();
        let again = turn(&mut twin, &RevokeKey, 5).unwrap();
        assert_eq!(again.revoked_at, Some(Timestamp::from_unix_ms(4)));
    }

    const SHAPE_1: Shape = Shape { schema: 1, fingerprint: 0x5a15_51c5 };

    fn golden_1() -> (Keyring, Vec<Change>) {
        let entry = |covers| Entry {
            hash: [7; 32],
            covers,
            label: "größe".into(),
            created_at: Timestamp::from_unix_ms(1_700_000_000_000),
            revoked_at: Some(Timestamp::from_unix_ms(1_700_000_000_123)),
        };
        let service = Covers::Service { service: ServiceId::parse("shop/orders").unwrap() };
        let minted = [Covers::Operator, Covers::Ingest { namespace: "shop".into() }, service.clone()];
        let mut changes: Vec<_> = minted.map(|covers| Change::Minted(entry(covers))).into();
        changes.push(Change::Revoked(Timestamp::from_unix_ms(1_700_000_000_456)));
        (Keyring { entry: Some(entry(service)) }, changes)
    }

    fn written() -> [(&'static str, Vec<u8>); 2] {
        let (state, changes) = golden_1();
        // As the changes of an entry of the journal lie there.
        let changes: Vec<_> = changes.iter().map(to_bytes).collect();
        [("tests/golden/key-1-state.bin", to_bytes(&state)), ("tests/golden/key-1-changes.bin", to_bytes(&changes))]
    }

    #[test]
    fn a_key_and_its_changes_of_schema_1_are_read_as_they_were_meant() {
        let (state, changes) = golden_1();
        let [bytes, entries] = written().map(|(file, _)| std::fs::read(file).unwrap());
        assert_eq!(<Durable as Persistence<Keyring>>::decode(SHAPE_1, &bytes).unwrap(), state);
        let entries: Vec<Vec<u8>> = from_bytes(&entries).unwrap();
        let read =
            entries.iter().map(|entry| <Durable as Persistence<Keyring>>::decode_change(SHAPE_1, entry).unwrap());
        assert_eq!(read.collect::<Vec<_>>(), changes);
    }

    #[test]
    fn a_key_and_its_changes_are_still_written_in_the_committed_schema() {
        assert_eq!(<Durable as Persistence<Keyring>>::SHAPE, SHAPE_1);
        for (file, bytes) in written() {
            assert!(bytes == std::fs::read(file).unwrap(), "{file}: a new schema needs a new number and file");
        }
    }

    /// Run by hand when a schema is new: `cargo test --lib write_golden_keys -- --ignored`.
    #[test]
    #[ignore = "writes the files that the other tests read"]
    fn write_golden_keys_that_are_missing() {
        for (file, bytes) in written() {
            if !std::path::Path::new(file).exists() {
                std::fs::write(file, bytes).unwrap();
            }
        }
    }

    #[test]
    fn a_label_has_a_bound() {
        let mut twin = Keyring::create("k");
        let mint = MintKey { hash: [7; 32], covers: Covers::Operator, label: "x".repeat(129).into() };
        assert!(turn(&mut twin, &mint, 1).is_err());
    }
}
