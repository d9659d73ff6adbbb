//! How a round ended is told, by the committer itself: a thread beside it that told large rounds while the next one was
//! written made W4 slower (measured alternating: 55-60 k instead of 65-72 k/s), since all of it shares few cores.

use super::{Shared, round::Entry};
use crate::store::{
    Epoch, Error,
    told::{Told, contained},
};

/// What each entry of a round came to; claims also have their epoch.
pub(super) type Results = Vec<Result<Option<Epoch>, Error>>;

/// Releases what rides along, then tells each submitter once.
pub(super) fn tell(shared: &Shared, round: &mut Vec<Entry>, results: Results) {
    let mut told = Told::default();
    for (entry, result) in round.drain(..).zip(results) {
        match entry {
            Entry::Commit(commit) => told.add(commit, result.map(|_| ())),
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
    told.tell();
}
