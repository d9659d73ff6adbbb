//! Bytes of observed pages: a version, then fields in order. A page that does not read back is left out: a gap.

use compact_str::CompactString;

use super::num;
use crate::model::{Timestamp, telemetry::cut};

/// Version of every observed page; earlier ones are read. 1 had no windows, and baselines of one day for the service as a
/// whole; 2 all pairs in one page, and a number beside each bin.
pub(super) const VERSION: u8 = 3;

/// Appends fields.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// A page with nothing but its version.
    pub(super) fn page() -> Self {
        Self(vec![VERSION])
    }

    /// Bytes without a version, to lie inside a page.
    pub(super) fn bare() -> Self {
        Self(Vec::new())
    }

    /// The same, with room for about so many.
    pub(super) fn bare_for(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn append(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// LEB128.
    pub(super) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(num::byte(number & 0x7f) | 0x80);
            number >>= 7;
        }
        self.0.push(num::byte(number));
    }

    pub(super) fn time(&mut self, at: Timestamp) {
        self.number(at.unix_ms());
    }

    pub(super) fn real(&mut self, number: f64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub(super) fn fixed(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// The top three bytes of an `f32`: 16 bits of mantissa, so an error of at most 2^-16.
    pub(super) fn real3(&mut self, number: f32) {
        self.0.extend_from_slice(&number.to_be_bytes()[..3]);
    }

    /// The top two bytes of an `f32`: 8 bits of mantissa, so an error of at most 2^-8.
    pub(super) fn real2(&mut self, number: f32) {
        self.0.extend_from_slice(&number.to_be_bytes()[..2]);
    }

    pub(super) fn text(&mut self, text: &str, bytes_max: usize) {
        let text = cut(text, bytes_max);
        self.number(num::long(text.len()));
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(num::long(bytes.len()));
        self.0.extend_from_slice(bytes);
    }
}

/// Reads fields in the order they were written; `None` for whatever is not there.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    version: u8,
}

impl<'a> Reader<'a> {
    /// A page of the present version, or an earlier one.
    pub(super) fn page(bytes: &'a [u8]) -> Option<Self> {
        let (&version, rest) = bytes.split_first()?;
        (1..=VERSION).contains(&version).then_some(Self { rest, version })
    }

    pub(super) fn bare(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, version: VERSION }
    }

    pub(super) fn version(&self) -> u8 {
        self.version
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(taken)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        if let Some((&byte, rest)) = self.rest.split_first().filter(|(byte, _)| **byte < 0x80) {
            self.rest = rest;
            return Some(u64::from(byte));
        }
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// A count that is at most `max`.
    pub(super) fn count(&mut self, max: usize) -> Option<usize> {
        self.number().filter(|number| *number <= num::long(max)).map(num::at)
    }

    pub(super) fn time(&mut self) -> Option<Timestamp> {
        self.number().map(Timestamp::from_unix_ms)
    }

    pub(super) fn real(&mut self) -> Option<f64> {
        self.take(8).and_then(|bytes| bytes.try_into().ok()).map(f64::from_le_bytes)
    }

    pub(super) fn fixed(&mut self) -> Option<u64> {
        self.take(8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes)
    }

    pub(super) fn real3(&mut self) -> Option<f32> {
        self.take(3).map(|bytes| f32::from_be_bytes([bytes[0], bytes[1], bytes[2], 0]))
    }

    pub(super) fn real2(&mut self) -> Option<f32> {
        self.take(2).map(|bytes| f32::from_be_bytes([bytes[0], bytes[1], 0, 0]))
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.count(self.rest.len())?;
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Option<CompactString> {
        self.bytes().and_then(|bytes| std::str::from_utf8(bytes).ok()).map(CompactString::new)
    }
}
