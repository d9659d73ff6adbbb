//! Who owns which slot: a message per slot, whose place in the log is the epoch.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

use super::{
    Inner,
    log::Log,
    names::{CLAIM, Subject},
    wire::{Failure, Outgoing, Stored, Unread},
};
use crate::store::{Epoch, Error, Slot};

/// How often a claim of whatever is there is tried while others claim it too.
const RACES_MAX: u32 = 8;
/// Claims under way at once.
const CLAIMS_AT_ONCE: usize = 64;
/// Ownerships read at once; a replica answers at most 1,024.
const OWNERS_AT_ONCE: usize = 512;

/// Whether a slot is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holding {
    /// By the node that claimed it.
    Owned,
    /// Its last owner gave it up in good order; anybody may claim it.
    Released,
}

/// The last word on a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// Who wrote it.
    pub node: String,
    /// Which life of that node.
    pub incarnation: u64,
    /// Whether it still holds the slot.
    pub state: Holding,
    /// The epoch in force.
    pub epoch: Epoch,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Value {
    node: String,
    incarnation: u64,
    state: Holding,
}

impl Owned {
    fn read(stored: &Stored) -> Option<Self> {
        let Value { node, incarnation, state } = serde_json::from_slice(&stored.payload).ok()?;
        Some(Self { node, incarnation, state, epoch: Epoch(stored.sequence) })
    }
}

impl Inner {
    /// Writes an ownership if the present one was written at `expected`; `attempt` tells it from others.
    async fn write_own(&self, slot: Slot, expected: u64, state: Holding, attempt: &str) -> Result<u64, Failure> {
        let value =
            Value { node: self.config.node.clone(), incarnation: self.incarnation.load(Ordering::Acquire), state };
        let value = serde_json::to_vec(&value).map_err(|error| Failure::Never(error.to_string()))?;
        let subject = self.names.own(slot);
        let mut message = Outgoing::new(subject.clone(), Bytes::from(value));
        message.expect(expected, &subject);
        message.headers.insert(CLAIM, attempt);
        self.wire.store(message).await
    }

    pub(super) async fn read_own(&self, slot: Slot) -> Result<Option<Stored>, Error> {
        self.wire.of_leader(&self.stream_of(slot), &self.names.own(slot)).await
    }

    /// Claims a slot; see [`crate::store::Store::claim`].
    ///
    /// An attempt without an answer is looked up by its name, so that it is not taken for somebody else's.
    pub(super) async fn claim(&self, slot: Slot, expected: Option<Epoch>) -> Result<Epoch, Error> {
        self.check_open()?;
        let attempt = uuid::Uuid::new_v4().simple().to_string();
        let (mut delays, mut races) = (self.wire.delays(), 0);
        let epoch = loop {
            let found = match expected {
                Some(expected) => expected.0,
                None => match self.read_own(slot).await? {
                    Some(own) if is_of(&own, &attempt) => break Epoch(own.sequence),
                    own => own.map_or(0, |own| own.sequence),
                },
            };
            let failure = match self.write_own(slot, found, Holding::Owned, &attempt).await {
                Ok(sequence) => break Epoch(sequence),
                Err(Failure::WrongSequence) => {
                    match (self.read_own(slot).await?, expected) {
                        (Some(own), _) if is_of(&own, &attempt) => break Epoch(own.sequence),
                        (own, Some(ours)) => {
                            let owner = Epoch(own.map_or(0, |own| own.sequence));
                            // Equal only if a deposed leader answered; then the next attempt tells.
                            if owner != ours {
                                return Err(Error::Fenced { ours, owner });
                            }
                        }
                        (_, None) => races += 1,
                    }
                    Failure::WrongSequence
                }
                Err(failure @ Failure::Never(_)) => return Err(failure.into_error()),
                Err(failure @ (Failure::InFlight | Failure::Later(_) | Failure::Unknown(_))) => failure,
            };
            match delays.next() {
                Some(delay) if races <= RACES_MAX => tokio::time::sleep(delay).await,
                Some(_) | None => return Err(failure.into_error()),
            }
        };
        self.now_owns(slot, epoch).await;
        Ok(epoch)
    }

    /// Claims many; the answers come as they are known.
    pub(super) async fn claim_many(&self, wanted: Vec<(Slot, Option<Epoch>)>) -> Vec<(Slot, Result<Epoch, Error>)> {
        let claims =
            stream::iter(wanted).map(|(slot, expected)| async move { (slot, self.claim(slot, expected).await) });
        claims.buffer_unordered(CLAIMS_AT_ONCE).collect().await
    }

    /// Gives a slot up. From now on nothing is written of it here, whatever comes of this.
    pub(super) async fn release(&self, slot: Slot, epoch: Epoch) -> Result<(), Error> {
        self.table.lock().lost(slot, epoch);
        let attempt = uuid::Uuid::new_v4().simple().to_string();
        let mut delays = self.wire.delays();
        loop {
            let failure = match self.write_own(slot, epoch.0, Holding::Released, &attempt).await {
                Ok(_) => return Ok(()),
                Err(Failure::WrongSequence) => match self.read_own(slot).await? {
                    Some(own) if is_of(&own, &attempt) => return Ok(()),
                    own => {
                        let owner = Epoch(own.map_or(0, |own| own.sequence));
                        if owner != epoch {
                            return Err(Error::Fenced { ours: epoch, owner });
                        }
                        Failure::WrongSequence
                    }
                },
                Err(failure @ Failure::Never(_)) => return Err(failure.into_error()),
                Err(failure @ (Failure::InFlight | Failure::Later(_) | Failure::Unknown(_))) => failure,
            };
            match delays.next() {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(failure.into_error()),
            }
        }
    }

    pub(super) async fn owner(&self, slot: Slot) -> Result<Option<Owned>, Error> {
        Ok(self.read_own(slot).await?.as_ref().and_then(Owned::read))
    }

    /// Every slot that was ever claimed, as any replica has it: a hint, for the truth is in the claim.
    pub(super) async fn owners(&self) -> Result<Vec<(Slot, Owned)>, Error> {
        let mut owners = Vec::new();
        for place in 0..self.names.streams() {
            let slots: Vec<Slot> = self.names.slots(place).collect();
            for part in slots.chunks(OWNERS_AT_ONCE) {
                owners.extend(self.owners_of(place, part).await?);
            }
        }
        Ok(owners)
    }

    async fn owners_of(&self, place: u16, slots: &[Slot]) -> Result<Vec<(Slot, Owned)>, Error> {
        let subjects: Vec<String> = slots.iter().map(|slot| self.names.own(*slot)).collect();
        let mut delays = self.wire.delays();
        loop {
            let why = match self.wire.newest(&self.names.stream(place), &subjects).await {
                Ok(newest) => return Ok(newest.messages.iter().filter_map(|stored| self.owned(stored)).collect()),
                Err(Unread::Nothing) => return Ok(Vec::new()),
                Err(Unread::TooMany) => "too many ownerships".into(),
                Err(Unread::Lost(why)) => why,
            };
            match delays.next() {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(Error::Unavailable(why.into())),
            }
        }
    }

    fn owned(&self, stored: &Stored) -> Option<(Slot, Owned)> {
        match self.names.parse(&stored.subject)? {
            Subject::Own(slot) => Some((slot, Owned::read(stored)?)),
            Subject::Core(_) | Subject::Page(..) | Subject::Mark => None,
        }
    }

    /// Tells of every ownership of a stream, what is there first, until nobody listens.
    pub(super) async fn watch(&self, place: u16, to: mpsc::Sender<(Slot, Owned)>) {
        let (stream, filter) = (self.names.stream(place), vec![self.names.owns(place)]);
        let (mut from, mut delays) = (1, self.wire.delays());
        while !to.is_closed() && self.check_open().is_ok() {
            if let Ok(mut log) = Log::open(&self.wire, &stream, filter.clone(), from, false).await {
                delays = self.wire.delays();
                while let Ok(stored) = log.next().await {
                    if to.is_closed() || self.check_open().is_err() {
                        break;
                    }
                    let Some(stored) = stored else { continue };
                    from = stored.sequence + 1;
                    if let Some(owned) = self.owned(&stored)
                        && to.send(owned).await.is_err()
                    {
                        break;
                    }
                }
                log.close().await;
            }
            tokio::time::sleep(delays.next().unwrap_or(self.wire.timeout())).await;
        }
    }
}

fn is_of(own: &Stored, attempt: &str) -> bool {
    own.headers.get(CLAIM).is_some_and(|by| by.as_str() == attempt)
}
