//! The volatile kind of the simulation: counts, and forgets when it leaves memory.

use std::cell::Cell;

use service_twin::{
    model::{Key, Timestamp},
    twin::{Decide, Decision, Effect, Message, Rejection, Turn, Twin, Volatile, Wire},
};

use crate::book::Hear;

thread_local! {
    /// A seed has a thread of its own, so this is the same in each of its runs.
    static STAYS: Cell<u32> = const { Cell::new(0) };
}

/// A count of one stay in memory.
#[derive(Debug)]
pub struct Tally {
    /// Tells one stay in memory from another.
    stay: u32,
    count: u32,
}

impl Twin for Tally {
    const KIND: &'static str = "tally";
    type Persistence = Volatile;
    type Change = ();

    fn create(_: &str) -> Self {
        STAYS.set(STAYS.get() + 1);
        Self { stay: STAYS.get(), count: 0 }
    }

    fn apply(&mut self, (): &(), _: Timestamp) {
        self.count += 1;
    }
}

/// Counts, and may tell a book.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Bump(pub Option<(Key, u32)>);

impl Message for Bump {
    type Twin = Tally;
    type Reply = (u32, u32);
}

impl Wire for Bump {
    const NAME: &'static str = "bump/1";
}

impl Decide<Bump> for Tally {
    fn decide(&self, Bump(tell): &Bump, _: &Turn<'_>) -> Result<Decision<(), (u32, u32)>, Rejection> {
        let decision = Decision::new((self.stay, self.count + 1)).change(());
        Ok(match tell {
            Some((to, id)) => decision.effect(Effect::tell(to.clone(), Hear { id: *id })),
            None => decision,
        })
    }
}
