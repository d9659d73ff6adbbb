//! Subjects and headers: where the streams keep what. The tables are in `docs/formats.md`; change them together.

use async_nats::HeaderMap;
use compact_str::CompactString;

use crate::{
    model::{Key, Timestamp},
    store::{Address, SharedTerms, Slot},
};

/// Commits of a core record.
pub(super) const SEQUENCE: &str = "Tw-Sequence";
/// When the twin wants to be woken, in milliseconds since 1970.
pub(super) const WAKE: &str = "Tw-Wake";
/// A search term; as often as there are terms.
pub(super) const TERM: &str = "Tw-Term";
/// The epoch it was written under.
pub(super) const EPOCH: &str = "Tw-Epoch";
/// A page that was deleted.
pub(super) const GONE: &str = "Tw-Gone";
/// Which attempt of a claim wrote an ownership.
pub(super) const CLAIM: &str = "Tw-Claim";

/// The names of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
    streams: u16,
}

/// What a subject names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Own(Slot),
    Core(Address),
    Page(Address, CompactString),
    Mark,
}

impl Names {
    pub(super) fn new(prefix: &str, streams: u16) -> Self {
        Self { prefix: prefix.into(), streams }
    }

    pub(super) fn streams(&self) -> u16 {
        self.streams
    }

    /// The stream of a slot.
    pub(super) fn place(&self, slot: Slot) -> u16 {
        u16::try_from(u32::from(slot.0) * u32::from(self.streams) / u32::from(Slot::COUNT)).expect("below the streams")
    }

    /// The slots of a stream.
    pub(super) fn slots(&self, place: u16) -> impl Iterator<Item = Slot> {
        (0..Slot::COUNT).map(Slot).filter(move |slot| self.place(*slot) == place)
    }

    pub(super) fn stream(&self, place: u16) -> String {
        format!("{}_TW{place:02}", self.prefix)
    }

    pub(super) fn blobs(&self) -> String {
        format!("{}_BLOB", self.prefix)
    }

    pub(super) fn meta(&self) -> String {
        format!("{}_meta", self.prefix)
    }

    /// Everything of a stream.
    pub(super) fn all(&self, place: u16) -> String {
        format!("{}.{place}.>", self.prefix)
    }

    /// Always there; rewritten to know that a reader has seen everything before.
    pub(super) fn mark(&self, place: u16) -> String {
        format!("{}.{place}.mark", self.prefix)
    }

    fn of_slot(&self, slot: Slot, rest: &str) -> String {
        format!("{}.{}.{}.{rest}", self.prefix, self.place(slot), slot.0)
    }

    pub(super) fn own(&self, slot: Slot) -> String {
        self.of_slot(slot, "own")
    }

    /// Every ownership of a stream.
    pub(super) fn owns(&self, place: u16) -> String {
        format!("{}.{place}.*.own", self.prefix)
    }

    /// Written by a commit of nothing.
    pub(super) fn pulse(&self, slot: Slot) -> String {
        self.of_slot(slot, "mark")
    }

    pub(super) fn core(&self, slot: Slot, address: &Address) -> String {
        self.of_slot(slot, &format!("c.{}.{}", escaped(&address.kind), escaped(&address.key)))
    }

    /// Every core record of a slot.
    pub(super) fn cores(&self, slot: Slot) -> String {
        self.of_slot(slot, "c.>")
    }

    pub(super) fn page(&self, slot: Slot, address: &Address, name: &str) -> String {
        let name: Vec<String> = name.split('/').map(escaped).collect();
        self.of_slot(slot, &format!("p.{}.{}.{}", escaped(&address.kind), escaped(&address.key), name.join(".")))
    }

    /// Every page of a twin in the folders that a prefix names whole.
    pub(super) fn pages(&self, slot: Slot, address: &Address, prefix: &str) -> String {
        match prefix.rsplit_once('/') {
            Some((folder, _)) => format!("{}.>", self.page(slot, address, folder)),
            None => self.of_slot(slot, &format!("p.{}.{}.>", escaped(&address.kind), escaped(&address.key))),
        }
    }

    /// A blob's length; written when all its pieces are there.
    pub(super) fn blob(&self, id: [u8; 16]) -> String {
        format!("{}.blob.{}.h", self.prefix, uuid::Uuid::from_bytes(id).simple())
    }

    /// A blob's head and pieces.
    pub(super) fn blob_whole(&self, id: [u8; 16]) -> String {
        format!("{}.blob.{}.>", self.prefix, uuid::Uuid::from_bytes(id).simple())
    }

    pub(super) fn piece(&self, id: [u8; 16], at: usize) -> String {
        format!("{}.blob.{}.{at}", self.prefix, uuid::Uuid::from_bytes(id).simple())
    }

    /// Everything of the stream of blobs.
    pub(super) fn blob_all(&self) -> String {
        format!("{}.blob.>", self.prefix)
    }

    /// Every head.
    pub(super) fn blob_heads(&self) -> String {
        format!("{}.blob.*.h", self.prefix)
    }

    pub(super) fn blob_mark(&self) -> String {
        format!("{}.blob.mark", self.prefix)
    }

    /// The blob of a subject, and whether it is the head.
    pub(super) fn blob_of(&self, subject: &str) -> Option<([u8; 16], bool)> {
        let (id, part) = subject.strip_prefix(&self.prefix)?.strip_prefix(".blob.")?.split_once('.')?;
        Some((uuid::Uuid::parse_str(id).ok()?.into_bytes(), part == "h"))
    }

    pub(super) fn parse(&self, subject: &str) -> Option<Subject> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix('.')?;
        let mut parts = rest.split('.').skip(1);
        let slot = match parts.next()? {
            "mark" => return Some(Subject::Mark),
            slot => Slot(slot.parse().ok()?),
        };
        let address = |parts: &mut std::iter::Skip<std::str::Split<'_, char>>| {
            let kind = unescaped(parts.next()?)?;
            Some(Address { kind, key: Key::parse(&unescaped(parts.next()?)?).ok()? })
        };
        match parts.next()? {
            "own" => Some(Subject::Own(slot)),
            "mark" => Some(Subject::Mark),
            "c" => Some(Subject::Core(address(&mut parts)?)),
            "p" => {
                let address = address(&mut parts)?;
                let name: Option<Vec<CompactString>> = parts.map(unescaped).collect();
                Some(Subject::Page(address, name?.join("/").into()))
            }
            _ => None,
        }
    }
}

/// One token of a subject: what has a meaning in subjects or headers as `%HH`, nothing as `%`.
pub(super) fn escaped(text: &str) -> String {
    if text.is_empty() {
        return "%".into();
    }
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_=/:@+,;~".contains(&byte) {
            token.push(char::from(byte));
        } else {
            token.push('%');
            token.extend([byte >> 4, byte & 15].map(|digit| char::from(b"0123456789ABCDEF"[usize::from(digit)])));
        }
    }
    token
}

pub(super) fn unescaped(token: &str) -> Option<CompactString> {
    if token == "%" {
        return Some(CompactString::default());
    }
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8(bytes).ok().map(Into::into)
}

/// What the headers of a core record say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Beside {
    pub(super) sequence: u64,
    pub(super) wake_at: Option<Timestamp>,
    pub(super) terms: SharedTerms,
}

impl Beside {
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(SEQUENCE, self.sequence.to_string());
        if let Some(at) = self.wake_at {
            headers.insert(WAKE, at.unix_ms().to_string());
        }
        for term in self.terms.iter() {
            headers.append(TERM, escaped(term));
        }
        headers
    }

    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let wake_at = match headers.get(WAKE) {
            None => None,
            Some(at) => Some(Timestamp::from_unix_ms(at.as_str().parse().ok()?)),
        };
        let terms: Option<SharedTerms> = headers.get_all(TERM).map(|term| unescaped(term.as_str())).collect();
        Some(Self { sequence: number(headers, SEQUENCE)?, wake_at, terms: terms? })
    }
}

pub(super) fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.as_str().parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(kind: &str, key: &str) -> Address {
        Address { kind: kind.into(), key: Key::parse(key).unwrap() }
    }

    #[test]
    fn every_slot_has_one_stream_and_streams_have_equal_parts() {
        for streams in [1, 2, 16, 64, 256] {
            let names = Names::new("tw", streams);
            let parts: Vec<usize> = (0..streams).map(|place| names.slots(place).count()).collect();
            assert_eq!(parts.iter().sum::<usize>(), usize::from(Slot::COUNT));
            assert!(parts.iter().all(|part| *part == parts[0]), "{streams}: {parts:?}");
        }
    }

    proptest! {
        #[test]
        fn a_subject_is_legal_and_read_back(kind in ".{1,20}", key in "[^\\p{Cc}]{1,60}", name in ".{0,60}") {
            let names = Names::new("tw", 16);
            let address = address(&kind, &key);
            let slot = Slot(4095);
            let legal = |subject: &str| {
                subject.bytes().all(|byte| byte.is_ascii_graphic() && !b"*>".contains(&byte))
                    && subject.split('.').all(|token| !token.is_empty())
            };
            let (core, page) = (names.core(slot, &address), names.page(slot, &address, &name));
            prop_assert!(legal(&core) && legal(&page), "{core} {page}");
            prop_assert_eq!(names.parse(&core), Some(Subject::Core(address.clone())));
            prop_assert_eq!(names.parse(&page), Some(Subject::Page(address, name.as_str().into())));
        }

        #[test]
        fn headers_are_read_back(sequence: u64, wake: Option<u64>, terms in prop::collection::vec(".{0,20}", 0..5)) {
            let terms = terms.iter().map(CompactString::from).collect();
            let beside = Beside { sequence, wake_at: wake.map(Timestamp::from_unix_ms), terms };
            prop_assert_eq!(Beside::read(&beside.headers()), Some(beside));
        }
    }

    #[test]
    fn a_prefix_asks_for_its_folder_alone() {
        let names = Names::new("tw", 16);
        let address = address("thing", "a");
        assert_eq!(names.pages(Slot(0), &address, "j/1"), "tw.0.0.p.thing.a.j.>");
        assert_eq!(names.pages(Slot(0), &address, "j"), "tw.0.0.p.thing.a.>");
        assert_eq!(names.pages(Slot(0), &address, "/x"), "tw.0.0.p.thing.a.%.>");
    }
}
