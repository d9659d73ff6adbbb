//! How a round ended is told, by the committer itself: a thread beside it that told large rounds while the next one was
//! written made W4 slower (measured alternating: 55-60 k instead of 65-72 k/s), since all of it shares few cores.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{Shared, round::Entry};
use crate::store::{Committed, Ended, Epoch, Error};

/// What each entry of a round came to; claims also have their epoch.
pub(super) type Results = Vec<Result<Option<Epoch>, Error>>;

/// Releases what rides along, then tells each submitter once.
pub(super) fn tell(shared: &Shared, round: &mut Vec<Entry>, results: Results) {
    let mut submitters: Vec<(Arc<dyn Committed>, Vec<Ended>)> = Vec::new();
    for (entry, result) in round.drain(..).zip(results) {
        match entry {
            Entry::Commit(mut commit) => {
                let result = result.map(|_| ());
                contained(|| commit.release(&result));
                let to = commit.to.clone();
                let ended = commit.ended(result);
                let same = |other: &Arc<dyn Committed>| std::ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(&to));
                match submitters.iter_mut().find(|(other, _)| same(other)) {
                    Some((_, commits)) => commits.push(ended),
                    None => submitters.push((to, vec![ended])),
                }
            }
            Entry::Claim { done, .. } => {
                contained(|| done(result.map(|epoch| epoch.expect("a claim that was written has an epoch"))));
            }
            Entry::Item { done, .. } | Entry::Barrier { done } => contained(|| done(result.map(|_| ()))),
            Entry::Blob { id, done } => {
                shared.unanswered.lock().remove(&id);
                contained(|| done(result.map(|_| id)));
            }
            Entry::Sweep { removed, done } => contained(|| done(result.map(|_| removed))),
        }
    }
    for (to, commits) in submitters {
        contained(|| to.ended(commits));
    }
}

/// A submitter's panic ends neither the round nor the store.
fn contained(call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!("whoever waited for a commit panicked on hearing of it");
    }
}
