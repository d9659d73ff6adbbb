//! The states and ids every contestant works on.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// 200 bytes: a counter and what else a small twin holds. Every word of the padding encodes to 9 bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) count: u64,
    rest: [u64; 24],
}

impl Default for State {
    fn default() -> Self {
        Self { count: 0, rest: [u64::MAX / 3; 24] }
    }
}

/// The ~1 KiB state of W2 and W4: 1,027 bytes in bincode.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ledger {
    pub(crate) count: u64,
    name: String,
    pairs: Vec<(String, u64)>,
    rest: Vec<u8>,
}

impl Default for Ledger {
    fn default() -> Self {
        let pair = |at: u64| (format!("field-{at:02}"), u64::MAX / (at + 3));
        // 1 count + 14 name + 1 + 16 × (9 + 9) pairs + 3 + 720 rest
        Self { count: 0, name: "state of a twin".into(), pairs: (0..16).map(pair).collect(), rest: vec![7; 718] }
    }
}

impl Ledger {
    /// One that counts `count` already.
    pub(crate) fn counting(count: u64) -> Self {
        Self { count, ..Self::default() }
    }
}

/// Encodes as the limits and the naive baseline store it.
pub(crate) fn ledger_to(ledger: &Ledger) -> Vec<u8> {
    bincode::serde::encode_to_vec(ledger, bincode::config::standard()).expect("a ledger encodes")
}

/// What a fresh ledger looks like on disk.
///
/// # Panics
/// If it has not the size of the reference figures.
pub(crate) fn ledger_bytes() -> Vec<u8> {
    let bytes = ledger_to(&Ledger::default());
    assert_eq!(bytes.len(), 1_027, "the stored state has the size of the reference figures");
    bytes
}

/// Decodes what [`ledger_to`] made.
pub(crate) fn ledger_from(bytes: &[u8]) -> Ledger {
    bincode::serde::decode_from_slice(bytes, bincode::config::standard()).expect("a ledger decodes").0
}

/// The ids `twin/00000000` and so on.
pub(crate) fn ids(count: u64) -> Arc<[String]> {
    (0..count).map(|at| format!("twin/{at:08}")).collect()
}

/// Which of `count` ids the call number `at` of a hot workload goes to.
pub(crate) fn hot(at: u64, count: usize) -> usize {
    let spread = at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
    usize::try_from(spread).expect("31 bits") % count
}

/// How calls choose ids.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pick {
    /// Each id once.
    InOrder,
    /// Spread over all, again and again.
    Hot,
}

impl Pick {
    /// The id for call number `at`.
    pub(crate) fn index(self, at: u64, count: usize) -> usize {
        match self {
            Self::InOrder => usize::try_from(at).expect("an index"),
            Self::Hot => hot(at, count),
        }
    }
}
