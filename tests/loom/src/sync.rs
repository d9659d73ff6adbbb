//! `src/runtime/sync.rs` with loom's primitives: the same names, the same signatures.

use std::task::Waker;

pub(crate) use loom::sync::{
    MutexGuard,
    atomic::{AtomicUsize, Ordering},
};

/// `parking_lot::Mutex`: no poison.
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("no model panics under a lock")
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }
}

/// One try shows every order; more of them only repeat it.
pub(crate) const DOOR_TRIES: u32 = 1;

pub(crate) fn pause() {
    loom::thread::yield_now();
}

/// `atomic_waker::AtomicWaker`.
pub(crate) struct AtomicWaker(loom::future::AtomicWaker);

impl AtomicWaker {
    pub(crate) fn new() -> Self {
        Self(loom::future::AtomicWaker::new())
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.0.register_by_ref(waker);
    }

    pub(crate) fn wake(&self) {
        self.0.wake();
    }
}
