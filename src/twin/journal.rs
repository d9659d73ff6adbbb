//! The journal: who changed what and when, so that a twin can be read as it was.
//!
//! The newest entries lie in the core record, in the [`Tail`]. When that is full they leave it as one **chunk**, a page
//! that is written once and never again; after every few chunks a **base** holds the whole state, so that a read at any
//! moment is base + replay. A base and the chunks after it are a group; groups are forgotten whole, oldest first.
//! `docs/decisions/0002-journal-chunks.md` says why.
//!
//! Start at [`Tail::append`] and [`Tail::rotate`] for writing, [`Tail::reads`] and [`replay`] for reading.

mod page;
mod replay;

use std::{mem, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

pub use page::{FOLDER, Name, base_name, chunk_name, decode_base, decode_chunk, parse};
pub use replay::{Error, Moment, Reads, Replayed, Retold, replay, retell};

use super::{
    PageWrite, Shape, persistence,
    record::{self, Reader},
};
use crate::model::{Principal, Timestamp, TraceParent, limits};

/// Bytes of entries from which on they leave the core record.
pub const TAIL_BYTES_MAX: usize = 1024;
/// Most bytes of entries in one chunk; an entry above it has a chunk of its own.
pub const CHUNK_BYTES_MAX: usize = 24 * 1024;
/// Most bytes of one entry, as [`Entry::fits`] counts them.
pub const ENTRY_BYTES_MAX: usize = limits::PAGE_BYTES_MAX - 256;
/// Chunks after which a base is written.
pub const CHUNKS_PER_BASE: u16 = 8;
/// Most chunks kept, give or take a group.
pub const PAGES_MAX: usize = 128;
/// How long entries are kept, give or take a group.
pub const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

const LAYOUT: u8 = 1;

/// The changes of one turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The twin's revision after them; each change counts one.
    pub revision: u64,
    /// The time of the turn.
    pub at: Timestamp,
    /// On whose behalf.
    pub principal: Principal,
    /// The trace of the turn.
    pub trace: Option<TraceParent>,
    /// The idempotency key of the request.
    pub request: Option<Arc<str>>,
    /// The encoded changes, in order.
    pub changes: Vec<Vec<u8>>,
}

impl Entry {
    /// Whether an entry whose changes have so many bytes together can be kept; a turn that made a longer one must be
    /// refused.
    pub fn fits(changes: usize, changes_bytes: usize) -> bool {
        // Principal, trace, request and numbers have bounds of their own, well below 2 KiB together.
        2048 + changes * 3 + changes_bytes <= ENTRY_BYTES_MAX
    }

    /// The revision before its changes.
    fn since(&self) -> u64 {
        self.revision.saturating_sub(u64::try_from(self.changes.len()).unwrap_or(u64::MAX))
    }
}

/// A base and the chunks after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    /// The revision of the base; 0 needs none.
    revision: u64,
    /// The time of the first entry after it; [`Timestamp::MAX`] until there is one.
    at: Timestamp,
    /// How many chunks it has.
    chunks: u16,
    /// Whether it can be read; false for a journal that began with a twin that had a past, and for what is forgotten
    /// and not yet deleted.
    based: bool,
}

/// What of the journal lies in the core record: the newest entries, and which pages exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Entries, one behind the other, as they lie in a chunk.
    entries: Vec<u8>,
    known: Known,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// Oldest first; the last one takes the next chunk.
    groups: Vec<Group>,
    /// The revision before the first entry of the tail.
    since: u64,
    /// The newest revision.
    revision: u64,
    /// The time of the newest revision.
    at: Timestamp,
}

/// What a rotation adds to the commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// Pages to write and to delete.
    pub writes: Vec<PageWrite>,
}

impl Tail {
    /// Adds what a turn changed; `shape` is that of the changes.
    ///
    /// # Panics
    /// If changes are missing between this entry and the last one.
    pub fn append(&mut self, entry: &Entry, shape: Shape) {
        let known = &mut self.known;
        let since = entry.since();
        if known.groups.is_empty() {
            known.groups.push(Group { revision: since, at: Timestamp::MAX, chunks: 0, based: since == 0 });
            (known.since, known.revision) = (since, since);
        }
        assert!(since == known.revision, "the journal ends at {}, an entry goes on from {since}", known.revision);
        if let Some(group) = known.groups.last_mut().filter(|group| group.at == Timestamp::MAX) {
            group.at = entry.at;
        }
        (known.revision, known.at) = (entry.revision, entry.at);
        page::append_entry(entry, shape, &mut self.entries);
    }

    /// Bytes that [`Tail::encode`] appends, give or take a few.
    pub fn bytes(&self) -> usize {
        const KNOWN_BYTES: usize = 1 + 2 + 3 + 3 * 9;
        const GROUP_BYTES: usize = 9 + 9 + 3 + 1;
        if self.is_empty() { 0 } else { KNOWN_BYTES + self.known.groups.len() * GROUP_BYTES + self.entries.len() }
    }

    /// At most so many bytes does [`Tail::encode`] append after [`Tail::rotate`], whatever is appended before.
    pub fn bytes_max(&self) -> usize {
        const KNOWN_BYTES: usize = 1 + 2 + 3 + 3 * 9;
        const GROUP_BYTES: usize = 9 + 9 + 3 + 1;
        KNOWN_BYTES + (self.known.groups.len() + 1) * GROUP_BYTES + TAIL_BYTES_MAX
    }

    /// Whether nothing was ever appended; its section may then be left out.
    pub fn is_empty(&self) -> bool {
        self.known.groups.is_empty()
    }

    /// The first revision whose change lies in the tail.
    pub fn first_revision(&self) -> Option<u64> {
        (!self.entries.is_empty()).then(|| self.known.since + 1)
    }

    /// The newest revision; 0 if nothing was ever appended.
    pub fn revision(&self) -> u64 {
        self.known.revision
    }

    /// The entries in the tail, oldest first.
    pub fn entries(&self) -> Result<Vec<(Shape, Entry)>, record::Error> {
        page::read_entries(&self.entries)
    }

    /// Moves the entries out of the core record once they have passed [`TAIL_BYTES_MAX`]. `base` encodes the present
    /// state, which is that of `revision`, under `shape`; it is called when a base is due. The pages must be written in
    /// the same commit as the core that is encoded after this call: at most one base and, for a full commit of entries,
    /// about a dozen chunks, and as many deletions.
    ///
    /// # Panics
    /// If `revision` is not that of the newest entry.
    pub fn rotate(&mut self, revision: u64, base: impl FnOnce() -> Vec<u8>, shape: Shape) -> Option<Rotated> {
        if self.entries.len() <= TAIL_BYTES_MAX {
            return None;
        }
        let known = &mut self.known;
        assert!(revision == known.revision, "the journal ends at {}, the state is that of {revision}", known.revision);
        let mut writes = Vec::new();
        let entries = mem::take(&mut self.entries);
        known.since = revision;
        // Without the state it builds on a chunk is of no use: the journal begins again with a base.
        let unbased = known.groups.pop_if(|group| !group.based).is_some();
        if let Some(group) = known.groups.last_mut() {
            for chunk in page::split(&entries, CHUNK_BYTES_MAX) {
                let name = chunk_name(group.revision, group.chunks);
                writes.push(PageWrite { name, value: Some(page::encode_chunk(chunk)) });
                group.chunks += 1;
            }
        }
        if unbased || known.groups.last().is_some_and(|group| group.chunks >= CHUNKS_PER_BASE) {
            let value = page::encode_base(shape, revision, &base());
            writes.push(PageWrite { name: base_name(revision), value: Some(value) });
            known.groups.push(Group { revision, at: Timestamp::MAX, chunks: 0, based: true });
            self.forget(&mut writes);
        }
        Some(Rotated { writes })
    }

    /// Begins anew with `state`, that of `revision`; nothing before it is read any more. The base must be written in the
    /// same commit; [`Tail::sweep`] deletes what was there.
    pub fn forget_past(&mut self, revision: u64, state: &[u8], shape: Shape) -> PageWrite {
        let known = &mut self.known;
        known.groups.iter_mut().for_each(|group| group.based = false);
        known.groups.retain(|group| group.chunks > 0 || group.revision > 0);
        known.groups.push(Group { revision, at: Timestamp::MAX, chunks: 0, based: true });
        (known.since, known.revision) = (revision, revision);
        self.entries.clear();
        PageWrite { name: base_name(revision), value: Some(page::encode_base(shape, revision, state)) }
    }

    /// Whether there is something to [`Tail::sweep`].
    pub fn is_unswept(&self) -> bool {
        matches!(&self.known.groups[..], [oldest, _, ..] if !oldest.based)
    }

    /// Deletes at most so many pages of what [`Tail::forget_past`] left behind, oldest group first.
    pub fn sweep(&mut self, pages_max: usize) -> Vec<PageWrite> {
        let mut writes = Vec::new();
        while self.is_unswept() && writes.len() < pages_max {
            let Some(oldest) = self.known.groups.first_mut() else { break };
            let name = if let Some(last) = oldest.chunks.checked_sub(1) {
                oldest.chunks = last;
                chunk_name(oldest.revision, last)
            } else {
                let revision = oldest.revision;
                self.known.groups.remove(0);
                if revision == 0 {
                    continue;
                }
                base_name(revision)
            };
            writes.push(PageWrite { name, value: None });
        }
        writes
    }

    /// Deletes the oldest group if there is too much, or if all it says is too old.
    fn forget(&mut self, writes: &mut Vec<PageWrite>) {
        let groups = &mut self.known.groups;
        let chunks: usize = groups.iter().map(|group| usize::from(group.chunks)).sum();
        let old = groups.get(1).is_some_and(|next| self.known.at.since(next.at) > KEPT_FOR);
        if chunks <= PAGES_MAX && !old || groups.len() < 3 {
            return;
        }
        let group = groups.remove(0);
        let chunks = (0..group.chunks).map(|number| chunk_name(group.revision, number));
        let base = (group.revision > 0).then(|| base_name(group.revision));
        writes.extend(chunks.chain(base).map(|name| PageWrite { name, value: None }));
    }

    /// Appends the section's bytes; none if nothing was ever appended.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if self.is_empty() {
            return;
        }
        let known_at = out.len() + 3;
        out.extend_from_slice(&[LAYOUT, 0, 0]);
        persistence::append(&self.known, out);
        let length = u16::try_from(out.len() - known_at).expect("the groups have a bound");
        out[known_at - 2..known_at].copy_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&self.entries);
    }

    /// Reads a tail back; its entries are read when they are asked for.
    pub fn decode(bytes: &[u8]) -> Result<Self, record::Error> {
        let mut rest = match bytes {
            [] => return Ok(Self::default()),
            [LAYOUT, rest @ ..] => Reader(rest),
            [other, ..] => {
                return Err(record::frame(&format!("layout {other} of the journal is unknown to this build")));
            }
        };
        let length = u16::from_le_bytes(rest.number()?);
        let known: Known = persistence::from_bytes(rest.take(usize::from(length))?)?;
        if known.groups.is_empty() || !known.groups.is_sorted_by(|a, b| a.revision < b.revision) {
            return Err(record::frame("the journal's groups are out of order"));
        }
        Ok(Self { entries: rest.0.to_vec(), known })
    }
}
