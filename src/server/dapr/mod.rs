//! The Dapr door: requests of unmodified Dapr SDKs, translated to capability requests of the caller's own twin.
//!
//! Wire facts: the HTTP reference of the Dapr API v1.0 and `dapr.proto.runtime.v1` (Apache-2.0, from the crate `dapr`).
//! Dapr's words stop here: [`state`] and its siblings turn them into requests of `capability`, and
//! [`refusal`] turns what is refused into the codes and statuses that SDKs look for. What is not served is answered
//! `UNIMPLEMENTED` (gRPC) or 501 (HTTP), on which SDKs fall back.

pub mod app;
pub mod configuration;
pub mod event;
mod headers;
pub mod invoke;
pub mod metadata;
pub mod pubsub;
pub mod push;
pub mod refusal;
pub mod secrets;
pub mod state;

use std::{sync::Arc, time::Duration};

use axum::http::HeaderMap;
pub use refusal::{Block, Refusal};

use super::{
    Server,
    connection::Connection,
    identity::Identity,
    problem::{Code, Problem},
};
use crate::{
    model::{Consistency, Header, Principal, ServiceId, TraceParent},
    twin::{Failure, Rejection, part::Request},
};

/// The version of Dapr's API that is spoken, as clients may ask for it.
pub const RUNTIME_VERSION: &str = "1.18.0";

/// Most keys that one request reads.
pub const KEYS_MAX: usize = 1024;

/// A service speaking to its own twin.
#[derive(Clone)]
pub struct Session {
    /// What every door shares.
    pub server: Arc<Server>,
    /// The service; its twin is the one that is spoken to.
    pub service: ServiceId,
    identity: Identity,
    header: Header,
}

impl Session {
    /// Establishes which service speaks. Only the key of one service names a twin.
    ///
    /// A request that `may_lack_token` counts as the only service heard on its connection.
    pub async fn open(
        server: &Arc<Server>,
        headers: &HeaderMap,
        connection: &Connection,
        may_lack_token: bool,
    ) -> Result<Self, Problem> {
        let identity = if may_lack_token {
            server.identify_stream(headers, connection).await?
        } else {
            server.identify(headers, connection).await?
        };
        server.ready()?;
        let mut session = Self::of(Arc::clone(server), identity)?;
        let trace = headers.get("traceparent").and_then(|value| value.to_str().ok()).and_then(TraceParent::parse);
        if let Some(trace) = trace {
            session.header = session.header.with_trace(trace);
        }
        Ok(session)
    }

    /// The session of whoever holds the key of one service.
    pub fn of(server: Arc<Server>, identity: Identity) -> Result<Self, Problem> {
        let Principal::Service { service, .. } = &*identity.principal else {
            let detail = "the Dapr API is spoken with the key of one service: make one with 'twin key new --service …'";
            return Err(Problem::new(Code::Denied, detail));
        };
        Ok(Self { service: service.clone(), header: identity.header(), server, identity })
    }

    /// Ends what holders of this key have open, and forgets what the service said of itself; nothing else.
    pub fn end(&self) {
        self.server.extended.forget(&self.service);
        self.server.subscriptions.end_all(&self.service, self.key_id());
    }

    fn key_id(&self) -> &str {
        self.identity.principal.key_id().unwrap_or_default()
    }

    /// The same session with what its answers shall rest on.
    #[must_use]
    pub fn consistent(mut self, consistency: Consistency) -> Self {
        self.header = self.header.with_consistency(consistency);
        self
    }

    /// What travels beside a message of this session; the time for it begins now.
    pub fn header(&self) -> Header {
        let within = Duration::from_secs(self.server.config.deadline_s);
        self.header.clone().with_deadline(self.server.now().after(within))
    }

    /// How a failure is refused that is about something of this name.
    pub(super) fn refused<'a>(&'a self, block: Block, name: &'a str) -> impl Fn(Failure) -> Refusal + 'a {
        move |failure| Refusal::of(block, name, &failure, |failure| self.server.problem(failure))
    }

    /// Refuses a request about something of this name that would cross a bound.
    fn within(&self, block: Block, name: &str, limit: &'static str, max: usize, actual: usize) -> Result<(), Refusal> {
        let within = Rejection::within(limit, max, actual);
        within.map_err(|rejection| self.refused(block, name)(rejection.into()))
    }

    /// Asks the twin for a capability, about something of this name.
    async fn ask_for<R: Request>(&self, block: Block, name: &str, request: R) -> Result<R::Reply, Refusal> {
        self.call(request).await.map_err(self.refused(block, name))
    }

    /// Asks the twin for a capability.
    pub async fn call<R: Request>(&self, request: R) -> Result<R::Reply, Failure> {
        self.server.call(&self.service, request, self.header(), None).await
    }
}
