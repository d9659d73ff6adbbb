//! The kinds that tests of the runtime drive: a counter in both flavours.

use serde::{Deserialize, Serialize};
use service_twin::{
    model::{Key, Timestamp},
    twin::{
        Answer, Decide, Decision, Durable, Effect, Event, Message, Needs, Rejection, Snapshot, Turn, Twin, Volatile,
        Wire,
    },
};

/// Counts in memory only.
#[derive(Debug, Default)]
pub(crate) struct Tally(pub(crate) u64);

impl Twin for Tally {
    const KIND: &'static str = "tally";
    type Persistence = Volatile;
    type Change = u64;
    fn create(_: &str) -> Self {
        Self::default()
    }
    fn apply(&mut self, by: &u64, _: Timestamp) {
        self.0 += by;
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Bump(pub(crate) u64);

impl Message for Bump {
    type Twin = Tally;
    type Reply = u64;
}

impl Decide<Bump> for Tally {
    fn decide(&self, Bump(by): &Bump, _: &Turn<'_>) -> Result<Decision<u64, u64>, Rejection> {
        match by {
            0 => Ok(Decision::new(self.0)),
            666 => panic!("the number of the beast"),
            by if by % 2 == 1 && *by > 99 => Err(Rejection::invalid("odd and large")),
            by => Ok(Decision::new(self.0 + by).change(*by)),
        }
    }
}

/// Counts durably; remembers what others told it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Ledger {
    pub(crate) count: u64,
    pub(crate) told: Vec<(String, u64)>,
    pub(crate) wake: Option<Timestamp>,
    pub(crate) woken: u32,
    pub(crate) padding: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Change {
    Added(u64),
    Told(String, u64),
    WakeAt(Option<Timestamp>),
    Woken,
    Padded(String),
}

impl Twin for Ledger {
    const KIND: &'static str = "ledger";
    const JOURNAL: bool = true;
    type Persistence = Durable;
    type Change = Change;
    fn create(_: &str) -> Self {
        Self::default()
    }
    fn apply(&mut self, change: &Change, _: Timestamp) {
        match change {
            Change::Added(by) => self.count += by,
            Change::Told(who, count) => self.told.push((who.clone(), *count)),
            Change::WakeAt(at) => self.wake = *at,
            Change::Woken => {
                self.wake = None;
                self.woken += 1;
            }
            Change::Padded(text) => self.padding.push_str(text),
        }
    }
    fn event(&self, change: &Change) -> Option<Event> {
        match change {
            Change::Added(by) => Some(Event { name: "added".into(), data: by.to_string().into_bytes().into() }),
            Change::Told(..) | Change::WakeAt(_) | Change::Woken | Change::Padded(_) => None,
        }
    }
    fn wake_at(&self) -> Option<Timestamp> {
        self.wake
    }
    fn wake(&self, _: &Turn<'_>) -> Decision<Change, ()> {
        Decision::new(()).change(Change::Woken)
    }
    fn index(&self, terms: &mut service_twin::twin::Terms) {
        terms.add("parity", if self.count.is_multiple_of(2) { "even" } else { "odd" });
    }
}

impl Snapshot for Ledger {
    const SCHEMA: u16 = 1;
    const FIELDS: &'static str = "count:u64 told:[(String,u64)] wake:Option<u64> woken:u32 padding:String";
}

macro_rules! wire {
    ($name:ident => $reply:ty, $text:literal) => {
        impl Message for $name {
            type Twin = Ledger;
            type Reply = $reply;
        }
        impl Wire for $name {
            const NAME: &'static str = $text;
        }
    };
}

/// Adds; refuses above a million.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Add(pub(crate) u64);
wire!(Add => u64, "add/1");

impl Decide<Add> for Ledger {
    fn decide(&self, Add(by): &Add, _: &Turn<'_>) -> Result<Decision<Change, u64>, Rejection> {
        match by {
            666 => panic!("the number of the beast"),
            by if *by > 1_000_000 => Err(Rejection::Limit { limit: "step".into(), max: 1_000_000, actual: *by }),
            by => Ok(Decision::new(self.count + by).change(Change::Added(*by))),
        }
    }
}

/// Reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Read;
wire!(Read => (u64, u64), "read/1");

impl Decide<Read> for Ledger {
    fn decide(&self, _: &Read, turn: &Turn<'_>) -> Result<Decision<Change, (u64, u64)>, Rejection> {
        Ok(Decision::new((self.count, turn.revision)))
    }
}

/// Reads what others told, how often it was woken, and the padding's length.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Heard;
wire!(Heard => (Vec<(String, u64)>, u32, usize), "heard/1");

impl Decide<Heard> for Ledger {
    fn decide(&self, _: &Heard, _: &Turn<'_>) -> Result<Decision<Change, (Vec<(String, u64)>, u32, usize)>, Rejection> {
        Ok(Decision::new((self.told.clone(), self.woken, self.padding.len())))
    }
}

/// Asks to be woken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WakeMeAt(pub(crate) Timestamp);
wire!(WakeMeAt => (), "wake-me/1");

impl Decide<WakeMeAt> for Ledger {
    fn decide(&self, WakeMeAt(at): &WakeMeAt, _: &Turn<'_>) -> Result<Decision<Change, ()>, Rejection> {
        Ok(Decision::new(()).change(Change::WakeAt(Some(*at))))
    }
}

/// Grows the record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pad(pub(crate) usize);
wire!(Pad => usize, "pad/1");

impl Decide<Pad> for Ledger {
    fn decide(&self, Pad(by): &Pad, _: &Turn<'_>) -> Result<Decision<Change, usize>, Rejection> {
        Ok(Decision::new(self.padding.len() + by).change(Change::Padded("x".repeat(*by))))
    }
}

/// Adds here and tells another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AddAndTell(pub(crate) u64, pub(crate) Key);
wire!(AddAndTell => u64, "add-and-tell/1");

impl Decide<AddAndTell> for Ledger {
    fn decide(&self, AddAndTell(by, to): &AddAndTell, turn: &Turn<'_>) -> Result<Decision<Change, u64>, Rejection> {
        let count = self.count + by;
        let tell = Effect::tell(to.clone(), Tell(turn.key.as_str().to_owned(), count));
        Ok(Decision::new(count).change(Change::Added(*by)).effect(tell))
    }
}

/// What one counter tells another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tell(pub(crate) String, pub(crate) u64);
wire!(Tell => (), "tell/1");

impl Decide<Tell> for Ledger {
    fn decide(&self, Tell(who, count): &Tell, _: &Turn<'_>) -> Result<Decision<Change, ()>, Rejection> {
        Ok(Decision::new(()).change(Change::Told(who.clone(), *count)))
    }
}

/// Asks a chain of twins for the sum of their counts; each asks the next.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AskRound(pub(crate) Vec<Key>);
wire!(AskRound => (), "ask-round/1");

impl Decide<AskRound> for Ledger {
    fn decide(&self, AskRound(rest): &AskRound, _: &Turn<'_>) -> Result<Decision<Change, ()>, Rejection> {
        let Some((next, rest)) = rest.split_first() else { return Ok(Decision::new(())) };
        Ok(Decision::new(()).effect(Effect::ask::<AskRound, Answered>(next.clone(), AskRound(rest.to_vec()))))
    }
}

/// The answer of a round as it comes back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Answered(pub(crate) Result<(), String>);
wire!(Answered => (), "answered/1");

impl From<Answer<()>> for Answered {
    fn from(answer: Answer<()>) -> Self {
        Self(answer.map_err(|failure| failure.to_string()))
    }
}

impl Decide<Answered> for Ledger {
    fn decide(&self, Answered(answer): &Answered, _: &Turn<'_>) -> Result<Decision<Change, ()>, Rejection> {
        let text = answer.as_ref().err().cloned().unwrap_or_else(|| "done".to_owned());
        Ok(Decision::new(()).change(Change::Told(text, 0)))
    }
}

/// Writes a note on a page of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Note(pub(crate) String, pub(crate) String);
wire!(Note => (), "note/1");

impl Decide<Note> for Ledger {
    fn decide(&self, Note(name, text): &Note, _: &Turn<'_>) -> Result<Decision<Change, ()>, Rejection> {
        let value = (!text.is_empty()).then(|| text.clone().into_bytes());
        Ok(Decision::new(()).page(&format!("note/{name}"), value))
    }
}

/// Appends to a note: reads its page and writes it in one turn.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Append(pub(crate) String, pub(crate) String);

impl Message for Append {
    type Twin = Ledger;
    type Reply = String;
    fn needs(&self) -> Needs {
        Needs::Pages(vec![format!("note/{}", self.0)])
    }
}

impl Decide<Append> for Ledger {
    fn decide(&self, Append(name, text): &Append, turn: &Turn<'_>) -> Result<Decision<Change, String>, Rejection> {
        let page = format!("note/{name}");
        let before = turn.page(&page).map(String::from_utf8_lossy).unwrap_or_default();
        let after = format!("{before}{text}");
        Ok(Decision::new(after.clone()).page(&page, Some(after.into_bytes())).change(Change::Added(1)))
    }
}

/// Names every note.
#[derive(Clone, Debug)]
pub(crate) struct Notes;

impl Message for Notes {
    type Twin = Ledger;
    type Reply = Vec<String>;
    fn needs(&self) -> Needs {
        Needs::Prefix { prefix: "note/".to_owned(), after: None, limit: 100 }
    }
}

impl Decide<Notes> for Ledger {
    fn decide(&self, _: &Notes, turn: &Turn<'_>) -> Result<Decision<Change, Vec<String>>, Rejection> {
        Ok(Decision::new(turn.prefix("note/").into_iter().map(|(name, _)| name.to_owned()).collect()))
    }
}
