//! Names and bytes of the journal's pages.
//!
//! ```text
//! chunk journal/c/<revision of the group's base, 16 hex digits>/<number, 4 hex digits>
//!       "TWC1" | entries: [length u32][schema u16][fingerprint u32][bincode] | CRC-32C
//! base  journal/b/<revision, 16 hex digits>
//!       "TWB1" | schema u16 | fingerprint u32 | revision u64 | state | CRC-32C
//! ```

use compact_str::{CompactString, format_compact};

use super::Entry;
use crate::{
    model::limits,
    twin::{
        Shape, persistence,
        record::{self, Reader},
    },
};

/// What the names of all its pages begin with.
pub const FOLDER: &str = "journal/";
const CHUNK: [u8; 4] = *b"TWC1";
const BASE: [u8; 4] = *b"TWB1";
const ENTRY_HEAD_BYTES: usize = 4 + 2 + 4;
const BASE_FRAME_BYTES: usize = 4 + 2 + 4 + 8 + 4;

const _: () = assert!(
    limits::RECORD_BYTES_MAX - record::FRAME_BYTES + BASE_FRAME_BYTES <= limits::PAGE_BYTES_MAX,
    "a state that fits a record fits a base"
);

/// What a page of the journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// Entries.
    Chunk {
        /// The revision of the base they build on.
        group: u64,
        /// Position after that base, from 0.
        number: u16,
    },
    /// A whole state.
    Base {
        /// Its revision.
        revision: u64,
    },
}

/// Name of a group's chunk.
pub fn chunk_name(group: u64, number: u16) -> CompactString {
    format_compact!("journal/c/{group:016x}/{number:04x}")
}

/// Name of the base of a revision.
pub fn base_name(revision: u64) -> CompactString {
    format_compact!("journal/b/{revision:016x}")
}

/// Reads a name back; `None` for a page that is not the journal's.
pub fn parse(name: &str) -> Option<Name> {
    let parsed = match name.strip_prefix(FOLDER)?.split_once('/')? {
        ("c", rest) => {
            let (group, number) = rest.split_once('/')?;
            let number = u16::from_str_radix(number, 16).ok()?;
            Name::Chunk { group: u64::from_str_radix(group, 16).ok()?, number }
        }
        ("b", revision) => Name::Base { revision: u64::from_str_radix(revision, 16).ok()? },
        _ => return None,
    };
    let same = match parsed {
        Name::Chunk { group, number } => chunk_name(group, number),
        Name::Base { revision } => base_name(revision),
    };
    (same == name).then_some(parsed)
}

/// Appends an entry as it lies in tail and chunk.
pub(super) fn append_entry(entry: &Entry, shape: Shape, out: &mut Vec<u8>) {
    let head_at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&shape.schema.to_le_bytes());
    out.extend_from_slice(&shape.fingerprint.to_le_bytes());
    persistence::append(entry, out);
    let length = out.len() - head_at - ENTRY_HEAD_BYTES;
    let length = u32::try_from(length).expect("an entry is bounded far below 4 GiB");
    out[head_at..head_at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Takes the next entry's shape and bytes.
fn next_entry<'a>(from: &mut Reader<'a>) -> Result<(Shape, &'a [u8]), record::Error> {
    let length = u32::from_le_bytes(from.number()?);
    let schema = u16::from_le_bytes(from.number()?);
    let fingerprint = u32::from_le_bytes(from.number()?);
    let length = usize::try_from(length).map_err(|_| record::frame("a journal entry is too long"))?;
    Ok((Shape { schema, fingerprint }, from.take(length)?))
}

/// Reads entries that lie one behind the other.
pub(super) fn read_entries(bytes: &[u8]) -> Result<Vec<(Shape, Entry)>, record::Error> {
    let mut rest = Reader(bytes);
    let mut entries = Vec::new();
    while !rest.0.is_empty() {
        let (shape, bytes) = next_entry(&mut rest)?;
        entries.push((shape, persistence::from_bytes(bytes)?));
    }
    Ok(entries)
}

/// Cuts entries between two of them, so that each part has at most `bytes_max` bytes or one entry.
pub(super) fn split(entries: &[u8], bytes_max: usize) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = Reader(entries);
    let (mut from, mut end) = (0, 0);
    while !rest.0.is_empty() {
        next_entry(&mut rest).expect("the tail holds whole entries: it wrote them, or its record's checksum was right");
        let next = entries.len() - rest.0.len();
        if next - from > bytes_max && end > from {
            parts.push(&entries[from..end]);
            from = end;
        }
        end = next;
    }
    parts.extend((end > from).then(|| &entries[from..end]));
    parts
}

/// Frames entries as a chunk.
pub(super) fn encode_chunk(entries: &[u8]) -> Vec<u8> {
    seal([&CHUNK, entries].concat())
}

/// Frames a state as a base.
pub(super) fn encode_base(shape: Shape, revision: u64, state: &[u8]) -> Vec<u8> {
    let (schema, fingerprint) = (shape.schema.to_le_bytes(), shape.fingerprint.to_le_bytes());
    seal([&BASE, schema.as_slice(), &fingerprint, &revision.to_le_bytes(), state].concat())
}

/// Reads a chunk back.
pub fn decode_chunk(bytes: &[u8]) -> Result<Vec<(Shape, Entry)>, record::Error> {
    read_entries(open(bytes, CHUNK)?.0)
}

/// Reads a base back: the shape of its state, its revision, the state's bytes.
pub fn decode_base(bytes: &[u8]) -> Result<(Shape, u64, &[u8]), record::Error> {
    let mut rest = open(bytes, BASE)?;
    let schema = u16::from_le_bytes(rest.number()?);
    let fingerprint = u32::from_le_bytes(rest.number()?);
    let revision = u64::from_le_bytes(rest.number()?);
    Ok((Shape { schema, fingerprint }, revision, rest.0))
}

fn seal(mut page: Vec<u8>) -> Vec<u8> {
    let checksum = crc32c::crc32c(&page);
    page.extend_from_slice(&checksum.to_le_bytes());
    page
}

/// What lies between magic and checksum.
fn open(bytes: &[u8], magic: [u8; 4]) -> Result<Reader<'_>, record::Error> {
    let (covered, checksum) = bytes.split_last_chunk().ok_or_else(|| record::frame("a journal page is cut short"))?;
    let (found, computed) = (u32::from_le_bytes(*checksum), crc32c::crc32c(covered));
    if found != computed {
        return Err(record::Error::Checksum { found, computed });
    }
    let mut rest = Reader(covered);
    if rest.number()? == magic { Ok(rest) } else { Err(record::frame("the journal page has another kind or layout")) }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::model::{Principal, Timestamp, TraceParent};

    fn entries() -> impl Strategy<Value = Vec<(Shape, Entry)>> {
        let entry =
            (any::<(u16, u32)>(), any::<[u64; 2]>(), option::of("[a-z]{0,9}"), vec(vec(any::<u8>(), 0..40), 0..4))
                .prop_map(|((schema, fingerprint), [revision, at], request, changes)| {
                    let (at, principal) = (Timestamp::from_unix_ms(at), Principal::Host);
                    let request = request.map(Into::into);
                    (Shape { schema, fingerprint }, Entry { revision, at, principal, trace: None, request, changes })
                });
        vec(entry, 1..8)
    }

    proptest! {
        #[test]
        fn entries_read_back_however_they_are_split(entries in entries(), bytes_max in 1..400_usize) {
            let mut bytes = Vec::new();
            for (shape, entry) in &entries {
                append_entry(entry, *shape, &mut bytes);
            }
            let mut read = Vec::new();
            for part in split(&bytes, bytes_max) {
                let chunk = decode_chunk(&encode_chunk(part)).unwrap();
                prop_assert!(part.len() <= bytes_max || chunk.len() == 1);
                read.extend(chunk);
            }
            prop_assert_eq!(read, entries);
        }

        #[test]
        fn every_damaged_byte_and_every_truncation_is_noticed(
            entries in entries(), state in vec(any::<u8>(), 0..60), revision: u64, flip in 1..=255_u8,
        ) {
            let mut bytes = Vec::new();
            for (shape, entry) in &entries {
                append_entry(entry, *shape, &mut bytes);
            }
            let (chunk, base) = (encode_chunk(&bytes), encode_base(entries[0].0, revision, &state));
            prop_assert_eq!(decode_base(&base).unwrap(), (entries[0].0, revision, state.as_slice()));
            for whole in [chunk, base] {
                for at in 0..whole.len() {
                    let mut damaged = whole.clone();
                    damaged[at] ^= flip;
                    for damaged in [&damaged, &whole[..at]] {
                        prop_assert!(decode_chunk(damaged).is_err() && decode_base(damaged).is_err());
                    }
                }
            }
        }

        #[test]
        fn names_read_back_and_sort_by_age(a: (u64, u16), b: (u64, u16)) {
            let [first, second] = [a, b].map(|(group, number)| chunk_name(group, number));
            prop_assert_eq!(first.cmp(&second), a.cmp(&b));
            prop_assert_eq!(parse(&first), Some(Name::Chunk { group: a.0, number: a.1 }));
            prop_assert_eq!(parse(&base_name(a.0)), Some(Name::Base { revision: a.0 }));
        }
    }

    fn golden() -> [(&'static str, Vec<u8>); 2] {
        let mut entries = Vec::new();
        for (shape, entry) in golden_entries() {
            append_entry(&entry, shape, &mut entries);
        }
        let base = encode_base(Shape { schema: 3, fingerprint: 0x1234_5678 }, 34, b"state");
        [("journal-chunk-1", encode_chunk(&entries)), ("journal-base-1", base)]
    }

    fn golden_entries() -> [(Shape, Entry); 2] {
        let entry = |revision: u64, principal, trace, request: Option<&str>, changes| {
            let at = Timestamp::from_unix_ms(1_700_000_000_000 + revision);
            Entry { revision, at, principal, trace, request: request.map(Into::into), changes }
        };
        let host = entry(34, Principal::Host, None, None, Vec::new());
        let operator = Principal::Operator { key_id: "k1".into() };
        let trace = Some(TraceParent { trace_id: [7; 16], span_id: [8; 8], flags: 1 });
        let keyed = entry(35, operator, trace, Some("01-request"), vec![b"one".to_vec(), Vec::new()]);
        [(Shape { schema: 3, fingerprint: 0x1234_5678 }, host), (Shape { schema: 4, fingerprint: 1 }, keyed)]
    }

    fn committed(name: &str) -> Vec<u8> {
        std::fs::read(format!("tests/golden/{name}.bin")).unwrap()
    }

    #[test]
    fn journal_pages_of_layout_1_are_read_as_they_were_meant() {
        assert_eq!(decode_chunk(&committed("journal-chunk-1")).unwrap(), golden_entries());
        let shape = Shape { schema: 3, fingerprint: 0x1234_5678 };
        assert_eq!(decode_base(&committed("journal-base-1")).unwrap(), (shape, 34, b"state".as_slice()));
    }

    #[test]
    fn journal_pages_are_still_written_in_the_committed_layout() {
        for (name, bytes) in golden() {
            assert_eq!(bytes, committed(name), "{name}: a new layout needs a new magic and file");
        }
    }

    #[test]
    fn a_name_in_another_spelling_is_not_the_journals() {
        for name in ["journal/b/1", "journal/b/+000000000000001", "journal/c/0000000000000001", "ring", "journal/x/1"] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
