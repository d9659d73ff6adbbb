//! What a service is told about itself and what it may use.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;
use serde::Serialize;

use super::{Block, Refusal, Session};
use crate::{
    capability::{
        components::{DEFAULTS, GetComponents, Kind},
        state::GetStores,
    },
    model::ServiceId,
    twin::{Failure, Rejection},
};

/// Services whose extended metadata is kept.
const SERVICES_MAX: usize = 65_536;
/// Entries of one service.
const ENTRIES_MAX: usize = 64;
/// Bytes of one entry, name and value together.
const ENTRY_BYTES_MAX: usize = 1024;

/// What services said of themselves; in memory, as in a sidecar.
#[derive(Debug, Default)]
pub struct Extended(Mutex<HashMap<ServiceId, BTreeMap<String, String>>>);

impl Extended {
    /// What a service said.
    pub fn of(&self, service: &ServiceId) -> BTreeMap<String, String> {
        self.0.lock().get(service).cloned().unwrap_or_default()
    }

    /// Keeps an entry.
    pub fn set(&self, service: &ServiceId, name: String, value: String) -> Result<(), Refusal> {
        if name.len() + value.len() > ENTRY_BYTES_MAX {
            return Err(Refusal::malformed(format!("an entry of the metadata has at most {ENTRY_BYTES_MAX} bytes")));
        }
        let mut services = self.0.lock();
        if services.len() >= SERVICES_MAX && !services.contains_key(service) {
            services.clear();
        }
        let entries = services.entry(service.clone()).or_default();
        if entries.len() >= ENTRIES_MAX && !entries.contains_key(&name) {
            return Err(Refusal::malformed(format!("a service has at most {ENTRIES_MAX} entries of metadata")));
        }
        entries.insert(name, value);
        Ok(())
    }

    /// Forgets what a service said.
    pub fn forget(&self, service: &ServiceId) {
        self.0.lock().remove(service);
    }
}

/// One thing a service may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its kind and who provides it.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The version of the kind.
    pub version: &'static str,
    /// What it can do.
    pub capabilities: &'static [&'static str],
}

const STATE_CAPABILITIES: &[&str] = &["ETAG", "TRANSACTIONAL", "TTL"];

impl Session {
    /// Refuses a name that does not stand for this.
    pub(super) async fn component(&self, block: Block, name: &str, kind: Kind) -> Result<(), Refusal> {
        if DEFAULTS.contains(&(name, kind)) {
            return Ok(());
        }
        let components = self.ask_for(block, name, GetComponents).await?;
        if components.iter().any(|known| known.name == name && known.kind == kind) {
            return Ok(());
        }
        Err(Refusal::missing(block, name))
    }

    /// What the service may use.
    pub async fn components(&self) -> Result<Vec<Component>, Refusal> {
        let state =
            |name: String| Component { name, kind: "state.twin", version: "v1", capabilities: STATE_CAPABILITIES };
        let mut components = match self.call(GetStores).await {
            Ok(stores) => stores.into_iter().map(|store| state(store.store.into())).collect(),
            Err(Failure::Rejected(Rejection::Denied { .. })) => Vec::new(),
            Err(failure) => return Err(Refusal::from(self.server.problem(&failure))),
        };
        let names = match self.call(GetComponents).await {
            Ok(names) => names,
            Err(Failure::Rejected(Rejection::Denied { .. })) => Vec::new(),
            Err(failure) => return Err(Refusal::from(self.server.problem(&failure))),
        };
        components.extend(names.into_iter().map(|known| {
            let kind = match known.kind {
                Kind::Secrets => "secretstores.twin",
                Kind::Configuration => "configuration.twin",
                Kind::Pubsub => "pubsub.twin",
            };
            Component { name: known.name.into(), kind, version: "v1", capabilities: &[] }
        }));
        Ok(components)
    }
}
