//! The few primitives of the door and the inbox, in one place so that a model checker can stand in for them.

pub(crate) use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) use atomic_waker::AtomicWaker;
pub(crate) use parking_lot::{Mutex, MutexGuard};
