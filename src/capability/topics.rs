//! Topics as a service may use them: the right to publish and subscribe.
//!
//! The messages themselves lie with the topic, a twin of its own kind (`bus`); what is asked here is whether this
//! service may. Names are `component/topic`.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::Registry;
use crate::{
    bus::topic::Wish,
    model::Timestamp,
    twin::{
        Rejection,
        part::{Part, PartTurn, Request, Ruling},
    },
};

/// Hands part and requests to `registry`.
pub fn register(registry: &mut impl Registry) {
    registry.part::<Topics>();
    registry.request::<Permit>();
}

/// What the core record holds of it: nothing yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topics {}

/// There is no fact about it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {}

impl Part for Topics {
    const NAME: &'static str = "topics";
    const SCHEMA: u16 = 1;
    type Change = Change;

    fn apply(&mut self, change: &Change, _: Timestamp) {
        match *change {}
    }
}

/// Asks for the right to use a topic; nothing is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permit {
    /// `component/topic`.
    pub name: CompactString,
    /// What for.
    pub wish: Wish,
}

impl Request for Permit {
    type Part = Topics;
    type Reply = ();
    const OPERATION: &'static str = "use";
    const NAME: &'static str = "topics-permit/1";
    const CREATES: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each(&self.name, self.wish.operation());
    }

    fn heap_bytes(&self) -> usize {
        self.name.len()
    }

    fn decide(&self, _: &Topics, _: &PartTurn<'_>) -> Result<Ruling<Change, ()>, Rejection> {
        Ok(Ruling::new(()))
    }
}
