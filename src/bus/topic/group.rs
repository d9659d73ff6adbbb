//! A group of consumers that share a topic's messages: what is handed out, what comes again.
//!
//! A group's place lies in a page of its own. A message below `next` that is neither leased nor to come again is done.

use std::time::Duration;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{Change, GROUPS_MAX, Topic, Wish};
use crate::{
    model::Timestamp,
    twin::{Decide, Decision, Message, Needs, Rejection, Turn, Wire, from_bytes, to_bytes},
};

/// Messages of a group that are handed out or wait to come again; while there are so many, nobody gets a new one.
pub(super) const LEASES_MAX: usize = 1024;
/// Longest name of a group, in bytes.
pub(super) const GROUP_BYTES_MAX: usize = 300;
/// The pause before a message comes again for the first time; it doubles each time.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Where a group stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The next message that nobody of it has seen.
    next: u64,
    /// Handed out, and not settled yet.
    leases: Vec<Held>,
    /// To be handed out again.
    again: Vec<Held>,
}

/// One message of a group that is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    number: u64,
    /// How often it was handed out.
    attempts: u32,
    /// Leased: until when. To come again: from when on.
    at: Timestamp,
}

fn page(group: &str) -> String {
    format!("g/{group}")
}

/// Where a group begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With what comes from now on.
    #[default]
    Now,
    /// With the oldest message kept.
    Oldest,
    /// With the message of this number.
    Number(u64),
}

/// Settles what a consumer of a group is done with, and hands out further messages to it, for some time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lease {
    /// The group.
    pub group: CompactString,
    /// Most messages; none only makes sure that the group is there.
    pub max: u16,
    /// How long the consumer has for them, in milliseconds.
    pub lease_ms: u64,
    /// Where the group begins if it was never there.
    pub from: Start,
    /// What became of messages that were handed out before, and for the how many-th time.
    pub settle: Vec<Settled>,
}

/// What was handed out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leased {
    /// Numbers, with how often each was handed out by now.
    pub messages: Vec<(u64, u32)>,
    /// When something comes again, if nothing new comes before.
    pub due_at: Option<Timestamp>,
}

impl Message for Lease {
    type Twin = Topic;
    type Reply = Leased;

    fn heap_bytes(&self) -> usize {
        self.group.len() + size_of_val(&*self.settle)
    }

    fn needs(&self) -> Needs {
        Needs::Pages(vec![page(&self.group)])
    }
}

impl Wire for Lease {
    const NAME: &'static str = "lease/2";
}

impl Topic {
    /// The number of the message that is meant, of those that are kept.
    fn start(&self, from: Start) -> u64 {
        match from {
            Start::Now => self.next,
            Start::Oldest => self.first,
            Start::Number(number) => number.clamp(self.first, self.next),
        }
    }

    /// A group, or what it takes to have it.
    fn member(&self, turn: &Turn<'_>, name: &CompactString) -> Result<(Option<Group>, Option<Change>), Rejection> {
        if let Some(group) = self.group(turn, name) {
            return Ok((Some(group), None));
        }
        if name.is_empty() || name.len() > GROUP_BYTES_MAX || name.contains(char::is_control) {
            let detail = format!("a group has 1 to {GROUP_BYTES_MAX} bytes, no control characters");
            return Err(Rejection::invalid(detail));
        }
        Rejection::within("groups of a topic", GROUPS_MAX, self.groups.len() + 1)?;
        Ok((None, Some(Change::Joined { group: name.clone() })))
    }

    fn group(&self, turn: &Turn<'_>, name: &str) -> Option<Group> {
        turn.page(&page(name))
            .and_then(|bytes| from_bytes(bytes).ok())
            .filter(|_| self.groups.iter().any(|group| group == name))
    }
}

impl Decide<Lease> for Topic {
    fn decide(&self, lease: &Lease, turn: &Turn<'_>) -> Result<Decision<Change, Leased>, Rejection> {
        let mut decision = Decision::new(Leased::default()).changes(self.enter(turn, Wish::Subscribe)?);
        let (known, joins) = self.member(turn, &lease.group)?;
        let before = known.clone();
        decision = decision.changes(joins);
        let next = self.start(lease.from);
        let mut group = known.unwrap_or(Group { next, leases: Vec::new(), again: Vec::new() });
        group.settle(&lease.settle, turn.now);
        group.forget_before(self.first);
        group.take_back(turn.now);
        decision.reply = group.lease(self.next, lease, turn.now);
        if before.as_ref() != Some(&group) {
            decision = decision.page(&page(&lease.group), Some(to_bytes(&group)));
        }
        Ok(decision)
    }
}

impl Group {
    /// Lets go of messages that are not kept any more.
    fn forget_before(&mut self, first: u64) {
        self.next = self.next.max(first);
        self.leases.retain(|held| held.number >= first);
        self.again.retain(|held| held.number >= first);
    }

    /// Takes in what became of messages; whether one of them was handed out.
    fn settle(&mut self, settled: &[Settled], now: Timestamp) -> bool {
        let mut changed = false;
        for Settled { number, attempts, outcome } in settled {
            // Whoever had it before it went to somebody else has no say any more.
            let is_it = |held: &Held| (held.number, held.attempts) == (*number, *attempts);
            let Some(at) = self.leases.iter().position(is_it) else { continue };
            let held = self.leases.swap_remove(at);
            changed = true;
            match outcome {
                Outcome::Done => {}
                Outcome::Again => self.again.push(Held { at: now.after(pause(held.attempts)), ..held }),
                Outcome::Back => {
                    self.again.push(Held { at: now, attempts: held.attempts.saturating_sub(1), ..held });
                }
            }
        }
        changed
    }

    /// Takes back what was handed out and not settled in time.
    fn take_back(&mut self, now: Timestamp) {
        let again = &mut self.again;
        self.leases.retain(|held| {
            let stays = now < held.at;
            if !stays {
                again.push(Held { at: now, ..*held });
            }
            stays
        });
    }

    fn lease(&mut self, end: u64, lease: &Lease, now: Timestamp) -> Leased {
        let room = LEASES_MAX.saturating_sub(self.leases.len()).min(usize::from(lease.max));
        let until = now.after(Duration::from_millis(lease.lease_ms));
        self.again.sort_by_key(|held| (held.at, held.number));
        let due = self.again.iter().take_while(|held| held.at <= now).count().min(room);
        let mut out: Vec<Held> = self.again.drain(..due).collect();
        let kept = self.leases.len() + self.again.len();
        while out.len() < room && kept + out.len() < LEASES_MAX && self.next < end {
            out.push(Held { number: self.next, attempts: 0, at: until });
            self.next += 1;
        }
        out.sort_by_key(|held| held.number);
        let handed = out.iter().map(|held| Held { number: held.number, attempts: held.attempts + 1, at: until });
        self.leases.extend(handed);
        let messages = out.iter().map(|held| (held.number, held.attempts + 1)).collect();
        // Whoever has no room for what is due waits until somebody lets go.
        let again = if self.leases.len() < LEASES_MAX { &self.again[..] } else { &[] };
        let due_at = again.iter().chain(&self.leases).map(|held| held.at).min();
        Leased { messages, due_at }
    }
}

/// Says that messages which were handed out are still being worked on; one that is not handed out is passed over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Renew {
    /// The group.
    pub group: CompactString,
    /// The messages, and how often each was handed out.
    pub messages: Vec<(u64, u32)>,
    /// How long the consumer has for them from now on, in milliseconds.
    pub lease_ms: u64,
}

impl Message for Renew {
    type Twin = Topic;
    type Reply = ();

    fn heap_bytes(&self) -> usize {
        self.group.len() + size_of_val(&*self.messages)
    }

    fn needs(&self) -> Needs {
        Needs::Pages(vec![page(&self.group)])
    }
}

impl Wire for Renew {
    const NAME: &'static str = "renew/1";
}

impl Decide<Renew> for Topic {
    fn decide(&self, renew: &Renew, turn: &Turn<'_>) -> Result<Decision<Change, ()>, Rejection> {
        self.enter(turn, Wish::Subscribe)?;
        let Some(mut group) = self.group(turn, &renew.group) else { return Ok(Decision::new(())) };
        let until = turn.now.after(Duration::from_millis(renew.lease_ms));
        let held = group.leases.iter_mut().filter(|held| renew.messages.contains(&(held.number, held.attempts)));
        let count = held.map(|held| held.at = until.max(held.at)).count();
        let decision = Decision::new(());
        Ok(if count > 0 { decision.page(&page(&renew.group), Some(to_bytes(&group))) } else { decision })
    }
}

/// Has a group begin anew: what is kept from there on is handed out again, whatever became of it. Answers with the number
/// of the first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seek {
    /// The group.
    pub group: CompactString,
    /// Where it begins.
    pub from: Start,
}

impl Message for Seek {
    type Twin = Topic;
    type Reply = u64;

    fn heap_bytes(&self) -> usize {
        self.group.len()
    }

    fn needs(&self) -> Needs {
        Needs::Pages(vec![page(&self.group)])
    }
}

impl Wire for Seek {
    const NAME: &'static str = "seek/1";
}

impl Decide<Seek> for Topic {
    fn decide(&self, seek: &Seek, turn: &Turn<'_>) -> Result<Decision<Change, u64>, Rejection> {
        let changes = self.enter(turn, Wish::Subscribe)?;
        let (_, joins) = self.member(turn, &seek.group)?;
        let next = self.start(seek.from);
        let group = Group { next, leases: Vec::new(), again: Vec::new() };
        Ok(Decision::new(next).changes(changes).changes(joins).page(&page(&seek.group), Some(to_bytes(&group))))
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is done, or goes nowhere any more.
    Done,
    /// It comes again, after a pause that grows.
    Again,
    /// It comes again at once: nobody has tried it.
    Back,
}

/// What became of a message that was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Its number.
    pub number: u64,
    /// How often it was handed out by then.
    pub attempts: u32,
    /// What became of it.
    pub outcome: Outcome,
}

/// Settles messages that were handed out; one that is not, or was handed out again since, is passed over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settle {
    /// The group.
    pub group: CompactString,
    /// What became of each.
    pub outcomes: Vec<Settled>,
}

impl Message for Settle {
    type Twin = Topic;
    type Reply = ();

    fn heap_bytes(&self) -> usize {
        self.group.len() + size_of_val(&*self.outcomes)
    }

    fn needs(&self) -> Needs {
        Needs::Pages(vec![page(&self.group)])
    }
}

impl Wire for Settle {
    const NAME: &'static str = "settle/2";
}

impl Decide<Settle> for Topic {
    fn decide(&self, settle: &Settle, turn: &Turn<'_>) -> Result<Decision<Change, ()>, Rejection> {
        self.enter(turn, Wish::Subscribe)?;
        let Some(mut group) = self.group(turn, &settle.group) else { return Ok(Decision::new(())) };
        let changed = group.settle(&settle.outcomes, turn.now);
        let decision = Decision::new(());
        Ok(if changed { decision.page(&page(&settle.group), Some(to_bytes(&group))) } else { decision })
    }
}

/// The pause before a message comes again.
fn pause(attempts: u32) -> Duration {
    RETRY_MIN.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_unix_ms(ms)
    }

    fn lease(max: u16) -> Lease {
        Lease { group: "shop/orders".into(), max, lease_ms: 1_000, from: Start::Now, settle: Vec::new() }
    }

    #[test]
    fn who_has_no_room_is_called_when_a_lease_ends_and_not_before() {
        let mut group = Group { next: 1, leases: Vec::new(), again: Vec::new() };
        let end = 1 + u64::try_from(LEASES_MAX).unwrap();
        assert_eq!(group.lease(end, &lease(u16::MAX), at(0)).messages.len(), LEASES_MAX);
        let full = group.lease(end + 1, &lease(1), at(500));
        assert_eq!((full.messages.len(), full.due_at), (0, Some(at(1_000))));
        group.take_back(at(1_000));
        let back = group.lease(end, &lease(u16::MAX), at(1_000));
        assert_eq!(back.messages.first(), Some(&(1, 2)), "handed out for the second time");
    }

    #[test]
    fn a_consumer_that_fails_everything_gets_no_more_than_fits() {
        let mut group = Group { next: 1, leases: Vec::new(), again: Vec::new() };
        for round in 0..20 {
            let leased = group.lease(u64::MAX, &lease(256), at(round)).messages;
            let failed = leased.iter().map(|&(number, attempts)| Settled { number, attempts, outcome: Outcome::Again });
            group.settle(&failed.collect::<Vec<_>>(), at(round));
        }
        assert_eq!((group.leases.len(), group.again.len()), (0, LEASES_MAX));
        assert!(to_bytes(&group).len() < crate::model::limits::PAGE_BYTES_MAX, "{}", to_bytes(&group).len());
    }

    #[test]
    fn whoever_lost_a_message_to_another_has_no_say_in_it() {
        let mut group = Group { next: 1, leases: Vec::new(), again: Vec::new() };
        assert_eq!(group.lease(2, &lease(1), at(0)).messages, [(1, 1)]);
        group.take_back(at(1_000));
        assert_eq!(group.lease(2, &lease(1), at(1_000)).messages, [(1, 2)]);
        let late = Settled { number: 1, attempts: 1, outcome: Outcome::Done };
        assert!(!group.settle(&[late], at(1_001)));
        assert!(group.settle(&[Settled { attempts: 2, ..late }], at(1_001)));
    }
}
