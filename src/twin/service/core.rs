//! The state of a service twin: what is committed, what it heard, what it observed.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{
    Json,
    access::{Access, Profile},
    command::{Command, CommandEnd},
    feature::{Acknowledgement, Feature},
    instance::{self, Farewell, Heard, Instance},
    meter::Meter,
    observed::Observed,
    parts::Parts,
    view::{CommandState, Presence, Reason, Status},
};
use crate::{
    model::{Timestamp, grant::Grant},
    twin::{
        Decision, Durable, Event, PageWrite, Pages, Snapshot, Terms, Turn, Twin, from_bytes,
        part::{Bytes, Right},
        record,
    },
};

/// The durable counterpart of one service.
#[derive(Debug, Serialize, Deserialize)]
pub struct Service {
    pub(super) core: Core,
    /// What the service may do.
    pub(super) access: Access,
    /// The durable halves of its capabilities.
    pub(super) parts: Parts,
    /// Capability requests of the present second.
    #[serde(skip)]
    pub(super) meter: Meter,
    /// When each instance was last heard of, as far as this activation knows.
    #[serde(skip)]
    pub(super) heard: Heard,
    /// Behaviour; made with the first sample.
    #[serde(skip)]
    pub(super) observed: Option<Box<Observed>>,
}

/// The committed part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Core {
    pub(super) id: CompactString,
    pub(super) created_at: Timestamp,
    pub(super) exists: bool,
    pub(super) removed: bool,
    pub(super) attributes: Json,
    pub(super) environment: CompactString,
    pub(super) version: CompactString,
    pub(super) instances: Vec<Instance>,
    pub(super) instance_next: u32,
    /// Silence before this does not count: the node was away.
    pub(super) presence_from: Timestamp,
    pub(super) features: Vec<Feature>,
    pub(super) commands: Vec<Command>,
    pub(super) schemas: Vec<Schema>,
    pub(super) alerts: Vec<Alert>,
    pub(super) health: Health,
}

/// What parameters a command takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    pub(super) command: CompactString,
    pub(super) schema: Json,
}

/// Something deviates; opened once, closed once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// What deviates.
    pub key: CompactString,
    /// How bad.
    pub status: Status,
    /// When it opened.
    pub opened_at: Timestamp,
    /// The value that opened it.
    pub value: f64,
    /// What was expected.
    pub expected: f64,
}

/// Health as last judged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub(super) status: Status,
    pub(super) since: Timestamp,
    pub(super) reasons: Vec<Reason>,
}

/// A fact about a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// It came into being (again).
    Created {
        /// Its first attributes.
        attributes: Json,
    },
    /// It was removed; a tombstone stays.
    Removed,
    /// Its attributes are now these.
    Attributes {
        /// All of them.
        attributes: Json,
    },
    /// It runs in this environment.
    Environment {
        /// `deployment.environment.name`.
        environment: CompactString,
    },
    /// An instance was heard of for the first time.
    InstanceSeen {
        /// Its id.
        id: CompactString,
        /// Its version; empty if it states none.
        version: CompactString,
    },
    /// An instance runs another version.
    InstanceVersion {
        /// Its number within the twin.
        number: u32,
        /// The version.
        version: CompactString,
    },
    /// An instance fell silent or came back.
    InstancePresence {
        /// Its number within the twin.
        number: u32,
        /// Which.
        presence: Presence,
    },
    /// An instance says how it is.
    InstanceHealth {
        /// Its number within the twin.
        number: u32,
        /// How.
        status: Status,
        /// Why.
        reason: CompactString,
    },
    /// An instance is not kept any longer.
    InstanceGone {
        /// Its number within the twin.
        number: u32,
        /// Its id.
        id: CompactString,
        /// Why.
        farewell: Farewell,
    },
    /// The node was away, so silence counts from now on only.
    PresenceRearmed,
    /// What a feature shall be.
    Desired {
        /// The feature.
        feature: CompactString,
        /// All of it; `None` if nothing is desired.
        document: Option<Json>,
        /// The revision this makes.
        version: u64,
    },
    /// What the service says a feature is.
    Reported {
        /// The feature.
        feature: CompactString,
        /// All of it.
        document: Option<Json>,
        /// The revision this makes.
        version: u64,
    },
    /// What is in force of a feature.
    Effective {
        /// The feature.
        feature: CompactString,
        /// All of it.
        document: Option<Json>,
    },
    /// What an instance did with a desired version.
    Acknowledged {
        /// The feature.
        feature: CompactString,
        /// The rest.
        acknowledgement: Acknowledgement,
    },
    /// A feature came into sync or left it.
    InSync {
        /// The feature.
        feature: CompactString,
        /// Which.
        in_sync: bool,
    },
    /// A command was taken in.
    CommandPosted {
        /// All of it.
        command: Box<Command>,
    },
    /// A command moved on at one instance.
    CommandMoved {
        /// The command.
        id: u64,
        /// The instance's number.
        instance: u32,
        /// To where: delivered or acknowledged.
        state: CommandState,
        /// Until when it must move on.
        due_at: Timestamp,
    },
    /// A command ended at one instance.
    CommandEnded {
        /// The command.
        id: u64,
        /// The instance's number.
        instance: u32,
        /// How.
        end: CommandEnd,
    },
    /// A command ended wherever it had not.
    CommandClosed {
        /// The command.
        id: u64,
        /// How.
        end: CommandEnd,
    },
    /// A command is not handed to further instances.
    CommandStopped {
        /// The command.
        id: u64,
    },
    /// What parameters a command takes.
    CommandDefined {
        /// The command's name.
        name: CompactString,
        /// The schema; `None` takes it away.
        schema: Option<Json>,
    },
    /// Something deviates.
    AlertOpened {
        /// What.
        alert: Alert,
    },
    /// It does not any longer.
    AlertClosed {
        /// What.
        key: CompactString,
    },
    /// Health was judged anew.
    Health {
        /// How it was.
        from: Status,
        /// How it is.
        status: Status,
        /// Why.
        reasons: Vec<Reason>,
    },
    /// The service may, or expressly may not.
    Granted {
        /// What.
        grant: Grant,
    },
    /// A grant counts no more.
    GrantTaken {
        /// Which.
        grant: Grant,
    },
    /// The grants that come with a profile are those of another one.
    ProfileChosen {
        /// Which.
        profile: Profile,
    },
    /// A capability request was refused.
    Denied {
        /// What was wanted.
        right: Right,
        /// The deciding rule.
        rule: CompactString,
    },
    /// A part changed.
    Part {
        /// Which.
        part: CompactString,
        /// The schema of the change.
        schema: u16,
        /// The change, as the part encodes it.
        change: Bytes,
    },
    /// The pages of a removed twin's parts are being swept.
    PartsRetiring,
    /// None of a removed twin's pages of this part is left.
    PartRetired {
        /// Which.
        part: CompactString,
    },
}

impl Change {
    /// Part, schema and bytes of a part's change.
    pub fn part(&self) -> Option<(&str, u16, &Bytes)> {
        if let Self::Part { part, schema, change } = self { Some((part, *schema, change)) } else { None }
    }
}

impl Core {
    /// Installs a fact.
    pub(super) fn apply(&mut self, change: &Change, at: Timestamp) {
        match change {
            Change::Created { attributes } => {
                let (id, instance_next) = (std::mem::take(&mut self.id), self.instance_next);
                *self = Self {
                    id,
                    instance_next,
                    created_at: at,
                    exists: true,
                    attributes: attributes.clone(),
                    health: Health { since: at, ..Health::default() },
                    ..Self::default()
                };
            }
            Change::Removed => {
                let (id, instance_next) = (std::mem::take(&mut self.id), self.instance_next);
                *self = Self { id, instance_next, created_at: self.created_at, removed: true, ..Self::default() };
            }
            Change::Attributes { attributes } => self.attributes.clone_from(attributes),
            Change::Environment { environment } => self.environment.clone_from(environment),
            Change::InstanceSeen { .. }
            | Change::InstanceVersion { .. }
            | Change::InstancePresence { .. }
            | Change::InstanceHealth { .. }
            | Change::InstanceGone { .. }
            | Change::PresenceRearmed => self.apply_instance(change, at),
            Change::Desired { .. }
            | Change::Reported { .. }
            | Change::Effective { .. }
            | Change::Acknowledged { .. }
            | Change::InSync { .. } => self.apply_feature(change, at),
            Change::CommandPosted { .. }
            | Change::CommandMoved { .. }
            | Change::CommandEnded { .. }
            | Change::CommandClosed { .. }
            | Change::CommandStopped { .. }
            | Change::CommandDefined { .. } => self.apply_command(change, at),
            Change::AlertOpened { alert } => {
                self.alerts.retain(|open| open.key != alert.key);
                self.alerts.push(alert.clone());
            }
            Change::AlertClosed { key } => self.alerts.retain(|open| open.key != *key),
            Change::Health { status, reasons, .. } => {
                if self.health.status != *status {
                    self.health.since = at;
                }
                self.health.status = *status;
                self.health.reasons.clone_from(reasons);
            }
            Change::Granted { .. }
            | Change::GrantTaken { .. }
            | Change::ProfileChosen { .. }
            | Change::Denied { .. }
            | Change::Part { .. }
            | Change::PartsRetiring
            | Change::PartRetired { .. } => {}
        }
    }
}

impl Twin for Service {
    const KIND: &'static str = "service";
    const JOURNAL: bool = true;
    const OBSERVED: Option<&'static str> = Some(super::observed::PREFIX);
    type Persistence = Durable;
    type Change = Change;

    fn create(key: &str) -> Self {
        Self {
            core: Core { id: key.into(), ..Core::default() },
            access: Access::default(),
            parts: Parts::default(),
            meter: Meter::default(),
            heard: Heard::complete(),
            observed: None,
        }
    }

    fn apply(&mut self, change: &Change, at: Timestamp) {
        self.core.apply(change, at);
        self.access.apply(change, at);
        self.parts.follow(change, at);
        self.heard.follow(change, &self.core, at);
        if *change == Change::Removed {
            self.observed = None;
        }
    }

    fn wake_at(&self) -> Option<Timestamp> {
        let presence = self.core.instances.iter().filter_map(|instance| self.presence_due_at(instance));
        let commands = self.core.commands.iter().filter_map(Command::due_at);
        presence.chain(commands).chain(self.parts.wake_at()).min()
    }

    fn wake(&self, turn: &Turn<'_>) -> Decision<Change, ()> {
        let mut draft = super::Draft::of(self, turn);
        instance::expire(&mut draft, self);
        super::command::expire(&mut draft);
        self.parts.wake(turn, &self.core, Decision::new(()).changes(draft.settled()))
    }

    fn index(&self, terms: &mut Terms) {
        self.parts.index(terms);
        super::index::terms(&self.core, terms);
    }

    fn event(&self, change: &Change) -> Option<Event> {
        match change.part() {
            Some((part, schema, change)) => self.parts.event(part, schema, change),
            None => super::event::of(&self.core, change),
        }
    }

    fn restore(&mut self, pages: Pages) {
        if !pages.is_empty() && self.core.exists {
            self.observed = Some(Box::new(Observed::restored(&pages)));
        }
    }

    fn unsaved(&self) -> bool {
        self.observed.as_ref().is_some_and(|observed| observed.unsaved())
    }

    fn save(&mut self, now: Timestamp, bytes_max: usize) -> Vec<PageWrite> {
        self.observed.as_mut().map(|observed| observed.save(now, bytes_max)).unwrap_or_default()
    }

    fn heap_bytes(&self) -> usize {
        self.core.heap_bytes()
            + self.access.heap_bytes()
            + self.parts.heap_bytes()
            + self.heard.heap_bytes()
            + self.observed.as_ref().map_or(0, |observed| observed.heap_bytes())
    }
}

impl Snapshot for Service {
    const SCHEMA: u16 = 2;
    const FIELDS: &'static str = include_str!("fields.txt");

    /// Schema 1 had neither grants nor parts.
    fn migrate(from: u16, bytes: &[u8]) -> Result<Self, record::Error> {
        if from != 1 {
            return Err(record::Error::OlderSchema { found: from, supported: Self::SCHEMA });
        }
        Ok(Self { core: from_bytes(bytes)?, ..Self::create("") })
    }

    /// Changes of schema 1 are the first ones of today's.
    fn migrate_change(from: u16, bytes: &[u8]) -> Result<Change, record::Error> {
        if from == 1 {
            from_bytes(bytes)
        } else {
            Err(record::Error::OlderSchema { found: from, supported: Self::SCHEMA })
        }
    }
}

impl Core {
    /// Bytes behind this state, estimated: eviction by bytes needs no more.
    fn heap_bytes(&self) -> usize {
        self.attributes.text().len()
            + self.instances.capacity() * size_of::<Instance>()
            + self.instances.iter().map(|instance| instance.id.len()).sum::<usize>()
            + self.features.iter().map(|feature| size_of::<Feature>() + feature.bytes()).sum::<usize>()
            + self.commands.iter().map(|command| size_of::<Command>() + command.bytes()).sum::<usize>()
            + self.schemas.iter().map(|schema| size_of::<Schema>() + schema.schema.text().len()).sum::<usize>()
            + self.alerts.capacity() * size_of::<Alert>()
            + self.health.reasons.capacity() * size_of::<Reason>()
    }
}
