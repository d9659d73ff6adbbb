//! The outbox: messages to other twins, promised with a commit and kept until their delivery is settled.

use std::sync::Arc;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{persistence, record};
use crate::model::{Key, Step, Timestamp, TraceParent};

/// Most promises that wait at a time.
pub const PROMISES_MAX: usize = 64;
/// Most bytes of promises that wait at a time, as [`Promise::bytes`] counts them.
pub const BYTES_MAX: usize = 16 * 1024;

const LAYOUT: u8 = 1;

/// One message that will be delivered, at least once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// Unique within the twin; grows, also across settling and restarts.
    pub number: u64,
    /// The target's kind.
    pub kind: CompactString,
    /// The target.
    pub key: Key,
    /// Name of the message.
    pub name: CompactString,
    /// The encoded message.
    pub bytes: Vec<u8>,
    /// Name of the message that carries the answer back.
    pub back: Option<CompactString>,
    /// The time of the turn that promised it.
    pub made_at: Timestamp,
    /// The revision of that turn.
    pub revision: u64,
    /// The trace of that turn.
    pub trace: Option<TraceParent>,
    /// The twins that wait for its answer, outermost first.
    pub path: Vec<Step>,
}

impl Promise {
    /// At most so many bytes are needed to encode it.
    pub fn bytes(&self) -> usize {
        // Numbers and lengths are varints: at most 9 bytes each, lengths below 64 KiB at most 3.
        const NUMBERS: usize = 3 * 9;
        const LENGTH: usize = 3;
        const TRACE: usize = 1 + 16 + 8 + 1;
        let texts = [self.kind.len(), self.key.len(), self.name.len(), self.bytes.len()];
        NUMBERS
            + TRACE
            + texts.iter().map(|text| LENGTH + text).sum::<usize>()
            + self.back.as_ref().map_or(1, |back| 1 + LENGTH + back.len())
            + self.path.iter().map(|step| 2 * LENGTH + step.kind.len() + step.key.len()).sum::<usize>()
            + LENGTH
    }
}

/// The promises that wait, in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbox {
    promises: Vec<Promise>,
    promised: u64,
    bytes: usize,
}

impl Outbox {
    /// The number of the next promise.
    pub fn next_number(&self) -> u64 {
        self.promised + 1
    }

    /// Whether `count` further promises of `bytes` together stay within the bounds.
    pub fn fits(&self, count: usize, bytes: usize) -> bool {
        self.promises.len() + count <= PROMISES_MAX && self.bytes + bytes <= BYTES_MAX
    }

    /// Adds a promise, numbered with [`Outbox::next_number`].
    ///
    /// # Panics
    /// If its number was given before.
    pub fn promise(&mut self, promise: Promise) {
        assert!(promise.number > self.promised, "promise {} after {}", promise.number, self.promised);
        self.promised = promise.number;
        self.bytes += promise.bytes();
        self.promises.push(promise);
    }

    /// Removes a promise whose delivery ended; `false` if it does not wait (any more).
    pub fn settle(&mut self, number: u64) -> bool {
        let Ok(at) = self.promises.binary_search_by_key(&number, |promise| promise.number) else { return false };
        self.bytes -= self.promises.remove(at).bytes();
        true
    }

    /// Whether a promise waits.
    pub fn has(&self, number: u64) -> bool {
        self.promises.binary_search_by_key(&number, |promise| promise.number).is_ok()
    }

    /// The promises that wait, oldest first.
    pub fn iter(&self) -> std::slice::Iter<'_, Promise> {
        self.promises.iter()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.promises.len()
    }

    /// Whether none waits. Its section may be left out only if it [`Outbox::is_unused`].
    pub fn is_empty(&self) -> bool {
        self.promises.is_empty()
    }

    /// Whether nothing was ever promised.
    pub fn is_unused(&self) -> bool {
        self.promised == 0
    }

    /// At most so many bytes are needed for the promises that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends the section's bytes; none if it is unused.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if !self.is_unused() {
            out.push(LAYOUT);
            persistence::append(&(self.promised, &self.promises), out);
        }
    }

    /// Reads an outbox back.
    pub fn decode(bytes: &[u8]) -> Result<Self, record::Error> {
        let body = match bytes {
            [] => return Ok(Self::default()),
            [LAYOUT, body @ ..] => body,
            [other, ..] => {
                return Err(record::frame(&format!("layout {other} of the outbox is unknown to this build")));
            }
        };
        let (newest, promises): (u64, Vec<Promise>) = persistence::from_bytes(body)?;
        let numbers = || promises.iter().map(|promise| promise.number);
        if !numbers().is_sorted_by(|a, b| a < b) || numbers().any(|number| number > newest) {
            return Err(record::Error::Body { detail: Arc::from("the promises' numbers do not grow") });
        }
        let bytes = promises.iter().map(Promise::bytes).sum();
        Ok(Self { promises, promised: newest, bytes })
    }
}

impl<'a> IntoIterator for &'a Outbox {
    type Item = &'a Promise;
    type IntoIter = std::slice::Iter<'a, Promise>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn promises() -> impl Strategy<Value = Promise> {
        let texts = ("[a-z]{1,40}", "[a-zü/]{1,60}", "[a-z]{1,9}/1", option::of("[a-z]{1,9}/1"));
        let step = ("[a-z]{1,9}", "[a-z]{1,60}")
            .prop_map(|(kind, key)| Step { kind: kind.into(), key: Key::parse(&key).unwrap() });
        let trace = option::of(any::<([u8; 16], [u8; 8], u8)>().prop_map(|(trace_id, span_id, flags)| TraceParent {
            trace_id,
            span_id,
            flags,
        }));
        (texts, any::<[u64; 2]>(), vec(any::<u8>(), 0..400), trace, vec(step, 0..4)).prop_map(
            |((kind, key, name, back), [made_at, revision], bytes, trace, path)| Promise {
                number: 0,
                kind: kind.into(),
                key: Key::parse(&key).unwrap(),
                name: name.into(),
                bytes,
                back: back.map(Into::into),
                made_at: Timestamp::from_unix_ms(made_at),
                revision,
                trace,
                path,
            },
        )
    }

    proptest! {
        #[test]
        fn numbers_grow_and_what_waits_is_what_was_not_settled(
            steps in vec((promises(), any::<prop::sample::Index>(), 0..3_u8), 0..120),
        ) {
            let mut outbox = Outbox::default();
            let mut waiting: Vec<Promise> = Vec::new();
            let mut given = 0;
            for (mut promise, at, step) in steps {
                if step > 0 && outbox.fits(1, promise.bytes()) {
                    promise.number = outbox.next_number();
                    prop_assert!(promise.number > given);
                    given = promise.number;
                    outbox.promise(promise.clone());
                    waiting.push(promise);
                } else if !waiting.is_empty() {
                    let settled = waiting.remove(at.index(waiting.len())).number;
                    prop_assert!(outbox.settle(settled));
                    prop_assert!(!outbox.settle(settled));
                }
                prop_assert!(outbox.iter().eq(&waiting));
                prop_assert_eq!(outbox.len(), waiting.len());
                prop_assert!(outbox.len() <= PROMISES_MAX && outbox.bytes() <= BYTES_MAX);
                let mut bytes = Vec::new();
                outbox.encode(&mut bytes);
                prop_assert!(bytes.len() <= outbox.bytes() + 1 + 9 + 3);
                outbox = Outbox::decode(&bytes).unwrap();
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..200)) {
            drop(Outbox::decode(&bytes));
            bytes.insert(0, LAYOUT);
            drop(Outbox::decode(&bytes));
        }
    }

    const GOLDEN_1: &str = "tests/golden/outbox-1.bin";

    /// Two promises that wait, each part of them used, after three that were settled.
    fn golden_1() -> Outbox {
        let promise = |number, back: Option<&str>, trace, path| Promise {
            number,
            kind: "service".into(),
            key: Key::parse("shop/größe").unwrap(),
            name: "alert/1".into(),
            bytes: vec![0, 255, 7],
            back: back.map(Into::into),
            made_at: Timestamp::from_unix_ms(1_700_000_000_000 + number),
            revision: 300 + number,
            trace,
            path,
        };
        let trace = TraceParent { trace_id: [7; 16], span_id: [8; 8], flags: 1 };
        let step = Step { kind: "service".into(), key: Key::parse("shop/orders").unwrap() };
        let mut outbox = Outbox::default();
        for number in 1..=3 {
            outbox.promise(promise(number, None, None, Vec::new()));
        }
        outbox.promise(promise(4, Some("heard/1"), Some(trace), vec![step]));
        outbox.promise(promise(5, None, None, Vec::new()));
        for number in [1, 2, 3] {
            assert!(outbox.settle(number));
        }
        outbox
    }

    #[test]
    fn an_outbox_of_layout_1_is_read_as_it_was_meant() {
        assert_eq!(Outbox::decode(&std::fs::read(GOLDEN_1).unwrap()).unwrap(), golden_1());
    }

    #[test]
    fn an_outbox_is_still_written_in_the_committed_layout() {
        let mut bytes = Vec::new();
        golden_1().encode(&mut bytes);
        assert_eq!(bytes, std::fs::read(GOLDEN_1).unwrap(), "a new layout needs a new number and file");
    }

    /// Run by hand when a layout is new: `cargo test --lib write_golden_outbox -- --ignored`.
    #[test]
    #[ignore = "writes the file that the other tests read"]
    fn write_golden_outbox_if_it_is_missing() {
        if !std::path::Path::new(GOLDEN_1).exists() {
            let mut bytes = Vec::new();
            golden_1().encode(&mut bytes);
            std::fs::write(GOLDEN_1, bytes).unwrap();
        }
    }

    #[test]
    fn numbers_that_do_not_grow_are_refused() {
        let mut bytes = vec![LAYOUT];
        let promise = Promise {
            number: 1,
            kind: "k".into(),
            key: Key::parse("k").unwrap(),
            name: "n/1".into(),
            bytes: Vec::new(),
            back: None,
            made_at: Timestamp::ZERO,
            revision: 1,
            trace: None,
            path: Vec::new(),
        };
        persistence::append(&(1_u64, vec![promise.clone(), promise]), &mut bytes);
        assert!(Outbox::decode(&bytes).is_err());
    }
}
