//! An instance opens a way to its application.

use axum::{
    extract::Request,
    http::{HeaderValue, StatusCode, Version, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{Asked, At};
use crate::{
    server::{
        channel::{Opening, Protocol, UPGRADE},
        connection::Connection,
        http::caller::Caller,
        identity::Wish,
        problem::{Code, Problem},
    },
    twin::{Rejection, service::limits::INSTANCE_ID_BYTES_MAX},
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
    Rejection::within("instance id bytes", INSTANCE_ID_BYTES_MAX, instance.len())
        .map_err(|rejection| caller.server.problem(&rejection.into()))?;
    let says = |name, word: &str| {
        let values = request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|said| said.trim().eq_ignore_ascii_case(word))
    };
    let is_asked = says(header::UPGRADE, UPGRADE) && says(header::CONNECTION, "upgrade");
    if !is_asked || request.version() != Version::HTTP_11 {
        let detail = format!("a channel is opened over HTTP/1.1 with 'Connection: upgrade' and 'Upgrade: {UPGRADE}'");
        return Err(Problem::new(Code::Invalid, detail));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let (instance, protocol, identity) = (instance.into(), query.protocol, caller.identity.clone());
    let connection = Connection::of(request.extensions());
    caller.server.open_channel(Opening { service, instance, protocol, identity, connection, upgrade })?;
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, UPGRADE)];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}
