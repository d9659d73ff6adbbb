//! Invocation: which services a service calls, and who may call it.
//!
//! Two twins rule on a call. The caller's asks its grants, such as `invoke:billing/POST /charge`: the service's name (in
//! another namespace `/namespace/name`), a slash, the method, a space, the path. The target's asks its list of callers;
//! without a list whoever has the grant may call. The call itself goes past both.

use compact_str::{CompactString, format_compact};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{Registry, check_text};
use crate::{
    model::{Principal, ServiceId, Timestamp},
    twin::{
        Event, Rejection,
        part::{Part, PartTurn, Request, Ruling},
    },
};

/// Most entries of a list of callers.
pub const CALLERS_MAX: usize = 32;
/// Longest service of an entry, in bytes.
pub const SERVICE_BYTES_MAX: usize = 256;
/// Longest method and path, in bytes.
pub const METHOD_BYTES_MAX: usize = 256;
/// A refusal that is repeated within this time is not journaled again.
const REFUSED_AGAIN: std::time::Duration = std::time::Duration::from_secs(60);
/// Most refusals remembered for that.
const REFUSED_MAX: usize = 16;

/// Hands part and requests to `registry`.
pub fn register(registry: &mut impl Registry) {
    registry.part::<Invocation>();
    registry.request::<Permit>();
    registry.request::<Admit>();
    registry.request::<GetCallers>();
    registry.request::<SetCallers>();
}

/// Who may call, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// The service, `namespace/name`; `*` at the end stands for any rest.
    pub service: CompactString,
    /// The method and path, such as `POST /charge`; `*` at the end stands for any rest.
    pub method: CompactString,
}

/// Who may call this service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation {
    /// Without a list, whoever was granted it.
    callers: Option<Vec<Caller>>,
    /// Refusals that were journaled lately: hash and time.
    refused: Vec<(u64, Timestamp)>,
}

/// A fact about invocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Who may call was stated; `None` takes the list away.
    CallersSet {
        /// The list.
        callers: Option<Vec<Caller>>,
    },
    /// Somebody was refused who had the grant to call.
    CallerRefused {
        /// Who.
        caller: ServiceId,
        /// What was called.
        method: CompactString,
    },
}

fn holds(pattern: &str, text: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == text, |start| text.starts_with(start))
}

/// Whatever it calls: a caller cannot fill the journal with paths.
fn hash(caller: &ServiceId) -> u64 {
    xxh3_64(caller.as_str().as_bytes())
}

impl Part for Invocation {
    const NAME: &'static str = "invoke";
    const SCHEMA: u16 = 1;
    type Change = Change;

    fn apply(&mut self, change: &Change, at: Timestamp) {
        match change {
            Change::CallersSet { callers } => self.callers.clone_from(callers),
            Change::CallerRefused { caller, .. } => {
                let hash = hash(caller);
                self.refused.retain(|(known, _)| *known != hash);
                if self.refused.len() >= REFUSED_MAX {
                    self.refused.remove(0);
                }
                self.refused.push((hash, at));
            }
        }
    }

    fn event(&self, change: &Change) -> Option<Event> {
        let (name, data) = match change {
            Change::CallersSet { callers } => ("twin.callers.set", serde_json::json!({ "callers": callers })),
            Change::CallerRefused { caller, method } => {
                ("twin.caller.refused", serde_json::json!({ "caller": caller.as_str(), "method": method }))
            }
        };
        Some(Event { name: name.into(), data: data.to_string().into_bytes().into() })
    }

    fn heap_bytes(&self) -> usize {
        let callers = self.callers.as_ref().map_or(0, Vec::capacity) * size_of::<Caller>();
        callers + self.refused.capacity() * size_of::<(u64, Timestamp)>()
    }
}

/// Asks for the right to call; nothing is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permit {
    /// Service, method and path: `billing/POST /charge`.
    pub name: CompactString,
}

impl Request for Permit {
    type Part = Invocation;
    type Reply = ();
    const OPERATION: &'static str = "call";
    const NAME: &'static str = "invoke-permit/1";
    const CREATES: bool = true;
    const IS_PUBLIC: bool = false;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each(&self.name, "call");
    }

    fn heap_bytes(&self) -> usize {
        self.name.len()
    }

    fn decide(&self, _: &Invocation, _: &PartTurn<'_>) -> Result<Ruling<Change, ()>, Rejection> {
        Ok(Ruling::new(()))
    }
}

/// Asks the target whether it takes a call; the node asks it on behalf of the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admit {
    /// Who calls.
    pub caller: ServiceId,
    /// Method and path: `POST /charge`.
    pub method: CompactString,
}

impl Request for Admit {
    type Part = Invocation;
    type Reply = bool;
    const OPERATION: &'static str = "admit";
    const NAME: &'static str = "invoke-admit/1";
    const CREATES: bool = true;
    const INTERNAL: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each(&self.method, "admit");
    }

    fn heap_bytes(&self) -> usize {
        self.method.len()
    }

    fn decide(&self, invocation: &Invocation, turn: &PartTurn<'_>) -> Result<Ruling<Change, bool>, Rejection> {
        let Self { caller, method } = self;
        let may = |known: &Caller| holds(&known.service, caller.as_str()) && holds(&known.method, method);
        if invocation.callers.as_ref().is_none_or(|callers| callers.iter().any(may)) {
            return Ok(Ruling::new(true));
        }
        let hash = hash(caller);
        let is_known = |(known, at): &(u64, Timestamp)| *known == hash && turn.now < at.after(REFUSED_AGAIN);
        if invocation.refused.iter().any(is_known) {
            return Ok(Ruling::new(false));
        }
        Ok(Ruling::new(false).change(Change::CallerRefused { caller: caller.clone(), method: method.clone() }))
    }
}

/// Reads who may call; `None` if there is no list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetCallers;

impl Request for GetCallers {
    type Part = Invocation;
    type Reply = Option<Vec<Caller>>;
    const OPERATION: &'static str = "get";
    const NAME: &'static str = "invoke-callers/1";
    const CREATES: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each("", "get");
    }

    fn decide(&self, invocation: &Invocation, _: &PartTurn<'_>) -> Result<Ruling<Change, Self::Reply>, Rejection> {
        Ok(Ruling::new(invocation.callers.clone()))
    }
}

/// States who may call; `None` takes the list away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetCallers {
    /// The list; an empty one lets nobody in. A list that was left out is none that is taken away.
    #[serde(deserialize_with = "Option::deserialize")]
    pub callers: Option<Vec<Caller>>,
}

impl Request for SetCallers {
    type Part = Invocation;
    type Reply = ();
    const OPERATION: &'static str = "set";
    const NAME: &'static str = "invoke-set-callers/1";
    // Operators have a path for it, and nobody else may.
    const IS_PUBLIC: bool = false;
    const CREATES: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each("", "set");
    }

    fn decide(&self, invocation: &Invocation, turn: &PartTurn<'_>) -> Result<Ruling<Change, ()>, Rejection> {
        if matches!(turn.principal(), Principal::Service { .. }) {
            // Whoever may call everything has the right by that grant, too.
            return Err(Rejection::Denied { rule: "only operators state who may call a service".into() });
        }
        let callers = self.callers.as_deref().unwrap_or_default();
        Rejection::within("callers", CALLERS_MAX, callers.len())?;
        for caller in callers {
            check_text("a caller", &caller.service, SERVICE_BYTES_MAX)?;
            check_text("what a caller may call", &caller.method, METHOD_BYTES_MAX)?;
            if caller.service != "*" && !caller.service.contains('/') {
                let detail = format!("the caller '{}' is no service: write 'namespace/name', or '*'", caller.service);
                return Err(Rejection::invalid(detail));
            }
        }
        if invocation.callers == self.callers {
            return Ok(Ruling::new(()));
        }
        Ok(Ruling::new(()).change(Change::CallersSet { callers: self.callers.clone() }))
    }
}

/// The name of a call in scopes, as the caller sees the target.
pub fn name_of(caller: &ServiceId, target: &ServiceId, method: &str) -> CompactString {
    if caller.namespace() == target.namespace() {
        format_compact!("{}/{method}", target.name())
    } else {
        format_compact!("/{target}/{method}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_named_as_the_caller_sees_it() {
        let of = |text: &str| ServiceId::parse(text).unwrap();
        assert_eq!(name_of(&of("shop/a"), &of("shop/b"), "GET /x"), "b/GET /x");
        assert_eq!(name_of(&of("shop/a"), &of("farm/b"), "GET /x"), "/farm/b/GET /x");
    }

    #[test]
    fn an_entry_ends_in_a_star_or_is_whole() {
        assert!(holds("shop/*", "shop/checkout") && holds("*", "") && holds("a", "a"));
        assert!(!holds("shop/*", "farm/checkout") && !holds("a", "ab"));
    }
}
