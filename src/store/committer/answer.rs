//! How rounds ended is told beside the committer: waking a round's callers takes as long as a good part of writing the
//! next one.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{JoinHandle, ThreadId},
};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{Shared, round::Entry};
use crate::store::{Committed, Ended, Epoch, Error};

/// Rounds that may wait to be told; one more holds up the committer.
const ROUNDS_MAX: usize = 2;
/// A round of at most so many is told by the committer itself: waking another thread takes longer.
const HERE_MAX: usize = 8;

/// What each entry of a round came to; claims also have their epoch.
pub(super) type Results = Vec<Result<Option<Epoch>, Error>>;
type Told = (Vec<Entry>, Results);

/// Tells rounds in their order, small ones at once.
pub(super) struct Answers {
    rounds: Sender<Told>,
    untold: Arc<AtomicUsize>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Answers {
    pub(super) fn start(shared: Arc<Shared>) -> std::io::Result<Self> {
        let (rounds, to_tell) = bounded(ROUNDS_MAX);
        let untold = Arc::new(AtomicUsize::new(0));
        let (of, left) = (shared.clone(), untold.clone());
        let run = move || tell_on(&of, &to_tell, &left);
        let thread = std::thread::Builder::new().name("store-answers".to_owned()).spawn(run)?;
        Ok(Self { rounds, untold, shared, thread })
    }

    /// The thread on which large rounds are told.
    pub(super) fn thread(&self) -> ThreadId {
        self.thread.thread().id()
    }

    /// Tells a round, and leaves it empty.
    pub(super) fn tell(&self, round: &mut Vec<Entry>, results: Results) {
        if round.len() <= HERE_MAX && self.untold.load(Ordering::Acquire) == 0 {
            return tell(&self.shared, round, results);
        }
        self.untold.fetch_add(1, Ordering::AcqRel);
        let told = (std::mem::replace(round, Vec::with_capacity(round.len())), results);
        // The other side goes when this one does.
        self.rounds.send(told).expect("the thread that answers outlives the committer");
    }

    /// Waits until everything is told.
    pub(super) fn end(self) {
        drop(self.rounds);
        if self.thread.join().is_err() {
            tracing::error!("the thread that answers for the store panicked");
        }
    }
}

fn tell_on(shared: &Shared, rounds: &Receiver<Told>, untold: &AtomicUsize) {
    for (mut round, results) in rounds {
        tell(shared, &mut round, results);
        untold.fetch_sub(1, Ordering::AcqRel);
    }
}

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
