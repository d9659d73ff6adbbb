//! Bytes written once must be readable for ever: one committed file per format that was ever released.

#![allow(clippy::unwrap_used, reason = "a helper of tests")]

use std::path::PathBuf;

use service_twin::{
    model::{Key, Timestamp},
    store::{Entry, Item, Scan, Store, memory::MemoryStore, transfer},
    twin::{
        Shape,
        record::{self, Head, Section},
    },
};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

const FRAME_1: Head = Head {
    shape: Shape { schema: 3, fingerprint: 0x1234_5678 },
    epoch: 7,
    sequence: 21,
    revision: 34,
    written_at: Timestamp::from_unix_ms(1_700_000_000_123),
};

const FRAME_1_SECTIONS: [(Section, &[u8]); 4] =
    [(Section::State, b"state"), (Section::Outbox, b""), (Section::Ring, b"\x00\xff"), (Section::Journal, b"journal")];

fn frame_1() -> Vec<u8> {
    let mut bytes = Vec::new();
    record::encode(&FRAME_1, &mut bytes, |body| {
        for (section, content) in FRAME_1_SECTIONS {
            body.section(section, |out| out.extend_from_slice(content));
        }
    });
    bytes
}

#[test]
fn a_frame_of_layout_1_is_read_as_it_was_meant() {
    let bytes = std::fs::read(golden("frame-1.bin")).unwrap();
    let record = record::decode(&bytes).unwrap();
    assert_eq!(record.head, FRAME_1);
    for (section, content) in FRAME_1_SECTIONS {
        assert_eq!(record.section(section), Some(content), "{section:?}");
    }
}

#[test]
fn the_present_layout_is_still_the_committed_one() {
    assert_eq!(frame_1(), std::fs::read(golden("frame-1.bin")).unwrap(), "a new layout needs a new magic and file");
}

fn dump_1_items() -> Vec<Item> {
    let (kind, key) = ("service".into(), Key::parse("default/orders").unwrap());
    vec![
        Item::Claimed { slot: 0, epoch: 300 },
        Item::Core {
            kind,
            key: key.clone(),
            sequence: 21,
            core: frame_1(),
            wake_at: Some(Timestamp::from_unix_ms(1_700_000_000_456)),
            terms: vec!["health=up".into(), "tier=1".into()],
        },
        Item::Page { kind: "service".into(), key, name: "journal/1".into(), value: vec![0, 255, 7] },
        Item::Blob { id: *b"0123456789abcdef", value: b"a blob".to_vec() },
    ]
}

fn dump_1() -> Vec<u8> {
    let store = MemoryStore::new();
    for item in dump_1_items() {
        store.put_item(item, Box::new(Result::unwrap));
    }
    let mut bytes = Vec::new();
    transfer::export(&store, &mut bytes, &mut |_| {}).unwrap();
    bytes
}

#[test]
fn an_export_of_layout_1_is_read_as_it_was_meant() {
    let bytes = std::fs::read(golden("dump-1.bin")).unwrap();
    let store = MemoryStore::new();
    transfer::import(&store, &mut std::io::Cursor::new(bytes), &mut |_| {}).unwrap();
    let (send, items) = std::sync::mpsc::channel();
    let all = Scan::All { after: None, bytes: 1 << 20 };
    store.scan(all, Box::new(move |walked| send.send(walked.unwrap().entries).unwrap()));
    let expected: Vec<_> = dump_1_items().into_iter().map(Entry::Item).collect();
    assert_eq!(items.recv().unwrap(), expected);
}

#[test]
fn an_export_is_still_written_in_the_committed_layout() {
    assert_eq!(dump_1(), std::fs::read(golden("dump-1.bin")).unwrap(), "a new layout needs a new magic and file");
}

/// Run by hand, once, when a format is new: `cargo test --test it write_golden -- --ignored`.
#[test]
#[ignore = "writes the files that the other tests read"]
fn write_golden_files_that_are_missing() {
    for (name, bytes) in [("frame-1.bin", frame_1()), ("dump-1.bin", dump_1())] {
        if !golden(name).exists() {
            std::fs::write(golden(name), bytes).unwrap();
        }
    }
}
