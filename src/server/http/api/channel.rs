//! An instance opens a way to its application.

use axum::{
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{Asked, At};
use crate::server::{
    channel::{Opening, Protocol, UPGRADE},
    http::caller::Caller,
    identity::Wish,
    problem::{Code, Problem},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChannelQuery {
    #[serde(default)]
    protocol: Protocol,
}

/// Turns the connection into one on which the node asks the application of this instance.
pub(super) async fn open(
    caller: Caller,
    At((namespace, name, instance)): At<(String, String, String)>,
    Asked(query): Asked<ChannelQuery>,
    mut request: Request,
) -> Result<Response, Problem> {
    let service = caller.service(&namespace, &name, Wish::Serve)?;
    caller.speak_for(&instance)?;
    let asked = request.headers().get(header::UPGRADE);
    if !asked.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(UPGRADE.as_bytes())) {
        let detail = format!("a channel is opened over HTTP/1.1 with 'Connection: upgrade' and 'Upgrade: {UPGRADE}'");
        return Err(Problem::new(Code::Invalid, detail));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let (instance, protocol, identity) = (instance.into(), query.protocol, caller.identity.clone());
    caller.server.open_channel(Opening { service, instance, protocol, identity, upgrade })?;
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, UPGRADE)];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}
