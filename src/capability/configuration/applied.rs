//! What instances say of the configuration.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{APPLIED, Change, Configuration};
use crate::{
    capability::check_text,
    model::Timestamp,
    twin::{
        Needs, Rejection, from_bytes,
        part::{PartTurn, Request, Ruling},
        service::limits::INSTANCE_ID_BYTES_MAX,
        to_bytes,
    },
};

/// Most instances remembered; those that spoke first are forgotten.
const INSTANCES_MAX: usize = 128;
/// Longest reason kept, in bytes; cut.
const ERROR_BYTES_MAX: usize = 128;

/// What one instance said, oldest word first in the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceView {
    /// Which.
    pub instance: CompactString,
    /// The version it speaks of.
    pub version: u64,
    /// Why it could not be applied; `None` if it was.
    pub error: Option<CompactString>,
    /// When it said so.
    pub at: Timestamp,
}

/// Says that an instance applied a version, or why it could not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Applied {
    /// Who.
    pub instance: CompactString,
    /// The version.
    pub version: u64,
    /// Why it could not be applied; `None` if it was.
    pub error: Option<CompactString>,
}

/// Reads where the configuration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetStatus;

/// Where the configuration stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// The newest version; 0 if nothing was ever set.
    pub version: u64,
    /// When that was set.
    pub changed_at: Timestamp,
    /// Keys there are.
    pub keys: u64,
    /// Whether every instance that is up has applied the newest version.
    pub in_sync: bool,
    /// What instances said.
    pub instances: Vec<InstanceView>,
}

fn said(turn: &PartTurn<'_>) -> Vec<InstanceView> {
    turn.page(APPLIED).and_then(|bytes| from_bytes(bytes).ok()).unwrap_or_default()
}

impl Request for Applied {
    type Part = Configuration;
    type Reply = ();
    const OPERATION: &'static str = "ack";
    const NAME: &'static str = "configuration-applied/1";

    fn speaks_for(&self) -> Option<&str> {
        Some(&self.instance)
    }

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each("", "get");
    }

    fn needs(&self) -> Needs {
        Needs::Pages(vec![APPLIED.to_owned()])
    }

    fn decide(&self, configuration: &Configuration, turn: &PartTurn<'_>) -> Result<Ruling<Change, ()>, Rejection> {
        check_text("an instance", &self.instance, INSTANCE_ID_BYTES_MAX)?;
        if self.version == 0 || self.version > configuration.version {
            let newest = configuration.version;
            return Err(Rejection::conflict(format!("there is no version {} (the newest is {newest})", self.version)));
        }
        let mut error = self.error.clone();
        if let Some(error) = error.as_mut().filter(|error| error.len() > ERROR_BYTES_MAX) {
            let end = (0..=ERROR_BYTES_MAX).rev().find(|end| error.is_char_boundary(*end)).unwrap_or(0);
            error.truncate(end);
        }
        let mut said = said(turn);
        let is_known = |known: &InstanceView| {
            known.instance == self.instance && known.version == self.version && known.error == error
        };
        if said.iter().any(is_known) {
            return Ok(Ruling::new(()));
        }
        said.retain(|known| known.instance != self.instance);
        if said.len() >= INSTANCES_MAX {
            said.remove(0);
        }
        let (instance, version) = (self.instance.clone(), self.version);
        said.push(InstanceView { instance: instance.clone(), version, error: error.clone(), at: turn.now });
        let ruling = Ruling::new(()).page(APPLIED, Some(to_bytes(&said)));
        Ok(ruling.change(Change::Applied { instance, version, error }))
    }
}

impl Request for GetStatus {
    type Part = Configuration;
    type Reply = StatusView;
    const OPERATION: &'static str = "get";
    const NAME: &'static str = "configuration-status/1";
    const CREATES: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each("", "get");
    }

    fn needs(&self) -> Needs {
        Needs::Pages(vec![APPLIED.to_owned()])
    }

    fn decide(
        &self,
        configuration: &Configuration,
        turn: &PartTurn<'_>,
    ) -> Result<Ruling<Change, StatusView>, Rejection> {
        let instances = said(turn);
        let Configuration { version, changed_at, keys } = *configuration;
        let has_applied = |instance: &&str| {
            instances.iter().any(|said| said.instance == **instance && said.version == version && said.error.is_none())
        };
        let in_sync = version == 0 || turn.instances_up().iter().all(has_applied);
        Ok(Ruling::new(StatusView { version, changed_at, keys, in_sync, instances }))
    }
}
