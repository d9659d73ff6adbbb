//! How many commits ended, told to each submitter once.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{Commit, Committed, Ended, Error};

/// What is to be told.
#[derive(Default)]
pub(super) struct Told(Vec<(Arc<dyn Committed>, Vec<Ended>)>);

impl Told {
    /// Releases what rides along with a commit and remembers how it ended.
    pub(super) fn add(&mut self, mut commit: Commit, result: Result<(), Error>) {
        contained(|| commit.release(&result));
        let to = commit.to.clone();
        let ended = commit.ended(result);
        let same = |other: &Arc<dyn Committed>| std::ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(&to));
        match self.0.iter_mut().find(|(other, _)| same(other)) {
            Some((_, commits)) => commits.push(ended),
            None => self.0.push((to, vec![ended])),
        }
    }

    /// Tells every submitter.
    pub(super) fn tell(self) {
        for (to, commits) in self.0 {
            contained(|| to.ended(commits));
        }
    }
}

/// Calls a submitter, whose panic ends neither the round nor the store.
pub(super) fn contained(call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!("whoever waited for a commit panicked on hearing of it");
    }
}
