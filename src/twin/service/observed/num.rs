//! The few conversions between integers and floats that a model needs, each saying what it loses.
#![expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "this is the one place for them"
)]

/// Exact up to 2^53.
pub(super) const fn real(number: u64) -> f64 {
    number as f64
}

/// Rounded to 24 bits of mantissa.
pub(super) const fn short(number: f64) -> f32 {
    number as f32
}

/// Rounded down; saturates; 0 for NaN.
pub(super) const fn whole(number: f64) -> u64 {
    number as u64
}

/// Rounded towards zero; saturates; 0 for NaN.
pub(super) const fn index(number: f64) -> i32 {
    number as i32
}

/// Saturates.
pub(super) const fn small(number: u64) -> u32 {
    if number > u32::MAX as u64 { u32::MAX } else { number as u32 }
}

/// A position; saturates on 32-bit machines.
pub(super) const fn at(number: u64) -> usize {
    number as usize
}

/// A length.
pub(super) const fn long(number: usize) -> u64 {
    number as u64
}

/// The low 32 bits.
pub(super) const fn low(number: u64) -> u32 {
    number as u32
}

/// A position from an offset known not to be negative.
pub(super) const fn slot(number: i32) -> usize {
    number as usize
}

/// A length known to be below 2^31.
pub(super) const fn span(number: usize) -> i32 {
    (number as u32).cast_signed()
}

/// Maps signed to unsigned so that small magnitudes stay small.
pub(super) const fn zigzag(number: i32) -> u64 {
    ((number << 1) ^ (number >> 31)) as u32 as u64
}

/// The inverse of [`zigzag`].
pub(super) const fn unzigzag(number: u64) -> i32 {
    let number = number as u32;
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// The top byte.
pub(super) const fn byte(number: u64) -> u8 {
    number as u8
}
