//! Configuration: values that are set from outside and pushed to a service that runs.
//!
//! Several keys change in one commit, which makes one version of the whole; each key says in which version it changed
//! last. What a version replaced is kept for some time, so that it can be taken back. Instances say which version they
//! have applied, or why they could not.
//!
//! Start with [`Put`] and [`Get`].

mod applied;
mod read;
mod write;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

pub use self::{
    applied::{Applied, GetStatus, InstanceView, StatusView},
    read::{Get, Item},
    write::{Changed, Edit, Put, Rollback},
};
use super::Registry;
use crate::{
    model::{Timestamp, limits},
    twin::{Event, part::Part, service::Json},
};

/// Most keys of a twin.
pub const KEYS_MAX: u64 = 256;
/// Most keys that one request names; a way back reads one page more.
pub const KEYS_AT_ONCE_MAX: usize = limits::NEEDS_KEYS_MAX - 1;
/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 128;
/// Largest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 8 * 1024;
/// Largest metadata of a key, names and values together, in bytes.
pub const METADATA_BYTES_MAX: usize = 1024;
/// Versions that can be taken back.
pub const VERSIONS_KEPT: u64 = 16;

/// Hands part and requests to `registry`.
pub fn register(registry: &mut impl Registry) {
    registry.part::<Configuration>();
    registry.request::<Get>();
    registry.request::<Put>();
    registry.request::<Changed>();
    registry.request::<Rollback>();
    registry.request::<Applied>();
    registry.request::<GetStatus>();
}

/// What the core record holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Commits so far.
    version: u64,
    changed_at: Timestamp,
    keys: u64,
}

/// One key as its page holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Value {
    /// Number of the present form.
    format: u8,
    value: String,
    /// The version in which it changed last.
    version: u64,
    /// Sorted by name.
    metadata: Vec<(CompactString, String)>,
    /// What a value must be: a small subset of JSON Schema.
    schema: Option<Json>,
}

const FORMAT: u8 = 1;

/// A fact about the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Keys changed together.
    Put {
        /// The version that this makes.
        version: u64,
        /// Keys that were written.
        keys: Vec<CompactString>,
        /// Keys that were removed.
        removed: Vec<CompactString>,
        /// How many of those written were not there.
        added: u64,
        /// The version that was gone back to, if it was a way back.
        restores: Option<u64>,
    },
    /// An instance applied a version, or could not.
    Applied {
        /// Which.
        instance: CompactString,
        /// The version.
        version: u64,
        /// Why not.
        error: Option<CompactString>,
    },
}

impl Part for Configuration {
    const NAME: &'static str = "configuration";
    const SCHEMA: u16 = 1;
    type Change = Change;

    fn apply(&mut self, change: &Change, at: Timestamp) {
        match change {
            Change::Put { version, removed, added, .. } => {
                let gone = u64::try_from(removed.len()).unwrap_or(u64::MAX);
                self.keys = (self.keys + added).saturating_sub(gone);
                (self.version, self.changed_at) = (*version, at);
            }
            Change::Applied { .. } => {}
        }
    }

    fn event(&self, change: &Change) -> Option<Event> {
        let (name, data) = match change {
            Change::Put { version, keys, removed, restores, .. } => (
                EVENT,
                serde_json::json!({ "version": version, "keys": keys, "removed": removed, "restores": restores }),
            ),
            Change::Applied { instance, version, error } => (
                "twin.configuration.applied",
                serde_json::json!({ "instance": instance, "version": version, "error": error }),
            ),
        };
        Some(Event { name: name.into(), data: data.to_string().into_bytes().into() })
    }
}

/// The event of a change.
pub const EVENT: &str = "twin.configuration.changed";
/// The pages of keys begin so.
const KEYS: &str = "k/";
/// The page of what instances said.
const APPLIED: &str = "applied";

/// The page of a key.
fn page(key: &str) -> String {
    format!("{KEYS}{key}")
}

/// The page of what a version replaced.
fn undo_page(version: u64) -> String {
    format!("u/{version:016x}")
}
