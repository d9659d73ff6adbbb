//! The kind that is tortured: it enters each command once, on its record or on a page, and tells another of it.

use serde::{Deserialize, Serialize};
use service_twin::{
    model::{Key, Timestamp},
    twin::{Decide, Decision, Durable, Effect, Message, Needs, Rejection, Snapshot, Terms, Turn, Twin, Wire},
};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// Commands entered on the record.
    pub(crate) done: Vec<u32>,
    /// Commands entered, there or on pages.
    pub(crate) count: u32,
    /// What others told; each on a page.
    pub(crate) heard: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Change {
    Done(u32),
    Counted,
    Heard,
}

impl Twin for Account {
    const KIND: &'static str = "account";
    const JOURNAL: bool = true;
    type Persistence = Durable;
    type Change = Change;

    fn create(_: &str) -> Self {
        Self::default()
    }

    fn apply(&mut self, change: &Change, _: Timestamp) {
        match change {
            Change::Done(id) => {
                self.done.push(*id);
                self.count += 1;
            }
            Change::Counted => self.count += 1,
            Change::Heard => self.heard += 1,
        }
    }

    fn index(&self, terms: &mut Terms) {
        if self.heard > 0 {
            terms.add("heard", "yes");
        }
    }
}

impl Snapshot for Account {
    const SCHEMA: u16 = 1;
    const FIELDS: &'static str = "done:[u32] count:u32 heard:u32";
}

macro_rules! wire {
    ($name:ident, $text:literal) => {
        impl Wire for $name {
            const NAME: &'static str = $text;
        }
    };
}

/// Who hears what a twin tells: one twin each.
pub(crate) fn ear(key: &str) -> Key {
    Key::parse(&format!("ear of {key}")).unwrap()
}

/// Enters a command; answers its place and the revision.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Put {
    pub(crate) id: u32,
    pub(crate) on_page: bool,
}
wire!(Put, "put/1");

impl Message for Put {
    type Twin = Account;
    type Reply = (u32, u64);
}

impl Decide<Put> for Account {
    fn decide(&self, Put { id, on_page }: &Put, turn: &Turn<'_>) -> Result<Decision<Change, (u32, u64)>, Rejection> {
        let decision = Decision::new((self.count, turn.revision + 1)).effect(Effect::tell(ear(turn.key), Hear(*id)));
        let bytes = Some(id.to_le_bytes().to_vec());
        Ok(if *on_page {
            let page = format!("at/{:08}", self.count);
            decision.change(Change::Counted).page(&page, bytes.clone()).page("last", bytes)
        } else {
            decision.change(Change::Done(*id))
        })
    }
}

/// What an account tells its ear.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hear(pub(crate) u32);
wire!(Hear, "hear/1");

impl Message for Hear {
    type Twin = Account;
    type Reply = ();
}

impl Decide<Hear> for Account {
    fn decide(&self, Hear(id): &Hear, _: &Turn<'_>) -> Result<Decision<Change, ()>, Rejection> {
        let page = format!("heard/{:08}", self.heard);
        Ok(Decision::new(()).change(Change::Heard).page(&page, Some(id.to_le_bytes().to_vec())))
    }
}

/// Reads the record and its revision.
#[derive(Clone, Debug)]
pub(crate) struct Read;

impl Message for Read {
    type Twin = Account;
    type Reply = (Account, u64);
}

impl Decide<Read> for Account {
    fn decide(&self, _: &Read, turn: &Turn<'_>) -> Result<Decision<Change, (Self, u64)>, Rejection> {
        Ok(Decision::new((self.clone(), turn.revision)))
    }
}

/// Reads a part of the pages under a prefix.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) prefix: &'static str,
    pub(crate) after: Option<String>,
}

impl Message for Leaf {
    type Twin = Account;
    type Reply = Vec<(String, u32)>;

    fn needs(&self) -> Needs {
        Needs::Prefix { prefix: self.prefix.into(), after: self.after.clone(), limit: 256 }
    }
}

impl Decide<Leaf> for Account {
    fn decide(&self, leaf: &Leaf, turn: &Turn<'_>) -> Result<Decision<Change, Vec<(String, u32)>>, Rejection> {
        let pages = turn.prefix(leaf.prefix).into_iter();
        let pages =
            pages.map(|(name, bytes)| (name.to_owned(), u32::from_le_bytes(bytes.try_into().unwrap_or_default())));
        Ok(Decision::new(pages.collect()))
    }
}
