//! Putting messages in, and reading them.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::{Change, MESSAGE_BYTES_MAX, MESSAGES_KEPT, Topic, Wish, page};
use crate::{
    model::{ServiceId, Timestamp},
    twin::{Decide, Decision, Effect, Message, Needs, Rejection, Turn, Wire, from_bytes, part::Bytes, to_bytes},
};

/// Most messages of one append.
pub(super) const APPEND_MAX: usize = crate::model::limits::NEEDS_KEYS_MAX;
/// Messages let go in one commit: each is a page, and one more if its id was chosen.
const TRIMMED_AT_ONCE: u64 = 16;

/// A message as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its id, which the publisher chose or the door drew.
    pub id: CompactString,
    /// Whether an id that the same source gave before means the same message.
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

impl Stored {
    /// The page that says which number this message has. An id is its publisher's own: another's may be equal.
    fn id_page(&self) -> String {
        // A source has no zero byte, so what lies before the first one is the source.
        format!("i/{:032x}", xxh3_128(format!("{}\0{}", self.source, self.id).as_bytes()))
    }
}

impl Message for Append {
    type Twin = Topic;
    type Reply = Vec<u64>;

    fn heap_bytes(&self) -> usize {
        self.messages.iter().map(|message| size_of_val(message) + message.body.0.len()).sum()
    }

    fn needs(&self) -> Needs {
        let idempotent = self.messages.iter().filter(|message| message.is_idempotent);
        let pages: Vec<_> = idempotent.map(Stored::id_page).collect();
        if pages.is_empty() { Needs::Nothing } else { Needs::Pages(pages) }
    }
}

impl Wire for Append {
    const NAME: &'static str = "append/1";
}

impl Decide<Append> for Topic {
    fn decide(&self, append: &Append, turn: &Turn<'_>) -> Result<Decision<Change, Vec<u64>>, Rejection> {
        let changes = self.enter(turn, Wish::Publish)?;
        Rejection::within("messages at once", APPEND_MAX, append.messages.len())?;
        let mut decision = Decision::new(Vec::new()).changes(changes);
        let (mut next, mut numbers, mut fresh) = (self.next, Vec::new(), Vec::<(String, u64)>::new());
        for message in &append.messages {
            Rejection::within("message bytes", MESSAGE_BYTES_MAX, message.body.0.len())?;
            if message.is_idempotent {
                let known_as = message.id_page();
                let known = turn.page(&known_as).and_then(|bytes| from_bytes::<u64>(bytes).ok());
                let within = || fresh.iter().find(|(other, _)| *other == known_as).map(|(_, number)| *number);
                if let Some(number) = known.filter(|number| *number >= self.first).or_else(within) {
                    numbers.push(number);
                    continue;
                }
                decision = decision.page(&known_as, Some(to_bytes(&next)));
                fresh.push((known_as, next));
            }
            decision = decision.page(&page(next), Some(to_bytes(message)));
            numbers.push(next);
            next += 1;
        }
        let count = next - self.next;
        if count > 0 {
            decision = decision.change(Change::Appended { count });
            // The oldest are read before they go, once for as many as go at once: their ids go with them.
            let is_due = self.next / TRIMMED_AT_ONCE != next / TRIMMED_AT_ONCE;
            if is_due && next - self.first > MESSAGES_KEPT {
                decision = decision.effect(Effect::tell(turn.key.clone(), Trim));
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

/// Most messages of one read; what is asked for beyond is not answered.
pub const READ_MAX: u16 = 64;

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
            if let (Some(number), Ok(message)) = (numbered(name), from_bytes::<Stored>(bytes))
                && message.expires_at.is_none_or(|until| turn.now < until)
            {
                messages.push((number, message));
            }
        }
        Ok(Decision::new(messages))
    }
}

/// Lets the oldest messages go above what is kept; the topic tells it to itself.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Trim;

impl Message for Trim {
    type Twin = Topic;
    type Reply = ();

    fn needs(&self) -> Needs {
        let limit = usize::try_from(TRIMMED_AT_ONCE).unwrap_or(usize::MAX);
        Needs::Prefix { prefix: "m/".to_owned(), after: None, limit }
    }
}

impl Wire for Trim {
    const NAME: &'static str = "trim/1";
}

impl Decide<Trim> for Topic {
    fn decide(&self, _: &Trim, turn: &Turn<'_>) -> Result<Decision<Change, ()>, Rejection> {
        let mut over = (self.next - self.first).saturating_sub(MESSAGES_KEPT);
        let (mut decision, mut first) = (Decision::new(()), self.first);
        for (name, bytes) in turn.prefix("m/") {
            let Some(number) = numbered(name).filter(|_| over > 0) else { break };
            if let Ok(message) = from_bytes::<Stored>(bytes)
                && message.is_idempotent
            {
                decision = decision.page(&message.id_page(), None);
            }
            decision = decision.page(name, None);
            first = number + 1;
            over -= 1;
        }
        Ok(if first == self.first { decision } else { decision.change(Change::Trimmed { first }) })
    }
}

/// The number of a message's page.
fn numbered(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("m/")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Header, Key},
        twin::{Pages, Twin as _},
    };

    fn turn<M>(topic: &mut Topic, pages: &mut Pages, message: &M) -> (M::Reply, usize)
    where
        M: Message<Twin = Topic>,
        Topic: Decide<M>,
    {
        let (key, header) = (Key::parse("shop/pubsub/orders").unwrap(), Header::default());
        let turn = Turn::new(Timestamp::from_unix_ms(1_000), &key, 0, &header).with_pages(pages);
        let Decision { changes, reply, more } = topic.decide(message, &turn).unwrap();
        changes.iter().for_each(|change| topic.apply(change, Timestamp::from_unix_ms(1_000)));
        let more = more.map(|more| *more).unwrap_or_default();
        for page in more.pages {
            match page.value {
                Some(value) => pages.insert(page.name.into(), value),
                None => pages.remove(page.name.as_str()),
            };
        }
        (reply, more.effects.len())
    }

    fn message(id: u64) -> Stored {
        Stored {
            id: compact_str::format_compact!("{id}"),
            is_idempotent: true,
            source: ServiceId::parse("shop/orders").unwrap(),
            published_at: Timestamp::from_unix_ms(1_000),
            expires_at: None,
            is_raw: true,
            content_type: "text/plain".into(),
            body: Bytes(Vec::new()),
        }
    }

    #[test]
    fn an_id_is_the_same_message_only_of_the_same_source() {
        let (mut topic, mut pages) = (Topic::create(""), Pages::new());
        let from = |source: &str| Stored { source: ServiceId::parse(source).unwrap(), ..message(7) };
        let messages = vec![from("shop/orders"), from("shop/cart"), from("shop/orders")];
        assert_eq!(turn(&mut topic, &mut pages, &Append { messages }).0, [1, 2, 1]);
        assert_eq!(turn(&mut topic, &mut pages, &Append { messages: vec![from("shop/cart")] }).0, [2]);
        assert_eq!(turn(&mut topic, &mut pages, &Append { messages: vec![from("shop/audit")] }).0, [3]);
    }

    #[test]
    fn the_oldest_messages_go_with_their_ids_once_more_are_there_than_are_kept() {
        let (mut topic, mut pages) = (Topic::create(""), Pages::new());
        // As if as many as are kept had come and gone before, but for the last one.
        (topic.first, topic.next) = (1, MESSAGES_KEPT);
        let mut trims = 0;
        for id in 0..40 {
            let (numbers, effects) = turn(&mut topic, &mut pages, &Append { messages: vec![message(id)] });
            assert_eq!(numbers, [MESSAGES_KEPT + id]);
            trims += effects;
        }
        assert!((2..=3).contains(&trims), "{trims}");
        topic.first = MESSAGES_KEPT;
        topic.next += MESSAGES_KEPT - 30;
        turn(&mut topic, &mut pages, &Trim);
        assert_eq!((topic.first, pages.len()), (MESSAGES_KEPT + 10, 2 * 30), "messages and ids");
        let (numbers, _) = turn(&mut topic, &mut pages, &Append { messages: vec![message(20)] });
        assert_eq!(numbers, [MESSAGES_KEPT + 20], "an id that is kept is the same message");
    }
}
