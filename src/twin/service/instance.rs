//! Instances: who runs, in which version, and whether it is still heard of.

use compact_str::{CompactString, format_compact};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Alert, Change, Core, Draft, Service,
    limits::{
        ALERTS_MAX, ENVIRONMENT_BYTES_MAX, INSTANCE_ID_BYTES_MAX, INSTANCES_BEYOND_MAX, INSTANCES_BYTES_MAX,
        INSTANCES_MAX, REASON_BYTES_MAX, VERSION_BYTES_MAX,
    },
    message::{Deregister, Heartbeat, Ingest, Written},
    observed::Fact,
    settings::Settings,
    view::{InstanceView, Presence, Status},
};
use crate::{
    model::{
        Timestamp,
        telemetry::{Resource, cut},
    },
    twin::{Changes, Decide, Decision, Rejection, Turn},
};

/// The id of an instance that states none.
pub const UNNAMED: &str = "_unnamed";

/// One process of the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub(super) number: u32,
    pub(super) id: CompactString,
    pub(super) version: CompactString,
    pub(super) presence: Presence,
    pub(super) presence_since: Timestamp,
    pub(super) first_seen: Timestamp,
    pub(super) health: Status,
    pub(super) health_reason: CompactString,
}

/// Why an instance is not kept any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Farewell {
    /// It said goodbye.
    Deregistered,
    /// It was lost for long.
    Forgotten,
    /// Another needed its place.
    Displaced,
}

impl Instance {
    pub(super) fn is_up(&self) -> bool {
        self.presence == Presence::Up
    }

    fn bytes(&self) -> usize {
        const FIXED: usize = 40;
        FIXED + self.id.len() + VERSION_BYTES_MAX.max(self.version.len()) / 2 + self.health_reason.len()
    }

    pub(super) fn view(&self, last_seen: Option<Timestamp>) -> InstanceView {
        InstanceView {
            id: self.id.clone(),
            version: (!self.version.is_empty()).then(|| self.version.clone()),
            presence: self.presence,
            presence_since: self.presence_since,
            first_seen: self.first_seen,
            last_seen,
            health: self.health,
            health_reason: self.health_reason.clone(),
        }
    }
}

/// When each instance was last heard of; volatile, so a message from an instance commits nothing.
#[derive(Debug, Default)]
pub(super) struct Heard {
    times: Vec<(u32, Timestamp)>,
    /// Whether this activation has heard long enough to take silence for absence.
    complete: bool,
    /// Those that there is no room for; made with the first.
    beyond: Option<Box<Beyond>>,
}

/// Instances that are heard of and not kept.
#[derive(Debug, Default)]
struct Beyond {
    /// Hash of the id, and when.
    times: Vec<(u64, Timestamp)>,
}

impl Beyond {
    fn note(&mut self, id: &str, at: Timestamp) {
        let hash = xxh3_64(id.as_bytes());
        self.times.retain(|(known, heard)| *known != hash && is_recent(*heard, at));
        if self.times.len() < INSTANCES_BEYOND_MAX {
            self.times.push((hash, at));
        }
    }
}

fn is_recent(heard: Timestamp, now: Timestamp) -> bool {
    heard.after(Settings::chosen().presence_timeout()) > now
}

impl Heard {
    /// Of a twin that was just made.
    pub(super) fn complete() -> Self {
        Self { complete: true, ..Self::default() }
    }

    /// How many instances were heard of lately that are not kept.
    pub(super) fn beyond(&self, now: Timestamp) -> usize {
        let beyond = self.beyond.iter().flat_map(|beyond| &beyond.times);
        beyond.filter(|(_, heard)| is_recent(*heard, now)).count()
    }

    pub(super) fn of(&self, number: u32) -> Option<Timestamp> {
        self.times.iter().find(|(known, _)| *known == number).map(|(_, at)| *at)
    }

    fn note(&mut self, number: u32, at: Timestamp) {
        match self.times.iter_mut().find(|(known, _)| *known == number) {
            Some((_, heard)) => *heard = at.max(*heard),
            None => self.times.push((number, at)),
        }
    }

    /// Follows what a change says about who was heard.
    #[expect(clippy::wildcard_enum_match_arm, reason = "other changes have other readers")]
    pub(super) fn follow(&mut self, change: &Change, core: &Core, at: Timestamp) {
        match change {
            Change::PresenceRearmed => self.complete = true,
            Change::InstanceSeen { id, .. } => {
                if let Some(newest) = core.instances.last() {
                    self.note(newest.number, at);
                }
                if let Some(beyond) = &mut self.beyond {
                    let hash = xxh3_64(id.as_bytes());
                    beyond.times.retain(|(known, _)| *known != hash);
                }
            }
            Change::InstancePresence { number, presence: Presence::Up } => self.note(*number, at),
            Change::InstanceGone { number, .. } => self.times.retain(|(known, _)| known != number),
            Change::Created { .. } | Change::Removed => {
                self.times.clear();
                self.beyond = None;
            }
            _ => {}
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let beyond = self.beyond.as_ref().map_or(0, |beyond| beyond.times.capacity());
        self.times.capacity() * size_of::<(u32, Timestamp)>() + beyond * size_of::<(u64, Timestamp)>()
    }
}

impl Service {
    /// The latest time at which an instance was certainly there, or could not have been heard.
    pub(super) fn heard_floor(&self, instance: &Instance) -> Timestamp {
        let heard = self.heard.of(instance.number).unwrap_or(Timestamp::ZERO);
        heard.max(self.core.presence_from).max(instance.presence_since)
    }

    /// When silence (or being lost) of an instance has consequences. A lost one is forgotten only beside one that is up:
    /// a service that is down as a whole stays down, not unknown.
    pub(super) fn presence_due_at(&self, instance: &Instance) -> Option<Timestamp> {
        let settings = Settings::chosen();
        match instance.presence {
            Presence::Up => Some(self.heard_floor(instance).after(settings.presence_timeout())),
            Presence::Lost if self.core.instances.iter().any(Instance::is_up) => {
                Some(instance.presence_since.after(settings.forget_after()))
            }
            Presence::Lost => None,
        }
    }

    pub(super) fn hear(&mut self, id: Option<&str>, now: Timestamp) {
        let id = fit_id(id);
        if let Some(instance) = self.core.instance(&id) {
            let number = instance.number;
            self.heard.note(number, now);
        } else {
            self.heard.beyond.get_or_insert_default().note(&id, now);
        }
    }
}

impl Core {
    pub(super) fn instance(&self, id: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.id == id)
    }

    /// The instance that a message names.
    pub(super) fn find_instance(&self, id: &str) -> Option<&Instance> {
        self.instance(&fit_id(Some(id)))
    }

    pub(super) fn instance_number(&self, number: u32) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.number == number)
    }

    fn instances_bytes(&self) -> usize {
        self.instances.iter().map(Instance::bytes).sum()
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "other changes have other readers")]
    pub(super) fn apply_instance(&mut self, change: &Change, at: Timestamp) {
        match change {
            Change::InstanceSeen { id, version } => {
                let number = self.instance_next;
                self.instance_next = number.wrapping_add(1);
                if !version.is_empty() {
                    self.version.clone_from(version);
                }
                self.instances.push(Instance {
                    number,
                    id: id.clone(),
                    version: version.clone(),
                    presence: Presence::Up,
                    presence_since: at,
                    first_seen: at,
                    health: Status::Unknown,
                    health_reason: CompactString::default(),
                });
            }
            Change::InstanceVersion { number, version } => {
                self.version.clone_from(version);
                self.amend(*number, |instance| instance.version.clone_from(version));
            }
            Change::InstancePresence { number, presence } => self.amend(*number, |instance| {
                instance.presence = *presence;
                instance.presence_since = at;
            }),
            Change::InstanceHealth { number, status, reason } => self.amend(*number, |instance| {
                instance.health = *status;
                instance.health_reason.clone_from(reason);
            }),
            Change::InstanceGone { number, .. } => {
                self.instances.retain(|instance| instance.number != *number);
                for feature in &mut self.features {
                    feature.acknowledgements.retain(|acknowledgement| acknowledgement.instance != *number);
                }
            }
            Change::PresenceRearmed => self.presence_from = at,
            _ => {}
        }
    }

    fn amend(&mut self, number: u32, with: impl FnOnce(&mut Instance)) {
        if let Some(instance) = self.instances.iter_mut().find(|instance| instance.number == number) {
            with(instance);
        }
    }
}

impl Draft<'_> {
    /// Takes note of an instance that asks for something; answers its number.
    pub(super) fn greet(&mut self, id: &str, version: Option<&str>) -> Result<u32, Rejection> {
        self.hear(Some(id), version).ok_or_else(|| {
            Rejection::conflict(format!(
                "there is no room for instance '{}': a twin keeps {INSTANCES_MAX} instances in {INSTANCES_BYTES_MAX} \
                 bytes, and each of the {} here is up; deregister one, or wait until one is lost",
                fit_id(Some(id)),
                self.core.instances.len()
            ))
        })
    }

    /// Takes note of an instance that speaks; answers its number, `None` if there is no room for it.
    fn hear(&mut self, id: Option<&str>, version: Option<&str>) -> Option<u32> {
        let id = fit_id(id);
        let version = CompactString::new(cut(version.unwrap_or_default(), VERSION_BYTES_MAX));
        let Some(known) = self.core.instance(&id) else {
            if !self.make_room(id.len()) {
                return None;
            }
            self.push(Change::InstanceSeen { id, version });
            return self.core.instances.last().map(|instance| instance.number);
        };
        let (number, is_up, other) = (known.number, known.is_up(), !version.is_empty() && known.version != version);
        if !is_up {
            self.push(Change::InstancePresence { number, presence: Presence::Up });
        }
        if other {
            self.push(Change::InstanceVersion { number, version });
        }
        Some(number)
    }

    /// Puts what was observed into a change.
    fn note(&mut self, fact: &Fact) {
        let open = |core: &Core, key: &str| core.alerts.iter().any(|alert| alert.key == key);
        match fact {
            Fact::Open { key, status, value, expected } if !open(&self.core, key) => {
                // One bad release of many operations leaves room for what is said of the service as a whole.
                let kept = if Fact::is_of_operation(key) { Fact::OF_SERVICE } else { 0 };
                if self.core.alerts.len() < ALERTS_MAX - kept {
                    let opened_at = self.now();
                    let alert =
                        Alert { key: key.clone(), status: *status, opened_at, value: *value, expected: *expected };
                    self.push(Change::AlertOpened { alert });
                }
            }
            Fact::Close { key } if open(&self.core, key) => {
                self.push(Change::AlertClosed { key: key.clone() });
            }
            Fact::Open { .. } | Fact::Close { .. } => {}
        }
    }

    /// Displaces lost instances, longest lost first, until one more fits.
    fn make_room(&mut self, id_bytes: usize) -> bool {
        loop {
            let bytes = self.core.instances_bytes() + id_bytes + VERSION_BYTES_MAX + 40;
            if self.core.instances.len() < INSTANCES_MAX && bytes <= INSTANCES_BYTES_MAX {
                return true;
            }
            let lost = self.core.instances.iter().filter(|instance| !instance.is_up());
            let Some(oldest) = lost.min_by_key(|instance| instance.presence_since) else { return false };
            let (number, id) = (oldest.number, oldest.id.clone());
            self.push(Change::InstanceGone { number, id, farewell: Farewell::Displaced });
        }
    }
}

/// An instance's id within its bound.
fn fit_id(id: Option<&str>) -> CompactString {
    let id = id.filter(|id| !id.is_empty()).unwrap_or(UNNAMED);
    if id.len() <= INSTANCE_ID_BYTES_MAX {
        return CompactString::new(id);
    }
    let kept = cut(id, INSTANCE_ID_BYTES_MAX - 17);
    format_compact!("{kept}~{:016x}", xxh3_64(id.as_bytes()))
}

/// Decides what silence means.
pub(super) fn expire(draft: &mut Draft<'_>, service: &Service) {
    let now = draft.now();
    let mut rearm = false;
    for instance in &service.core.instances {
        if service.presence_due_at(instance).is_none_or(|due_at| due_at > now) {
            continue;
        }
        let number = instance.number;
        match instance.presence {
            Presence::Up if service.heard.complete || service.heard.of(number).is_some() => {
                draft.push(Change::InstancePresence { number, presence: Presence::Lost });
            }
            Presence::Up => rearm = true,
            Presence::Lost => {
                draft.push(Change::InstanceGone { number, id: instance.id.clone(), farewell: Farewell::Forgotten });
            }
        }
    }
    if rearm {
        draft.push(Change::PresenceRearmed);
    }
}

impl Decide<Ingest> for Service {
    fn decide(&self, Ingest(batch): &Ingest, turn: &Turn<'_>) -> Result<Decision<Change, ()>, Rejection> {
        if self.core.exists && self.knows(&batch.resource) {
            return Ok(Decision::new(()));
        }
        let mut draft = Draft::arrive(self, turn);
        let Resource { instance, version, environment, .. } = &batch.resource;
        // Telemetry of an instance that there is no room for is the service's all the same.
        let _ = draft.hear(instance.as_deref(), version.as_deref());
        if let Some(environment) = environment.as_deref().map(|text| cut(text, ENVIRONMENT_BYTES_MAX))
            && draft.core.environment != environment
        {
            draft.push(Change::Environment { environment: environment.into() });
        }
        Ok(Decision::new(()).changes(draft.settled()))
    }

    fn observe(&mut self, Ingest(batch): &Ingest, turn: &Turn<'_>) -> Changes<Change> {
        self.hear(batch.resource.instance.as_deref(), turn.now);
        if batch.samples() == 0 && self.observed.is_none() {
            return Changes::new();
        }
        let observed = self.observed.get_or_insert_default();
        let facts = observed.fold(batch, turn.now, &self.core.alerts);
        if facts.is_empty() {
            return Changes::new();
        }
        let mut draft = Draft::of(self, turn);
        for fact in &facts {
            draft.note(fact);
        }
        draft.settled()
    }
}

impl Service {
    /// Whether a sender brings nothing new.
    fn knows(&self, resource: &Resource) -> bool {
        let same_environment = match &resource.environment {
            Some(environment) => self.core.environment == cut(environment, ENVIRONMENT_BYTES_MAX),
            None => true,
        };
        let known = match resource.instance.as_deref() {
            Some(id) if id.len() <= INSTANCE_ID_BYTES_MAX && !id.is_empty() => self.core.instance(id),
            other => self.core.instance(&fit_id(other)),
        };
        let same_instance = known.is_some_and(|instance| {
            let version = cut(resource.version.as_deref().unwrap_or_default(), VERSION_BYTES_MAX);
            instance.is_up() && (version.is_empty() || instance.version == version)
        });
        same_environment && same_instance
    }
}

impl Decide<Heartbeat> for Service {
    fn decide(&self, message: &Heartbeat, turn: &Turn<'_>) -> Result<Decision<Change, Written>, Rejection> {
        let mut draft = Draft::arrive(self, turn);
        let number = draft.greet(&message.instance, message.version.as_deref())?;
        let known = draft.core.instance_number(number);
        if let (Some(known), Some(health)) = (known, &message.health) {
            let room = INSTANCES_BYTES_MAX.saturating_sub(draft.core.instances_bytes() - known.health_reason.len());
            let reason = cut(&health.reason, REASON_BYTES_MAX.min(room));
            if known.health != health.status || known.health_reason != reason {
                let number = known.number;
                draft.push(Change::InstanceHealth { number, status: health.status, reason: reason.into() });
            }
        }
        Ok(draft.written())
    }

    fn observe(&mut self, message: &Heartbeat, turn: &Turn<'_>) -> Changes<Change> {
        self.hear(Some(&message.instance), turn.now);
        Changes::new()
    }
}

impl Decide<Deregister> for Service {
    fn decide(&self, message: &Deregister, turn: &Turn<'_>) -> Result<Decision<Change, Written>, Rejection> {
        let mut draft = Draft::amend(self, turn, None)?;
        let Some(instance) = draft.core.instance(&fit_id(Some(&message.instance))) else {
            return Err(Rejection::not_found(format!("instance '{}'", message.instance)));
        };
        let (number, id) = (instance.number, instance.id.clone());
        draft.push(Change::InstanceGone { number, id, farewell: Farewell::Deregistered });
        Ok(draft.written())
    }
}
