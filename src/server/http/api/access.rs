//! What the service of a twin may do.

use axum::{http::StatusCode, response::Response};
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{At, Id};
use crate::{
    model::{
        Timestamp,
        grant::{Effect, Grant},
        scope::{Operations, Pattern},
    },
    server::{
        http::caller::{Caller, Document, Object, json},
        identity::Wish,
        problem::{Code, Problem},
    },
    twin::{
        part::Right,
        service::access::{CheckAccess, EditAccess, Explained, GetAccess, Profile},
    },
};

/// A grant as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantBody {
    effect: Effect,
    /// The operations; every one if absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    operations: Vec<CompactString>,
    scope: CompactString,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

impl From<&Grant> for GrantBody {
    fn from(grant: &Grant) -> Self {
        let operations = match &grant.operations {
            Operations::All => Vec::new(),
            Operations::Some(operations) => operations.clone(),
        };
        Self { effect: grant.effect, operations, scope: grant.scope.as_str().into(), expires_at: grant.expires_at }
    }
}

impl GrantBody {
    fn grant(self) -> Result<Grant, Problem> {
        let scope = Pattern::try_from(self.scope).map_err(|error| Problem::new(Code::Invalid, error.to_string()))?;
        let operations = if self.operations.is_empty() { Operations::All } else { Operations::Some(self.operations) };
        Ok(Grant { effect: self.effect, operations, scope, expires_at: self.expires_at })
    }
}

#[derive(Serialize)]
struct AccessBody {
    profile: Profile,
    from_profile: Vec<GrantBody>,
    grants: Vec<GrantBody>,
}

/// Reads profile and grants.
pub(super) async fn view(caller: Caller, At((namespace, name)): At<Id>) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Read)?;
    let view = caller.ask(&service, GetAccess).await?;
    let bodies = |grants: &[Grant]| grants.iter().map(GrantBody::from).collect();
    let body =
        AccessBody { profile: view.profile, from_profile: bodies(&view.from_profile), grants: bodies(&view.grants) };
    Ok(caller.read(view.revision, &body))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EditBody {
    #[serde(default)]
    add: Vec<Object<GrantBody>>,
    #[serde(default)]
    remove: Vec<Object<GrantBody>>,
    profile: Option<Profile>,
}

/// Gives and takes grants, and chooses the profile.
pub(super) async fn edit(
    caller: Caller,
    At((namespace, name)): At<Id>,
    Document(Object(body)): Document<Object<EditBody>>,
) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Grant)?;
    caller.server.admit(&caller.identity.principal, &service, &caller.header()).await?;
    let grants = |bodies: Vec<Object<GrantBody>>| bodies.into_iter().map(|Object(body)| body.grant()).collect();
    let (add, remove): (Result<_, _>, Result<_, _>) = (grants(body.add), grants(body.remove));
    let edit = EditAccess { add: add?, remove: remove?, profile: body.profile, if_match: caller.if_match };
    caller.write(&service, StatusCode::OK, edit, |written| (written.revision, written)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RightBody {
    operation: CompactString,
    /// `capability:name`.
    scope: CompactString,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckBody {
    rights: Vec<Object<RightBody>>,
}

#[derive(Serialize)]
struct Checked {
    operation: CompactString,
    scope: CompactString,
    allowed: bool,
    /// The deciding rule.
    rule: CompactString,
}

fn right(Object(body): Object<RightBody>) -> Result<Right, Problem> {
    let Some((capability, name)) = body.scope.split_once(':') else {
        return Err(Problem::new(Code::Invalid, "a scope is 'capability:name', such as 'state:statestore/order-1'"));
    };
    Ok(Right { capability: capability.into(), name: name.into(), operation: body.operation })
}

fn checked(explained: Explained) -> Checked {
    let Explained { right, allowed, rule } = explained;
    let scope = compact_str::format_compact!("{}:{}", right.capability, right.name);
    Checked { operation: right.operation, scope, allowed, rule }
}

/// Says how rights would be ruled on, and by which rule.
pub(super) async fn check(
    caller: Caller,
    At((namespace, name)): At<Id>,
    Document(Object(body)): Document<Object<CheckBody>>,
) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Read)?;
    let rights = body.rights.into_iter().map(right).collect::<Result<_, _>>()?;
    let explained = caller.ask(&service, CheckAccess { rights }).await?;
    Ok(json(None, &explained.into_iter().map(checked).collect::<Vec<_>>()))
}
