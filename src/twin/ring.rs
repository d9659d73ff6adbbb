//! The idempotency ring: which keyed requests a twin has done, so that a repeat is answered and not done again.
//!
//! The newest entries lie in the core record, the rest in one page, rewritten as a whole when the part in the core is
//! full. What was forgotten leaves one number behind: no key made up to `forgotten_until` is ever called new again.
//!
//! ```text
//! core  layout 1 | whether it forgot u8 | forgotten_until u64 | entries in the page u16 | checksum of the page u32 | entries
//! page  layout 1 | entries | CRC-32C
//! entry id 16 bytes | fingerprint u64 | revision u64 | made_at u64 | reply length u16, ffff: not kept | reply
//! ```

mod entry;

pub use entry::{Entry, id};

use super::record::{self, Reader};
use crate::model::{Timestamp, limits::RING_REPLY_BYTES_MAX};

/// Name of the page that holds the older part.
pub const PAGE: &str = "ring";
/// Most bytes in the core record.
pub const CORE_BYTES_MAX: usize = 1024;
/// Most bytes of the page; the whole ring stays below, so that it fits when it moves there.
pub const PAGE_BYTES_MAX: usize = 8 * 1024;

const LAYOUT: u8 = 1;
const CORE_HEAD_BYTES: usize = 1 + 1 + 8 + 2 + 4;
const PAGE_FRAME_BYTES: usize = 1 + 4;

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    /// It was not used before.
    New,
    /// The same request was done.
    Repeat(&'a Entry),
    /// Another request was done under it.
    Reused,
    /// It may have been used and forgotten.
    TooOld {
        /// Keys made up to this time may have been forgotten.
        forgotten_until: Timestamp,
    },
}

/// The requests a twin has done, as far back as its bounds allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// The part in the page first, then the part in the core; each in the order kept.
    entries: Vec<Entry>,
    forgotten_until: Option<Timestamp>,
    paged: u16,
    page_checksum: u32,
}

impl Ring {
    /// Says what is known of a key.
    pub fn look(&self, id: &[u8; 16], fingerprint: u64, made_at: Timestamp) -> Seen<'_> {
        match self.entries.iter().rev().find(|entry| entry.id == *id) {
            Some(entry) if entry.fingerprint == fingerprint => Seen::Repeat(entry),
            Some(_) => Seen::Reused,
            None => match self.forgotten_until {
                Some(forgotten_until) if made_at <= forgotten_until => Seen::TooOld { forgotten_until },
                Some(_) | None => Seen::New,
            },
        }
    }

    /// Keeps a request that [`Ring::look`] called new; forgets those whose keys were made earliest beyond
    /// `entries_max` or the byte bound. A reply above [`RING_REPLY_BYTES_MAX`] is left out.
    pub fn keep(&mut self, mut entry: Entry, entries_max: usize) {
        entry.reply = entry.reply.filter(|reply| reply.len() <= RING_REPLY_BYTES_MAX);
        self.entries.push(entry);
        let mut bytes = self.entries.iter().map(Entry::bytes).sum::<usize>() + PAGE_FRAME_BYTES;
        while self.entries.len() > entries_max || bytes > PAGE_BYTES_MAX {
            bytes -= self.forget_earliest();
        }
    }

    /// Forgets by the time of the key, not by arrival: a caller whose clock is ahead must not, when its key leaves,
    /// make every other caller's keys too old.
    fn forget_earliest(&mut self) -> usize {
        let Some((at, _)) = self.entries.iter().enumerate().min_by_key(|(_, entry)| entry.made_at) else { return 0 };
        let entry = self.entries.remove(at);
        self.paged -= u16::from(at < usize::from(self.paged));
        self.forgotten_until = self.forgotten_until.max(Some(entry.made_at));
        entry.bytes()
    }

    /// Moves everything into the page if the part in the core has passed [`CORE_BYTES_MAX`]. The page must be written
    /// as [`PAGE`] in the same commit as the core that is encoded after this call.
    pub fn page(&mut self) -> Option<Vec<u8>> {
        if self.bytes() <= CORE_BYTES_MAX {
            return None;
        }
        let mut page = vec![LAYOUT];
        for entry in &self.entries {
            entry.encode(&mut page);
        }
        self.page_checksum = crc32c::crc32c(&page);
        page.extend_from_slice(&self.page_checksum.to_le_bytes());
        self.paged = u16::try_from(self.entries.len()).expect("the page's bound is below 65,536 entries");
        Some(page)
    }

    /// Appends the part for the core record, at most [`CORE_BYTES_MAX`] if [`Ring::page`] was asked before; nothing
    /// for a ring that never kept anything.
    pub fn encode_core(&self, out: &mut Vec<u8>) {
        if self.is_empty() {
            return;
        }
        out.push(LAYOUT);
        out.push(u8::from(self.forgotten_until.is_some()));
        out.extend_from_slice(&self.forgotten_until.unwrap_or_default().unix_ms().to_le_bytes());
        out.extend_from_slice(&self.paged.to_le_bytes());
        out.extend_from_slice(&self.page_checksum.to_le_bytes());
        for entry in self.in_core() {
            entry.encode(out);
        }
    }

    /// Whether a core was written with a page, which [`Ring::decode`] then asks for.
    pub fn needs_page(core: &[u8]) -> Result<bool, record::Error> {
        Ok(Head::decode(&mut Reader(core))?.is_some_and(|head| head.paged > 0))
    }

    /// Reads a ring back. A page that is missing, or is not the one written with this core, is an error.
    pub fn decode(core: &[u8], page: Option<&[u8]>) -> Result<Self, record::Error> {
        let mut core = Reader(core);
        let Some(Head { forgotten_until, paged, page_checksum }) = Head::decode(&mut core)? else {
            return Ok(Self::default());
        };
        let mut entries = Vec::new();
        if paged > 0 {
            let page = page.ok_or_else(|| record::frame("the ring's page is missing"))?;
            let mut rest = Reader(open_page(page, page_checksum)?);
            while !rest.0.is_empty() {
                entries.push(Entry::decode(&mut rest)?);
            }
            // What was forgotten since the page was written is still in it. Of keys made in the very millisecond that
            // was forgotten last some come back: they were done, and to say so is no worse than too old.
            entries.retain(|entry| Some(entry.made_at) >= forgotten_until);
        }
        let paged = u16::try_from(entries.len()).map_err(|_| record::frame("the ring's page has too many entries"))?;
        while !core.0.is_empty() {
            entries.push(Entry::decode(&mut core)?);
        }
        Ok(Self { entries, forgotten_until, paged, page_checksum })
    }

    /// Whether nothing was ever kept; its section may then be left out.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.forgotten_until.is_none()
    }

    /// Bytes that [`Ring::encode_core`] appends.
    pub fn bytes(&self) -> usize {
        if self.is_empty() { 0 } else { CORE_HEAD_BYTES + self.in_core().iter().map(Entry::bytes).sum::<usize>() }
    }

    /// Resident bytes beyond its own size.
    pub fn heap_bytes(&self) -> usize {
        let replies = self.entries.iter().filter_map(|entry| entry.reply.as_ref()).map(|reply| reply.len());
        self.entries.capacity() * size_of::<Entry>() + replies.sum::<usize>()
    }

    fn in_core(&self) -> &[Entry] {
        &self.entries[usize::from(self.paged)..]
    }
}

/// What stands in front of the core's entries.
struct Head {
    forgotten_until: Option<Timestamp>,
    paged: u16,
    page_checksum: u32,
}

impl Head {
    /// `None` for a ring that never kept anything.
    fn decode(core: &mut Reader<'_>) -> Result<Option<Self>, record::Error> {
        if core.0.is_empty() {
            return Ok(None);
        }
        check_layout(core)?;
        let [forgot] = core.number()?;
        let until = Timestamp::from_unix_ms(u64::from_le_bytes(core.number()?));
        Ok(Some(Self {
            forgotten_until: (forgot != 0).then_some(until),
            paged: u16::from_le_bytes(core.number()?),
            page_checksum: u32::from_le_bytes(core.number()?),
        }))
    }
}

/// The newest revision that a page's entries name; 0 if they do not read.
pub fn newest(page: &[u8]) -> u64 {
    let Some((covered, _)) = page.split_last_chunk::<4>() else { return 0 };
    let mut rest = Reader(covered);
    if check_layout(&mut rest).is_err() {
        return 0;
    }
    let mut newest = 0;
    while let Ok(entry) = Entry::decode(&mut rest) {
        newest = newest.max(entry.revision);
    }
    newest
}

fn check_layout(from: &mut Reader<'_>) -> Result<(), record::Error> {
    match from.number()? {
        [LAYOUT] => Ok(()),
        [other] => Err(record::frame(&format!("layout {other} of the ring is unknown to this build"))),
    }
}

/// The page's entries, once its checksum is found to be `expected`.
fn open_page(page: &[u8], expected: u32) -> Result<&[u8], record::Error> {
    let (covered, checksum) = page.split_last_chunk().ok_or_else(|| record::frame("the ring's page is cut short"))?;
    let (found, computed) = (u32::from_le_bytes(*checksum), crc32c::crc32c(covered));
    if found != computed {
        return Err(record::Error::Checksum { found, computed });
    }
    if found != expected {
        return Err(record::frame("the ring's page is not the one written with this record"));
    }
    let mut rest = Reader(covered);
    check_layout(&mut rest)?;
    Ok(rest.0)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::model::{Principal, RequestKey};

    fn entry(text: u8, made_at: u64, reply: Option<usize>) -> Entry {
        let made_at = Timestamp::from_unix_ms(made_at);
        let id = id(&Principal::Host, &RequestKey::new(&text.to_string(), made_at));
        let reply = reply.map(|bytes| vec![text; bytes].into());
        Entry { id, fingerprint: u64::from(text), revision: made_at.unix_ms(), made_at, reply }
    }

    /// Writes as a commit does: the page if there is one, then the core.
    fn commit(ring: &mut Ring, page: &mut Option<Vec<u8>>) -> Vec<u8> {
        *page = ring.page().or(page.take());
        let mut core = Vec::new();
        ring.encode_core(&mut core);
        assert_eq!(core.len(), ring.bytes());
        assert!(core.len() <= CORE_BYTES_MAX && page.as_ref().is_none_or(|page| page.len() <= PAGE_BYTES_MAX));
        core
    }

    proptest! {
        /// The model remembers everything; the ring may only ever know less, and must say so.
        #[test]
        fn a_key_that_was_kept_is_never_called_new(
            steps in vec((any::<u8>(), option::of(0..140_usize), any::<bool>()), 1..400),
            entries_max in prop_oneof![0..6_usize, Just(40), Just(128)],
        ) {
            let (mut ring, mut page, mut kept) = (Ring::default(), None, BTreeMap::new());
            for (text, reply, restart) in steps {
                // Each key has its own time, in no order, and some have the same.
                let given = entry(text, u64::from(text) * 7919 % 61, reply);
                match (ring.look(&given.id, given.fingerprint, given.made_at), kept.get(&given.id)) {
                    (Seen::New, known) => {
                        prop_assert_eq!(known, None);
                        kept.insert(given.id, given.clone());
                        ring.keep(given, entries_max);
                        prop_assert!(ring.entries.len() <= entries_max);
                    }
                    (Seen::Repeat(found), known) => {
                        let known: &Entry = known.unwrap();
                        prop_assert_eq!((found.revision, found.made_at), (known.revision, known.made_at));
                        let reused = ring.look(&given.id, given.fingerprint + 1, given.made_at);
                        prop_assert_eq!(reused, Seen::Reused);
                    }
                    (Seen::TooOld { forgotten_until }, _) => prop_assert!(given.made_at <= forgotten_until),
                    (Seen::Reused, _) => prop_assert!(false, "the request was the same"),
                }
                let core = commit(&mut ring, &mut page);
                let read = Ring::decode(&core, page.as_deref()).unwrap();
                prop_assert!(ring.entries.iter().all(|entry| read.entries.contains(entry)), "nothing is lost");
                prop_assert!(read.entries.iter().all(|entry| kept.contains_key(&entry.id)), "nothing is made up");
                let ids: BTreeSet<_> = read.entries.iter().map(|entry| entry.id).collect();
                prop_assert_eq!(ids.len(), read.entries.len(), "nothing is there twice");
                prop_assert_eq!(read.forgotten_until, ring.forgotten_until);
                prop_assert_eq!(Ring::needs_page(&core).unwrap(), ring.paged > 0);
                if Ring::needs_page(&core).unwrap() {
                    prop_assert!(Ring::decode(&core, None).is_err(), "a missing page is an error");
                }
                if restart {
                    ring = read;
                }
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut core in vec(any::<u8>(), 0..100), page in option::of(vec(any::<u8>(), 0..99))) {
            drop(Ring::decode(&core, page.as_deref()));
            core.insert(0, LAYOUT);
            drop(Ring::decode(&core, page.as_deref()));
        }
    }

    #[test]
    fn the_page_is_written_once_for_many_keys() {
        let (mut ring, mut pages) = (Ring::default(), 0_usize);
        for at in 0..200 {
            ring.keep(entry(at, 1000 + u64::from(at), None), 128);
            pages += usize::from(ring.page().is_some());
        }
        assert!((1..=10).contains(&pages), "{pages} pages");
        assert_eq!(ring.entries.len(), 128);
    }

    #[test]
    fn the_page_of_another_record_is_refused() {
        let (mut ring, mut page) = (Ring::default(), None);
        for at in 0..100 {
            ring.keep(entry(at, 1000, None), 128);
        }
        commit(&mut ring, &mut page);
        let older = page.clone();
        for at in 100..200 {
            ring.keep(entry(at, 2000, None), 128);
        }
        let core = commit(&mut ring, &mut page);
        assert!(Ring::decode(&core, page.as_deref()).is_ok());
        assert!(Ring::decode(&core, older.as_deref()).is_err());
    }

    /// A ring whose every part is used: forgotten keys, a page, entries in the core, replies kept and not.
    fn golden() -> (Ring, Vec<u8>) {
        let (mut ring, mut page) = (Ring::default(), None);
        for at in 0..40 {
            ring.keep(entry(at, 1_700_000_000_000 + u64::from(at), (at % 3 > 0).then_some(at.into())), 30);
            page = ring.page().or(page);
        }
        (ring, page.expect("forty keys are more than the core holds"))
    }

    #[test]
    fn a_ring_of_layout_1_is_read_as_it_was_meant() {
        let [core, page] =
            ["ring-1", "ring-page-1"].map(|name| std::fs::read(format!("tests/golden/{name}.bin")).unwrap());
        let (ring, _) = golden();
        let read = Ring::decode(&core, Some(&page)).unwrap();
        assert_eq!(read.forgotten_until, ring.forgotten_until);
        for entry in &ring.entries {
            assert!(read.entries.contains(entry), "{entry:?}");
        }
        assert_eq!(newest(&page), read.entries[usize::from(read.paged) - 1].revision);
    }

    #[test]
    fn a_ring_is_still_written_in_the_committed_layout() {
        let (ring, page) = golden();
        let mut core = Vec::new();
        ring.encode_core(&mut core);
        for (name, bytes) in [("ring-1", core), ("ring-page-1", page)] {
            let file = format!("tests/golden/{name}.bin");
            assert!(bytes == std::fs::read(&file).unwrap(), "{file}: a new layout needs a new number and file");
        }
    }

    #[test]
    fn a_key_from_the_future_does_not_make_the_present_too_old() {
        let mut ring = Ring::default();
        ring.keep(entry(0, u64::MAX, None), 2);
        for at in 1..9 {
            ring.keep(entry(at, u64::from(at), None), 2);
        }
        assert_eq!(ring.look(&entry(9, 9, None).id, 0, Timestamp::from_unix_ms(9)), Seen::New);
    }
}
