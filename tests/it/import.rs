//! An import that does not come to its end.

#![allow(clippy::unwrap_used, reason = "a helper of tests")]

use std::{fs::File, path::Path, process::Stdio, sync::mpsc};

use service_twin::store::{Item, Store as _, memory::MemoryStore, transfer};

use super::process::{Node, Ran, twin};

const BLOBS: u16 = 800;
const BLOB_BYTES: usize = 8 * 1024;
/// Of the 6 MiB of the file, so much has been written when the import is killed.
const WRITTEN_BYTES: u64 = 1024 * 1024;

fn write_export(file: &Path) {
    let store = MemoryStore::new();
    let mut items = vec![Item::Claimed { slot: 0, epoch: 3 }];
    for n in 0..BLOBS {
        let mut id = [7; 16];
        id[..2].copy_from_slice(&n.to_be_bytes());
        items.push(Item::Blob { id, value: vec![id[1]; BLOB_BYTES] });
    }
    for item in items {
        let (send, put) = mpsc::channel();
        store.put_item(item, Box::new(move |result| send.send(result).unwrap()));
        put.recv().unwrap().unwrap();
    }
    transfer::export(&store, &mut File::create(file).unwrap(), &mut |_| {}).unwrap();
}

#[test]
fn an_import_that_was_cut_off_is_not_served_and_a_second_one_brings_everything() {
    let home = tempfile::tempdir().unwrap();
    let (file, folder) = (home.path().join("backup.twins"), home.path().join("data"));
    write_export(&file);
    let run = |args: &[&str]| {
        let mut command = twin();
        command.args(args).env("TWIN_DATA_DIR", &folder).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let ran = |args: &[&str]| Ran::from(run(args).wait_with_output().unwrap());
    let file = file.to_str().unwrap();

    let mut import = run(&["import", file]);
    let written = || std::fs::metadata(folder.join("store.importing/db")).map_or(0, |file| file.len());
    while written() < WRITTEN_BYTES {
        assert!(import.try_wait().unwrap().is_none(), "it was to be killed meanwhile");
        std::thread::yield_now();
    }
    import.kill().unwrap();
    import.wait().unwrap();

    for args in [&["export", "nowhere"][..], &["serve", "--listen", "127.0.0.1:0"][..]] {
        let refused = ran(args);
        assert_eq!(refused.code, 1, "{args:?}: {}", refused.errors);
        assert!(refused.errors.contains("cut off") && refused.errors.contains("twin import"), "{}", refused.errors);
    }

    let second = ran(&["import", file]);
    assert_eq!(second.code, 0, "{}", second.errors);
    let back = home.path().join("again.twins");
    assert_eq!(ran(&["export", back.to_str().unwrap()]).code, 0);
    let (store, mut there) = (MemoryStore::new(), Vec::new());
    transfer::import(&store, &mut File::open(&back).unwrap(), &mut |_| {}).unwrap();
    // A store writes in an order of its own, so it is written once more by the one that wrote the first.
    transfer::export(&store, &mut there, &mut |_| {}).unwrap();
    assert!(std::fs::read(file).unwrap() == there, "everything is there");
    let third = ran(&["import", file]);
    assert!(third.code == 1 && third.errors.contains("not empty"), "{}", third.errors);
    let mut command = twin();
    command.arg("serve");
    drop(Node::spawn(command, &folder));
}
