//! Bounds that two layers must agree on; their relations are asserted at compile time.

/// Longest key of a twin, in bytes.
pub const KEY_BYTES_MAX: usize = 256;
/// Longest name of a page, in bytes.
pub const PAGE_NAME_BYTES_MAX: usize = 512;
/// Largest core record, frame included.
pub const RECORD_BYTES_MAX: usize = 32 * 1024;
/// Largest page.
pub const PAGE_BYTES_MAX: usize = 32 * 1024;
/// Most keys in one commit, the core record included.
pub const COMMIT_KEYS_MAX: usize = 64;
/// Most bytes in one commit.
pub const COMMIT_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a commit kept free for the ring page and a journal rotation, its base page among them.
pub const COMMIT_RESERVED_BYTES: usize = 96 * 1024;
/// Most bytes of the pages that one message writes, names included, if its record may be as large as any.
pub const WRITE_BYTES_MAX: usize = COMMIT_BYTES_MAX - RECORD_BYTES_MAX - COMMIT_RESERVED_BYTES;
/// Most search terms of one twin.
pub const TERMS_MAX: usize = 32;
/// Most bytes of search terms of one twin.
pub const TERMS_BYTES_MAX: usize = 1024;
/// Largest blob.
pub const BLOB_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest chain of pending asks between twins.
pub const PATH_STEPS_MAX: usize = 16;
/// Most keys a message may name.
pub const NEEDS_KEYS_MAX: usize = 16;
/// Largest reply that an idempotency ring keeps.
pub const RING_REPLY_BYTES_MAX: usize = 128;

const _: () = assert!(RECORD_BYTES_MAX + PAGE_BYTES_MAX <= COMMIT_BYTES_MAX, "a core and a page fit one commit");
const _: () = assert!(NEEDS_KEYS_MAX < COMMIT_KEYS_MAX, "what a message names fits the commit it makes");
const _: () = assert!(TERMS_BYTES_MAX < RECORD_BYTES_MAX, "terms lie beside the record");
