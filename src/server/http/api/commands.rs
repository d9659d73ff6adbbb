//! Commands: posting, reading, acknowledging, finishing, cancelling.

use axum::{http::StatusCode, response::Response};
use compact_str::CompactString;
use serde::Deserialize;

use super::{Asked, At, Id, page};
use crate::{
    server::{
        http::caller::{Caller, Document, Object, json},
        identity::Wish,
        problem::Problem,
    },
    twin::service::{
        Json,
        message::{
            AckCommand, CancelCommand, DefineCommand, Finish, FinishCommand, GetCommand, ListCommands, Pace,
            PostCommand, Target,
        },
    },
};

/// Most commands in one page.
const PAGE_MAX: u16 = 200;
/// Commands in a page if the caller does not say.
const PAGE: u16 = 50;

type CommandId = (String, String, u64);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PostBody {
    name: CompactString,
    #[serde(default)]
    parameters: Json,
    #[serde(default)]
    target: Target,
    delivery_timeout_ms: Option<u64>,
    execution_timeout_ms: Option<u64>,
    pace: Option<Object<Pace>>,
}

/// Puts a command into the inbox.
pub(super) async fn send(
    caller: Caller,
    At((namespace, name)): At<Id>,
    Document(Object(body)): Document<Object<PostBody>>,
) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Command)?;
    caller.server.admit(&caller.identity.principal, &service, &caller.header()).await?;
    let post = PostCommand {
        name: body.name,
        parameters: body.parameters,
        target: body.target,
        delivery_timeout_ms: body.delivery_timeout_ms,
        execution_timeout_ms: body.execution_timeout_ms,
        pace: body.pace.map(|Object(pace)| pace),
        if_match: caller.if_match,
    };
    caller.write(&service, StatusCode::ACCEPTED, post, |posted| (posted.revision, posted)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    before: Option<u64>,
    limit: Option<u64>,
}

/// Reads commands, newest first.
pub(super) async fn list(
    caller: Caller,
    At((namespace, name)): At<Id>,
    Asked(query): Asked<ListQuery>,
) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Read)?;
    let list = ListCommands { before: query.before, limit: page(query.limit, PAGE, PAGE_MAX)? };
    Ok(json(None, &caller.ask(&service, list).await?))
}

/// Reads one command.
pub(super) async fn view(caller: Caller, At((namespace, name, id)): At<CommandId>) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Read)?;
    Ok(json(None, &caller.ask(&service, GetCommand { id }).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AckBody {
    instance: CompactString,
}

/// Notes that an instance has begun with a command.
pub(super) async fn acknowledge(
    caller: Caller,
    At((namespace, name, id)): At<CommandId>,
    Document(Object(body)): Document<Object<AckBody>>,
) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Serve)?;
    caller.speak_for(&body.instance)?;
    let acknowledge = AckCommand { id, instance: body.instance };
    caller.write(&service, StatusCode::OK, acknowledge, |written| (written.revision, written)).await
}

/// How an instance ended with a command: `error` if it failed, otherwise `result` or nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FinishBody {
    instance: CompactString,
    result: Option<Json>,
    error: Option<CompactString>,
}

/// Notes how an instance ended with a command.
pub(super) async fn finish(
    caller: Caller,
    At((namespace, name, id)): At<CommandId>,
    Document(Object(body)): Document<Object<FinishBody>>,
) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Serve)?;
    caller.speak_for(&body.instance)?;
    let finish = match body.error {
        Some(error) => Finish::Failed { error },
        None => Finish::Succeeded { result: body.result },
    };
    let finish = FinishCommand { id, instance: body.instance, finish };
    caller.write(&service, StatusCode::OK, finish, |written| (written.revision, written)).await
}

/// Takes a command back wherever it has not ended.
pub(super) async fn cancel(caller: Caller, At((namespace, name, id)): At<CommandId>) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Command)?;
    let cancel = CancelCommand { id, if_match: caller.if_match };
    caller.write(&service, StatusCode::OK, cancel, |written| (written.revision, written)).await
}

/// States what parameters a command takes: a schema in JSON.
pub(super) async fn define(
    caller: Caller,
    At((namespace, name, command)): At<(String, String, String)>,
    Document(schema): Document<Json>,
) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Set)?;
    caller.server.admit(&caller.identity.principal, &service, &caller.header()).await?;
    let define = DefineCommand { name: command.into(), schema: Some(schema), if_match: caller.if_match };
    caller.write(&service, StatusCode::OK, define, |written| (written.revision, written)).await
}

/// Takes a command's schema away.
pub(super) async fn undefine(
    caller: Caller,
    At((namespace, name, command)): At<(String, String, String)>,
) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Set)?;
    let define = DefineCommand { name: command.into(), schema: None, if_match: caller.if_match };
    caller.write(&service, StatusCode::OK, define, |written| (written.revision, written)).await
}
