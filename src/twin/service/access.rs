//! What the service of a twin may do: its grants, and how they rule on a request.

use std::sync::LazyLock;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{Change, Draft, Service, Settings, draft::check, message::Written};
use crate::{
    model::{
        Principal, Timestamp,
        grant::{Effect, Grant, deciding},
        scope::{Operations, Pattern, Want},
    },
    twin::{Changes, Decide, Decision, Rejection, Turn, part::Right},
};

/// Most grants of a twin.
pub const GRANTS_MAX: usize = 32;
/// Most bytes of all grants together, as written.
pub const GRANTS_BYTES_MAX: usize = 2048;
/// Most rights that one check asks for.
pub const CHECKS_MAX: usize = 64;
/// A refusal that is repeated within this time is not journaled again.
const DENIAL_AGAIN: std::time::Duration = std::time::Duration::from_secs(60);
/// Most refusals remembered for that.
const DENIALS_MAX: usize = 16;

/// Grants that come with a name, before those of the twin itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Everything that is the service's own: its state, its configuration to read, its secrets to read, its topics.
    #[default]
    Standard,
    /// Nothing.
    None,
}

/// The grants of [`Profile::Standard`]: operations and scope.
const STANDARD: [(&[&str], &str); 5] = [
    (&[], "state:*"),
    (&["get", "watch"], "configuration:*"),
    (&["get", "list"], "secrets:*"),
    (&["publish", "subscribe", "list", "set", "remove"], "topics:*"),
    (&["list"], "components:*"),
];

impl Profile {
    /// Its grants.
    pub fn grants(self) -> &'static [Grant] {
        static GRANTS: LazyLock<Vec<Grant>> =
            LazyLock::new(|| STANDARD.iter().map(|(operations, scope)| standard(operations, scope)).collect());
        match self {
            Self::Standard => &GRANTS,
            Self::None => &[],
        }
    }
}

fn standard(operations: &[&str], scope: &str) -> Grant {
    let some = || Operations::Some(operations.iter().map(|operation| CompactString::from(*operation)).collect());
    Grant {
        effect: Effect::Allow,
        operations: if operations.is_empty() { Operations::All } else { some() },
        scope: Pattern::parse(scope).expect("the scopes of a profile are scopes"),
        expires_at: None,
    }
}

/// The committed part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Access {
    /// The one that was chosen; the one of a new twin if none was.
    pub(super) profile: Option<Profile>,
    pub(super) grants: Vec<Grant>,
    /// Refusals that were journaled lately: hash and time.
    pub(super) denials: Vec<(u64, Timestamp)>,
}

/// A refusal, with the rule that decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{} on {}:{} is not allowed: {rule}", right.operation, right.capability, right.name)]
pub struct Denial {
    /// What was wanted.
    pub right: Right,
    /// Why not, and what would help.
    pub rule: CompactString,
}

/// How a right is ruled on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The right.
    pub right: Right,
    /// Whether the service has it.
    pub allowed: bool,
    /// The deciding rule.
    pub rule: CompactString,
}

/// Gives and takes grants, and chooses the profile.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EditAccess {
    /// Added; one that is there already changes nothing.
    pub add: Vec<Grant>,
    /// Taken away wherever it stands.
    pub remove: Vec<Grant>,
    /// The profile from now on.
    pub profile: Option<Profile>,
    /// Revision the caller saw last.
    pub if_match: Option<u64>,
}

/// Reads profile and grants.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct GetAccess;

/// What a twin grants its service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessView {
    /// The twin's revision.
    pub revision: u64,
    /// The profile in force.
    pub profile: Profile,
    /// What the profile gives.
    pub from_profile: Vec<Grant>,
    /// The twin's own grants.
    pub grants: Vec<Grant>,
}

/// Asks how rights of this twin's service would be ruled on; nothing is done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CheckAccess {
    /// The rights; at most [`CHECKS_MAX`].
    pub rights: Vec<Right>,
}

impl Access {
    pub(super) fn profile(&self) -> Profile {
        self.profile.unwrap_or(Settings::chosen().profile)
    }

    /// The grant that decides on what the service may do, whatever its token says.
    fn deciding(&self, want: &Want<'_>, now: Timestamp) -> Option<&Grant> {
        // The twin's own grants and the profile's compete by depth alone.
        deciding(self.grants.iter().chain(self.profile().grants()), want, now)
    }

    /// Whether the service may do it, and the rule in words.
    fn rule(&self, want: &Want<'_>, now: Timestamp) -> (bool, CompactString) {
        match self.deciding(want, now) {
            Some(grant) => (grant.effect == Effect::Allow, compact_str::format_compact!("{grant}")),
            None => (false, compact_str::format_compact!("no grant is about '{want}'")),
        }
    }

    /// Installs what is about access.
    #[expect(clippy::wildcard_enum_match_arm, reason = "other changes have other readers")]
    pub(super) fn apply(&mut self, change: &Change, at: Timestamp) {
        match change {
            Change::Removed => *self = Self::default(),
            Change::Granted { grant } => self.grants.push(grant.clone()),
            Change::GrantTaken { grant } => self.grants.retain(|held| held != grant),
            Change::ProfileChosen { profile } => self.profile = Some(*profile),
            Change::Denied { right, .. } => {
                let hash = denial_hash(right);
                self.denials.retain(|(known, _)| *known != hash);
                if self.denials.len() >= DENIALS_MAX {
                    self.denials.remove(0);
                }
                self.denials.push((hash, at));
            }
            _ => {}
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.grants.capacity() * size_of::<Grant>() + self.denials.capacity() * size_of::<(u64, Timestamp)>()
    }

    fn was_denied_lately(&self, right: &Right, now: Timestamp) -> bool {
        let hash = denial_hash(right);
        self.denials.iter().any(|(known, at)| *known == hash && now < at.after(DENIAL_AGAIN))
    }
}

fn denial_hash(right: &Right) -> u64 {
    xxh3_64(crate::twin::to_bytes(right).as_slice())
}

impl Service {
    /// Rules on one right of whoever asks.
    pub(super) fn authorise(&self, turn: &Turn<'_>, want: &Want<'_>, internal: bool) -> Result<(), Denial> {
        let denied = |rule: CompactString| Denial { right: owned(want), rule };
        if let Some(rights) = turn.header.rights() {
            rights.leave(want, turn.now).map_err(|narrowed| denied(compact_str::format_compact!("{narrowed}")))?;
        }
        match turn.header.principal() {
            Principal::Host | Principal::Runtime => Ok(()),
            Principal::Twin { kind, key } if kind == <Self as crate::twin::Twin>::KIND && key == turn.key => Ok(()),
            Principal::Operator { .. } if !internal => Ok(()),
            Principal::Service { service, .. } if !internal && service.key() == turn.key => {
                match self.access.deciding(want, turn.now) {
                    // As nearly always; nobody reads which rule it was.
                    Some(grant) if grant.effect == Effect::Allow => Ok(()),
                    Some(_) | None => Err(denied(self.access.rule(want, turn.now).1)),
                }
            }
            Principal::Operator { .. }
            | Principal::Service { .. }
            | Principal::Ingest { .. }
            | Principal::Twin { .. } => Err(denied("only the service itself and operators ask this".into())),
        }
    }

    /// The answer to a refused request; the refusal is journaled unless it was lately.
    pub(super) fn denied<R>(&self, turn: &Turn<'_>, denial: Denial) -> Decision<Change, Result<R, Denial>> {
        let known = !self.core.exists || self.access.was_denied_lately(&denial.right, turn.now);
        let change = (!known).then(|| Change::Denied { right: denial.right.clone(), rule: denial.rule.clone() });
        Decision::new(Err(denial)).changes(change)
    }
}

fn owned(want: &Want<'_>) -> Right {
    Right { capability: want.capability.into(), name: want.name.into(), operation: want.operation.into() }
}

impl Decide<EditAccess> for Service {
    fn decide(&self, message: &EditAccess, turn: &Turn<'_>) -> Result<Decision<Change, Written>, Rejection> {
        let draft = Draft::write(self, turn, message.if_match)?;
        let mut changes = Changes::new();
        let mut grants = self.access.grants.clone();
        for grant in message.remove.iter().filter(|grant| self.access.grants.contains(grant)) {
            grants.retain(|held| held != grant);
            changes.push(Change::GrantTaken { grant: grant.clone() });
        }
        for grant in &message.add {
            if !grants.contains(grant) {
                grants.push(grant.clone());
                changes.push(Change::Granted { grant: grant.clone() });
            }
        }
        Rejection::within("grants", GRANTS_MAX, grants.len())?;
        Rejection::within("grants_bytes", GRANTS_BYTES_MAX, grants.iter().map(|grant| grant.to_string().len()).sum())?;
        if let Some(profile) = message.profile.filter(|profile| *profile != self.access.profile()) {
            changes.push(Change::ProfileChosen { profile });
        }
        Ok(draft.with(changes).written())
    }
}

impl Decide<GetAccess> for Service {
    fn decide(&self, _: &GetAccess, turn: &Turn<'_>) -> Result<Decision<Change, AccessView>, Rejection> {
        self.existing(turn)?;
        let profile = self.access.profile();
        Ok(Decision::new(AccessView {
            revision: turn.revision,
            profile,
            from_profile: profile.grants().to_vec(),
            grants: self.access.grants.clone(),
        }))
    }
}

impl Decide<CheckAccess> for Service {
    fn decide(&self, message: &CheckAccess, turn: &Turn<'_>) -> Result<Decision<Change, Vec<Explained>>, Rejection> {
        check(None, turn)?;
        self.existing(turn)?;
        Rejection::within("rights", CHECKS_MAX, message.rights.len())?;
        let explained = message.rights.iter().map(|right| {
            let want = right.want();
            let (allowed, rule) = match turn.header.rights().map(|rights| rights.leave(&want, turn.now)) {
                Some(Err(narrowed)) => (false, compact_str::format_compact!("{narrowed}")),
                Some(Ok(())) | None => self.access.rule(&want, turn.now),
            };
            Explained { right: right.clone(), allowed, rule }
        });
        Ok(Decision::new(explained.collect()))
    }
}
