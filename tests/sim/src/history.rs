//! What callers were told, and the trace of a run.

use std::{cell::RefCell, fmt::Write as _, rc::Rc};

use service_twin::{
    model::{Outcome, Timestamp},
    twin::{Answer, Failure, Rejection},
};

use crate::book::{FULL, Op};

/// What a caller knows after one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// No answer (yet): the caller gave up, or the process died.
    Nothing,
    /// Done, as this entry.
    Done(u32),
    /// Done by an earlier attempt whose reply was not kept.
    DoneBefore,
    /// Certainly nothing happened.
    NotApplied,
    /// Refused on the ground of this many entries with this digest.
    Full(u32, u64),
    /// It may have happened, once.
    Unknown,
    /// The key is too old to tell.
    TooOld,
}

/// One operation with its attempts.
#[derive(Clone, Debug)]
pub struct Record {
    /// Who.
    pub client: usize,
    /// At which twin.
    pub twin: usize,
    /// What.
    pub op: Op,
    /// Whether it had an idempotency key.
    pub keyed: bool,
    /// What each attempt heard.
    pub attempts: Vec<Heard>,
}

/// A read that was answered.
#[derive(Clone, Debug)]
pub struct Sight {
    /// Of which twin.
    pub twin: usize,
    /// How many entries it saw.
    pub count: u32,
    /// Their digest.
    pub digest: u64,
}

/// An event that a watcher heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Of which twin, by its key.
    pub key: String,
    /// The revision it belongs to.
    pub revision: u64,
    /// The operation it tells of.
    pub id: u32,
}

/// One life of the process, up to its drain or crash.
#[derive(Debug)]
pub struct Life {
    /// The id of its first operation; a client lives in one life only.
    pub first: usize,
    /// Events that its watcher heard.
    pub events: Vec<Told>,
    /// Whether it ended with a drain, after which the watcher had time to hear everything.
    pub drained: bool,
}

/// Everything callers were told.
#[derive(Debug, Default)]
pub struct History {
    /// By operation id.
    pub records: Vec<Record>,
    /// Reads.
    pub sights: Vec<Sight>,
    /// What volatile twins answered: in which stay in memory, how many.
    pub tallies: Vec<(u32, u32)>,
    /// Life by life.
    pub lives: Vec<Life>,
    /// What happened, in words.
    pub trace: String,
}

/// The history as clients share it.
pub type Shared = Rc<RefCell<History>>;

impl History {
    /// Notes that a process began.
    pub fn live(&mut self) {
        self.lives.push(Life { first: self.records.len(), events: Vec::new(), drained: false });
    }

    /// The present life.
    pub fn life(&mut self) -> &mut Life {
        self.lives.last_mut().expect("a life has begun")
    }

    /// Notes an operation before it is sent; answers its id.
    pub fn begin(&mut self, client: usize, twin: usize, op: Op, keyed: bool) -> u32 {
        let id = u32::try_from(self.records.len()).unwrap_or(u32::MAX);
        self.records.push(Record { client, twin, op, keyed, attempts: Vec::new() });
        id
    }

    /// Notes that an attempt is being made; answers its number.
    pub fn attempt(&mut self, id: u32) -> usize {
        let attempts = &mut self.record(id).attempts;
        attempts.push(Heard::Nothing);
        attempts.len() - 1
    }

    /// Notes how an attempt ended; says whether a further one may make sense.
    pub fn end(&mut self, at: Timestamp, id: u32, attempt: usize, answer: &Answer<u32>) -> bool {
        let heard = match answer {
            Ok(entry) => Heard::Done(*entry),
            Err(Failure::AlreadyDone { .. }) => Heard::DoneBefore,
            Err(Failure::Rejected(Rejection::KeyTooOld { .. })) => Heard::TooOld,
            Err(Failure::Rejected(Rejection::Limit { limit, actual, .. })) if limit.starts_with(FULL) => {
                let digest = limit[FULL.len()..].parse().expect("a refusal on purpose names the digest");
                Heard::Full(u32::try_from(*actual).expect("few entries"), digest)
            }
            Err(failure @ Failure::Rejected(Rejection::KeyReused)) => panic!("operation {id}: {failure}"),
            Err(failure) => match failure.outcome() {
                Outcome::NotApplied => Heard::NotApplied,
                Outcome::Unknown => Heard::Unknown,
            },
        };
        let again = !matches!(heard, Heard::Done(_) | Heard::DoneBefore);
        writeln!(self.trace, "{at} op {id} attempt {attempt}: {heard:?} {}", why(answer)).expect("a String takes it");
        self.record(id).attempts[attempt] = heard;
        again
    }

    /// Notes anything else.
    pub fn note(&mut self, at: Timestamp, what: &str) {
        writeln!(self.trace, "{at} {what}").expect("a String takes it");
    }

    fn record(&mut self, id: u32) -> &mut Record {
        &mut self.records[usize::try_from(id).expect("32 bits fit")]
    }
}

fn why(answer: &Answer<u32>) -> String {
    answer.as_ref().err().map(ToString::to_string).unwrap_or_default()
}
