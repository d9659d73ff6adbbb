//! A turn in the making: changes are tried on a copy, so that what follows from them is decided with them.

use super::{Change, Core, Service, health};
use crate::{
    model::Timestamp,
    twin::{Changes, Decision, Rejection, Turn},
};

/// The state as it will be, and the changes that make it so.
pub(super) struct Draft<'a> {
    pub(super) core: Core,
    pub(super) turn: &'a Turn<'a>,
    changes: Changes<Change>,
    shaken: bool,
}

impl<'a> Draft<'a> {
    /// A draft without changes.
    pub(super) fn of(service: &Service, turn: &'a Turn<'a>) -> Self {
        Self { core: service.core.clone(), turn, changes: Changes::new(), shaken: false }
    }

    /// A draft for a write: refuses a stale revision and a removed twin, brings a new twin into being.
    pub(super) fn write(service: &Service, turn: &'a Turn<'a>, if_match: Option<u64>) -> Result<Self, Rejection> {
        Self::present(service, turn, if_match)?;
        Ok(Self::arrive(service, turn))
    }

    /// A draft for a sign of life: brings the twin into being, also again after its removal.
    pub(super) fn arrive(service: &Service, turn: &'a Turn<'a>) -> Self {
        let mut draft = Self::of(service, turn);
        if !service.core.exists {
            draft.push(Change::Created { attributes: super::Json::empty() });
        }
        draft
    }

    fn present(service: &Service, turn: &Turn<'_>, if_match: Option<u64>) -> Result<(), Rejection> {
        if service.core.removed {
            return Err(Rejection::Removed { revision: turn.revision });
        }
        check(if_match, turn)
    }

    /// The same for a write that needs an existing twin.
    pub(super) fn amend(service: &Service, turn: &'a Turn<'a>, if_match: Option<u64>) -> Result<Self, Rejection> {
        service.existing(turn)?;
        Self::present(service, turn, if_match)?;
        Ok(Self::of(service, turn))
    }

    /// The time of the turn.
    pub(super) fn now(&self) -> Timestamp {
        self.turn.now
    }

    /// The revision that the next change makes.
    pub(super) fn version_next(&self) -> u64 {
        self.revision() + 1
    }

    fn revision(&self) -> u64 {
        self.turn.revision + u64::try_from(self.changes.len()).unwrap_or(u64::MAX)
    }

    /// Adds a change.
    pub(super) fn push(&mut self, change: Change) {
        self.core.apply(&change, self.turn.now);
        self.shaken |= shakes(&change);
        self.changes.push(change);
    }

    /// Adds changes.
    pub(super) fn with(mut self, changes: Changes<Change>) -> Self {
        changes.into_iter().for_each(|change| self.push(change));
        self
    }

    /// All changes, with what follows from them: sync and health.
    pub(super) fn settled(mut self) -> Changes<Change> {
        if self.shaken {
            for change in super::feature::transitions(&self.core) {
                self.push(change);
            }
            if let Some(change) = health::transition(&self.core) {
                self.push(change);
            }
        }
        self.changes
    }

    /// The decision, answering with the revision it makes.
    pub(super) fn written(self) -> Decision<Change, super::message::Written> {
        let revision = self.turn.revision;
        let changes = self.settled();
        let revision = revision + u64::try_from(changes.len()).unwrap_or(u64::MAX);
        Decision::new(super::message::Written { revision }).changes(changes)
    }
}

/// Whether sync or health may follow from a change.
fn shakes(change: &Change) -> bool {
    match change {
        Change::Created { .. }
        | Change::InstanceSeen { .. }
        | Change::InstancePresence { .. }
        | Change::InstanceHealth { .. }
        | Change::InstanceGone { .. }
        | Change::Desired { .. }
        | Change::Reported { .. }
        | Change::Acknowledged { .. }
        | Change::AlertOpened { .. }
        | Change::AlertClosed { .. } => true,
        Change::Removed
        | Change::Attributes { .. }
        | Change::Environment { .. }
        | Change::InstanceVersion { .. }
        | Change::PresenceRearmed
        | Change::Effective { .. }
        | Change::InSync { .. }
        | Change::CommandPosted { .. }
        | Change::CommandMoved { .. }
        | Change::CommandEnded { .. }
        | Change::CommandClosed { .. }
        | Change::CommandStopped { .. }
        | Change::CommandDefined { .. }
        | Change::Health { .. }
        | Change::Granted { .. }
        | Change::GrantTaken { .. }
        | Change::ProfileChosen { .. }
        | Change::Denied { .. }
        | Change::Part { .. }
        | Change::PartsRetiring
        | Change::PartRetired { .. } => false,
    }
}

/// Refuses a write based on another revision than the present one.
pub(super) fn check(if_match: Option<u64>, turn: &Turn<'_>) -> Result<(), Rejection> {
    match if_match {
        Some(expected) if expected != turn.revision => Err(Rejection::Precondition { expected, found: turn.revision }),
        Some(_) | None => Ok(()),
    }
}

impl Service {
    /// Refuses to speak for a twin that is not there.
    pub(super) fn existing(&self, turn: &Turn<'_>) -> Result<&Core, Rejection> {
        if self.core.removed {
            return Err(Rejection::Removed { revision: turn.revision });
        }
        if !self.core.exists {
            return Err(Rejection::not_found(format!("service '{}'", self.core.id)));
        }
        Ok(&self.core)
    }
}
