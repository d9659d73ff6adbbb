//! What may go wrong, on purpose and reproducibly.

use std::collections::VecDeque;

use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::store::{Committed, Ended};

/// How a commit goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Handed back: the queue is full.
    Full,
    /// Ends as busy; nothing happened.
    Busy,
    /// Ends as unavailable; nothing happened.
    Unavailable,
    /// Ends with an unknown outcome; it was applied.
    UnknownApplied,
    /// Ends with an unknown outcome; it was not applied.
    UnknownLost,
    /// Ends with an unknown outcome at once and is applied when [`super::MemoryStore::release`] says so, unless a new
    /// claim has fenced it by then.
    UnknownLate,
    /// Does not end until [`super::MemoryStore::release`] says so.
    Held,
}

/// How a load goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadFault {
    /// Ends as unavailable.
    Unavailable,
    /// Does not end until [`super::MemoryStore::release_load`] says so.
    Held,
}

/// How often each fault occurs, in a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Odds {
    /// [`Fault::Full`].
    pub full: u16,
    /// [`Fault::Busy`].
    pub busy: u16,
    /// [`Fault::Unavailable`].
    pub unavailable: u16,
    /// [`Fault::UnknownApplied`].
    pub unknown_applied: u16,
    /// [`Fault::UnknownLost`].
    pub unknown_lost: u16,
    /// [`Fault::UnknownLate`].
    pub unknown_late: u16,
    /// [`Fault::Held`].
    pub held: u16,
    /// [`LoadFault::Unavailable`].
    pub load_unavailable: u16,
    /// [`LoadFault::Held`].
    pub load_held: u16,
}

/// The faults to come: a script first, then by chance. The same seed and the same calls give the same faults.
#[derive(Debug)]
pub struct Faults(Mutex<Plan>);

#[derive(Debug)]
struct Plan {
    commits: VecDeque<Option<Fault>>,
    loads: VecDeque<Option<LoadFault>>,
    chance: Option<(StdRng, Odds)>,
}

impl Faults {
    /// No faults but those that are put in later.
    pub fn none() -> Self {
        Self(Mutex::new(Plan { commits: VecDeque::new(), loads: VecDeque::new(), chance: None }))
    }

    /// Faults by chance.
    pub fn seeded(seed: u64, odds: Odds) -> Self {
        let faults = Self::none();
        faults.0.lock().chance = Some((StdRng::seed_from_u64(seed), odds));
        faults
    }

    /// Says what happens to the next commit after those already scripted; `None` lets it be done.
    pub fn at_next_commit(&self, fault: Option<Fault>) {
        self.0.lock().commits.push_back(fault);
    }

    /// Says what happens to the next load after those already scripted; `None` lets it be done.
    pub fn at_next_load(&self, fault: Option<LoadFault>) {
        self.0.lock().loads.push_back(fault);
    }

    /// No faults from now on; what is held stays held.
    pub fn heal(&self) {
        *self.0.lock() = Plan { commits: VecDeque::new(), loads: VecDeque::new(), chance: None };
    }

    pub(super) fn at_commit(&self) -> Option<Fault> {
        let mut plan = self.0.lock();
        if let Some(scripted) = plan.commits.pop_front() {
            return scripted;
        }
        let (random, odds) = plan.chance.as_mut()?;
        let table = [
            (odds.full, Fault::Full),
            (odds.busy, Fault::Busy),
            (odds.unavailable, Fault::Unavailable),
            (odds.unknown_applied, Fault::UnknownApplied),
            (odds.unknown_lost, Fault::UnknownLost),
            (odds.unknown_late, Fault::UnknownLate),
            (odds.held, Fault::Held),
        ];
        pick(random, &table)
    }

    pub(super) fn at_load(&self) -> Option<LoadFault> {
        let mut plan = self.0.lock();
        if let Some(scripted) = plan.loads.pop_front() {
            return scripted;
        }
        let (random, odds) = plan.chance.as_mut()?;
        let table = [(odds.load_unavailable, LoadFault::Unavailable), (odds.load_held, LoadFault::Held)];
        pick(random, &table)
    }
}

fn pick<F: Copy>(random: &mut StdRng, table: &[(u16, F)]) -> Option<F> {
    let mut drawn = random.random_range(0..1000_u16);
    for (odds, fault) in table {
        match drawn.checked_sub(*odds) {
            None => return Some(*fault),
            Some(rest) => drawn = rest,
        }
    }
    None
}

/// Hears the late end of a commit whose outcome was called unknown.
pub(super) struct Nobody;

impl Committed for Nobody {
    fn ended(&self, _: Vec<Ended>) {}
}
