//! Bytes written once must be readable for ever: one committed file per format that was ever released.

use std::path::PathBuf;

use service_twin::{
    model::Timestamp,
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

/// Run by hand, once, when a format is new: `cargo test --test it write_golden -- --ignored`.
#[test]
#[ignore = "writes the files that the other tests read"]
fn write_golden_files_that_are_missing() {
    for (name, bytes) in [("frame-1.bin", frame_1())] {
        if !golden(name).exists() {
            std::fs::write(golden(name), bytes).unwrap();
        }
    }
}
