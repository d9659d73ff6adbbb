//! What a directory can be that a store is to be opened in.

use service_twin::store::{
    Level,
    sled::{OpenError, Options, SledStore},
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
