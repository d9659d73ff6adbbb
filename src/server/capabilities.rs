//! Every public request of the registry by its name, for doors that know no capability.
//!
//! A request is read from JSON, asked, and answered in JSON, both as its types have them. `state-get/1` is `get` of
//! `state`. What is not public ([`Request::IS_PUBLIC`]) has doors of its own.

use std::{pin::Pin, sync::LazyLock};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    http::{Caller, Object, unreadable},
    problem::{Code, Problem},
};
use crate::{
    capability::{self, Registry},
    model::ServiceId,
    twin::part::{Part, Request},
};

/// An answer that is waited for.
type Asked<'a> = Pin<Box<dyn Future<Output = Result<Box<RawValue>, Problem>> + Send + 'a>>;

/// A request as it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The capability.
    pub capability: &'static str,
    /// The request, by its name within the capability.
    pub request: &'static str,
    /// The operation that grants, metrics and tokens know it by.
    pub operation: &'static str,
    /// Whether a twin may come into being with it.
    pub creates: bool,
}

struct Door {
    listed: Listed,
    ask: for<'a> fn(&'a Caller, &'a ServiceId, &'a [u8]) -> Asked<'a>,
}

static DOORS: LazyLock<Vec<Door>> = LazyLock::new(|| {
    struct Doors(Vec<Door>);
    impl Registry for Doors {
        fn part<P: Part>(&mut self) {}

        fn request<R: Request>(&mut self) {
            if !R::IS_PUBLIC {
                return;
            }
            let (capability, operation, creates) = (R::Part::NAME, R::OPERATION, R::CREATES);
            let listed = Listed { capability, request: name::<R>(), operation, creates };
            self.0.push(Door { listed, ask: |caller, service, body| Box::pin(ask::<R>(caller, service, body)) });
        }
    }
    let mut doors = Doors(Vec::new());
    capability::register(&mut doors);
    doors.0.sort_by_key(|door| (door.listed.capability, door.listed.request));
    doors.0
});

/// What a request is called within its capability: its name on the wire, without what repeats that, and its version.
fn name<R: Request>() -> &'static str {
    let name = R::NAME.split_once('/').map_or(R::NAME, |(name, _)| name);
    name.strip_prefix(R::Part::NAME).and_then(|name| name.strip_prefix('-')).unwrap_or(name)
}

/// Every public request, in order of its names.
pub fn list() -> Vec<Listed> {
    DOORS.iter().map(|door| door.listed).collect()
}

/// Asks a service's twin for a request by its name. Who asks must be the service, or an operator; that it may is ruled on
/// by the twin.
pub async fn call(
    caller: &Caller,
    (namespace, name): (&str, &str),
    (capability, request): (&str, &str),
    body: &[u8],
) -> Result<Box<RawValue>, Problem> {
    let service = caller.used(namespace, name)?;
    let door = DOORS.iter().find(|door| (door.listed.capability, door.listed.request) == (capability, request));
    let door = door.ok_or_else(|| missing(capability))?;
    (door.ask)(caller, &service, body).await
}

/// Says what there is instead.
fn missing(capability: &str) -> Problem {
    let of = |door: &&Door| door.listed.capability == capability;
    let mut known: Vec<_> = DOORS.iter().filter(of).map(|door| door.listed.request).collect();
    let detail = if known.is_empty() {
        known.extend(DOORS.iter().map(|door| door.listed.capability));
        known.dedup();
        format!("there is no such capability; there are: {}", known.join(", "))
    } else {
        format!("'{capability}' has no such request; it has: {}", known.join(", "))
    };
    Problem::new(Code::NotFound, detail)
}

async fn ask<R: Request>(caller: &Caller, service: &ServiceId, body: &[u8]) -> Result<Box<RawValue>, Problem> {
    let request: R = read(body).map_err(|error| unreadable(&error))?;
    if R::CREATES {
        caller.server.admit(&caller.identity.principal, service, &caller.header()).await?;
    }
    let reply = caller.call(service, request).await?;
    serde_json::value::to_raw_value(&reply)
        .map_err(|error| Problem::new(Code::Internal, format!("the answer does not encode: {error}")))
}

/// Reads a request. One without fields is nothing, `null` or `{}`; any other is an object.
fn read<R: Request>(body: &[u8]) -> Result<R, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    if let Ok(request) = serde_json::from_slice(b"null") {
        return serde_json::from_slice::<Option<Object<Nothing>>>(body).map(|_| request);
    }
    serde_json::from_slice(body).map(|Object(request)| request)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::capability::{secrets::GetSecrets, state::GetStores};

    #[test]
    fn every_request_has_a_name_of_its_own_that_stands_alone_in_a_path() {
        let listed = list();
        let names: BTreeSet<_> = listed.iter().map(|listed| (listed.capability, listed.request)).collect();
        assert_eq!(names.len(), listed.len(), "two requests have one name");
        let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        assert!(names.iter().all(|(capability, request)| is_plain(capability) && is_plain(request)), "{names:?}");
        assert!(names.contains(&("state", "get")) && names.contains(&("topics", "subscription-set")), "{names:?}");
    }

    #[test]
    fn what_is_sealed_permitted_or_internal_is_not_public() {
        let listed = list();
        let has =
            |capability, request| listed.iter().any(|door| (door.capability, door.request) == (capability, request));
        assert!(has("secrets", "list") && has("secrets", "ack"));
        for (capability, request) in [
            ("secrets", "prepare"),
            ("secrets", "put"),
            ("secrets", "get"),
            ("secrets", "compare"),
            ("secrets", "conclude"),
            ("state", "expire"),
            ("invoke", "permit"),
            ("invoke", "set-callers"),
            ("endpoints", "set"),
            ("egress", "connect"),
            ("invoke", "admit"),
            ("topics", "permit"),
        ] {
            assert!(!has(capability, request), "{capability} {request}");
        }
    }

    #[test]
    fn a_request_without_fields_takes_none_and_others_are_objects() {
        for nothing in ["", " ", "null", "{}"] {
            assert_eq!(read::<GetStores>(nothing.as_bytes()).unwrap(), GetStores, "{nothing:?}");
        }
        for something in ["{\"a\":1}", "[]", "7", "{"] {
            assert!(read::<GetStores>(something.as_bytes()).is_err(), "{something}");
        }
        assert_eq!(read::<GetSecrets>(b"").unwrap().secret, None);
        for wrong in ["null", "[\"db\"]", "{\"secrets\":\"db\"}"] {
            assert!(read::<GetSecrets>(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
