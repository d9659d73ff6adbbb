//! Reading: one twin, an ordered walk, a blob.

use std::ops::Bound;

use compact_str::CompactString;
use sled::{IVec, Tree};

use crate::{
    model::{Key, Timestamp},
    store::{
        Address, Entry, Epoch, Error, Item, Load, Loaded, Prefix, Scan, Slot, Walked,
        keyspace::{self, Bytes, CoreValue},
        matches,
    },
};

/// Twins under a term with `*` up to which they are worth collecting first.
const NARROW_TWINS_MAX: usize = 1024;

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: sled::Error) -> Error {
    Error::Unavailable(error.to_string().into())
}

fn unreadable(what: &str, key: &[u8]) -> Error {
    Error::Unavailable(format!("{what} does not read: {}", key.escape_ascii()).into())
}

fn core_value<'a>(key: &[u8], value: &'a [u8]) -> Result<CoreValue<'a>, Error> {
    CoreValue::decode(value).ok_or_else(|| unreadable("a record", key))
}

/// Reads what is asked of one twin.
pub(super) fn load(tree: &Tree, load: &Load) -> Result<Loaded, Error> {
    let Address { kind, key } = &*load.address;
    if load.under.is_some() {
        let owner = tree.get(keyspace::epoch(Slot::default())).map_err(failed)?;
        load.follows(Epoch(owner.and_then(|value| keyspace::number(&value)).unwrap_or_default()))?;
    }
    let mut loaded = Loaded::default();
    if load.core {
        let core = keyspace::core(kind, key);
        if let Some(value) = tree.get(&core).map_err(failed)? {
            loaded.core = Some(core_value(&core, &value)?.frame.to_vec());
        }
    }
    for name in &load.pages {
        if let Some(value) = tree.get(keyspace::page(kind, key, name)).map_err(failed)? {
            loaded.pages.push((name.clone(), value.to_vec()));
        }
    }
    if let Some(wanted) = &load.prefix {
        loaded.pages.append(&mut run(tree, &load.address, wanted)?);
    }
    loaded.pages.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    loaded.pages.dedup_by(|(one, _), (other, _)| one == other);
    Ok(loaded)
}

/// Reads a run of pages: of one folder if the prefix names it, else of every folder of the kind that starts so.
fn run(tree: &Tree, address: &Address, wanted: &Prefix) -> Result<Vec<(CompactString, Vec<u8>)>, Error> {
    let (folder, _) = keyspace::folded(&wanted.prefix);
    let mut pages = run_in(tree, address, folder, wanted)?;
    if folder.is_empty() {
        let first = keyspace::folders(&address.kind, &wanted.prefix);
        let (mut from, end) = (first.clone(), keyspace::end_of(&first));
        while let Some(key) = tree.range(from..end.clone()).keys().next() {
            let key = key.map_err(failed)?;
            let folder = keyspace::folder_of(&key).ok_or_else(|| unreadable("a page's key", &key))?;
            if !folder.is_empty() {
                pages.extend(run_in(tree, address, folder, wanted)?);
            }
            from = keyspace::end_of(&keyspace::folder(&address.kind, folder));
        }
        pages.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        pages.truncate(wanted.limit);
    }
    Ok(pages)
}

/// Reads a run of pages of one folder.
fn run_in(
    tree: &Tree,
    Address { kind, key }: &Address,
    folder: &str,
    wanted: &Prefix,
) -> Result<Vec<(CompactString, Vec<u8>)>, Error> {
    let rest = wanted.prefix.strip_prefix(folder).unwrap_or_default();
    let start = keyspace::page_in(kind, folder, key, rest);
    let end = keyspace::end_of(&start);
    let from = match wanted.after.as_deref().map(|after| (after, after.strip_prefix(folder))) {
        Some((_, Some(after))) if after >= rest => Bound::Excluded(keyspace::page_in(kind, folder, key, after)),
        Some((after, None)) if after > folder => return Ok(Vec::new()),
        Some(_) | None => Bound::Included(start),
    };
    if let Bound::Excluded(from) = &from
        && *from >= end
    {
        return Ok(Vec::new());
    }
    let entries = tree.range((from, Bound::Excluded(end))).take(wanted.limit);
    let read = |entry: Result<(IVec, IVec), sled::Error>| {
        let (key, value) = entry.map_err(failed)?;
        let (_, name) = keyspace::of_page(&key).ok_or_else(|| unreadable("a page's key", &key))?;
        Ok((name, value.to_vec()))
    };
    entries.map(read).collect()
}

/// Reads a part of a walk.
pub(super) fn scan(tree: &Tree, scan: Scan) -> Result<Walked, Error> {
    match scan {
        Scan::Wake { until, after, limit } => wake(tree, until, after, limit),
        Scan::Find { kind, terms, after, limit } => find(tree, &kind, &terms, after.as_ref(), limit),
        Scan::All { after, bytes } => everything(tree, after, bytes),
    }
}

fn wake(tree: &Tree, until: Timestamp, after: Option<(Timestamp, Address)>, limit: usize) -> Result<Walked, Error> {
    let from = match after {
        Some((at, address)) => Bound::Excluded(keyspace::wake(at, &address)),
        None => Bound::Included(keyspace::wake_start()),
    };
    let mut walked = Walked::default();
    if let Bound::Excluded(from) = &from
        && *from >= keyspace::wake_end(until)
    {
        return Ok(walked);
    }
    for entry in tree.range((from, Bound::Excluded(keyspace::wake_end(until)))) {
        let (key, value) = entry.map_err(failed)?;
        if walked.entries.len() == limit {
            walked.more = true;
            break;
        }
        let (at, address) = keyspace::of_wake(&key).ok_or_else(|| unreadable("a wake entry", &key))?;
        let sequence = keyspace::number(&value).ok_or_else(|| unreadable("a wake entry's value", &key))?;
        walked.entries.push(Entry::Wake { at, address, sequence });
    }
    Ok(walked)
}

/// Twins to look at, in key order.
enum Candidates<'a> {
    /// These.
    Few(std::vec::IntoIter<Key>),
    /// Those that all of these terms have.
    Common { terms: Vec<&'a str>, from: Vec<u8> },
    /// Every twin of the kind.
    All(Box<sled::Iter>),
}

fn find(tree: &Tree, kind: &str, terms: &[CompactString], after: Option<&Key>, limit: usize) -> Result<Walked, Error> {
    let mut candidates = candidates(tree, kind, terms, after)?;
    let mut walked = Walked::default();
    while let Some(key) = candidates.next(tree, kind)? {
        let core = keyspace::core(kind, &key);
        let Some(value) = tree.get(&core).map_err(failed)? else { continue };
        let found = core_value(&core, &value)?.terms();
        // The index is read before the record, so the record has the last word.
        if !terms.iter().all(|wanted| matches(wanted, &found)) {
            continue;
        }
        if walked.entries.len() == limit {
            walked.more = true;
            break;
        }
        walked.entries.push(Entry::Found { key, terms: found });
    }
    Ok(walked)
}

fn candidates<'a>(
    tree: &Tree,
    kind: &str,
    terms: &'a [CompactString],
    after: Option<&Key>,
) -> Result<Candidates<'a>, Error> {
    for start in terms.iter().filter_map(|term| term.strip_suffix('*')) {
        if let Some(few) = few(tree, kind, start, after)? {
            return Ok(Candidates::Few(few.into_iter()));
        }
    }
    let exact: Vec<&str> = terms.iter().filter(|term| !term.ends_with('*')).map(CompactString::as_str).collect();
    if exact.is_empty() {
        let from = match after {
            Some(after) => Bound::Excluded(keyspace::core(kind, after)),
            None => Bound::Included(keyspace::core(kind, "")),
        };
        let end = Bound::Excluded(keyspace::end_of(&keyspace::core(kind, "")));
        return Ok(Candidates::All(Box::new(tree.range((from, end)))));
    }
    let from = after.map(|after| behind(after)).unwrap_or_default();
    Ok(Candidates::Common { terms: exact, from })
}

/// The twins under every term that starts so, sorted; `None` if they are many.
fn few(tree: &Tree, kind: &str, start: &str, after: Option<&Key>) -> Result<Option<Vec<Key>>, Error> {
    let from = keyspace::term_start(kind, start);
    let end = keyspace::end_of(&from);
    let mut keys = Vec::new();
    for (at, entry) in tree.range(from..end).keys().enumerate() {
        if at == NARROW_TWINS_MAX {
            return Ok(None);
        }
        let bytes = entry.map_err(failed)?;
        keys.push(keyspace::key_of_term(&bytes).ok_or_else(|| unreadable("a term entry", &bytes))?);
    }
    keys.retain(|key| after.is_none_or(|after| key > after));
    keys.sort_unstable();
    keys.dedup();
    Ok(Some(keys))
}

/// The bytes right behind a key.
fn behind(key: &str) -> Vec<u8> {
    let mut bytes = key.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

impl Candidates<'_> {
    fn next(&mut self, tree: &Tree, kind: &str) -> Result<Option<Key>, Error> {
        match self {
            Self::Few(keys) => Ok(keys.next()),
            Self::All(twins) => match twins.next() {
                None => Ok(None),
                Some(entry) => {
                    let (bytes, _) = entry.map_err(failed)?;
                    let address = keyspace::address_of_core(&bytes);
                    address.map(|address| Some(address.key)).ok_or_else(|| unreadable("a record's key", &bytes))
                }
            },
            Self::Common { terms, from } => {
                // Each term in turn leaps to the first twin that is not before the farthest one seen.
                let (mut agreeing, mut at) = (0, 0);
                let mut key = None;
                while agreeing < terms.len() {
                    let Some(found) = leap(tree, kind, terms[at], from)? else { return Ok(None) };
                    agreeing = if found.as_bytes() == from.as_slice() { agreeing + 1 } else { 1 };
                    *from = found.as_bytes().to_vec();
                    key = Some(found);
                    at = (at + 1) % terms.len();
                }
                from.push(0);
                Ok(key)
            }
        }
    }
}

/// The first twin with `term` whose key is not less than `from`.
fn leap(tree: &Tree, kind: &str, term: &str, from: &[u8]) -> Result<Option<Key>, Error> {
    let start = keyspace::term(kind, term, "");
    let end = keyspace::end_of(&start);
    let mut seek: Bytes = start;
    seek.extend_from_slice(from);
    let Some(entry) = tree.range(seek..end).keys().next() else { return Ok(None) };
    let bytes = entry.map_err(failed)?;
    keyspace::key_of_term(&bytes).map(Some).ok_or_else(|| unreadable("a term entry", &bytes))
}

fn everything(tree: &Tree, after: Option<Vec<u8>>, bytes: usize) -> Result<Walked, Error> {
    let mut walked = Walked::default();
    let mut taken = 0;
    let mut mark = after.unwrap_or_default();
    for entry in tree.range((Bound::Excluded(mark.clone()), Bound::Unbounded)) {
        let (key, value) = entry.map_err(failed)?;
        if taken >= bytes.max(1) {
            walked.more = true;
            walked.mark = Some(mark);
            return Ok(walked);
        }
        let item = match key.first() {
            Some(&keyspace::EPOCH) => Some(epoch_item(&key, &value)?),
            Some(&keyspace::CORE) => Some(core_item(&key, &value)?),
            Some(&keyspace::PAGE) => Some(page_item(&key, &value)?),
            Some(&keyspace::BLOB) => match keyspace::blob_of(&key) {
                Some((id, true)) => blob(tree, id)?.map(|value| Item::Blob { id, value }),
                Some((_, false)) => None,
                None => return Err(unreadable("a blob's key", &key)),
            },
            // The indexes follow from the records.
            _ => None,
        };
        if let Some(item) = item {
            taken += key.len() + if let Item::Blob { value, .. } = &item { value.len() } else { value.len() };
            walked.entries.push(Entry::Item(item));
        }
        mark = key.to_vec();
    }
    Ok(walked)
}

fn epoch_item(key: &[u8], value: &[u8]) -> Result<Item, Error> {
    match (keyspace::of_epoch(key), keyspace::number(value)) {
        (Some(slot), Some(epoch)) => Ok(Item::Claimed { slot: slot.0, epoch }),
        _ => Err(unreadable("an epoch", key)),
    }
}

fn core_item(key: &IVec, value: &IVec) -> Result<Item, Error> {
    let Address { kind, key } = keyspace::address_of_core(key).ok_or_else(|| unreadable("a record's key", key))?;
    let value = core_value(key.as_bytes(), value)?;
    let terms = value.terms();
    Ok(Item::Core { kind, key, sequence: value.sequence, core: value.frame.to_vec(), wake_at: value.wake_at, terms })
}

fn page_item(key: &IVec, value: &IVec) -> Result<Item, Error> {
    let (address, name) = keyspace::of_page(key).ok_or_else(|| unreadable("a page's key", key))?;
    Ok(Item::Page { kind: address.kind, key: address.key, name, value: value.to_vec() })
}

/// Reads a blob whole; `None` if there is none.
pub(super) fn blob(tree: &Tree, id: [u8; 16]) -> Result<Option<Vec<u8>>, Error> {
    let head = keyspace::blob(id);
    let Some(length) = tree.get(&head).map_err(failed)? else { return Ok(None) };
    let length =
        length.as_ref().try_into().map(u32::from_le_bytes).map_err(|_| unreadable("a blob's length", &head))?;
    let mut value =
        Vec::with_capacity(usize::try_from(length).unwrap_or_default().min(crate::model::limits::BLOB_BYTES_MAX));
    for piece in tree.range(keyspace::piece(id, 0)..keyspace::end_of(&head)).values() {
        value.extend_from_slice(&piece.map_err(failed)?);
    }
    if u32::try_from(value.len()) == Ok(length) { Ok(Some(value)) } else { Err(unreadable("a blob", &head)) }
}
