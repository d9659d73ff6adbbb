//! How a kind's state becomes bytes and back; or that it does not.

use bincode::{enc::write::Writer, error::EncodeError};
use serde::{Serialize, de::DeserializeOwned};

use super::{Twin, record};

/// Whether and how a kind is stored; [`Volatile`] and [`Durable`] are the two answers.
pub trait Persistence<K: Twin>: 'static {
    /// Whether the kind has records at all.
    const DURABLE: bool;
    /// Schema number and fingerprint written into each record.
    const SHAPE: Shape;
    /// Appends the state's bytes.
    fn encode(state: &K, out: &mut Vec<u8>);
    /// Reads a state written under `shape`; migrates older schemas, refuses newer ones.
    fn decode(shape: Shape, bytes: &[u8]) -> Result<K, record::Error>;
    /// Appends a change's bytes.
    fn encode_change(change: &K::Change, out: &mut Vec<u8>);
    /// Reads a change written under `shape`.
    fn decode_change(shape: Shape, bytes: &[u8]) -> Result<K::Change, record::Error>;
}

/// Identity of an encoding: its number and a fingerprint of its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of the schema; grows by one with each change of the fields.
    pub schema: u16,
    /// FNV-1a of kind and field list.
    pub fingerprint: u32,
}

/// A kind without record: gone when it is passivated.
#[derive(Debug)]
pub struct Volatile;

/// A kind whose every change is committed before the reply leaves.
#[derive(Debug)]
pub struct Durable;

/// The stored form of a durable kind: the state itself, through serde and bincode.
pub trait Snapshot: Twin + Serialize + DeserializeOwned {
    /// Number of the present schema.
    const SCHEMA: u16;
    /// The present fields with their types, such as `count:u64 name:String`; change it together with [`Self::SCHEMA`].
    const FIELDS: &'static str;

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

impl<K: Twin> Persistence<K> for Volatile {
    const DURABLE: bool = false;
    const SHAPE: Shape = Shape { schema: 0, fingerprint: 0 };
    fn encode(_: &K, _: &mut Vec<u8>) {}
    fn decode(_: Shape, _: &[u8]) -> Result<K, record::Error> {
        Err(record::Error::Volatile)
    }
    fn encode_change(_: &K::Change, _: &mut Vec<u8>) {}
    fn decode_change(_: Shape, _: &[u8]) -> Result<K::Change, record::Error> {
        Err(record::Error::Volatile)
    }
}

impl<K> Persistence<K> for Durable
where
    K: Snapshot,
    K::Change: Serialize + DeserializeOwned,
{
    const DURABLE: bool = true;
    const SHAPE: Shape = Shape { schema: K::SCHEMA, fingerprint: fingerprint(K::KIND, K::FIELDS) };

    fn encode(state: &K, out: &mut Vec<u8>) {
        append(state, out);
    }

    fn decode(shape: Shape, bytes: &[u8]) -> Result<K, record::Error> {
        match check::<K>(shape)? {
            Age::Present => from_bytes(bytes),
            Age::Older => K::migrate(shape.schema, bytes),
        }
    }

    fn encode_change(change: &K::Change, out: &mut Vec<u8>) {
        append(change, out);
    }

    fn decode_change(shape: Shape, bytes: &[u8]) -> Result<K::Change, record::Error> {
        match check::<K>(shape)? {
            Age::Present => from_bytes(bytes),
            Age::Older => K::migrate_change(shape.schema, bytes),
        }
    }
}

enum Age {
    Present,
    Older,
}

fn check<K: Snapshot>(found: Shape) -> Result<Age, record::Error> {
    if found.schema > K::SCHEMA {
        return Err(record::Error::NewerSchema { found: found.schema, supported: K::SCHEMA });
    }
    if found.schema < K::SCHEMA {
        return Ok(Age::Older);
    }
    let expected = fingerprint(K::KIND, K::FIELDS);
    if found.fingerprint == expected {
        Ok(Age::Present)
    } else {
        Err(record::Error::Fingerprint { schema: K::SCHEMA, found: found.fingerprint, expected })
    }
}

/// FNV-1a over kind and fields: `const`, so it costs nothing at run time.
const fn fingerprint(kind: &str, fields: &str) -> u32 {
    fnv(fnv(fnv(0x811c_9dc5, kind.as_bytes()), b"\0"), fields.as_bytes())
}

#[expect(clippy::as_conversions, reason = "u8 widens to u32 in a const fn")]
const fn fnv(mut hash: u32, bytes: &[u8]) -> u32 {
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    hash
}

/// Encodes with the one body codec: bincode 2 `standard()`.
pub fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    append(value, &mut out);
    out
}

/// Appends with the one body codec.
///
/// # Panics
/// If `Serialize` refuses its own value: a sequence or map of unknown length, which no stored type has.
pub fn append<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    bincode::serde::encode_into_writer(value, Appended(out), bincode::config::standard())
        .expect("stored types encode: they have no unsized sequences and a Vec takes every byte");
}

/// Takes bytes as they come; bincode's own adapter counts them and maps errors that a `Vec` does not have.
struct Appended<'a>(&'a mut Vec<u8>);

impl Writer for Appended<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Decodes with the one body codec; trailing bytes are refused.
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, record::Error> {
    match bincode::serde::decode_from_slice(
        bytes,
        bincode::config::standard().with_limit::<{ crate::model::limits::BLOB_BYTES_MAX }>(),
    ) {
        Ok((value, used)) if used == bytes.len() => Ok(value),
        Ok((_, used)) => {
            Err(record::Error::Body { detail: format!("{} bytes behind the value", bytes.len() - used).into() })
        }
        Err(error) => Err(record::Error::Body { detail: error.to_string().into() }),
    }
}
