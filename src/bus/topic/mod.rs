//! One topic: its messages, its groups of consumers, who may use it.

mod append;
mod group;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

pub use self::{
    append::{Append, READ_MAX, Read, Stored, Trim},
    group::{Group, Lease, Leased, Outcome, Renew, Seek, Settle, Settled, Start},
};
use crate::{
    model::{Lane, Principal, ServiceId, Timestamp},
    twin::{Changes, Decide, Decision, Durable, Message, Rejection, Snapshot, Turn, Twin, Wire},
};

/// Messages kept; the oldest give way to new ones.
pub const MESSAGES_KEPT: u64 = 100_000;
/// Largest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = crate::model::limits::PAGE_BYTES_MAX - 512;
/// Most groups of consumers.
pub const GROUPS_MAX: usize = 32;
/// Most entries of the access list.
pub const ACCESS_MAX: usize = 32;

/// What a service does with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Puts messages in.
    Publish,
    /// Takes messages out.
    Subscribe,
}

impl Wish {
    /// As grants name it.
    pub const fn operation(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
        }
    }
}

/// Who besides the owner may use a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Every service of the owner's namespace.
    #[default]
    Namespace,
    /// These services, for these purposes.
    Listed(Vec<(ServiceId, Vec<Wish>)>),
}

/// The twin of one topic. Its key is namespace, component and topic, each behind a `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    owner: Option<ServiceId>,
    access: Access,
    /// Number of the oldest message kept.
    first: u64,
    /// Number of the next message.
    next: u64,
    groups: Vec<CompactString>,
}

/// A fact about a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// It came into being.
    Created {
        /// Whose it is.
        owner: ServiceId,
    },
    /// Messages were put in.
    Appended {
        /// How many.
        count: u64,
    },
    /// The oldest messages were let go.
    Trimmed {
        /// Number of the oldest one kept.
        first: u64,
    },
    /// A group of consumers is there.
    Joined {
        /// Its name.
        group: CompactString,
    },
    /// Others may use it from now on.
    Opened {
        /// Who.
        access: Access,
    },
}

impl Twin for Topic {
    const KIND: &'static str = "topic";
    type Persistence = Durable;
    type Change = Change;

    fn create(_: &str) -> Self {
        Self { first: 1, next: 1, ..Self::default() }
    }

    fn apply(&mut self, change: &Change, _: Timestamp) {
        match change {
            Change::Created { owner } => self.owner = Some(owner.clone()),
            Change::Appended { count } => self.next += count,
            Change::Trimmed { first } => self.first = *first,
            Change::Joined { group } => self.groups.push(group.clone()),
            Change::Opened { access } => self.access = access.clone(),
        }
    }

    fn heap_bytes(&self) -> usize {
        self.groups.capacity() * size_of::<CompactString>()
    }
}

impl Snapshot for Topic {
    const SCHEMA: u16 = 1;
    const FIELDS: &'static str = "owner:option<str> access:{namespace|listed[(str,[{publish|subscribe}])]} first:u64 \
                                  next:u64 groups:[str]";
}

impl Topic {
    /// Refuses whoever may not do this, and names the owner of a topic that is used for the first time.
    fn enter(&self, turn: &Turn<'_>, wish: Wish) -> Result<Changes<Change>, Rejection> {
        let denied = |rule: &str| Rejection::Denied { rule: rule.to_owned().into() };
        let service = match turn.header.principal() {
            Principal::Host | Principal::Runtime | Principal::Operator { .. } => return Ok(Changes::new()),
            Principal::Service { service, .. } => service,
            Principal::Ingest { .. } | Principal::Twin { .. } => return Err(denied("topics are for services")),
        };
        if turn.key.split('/').next() != Some(service.namespace()) {
            return Err(denied("the topic is of another namespace"));
        }
        let Some(owner) = &self.owner else {
            return Ok([Change::Created { owner: service.clone() }].into_iter().collect());
        };
        let allowed = owner == service
            || match &self.access {
                Access::Namespace => owner.namespace() == service.namespace(),
                Access::Listed(listed) => {
                    listed.iter().any(|(other, wishes)| other == service && wishes.contains(&wish))
                }
            };
        if allowed { Ok(Changes::new()) } else { Err(denied("the topic's owner has not let this service in")) }
    }
}

/// Says who besides the owner may use the topic.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Open {
    /// Who.
    pub access: Access,
}

impl Message for Open {
    type Twin = Topic;
    type Reply = ();
    const LANE: Lane = Lane::Control;
}

impl Wire for Open {
    const NAME: &'static str = "open/1";
}

impl Decide<Open> for Topic {
    fn decide(&self, open: &Open, turn: &Turn<'_>) -> Result<Decision<Change, ()>, Rejection> {
        let mut changes = self.enter(turn, Wish::Publish)?;
        if let Principal::Service { service, .. } = turn.header.principal()
            && self.owner.as_ref().is_some_and(|owner| owner != service)
        {
            return Err(Rejection::Denied { rule: "only the topic's owner and operators let others in".into() });
        }
        if let Access::Listed(listed) = &open.access {
            Rejection::within("topic access", ACCESS_MAX, listed.len())?;
        }
        changes.push(Change::Opened { access: open.access.clone() });
        Ok(Decision::new(()).changes(changes))
    }
}

/// The page of a message; these sort by number.
fn page(number: u64) -> String {
    format!("m/{number:016x}")
}
