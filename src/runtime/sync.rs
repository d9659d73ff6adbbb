//! The few primitives of the door and the inbox, in one place so that a model checker can stand in for them.

pub(crate) use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) use atomic_waker::AtomicWaker;
pub(crate) use parking_lot::{Mutex, MutexGuard};

/// How often the inline door tries a lock that another caller holds for a turn: about a microsecond.
pub(crate) const DOOR_TRIES: u32 = 32;

/// Lets the holder go on.
pub(crate) fn pause() {
    std::hint::spin_loop();
}
