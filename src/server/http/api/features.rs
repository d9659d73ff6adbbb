//! Features (desired, reported, effective) and what instances say of themselves.

use axum::{http::StatusCode, response::Response};
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{At, Id};
use crate::{
    server::{
        http::caller::{Caller, Document, Object},
        identity::Wish,
        problem::{Code, Problem},
    },
    twin::service::{
        Json,
        message::{Applied, Deregister, Edit, GetFeature, GetView, Heartbeat, Report, SelfHealth, SetDesired},
    },
};

type FeatureId = (String, String, String);

/// Reads every feature.
pub(super) async fn list(caller: Caller, At((namespace, name)): At<Id>) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Read)?;
    let view = caller.ask(&service, GetView { behaviour: false }).await?;
    Ok(caller.read(view.revision, &view.features))
}

/// Reads one feature.
pub(super) async fn view(caller: Caller, At((namespace, name, feature)): At<FeatureId>) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Read)?;
    let view = caller.ask(&service, GetFeature { feature: feature.into() }).await?;
    Ok(caller.read(view.revision, &view))
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are the API's")]
struct Delta<'a> {
    in_sync: bool,
    desired_version: u64,
    /// Absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<&'a Json>,
}

/// Reads what is desired of a feature and not so.
pub(super) async fn delta(caller: Caller, At((namespace, name, feature)): At<FeatureId>) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Read)?;
    let view = caller.ask(&service, GetFeature { feature: feature.into() }).await?;
    let delta = Delta { in_sync: view.in_sync, desired_version: view.desired_version, delta: view.delta.as_ref() };
    Ok(caller.read(view.revision, &delta))
}

/// Puts a document in the place of what was desired.
pub(super) async fn replace(
    caller: Caller,
    At(id): At<FeatureId>,
    Document(document): Document<Json>,
) -> Result<Response, Problem> {
    set(caller, id, Edit::Replace(document)).await
}

/// Changes what is desired by a merge patch.
pub(super) async fn patch(
    caller: Caller,
    At(id): At<FeatureId>,
    Document(patch): Document<Json>,
) -> Result<Response, Problem> {
    set(caller, id, Edit::Patch(patch)).await
}

/// Takes away what is desired.
pub(super) async fn remove(caller: Caller, At(id): At<FeatureId>) -> Result<Response, Problem> {
    set(caller, id, Edit::Remove).await
}

async fn set(caller: Caller, (namespace, name, feature): FeatureId, edit: Edit) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Set)?;
    match &edit {
        Edit::Patch(_) | Edit::Replace(_) => {
            caller.server.admit(&caller.identity.principal, &service, &caller.header()).await?;
        }
        Edit::Remove => {}
    }
    let set = SetDesired { feature: feature.into(), edit, if_match: caller.if_match };
    caller.write(&service, StatusCode::OK, set, |written| (written.revision, written)).await
}

/// What an instance reports: whole documents in `reported` and `effective`, patches in the fields of that name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReportBody {
    instance: Option<CompactString>,
    reported: Option<Json>,
    reported_patch: Option<Json>,
    effective: Option<Json>,
    effective_patch: Option<Json>,
    applied: Option<Object<Applied>>,
}

fn edit(name: &str, whole: Option<Json>, patch: Option<Json>) -> Result<Option<Edit>, Problem> {
    match (whole, patch) {
        (Some(_), Some(_)) => Err(Problem::new(Code::Invalid, format!("send '{name}' or '{name}_patch', not both"))),
        (Some(whole), None) => Ok(Some(Edit::Replace(whole))),
        (None, Some(patch)) => Ok(Some(Edit::Patch(patch))),
        (None, None) => Ok(None),
    }
}

/// Takes what a service says of a feature.
pub(super) async fn report(
    caller: Caller,
    At((namespace, name, feature)): At<FeatureId>,
    Document(Object(body)): Document<Object<ReportBody>>,
) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Serve)?;
    body.instance.as_deref().map_or(Ok(()), |instance| caller.speak_for(instance))?;
    caller.server.admit(&caller.identity.principal, &service, &caller.header()).await?;
    let report = Report {
        instance: body.instance,
        feature: feature.into(),
        reported: edit("reported", body.reported, body.reported_patch)?,
        effective: edit("effective", body.effective, body.effective_patch)?,
        applied: body.applied.map(|Object(applied)| applied),
        if_match: caller.if_match,
    };
    caller.write(&service, StatusCode::OK, report, |written| (written.revision, written)).await
}

/// What an instance says with a heartbeat; all of it may be left out.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HeartbeatBody {
    version: Option<CompactString>,
    health: Option<Object<SelfHealth>>,
}

/// Notes that an instance is there, and how it is.
pub(super) async fn heartbeat(
    caller: Caller,
    At((namespace, name, instance)): At<FeatureId>,
    Document(body): Document<Option<Object<HeartbeatBody>>>,
) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Serve)?;
    caller.speak_for(&instance)?;
    caller.server.admit(&caller.identity.principal, &service, &caller.header()).await?;
    let HeartbeatBody { version, health } = body.map(|Object(body)| body).unwrap_or_default();
    let health = health.map(|Object(health)| health);
    let heartbeat = Heartbeat { instance: instance.into(), version, health };
    caller.write(&service, StatusCode::OK, heartbeat, |written| (written.revision, written)).await
}

/// Notes that an instance has gone in good order.
pub(super) async fn deregister(
    caller: Caller,
    At((namespace, name, instance)): At<FeatureId>,
) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Serve)?;
    caller.speak_for(&instance)?;
    let deregister = Deregister { instance: instance.into() };
    caller.write(&service, StatusCode::OK, deregister, |written| (written.revision, written)).await
}
