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

/// Bytes of what one service says of itself, names and values together.
const SERVICE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of what all services say of themselves.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes that an entry takes beside its name and value, and a service beside its entries.
const ENTRY_BYTES: usize = 64;
/// The code of a refusal.
const CODE: &str = "ERR_METADATA_SET";

/// What services said of themselves; in memory, as in a sidecar.
#[derive(Debug, Default)]
pub struct Extended(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    services: HashMap<ServiceId, BTreeMap<String, String>>,
    bytes: usize,
}

/// What a service and its entries take.
fn bytes(service: &ServiceId, entries: &BTreeMap<String, String>) -> usize {
    let entries = entries.iter().map(|(name, value)| ENTRY_BYTES + name.len() + value.len());
    ENTRY_BYTES + service.as_str().len() + entries.sum::<usize>()
}

impl Extended {
    /// What a service said.
    pub fn of(&self, service: &ServiceId) -> BTreeMap<String, String> {
        self.0.lock().services.get(service).cloned().unwrap_or_default()
    }

    /// Keeps an entry.
    pub fn set(&self, service: &ServiceId, name: String, value: String) -> Result<(), Refusal> {
        let mut said = self.0.lock();
        let known = said.services.get(service);
        let was = known.map_or(0, |entries| bytes(service, entries));
        let mut entries = known.cloned().unwrap_or_default();
        entries.insert(name, value);
        let is = bytes(service, &entries);
        if is > SERVICE_BYTES_MAX {
            let message = format!("the metadata of a service has at most {SERVICE_BYTES_MAX} bytes");
            return Err(Refusal::full(CODE, message));
        }
        if said.bytes - was + is > BYTES_MAX {
            let message = format!("the metadata of all services of this node has at most {BYTES_MAX} bytes");
            return Err(Refusal::full(CODE, message));
        }
        said.bytes = said.bytes - was + is;
        said.services.insert(service.clone(), entries);
        Ok(())
    }

    /// Forgets what a service said.
    pub fn forget(&self, service: &ServiceId) {
        let mut said = self.0.lock();
        if let Some(entries) = said.services.remove(service) {
            said.bytes -= bytes(service, &entries);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_services_say_is_bounded_for_each_and_for_all_and_nobody_loses_what_was_kept() {
        let extended = Extended::default();
        let service = |number: usize| ServiceId::parse(&format!("shop/{number}")).unwrap();
        let large = || "x".repeat(SERVICE_BYTES_MAX / 2);
        extended.set(&service(0), "a".into(), large()).unwrap();
        let refused = extended.set(&service(0), "b".into(), large()).unwrap_err();
        assert_eq!(refused.grpc, tonic::Code::ResourceExhausted);
        extended.set(&service(0), "a".into(), large()).unwrap();
        let full = (1..100_000).find(|number| extended.set(&service(*number), "a".into(), large()).is_err()).unwrap();
        assert!((BYTES_MAX / SERVICE_BYTES_MAX..=2 * BYTES_MAX / SERVICE_BYTES_MAX).contains(&full), "{full}");
        assert_eq!(extended.of(&service(0))["a"].len(), SERVICE_BYTES_MAX / 2);
        extended.forget(&service(1));
        extended.set(&service(full), "a".into(), large()).unwrap();
    }
}
