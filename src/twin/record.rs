//! The frame: a twin's core record as bytes.
//!
//! ```text
//! off len field                               (integers little-endian)
//! 0   4   magic "TWN1", the last byte is the layout of the frame
//! 4   1   codec        2 = bincode 2 standard()
//! 5   1   flags        0
//! 6   2   schema       of the state
//! 8   4   fingerprint  of the state's fields
//! 12  8   epoch        fencing number of the owner that wrote it
//! 20  8   sequence     commits of this record, 1 for the first
//! 28  8   revision     changes of this twin
//! 36  8   written_at   ms since 1970, for people
//! 44  4   body length
//! 48  n   body: sections [tag u8][length u32][bytes]; an unknown tag below 128 is refused, from 128 on skipped
//! 48+n 4  CRC-32C of everything before
//! ```

use std::sync::Arc;

use super::Shape;
use crate::model::Timestamp;

/// Why bytes are no record that can be used. The bytes are kept as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a frame, or cut short.
    #[error("not a twin record: {detail}")]
    Frame {
        /// What is wrong.
        detail: Arc<str>,
    },
    /// The checksum does not match.
    #[error("checksum is {found:08x}, the bytes give {computed:08x}")]
    Checksum {
        /// As written.
        found: u32,
        /// As computed.
        computed: u32,
    },
    /// A codec this build does not know.
    #[error("codec {0} is unknown to this build")]
    Codec(u8),
    /// A section this build does not know and may not skip.
    #[error("section {0} is unknown to this build")]
    Section(u8),
    /// Written by a newer release.
    #[error("schema {found} is newer than {supported}, the newest this build reads; upgrade the node")]
    NewerSchema {
        /// In the record.
        found: u16,
        /// Newest readable.
        supported: u16,
    },
    /// Written by a release too old to migrate from.
    #[error("schema {found} cannot be migrated to {supported} by this build")]
    OlderSchema {
        /// In the record.
        found: u16,
        /// The present one.
        supported: u16,
    },
    /// Same schema number, other fields.
    #[error(
        "schema {schema} was written with fields {found:08x}, this build has {expected:08x}; a field changed without a new schema number"
    )]
    Fingerprint {
        /// The number.
        schema: u16,
        /// In the record.
        found: u32,
        /// In this build.
        expected: u32,
    },
    /// The body does not decode.
    #[error("body does not decode: {detail}")]
    Body {
        /// What is wrong.
        detail: Arc<str>,
    },
    /// The record is older than something that proves a newer one existed.
    #[error("the record went backwards: sequence {found}, but {witness} has seen {expected}")]
    Backwards {
        /// In the record.
        found: u64,
        /// At least this was written.
        expected: u64,
        /// What proves it.
        witness: &'static str,
    },
    /// A volatile kind has no record.
    #[error("a volatile kind has no record")]
    Volatile,
}

/// Everything in front of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Schema and fingerprint of the state.
    pub shape: Shape,
    /// Fencing number of the writer.
    pub epoch: u64,
    /// Commits of this record.
    pub sequence: u64,
    /// Changes of this twin.
    pub revision: u64,
    /// When it was encoded.
    pub written_at: Timestamp,
}

/// A section of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// The kind's state.
    State,
    /// Effects promised and not yet delivered.
    Outbox,
    /// The newest idempotency keys.
    Ring,
    /// The newest journal entries.
    Journal,
}

impl Section {
    const fn tag(self) -> u8 {
        match self {
            Self::State => 1,
            Self::Outbox => 2,
            Self::Ring => 3,
            Self::Journal => 4,
        }
    }
}
