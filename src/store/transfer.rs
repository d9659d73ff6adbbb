//! Everything in a store as one file, and back into any other store.
//!
//! ```text
//! header   8   "TWNDUMP1", the last byte is the layout of the file
//! item     4   length of the bytes that follow      (integers little-endian)
//!          n   an [`Item`] in bincode 2 standard()
//!          4   CRC-32C of length and bytes
//! …
//! trailer  4   ff ff ff ff
//!          8   number of items
//!          8   bytes of all items, their lengths and checksums included
//!          4   CRC-32C of the 20 bytes before
//! ```
//!
//! Both directions block; they are for a thread of their own, on a store that nobody else writes to.

use std::{
    io::{self, Read, Seek, SeekFrom, Write},
    sync::mpsc::{Receiver, Sender, channel},
};

use super::{Done, Entry, Error as StoreError, Item, Scan, Store};
use crate::model::limits::BLOB_BYTES_MAX;

const MAGIC: &[u8; 8] = b"TWNDUMP1";
const TRAILER: u32 = u32::MAX;
/// Largest encoded item: a blob with its id, with room to spare.
const ITEM_BYTES_MAX: usize = BLOB_BYTES_MAX + 4096;
/// About how many bytes are read from the store at a time.
const WALK_BYTES: usize = 1024 * 1024;
/// Items put and not yet answered.
const WINDOW_ITEMS: usize = 64;

/// Why an export or import ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read or written.
    #[error("the file could not be read or written: {0}")]
    File(#[from] io::Error),
    /// The file is no export, or not the one that was written. Nothing was imported.
    #[error("the file is damaged at byte {at}: {detail}; nothing was imported")]
    Damaged {
        /// Where.
        at: u64,
        /// What is wrong.
        detail: String,
    },
    /// The store already holds something. Nothing was imported.
    #[error("the store is not empty; import into a new directory, or a cluster whose servers are empty")]
    NotEmpty,
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    /// The store dropped a completion.
    #[error("the store ended without an answer")]
    Silent,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Items so far.
    pub items: u64,
    /// Their bytes in the file.
    pub bytes: u64,
}

impl Progress {
    fn add(&mut self, bytes: usize) {
        self.items += 1;
        self.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
    }
}

fn wait<T: Send + 'static>(call: impl FnOnce(Done<T>)) -> Result<T, Error> {
    let (send, answer) = channel();
    call(Box::new(move |result| drop(send.send(result))));
    Ok(answer.recv().map_err(|_| Error::Silent)??)
}

/// Writes everything in `store` to `out`; calls `progress` now and then.
pub fn export(store: &dyn Store, out: &mut dyn Write, progress: &mut dyn FnMut(Progress)) -> Result<Progress, Error> {
    out.write_all(MAGIC)?;
    let mut so_far = Progress::default();
    let mut buffer = Vec::new();
    let mut after = None;
    loop {
        let walked = wait(|done| store.scan(Scan::All { after, bytes: WALK_BYTES }, done))?;
        for entry in walked.entries {
            if let Entry::Item(item) = entry {
                encode(&item, &mut buffer);
                out.write_all(&buffer)?;
                so_far.add(buffer.len());
            }
        }
        progress(so_far);
        after = walked.mark;
        if after.is_none() {
            break;
        }
    }
    let mut trailer = TRAILER.to_le_bytes().to_vec();
    trailer.extend_from_slice(&so_far.items.to_le_bytes());
    trailer.extend_from_slice(&so_far.bytes.to_le_bytes());
    let checksum = crc32c::crc32c(&trailer);
    trailer.extend_from_slice(&checksum.to_le_bytes());
    out.write_all(&trailer)?;
    out.flush()?;
    Ok(so_far)
}

/// Puts everything in `input` into `store`, which must be empty; calls `progress` now and then.
///
/// The whole file is checked first, so a damaged one leaves the store as it was.
pub fn import<R: Read + Seek>(
    store: &dyn Store,
    input: &mut R,
    progress: &mut dyn FnMut(Progress),
) -> Result<Progress, Error> {
    refuse_if_not_empty(store)?;
    let start = input.stream_position()?;
    walk(input, |_, _| Ok(()))?;
    input.seek(SeekFrom::Start(start))?;
    let (send, answers) = channel();
    let mut waiting = 0;
    let total = walk(input, |item, so_far| {
        if waiting == WINDOW_ITEMS {
            answered(&answers)?;
            waiting -= 1;
        }
        put(store, item, &send);
        waiting += 1;
        if so_far.items % 1024 == 0 {
            progress(so_far);
        }
        Ok(())
    })?;
    for _ in 0..waiting {
        answered(&answers)?;
    }
    progress(total);
    Ok(total)
}

fn put(store: &dyn Store, item: Item, send: &Sender<Result<(), StoreError>>) {
    let send = send.clone();
    store.put_item(item, Box::new(move |result| drop(send.send(result))));
}

fn answered(answers: &Receiver<Result<(), StoreError>>) -> Result<(), Error> {
    Ok(answers.recv().map_err(|_| Error::Silent)??)
}

/// A store that was only claimed is empty.
fn refuse_if_not_empty(store: &dyn Store) -> Result<(), Error> {
    let mut after = None;
    loop {
        let walked = wait(|done| store.scan(Scan::All { after, bytes: 1 }, done))?;
        let claimed = |entry: &Entry| matches!(entry, Entry::Item(Item::Claimed { .. }));
        if !walked.entries.iter().all(claimed) {
            return Err(Error::NotEmpty);
        }
        after = walked.mark;
        if after.is_none() {
            return Ok(());
        }
    }
}

fn encode(item: &Item, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[0; 4]);
    crate::twin::append(item, out);
    let length = u32::try_from(out.len() - 4).expect("an item is bounded by limits::BLOB_BYTES_MAX");
    out[..4].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32c::crc32c(out);
    out.extend_from_slice(&checksum.to_le_bytes());
}

/// Reads a file from its header to its end and gives each item to `each`.
fn walk<R: Read>(input: &mut R, mut each: impl FnMut(Item, Progress) -> Result<(), Error>) -> Result<Progress, Error> {
    let mut file = File { input: io::BufReader::with_capacity(256 * 1024, input), at: 0 };
    if file.take::<8>()? != *MAGIC {
        return Err(Error::Damaged { at: 0, detail: "it does not start with TWNDUMP1".to_owned() });
    }
    let mut so_far = Progress::default();
    let mut bytes = Vec::new();
    loop {
        let at = file.at;
        let damaged = |detail: &str| Err(Error::Damaged { at, detail: detail.to_owned() });
        let length = file.take::<4>()?;
        if u32::from_le_bytes(length) == TRAILER {
            let (items, size) = (file.take::<8>()?, file.take::<8>()?);
            let computed = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&length), &items), &size);
            if u32::from_le_bytes(file.take()?) != computed {
                return damaged("the trailer's checksum does not match");
            }
            if (u64::from_le_bytes(items), u64::from_le_bytes(size)) != (so_far.items, so_far.bytes) {
                return damaged("items are missing or were added");
            }
            return if file.ended()? { Ok(so_far) } else { damaged("there is something behind the trailer") };
        }
        let size = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if size > ITEM_BYTES_MAX {
            return damaged("an item is longer than any item can be");
        }
        bytes.resize(size, 0);
        file.fill(&mut bytes)?;
        let computed = crc32c::crc32c_append(crc32c::crc32c(&length), &bytes);
        if u32::from_le_bytes(file.take()?) != computed {
            return damaged("an item's checksum does not match");
        }
        let config = bincode::config::standard().with_limit::<{ ITEM_BYTES_MAX }>();
        match bincode::serde::decode_from_slice(&bytes, config) {
            Ok((item, used)) if used == size => {
                so_far.add(size + 8);
                each(item, so_far)?;
            }
            Ok(_) => return damaged("an item is followed by bytes that belong to none"),
            Err(error) => return damaged(&format!("an item does not decode: {error}")),
        }
    }
}

struct File<R> {
    input: R,
    at: u64,
}

impl<R: Read> File<R> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        match self.input.read_exact(bytes) {
            Ok(()) => {
                self.at += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(Error::Damaged { at: self.at, detail: "it ends too early".to_owned() })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn ended(&mut self) -> Result<bool, Error> {
        Ok(self.input.read(&mut [0])? == 0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::{
        model::{Key, Timestamp},
        store::{
            memory::MemoryStore,
            sled::{Options, SledStore},
        },
    };

    fn filled() -> MemoryStore {
        let store = MemoryStore::new();
        let key = |n: usize| Key::parse(&format!("default/größe-{n}")).unwrap();
        let mut items = vec![
            Item::Claimed { slot: 0, epoch: 9 },
            Item::Blob { id: [3; 16], value: vec![5; BLOB_BYTES_MAX] },
            Item::Blob { id: [4; 16], value: vec![] },
        ];
        for n in 0..300 {
            items.push(Item::Core {
                kind: "service".into(),
                key: key(n),
                sequence: 7,
                core: vec![1; n * 10],
                wake_at: (n % 3 == 0).then_some(Timestamp::from_unix_ms(5)),
                terms: vec!["a=b".into()],
            });
            let name = format!("page/{n}").into();
            items.push(Item::Page { kind: "service".into(), key: key(n % 7), name, value: vec![2; n] });
        }
        for item in items {
            wait(|done| store.put_item(item, done)).unwrap();
        }
        store
    }

    fn exported(store: &dyn Store) -> Vec<u8> {
        let mut file = Vec::new();
        export(store, &mut file, &mut |_| {}).unwrap();
        file
    }

    #[test]
    fn an_export_travels_from_memory_to_sled_and_back() {
        let file = exported(&filled());
        let directory = tempfile::tempdir().unwrap();
        let sled = SledStore::open(directory.path(), Options::default()).unwrap();
        wait(|done| sled.claim(crate::store::Slot(0), None, done)).unwrap();
        let mut calls = 0;
        let total = import(&sled, &mut Cursor::new(&file), &mut |_| calls += 1).unwrap();
        assert_eq!((total.items, calls > 0), (603, true));
        let back = MemoryStore::new();
        import(&back, &mut Cursor::new(exported(&sled)), &mut |_| {}).unwrap();
        assert!(exported(&back) == file);
        let again = import(&sled, &mut Cursor::new(&file), &mut |_| {});
        assert!(matches!(again, Err(Error::NotEmpty)));
    }

    #[test]
    fn a_damaged_file_is_refused_before_anything_is_imported() {
        let small = MemoryStore::new();
        let core = vec![1; 50];
        let (kind, key) = ("service".into(), Key::parse("a").unwrap());
        let item = Item::Core { kind, key, sequence: 1, core, wake_at: None, terms: vec![] };
        wait(|done| small.put_item(item, done)).unwrap();
        let whole = exported(&small);
        let refused = |bytes: &[u8], what: &str| {
            let store = MemoryStore::new();
            let result = import(&store, &mut Cursor::new(bytes), &mut |_| {});
            assert!(matches!(result, Err(Error::Damaged { .. })), "{what}: {result:?}");
            assert_eq!(store.records(), 0, "{what}");
        };
        for length in 0..whole.len() {
            refused(&whole[..length], &format!("cut to {length} bytes"));
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            refused(&bytes, &format!("bit {bit} flipped"));
        }
        refused(&[whole.as_slice(), b"x"].concat(), "something behind it");
    }
}
