//! Where an ordered store keeps what: every key and the values that are not frames, as bytes.
//!
//! Keys sort by their bytes, numbers in them are big-endian; numbers in values are little-endian. The tables are in
//! `docs/formats.md`; change them together, with a new format number.

use compact_str::CompactString;
use smallvec::SmallVec;

use super::{Address, Epoch, Slot};
use crate::model::{Key, Timestamp};

/// Number of this layout, stored under [`FORMAT_KEY`].
pub(super) const FORMAT: u32 = 2;
/// Holds [`FORMAT`].
pub(super) const FORMAT_KEY: &[u8] = b"m/format";

/// First byte of each kind of key.
pub(super) const EPOCH: u8 = b'e';
pub(super) const CORE: u8 = b'c';
pub(super) const PAGE: u8 = b'p';
pub(super) const WAKE: u8 = b'w';
pub(super) const TERM: u8 = b't';
pub(super) const BLOB: u8 = b'b';

/// Most bytes of a blob under one key.
pub(super) const PIECE_BYTES: usize = 32 * 1024;

/// A key's bytes; most lie in place.
pub(super) type Bytes = SmallVec<[u8; 96]>;

/// `e` slot.
pub(super) fn epoch(slot: Slot) -> Bytes {
    joined(&[&[EPOCH], &slot.0.to_be_bytes()])
}

/// `c` kind `00` key.
pub(super) fn core(kind: &str, key: &str) -> Bytes {
    joined(&[&[CORE], kind.as_bytes(), &[0], key.as_bytes()])
}

/// `p` kind `00` folder `00` key `00` rest of the name. What twins write often and small thus does not lie among what
/// they write seldom and large: a tree rewrites neighbours together.
pub(super) fn page(kind: &str, key: &str, name: &str) -> Bytes {
    let (folder, rest) = folded(name);
    page_in(kind, folder, key, rest)
}

/// The page with this rest of its name in a folder.
pub(super) fn page_in(kind: &str, folder: &str, key: &str, rest: &str) -> Bytes {
    joined(&[&[PAGE], kind.as_bytes(), &[0], folder.as_bytes(), &[0], key.as_bytes(), &[0], rest.as_bytes()])
}

/// Where the pages of a kind begin whose folders are not less than this.
pub(super) fn folders(kind: &str, from: &str) -> Bytes {
    joined(&[&[PAGE], kind.as_bytes(), &[0], from.as_bytes()])
}

/// Where the pages of a folder begin.
pub(super) fn folder(kind: &str, folder: &str) -> Bytes {
    joined(&[&[PAGE], kind.as_bytes(), &[0], folder.as_bytes(), &[0]])
}

/// A page's folder, up to and with the first `/`, and the rest of its name; no folder holds a `00`.
pub(super) fn folded(name: &str) -> (&str, &str) {
    match name.find(['/', '\0']).filter(|at| name.as_bytes()[*at] == b'/') {
        Some(slash) => name.split_at(slash + 1),
        None => ("", name),
    }
}

/// `w` time kind `00` key.
pub(super) fn wake(at: Timestamp, address: &Address) -> Bytes {
    joined(&[&[WAKE], &at.unix_ms().to_be_bytes(), address.kind.as_bytes(), &[0], address.key.as_bytes()])
}

/// Where the wake keys begin.
pub(super) fn wake_start() -> Bytes {
    joined(&[&[WAKE]])
}

/// Every wake key up to and including this time is less than this.
pub(super) fn wake_end(until: Timestamp) -> Bytes {
    match until.unix_ms().checked_add(1) {
        Some(next) => joined(&[&[WAKE], &next.to_be_bytes()]),
        None => joined(&[&[WAKE + 1]]),
    }
}

/// `t` kind `00` term `00` key: one term's twins, in key order. With an empty key: where they begin.
pub(super) fn term(kind: &str, term: &str, key: &str) -> Bytes {
    let mut bytes = term_start(kind, term);
    bytes.push(0);
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

/// Where the terms begin that start so.
///
/// A term may contain any byte but must end before the key, so `00` is written `01 01` and `01` is written `01 02`;
/// this keeps the order.
pub(super) fn term_start(kind: &str, start: &str) -> Bytes {
    let mut bytes = joined(&[&[TERM], kind.as_bytes(), &[0]]);
    for byte in start.bytes() {
        match byte {
            0 | 1 => bytes.extend_from_slice(&[1, byte + 1]),
            plain => bytes.push(plain),
        }
    }
    bytes
}

/// The key at the end of a term key; no key contains `00`.
pub(super) fn key_of_term(bytes: &[u8]) -> Option<Key> {
    let at = bytes.iter().rposition(|byte| *byte == 0)?;
    parse_key(&bytes[at + 1..])
}

/// `b` id: the blob's length; written with its last piece.
pub(super) fn blob(id: [u8; 16]) -> Bytes {
    joined(&[&[BLOB], &id])
}

/// `b` id number: a piece.
pub(super) fn piece(id: [u8; 16], number: u16) -> Bytes {
    joined(&[&[BLOB], &id, &number.to_be_bytes()])
}

/// The id in a blob's or piece's key, and whether it is the blob's.
pub(super) fn blob_of(bytes: &[u8]) -> Option<([u8; 16], bool)> {
    let rest = bytes.strip_prefix(&[BLOB])?;
    Some((*rest.first_chunk()?, rest.len() == 16))
}

/// Kind and key of a core key.
pub(super) fn address_of_core(bytes: &[u8]) -> Option<Address> {
    address(bytes.strip_prefix(&[CORE])?)
}

/// Time, kind and key of a wake key.
pub(super) fn of_wake(bytes: &[u8]) -> Option<(Timestamp, Address)> {
    let (at, rest) = bytes.strip_prefix(&[WAKE])?.split_first_chunk()?;
    Some((Timestamp::from_unix_ms(u64::from_be_bytes(*at)), address(rest)?))
}

/// Kind, key and name of a page key.
pub(super) fn of_page(bytes: &[u8]) -> Option<(Address, CompactString)> {
    let mut parts = bytes.strip_prefix(&[PAGE])?.splitn(4, |byte| *byte == 0);
    let (kind, folder, key, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let mut name = CompactString::from_utf8(folder).ok()?;
    name.push_str(std::str::from_utf8(rest).ok()?);
    Some((Address { kind: CompactString::from_utf8(kind).ok()?, key: parse_key(key)? }, name))
}

/// The folder of a page key.
pub(super) fn folder_of(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes.strip_prefix(&[PAGE])?.split(|byte| *byte == 0).nth(1)?).ok()
}

/// The slot of an epoch key.
pub(super) fn of_epoch(bytes: &[u8]) -> Option<Slot> {
    Some(Slot(u16::from_be_bytes(bytes.strip_prefix(&[EPOCH])?.try_into().ok()?)))
}

/// The first key behind every key that starts so.
pub(super) fn end_of(prefix: &[u8]) -> Bytes {
    let mut end = Bytes::from_slice(prefix);
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            break;
        }
    }
    end
}

/// What lies under a core key: sequence, wake time and terms in front of the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CoreValue<'a> {
    pub(super) sequence: u64,
    pub(super) wake_at: Option<Timestamp>,
    terms: &'a [u8],
    pub(super) frame: &'a [u8],
}

/// Layout of a core value.
const CORE_LAYOUT: u8 = 1;

impl<'a> CoreValue<'a> {
    /// Writes a value over what `out` holds.
    pub(super) fn encode(
        out: &mut Vec<u8>,
        sequence: u64,
        wake_at: Option<Timestamp>,
        terms: &[CompactString],
        frame: &[u8],
    ) {
        out.clear();
        out.extend_from_slice(&[CORE_LAYOUT, u8::from(wake_at.is_some())]);
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&sequence.to_le_bytes());
        out.extend_from_slice(&wake_at.unwrap_or_default().unix_ms().to_le_bytes());
        let terms_at = out.len();
        for term in terms {
            out.extend_from_slice(&short(term.len()).to_le_bytes());
            out.extend_from_slice(term.as_bytes());
        }
        let length = short(out.len() - terms_at);
        out[2..4].copy_from_slice(&length.to_le_bytes());
        out.extend_from_slice(frame);
    }

    /// Reads a value; `None` if it is none.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let ([layout, has_wake], rest) = bytes.split_first_chunk()?;
        if *layout != CORE_LAYOUT || *has_wake > 1 {
            return None;
        }
        let (terms_bytes, rest) = rest.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (wake_at, rest) = rest.split_first_chunk()?;
        let (terms, frame) = rest.split_at_checked(usize::from(u16::from_le_bytes(*terms_bytes)))?;
        let wake_at = (*has_wake == 1).then(|| Timestamp::from_unix_ms(u64::from_le_bytes(*wake_at)));
        Some(Self { sequence: u64::from_le_bytes(*sequence), wake_at, terms, frame })
    }

    /// The terms, in the order written; stops at the first that does not read.
    pub(super) fn terms(&self) -> Vec<CompactString> {
        let mut rest = self.terms;
        let mut terms = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk()
            && let Some((term, after)) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))
            && let Ok(term) = CompactString::from_utf8(term)
        {
            terms.push(term);
            rest = after;
        }
        terms
    }
}

/// Reads an epoch's or a wake entry's value.
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// Reads an epoch as stored; no value means that the slot was never claimed.
pub(super) fn epoch_value(bytes: Option<&[u8]>) -> Option<Epoch> {
    match bytes {
        None => Some(Epoch(0)),
        Some(bytes) => number(bytes).map(Epoch),
    }
}

fn short(length: usize) -> u16 {
    u16::try_from(length).expect("terms are bounded by limits::TERMS_BYTES_MAX")
}

fn joined(parts: &[&[u8]]) -> Bytes {
    let mut bytes = Bytes::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes
}

fn address(bytes: &[u8]) -> Option<Address> {
    let at = bytes.iter().position(|byte| *byte == 0)?;
    Some(Address { kind: CompactString::from_utf8(&bytes[..at]).ok()?, key: parse_key(&bytes[at + 1..])? })
}

fn parse_key(bytes: &[u8]) -> Option<Key> {
    Key::parse(std::str::from_utf8(bytes).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> impl Strategy<Value = Key> {
        "[a-c/ü~]{1,6}".prop_map(|text| Key::parse(&text).unwrap())
    }

    proptest! {
        #[test]
        fn a_key_says_whose_it_is(key in keys(), name in "[a-c/\\x00]{0,4}", at in any::<u64>(), id in any::<[u8; 16]>()) {
            let owner = Address { kind: "kind".into(), key };
            let at = Timestamp::from_unix_ms(at);
            prop_assert_eq!(address_of_core(&core(&owner.kind, &owner.key)), Some(owner.clone()));
            prop_assert_eq!(of_wake(&wake(at, &owner)), Some((at, owner.clone())));
            prop_assert_eq!(key_of_term(&term(&owner.kind, &name, &owner.key)), Some(owner.key.clone()));
            prop_assert_eq!(of_page(&page(&owner.kind, &owner.key, &name)), Some((owner, name.into())));
            prop_assert_eq!(blob_of(&blob(id)), Some((id, true)));
            prop_assert_eq!(blob_of(&piece(id, 7)), Some((id, false)));
        }

        #[test]
        fn term_keys_sort_by_term_and_then_by_key(one in ("[ab\\x00\\x01\\x02]{0,4}", keys()), two in ("[ab\\x00\\x01\\x02]{0,4}", keys())) {
            let bytes = |(text, key): &(String, Key)| term("kind", text, key);
            prop_assert_eq!(bytes(&one).cmp(&bytes(&two)), one.cmp(&two));
        }

        #[test]
        fn a_prefix_and_its_end_enclose_exactly_what_starts_so(prefix in proptest::collection::vec(any::<u8>(), 1..4), other in proptest::collection::vec(any::<u8>(), 0..5)) {
            prop_assume!(prefix[0] != 0xff);
            let inside = prefix.as_slice() <= other.as_slice() && other.as_slice() < end_of(&prefix).as_slice();
            prop_assert_eq!(inside, other.starts_with(&prefix));
        }

        #[test]
        fn a_core_value_reads_back(sequence in any::<u64>(), wake in any::<Option<u64>>(), terms in proptest::collection::vec("[a-z=\\x00]{0,9}", 0..5), frame in any::<Vec<u8>>()) {
            let wake_at = wake.map(Timestamp::from_unix_ms);
            let terms: Vec<CompactString> = terms.into_iter().map(Into::into).collect();
            let mut bytes = vec![9; 3];
            CoreValue::encode(&mut bytes, sequence, wake_at, &terms, &frame);
            let value = CoreValue::decode(&bytes).unwrap();
            prop_assert_eq!((value.sequence, value.wake_at, value.terms(), value.frame), (sequence, wake_at, terms, frame.as_slice()));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>()) {
            drop(CoreValue::decode(&bytes).map(|value| value.terms()));
            drop((address_of_core(&bytes), of_wake(&bytes), of_page(&bytes), key_of_term(&bytes), blob_of(&bytes), of_epoch(&bytes)));
        }
    }

    #[test]
    fn format_2_is_still_what_it_was() {
        let owner = Address { kind: "k".into(), key: Key::parse("n/s").unwrap() };
        let at = Timestamp::from_unix_ms(0x0102);
        assert_eq!(core("k", "n/s").as_slice(), b"ck\0n/s");
        assert_eq!(page("k", "n/s", "j").as_slice(), b"pk\0\0n/s\0j");
        assert_eq!(page("k", "n/s", "j/c/1").as_slice(), b"pk\0j/\0n/s\0c/1");
        assert_eq!(page("k", "n/s", "j\0/1").as_slice(), b"pk\0\0n/s\0j\0/1");
        assert_eq!(wake(at, &owner).as_slice(), b"w\0\0\0\0\0\0\x01\x02k\0n/s");
        assert_eq!(term("k", "a\u{0}\u{1}b", "n/s").as_slice(), b"tk\0a\x01\x01\x01\x02b\0n/s");
        assert_eq!(epoch(Slot(0x0304)).as_slice(), b"e\x03\x04");
        assert_eq!(
            piece([5; 16], 6).as_slice(),
            b"b\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\0\x06"
        );
        let mut value = Vec::new();
        CoreValue::encode(&mut value, 7, Some(at), &["ab".into()], b"frame");
        assert_eq!(value, b"\x01\x01\x04\0\x07\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0\x02\0abframe");
    }
}
