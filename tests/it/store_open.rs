//! What a directory can be that a store is to be opened in.

#![allow(clippy::unwrap_used, reason = "a helper of tests")]

use std::{
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
    sync::{Arc, mpsc},
};

use service_twin::{
    model::{Key, Outcome},
    store::{
        Address, Done, Error, Item, Level, Load, Loaded, Slot, Store as _,
        sled::{OpenError, Options, SledStore},
    },
};

fn options() -> Options {
    Options { level: Level::Flushed, ..Options::default() }
}

#[test]
fn a_directory_in_use_is_named_after_five_seconds() {
    let directory = tempfile::tempdir().unwrap();
    let first = SledStore::open(directory.path(), options()).unwrap();
    let error = SledStore::open(directory.path(), options()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("in use by another process"), "{error}");
    drop(first);
    SledStore::open(directory.path(), options()).unwrap();
}

#[test]
fn a_place_that_cannot_be_written_is_named_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, b"in the way").unwrap();
    let error = SledStore::open(&file.join("store"), options()).unwrap_err();
    assert!(matches!(error, OpenError::Directory { .. }), "{error}");
}

#[test]
fn a_database_of_somebody_else_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let db = sled::open(directory.path()).unwrap();
    db.insert("theirs", "value").unwrap();
    db.flush().unwrap();
    drop(db);
    let error = SledStore::open(directory.path(), options()).unwrap_err();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    assert_eq!(sled::open(directory.path()).unwrap().get("theirs").unwrap().unwrap(), "value");
}

#[test]
fn another_format_is_refused_with_both_numbers() {
    for other in [1_u32, 77] {
        let directory = tempfile::tempdir().unwrap();
        let db = sled::open(directory.path()).unwrap();
        db.insert("m/format", &other.to_le_bytes()).unwrap();
        db.flush().unwrap();
        drop(db);
        let error = SledStore::open(directory.path(), options()).unwrap_err();
        assert!(matches!(error, OpenError::Format { found, supported: 2, .. } if found == other), "{error}");
    }
}

#[test]
fn a_damaged_database_is_an_error_and_no_panic() {
    let directory = tempfile::tempdir().unwrap();
    drop(SledStore::open(directory.path(), options()).unwrap());
    std::fs::write(directory.path().join("conf"), b"\xff\xff not a configuration").unwrap();
    let error = SledStore::open(directory.path(), options()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. } | OpenError::Directory { .. }), "{error}");
}

fn wait<T: Send + 'static>(call: impl FnOnce(Done<T>)) -> Result<T, Error> {
    let (send, answer) = mpsc::channel();
    call(Box::new(move |result| drop(send.send(result))));
    answer.recv().unwrap()
}

const TWINS: u8 = 200;
/// Twins of 2 kB that share a page of the database, at most.
const PAGE_TWINS_MAX: usize = 32;

/// Content that no other twin has.
fn content(twin: u8) -> Vec<u8> {
    let mut bytes = vec![twin; 2000];
    bytes[..11].copy_from_slice(format!("TWN1twin{twin:03}").as_bytes());
    bytes
}

fn load(store: &SledStore, twin: u8) -> Result<Loaded, Error> {
    let key = Key::parse(&format!("twin-{twin:03}")).unwrap();
    let address = Arc::new(Address { kind: "thing".into(), key });
    wait(|done| store.load(Load { address, core: true, pages: vec![], prefix: None, under: None }, done))
}

fn put(store: &SledStore, twin: u8) -> Result<(), Error> {
    let key = Key::parse(&format!("twin-{twin:03}")).unwrap();
    let item = Item::Core { kind: "thing".into(), key, sequence: 1, core: content(twin), wake_at: None, terms: vec![] };
    wait(|done| store.put_item(item, done))
}

/// Flips 16 bytes in the middle of what a twin has in the file, wherever that is.
fn damage(directory: &Path, twin: u8) {
    let file = directory.join("db");
    let bytes = std::fs::read(&file).unwrap();
    let wanted = &content(twin)[..11];
    let places: Vec<_> = (0..bytes.len() - 11).filter(|at| &bytes[*at..at + 11] == wanted).collect();
    assert!(!places.is_empty(), "the twin lies in the file");
    let mut file = std::fs::File::options().write(true).open(file).unwrap();
    for at in places {
        file.seek(SeekFrom::Start(u64::try_from(at + 500).unwrap())).unwrap();
        file.write_all(&bytes[at + 500..at + 516].iter().map(|byte| byte ^ 0xff).collect::<Vec<_>>()).unwrap();
    }
}

#[test]
fn a_damaged_record_under_an_open_store_takes_its_page_of_the_database_and_the_rest_goes_on() {
    const DAMAGED: u8 = 77;
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::open(directory.path(), options()).unwrap();
    wait(|done| store.claim(Slot(0), None, done)).unwrap();
    for twin in 0..TWINS {
        put(&store, twin).unwrap();
    }
    wait(|done| store.close(done)).unwrap();
    drop(store);
    // Opened again, so that nothing of it is in memory.
    let store = SledStore::open(directory.path(), options()).unwrap();
    damage(directory.path(), DAMAGED);
    let mut lost = Vec::new();
    for twin in 0..TWINS {
        match load(&store, twin) {
            Ok(loaded) => assert!(loaded.core == Some(content(twin)), "twin {twin} is as it was"),
            Err(error) => {
                assert_eq!(error.outcome(), Outcome::NotApplied);
                lost.push(twin);
            }
        }
    }
    assert!(lost.contains(&DAMAGED) && lost.len() <= PAGE_TWINS_MAX, "{lost:?}");
    assert!(lost.is_sorted_by(|a, b| a + 1 == *b), "neighbours by key: {lost:?}");
    assert!(store.failed().is_none(), "nothing else is held up");
    for twin in [0, TWINS - 1] {
        put(&store, twin).unwrap();
        assert!(load(&store, twin).unwrap().core == Some(content(twin)));
    }
}

/// A store of 200 twins, closed in good order.
fn closed_store(directory: &Path) {
    let store = SledStore::open(directory, options()).unwrap();
    wait(|done| store.claim(Slot(0), None, done)).unwrap();
    for twin in 0..TWINS {
        put(&store, twin).unwrap();
    }
    wait(|done| store.close(done)).unwrap();
}

#[test]
fn nothing_that_damage_takes_from_a_closed_database_is_missed_in_silence() {
    const TRIES: u64 = 24;
    let mut lost = 0;
    let whole = tempfile::tempdir().unwrap();
    closed_store(whole.path());
    let bytes = std::fs::read(whole.path().join("db")).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    for n in 0..TRIES {
        let directory = tempfile::tempdir().unwrap();
        for name in ["db", "conf", "closed"] {
            std::fs::copy(whole.path().join(name), directory.path().join(name)).unwrap();
        }
        std::fs::create_dir(directory.path().join("blobs")).unwrap();
        let mut damaged = bytes.clone();
        // Spread over the file, the last part of it included.
        let at = used / 24 * usize::try_from(n + 1).unwrap() - 16;
        damaged[at..at + 16].iter_mut().for_each(|byte| *byte ^= 0xff);
        std::fs::write(directory.path().join("db"), damaged).unwrap();
        let store = match SledStore::open(directory.path(), options()) {
            Ok(store) => store,
            Err(OpenError::Lost { .. }) => {
                lost += 1;
                continue;
            }
            Err(OpenError::Damaged { .. } | OpenError::Foreign { .. }) => continue,
            Err(other) => panic!("at {at}: {other}"),
        };
        for twin in 0..TWINS {
            if let Ok(loaded) = load(&store, twin) {
                assert!(loaded.core == Some(content(twin)), "at {at}: twin {twin} is not what it was");
            }
        }
    }
    assert!(lost > 0, "sled drops what is behind some of it");
}

#[test]
fn a_store_that_lost_its_end_opens_when_its_mark_is_removed_and_one_that_was_killed_has_none() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("closed");
    closed_store(directory.path());
    assert!(mark.exists());
    // As an older copy of the database under a newer mark.
    std::fs::write(&mark, [7; 16]).unwrap();
    let error = SledStore::open(directory.path(), options()).unwrap_err();
    assert!(matches!(error, OpenError::Lost { .. }) && error.to_string().contains("closed"), "{error}");
    std::fs::remove_file(&mark).unwrap();
    let store = SledStore::open(directory.path(), options()).unwrap();
    assert!(load(&store, 0).unwrap().core.is_some());
    drop(store);
    let store = SledStore::open(directory.path(), options()).unwrap();
    assert!(!mark.exists(), "a store that is open may be killed");
    drop(store);
}
