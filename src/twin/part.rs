//! The pure half of a capability, hosted by the service twin.
//!
//! A [`Part`] is a small state within the core record of a service twin, with pages of its own beside it. For each
//! [`Request`] it decides, reading that state and the pages the request named, what should change. The twin around it
//! authorises, commits and journals; it knows no part by name, only [`Hosted`] ones from the list that
//! [`PartKind::of`] makes. A part that this build does not know is kept untouched.
//!
//! Start with `capability/state`.

use std::{any::Any, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, de::DeserializeOwned};

use super::{Changes, Effect, Event, Needs, PageWrite, Rejection, Terms, Turn, from_bytes, record, to_bytes};
use crate::model::{Key, Lane, Timestamp, scope::Want};

/// The durable state of one capability of one service.
pub trait Part: Default + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Name of the capability: in scopes, in paths, and the folder of its pages; it never changes.
    const NAME: &'static str;
    /// Number of the present schema of state and changes.
    const SCHEMA: u16;
    /// A fact the part decided.
    type Change: Serialize + DeserializeOwned + Send + 'static;

    /// Installs a decided change. Cannot fail and does not judge.
    fn apply(&mut self, change: &Self::Change, at: Timestamp);

    /// The earliest time this part wants to be woken at. May be early, never late.
    fn wake_at(&self) -> Option<Timestamp> {
        None
    }

    /// Decides what a wake-up does; it must move [`Part::wake_at`] on. No pages are at hand: a part that needs some
    /// tells its own twin a request.
    fn wake(&self, turn: &PartTurn<'_>) -> Ruling<Self::Change, ()> {
        let _ = turn;
        Ruling::new(())
    }

    /// The event by which watchers hear of a change that was just applied.
    fn event(&self, change: &Self::Change) -> Option<Event> {
        let _ = change;
        None
    }

    /// Adds search terms under which the node finds twins; few and short, since those of the twin have room beside them.
    fn index(&self, terms: &mut Terms) {
        let _ = terms;
    }

    /// Resident bytes beyond the part's own size.
    fn heap_bytes(&self) -> usize {
        0
    }

    /// Reads a state of an older schema.
    fn migrate(from: u16, bytes: &[u8]) -> Result<Self, record::Error> {
        let _ = bytes;
        Err(record::Error::OlderSchema { found: from, supported: Self::SCHEMA })
    }

    /// Reads a change of an older schema, for the journal.
    fn migrate_change(from: u16, bytes: &[u8]) -> Result<Self::Change, record::Error> {
        let _ = bytes;
        Err(record::Error::OlderSchema { found: from, supported: Self::SCHEMA })
    }
}

/// Something a part can be asked by who has the right to it.
pub trait Request: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The part that understands it.
    type Part: Part;
    /// What it answers.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// The operation, as grants and paths name it.
    const OPERATION: &'static str;
    /// Name on the wire, with its version: `state-get/1`.
    const NAME: &'static str;
    /// The lane it waits in.
    const LANE: Lane = Lane::Capability;
    /// Whether it may be asked where no twin is yet; one comes into being if it changes something.
    const CREATES: bool = false;
    /// Whether only the twin itself may ask it.
    const INTERNAL: bool = false;
    /// Whether it is asked from outside as it is. One that is not has doors of its own: they seal what it carries, or do
    /// what it permits.
    const IS_PUBLIC: bool = !Self::INTERNAL;

    /// Hands out every right it takes: a name within the capability, and the operation on it.
    fn wants(&self, each: &mut dyn FnMut(&str, &'static str));

    /// The instance in whose name it is asked.
    fn speaks_for(&self) -> Option<&str> {
        None
    }

    /// The pages its turn reads; names lie within the part.
    fn needs(&self) -> Needs {
        Needs::Nothing
    }

    /// Bytes it holds beyond its own size.
    fn heap_bytes(&self) -> usize {
        0
    }

    /// Decides: same input, same answer; total over any input; changes nothing.
    fn decide(
        &self,
        part: &Self::Part,
        turn: &PartTurn<'_>,
    ) -> Result<Ruling<<Self::Part as Part>::Change, Self::Reply>, Rejection>;
}

/// What a part decided.
#[derive(Debug)]
pub struct Ruling<C, R> {
    /// Facts, applied in this order.
    pub changes: Changes<C>,
    /// Pages written in the same commit; names lie within the part.
    pub pages: Vec<PageWrite>,
    /// What happens once this is durable.
    pub effects: Vec<Effect>,
    /// The answer.
    pub reply: R,
}

impl<C, R> Ruling<C, R> {
    /// Changes nothing and answers.
    pub fn new(reply: R) -> Self {
        Self { changes: Changes::new(), pages: Vec::new(), effects: Vec::new(), reply }
    }

    /// Adds a change.
    #[must_use]
    pub fn change(mut self, change: C) -> Self {
        self.changes.push(change);
        self
    }

    /// Writes (or deletes) a page of the part.
    #[must_use]
    pub fn page(mut self, name: &str, value: Option<Vec<u8>>) -> Self {
        self.pages.push(PageWrite { name: name.into(), value });
        self
    }

    /// Adds an effect.
    #[must_use]
    pub fn effect(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }
}

/// The circumstances of a part's turn: those of its twin, with the part's own pages.
#[derive(Clone, Copy)]
pub struct PartTurn<'a> {
    /// The time of the turn.
    pub now: Timestamp,
    /// The twin's key.
    pub key: &'a Key,
    turn: &'a Turn<'a>,
    folder: &'static str,
    around: &'a dyn Around,
}

/// What a part may know of the twin that hosts it.
pub trait Around {
    /// Instances that are up now.
    fn instances_up(&self) -> Vec<&str>;
}

impl<'a> PartTurn<'a> {
    /// The turn of the part of this name.
    pub fn new(turn: &'a Turn<'a>, folder: &'static str, around: &'a dyn Around) -> Self {
        Self { now: turn.now, key: turn.key, turn, folder, around }
    }

    /// Who asks.
    pub fn principal(&self) -> &'a crate::model::Principal {
        self.turn.header.principal()
    }

    /// Instances of the service that are up now.
    pub fn instances_up(&self) -> Vec<&'a str> {
        self.around.instances_up()
    }

    /// A page that the request named; `None` if it does not exist.
    pub fn page(&self, name: &str) -> Option<&'a [u8]> {
        self.turn.page(&within(self.folder, name))
    }

    /// The pages under a prefix that the request named, by their names within the part, in order.
    pub fn prefix(&self, prefix: &str) -> Vec<(&'a str, &'a [u8])> {
        let cut = self.folder.len() + 1;
        let pages = self.turn.prefix(&within(self.folder, prefix));
        pages.into_iter().map(|(name, bytes)| (name.get(cut..).unwrap_or_default(), bytes)).collect()
    }
}

/// A page's name within the twin.
pub fn within(folder: &str, name: &str) -> String {
    let mut whole = String::with_capacity(folder.len() + 1 + name.len());
    whole.push_str(folder);
    whole.push('/');
    whole.push_str(name);
    whole
}

/// The same pages by their names within the twin.
pub fn needs_within(folder: &str, needs: Needs) -> Needs {
    match needs {
        Needs::Nothing => Needs::Nothing,
        Needs::Pages(names) => Needs::Pages(names.iter().map(|name| within(folder, name)).collect()),
        Needs::Prefix { prefix, after, limit } => {
            Needs::Prefix { prefix: within(folder, &prefix), after: after.map(|after| within(folder, &after)), limit }
        }
    }
}

/// A right that a request takes, owned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Right {
    /// The capability.
    pub capability: compact_str::CompactString,
    /// What in it.
    pub name: compact_str::CompactString,
    /// The operation.
    pub operation: compact_str::CompactString,
}

impl Right {
    /// The same, borrowed.
    pub fn want(&self) -> Want<'_> {
        Want { capability: &self.capability, name: &self.name, operation: &self.operation }
    }
}

/// Bytes that serialize as bytes; for people, as a text if they are one, otherwise as numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) if serializer.is_human_readable() => serializer.serialize_str(text),
            Ok(_) | Err(_) => serializer.serialize_bytes(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Taken;
        impl<'de> de::Visitor<'de> for Taken {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of bytes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                Ok(Bytes(text.as_bytes().to_vec()))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut numbers: A) -> Result<Bytes, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = numbers.next_element()? {
                    bytes.push(byte);
                }
                Ok(Bytes(bytes))
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
        }
        if deserializer.is_human_readable() {
            // As bytes a text may be none, with half of a character.
            return deserializer.deserialize_any(Taken);
        }
        deserializer.deserialize_byte_buf(Taken)
    }
}

/// A part whose type is erased.
pub trait Hosted: Any + Send + Sync {
    /// Installs a change, if it can be read.
    fn apply(&mut self, schema: u16, change: &[u8], at: Timestamp);
    /// Appends the state's bytes.
    fn encode(&self) -> Vec<u8>;
    /// See [`Part::wake_at`].
    fn wake_at(&self) -> Option<Timestamp>;
    /// See [`Part::wake`].
    fn wake(&self, turn: &PartTurn<'_>) -> Ruling<Bytes, ()>;
    /// See [`Part::event`].
    fn event(&self, schema: u16, change: &[u8]) -> Option<Event>;
    /// See [`Part::index`].
    fn index(&self, terms: &mut Terms);
    /// See [`Part::heap_bytes`].
    fn heap_bytes(&self) -> usize;
}

struct Host<P>(P);

impl<P: Part> Hosted for Host<P> {
    fn apply(&mut self, schema: u16, change: &[u8], at: Timestamp) {
        if let Some(change) = change_of::<P>(schema, change) {
            self.0.apply(&change, at);
        }
    }

    fn encode(&self) -> Vec<u8> {
        to_bytes(&self.0)
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.0.wake_at()
    }

    fn wake(&self, turn: &PartTurn<'_>) -> Ruling<Bytes, ()> {
        let Ruling { changes, pages, effects, reply } = self.0.wake(turn);
        Ruling { changes: changes.iter().map(|change| Bytes(to_bytes(change))).collect(), pages, effects, reply }
    }

    fn event(&self, schema: u16, change: &[u8]) -> Option<Event> {
        self.0.event(&change_of::<P>(schema, change)?)
    }

    fn index(&self, terms: &mut Terms) {
        self.0.index(terms);
    }

    fn heap_bytes(&self) -> usize {
        size_of::<P>() + self.0.heap_bytes()
    }
}

fn change_of<P: Part>(schema: u16, bytes: &[u8]) -> Option<P::Change> {
    let read = if schema == P::SCHEMA { from_bytes(bytes) } else { P::migrate_change(schema, bytes) };
    read.ok()
}

/// Reads a part written under a schema.
pub type Decoded = fn(u16, &[u8]) -> Result<Box<dyn Hosted>, record::Error>;

/// What a twin needs to know of a part to host it.
#[derive(Clone, Copy)]
pub struct PartKind {
    /// [`Part::NAME`].
    pub name: &'static str,
    /// [`Part::SCHEMA`].
    pub schema: u16,
    /// A part nobody has told anything.
    pub create: fn() -> Box<dyn Hosted>,
    /// A change in JSON, its kind as the one key; `None` if it cannot be read.
    pub show: fn(u16, &[u8]) -> Option<serde_json::Value>,
    /// Reads a part.
    pub decode: Decoded,
}

impl PartKind {
    /// How `P` is hosted.
    pub fn of<P: Part>() -> Self {
        Self {
            name: P::NAME,
            schema: P::SCHEMA,
            create: || Box::new(Host(P::default())),
            show: |schema, bytes| serde_json::to_value(change_of::<P>(schema, bytes)?).ok(),
            decode: |schema, bytes| {
                let part = if schema == P::SCHEMA { from_bytes::<P>(bytes)? } else { P::migrate(schema, bytes)? };
                Ok(Box::new(Host(part)))
            },
        }
    }
}

impl fmt::Debug for PartKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartKind({}/{})", self.name, self.schema)
    }
}

impl dyn Hosted {
    /// The part itself, if it is a `P`.
    pub fn part<P: Part>(&self) -> Option<&P> {
        let any: &dyn Any = self;
        any.downcast_ref::<Host<P>>().map(|host| &host.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_a_text_for_people_if_they_are_one() {
        for (bytes, json) in [(&b""[..], "\"\""), (b"{\"a\":1}", "\"{\\\"a\\\":1}\""), (b"\xff\x00a", "[255,0,97]")] {
            let bytes = Bytes(bytes.to_vec());
            assert_eq!(serde_json::to_string(&bytes).unwrap(), json);
            assert_eq!(serde_json::from_str::<Bytes>(json).unwrap(), bytes);
            assert_eq!(from_bytes::<Bytes>(&to_bytes(&bytes)).unwrap(), bytes);
        }
        for wrong in ["[256]", "[-1]", "7", "null", "\"\\ud800\""] {
            assert!(serde_json::from_str::<Bytes>(wrong).is_err(), "{wrong}");
        }
    }
}
