//! The volatile kind of the simulation: counts, and forgets when it leaves memory.

use service_twin::{
    model::{Key, Timestamp},
    twin::{Decide, Decision, Effect, Message, Rejection, Turn, Twin, Volatile, Wire},
};

use crate::book::Hear;

/// A count of one life in memory.
#[derive(Debug, Default)]
pub struct Tally {
    /// The time of its first change, which tells one life from another.
    began: Option<Timestamp>,
    count: u32,
}

impl Twin for Tally {
    const KIND: &'static str = "tally";
    type Persistence = Volatile;
    type Change = ();

    fn create(_: &str) -> Self {
        Self::default()
    }

    fn apply(&mut self, (): &(), at: Timestamp) {
        self.began.get_or_insert(at);
        self.count += 1;
    }
}

/// Counts, and may tell a book.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Bump(pub Option<(Key, u32)>);

impl Message for Bump {
    type Twin = Tally;
    type Reply = (Timestamp, u32);
}

impl Wire for Bump {
    const NAME: &'static str = "bump/1";
}

impl Decide<Bump> for Tally {
    fn decide(&self, Bump(tell): &Bump, turn: &Turn<'_>) -> Result<Decision<(), (Timestamp, u32)>, Rejection> {
        let decision = Decision::new((self.began.unwrap_or(turn.now), self.count + 1)).change(());
        Ok(match tell {
            Some((to, id)) => decision.effect(Effect::tell(to.clone(), Hear { id: *id })),
            None => decision,
        })
    }
}
