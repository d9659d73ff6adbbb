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
    #[error("the record went backwards: {what} {found}, but {witness} has seen {expected}")]
    Backwards {
        /// What is counted: commits (`sequence`) or changes (`revision`).
        what: &'static str,
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

impl Error {
    /// Whether the bytes are sound and yet not the newest there were.
    pub fn is_backwards(&self) -> bool {
        match self {
            Self::Backwards { .. } => true,
            Self::Frame { .. }
            | Self::Checksum { .. }
            | Self::Codec(_)
            | Self::Section(_)
            | Self::NewerSchema { .. }
            | Self::OlderSchema { .. }
            | Self::Fingerprint { .. }
            | Self::Body { .. }
            | Self::Volatile => false,
        }
    }
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

    const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::State),
            2 => Some(Self::Outbox),
            3 => Some(Self::Ring),
            4 => Some(Self::Journal),
            _ => None,
        }
    }
}

const MAGIC: [u8; 4] = *b"TWN1";
const CODEC_BINCODE_2: u8 = 2;
const NO_FLAGS: u8 = 0;
/// Length of everything in front of the body.
const HEAD_BYTES: usize = 48;
const CHECKSUM_BYTES: usize = 4;
/// What a record has beside the contents of its sections, at least.
pub(super) const FRAME_BYTES: usize = HEAD_BYTES + CHECKSUM_BYTES;
/// Where the length of the body stands.
const BODY_LENGTH_AT: usize = 44;
/// Tags from here on may be skipped by a build that does not know them.
const SKIPPABLE_FROM: u8 = 128;

/// Where the sections of a record are written.
#[derive(Debug)]
pub struct Body<'a> {
    out: &'a mut Vec<u8>,
}

impl Body<'_> {
    /// Appends a section; each is written at most once.
    ///
    /// # Panics
    /// If `write` leaves less than it found.
    pub fn section(&mut self, section: Section, write: impl FnOnce(&mut Vec<u8>)) {
        self.out.push(section.tag());
        let length_at = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        write(self.out);
        put_length(self.out, length_at);
    }
}

/// Writes the bytes behind the four at `length_at` as their length.
fn put_length(out: &mut [u8], length_at: usize) {
    let length = u32::try_from(out.len() - length_at - 4).expect("a record is bounded far below 4 GiB");
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Clears `out` and writes a whole frame into it; `write` adds the sections.
pub fn encode(head: &Head, out: &mut Vec<u8>, write: impl FnOnce(&mut Body<'_>)) {
    out.clear();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[CODEC_BINCODE_2, NO_FLAGS]);
    out.extend_from_slice(&head.shape.schema.to_le_bytes());
    out.extend_from_slice(&head.shape.fingerprint.to_le_bytes());
    for number in [head.epoch, head.sequence, head.revision, head.written_at.unix_ms()] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&[0; 4]);
    write(&mut Body { out });
    put_length(out, BODY_LENGTH_AT);
    let checksum = crc32c::crc32c(out);
    out.extend_from_slice(&checksum.to_le_bytes());
}

/// A record whose frame was found whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Everything in front of the body.
    pub head: Head,
    sections: [Option<&'a [u8]>; 4],
}

impl<'a> Record<'a> {
    /// The bytes of a section; `None` if it was not written.
    pub fn section(&self, section: Section) -> Option<&'a [u8]> {
        self.sections[usize::from(section.tag() - 1)]
    }
}

/// Checks a whole frame: magic, length, checksum, codec and flags, then its sections.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, Error> {
    let mut rest = Reader(bytes);
    rest.magic()?;
    let length = Reader(bytes.get(BODY_LENGTH_AT..).unwrap_or_default()).number().map(u32::from_le_bytes)?;
    let body_bytes = usize::try_from(length).map_err(|_| frame("the body is too long"))?;
    if bytes.len().checked_sub(HEAD_BYTES + CHECKSUM_BYTES) != Some(body_bytes) {
        return Err(frame(&format!("{} bytes, but the body alone is said to have {body_bytes}", bytes.len())));
    }
    let (covered, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
    let (found, computed) = (u32::from_le_bytes(Reader(checksum).number()?), crc32c::crc32c(covered));
    if found != computed {
        return Err(Error::Checksum { found, computed });
    }
    let head = rest.head()?;
    let mut body = Reader(&covered[HEAD_BYTES..]);
    let mut sections = [None; 4];
    while let [tag, after @ ..] = body.0 {
        body = Reader(after);
        let length = u32::from_le_bytes(body.number()?);
        let content = body.take(usize::try_from(length).map_err(|_| frame("a section is too long"))?)?;
        match Section::from_tag(*tag) {
            Some(section) => {
                let before = sections[usize::from(section.tag() - 1)].replace(content);
                if before.is_some() {
                    return Err(frame(&format!("section {tag} occurs twice")));
                }
            }
            None if *tag < SKIPPABLE_FROM => return Err(Error::Section(*tag)),
            None => {}
        }
    }
    Ok(Record { head, sections })
}

/// Reads only what stands in front of the body; the checksum is not looked at.
pub fn head(bytes: &[u8]) -> Result<Head, Error> {
    let mut rest = Reader(bytes);
    rest.magic()?;
    rest.head()
}

pub(super) fn frame(detail: &str) -> Error {
    Error::Frame { detail: detail.into() }
}

/// What is still to be read.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, bytes: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or_else(|| frame("cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn number<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(|| frame("cut short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn magic(&mut self) -> Result<(), Error> {
        if self.number()? == MAGIC { Ok(()) } else { Err(frame("it does not start with TWN1")) }
    }

    /// Reads codec to `written_at`.
    fn head(&mut self) -> Result<Head, Error> {
        let [codec, flags] = self.number()?;
        if codec != CODEC_BINCODE_2 {
            return Err(Error::Codec(codec));
        }
        if flags != NO_FLAGS {
            return Err(frame(&format!("flags {flags:08b} are unknown to this build")));
        }
        Ok(Head {
            shape: Shape {
                schema: u16::from_le_bytes(self.number()?),
                fingerprint: u32::from_le_bytes(self.number()?),
            },
            epoch: u64::from_le_bytes(self.number()?),
            sequence: u64::from_le_bytes(self.number()?),
            revision: u64::from_le_bytes(self.number()?),
            written_at: Timestamp::from_unix_ms(u64::from_le_bytes(self.number()?)),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    const SECTIONS: [Section; 4] = [Section::State, Section::Outbox, Section::Ring, Section::Journal];

    fn heads() -> impl Strategy<Value = Head> {
        (any::<(u16, u32)>(), any::<[u64; 4]>()).prop_map(|((schema, fingerprint), [epoch, sequence, revision, at])| {
            let written_at = Timestamp::from_unix_ms(at);
            Head { shape: Shape { schema, fingerprint }, epoch, sequence, revision, written_at }
        })
    }

    fn framed(head: &Head, contents: &[Option<Vec<u8>>]) -> Vec<u8> {
        let mut out = vec![0xff; 7];
        encode(head, &mut out, |body| {
            for (section, content) in SECTIONS.into_iter().zip(contents) {
                if let Some(content) = content {
                    body.section(section, |out| out.extend_from_slice(content));
                }
            }
        });
        out
    }

    /// Replaces the body and mends length and checksum.
    fn with_body(body: &[u8]) -> Vec<u8> {
        let head = Head {
            shape: Shape { schema: 1, fingerprint: 2 },
            epoch: 3,
            sequence: 4,
            revision: 5,
            written_at: Timestamp::ZERO,
        };
        let mut out = framed(&head, &[]);
        out.truncate(HEAD_BYTES);
        out.extend_from_slice(body);
        put_length(&mut out, BODY_LENGTH_AT);
        let checksum = crc32c::crc32c(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_written(head in heads(), contents in vec(option::of(vec(any::<u8>(), 0..200)), 4)) {
            let bytes = framed(&head, &contents);
            let record = decode(&bytes).unwrap();
            prop_assert_eq!(record.head, head);
            prop_assert_eq!(super::head(&bytes).unwrap(), head);
            for (section, content) in SECTIONS.into_iter().zip(&contents) {
                prop_assert_eq!(record.section(section), content.as_deref());
            }
        }

        #[test]
        fn every_flipped_bit_is_noticed(head in heads(), content in vec(any::<u8>(), 0..60)) {
            let whole = framed(&head, &[Some(content)]);
            for bit in 0..whole.len() * 8 {
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(decode(&bytes).is_err(), "bit {} was not noticed", bit);
            }
        }

        #[test]
        fn every_truncation_is_noticed(head in heads(), content in vec(any::<u8>(), 0..60)) {
            let whole = framed(&head, &[Some(content)]);
            for length in 0..whole.len() {
                prop_assert!(decode(&whole[..length]).is_err(), "{} bytes were accepted", length);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300), body in vec(any::<u8>(), 0..100)) {
            drop(decode(&bytes));
            drop(super::head(&bytes));
            drop(decode(&with_body(&body)));
        }
    }

    #[test]
    fn an_unknown_section_is_refused_below_128_and_skipped_from_there_on() {
        assert_eq!(decode(&with_body(&[127, 0, 0, 0, 0])), Err(Error::Section(127)));
        let bytes = with_body(&[128, 1, 0, 0, 0, 9, 1, 2, 0, 0, 0, 7, 8]);
        assert_eq!(decode(&bytes).unwrap().section(Section::State), Some([7, 8].as_slice()));
    }

    #[test]
    fn a_section_written_twice_is_refused() {
        assert_eq!(decode(&with_body(&[1, 0, 0, 0, 0, 1, 0, 0, 0, 0])), Err(frame("section 1 occurs twice")));
    }

    #[test]
    fn an_unknown_codec_is_named() {
        let mut bytes = with_body(&[]);
        bytes[4] = 9;
        let checksum = crc32c::crc32c(&bytes[..HEAD_BYTES]);
        bytes[HEAD_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(decode(&bytes), Err(Error::Codec(9)));
    }
}
