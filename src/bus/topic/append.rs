//! Putting messages in, and reading them.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::{Change, MESSAGE_BYTES_MAX, MESSAGES_KEPT, Topic, Wish, page};
use crate::{
    model::{ServiceId, Timestamp},
    twin::{Decide, Decision, Message, Needs, Rejection, Turn, Wire, from_bytes, part::Bytes, to_bytes},
};

/// Most messages of one append.
pub(super) const APPEND_MAX: usize = crate::model::limits::NEEDS_KEYS_MAX;
/// Messages let go with one append beyond those that come in.
const TRIMMED_AT_ONCE: u64 = 2;

/// A message as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its id, which the publisher chose or the door drew.
    pub id: CompactString,
    /// Whether an id that was there before means the same message.
    pub is_idempotent: bool,
    /// Who published it.
    pub source: ServiceId,
    /// When.
    pub published_at: Timestamp,
    /// From when on nobody takes it any more.
    pub expires_at: Option<Timestamp>,
    /// Whether `body` is what was published and no event around it.
    pub is_raw: bool,
    /// Media type of `body`.
    pub content_type: CompactString,
    /// A `CloudEvent` in JSON, or what was published.
    pub body: Bytes,
}

/// Puts messages in, in this order, all or none; answers with the number of each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Append {
    /// The messages; at most 16.
    pub messages: Vec<Stored>,
}

/// The page that says which number an id has.
fn id_page(id: &str) -> String {
    format!("i/{:032x}", xxh3_128(id.as_bytes()))
}

impl Message for Append {
    type Twin = Topic;
    type Reply = Vec<u64>;

    fn heap_bytes(&self) -> usize {
        self.messages.iter().map(|message| size_of_val(message) + message.body.0.len()).sum()
    }

    fn needs(&self) -> Needs {
        let idempotent = self.messages.iter().filter(|message| message.is_idempotent);
        let pages: Vec<_> = idempotent.map(|message| id_page(&message.id)).collect();
        if pages.is_empty() { Needs::Nothing } else { Needs::Pages(pages) }
    }
}

impl Wire for Append {
    const NAME: &'static str = "append/1";
}

impl Decide<Append> for Topic {
    fn decide(&self, append: &Append, turn: &Turn<'_>) -> Result<Decision<Change, Vec<u64>>, Rejection> {
        let changes = self.enter(turn, Wish::Publish)?;
        let limit = |limit: &'static str, max: usize, actual: usize| {
            let [max, actual] = [max, actual].map(|number| u64::try_from(number).unwrap_or(u64::MAX));
            Rejection::Limit { limit: limit.into(), max, actual }
        };
        if append.messages.len() > APPEND_MAX {
            return Err(limit("messages at once", APPEND_MAX, append.messages.len()));
        }
        let mut decision = Decision::new(Vec::new()).changes(changes);
        let (mut next, mut numbers, mut fresh) = (self.next, Vec::new(), Vec::<(&str, u64)>::new());
        for message in &append.messages {
            if message.body.0.len() > MESSAGE_BYTES_MAX {
                return Err(limit("message bytes", MESSAGE_BYTES_MAX, message.body.0.len()));
            }
            if message.is_idempotent {
                let known = turn.page(&id_page(&message.id)).and_then(|bytes| from_bytes::<u64>(bytes).ok());
                let within = || fresh.iter().find(|(id, _)| *id == message.id).map(|(_, number)| *number);
                if let Some(number) = known.filter(|number| *number >= self.first).or_else(within) {
                    numbers.push(number);
                    continue;
                }
                fresh.push((&message.id, next));
                decision = decision.page(&id_page(&message.id), Some(to_bytes(&next)));
            }
            decision = decision.page(&page(next), Some(to_bytes(message)));
            numbers.push(next);
            next += 1;
        }
        let count = next - self.next;
        if count > 0 {
            decision = decision.change(Change::Appended { count });
            // As many go as come, and a few more until no more are kept than may be.
            let over = (next - self.first).saturating_sub(MESSAGES_KEPT).min(count + TRIMMED_AT_ONCE);
            if over > 0 {
                decision =
                    (self.first..self.first + over).fold(decision, |decision, old| decision.page(&page(old), None));
                decision = decision.change(Change::Trimmed { first: self.first + over });
            }
        }
        decision.reply = numbers;
        Ok(decision)
    }
}

/// Reads messages by their numbers: those that are there and have not expired.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Read {
    /// The first number.
    pub from: u64,
    /// Most messages; at most 64.
    pub limit: u16,
}

/// Most messages of one read.
pub(super) const READ_MAX: u16 = 64;

impl Message for Read {
    type Twin = Topic;
    type Reply = Vec<(u64, Stored)>;

    fn needs(&self) -> Needs {
        let limit = usize::from(self.limit.clamp(1, READ_MAX));
        Needs::Prefix { prefix: "m/".to_owned(), after: self.from.checked_sub(1).map(page), limit }
    }
}

impl Wire for Read {
    const NAME: &'static str = "read/1";
}

impl Decide<Read> for Topic {
    fn decide(&self, _: &Read, turn: &Turn<'_>) -> Result<Decision<Change, Vec<(u64, Stored)>>, Rejection> {
        self.enter(turn, Wish::Subscribe)?;
        let mut messages = Vec::new();
        for (name, bytes) in turn.prefix("m/") {
            let number = name.strip_prefix("m/").and_then(|digits| u64::from_str_radix(digits, 16).ok());
            let message = from_bytes::<Stored>(bytes).ok();
            if let (Some(number), Some(message)) = (number, message)
                && message.expires_at.is_none_or(|until| turn.now < until)
            {
                messages.push((number, message));
            }
        }
        Ok(Decision::new(messages))
    }
}
