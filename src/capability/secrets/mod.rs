//! Secrets: versions of a value that only its service reads, rotated while it runs.
//!
//! A value enters and leaves sealed ([`seal`]): no plaintext in change, page, journal or log. Each version lies in a page
//! of its own. A rotation keeps the version before valid until every live instance said that it moved on, or a deadline
//! is over; then it is deleted, and whoever had not moved is named.
//!
//! Start with [`Put`] and [`Get`].

mod ack;
mod read;
#[cfg(feature = "server")]
pub mod seal;
mod write;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

pub use self::{
    ack::{Ack, Conclude},
    read::{Compare, Get, GetSecrets, Prepare, Prepared, Sealed, SecretView},
    write::{Delete, Put, Rotation},
};
use super::Registry;
use crate::{
    model::Timestamp,
    twin::{
        Effect, Event, Rejection,
        part::{Bytes, Part, PartTurn, Ruling},
        service::parts::Use,
    },
};

/// Most secrets of a twin.
pub const SECRETS_MAX: usize = 32;
/// Longest name of a secret, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Largest sealed value, in bytes.
pub const SEALED_BYTES_MAX: usize = 24 * 1024;
/// How often a rotation is looked at, besides whenever an instance says that it moved.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_secs(15);

/// Hands part and requests to `registry`.
pub fn register(registry: &mut impl Registry) {
    registry.part::<Secrets>();
    registry.request::<Prepare>();
    registry.request::<Put>();
    registry.request::<Get>();
    registry.request::<Compare>();
    registry.request::<GetSecrets>();
    registry.request::<Delete>();
    registry.request::<Ack>();
    registry.request::<Conclude>();
}

/// What the core record holds: the twin's own key, wrapped, and where each secret stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// The key that values are sealed with, wrapped by the node's; gone with the twin.
    key: Bytes,
    secrets: Vec<Secret>,
    look_at: Option<Timestamp>,
}

/// Where one secret stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Secret {
    name: CompactString,
    version: u64,
    changed_at: Timestamp,
    /// The version before, and until when it is valid at the latest.
    previous: Option<(u64, Timestamp)>,
}

/// A fact about secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The twin has a key of its own.
    Keyed {
        /// The key, wrapped.
        key: Bytes,
    },
    /// A secret has a new version.
    Put {
        /// Its name.
        secret: CompactString,
        /// The version.
        version: u64,
        /// Until when the version before stays valid; it does not if `None`.
        overlap_until: Option<Timestamp>,
    },
    /// A secret was read.
    Read {
        /// Its name.
        secret: CompactString,
        /// The version that was read.
        version: u64,
    },
    /// An instance uses a version.
    Moved {
        /// The secret.
        secret: CompactString,
        /// The instance.
        instance: CompactString,
        /// The version.
        version: u64,
    },
    /// The version before counts no more.
    Revoked {
        /// The secret.
        secret: CompactString,
        /// The version that was revoked.
        version: u64,
        /// Live instances that had not moved on.
        stragglers: Vec<CompactString>,
    },
    /// A secret was deleted.
    Deleted {
        /// Its name.
        secret: CompactString,
    },
    /// Rotations are looked at again.
    Look {
        /// When; not at all if none is under way.
        at: Option<Timestamp>,
    },
}

impl Part for Secrets {
    const NAME: &'static str = "secrets";
    const SCHEMA: u16 = 1;
    type Change = Change;

    fn apply(&mut self, change: &Change, at: Timestamp) {
        match change {
            Change::Keyed { key } => self.key = key.clone(),
            Change::Put { secret, version, overlap_until } => {
                let changed_at = at;
                if let Some(known) = self.secrets.iter_mut().find(|known| known.name == *secret) {
                    known.previous = overlap_until.map(|until| (known.version, until));
                    (known.version, known.changed_at) = (*version, changed_at);
                } else {
                    let name = secret.clone();
                    self.secrets.push(Secret { name, version: *version, changed_at, previous: None });
                }
                if overlap_until.is_some() {
                    self.look_at = Some(at.after(LOOK_EVERY));
                }
            }
            Change::Revoked { secret, .. } => {
                if let Some(known) = self.secrets.iter_mut().find(|known| known.name == *secret) {
                    known.previous = None;
                }
                if self.secrets.iter().all(|known| known.previous.is_none()) {
                    self.look_at = None;
                }
            }
            Change::Deleted { secret } => self.secrets.retain(|known| known.name != *secret),
            Change::Look { at } => self.look_at = *at,
            Change::Read { .. } | Change::Moved { .. } => {}
        }
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.look_at
    }

    fn wake(&self, turn: &PartTurn<'_>) -> Ruling<Change, ()> {
        let rotating = self.secrets.iter().filter(|secret| secret.previous.is_some());
        let earliest = rotating.clone().filter_map(|secret| secret.previous).map(|(_, until)| until).min();
        let again = earliest.map(|until| turn.now.after(LOOK_EVERY).min(until.max(turn.now.after(LOOK_EVERY / 15))));
        let tell = |secret: &Secret| Effect::tell(turn.key.clone(), Use(Conclude { secret: secret.name.clone() }));
        rotating.map(tell).fold(Ruling::new(()).change(Change::Look { at: again }), Ruling::effect)
    }

    fn event(&self, change: &Change) -> Option<Event> {
        let (name, data) = match change {
            Change::Put { secret, version, overlap_until } => (
                "twin.secret.changed",
                serde_json::json!({ "secret": secret, "version": version, "overlap_until": overlap_until }),
            ),
            Change::Moved { secret, instance, version } => (
                "twin.secret.acknowledged",
                serde_json::json!({ "secret": secret, "instance": instance, "version": version }),
            ),
            Change::Revoked { secret, version, stragglers } => (
                "twin.secret.revoked",
                serde_json::json!({ "secret": secret, "version": version, "stragglers": stragglers }),
            ),
            Change::Deleted { secret } => ("twin.secret.deleted", serde_json::json!({ "secret": secret })),
            Change::Keyed { .. } | Change::Read { .. } | Change::Look { .. } => return None,
        };
        Some(Event { name: name.into(), data: data.to_string().into_bytes().into() })
    }

    fn heap_bytes(&self) -> usize {
        self.key.0.len() + self.secrets.capacity() * size_of::<Secret>()
    }
}

impl Secrets {
    fn secret(&self, name: &str) -> Result<&Secret, Rejection> {
        let secret = self.secrets.iter().find(|secret| secret.name == name);
        secret.ok_or_else(|| Rejection::not_found(format!("secret '{}'", name.chars().take(64).collect::<String>())))
    }
}

/// The page of one version of a secret.
fn page(secret: &str, version: u64) -> String {
    format!("v/{secret}/{version:010}")
}

/// The page of which instance uses which version.
fn moved_page(secret: &str) -> String {
    format!("m/{secret}")
}
