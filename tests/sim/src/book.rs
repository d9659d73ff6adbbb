//! The kind that lives in the simulation: a book to which entries are only ever added, so that every answer ever given
//! can be checked against its last page.

use serde::{Deserialize, Serialize};
use service_twin::{
    model::{Key, Lane, Timestamp},
    twin::{
        Answer, Changes, Decide, Decision, Durable, Effect, Event, Message, Needs, PageWrite, Pages, Rejection,
        Snapshot, Turn, Twin, Wire,
    },
};

/// The page that counts.
pub const COUNT: &str = "count";
/// What a panic on purpose says.
pub const BOOM: &str = "boom, on purpose";
/// Prefix of the limit that a refusal on purpose names; what follows is the digest of the entries it saw.
pub const FULL: &str = "entries ";

/// Hearing of this operation panics.
pub const POISON: u32 = u32::MAX;
/// The observed page.
pub const SEEN: &str = "o/seen";

/// What is only observed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How many times something was sniffed.
    pub count: u32,
    saved: u32,
}

/// Everything done, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// Operations in the order they were applied.
    pub done: Vec<u32>,
    /// What others told, and when.
    pub heard: Vec<(u32, Timestamp)>,
    /// Reminders to come.
    pub alarms: Vec<(u32, Timestamp)>,
    /// Reminders that fired, with the time they were due and the time they fired.
    pub fired: Vec<(u32, Timestamp, Timestamp)>,
    /// Facts that observations made known.
    pub sniffed: Vec<u32>,
    /// Questions whose answer came back.
    pub answered: Vec<u32>,
    /// Growth.
    pub padding: String,
    /// The observed part.
    #[serde(skip)]
    pub seen: Seen,
}

/// One fact.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Change {
    /// An operation was done.
    Done(u32),
    /// Another twin told something.
    Heard(u32),
    /// A reminder was set.
    Alarm(u32, Timestamp),
    /// A reminder fired.
    Fired(u32),
    /// Something was sniffed; the text is ballast.
    Sniffed(u32, String),
    /// An answer came back.
    Answered(u32),
    /// The record grew.
    Padded(String),
    /// Taking this in panics.
    Bomb,
}

impl Twin for Book {
    const KIND: &'static str = "book";
    const RECORD_BYTES_MAX: usize = 6 * 1024;
    const JOURNAL: bool = true;
    type Persistence = Durable;
    type Change = Change;

    fn create(_: &str) -> Self {
        Self::default()
    }

    fn apply(&mut self, change: &Change, at: Timestamp) {
        match change {
            Change::Done(id) => self.done.push(*id),
            Change::Heard(id) => self.heard.push((*id, at)),
            Change::Alarm(id, due) => self.alarms.push((*id, *due)),
            Change::Fired(id) => {
                if let Some(found) = self.alarms.iter().position(|(alarm, _)| alarm == id) {
                    let (_, due) = self.alarms.remove(found);
                    self.fired.push((*id, due, at));
                }
            }
            Change::Sniffed(id, ballast) => {
                self.sniffed.push(*id);
                self.padding.push_str(ballast);
            }
            Change::Answered(id) => self.answered.push(*id),
            Change::Padded(text) => self.padding.push_str(text),
            Change::Bomb => panic!("{BOOM}"),
        }
    }

    fn event(&self, change: &Change) -> Option<Event> {
        match change {
            Change::Done(id) => Some(Event { name: "done".into(), data: id.to_le_bytes().to_vec().into() }),
            Change::Heard(_)
            | Change::Alarm(..)
            | Change::Fired(_)
            | Change::Sniffed(..)
            | Change::Answered(_)
            | Change::Padded(_)
            | Change::Bomb => None,
        }
    }

    const OBSERVED: Option<&'static str> = Some("o/");

    fn restore(&mut self, pages: Pages) {
        let count = pages.get(SEEN).map_or(0, |page| u32::from_le_bytes(page[..].try_into().expect("4 bytes")));
        self.seen = Seen { count, saved: count };
    }

    fn unsaved(&self) -> bool {
        self.seen.count != self.seen.saved
    }

    fn save(&mut self, _: Timestamp, _: usize) -> Vec<PageWrite> {
        if !self.unsaved() {
            return Vec::new();
        }
        self.seen.saved = self.seen.count;
        vec![PageWrite { name: SEEN.into(), value: Some(self.seen.count.to_le_bytes().to_vec()) }]
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.alarms.iter().map(|(_, due)| *due).min()
    }

    fn wake(&self, turn: &Turn<'_>) -> Decision<Change, ()> {
        let due = self.alarms.iter().filter(|(_, due)| *due <= turn.now);
        Decision::new(()).changes(due.map(|(id, _)| Change::Fired(*id)))
    }
}

impl Snapshot for Book {
    const SCHEMA: u16 = 1;
    const FIELDS: &'static str = "done:[u32] heard:[(u32,u64)] alarms:[(u32,u64)] fired:[(u32,u64,u64)] sniffed:[u32] answered:[u32] padding:String";
}

/// Folds a list of entries to a number.
pub fn digest(entries: &[u32]) -> u64 {
    entries.iter().fold(0xcbf2_9ce4_8422_2325, |hash, id| (hash ^ u64::from(*id)).wrapping_mul(0x0100_0000_01b3))
}

macro_rules! wire {
    ($name:ident => $reply:ty, $text:literal) => {
        impl Message for $name {
            type Twin = Book;
            type Reply = $reply;
        }
        impl Wire for $name {
            const NAME: &'static str = $text;
        }
    };
}

/// What an operation does beside being entered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Nothing.
    Append,
    /// Is refused if there are so many entries already.
    AppendIfShort(u32),
    /// Tells another twin.
    Tell(Key),
    /// Tells another twin and is not even entered.
    Shout(Key),
    /// Asks another twin and enters its answer.
    Ask(Key),
    /// Tells another twin what it cannot hear.
    Poison(Key),
    /// Asks another twin for an answer that it cannot take.
    AskPoison(Key),
    /// Has a volatile twin tell this one.
    Whisper(Key),
    /// Is only observed, and becomes a fact with so much ballast if there is any.
    Sniff(u16),
    /// Sets a reminder.
    Alarm(Timestamp),
    /// Panics in the decision.
    Boom,
    /// Panics when its change is taken in.
    Bomb,
    /// Grows the record.
    Pad(u16),
    /// Writes a page that others write too.
    Page(u8),
    /// Counts on a page that it reads first.
    Count,
    /// Writes a page of its own and is not entered.
    Scrawl,
}

impl Op {
    /// Whether it is entered in [`Book::done`].
    pub fn is_entered(&self) -> bool {
        match self {
            Self::Append
            | Self::AppendIfShort(_)
            | Self::Tell(_)
            | Self::Ask(_)
            | Self::Poison(_)
            | Self::AskPoison(_)
            | Self::Alarm(_)
            | Self::Pad(_)
            | Self::Page(_)
            | Self::Count => true,
            Self::Shout(_) | Self::Whisper(_) | Self::Sniff(_) | Self::Boom | Self::Bomb | Self::Scrawl => false,
        }
    }
}

/// One operation of one client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Do {
    /// Unique in a run.
    pub id: u32,
    /// What.
    pub op: Op,
}

impl Message for Do {
    type Twin = Book;
    type Reply = u32;

    fn needs(&self) -> Needs {
        match &self.op {
            Op::Count => Needs::Pages(vec![COUNT.into()]),
            Op::Append
            | Op::AppendIfShort(_)
            | Op::Tell(_)
            | Op::Ask(_)
            | Op::Poison(_)
            | Op::AskPoison(_)
            | Op::Whisper(_)
            | Op::Sniff(_)
            | Op::Shout(_)
            | Op::Alarm(_)
            | Op::Boom
            | Op::Bomb
            | Op::Pad(_)
            | Op::Page(_)
            | Op::Scrawl => Needs::Nothing,
        }
    }
}

impl Wire for Do {
    const NAME: &'static str = "do/1";
}

impl Decide<Do> for Book {
    fn decide(&self, message: &Do, turn: &Turn<'_>) -> Result<Decision<Change, u32>, Rejection> {
        let id = message.id;
        let at = u32::try_from(self.done.len()).unwrap_or(u32::MAX);
        let entered = || Decision::new(at).change(Change::Done(id));
        Ok(match &message.op {
            Op::Append => entered(),
            Op::AppendIfShort(max) if at >= *max => {
                let limit = format!("{FULL}{}", digest(&self.done)).into();
                return Err(Rejection::Limit { limit, max: u64::from(*max), actual: u64::from(at) });
            }
            Op::AppendIfShort(_) => entered(),
            Op::Tell(to) => entered().effect(Effect::tell(to.clone(), Hear { id })),
            Op::Ask(to) => entered().effect(Effect::ask::<Echo, Echoed>(to.clone(), Echo { id })),
            Op::Poison(to) => entered().effect(Effect::tell(to.clone(), Hear { id: POISON })),
            Op::AskPoison(to) => entered().effect(Effect::ask::<Echo, Echoed>(to.clone(), Echo { id: POISON })),
            Op::Whisper(_) | Op::Sniff(_) => return Err(Rejection::invalid("not for this door")),
            Op::Shout(to) => Decision::new(at).effect(Effect::tell(to.clone(), Hear { id })),
            Op::Alarm(due) => entered().change(Change::Alarm(id, *due)),
            Op::Boom => panic!("{BOOM}"),
            Op::Bomb => entered().change(Change::Bomb),
            Op::Pad(bytes) => entered().change(Change::Padded("x".repeat(usize::from(*bytes)))),
            Op::Page(slot) => entered().page(&format!("p/{slot}"), Some(id.to_le_bytes().to_vec())),
            Op::Count => {
                let count = turn.page(COUNT).map_or(0, |page| u32::from_le_bytes(page.try_into().expect("4 bytes")));
                entered().page(COUNT, Some((count + 1).to_le_bytes().to_vec()))
            }
            Op::Scrawl => Decision::new(at).page(&format!("s/{id}"), Some(id.to_le_bytes().to_vec())),
        })
    }
}

/// What one book tells another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hear {
    /// The operation that caused it.
    pub id: u32,
}
wire!(Hear => (), "hear/1");

impl Decide<Hear> for Book {
    fn decide(&self, message: &Hear, _: &Turn<'_>) -> Result<Decision<Change, ()>, Rejection> {
        assert!(message.id != POISON, "{BOOM}");
        Ok(Decision::new(()).change(Change::Heard(message.id)))
    }
}

/// Looks at how many entries there are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Look;

impl Message for Look {
    type Twin = Book;
    type Reply = (u64, u32, u64);
    const LANE: Lane = Lane::Control;
}

impl Decide<Look> for Book {
    fn decide(&self, _: &Look, turn: &Turn<'_>) -> Result<Decision<Change, (u64, u32, u64)>, Rejection> {
        let count = u32::try_from(self.done.len()).unwrap_or(u32::MAX);
        Ok(Decision::new((turn.revision, count, digest(&self.done))))
    }
}

/// Reads all of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Whole;
wire!(Whole => Book, "whole/1");

impl Decide<Whole> for Book {
    fn decide(&self, _: &Whole, _: &Turn<'_>) -> Result<Decision<Change, Book>, Rejection> {
        Ok(Decision::new(self.clone()))
    }
}

/// The same as its operation, by the way of those with long turns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Slow(pub Do);

impl Message for Slow {
    type Twin = Book;
    type Reply = u32;
    const INLINE: bool = false;

    fn needs(&self) -> Needs {
        self.0.needs()
    }
}

impl Wire for Slow {
    const NAME: &'static str = "slow/1";
}

impl Decide<Slow> for Book {
    fn decide(&self, Slow(message): &Slow, turn: &Turn<'_>) -> Result<Decision<Change, u32>, Rejection> {
        self.decide(message, turn)
    }
}

/// A question of one book to another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Echo {
    /// The operation that caused it.
    pub id: u32,
}
wire!(Echo => u32, "echo/1");

impl Decide<Echo> for Book {
    fn decide(&self, message: &Echo, _: &Turn<'_>) -> Result<Decision<Change, u32>, Rejection> {
        Ok(Decision::new(message.id).change(Change::Heard(message.id)))
    }
}

/// The answer as it comes back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Echoed(pub Result<u32, String>);
wire!(Echoed => (), "echoed/1");

impl From<Answer<u32>> for Echoed {
    fn from(answer: Answer<u32>) -> Self {
        Self(answer.map_err(|failure| failure.to_string()))
    }
}

impl Decide<Echoed> for Book {
    fn decide(&self, Echoed(answer): &Echoed, _: &Turn<'_>) -> Result<Decision<Change, ()>, Rejection> {
        let decision = Decision::new(());
        Ok(match answer {
            Ok(id) => {
                assert!(*id != POISON, "{BOOM}");
                decision.change(Change::Answered(*id))
            }
            Err(_) => decision,
        })
    }
}

/// Something to observe.
#[derive(Clone, Debug)]
pub struct Sniff {
    /// The operation.
    pub id: u32,
    /// Ballast of the fact; none makes no fact.
    pub bytes: u16,
}

impl Message for Sniff {
    type Twin = Book;
    type Reply = u32;
    const LANE: Lane = Lane::Telemetry;
}

impl Decide<Sniff> for Book {
    fn decide(&self, _: &Sniff, _: &Turn<'_>) -> Result<Decision<Change, u32>, Rejection> {
        Ok(Decision::new(self.seen.count))
    }

    fn observe(&mut self, message: &Sniff, _: &Turn<'_>) -> Changes<Change> {
        self.seen.count += 1;
        let mut facts = Changes::new();
        if message.bytes > 0 {
            facts.push(Change::Sniffed(message.id, "y".repeat(usize::from(message.bytes) - 1)));
        }
        facts
    }
}
