//! The native API under `/api/v1`.

mod access;
mod callers;
mod capabilities;
mod channel;
mod cluster;
mod commands;
mod configuration;
mod endpoints;
mod events;
mod features;
mod keys;
mod secrets;
mod state;
mod subscriptions;
mod twins;

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Path, Query, rejection::QueryRejection},
    http::request::Parts,
    routing::{MethodRouter, delete, get, post, put},
};
use serde::de::DeserializeOwned;

use crate::server::{
    Server,
    http::caller::plainly,
    problem::{Code, Problem},
};

/// Every path of the native API with what serves it.
pub fn routes() -> Vec<(&'static str, MethodRouter<Arc<Server>>)> {
    vec![
        ("/api/v1/openapi.json", get(super::openapi::answer)),
        ("/api/v1/twins", get(twins::list)),
        ("/api/v1/twins/{namespace}/{name}", get(twins::view).put(twins::create).delete(twins::remove)),
        ("/api/v1/twins/{namespace}/{name}/attributes", get(twins::attributes).patch(twins::set_attributes)),
        ("/api/v1/twins/{namespace}/{name}/attributes/{attribute}", get(twins::attribute)),
        ("/api/v1/twins/{namespace}/{name}/behaviour", get(twins::behaviour)),
        ("/api/v1/twins/{namespace}/{name}/journal", get(twins::journal)),
        ("/api/v1/twins/{namespace}/{name}/features", get(features::list)),
        ("/api/v1/twins/{namespace}/{name}/features/{feature}", get(features::view)),
        (
            "/api/v1/twins/{namespace}/{name}/features/{feature}/desired",
            put(features::replace).patch(features::patch).delete(features::remove),
        ),
        ("/api/v1/twins/{namespace}/{name}/features/{feature}/delta", get(features::delta)),
        ("/api/v1/twins/{namespace}/{name}/features/{feature}/report", post(features::report)),
        ("/api/v1/twins/{namespace}/{name}/instances", get(twins::instances)),
        (
            "/api/v1/twins/{namespace}/{name}/instances/{instance}",
            put(features::heartbeat).delete(features::deregister),
        ),
        ("/api/v1/twins/{namespace}/{name}/instances/{instance}/commands", get(events::commands)),
        ("/api/v1/twins/{namespace}/{name}/instances/{instance}/channel", get(channel::open)),
        ("/api/v1/twins/{namespace}/{name}/commands", get(commands::list).post(commands::send)),
        ("/api/v1/twins/{namespace}/{name}/commands/{id}", get(commands::view)),
        ("/api/v1/twins/{namespace}/{name}/commands/{id}/ack", post(commands::acknowledge)),
        ("/api/v1/twins/{namespace}/{name}/commands/{id}/result", post(commands::finish)),
        ("/api/v1/twins/{namespace}/{name}/commands/{id}/cancel", post(commands::cancel)),
        (
            "/api/v1/twins/{namespace}/{name}/command-definitions/{command}",
            put(commands::define).delete(commands::undefine),
        ),
        ("/api/v1/twins/{namespace}/{name}/access", get(access::view).patch(access::edit)),
        ("/api/v1/twins/{namespace}/{name}/access/check", post(access::check)),
        ("/api/v1/twins/{namespace}/{name}/callers", get(callers::view).put(callers::set).delete(callers::clear)),
        ("/api/v1/twins/{namespace}/{name}/configuration", get(configuration::view).patch(configuration::put)),
        ("/api/v1/twins/{namespace}/{name}/configuration/rollback", post(configuration::rollback)),
        ("/api/v1/twins/{namespace}/{name}/configuration/applied", post(configuration::applied)),
        ("/api/v1/twins/{namespace}/{name}/components", get(configuration::components)),
        (
            "/api/v1/twins/{namespace}/{name}/components/{component}",
            put(configuration::add_component).delete(configuration::remove_component),
        ),
        ("/api/v1/twins/{namespace}/{name}/endpoints", get(endpoints::list)),
        ("/api/v1/twins/{namespace}/{name}/endpoints/{instance}", put(endpoints::set).delete(endpoints::remove)),
        ("/api/v1/twins/{namespace}/{name}/capabilities/{capability}/{request}", post(capabilities::call)),
        ("/api/v1/twins/{namespace}/{name}/secrets", get(secrets::list)),
        (
            "/api/v1/twins/{namespace}/{name}/secrets/{secret}",
            get(secrets::view).put(secrets::put).delete(secrets::delete),
        ),
        ("/api/v1/twins/{namespace}/{name}/secrets/{secret}/value", get(secrets::read)),
        ("/api/v1/twins/{namespace}/{name}/secrets/{secret}/ack", post(secrets::ack)),
        ("/api/v1/twins/{namespace}/{name}/state", get(state::stores)),
        (
            "/api/v1/twins/{namespace}/{name}/state/{store}",
            get(state::list).post(state::transact).put(state::add_store).delete(state::remove_store),
        ),
        (
            "/api/v1/twins/{namespace}/{name}/state/{store}/{state_key}",
            get(state::get).put(state::put).delete(state::delete),
        ),
        ("/api/v1/twins/{namespace}/{name}/topics/replay", post(subscriptions::replay)),
        ("/api/v1/twins/{namespace}/{name}/subscriptions", get(subscriptions::list)),
        (
            "/api/v1/twins/{namespace}/{name}/subscriptions/{subscription}",
            put(subscriptions::set).delete(subscriptions::remove),
        ),
        ("/api/v1/twins/{namespace}/{name}/events", get(events::of_twin)),
        ("/api/v1/events", get(events::of_all)),
        ("/api/v1/capabilities", get(capabilities::list)),
        ("/api/v1/cluster", get(cluster::view)),
        ("/api/v1/keys", get(keys::list).post(keys::mint)),
        ("/api/v1/keys/revoke", post(keys::revoke_issued_before)),
        ("/api/v1/keys/{key}", delete(keys::revoke)),
        ("/api/v1/keys/{key}/rotate", post(keys::rotate)),
    ]
}

/// Path parameters, or a problem.
pub(super) struct At<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for At<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(error) => {
                let text = error.body_text();
                let cause = text.split_once(": ").map_or(&*text, |(_, cause)| cause);
                Err(Problem::new(Code::Invalid, format!("the path: {}", plainly(cause))))
            }
        }
    }
}

/// Query parameters, or a problem.
struct Asked<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(error) => Err(query(&error)),
        }
    }
}

/// A namespace and a name.
type Id = (String, String);

/// Refuses a number of entries outside of what a page may have.
fn page(limit: Option<u64>, default: u16, max: u16) -> Result<u16, Problem> {
    let Some(limit) = limit else { return Ok(default) };
    let fits = u16::try_from(limit).ok().filter(|limit| (1..=max).contains(limit));
    fits.ok_or_else(|| Problem::new(Code::BadQuery, format!("limit is {limit}, it must be between 1 and {max}")))
}

/// What is wrong with a query, without the words of the library that read it.
fn query(error: &QueryRejection) -> Problem {
    let text = error.body_text();
    let cause = text.split_once(": ").map_or(&*text, |(_, cause)| cause);
    Problem::new(Code::BadQuery, format!("the query: {}", plainly(cause)))
}
