//! API keys, one durable twin each: what a key covers, and from when on it counts no more.
//!
//! The twin's key is the API key's public id. Nothing of the key itself is kept: it is a token, and its signature tells
//! it from others. One twin a key rather than one list: a fleet has as many keys as services, which no single record
//! holds.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Changes, Decide, Decision, Durable, Message, Rejection, Snapshot, Terms, Turn, Twin, Wire, from_bytes, record,
};
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
    /// What it covers.
    pub covers: Covers,
    /// For people.
    pub label: Arc<str>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it counts no more: when it was revoked, or a time to come if another key takes its place.
    pub revoked_at: Option<Timestamp>,
}

impl Entry {
    /// Whether it counts.
    pub fn counts(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none_or(|from| now < from)
    }
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
    /// It counts no more from then on.
    Revoked(Timestamp),
}

/// Keeps a new key. The twin's key is its id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MintKey {
    /// What it covers.
    pub covers: Covers,
    /// For people; at most [`LABEL_BYTES_MAX`].
    pub label: Arc<str>,
}

/// Revokes a key, at once or later; one that ends earlier than that stays as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RevokeKey {
    /// How long it goes on to count.
    pub overlap: Duration,
}

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
        // Not 'revoked', by which keys of schema 1 are found: they count no more, whatever their index says.
        terms.add("ends", if entry.revoked_at.is_some() { "yes" } else { "no" });
        if let Covers::Service { service } = &entry.covers {
            terms.add("service", service.as_str());
        }
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
    const SCHEMA: u16 = 2;
    const FIELDS: &'static str = "entry:option<covers:{operator|ingest{namespace:str}|service{id:str}} label:str \
                                  created:u64 revoked:option<u64>>";

    fn migrate(from: u16, bytes: &[u8]) -> Result<Self, record::Error> {
        match from {
            1 => Ok(Self { entry: from_bytes::<Option<Entry1>>(bytes)?.map(Entry1::ended) }),
            found => Err(record::Error::OlderSchema { found, supported: Self::SCHEMA }),
        }
    }

    fn migrate_change(from: u16, bytes: &[u8]) -> Result<Change, record::Error> {
        match from {
            1 => Ok(match from_bytes(bytes)? {
                Change1::Minted(entry) => Change::Minted(entry.ended()),
                Change1::Revoked(at) => Change::Revoked(at),
            }),
            found => Err(record::Error::OlderSchema { found, supported: Self::SCHEMA }),
        }
    }
}

/// A key of schema 1: random, known again by its hash.
#[derive(Deserialize)]
struct Entry1 {
    #[expect(dead_code, reason = "it lies there, and no such key counts any more")]
    hash: [u8; 32],
    covers: Covers,
    label: Arc<str>,
    created_at: Timestamp,
    revoked_at: Option<Timestamp>,
}

impl Entry1 {
    /// The same as one that never counted: it is no token.
    fn ended(self) -> Entry {
        let Self { covers, label, created_at, revoked_at, .. } = self;
        Entry { covers, label, created_at, revoked_at: revoked_at.or(Some(created_at)) }
    }
}

#[derive(Deserialize)]
enum Change1 {
    Minted(Entry1),
    Revoked(Timestamp),
}

impl Message for MintKey {
    type Twin = Keyring;
    type Reply = Entry;
    const LANE: Lane = Lane::Control;
}

impl Wire for MintKey {
    const NAME: &'static str = "mint/2";
}

impl Decide<MintKey> for Keyring {
    fn decide(&self, mint: &MintKey, turn: &Turn<'_>) -> Result<Decision<Change, Entry>, Rejection> {
        if self.entry.is_some() {
            return Err(Rejection::conflict("a key of this id exists; ask for another one"));
        }
        if mint.label.len() > LABEL_BYTES_MAX || mint.label.contains(char::is_control) {
            return Err(Rejection::invalid("a label has at most 128 bytes and no control characters"));
        }
        let entry =
            Entry { covers: mint.covers.clone(), label: mint.label.clone(), created_at: turn.now, revoked_at: None };
        Ok(Decision::new(entry.clone()).change(Change::Minted(entry)))
    }
}

impl Message for RevokeKey {
    type Twin = Keyring;
    type Reply = Entry;
    const LANE: Lane = Lane::Control;
}

impl Wire for RevokeKey {
    const NAME: &'static str = "revoke/2";
}

impl Decide<RevokeKey> for Keyring {
    fn decide(&self, revoke: &RevokeKey, turn: &Turn<'_>) -> Result<Decision<Change, Entry>, Rejection> {
        let mut entry = self.entry.clone().ok_or_else(|| Rejection::not_found("key"))?;
        let mut changes = Changes::new();
        let from = turn.now.after(revoke.overlap);
        if entry.counts(from) {
            entry.revoked_at = Some(from);
            changes.push(Change::Revoked(from));
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

    fn mint(label: &str) -> MintKey {
        MintKey { covers: Covers::Operator, label: label.into() }
    }

    #[test]
    fn a_key_is_made_once_and_revoked_once() {
        let mut twin = Keyring::create("k");
        let at_once = RevokeKey::default();
        assert_eq!(turn(&mut twin, &LookUp, 1).unwrap(), None);
        assert_eq!(turn(&mut twin, &at_once, 1), Err(Rejection::not_found("key")));
        assert_eq!(turn(&mut twin, &mint("first"), 2).unwrap().created_at, Timestamp::from_unix_ms(2));
        assert!(turn(&mut twin, &mint("first"), 3).is_err());
        turn(&mut twin, &at_once, 4).unwrap();
        let again = turn(&mut twin, &at_once, 5).unwrap();
        assert_eq!(again.revoked_at, Some(Timestamp::from_unix_ms(4)));
    }

    #[test]
    fn a_key_that_ends_later_counts_until_then_and_can_end_earlier_but_not_later() {
        let mut twin = Keyring::create("k");
        turn(&mut twin, &mint("old"), 1).unwrap();
        let after = |ms| RevokeKey { overlap: Duration::from_millis(ms) };
        let entry = turn(&mut twin, &after(100), 2).unwrap();
        assert!(entry.counts(Timestamp::from_unix_ms(101)) && !entry.counts(Timestamp::from_unix_ms(102)));
        assert_eq!(turn(&mut twin, &after(500), 3).unwrap(), entry);
        assert_eq!(turn(&mut twin, &after(0), 4).unwrap().revoked_at, Some(Timestamp::from_unix_ms(4)));
    }

    #[test]
    fn a_service_key_is_found_by_its_service() {
        let mut twin = Keyring::create("k");
        let covers = Covers::Service { service: ServiceId::parse("shop/orders").unwrap() };
        turn(&mut twin, &MintKey { covers, label: "".into() }, 1).unwrap();
        let mut terms = Terms::default();
        twin.index(&mut terms);
        assert_eq!(terms.as_slice(), ["covers=service", "ends=no", "service=shop/orders"]);
    }

    const SHAPE_1: Shape = Shape { schema: 1, fingerprint: 0x5a15_51c5 };
    const SHAPE_2: Shape = Shape { schema: 2, fingerprint: 0x7333_a370 };
    const CREATED: Timestamp = Timestamp::from_unix_ms(1_700_000_000_000);

    fn golden() -> (Keyring, Vec<Change>) {
        let revoked_at = Some(Timestamp::from_unix_ms(1_700_000_000_123));
        let entry = |covers| Entry { covers, label: "größe".into(), created_at: CREATED, revoked_at };
        let service = Covers::Service { service: ServiceId::parse("shop/orders").unwrap() };
        let minted = [Covers::Operator, Covers::Ingest { namespace: "shop".into() }, service.clone()];
        let mut changes: Vec<_> = minted.map(|covers| Change::Minted(entry(covers))).into();
        changes.push(Change::Revoked(Timestamp::from_unix_ms(1_700_000_000_456)));
        (Keyring { entry: Some(entry(service)) }, changes)
    }

    fn written() -> [(&'static str, Vec<u8>); 2] {
        let (state, changes) = golden();
        // As the changes of an entry of the journal lie there.
        let changes: Vec<_> = changes.iter().map(to_bytes).collect();
        [("tests/golden/key-2-state.bin", to_bytes(&state)), ("tests/golden/key-2-changes.bin", to_bytes(&changes))]
    }

    fn read(shape: Shape, files: [&str; 2]) -> (Keyring, Vec<Change>) {
        let [state, entries] = files.map(|file| std::fs::read(file).unwrap());
        let entries: Vec<Vec<u8>> = from_bytes(&entries).unwrap();
        let changes =
            entries.iter().map(|entry| <Durable as Persistence<Keyring>>::decode_change(shape, entry).unwrap());
        (<Durable as Persistence<Keyring>>::decode(shape, &state).unwrap(), changes.collect())
    }

    #[test]
    fn a_key_and_its_changes_of_each_schema_are_read_as_they_were_meant() {
        let earlier = ["tests/golden/key-1-state.bin", "tests/golden/key-1-changes.bin"];
        // They hold the same but for the hash.
        assert_eq!(read(SHAPE_1, earlier), golden());
        assert_eq!(read(SHAPE_2, written().map(|(file, _)| file)), golden());
    }

    #[test]
    fn a_random_key_of_schema_1_counts_no_more() {
        #[derive(Serialize)]
        struct Written {
            hash: [u8; 32],
            covers: Covers,
            label: &'static str,
            created_at: Timestamp,
            revoked_at: Option<Timestamp>,
        }
        let entry =
            Written { hash: [7; 32], covers: Covers::Operator, label: "", created_at: CREATED, revoked_at: None };
        let read = <Durable as Persistence<Keyring>>::decode(SHAPE_1, &to_bytes(&Some(entry))).unwrap();
        assert_eq!(read.entry.unwrap().revoked_at, Some(CREATED));
    }

    #[test]
    fn a_key_and_its_changes_are_still_written_in_the_committed_schema() {
        assert_eq!(<Durable as Persistence<Keyring>>::SHAPE, SHAPE_2);
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
        assert!(turn(&mut twin, &mint(&"x".repeat(129)), 1).is_err());
    }
}
